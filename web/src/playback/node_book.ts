/**
 * What the player knows of every storage node, and which one it asks next. Pure: the time is an argument (ms) and
 * chance is handed in. Knows nothing of HTTP. The rules are those of the Rust crate `vstack-playback`.
 */
import { Breaker, type Evidence } from './breaker';
import { Latency, Outcomes, Rate } from './estimate';
import { type Candidate, Class, classOf, type Explore, rank, score } from './score';

/** A rate measured longer ago than this is worth measuring again. */
const STALE_AFTER_MS = 120_000;

/** Why a transfer went wrong. */
export type FailureKind = 'unreachable' | 'stalled' | 'truncated' | 'busy' | 'missing' | 'corrupt';

/** It says something about this copy, not about the node. */
const isBadCopy = (kind: FailureKind) => kind === 'missing' || kind === 'corrupt';

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

/** One node, as the live panel shows it. */
export interface NodeView {
  readonly url: string;
  readonly id: string;
  readonly latencyMs: number | null;
  readonly bandwidthMbps: number | null;
  readonly reliability: number;
  readonly pending: number;
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

  /** We gave the transfer up ourselves: it says nothing about the node. */
  transferUnwanted(url: string, now: number): void {
    this.#nodes.get(url)?.rate.end(now);
  }

  /** The node to ask, of `urls`; null when all of them are to be left alone at `now`. */
  choose(urls: readonly string[], now: number, explore: Explore): string | null {
    const candidates = this.#shuffled(urls)
      .map((url) => this.#candidate(url, now))
      .filter((candidate) => candidate !== null)
      .filter((candidate) => classOf(candidate, explore) < Class.BackingOff);
    const first = rank(candidates, explore)[0];
    return first === undefined ? null : candidates[first]!.node;
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

  #candidate(url: string, now: number): Candidate | null {
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
      avoid: false,
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
