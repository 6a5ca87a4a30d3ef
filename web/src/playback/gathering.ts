/**
 * Gets a chunk from its shards: as many transfers side by side as are needed, at once another one for each that fails,
 * and one more than needed while playback waits or when one lags behind the rest. What is still under way once there
 * are enough is given up, which says how fast its node is at most.
 *
 * Runs transfers and counts them. Which shard is next `shard_choice` says; what they give together, `decoder`.
 */
import { type Decodable, join } from './decoder';
import { type FailureKind, isBadCopy, type Prospect } from './node_book';
import { fromNode, type Means, OVERTAKEN } from './node_transfer';
import type { Coded, Located, ShardPlace } from './places';
import { Class } from './score';
import { nextShard } from './shard_choice';
import { Cancelled, type Received } from './transfer';
import type { FetchOptions, Found, Reach, Way } from './way';

/** A transfer under way for so many times as long as the slowest that arrived, and so many ms, lags behind. */
const LAG_FACTOR = 2;
const LAG_BY_MS = 5;
/** How often to look whether playback waits by now: nobody tells. */
const REVIEW_EVERY_MS = 100;

interface Running {
  place: ShardPlace;
  beganAt: number;
  controller: AbortController;
}

interface Arrived {
  place: ShardPlace;
  received: Received;
}

export class Gathering implements Way {
  failures = 0;
  #means: Means;
  #chunk: Located;
  #coded: Coded;
  #options: FetchOptions;
  #running = new Set<Running>();
  /** By index. */
  #arrived = new Map<number, Arrived>();
  #failed = new Set<ShardPlace>();
  /** Nodes that are not asked for any other shard. */
  #failing = new Set<string>();
  /** Nodes whose copy of a shard was bad. Their others may be good, so they are asked last. */
  #avoided = new Set<string>();
  /** How long the slowest of those took that arrived. */
  #slowestMs = 0;
  /** The shards do not give the chunk, and never will. */
  #isSpoiled = false;
  #broken: { by: unknown } | null = null;
  #wake = () => {};

  constructor(means: Means, chunk: Located, coded: Coded, options: FetchOptions) {
    this.#means = means;
    this.#chunk = chunk;
    this.#coded = coded;
    this.#options = options;
  }

  async find(reach: Reach): Promise<Found | null> {
    const { signal } = this.#options;
    const wake = () => this.#wake();
    signal.addEventListener('abort', wake);
    try {
      if (!(await this.#gather(reach))) return null;
    } finally {
      signal.removeEventListener('abort', wake);
      for (const running of [...this.#running]) this.#giveUp(running);
    }
    return this.#join();
  }

  /** True when enough shards are here. */
  async #gather(reach: Reach): Promise<boolean> {
    if (this.#isSpoiled) return false;
    for (;;) {
      if (this.#options.signal.aborted) throw new Cancelled();
      if (this.#broken) throw this.#broken.by;
      if (this.#arrived.size >= this.#coded.dataShards) {
        for (const running of [...this.#running]) this.#giveUp(running, OVERTAKEN);
        return true;
      }
      // Looked at before anything is started: what would be given up at once is only a burden.
      if (!this.#isPossible(reach)) return false;
      this.#startSome(reach);
      if (this.#indexes().size < this.#coded.dataShards) return false;
      await this.#change();
    }
  }

  #isPossible(reach: Reach): boolean {
    const indexes = this.#indexes();
    const open = this.#open();
    const nodes = new Set(this.#prospects(open, reach).map(({ node }) => node));
    for (const place of open) if (nodes.has(place.node)) indexes.add(place.index);
    return indexes.size >= this.#coded.dataShards;
  }

  #startSome(reach: Reach): void {
    const needed = this.#coded.dataShards;
    while (this.#indexes().size < needed) {
      const next = this.#next(this.#indexes(), reach);
      if (!next) return;
      this.#start(next);
    }
    if (this.#arrived.size + this.#running.size > needed || !this.#wantsSpare()) return;
    // When every other index is here or under way, the same one from another node is as good.
    const spare = this.#next(this.#indexes(), reach) ?? this.#next(this.#arrived, reach);
    if (spare) this.#start(spare);
  }

  #wantsSpare(): boolean {
    if (this.#options.explore() === 'no') return true;
    const lagsAt = this.#lagsAt();
    return lagsAt !== null && this.#means.env.now() >= lagsAt;
  }

  /** When the first of those under way lags; null while none arrived to compare with. */
  #lagsAt(): number | null {
    if (this.#arrived.size === 0 || this.#running.size === 0) return null;
    const firstBeganAt = Math.min(...[...this.#running].map(({ beganAt }) => beganAt));
    return firstBeganAt + LAG_FACTOR * this.#slowestMs + LAG_BY_MS;
  }

  /** Indexes that are here or under way. */
  #indexes(): Set<number> {
    return new Set([...this.#arrived.keys(), ...[...this.#running].map(({ place }) => place.index)]);
  }

  /** Shards that are not here and could be asked for, under way elsewhere or not. */
  #open(): ShardPlace[] {
    const isUnderWay = (place: ShardPlace) => [...this.#running].some((running) => running.place === place);
    return this.#coded.shards.filter(
      (place) =>
        !this.#arrived.has(place.index) &&
        !this.#failed.has(place) &&
        !this.#failing.has(place.node) &&
        !isUnderWay(place),
    );
  }

  /** The nodes of `places` that may be asked, best first. */
  #prospects(places: readonly ShardPlace[], reach: Reach): Prospect[] {
    const nodes = [...new Set(places.map(({ node }) => node))];
    const prospects = this.#means.book.prospects(nodes, {
      bytes: this.#coded.shardBytes,
      now: this.#means.env.now(),
      explore: this.#options.explore(),
      avoided: this.#avoided,
    });
    return reach === 'everyone' ? prospects : prospects.filter(({ which }) => which !== Class.BackingOff);
  }

  #next(without: Pick<ReadonlySet<number>, 'has'>, reach: Reach): ShardPlace | null {
    const places = this.#open().filter(({ index }) => !without.has(index));
    return nextShard(places, this.#coded.dataShards, this.#prospects(places, reach));
  }

  #start(place: ShardPlace): void {
    const running: Running = { place, beganAt: this.#means.env.now(), controller: new AbortController() };
    this.#running.add(running);
    const request = { node: place.node, chunk: this.#chunk, item: place };
    const control = { signal: running.controller.signal, onBytes: this.#options.onBytes };
    void fromNode(this.#means, request, control).then(
      (outcome) => this.#ended(running, outcome),
      (error: unknown) => this.#broke(running, error),
    );
  }

  #ended(running: Running, outcome: Received | FailureKind): void {
    if (!this.#running.delete(running)) return;
    const { place, beganAt } = running;
    if (typeof outcome === 'string') {
      this.failures += 1;
      this.#failed.add(place);
      (isBadCopy(outcome) ? this.#avoided : this.#failing).add(place.node);
    } else {
      // Its verification counts, as it does for those it is compared with.
      this.#slowestMs = Math.max(this.#slowestMs, this.#means.env.now() - beganAt);
      this.#arrived.set(place.index, { place, received: outcome });
      for (const other of [...this.#running]) if (other.place.index === place.index) this.#giveUp(other, OVERTAKEN);
    }
    this.#wake();
  }

  /** What was given up ends like this too; anything else is an error of ours, for the caller to see. */
  #broke(running: Running, error: unknown): void {
    if (!this.#running.delete(running)) return;
    this.#broken = { by: error };
    this.#wake();
  }

  #giveUp(running: Running, why?: symbol): void {
    this.#running.delete(running);
    running.controller.abort(why);
  }

  /** Until a transfer ends, the caller gives up, or it is time to look again whether one more is to be asked for. */
  async #change(): Promise<void> {
    const now = this.#means.env.now();
    const lagsInMs = (this.#lagsAt() ?? now) - now;
    const waitMs = lagsInMs > 0 ? Math.min(lagsInMs, REVIEW_EVERY_MS) : REVIEW_EVERY_MS;
    let stop = () => {};
    await new Promise<void>((wake) => {
      this.#wake = wake;
      stop = this.#means.env.after(waitMs, wake);
    });
    stop();
  }

  async #join(): Promise<Found | null> {
    const { dataShards, parityShards } = this.#coded;
    // Of more than enough those with the first indexes: each data shard spares decoding.
    const used = [...this.#arrived.values()].sort((a, b) => a.place.index - b.place.index).slice(0, dataShards);
    const bytes = await this.#verified({
      sizeBytes: this.#chunk.sizeBytes,
      dataShards,
      parityShards,
      shards: used.map(({ place, received }) => ({ index: place.index, bytes: received.bytes })),
    });
    if (!bytes) return null;
    const received = used.map((arrived) => arrived.received);
    return {
      bytes,
      startedAt: Math.min(...received.map(({ startedAt }) => startedAt)),
      firstByteAt: Math.min(...received.map(({ firstByteAt }) => firstByteAt)),
      endedAt: Math.max(...received.map(({ endedAt }) => endedAt)),
      origins: [...new Set(used.map(({ place }) => place.node))].map((node) => ({ node })),
    };
  }

  /** Null when the shards do not give the chunk: then no node is to blame, as each of them gave what it should. */
  async #verified(shards: Decodable): Promise<Uint8Array<ArrayBuffer> | null> {
    const { env, events } = this.#means;
    try {
      const { bytes, digest } = await env.hasher.hash(await join(shards, env.decoder));
      if (digest !== this.#chunk.sha256) throw new Error('its bytes have another SHA-256');
      if (!this.#options.signal.aborted) return bytes;
    } catch (error) {
      if (!this.#options.signal.aborted) {
        this.#isSpoiled = true;
        this.failures += 1;
        events.joinFailed?.(this.#chunk, error instanceof Error ? error.message : String(error));
        return null;
      }
    }
    throw new Cancelled();
  }
}
