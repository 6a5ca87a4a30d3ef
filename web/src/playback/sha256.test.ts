import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { hex, sha256 } from './sha256';

const ascii = (text: string) => new TextEncoder().encode(text);

/** A small generator (mulberry32), so that a failing run can be repeated. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

describe('sha256', () => {
  it('gives the digests of FIPS 180-4 and of the NIST examples', () => {
    const table: [string, string][] = [
      ['', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
      ['abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
      [
        'abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq',
        '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1',
      ],
      ['a'.repeat(1_000_000), 'cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0'],
    ];
    for (const [text, digest] of table) expect(hex(sha256(ascii(text)))).toBe(digest);
  });

  it('agrees with node:crypto at every length around the block edges and at random ones', () => {
    const random = generator(7);
    const lengths = [...Array(200).keys(), ...Array.from({ length: 40 }, () => Math.floor(random() * 300_000))];
    for (const length of lengths) {
      const bytes = Uint8Array.from({ length }, () => Math.floor(random() * 256));
      expect(hex(sha256(bytes)), `length ${length}`).toBe(createHash('sha256').update(bytes).digest('hex'));
    }
  });

  it('reads a view into a larger buffer, not the buffer', () => {
    const backing = ascii('xxabcxx');
    expect(hex(sha256(backing.subarray(2, 5)))).toBe(hex(sha256(ascii('abc'))));
  });
});
