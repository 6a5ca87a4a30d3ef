import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { setsWithTheLast } from './shard_sets';

/** Shards are named by their index and a letter that stands for their bytes. */
interface Case {
  name: string;
  needed: number;
  most: number;
  here: string[];
  sets: string[][];
}

const cases = JSON.parse(readFileSync('../crates/playback/vectors/sets.json', 'utf8')) as Case[];

const shard = (name: string) => ({ name, index: parseInt(name, 10) });

describe('sets of shards', () => {
  it.each(cases)('are those of the Rust code: $name', ({ needed, most, here, sets }) => {
    const found = setsWithTheLast(here.map(shard), needed, most);
    expect(found.map((set) => set.map(({ name }) => name))).toEqual(sets);
  });

  it('are said at once to be none where twins take all places', () => {
    const twins = Array.from({ length: 15 }, (_, index) => ['a', 'b', 'c'].map((letter) => shard(`${index}${letter}`)));
    const here = [...twins.flat(), shard('0d')];
    expect(setsWithTheLast(here, 16, 64)).toEqual([]);
    expect(setsWithTheLast(here, 15, 64).length).toBe(64);
  });
});
