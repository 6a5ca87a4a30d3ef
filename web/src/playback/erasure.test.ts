import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readShards, shardLength, type Shard } from './erasure';

interface Vector {
  shape: string;
  chunk: string;
  sha256: string;
  shards: string[];
}

const vectors = JSON.parse(readFileSync('../crates/erasure/vectors.json', 'utf8')) as Vector[];

function bytes(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (digits) => parseInt(digits, 16));
}

/** All ways to choose so many of so many. */
function* choices(count: number, of: number, first = 0): Generator<number[]> {
  if (count === 0) {
    yield [];
    return;
  }
  for (let at = first; at <= of - count; at += 1) for (const rest of choices(count - 1, of, at + 1)) yield [at, ...rest];
}

describe('reading shards', () => {
  it.each(vectors)('gives what the Rust code made of $shape', ({ shape, chunk, shards }) => {
    const [data = 0, parity = 0] = shape.split('+').map(Number);
    const whole = bytes(chunk);
    const all: Shard[] = shards.map((hex, index) => ({ index, bytes: bytes(hex) }));
    expect(all.length).toBe(data + parity);
    expect(all.every((shard) => shard.bytes.length === shardLength(whole.length, data))).toBe(true);
    let tried = 0;
    for (const chosen of choices(data, data + parity)) {
      // Of a large code not every way there is.
      if (tried++ > 200) break;
      const some = chosen.map((index) => all[index]!);
      expect(readShards(whole.length, data, parity, some)).toEqual(whole);
    }
    const last = all.slice(parity);
    expect(readShards(whole.length, data, parity, last)).toEqual(whole);
  });

  it('says how many are missing', () => {
    const shard = { index: 1, bytes: new Uint8Array(4) };
    expect(() => readShards(10, 3, 2, [shard, shard])).toThrow('1 of the 3 shards');
    expect(() => readShards(10, 3, 2, [{ index: 0, bytes: new Uint8Array(3) }])).toThrow('0 of the 3 shards');
  });
});
