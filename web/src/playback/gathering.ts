/**
 * Gets a chunk from its shards: as many transfers side by side as are needed, at once another one for each that fails,
 * and one more than needed while playback waits or when one lags behind the rest. What is still under way once there
 * are enough is given up, which says how fast its node is at most.
 *
 * Shards that do not give the chunk, though each is as it is listed, were made wrongly. Then one further shard after
 * the other is asked for, and other sets of them are tried, as far as `FURTHER_SETS_MAX` goes.
 *
 * Runs transfers and counts them. Which shard is next `shard_choice` says; which are put together, `shard_sets`; what
 * they give, `decoder`. The Rust crate `vstack-playback` does the same.
 */
import { type Decodable, join } from './decoder';
import { type FailureKind, isBadCopy, type Prospect } from './node_book';
import { fromNode, type Means, OVERTAKEN } from './node_transfer';
import type { Coded, Located, ShardPlace } from './places';
import { Class } from './score';
import { nextShard } from './shard_choice';
import { setsWithTheLast } from './shard_sets';
import { Cancelled, type Received } from './transfer';
import type { FetchOptions, Found, Reach, Way } from './way';

/** A transfer under way for so many times as long as the slowest that arrived, and so many ms, lags behind. */
const LAG_FACTOR = 2;
const LAG_BY_MS = 5;
/** How often to look whether playback waits by now: nobody tells. */
const REVIEW_EVERY_MS = 100;
/**
 * Sets of shards that are tried beside the first one. Any single shard that was made wrongly is found with so many, of
 * any code, and any two of a code with up to nine data shards.
 */
const FURTHER_SETS_MAX = 64;

interface Running {
  place: ShardPlace;
  beganAt: number;
  controller: AbortController;
}

interface Arrived {
  index: number;
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
  /** In the order in which they came. */
  #arrived: Arrived[] = [];
  /** No set of the first so many of them gives the chunk. */
  #inVain = 0;
  /** Sets that may still be tried. */
  #setsLeft = 1 + FURTHER_SETS_MAX;
  #failed = new Set<ShardPlace>();
  /** Nodes that are not asked for any other shard. */
  #failing = new Set<string>();
  /** Nodes whose copy of a shard was bad. Their others may be good, so they are asked last. */
  #avoided = new Set<string>();
  /** How long the slowest of those took that arrived. */
  #slowestMs = 0;
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
      while (await this.#gather(reach)) {
        const found = await this.#join();
        if (found) return found;
      }
      return null;
    } finally {
      signal.removeEventListener('abort', wake);
      for (const running of [...this.#running]) this.#giveUp(running);
    }
  }

  /** So many shards are to be here before they are joined. */
  get #goal(): number {
    return Math.max(this.#coded.dataShards, this.#inVain + 1);
  }

  /** True when enough shards are here. */
  async #gather(reach: Reach): Promise<boolean> {
    for (;;) {
      if (this.#options.signal.aborted) throw new Cancelled();
      if (this.#broken) throw this.#broken.by;
      if (this.#arrived.length >= this.#goal) {
        for (const running of [...this.#running]) this.#giveUp(running, OVERTAKEN);
        return true;
      }
      // Looked at before anything is started: what would be given up at once is only a burden.
      if (!this.#isPossible(reach)) return false;
      this.#startSome(reach);
      if (this.#had().size < this.#goal) return false;
      await this.#change();
    }
  }

  #isPossible(reach: Reach): boolean {
    const had = this.#had();
    const open = this.#open();
    const nodes = new Set(this.#prospects(open, reach).map(({ node }) => node));
    for (const place of open) if (nodes.has(place.node)) had.add(this.#name(place));
    return this.#setsLeft > 0 && had.size >= this.#goal;
  }

  #startSome(reach: Reach): void {
    while (this.#had().size < this.#goal) {
      const next = this.#next(this.#had(), reach);
      if (!next) return;
      this.#start(next);
    }
    if (this.#inVain > 0 || this.#arrived.length + this.#running.size > this.#goal || !this.#wantsSpare()) return;
    // When every other index is here or under way, the same one from another node is as good.
    const spare = this.#next(this.#had(), reach) ?? this.#next(this.#here(), reach);
    if (spare) this.#start(spare);
  }

  #wantsSpare(): boolean {
    if (this.#options.explore() === 'no') return true;
    const lagsAt = this.#lagsAt();
    return lagsAt !== null && this.#means.env.now() >= lagsAt;
  }

  /** When the first of those under way lags; null while none arrived to compare with. */
  #lagsAt(): number | null {
    if (this.#arrived.length === 0 || this.#running.size === 0) return null;
    const firstBeganAt = Math.min(...[...this.#running].map(({ beganAt }) => beganAt));
    return firstBeganAt + LAG_FACTOR * this.#slowestMs + LAG_BY_MS;
  }

  /** What a shard is told apart by. As long as none came in vain, any two with one index are as good as each other. */
  #name({ index, sha256 }: ShardPlace): string {
    return this.#inVain === 0 ? `${index}` : `${index} ${sha256}`;
  }

  /** Names of those that are here. */
  #here(): Set<string> {
    return new Set(this.#arrived.map(({ place }) => this.#name(place)));
  }

  /** Names of those that are here or under way. */
  #had(): Set<string> {
    return new Set([...this.#here(), ...[...this.#running].map(({ place }) => this.#name(place))]);
  }

  /** Shards that are not here and could be asked for, under way elsewhere or not. */
  #open(): ShardPlace[] {
    const here = this.#here();
    const isUnderWay = (place: ShardPlace) => [...this.#running].some((running) => running.place === place);
    return this.#coded.shards.filter(
      (place) =>
        !here.has(this.#name(place)) &&
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

  #next(without: ReadonlySet<string>, reach: Reach): ShardPlace | null {
    const places = this.#open().filter((place) => !without.has(this.#name(place)));
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
      this.#arrived.push({ index: place.index, place, received: outcome });
      const name = this.#name(place);
      for (const other of [...this.#running]) if (this.#name(other.place) === name) this.#giveUp(other, OVERTAKEN);
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

  /** Null when no set of those that are here gives the chunk. */
  async #join(): Promise<Found | null> {
    // Of more than enough at first those with the first indexes: each data shard spares decoding.
    if (this.#inVain === 0) this.#arrived.sort((a, b) => a.index - b.index);
    while (this.#arrived.length >= this.#goal) {
      const here = this.#arrived.slice(0, this.#goal);
      let problem = 'no set of them is left';
      for (const set of setsWithTheLast(here, this.#coded.dataShards, this.#setsLeft)) {
        this.#setsLeft -= 1;
        const read = await this.#read(set);
        if (typeof read !== 'string') return read;
        problem = read;
      }
      if (this.#inVain === 0) {
        this.failures += 1;
        this.#means.events.joinFailed?.(this.#chunk, problem);
      }
      this.#inVain = here.length;
    }
    return null;
  }

  /** The chunk, or why these do not give it: for which no node is to blame, as each of them gave what it should. */
  async #read(set: readonly Arrived[]): Promise<Found | string> {
    const used = [...set].sort((a, b) => a.index - b.index);
    const bytes = await this.#verified({
      sizeBytes: this.#chunk.sizeBytes,
      dataShards: this.#coded.dataShards,
      parityShards: this.#coded.parityShards,
      shards: used.map(({ index, received }) => ({ index, bytes: received.bytes })),
    });
    if (typeof bytes === 'string') return bytes;
    const received = used.map((arrived) => arrived.received);
    return {
      bytes,
      startedAt: Math.min(...received.map(({ startedAt }) => startedAt)),
      firstByteAt: Math.min(...received.map(({ firstByteAt }) => firstByteAt)),
      endedAt: Math.max(...received.map(({ endedAt }) => endedAt)),
      origins: [...new Set(used.map(({ place }) => place.node))].map((node) => ({ node })),
    };
  }

  async #verified(shards: Decodable): Promise<Uint8Array<ArrayBuffer> | string> {
    const { env } = this.#means;
    const { signal } = this.#options;
    let problem = 'its bytes have another SHA-256';
    try {
      const { bytes, digest } = await env.hasher.hash(await join(shards, env.decoder));
      if (digest === this.#chunk.sha256 && !signal.aborted) return bytes;
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    }
    if (signal.aborted) throw new Cancelled();
    return problem;
  }
}
