/** Nodes whose messages the stream does not have at the moment. Pure. */
import type { ConsensusGap } from '../api/types';

export interface Unheard {
  label: string;
  reason: string;
}

/** By disk. */
export type Gaps = ReadonlyMap<string, Unheard>;

export const NO_GAPS: Gaps = new Map();

const diskOf = (gap: ConsensusGap) => gap.node.split('/')[0]!;

/** What stands after word of a gap. */
export function after(gaps: Gaps, gap: ConsensusGap): Gaps {
  if (gap.state === 'missed') return gaps;
  const left = new Map(gaps);
  if (gap.state === 'began') left.set(diskOf(gap), { label: gap.node_id, reason: gap.reason });
  else left.delete(diskOf(gap));
  return left;
}

export const listed = (gaps: Gaps): Unheard[] =>
  [...gaps.values()].sort((a, b) => a.label.localeCompare(b.label, 'en', { numeric: true }));
