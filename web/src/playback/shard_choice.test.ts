import { describe, expect, it } from 'vitest';
import type { Prospect } from './node_book';
import type { ShardPlace } from './places';
import { Class } from './score';
import { nextShard } from './shard_choice';

/** `a0`: shard 0 of node a. */
const shards = (...names: string[]): ShardPlace[] =>
  names.map((id) => ({ id, sizeBytes: 1, sha256: '', node: id[0]!, index: Number(id[1]) }));

function prospect(node: string, expectedMs: number | null, which = Class.Measured): Prospect {
  return { node, expectedMs, which };
}

const next = (names: string[], ...prospects: Prospect[]) => nextShard(shards(...names), 3, prospects)?.id ?? null;

describe('the next shard', () => {
  it('is a data shard as long as its node is not much slower than the best', () => {
    const table: [data: number | null, parity: number | null, chosen: string][] = [
      [20, 20, 'a0'],
      // More than one and a half times as long, but by little.
      [14, 5, 'a0'],
      [15, 5, 'a0'],
      [16, 5, 'd3'],
      // Longer by much, but not in proportion.
      [150, 100, 'a0'],
      [151, 100, 'd3'],
      // What is not known is not held against it.
      [null, 5, 'a0'],
      [500, null, 'a0'],
      [Infinity, 5, 'd3'],
      [Infinity, Infinity, 'a0'],
    ];
    for (const [data, parity, chosen] of table) {
      expect(next(['a0', 'd3'], prospect('d', parity), prospect('a', data)), `${data} and ${parity} ms`).toBe(chosen);
    }
  });

  it('is the best of those that are alike', () => {
    expect(next(['a0', 'b1', 'd3'], prospect('d', 5), prospect('b', 6), prospect('a', 5))).toBe('b1');
    expect(next(['d3', 'e4'], prospect('e', 5), prospect('d', 5))).toBe('e4');
  });

  it('is compared with data shards too', () => {
    expect(next(['a0', 'b1', 'd3'], prospect('a', 100), prospect('b', 10), prospect('d', 90))).toBe('b1');
    expect(next(['a0', 'd3'], prospect('a', 100), prospect('d', 90))).toBe('a0');
  });

  it('is of a trusted node, before it spares decoding', () => {
    const ready = prospect('d', 500);
    for (const which of [Class.Probe, Class.BackingOff, Class.Avoided]) {
      expect(next(['a0', 'd3'], prospect('a', 1, which), ready)).toBe('d3');
    }
    for (const which of [Class.Explored, Class.Unmeasured]) {
      expect(next(['a0', 'd3'], ready, prospect('a', null, which))).toBe('a0');
    }
    expect(next(['a0', 'd3'], prospect('a', 1, Class.Avoided), prospect('d', 1, Class.BackingOff))).toBe('d3');
  });

  it('is none when nobody who may be asked has one', () => {
    expect(next(['a0'])).toBeNull();
    expect(next(['a0'], prospect('b', 1))).toBeNull();
    expect(next([], prospect('b', 1))).toBeNull();
  });
});
