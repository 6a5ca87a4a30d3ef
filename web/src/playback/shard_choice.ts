/**
 * Which shard of a coded chunk is asked for next. Pure.
 *
 * Data shards need no decoding, so they are preferred as long as their nodes are not expected to be much slower than
 * the best of the others. The Rust crate `vstack-playback` has the same limits.
 */
import type { Prospect } from './node_book';
import type { ShardPlace } from './places';
import { Class } from './score';

/** A node expected to take so many times as long as the best is not worth the decoding it saves. */
const SLOWER_FACTOR = 1.5;
/** And by this much longer, in ms: below, it is noise. */
const SLOWER_BY_MS = 10;

/** Whom to trust first. Within a tier what matters is the decoding, and how fast a node is. */
function tier(which: Class): number {
  switch (which) {
    case Class.Explored:
    case Class.Measured:
    case Class.Unmeasured:
      return 0;
    case Class.Probe:
      return 1;
    case Class.BackingOff:
      return 2;
    case Class.Avoided:
      return 3;
  }
}

interface Candidate {
  shard: ShardPlace;
  prospect: Prospect;
}

/** `prospects` are the nodes that may be asked, best first; null when none of them has any of `shards`. */
export function nextShard(
  shards: readonly ShardPlace[],
  dataShards: number,
  prospects: readonly Prospect[],
): ShardPlace | null {
  const all: Candidate[] = prospects.flatMap((prospect) =>
    shards.filter((shard) => shard.node === prospect.node).map((shard) => ({ shard, prospect })),
  );
  const best = Math.min(...all.map(({ prospect }) => tier(prospect.which)));
  const trusted = all.filter(({ prospect }) => tier(prospect.which) === best);
  const fastest = Math.min(...trusted.map(({ prospect }) => prospect.expectedMs ?? Infinity));
  const isMuchSlower = ({ prospect: { expectedMs } }: Candidate) =>
    expectedMs !== null && expectedMs > SLOWER_FACTOR * fastest && expectedMs > fastest + SLOWER_BY_MS;
  const near = trusted.filter((candidate) => !isMuchSlower(candidate));
  return (near.find(({ shard }) => shard.index < dataShards) ?? near[0])?.shard ?? null;
}
