import { describe, expect, it } from 'vitest';
import { Breaker, pauseMs } from './breaker';
import { Latency, Outcomes, Rate } from './estimate';
import { NodeBook } from './node_book';
import { Class } from './score';

describe('Rate', () => {
  it('is bytes over the busy time of the node, the lesser of a fast and a slow mean', () => {
    const rate = new Rate();
    expect(rate.mbps).toBeNull();
    rate.begin(1000);
    rate.begin(1000);
    rate.progress(1400, 1_000_000);
    rate.progress(1800, 1_000_000);
    rate.end(1800);
    rate.end(1800);
    expect(rate.mbps).toBeCloseTo(20, 9);
    rate.begin(60_000);
    rate.progress(60_800, 1_000_000);
    rate.end(60_800);
    expect(rate.mbps).toBeCloseTo(15, 9);
    rate.begin(70_000);
    rate.progress(70_200, 1_000_000);
    rate.end(70_200);
    expect(rate.mbps).toBeCloseTo(21.725, 9);
  });

  it('is lowered by a transfer that is overtaken, and never raised', () => {
    const rate = new Rate();
    rate.begin(0);
    rate.noMoreThan(10, 1_000_000, 10);
    expect(rate.mbps).toBeNull();
    rate.progress(100, 1_000_000);
    rate.end(100);
    expect(rate.mbps).toBeCloseTo(80, 9);
    rate.begin(1000);
    rate.noMoreThan(1010, 1_000_000, 10);
    expect(rate.mbps).toBeCloseTo(80, 9);
    rate.noMoreThan(1400, 1_000_000, 400);
    rate.end(1400);
    expect(rate.mbps).toBeCloseTo(50, 9);
    rate.begin(2000);
    rate.begin(2000);
    rate.noMoreThan(2320, 1_000_000, 320);
    expect(rate.mbps).toBeCloseTo(50, 9);
  });

  it('learns nothing from small transfers, and zero from silent ones', () => {
    const rate = new Rate();
    rate.begin(0);
    rate.progress(1, 1000);
    rate.end(1);
    expect(rate.mbps).toBeNull();
    rate.begin(10);
    rate.end(510);
    expect(rate.mbps).toBe(0);
  });
});

describe('Latency and Outcomes', () => {
  it('take the first ping instead of the first guess', () => {
    const latency = new Latency();
    latency.addFirstByte(80);
    expect(latency.ms).toBe(80);
    latency.addPing(20);
    latency.addFirstByte(500);
    latency.addPing(40);
    expect(latency.ms).toBe(25);
  });

  it('remember the last ten', () => {
    const outcomes = new Outcomes();
    expect(outcomes.reliability).toBe(1);
    outcomes.add(false);
    outcomes.add(true);
    expect(outcomes.reliability).toBe(0.5);
    for (let i = 0; i < 9; i++) outcomes.add(true);
    expect(outcomes.reliability).toBe(1);
  });
});

describe('Breaker', () => {
  it('doubles its pauses up to a limit', () => {
    expect([1, 2, 3, 4, 5, 6, 7].map(pauseMs)).toEqual([500, 1000, 2000, 4000, 8000, 8000, 8000]);
  });

  it('rests, probes, and closes on a success of the same kind', () => {
    const breaker = new Breaker();
    expect(breaker.gate(0)).toBe('ready');
    breaker.fail(0, 'transfer', 1);
    breaker.fail(10, 'transfer', 1);
    expect([breaker.gate(499), breaker.gate(500)]).toEqual(['backing_off', 'probe']);
    breaker.fail(500, 'transfer', 1);
    breaker.succeed('ping');
    expect(breaker.gate(1499)).toBe('backing_off');
    breaker.succeed('transfer');
    expect(breaker.gate(1499)).toBe('ready');
    breaker.fail(2000, 'ping', 1);
    breaker.succeed('ping');
    expect(breaker.gate(2000)).toBe('ready');
  });
});

describe('NodeBook', () => {
  const book = () => {
    const made = new NodeBook(() => 0.5);
    for (const url of ['a', 'b', 'c']) made.meet(url, `node-${url}`);
    return made;
  };
  const give = (nodes: NodeBook, url: string, now: number, tookMs: number) => {
    nodes.transferBegan(url, now);
    nodes.progress(url, now + tookMs - 1, 1_000_000);
    nodes.transferDone(url, now + tookMs, 1_000_000);
  };

  it('spreads the first requests over all nodes', () => {
    const nodes = book();
    const chosen = [1, 2, 3].map((now) => {
      const url = nodes.choose(['a', 'b', 'c'], now, 'no')!;
      nodes.transferBegan(url, now);
      return url;
    });
    expect(new Set(chosen).size).toBe(3);
  });

  it('chooses the best score, and the next best while that one is busy', () => {
    const nodes = book();
    give(nodes, 'a', 0, 800);
    give(nodes, 'b', 0, 100);
    give(nodes, 'c', 0, 150);
    expect(nodes.choose(['a', 'b', 'c'], 2000, 'no')).toBe('b');
    nodes.transferBegan('b', 2000);
    expect(nodes.choose(['a', 'b', 'c'], 2000, 'no')).toBe('c');
  });

  it('says what is to be expected of each, and puts those to be avoided last', () => {
    const nodes = book();
    give(nodes, 'a', 0, 800);
    give(nodes, 'b', 0, 100);
    nodes.transferBegan('b', 2000);
    const inquiry = { bytes: 1_000_000, now: 2000, explore: 'no', avoided: new Set(['a']) } as const;
    expect(nodes.prospects(['a', 'b', 'c', 'stranger'], inquiry)).toEqual([
      { node: 'b', which: Class.Measured, expectedMs: 200 },
      { node: 'c', which: Class.Unmeasured, expectedMs: null },
      { node: 'a', which: Class.Avoided, expectedMs: 800 },
    ]);
    const later = { ...inquiry, now: 200_000, explore: 'all', avoided: new Set<string>() } as const;
    // Measured long ago: not prejudged.
    expect(nodes.prospects(['a'], later)).toEqual([{ node: 'a', which: Class.Explored, expectedMs: null }]);
  });

  it('leaves a failed node alone, but not for a bad copy', () => {
    const nodes = book();
    nodes.transferBegan('a', 0);
    nodes.transferFailed('a', 0, 'unreachable');
    expect(nodes.choose(['a'], 100, 'all')).toBeNull();
    expect(nodes.choose(['a'], 600, 'no')).toBe('a');
    nodes.transferBegan('b', 0);
    nodes.transferFailed('b', 0, 'corrupt');
    expect(nodes.choose(['b'], 1, 'no')).toBe('b');
    expect(nodes.view(1).find((node) => node.url === 'b')).toMatchObject({ failures: 1, reliability: 0 });
  });
});
