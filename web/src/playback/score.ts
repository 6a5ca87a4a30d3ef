/**
 * The score of a node and the order in which the replicas of a chunk are asked. Pure functions, the same as in the
 * Rust crate `vstack-playback`; the vectors in `crates/playback/vectors/scores.json` hold the two together.
 */

/** What a millisecond of round trip costs in the score. */
const LATENCY_COST = 0.1;

/** (bandwidth x reliability) / (1 + latency_ms x 0.1). Bandwidth in Mbit/s, reliability from 0 to 1. */
export function score(bandwidthMbps: number, reliability: number, latencyMs: number): number {
  return (bandwidthMbps * reliability) / (1 + latencyMs * LATENCY_COST);
}

/** Whether a node may be asked: yes; one transfer may try; it failed just now. */
export type Gate = 'ready' | 'probe' | 'backing_off';

/** What transfers from a node showed. */
export interface Measure {
  bandwidthMbps: number;
  /** 0 to 1. */
  reliability: number;
}

/** A replica that could be asked for a chunk. */
export interface Candidate {
  node: string;
  /** Null while nothing was transferred from it. */
  measure: Measure | null;
  /** Null while no ping came back. */
  latencyMs: number | null;
  /** Our own transfers that run from it. */
  pending: number;
  gate: Gate;
  /** Its rate was measured long ago. */
  stale: boolean;
  /** It gave corrupt bytes for this chunk, or was the last to fail for it. */
  avoid: boolean;
}

/**
 * How much may be risked to learn about nodes: nothing, because playback waits; nodes that never gave anything; nodes
 * that failed or were measured long ago too.
 */
export type Explore = 'no' | 'unmeasured' | 'all';

/** The classes of candidates, best first. */
export enum Class {
  Explored,
  Measured,
  Unmeasured,
  Probe,
  BackingOff,
  Avoided,
}

export function classOf(candidate: Candidate, explore: Explore): Class {
  const idle = candidate.pending === 0;
  const measured = candidate.measure !== null;
  if (candidate.avoid) return Class.Avoided;
  if (candidate.gate === 'backing_off') return Class.BackingOff;
  if (candidate.gate === 'probe') {
    // One probe at a time: the rest wait for its outcome.
    if (!idle) return Class.BackingOff;
    return explore === 'all' ? Class.Explored : Class.Probe;
  }
  if (idle && !measured && explore !== 'no') return Class.Explored;
  if (idle && candidate.stale && explore === 'all') return Class.Explored;
  return measured ? Class.Measured : Class.Unmeasured;
}

/** The score shared among our own transfers, so that they do not all go to one node. */
function weight({ measure, latencyMs, pending }: Candidate): number {
  if (!measure) return -1;
  return score(measure.bandwidthMbps, measure.reliability, latencyMs ?? 0) / (pending + 1);
}

/**
 * How long `bytes` would take from a node by what is known, in ms, when it shares its rate among our own transfers;
 * null when nothing is known.
 */
export function expectedMs({ measure, latencyMs, pending }: Candidate, bytes: number): number | null {
  if (!measure) return null;
  return ((bytes * 8) / 1000 / measure.bandwidthMbps) * (pending + 1) + (latencyMs ?? 0);
}

const byWeight = (a: Candidate, b: Candidate) => weight(b) - weight(a);
const byLatency = (a: Candidate, b: Candidate) => {
  if (a.latencyMs === b.latencyMs) return 0;
  return (a.latencyMs ?? Infinity) - (b.latencyMs ?? Infinity);
};

function within(which: Class, a: Candidate, b: Candidate): number {
  switch (which) {
    case Class.Measured:
    case Class.BackingOff:
    case Class.Avoided:
      return byWeight(a, b);
    case Class.Explored:
    case Class.Unmeasured:
    case Class.Probe:
      return a.pending - b.pending || byLatency(a, b);
  }
}

/**
 * The order in which to ask, as indices into `candidates`. Equal ones keep their order: shuffle before, so that many
 * players do not all prefer the same node.
 */
export function rank(candidates: readonly Candidate[], explore: Explore): number[] {
  return candidates
    .map((candidate, index) => ({ candidate, index, which: classOf(candidate, explore) }))
    .sort((a, b) => a.which - b.which || within(a.which, a.candidate, b.candidate))
    .map(({ index }) => index);
}
