import { describe, expect, it } from 'vitest';
import { type Decodable, join, workerDecoder } from './decoder';
import { CODED, FakeWorker, World } from './testing';

const some = (...indexes: number[]): Decodable => ({
  sizeBytes: CODED.bytes.length,
  dataShards: 3,
  parityShards: 2,
  shards: indexes.map((index) => ({ index, bytes: CODED.shards[index]! })),
});

describe('joining shards', () => {
  it('decodes only when a data shard is missing', async () => {
    const { decoder } = new World(() => ({ kind: 'unreachable' }));
    for (const indexes of [[0, 1, 2], [2, 1, 0], [4, 2, 0, 1]]) {
      expect(await join(some(...indexes), decoder)).toEqual(CODED.bytes);
    }
    expect(decoder.count).toBe(0);
    for (const indexes of [[0, 1, 3], [4, 3, 2]]) expect(await join(some(...indexes), decoder)).toEqual(CODED.bytes);
    expect(decoder.count).toBe(2);
  });
});

describe('the decoding worker', () => {
  function setUp() {
    const fake = new FakeWorker();
    let begun = 0;
    const decoder = workerDecoder(() => {
      begun += 1;
      return fake.worker;
    });
    return { fake, decoder, begun: () => begun };
  }

  it('begins when it is needed, once, and gives what it answers', async () => {
    const { fake, decoder, begun } = setUp();
    expect(begun()).toBe(0);
    const both = [decoder.decode(some(0, 1, 3)), decoder.decode(some(2, 3, 4))];
    expect(begun()).toBe(1);
    expect(fake.asked.map(({ question }) => question)).toEqual([some(0, 1, 3), some(2, 3, 4)]);
    fake.onmessage?.({ data: { ticket: fake.asked[1]!.ticket, answer: 'the second' } });
    fake.onmessage?.({ data: { ticket: fake.asked[0]!.ticket, answer: 'the first' } });
    expect(await Promise.all(both)).toEqual(['the first', 'the second']);
  });

  it('is done without when it breaks, or cannot be had', async () => {
    const { fake, decoder } = setUp();
    const decoding = decoder.decode(some(0, 3, 4));
    fake.onerror?.();
    expect(await decoding).toEqual(CODED.bytes);
    expect(await decoder.decode(some(1, 3, 4))).toEqual(CODED.bytes);
    expect(fake.asked.length, 'it is not asked again').toBe(1);
    const without = workerDecoder(() => {
      throw new Error('not by this policy');
    });
    expect(await without.decode(some(2, 3, 4))).toEqual(CODED.bytes);
  });

  it('fails where the shards are wrong', async () => {
    const { fake, decoder } = setUp();
    const decoding = decoder.decode(some(3, 4));
    fake.onmessage?.({ data: { ticket: fake.asked[0]!.ticket, error: 'too few' } });
    await expect(decoding).rejects.toThrow('2 of the 3 shards');
  });

  it('ends with the player', async () => {
    const { fake, decoder } = setUp();
    const decoding = decoder.decode(some(0, 3, 4));
    decoder.close();
    await expect(decoding).rejects.toThrow('closed');
    expect(fake.isTerminated).toBe(true);
  });
});
