/**
 * Gets one chunk from wherever it can be had: the best replica first, at once another one when that fails, and the
 * gateway when every replica failed or is to be left alone. Every byte it hands out was verified.
 */
import type { FailureKind, NodeBook } from './node_book';
import type { Explore } from './score';
import {
  type Environment,
  type Expected,
  patienceMs,
  type Received,
  transfer,
  TransferError,
} from './transfer';

/** Longest silence of the gateway, in ms. */
const GATEWAY_PATIENCE_MS = 8_000;

/** A chunk or an init segment, and who has it. */
export interface Located extends Expected {
  replicas: readonly string[];
}

/** Where verified bytes came from: a node's URL, or the gateway. */
export type Origin = { node: string } | 'gateway';

export interface Fetched extends Received {
  origin: Origin;
  /** Transfers that failed before this one. */
  failures: number;
}

/** What the source tells while it works. */
export interface SourceEvents {
  transferStarted?(chunk: Located, origin: Origin): void;
  transferFailed?(chunk: Located, origin: Origin, kind: FailureKind, message: string): void;
}

/** Nobody gave the chunk. */
export class NoSource extends Error {
  constructor(readonly chunkId: string) {
    super(`no node and no gateway gave ${chunkId}`);
  }
}

/** How urgent a chunk is, and who follows its bytes. */
export interface FetchOptions {
  signal: AbortSignal;
  /** Asked before every choice of a node. */
  explore(): Explore;
  onBytes?: (count: number) => void;
}

export class ChunkSource {
  #env: Environment;
  #book: NodeBook;
  #gateway: (chunkId: string) => string;
  #events: SourceEvents;

  constructor(env: Environment, book: NodeBook, gateway: (chunkId: string) => string, events: SourceEvents = {}) {
    this.#env = env;
    this.#book = book;
    this.#gateway = gateway;
    this.#events = events;
  }

  /** Rejects with `Cancelled` or `NoSource`. */
  async fetch(chunk: Located, options: FetchOptions): Promise<Fetched> {
    const untried = new Set(chunk.replicas);
    let failures = 0;
    for (;;) {
      const node = this.#book.choose([...untried], this.#env.now(), options.explore());
      if (node === null) break;
      untried.delete(node);
      const received = await this.#fromNode(chunk, node, options);
      if (received) return { ...received, origin: { node }, failures };
      failures += 1;
    }
    const received = await this.#fromGateway(chunk, options);
    if (received) return { ...received, origin: 'gateway', failures };
    failures += 1;
    // The last hope: replicas that were only being left alone.
    for (const node of untried) {
      const late = await this.#fromNode(chunk, node, options);
      if (late) return { ...late, origin: { node }, failures };
      failures += 1;
    }
    throw new NoSource(chunk.id);
  }

  async #fromNode(chunk: Located, node: string, { signal, onBytes }: FetchOptions): Promise<Received | null> {
    const { now } = this.#env;
    const book = this.#book;
    book.transferBegan(node, now());
    this.#events.transferStarted?.(chunk, { node });
    try {
      const received = await transfer(this.#env, `${node}/chunk/${chunk.id}`, chunk, {
        signal,
        patienceMs: patienceMs(book.latencyMs(node)),
        onBytes: (count) => {
          book.progress(node, now(), count);
          onBytes?.(count);
        },
      });
      book.firstByte(node, received.firstByteAt - received.startedAt);
      book.transferDone(node, received.endedAt, chunk.sizeBytes);
      return received;
    } catch (error) {
      if (!(error instanceof TransferError)) {
        book.transferUnwanted(node, now());
        throw error;
      }
      book.transferFailed(node, now(), error.kind);
      this.#events.transferFailed?.(chunk, { node }, error.kind, error.message);
      return null;
    }
  }

  async #fromGateway(chunk: Located, { signal, onBytes }: FetchOptions): Promise<Received | null> {
    this.#events.transferStarted?.(chunk, 'gateway');
    try {
      // The gateway may itself have to try one node after the other.
      const patience = { signal, patienceMs: GATEWAY_PATIENCE_MS, onBytes };
      return await transfer(this.#env, this.#gateway(chunk.id), chunk, patience);
    } catch (error) {
      if (!(error instanceof TransferError)) throw error;
      this.#events.transferFailed?.(chunk, 'gateway', error.kind, error.message);
      return null;
    }
  }
}
