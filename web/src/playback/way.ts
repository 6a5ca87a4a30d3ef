/** What the ways to get a chunk have in common: whole from a replica, joined from shards, or through the gateway. */
import type { Control } from './node_transfer';
import type { Explore } from './score';
import type { Origin } from './source_events';
import type { Received } from './transfer';

/** How much a chunk matters now, and who follows its bytes. */
export interface FetchOptions extends Control {
  /** What may be risked; `no` says that playback waits for the chunk. It changes while the chunk is fetched. */
  explore(): Explore;
}

/** Who may be asked: nodes that are not to be left alone or, as the last hope, all of them. */
export type Reach = 'ready' | 'everyone';

/** A whole chunk, verified. */
export interface Found extends Received {
  /** Several for one that was joined from shards. */
  origins: readonly Origin[];
}

/** One round for one chunk: who failed is not asked again. */
export interface Way {
  /** What went wrong so far. */
  readonly failures: number;
  /**
   * Null when nobody within reach gives it; with a greater reach it goes on where it stopped. Rejects with `Cancelled`.
   */
  find(reach: Reach): Promise<Found | null>;
}
