import { describe, expect, it } from 'vitest';
import type { Manifest } from '../api/types';
import { ManifestRenewal } from './manifest_renewal';
import { makeManifest } from './testing';

const manifest = makeManifest([1]);

function setUp(ask: () => Promise<Manifest> = async () => manifest) {
  const state = { now: 0, asked: 0, isNewer: false };
  const asking = () => {
    state.asked += 1;
    return ask();
  };
  const renewal = new ManifestRenewal(
    () => state.now,
    asking,
    () => state.isNewer,
  );
  const wantAt = async (now: number) => {
    state.now = now;
    renewal.want();
    await new Promise((done) => setImmediate(done));
    return state.asked;
  };
  const useAt = async (now: number) => {
    state.now = now;
    renewal.used();
    await new Promise((done) => setImmediate(done));
    return state.asked;
  };
  return { state, wantAt, useAt };
}

describe('asking for a newer manifest', () => {
  it('happens less and less often while there is none, and often again once there is', async () => {
    const { state, wantAt } = setUp();
    const times = [0, 999, 1_000, 2_999, 3_000, 6_999, 7_000, 14_999, 15_000, 22_999, 23_000];
    const counts: number[] = [];
    for (const now of times) counts.push(await wantAt(now));
    expect(counts).toEqual([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]);
    state.isNewer = true;
    expect(await wantAt(31_000)).toBe(7);
    expect(await wantAt(31_999)).toBe(7);
    expect(await wantAt(32_000)).toBe(8);
  });

  it('waits for the answer to the last call', async () => {
    let answer = (_: Manifest) => {};
    const { wantAt } = setUp(() => new Promise((done) => (answer = done)));
    expect(await wantAt(0)).toBe(1);
    expect(await wantAt(60_000)).toBe(1);
    answer(manifest);
    await wantAt(60_000);
    expect(await wantAt(61_000)).toBe(2);
  });

  it('goes on after a call that failed', async () => {
    const { wantAt } = setUp(() => Promise.reject(new Error('the service does not answer')));
    expect([await wantAt(0), await wantAt(999), await wantAt(1_000)]).toEqual([1, 1, 2]);
  });

  it('happens when the one at hand is old and used, and keeps nobody waiting who misses something', async () => {
    const { wantAt, useAt } = setUp();
    expect([await useAt(0), await useAt(19_999), await useAt(20_000)]).toEqual([0, 0, 1]);
    expect([await useAt(39_999), await useAt(40_000)]).toEqual([1, 2]);
    expect([await wantAt(40_000), await wantAt(40_999), await wantAt(41_000)]).toEqual([3, 3, 4]);
    expect([await useAt(60_999), await useAt(61_000)]).toEqual([4, 5]);
  });
});
