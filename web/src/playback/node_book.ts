/**
 * What the player knows of every storage node, and which one it asks next. Pure: the time is an argument (ms) and
 * chance is handed in. Knows nothing of HTTP. The rules are those of the Rust crate `vstack-playback`.
 */
import { Breaker, type Evidence } from './breaker';
import { Latency, Outcomes, Rate } from './estimate';
import { type Candidate, Class, classOf, expectedMs, type Explore, rank, score } from './score';

/** A rate measured longer ago than this is worth measuring again. */
const STALE_AFTER_MS = 120_000;

/** Why a transfer went wrong. */
export type FailureKind = 'unreachable' | 'stalled' | 'truncated' | 'busy' | 'missing' | 'corrupt';

/** It says something about this copy, not about the node. */
export const isBadCopy = (kind: FailureKind) => kind === 'missing' || kind === 'corrupt';

interface NodeRecord {
  url: string;
  id: string;
  latency: Latency;
  rate: Rate;
  outcomes: Outcomes;
  breaker: Breaker;
  chunks: number;
  bytes: number;
  failures: number;
}

/** A node that could be asked, and what is to be expected of it. */
export interface Prospect {
  node: string;
  which: Class;
  /** Until the bytes are here; null when that is not known, or to be found out anew. */
  expectedMs: number | null;
}

/** What nodes would be asked for, and under which circumstances. */
export interface Inquiry {
  bytes: number;
  now: number;
  explore: Explore;
  /** Nodes to be asked last. */
  avoided: ReadonlySet<string>;
}

const NOBODY: ReadonlySet<string> = new Set();

/** One node, as the live panel shows it. */
export interface NodeView {
  readonly url: string;
  readonly id: string;
  readonly latencyMs: number | null;
  readonly bandwidthMbps: number | null;
  readonly reliability: number;
  readonly pending: number;
  /** Chunks and shards that it gave. */
  readonly chunks: number;
  readonly bytes: number;
  readonly failures: number;
  /** Null while nothing was transferred. */
  readonly score: number | null;
  readonly state: 'ready' | 'probe' | 'backing_off';
  readonly backoffMs: number;
}

export class NodeBook {
  #nodes = new Map<string, NodeRecord>();
  #chance: () => number;

  /** `chance` gives numbers in [0, 1). */
  constructor(chance: () => number) {
    this.#chance = chance;
  }

  /** Makes a node known. */
  meet(url: string, id: string): void {
    if (this.#nodes.has(url)) return;
    this.#nodes.set(url, {
      url,
      id,
      latency: new Latency(),
      rate: new Rate(),
      outcomes: new Outcomes(),
      breaker: new Breaker(),
      chunks: 0,
      bytes: 0,
      failures: 0,
    });
  }

  /** URLs known, in the order they were met. */
  urls(): string[] {
    return [...this.#nodes.keys()];
  }

  latencyMs(url: string): number | null {
    return this.#nodes.get(url)?.latency.ms ?? null;
  }

  pingAnswered(url: string, rttMs: number): void {
    const node = this.#nodes.get(url);
    if (!node) return;
    node.latency.addPing(rttMs);
    node.outcomes.add(true);
    node.breaker.succeed('ping');
  }

  pingFailed(url: string, now: number): void {
    const node = this.#nodes.get(url);
    if (!node) return;
    node.outcomes.add(false);
    this.#fail(node, now, 'ping');
  }

  transferBegan(url: string, now: number): void {
    this.#nodes.get(url)?.rate.begin(now);
  }

  firstByte(url: string, waitMs: number): void {
    this.#nodes.get(url)?.latency.addFirstByte(waitMs);
  }

  progress(url: string, now: number, bytes: number): void {
    this.#nodes.get(url)?.rate.progress(now, bytes);
  }

  /** The bytes are here and verified. */
  transferDone(url: string, now: number, bytes: number): void {
    const node = this.#nodes.get(url);
    if (!node) return;
    node.rate.end(now);
    node.chunks += 1;
    node.bytes += bytes;
    node.outcomes.add(true);
    node.breaker.succeed('transfer');
  }

  transferFailed(url: string, now: number, kind: FailureKind): void {
    const node = this.#nodes.get(url);
    if (!node) return;
    node.rate.end(now);
    node.failures += 1;
    node.outcomes.add(false);
    if (!isBadCopy(kind)) this.#fail(node, now, 'transfer');
  }

  /** Others were faster than this transfer of `bytes` bytes: that it would have taken longer says how fast its node is at most. */
  transferOvertaken(url: string, now: number, bytes: number, afterMs: number): void {
    this.#nodes.get(url)?.rate.noMoreThan(now, bytes, afterMs);
    this.transferUnwanted(url, now);
  }

  /** We gave the transfer up ourselves: it says nothing about the node. */
  transferUnwanted(url: string, now: number): void {
    this.#nodes.get(url)?.rate.end(now);
  }

  /** The node to ask, of `urls`; null when all of them are to be left alone at `now`. */
  choose(urls: readonly string[], now: number, explore: Explore): string | null {
    const first = this.#ranked(urls, now, explore, NOBODY)[0];
    return first && classOf(first, explore) < Class.BackingOff ? first.node : null;
  }

  /** Those of `urls` that are known, also those to be left alone, in the order in which they are to be asked. */
  prospects(urls: readonly string[], { bytes, now, explore, avoided }: Inquiry): Prospect[] {
    return this.#ranked(urls, now, explore, avoided).map((candidate) => {
      const which = classOf(candidate, explore);
      return {
        node: candidate.node,
        which,
        expectedMs: which === Class.Explored ? null : expectedMs(candidate, bytes),
      };
    });
  }

  /** All nodes, in the order they were met. */
  view(now: number): NodeView[] {
    return [...this.#nodes.values()].map(({ url, id, latency, rate, outcomes, breaker, chunks, bytes, failures }) => ({
      url,
      id,
      chunks,
      bytes,
      failures,
      latencyMs: latency.ms,
      bandwidthMbps: rate.mbps,
      reliability: outcomes.reliability,
      pending: rate.running,
      score: rate.mbps === null ? null : score(rate.mbps, outcomes.reliability, latency.ms ?? 0),
      state: breaker.gate(now),
      backoffMs: breaker.leftMs(now),
    }));
  }

  #ranked(urls: readonly string[], now: number, explore: Explore, avoided: ReadonlySet<string>): Candidate[] {
    const candidates = this.#shuffled(urls)
      .map((url) => this.#candidate(url, now, avoided.has(url)))
      .filter((candidate) => candidate !== null);
    return rank(candidates, explore).map((index) => candidates[index]!);
  }

  #candidate(url: string, now: number, avoid: boolean): Candidate | null {
    const node = this.#nodes.get(url);
    if (!node) return null;
    const { mbps, sampledAt, running } = node.rate;
    return {
      node: url,
      measure: mbps === null ? null : { bandwidthMbps: mbps, reliability: node.outcomes.reliability },
      latencyMs: node.latency.ms,
      pending: running,
      gate: node.breaker.gate(now),
      stale: sampledAt !== null && now - sampledAt >= STALE_AFTER_MS,
      avoid,
    };
  }

  #fail(node: NodeRecord, now: number, by: Evidence): void {
    node.breaker.fail(now, by, 0.75 + 0.25 * this.#chance());
  }

  #shuffled(urls: readonly string[]): string[] {
    return urls
      .map((url) => ({ url, key: this.#chance() }))
      .sort((a, b) => a.key - b.key)
      .map(({ url }) => url);
  }
}
