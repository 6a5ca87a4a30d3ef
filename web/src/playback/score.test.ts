import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Candidate, expectedMs, type Explore, rank, score } from './score';

const candidate = (node: string, over: Partial<Candidate> = {}): Candidate => ({
  node,
  measure: { bandwidthMbps: 100, reliability: 1 },
  latencyMs: 10,
  pending: 0,
  gate: 'ready',
  stale: false,
  avoid: false,
  ...over,
});

const order = (candidates: Candidate[], explore: Explore) =>
  rank(candidates, explore)
    .map((index) => candidates[index]!.node)
    .join('');

describe('score', () => {
  it('is (bandwidth x reliability) / (1 + latency x 0.1)', () => {
    expect(score(100, 1, 10)).toBe(50);
    expect(score(100, 0.5, 10)).toBe(25);
    expect(score(80, 1, 0)).toBe(80);
    expect(score(0, 1, 5)).toBe(0);
  });
});

describe('expectedMs', () => {
  it('is the round trip and the bytes at the rate that is left', () => {
    expect(expectedMs(candidate('a'), 1_000_000)).toBe(90);
    expect(expectedMs(candidate('a', { pending: 1, latencyMs: null }), 1_000_000)).toBe(160);
    expect(expectedMs(candidate('a', { measure: { bandwidthMbps: 0, reliability: 1 } }), 1)).toBe(Infinity);
    expect(expectedMs(candidate('a', { measure: null }), 1)).toBeNull();
  });
});

describe('rank', () => {
  it('prefers the higher score, shared among our own transfers', () => {
    const fast = candidate('f', { measure: { bandwidthMbps: 150, reliability: 1 } });
    expect(order([candidate('a'), fast], 'no')).toBe('fa');
    expect(order([candidate('a'), { ...fast, pending: 1 }], 'no')).toBe('af');
  });

  it('asks failed nodes last, and lets one transfer at a time probe them', () => {
    const nodes = [
      candidate('b', { gate: 'backing_off' }),
      candidate('p', { gate: 'probe' }),
      candidate('q', { gate: 'probe', pending: 1, measure: { bandwidthMbps: 1, reliability: 1 } }),
      candidate('v', { avoid: true }),
      candidate('m'),
      candidate('u', { measure: null }),
    ];
    expect(order(nodes, 'no')).toBe('mupbqv');
    expect(order(nodes, 'unmeasured')).toBe('umpbqv');
    // With a healthy buffer both unknown and recovering nodes are tried; the nearer first.
    expect(order(nodes, 'all')).toBe('pumbqv');
  });

  it('measures stale nodes again only when the buffer is healthy', () => {
    const nodes = [candidate('m'), candidate('s', { stale: true, measure: { bandwidthMbps: 1, reliability: 1 } })];
    expect(order(nodes, 'unmeasured')).toBe('ms');
    expect(order(nodes, 'all')).toBe('sm');
  });
});

/** What `crates/playback` writes down for both implementations; what a row leaves out is unknown or false. */
interface Vectors {
  scores: { bandwidth_mbps: number; reliability: number; latency_ms: number; score: number }[];
  choices: {
    name: string;
    explore: Explore;
    candidates: {
      node: string;
      bandwidth_mbps?: number | null;
      reliability?: number | null;
      latency_ms?: number | null;
      pending: number;
      gate: Candidate['gate'];
      stale?: boolean;
      avoid?: boolean;
    }[];
    order: string[];
  }[];
}

const vectorFile = new URL('../../../crates/playback/vectors/scores.json', import.meta.url);
const present = existsSync(vectorFile);
if (!present) console.log('skipped: crates/playback/vectors/scores.json is not there');

describe.skipIf(!present)('the vectors shared with the Rust core', () => {
  const vectors = present ? (JSON.parse(readFileSync(vectorFile, 'utf8')) as Vectors) : { scores: [], choices: [] };

  it('agree on scores', () => {
    expect(vectors.scores.length).toBeGreaterThan(0);
    for (const row of vectors.scores) {
      expect(score(row.bandwidth_mbps, row.reliability, row.latency_ms)).toBeCloseTo(row.score, 9);
    }
  });

  it('agree on the order in which replicas are asked', () => {
    expect(vectors.choices.length).toBeGreaterThan(0);
    for (const { name, explore, candidates, order: expected } of vectors.choices) {
      const read = candidates.map(
        (row): Candidate => ({
          node: row.node,
          measure:
            row.bandwidth_mbps == null ? null : { bandwidthMbps: row.bandwidth_mbps, reliability: row.reliability ?? 1 },
          latencyMs: row.latency_ms ?? null,
          pending: row.pending,
          gate: row.gate,
          stale: row.stale ?? false,
          avoid: row.avoid ?? false,
        }),
      );
      expect(rank(read, explore).map((index) => read[index]!.node), name).toEqual(expected);
    }
  });
});
