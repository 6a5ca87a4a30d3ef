/** What playback waits for that nobody gives, in words for people. Pure. */
import type { ChunkCell } from './session';

type Missing = Pick<ChunkCell, 'sequence'>;

/** Null when nothing is missing: then it is only a matter of time. */
export function whatIsMissing(missing: Iterable<Missing>): string | null {
  const sequences = [...missing].map(({ sequence }) => sequence).sort((a, b) => a - b);
  const [first, ...others] = sequences;
  if (first === undefined) return null;
  const named = first < 0 ? 'the init segment' : `chunk ${first}`;
  const all = others.length === 0 ? named : `${named} and ${others.length} more`;
  return `Neither the storage nodes nor the gateway give ${all} now. The video goes on as soon as they do.`;
}
