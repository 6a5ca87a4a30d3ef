/**
 * Gets one chunk from wherever it can be had: from its replicas, from its shards when it has no replicas or all of them
 * fail, and from the gateway when no node gives it or all are to be left alone. Every byte it hands out was verified.
 */
import { Gateway } from './gateway';
import { Gathering } from './gathering';
import type { NodeBook } from './node_book';
import type { Means } from './node_transfer';
import type { Located } from './places';
import { Replicas } from './replicas';
import type { SourceEvents } from './source_events';
import type { Environment } from './transfer';
import type { FetchOptions, Found, Reach, Way } from './way';

export interface Fetched extends Found {
  /** What went wrong on the way. */
  failures: number;
}

/** Nobody gave the chunk. */
export class NoSource extends Error {
  constructor(readonly chunkId: string) {
    super(`no node and no gateway gave ${chunkId}`);
  }
}

export class ChunkSource {
  #means: Means;
  #gateway: (chunkId: string) => string;

  constructor(env: Environment, book: NodeBook, gateway: (chunkId: string) => string, events: SourceEvents = {}) {
    this.#means = { env, book, events };
    this.#gateway = gateway;
  }

  /** Rejects with `Cancelled` or `NoSource`. */
  async fetch(chunk: Located, options: FetchOptions): Promise<Fetched> {
    const nodes = this.#nodes(chunk, options);
    const gateway = new Gateway(this.#means, this.#gateway(chunk.id), chunk, options);
    let found = await firstOf(nodes, 'ready');
    if (!found) {
      this.#means.events.roundOver?.(chunk);
      // The last hope: nodes that were only being left alone.
      found = (await gateway.find()) ?? (await firstOf(nodes, 'everyone'));
    }
    if (!found) throw new NoSource(chunk.id);
    return { ...found, failures: [...nodes, gateway].reduce((sum, way) => sum + way.failures, 0) };
  }

  /** Replicas before shards: while it has both, it costs the fewest transfers. */
  #nodes(chunk: Located, options: FetchOptions): Way[] {
    const { replicas, coded } = chunk.places;
    const whole = new Replicas(this.#means, chunk, replicas, options);
    return coded ? [whole, new Gathering(this.#means, chunk, coded, options)] : [whole];
  }
}

async function firstOf(ways: readonly Way[], reach: Reach): Promise<Found | null> {
  for (const way of ways) {
    const found = await way.find(reach);
    if (found) return found;
  }
  return null;
}
