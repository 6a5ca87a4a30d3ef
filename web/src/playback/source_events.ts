/** What is told while chunks are fetched, to whoever keeps the record of a playback. */
import type { FailureKind } from './node_book';
import type { Located } from './places';
import type { Expected } from './transfer';

/** Where verified bytes came from: a node's URL, or the gateway. */
export type Origin = { node: string } | 'gateway';

export interface SourceEvents {
  transferStarted?(chunk: Located, origin: Origin): void;
  /** `item` is the chunk, or a shard of it. */
  transferFailed?(item: Expected, origin: Origin, kind: FailureKind, message: string): void;
  /** Shards that are right, each by itself, did not give the chunk. */
  joinFailed?(chunk: Located, message: string): void;
  /** No node gave the chunk, of those that were not to be left alone. */
  roundOver?(chunk: Located): void;
}
