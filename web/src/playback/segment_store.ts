/**
 * Gives whole segments: fetches their chunks in parallel, keeps those fetched ahead until they are asked for, and
 * drops what a seek made useless. It holds no more than a bounded number of bytes.
 *
 * The same chunk is never fetched twice at a time: a segment that is asked for while its chunks are being fetched
 * ahead takes over those transfers, and makes them urgent.
 */
import type { ChunkSource, Fetched } from './chunk_source';
import type { Located } from './places';
import type { Explore } from './score';
import { Cancelled } from './transfer';
import { type Job, TransferQueue } from './transfer_queue';
import type { FetchOptions } from './way';

/** Most chunks at a time. One in shards takes several transfers, which bring about as many bytes together. */
export const PARALLEL_MAX = 4;
/** Most bytes fetched ahead or being fetched ahead. */
export const AHEAD_BYTES_MAX = 48 * 1024 * 1024;

/** A run of chunks that starts at a keyframe; the init segment is one too. */
export interface Segment {
  key: string;
  chunks: readonly Located[];
}

export interface SegmentLoaded {
  data: ArrayBuffer;
  /** When the first byte of any of its chunks came. */
  firstByteAt: number;
  endedAt: number;
  /** Transfers that failed on the way. */
  failures: number;
}

export interface StoreEvents {
  waiting?(chunk: Located): void;
  arrived?(chunk: Located, fetched: Fetched): void;
  /** Given up, or nobody gave it. */
  dropped?(chunk: Located, error: unknown): void;
}

/** A chunk that is being fetched, or is here and not yet handed out. */
class Entry implements Job {
  readonly result: Promise<Fetched>;
  /** Told of every piece that arrives. */
  listener: ((count: number) => void) | null = null;
  received = 0;
  #controller = new AbortController();
  #settle!: { done(fetched: Fetched): void; failed(error: unknown): void };
  #source: ChunkSource;

  constructor(
    source: ChunkSource,
    readonly chunk: Located,
    readonly order: number,
    public demanded: boolean,
    private readonly explore: (demanded: boolean) => Explore,
  ) {
    this.#source = source;
    this.result = new Promise((done, failed) => (this.#settle = { done, failed }));
    // A chunk fetched ahead may fail with nobody waiting; whoever asks later sees the rejection all the same.
    this.result.catch(() => {});
  }

  urgency(): number {
    return this.demanded ? this.order - 1e9 : this.order;
  }

  async run(): Promise<void> {
    try {
      const options: FetchOptions = {
        signal: this.#controller.signal,
        explore: () => this.explore(this.demanded),
        onBytes: (count) => this.#count(count),
      };
      this.#settle.done(await this.#source.fetch(this.chunk, options));
    } catch (error) {
      this.#settle.failed(error);
    }
  }

  cancel(): void {
    this.#controller.abort();
    this.#settle.failed(new Cancelled());
  }

  #count(count: number): void {
    this.received += count;
    this.listener?.(count);
  }
}

function joined(parts: readonly Fetched[]): ArrayBuffer {
  if (parts.length === 1) {
    const { bytes } = parts[0]!;
    if (bytes.byteLength === bytes.buffer.byteLength) return bytes.buffer;
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.bytes.length, 0));
  let offset = 0;
  for (const { bytes } of parts) {
    whole.set(bytes, offset);
    offset += bytes.length;
  }
  return whole.buffer;
}

export class SegmentStore {
  #source: ChunkSource;
  #queue = new TransferQueue(PARALLEL_MAX);
  #entries = new Map<string, Entry>();
  #events: StoreEvents;
  #explore: (demanded: boolean) => Explore;
  #order = 0;

  /** `explore` says what may be risked for a chunk that is, or is not, being waited for. */
  constructor(source: ChunkSource, explore: (demanded: boolean) => Explore, events: StoreEvents = {}) {
    this.#source = source;
    this.#explore = explore;
    this.#events = events;
  }

  /**
   * The segment's bytes, in order. Rejects with `Cancelled` when `signal` fires: its transfers then go on as
   * fetches ahead, because the player that gave the segment up most often asks again.
   */
  async load(segment: Segment, signal: AbortSignal, onBytes: (count: number) => void): Promise<SegmentLoaded> {
    const entries = segment.chunks.map((chunk) => this.#enter(chunk, true));
    for (const entry of entries) {
      entry.listener = onBytes;
      if (entry.received > 0) onBytes(entry.received);
    }
    try {
      const parts = await untilAborted(Promise.all(entries.map((entry) => entry.result)), signal);
      for (const entry of entries) this.#entries.delete(entry.chunk.id);
      return {
        data: joined(parts),
        firstByteAt: Math.min(...parts.map((part) => part.firstByteAt)),
        endedAt: Math.max(...parts.map((part) => part.endedAt)),
        failures: parts.reduce((sum, part) => sum + part.failures, 0),
      };
    } finally {
      for (const entry of entries) {
        entry.listener = null;
        entry.demanded = false;
      }
    }
  }

  /** Fetches `segments` ahead, in their order, as far as memory allows, and gives up every other fetch ahead. */
  prefetch(segments: readonly Segment[]): void {
    const wanted = new Set(segments.flatMap((segment) => segment.chunks.map((chunk) => chunk.id)));
    for (const entry of [...this.#entries.values()]) {
      if (!entry.demanded && !wanted.has(entry.chunk.id)) this.#drop(entry);
    }
    let room = AHEAD_BYTES_MAX - this.#bytesHeld();
    for (const chunk of segments.flatMap((segment) => segment.chunks)) {
      if (this.#entries.has(chunk.id)) continue;
      room -= chunk.sizeBytes;
      if (room < 0) return;
      this.#enter(chunk, false);
    }
  }

  /** Gives everything up. */
  close(): void {
    for (const entry of [...this.#entries.values()]) this.#drop(entry);
  }

  #enter(chunk: Located, demanded: boolean): Entry {
    const known = this.#entries.get(chunk.id);
    if (known) {
      known.demanded ||= demanded;
      return known;
    }
    const entry = new Entry(this.#source, chunk, this.#order++, demanded, this.#explore);
    this.#entries.set(chunk.id, entry);
    this.#events.waiting?.(chunk);
    entry.result.then(
      (fetched) => this.#events.arrived?.(chunk, fetched),
      (error: unknown) => {
        if (this.#entries.get(chunk.id) === entry) this.#entries.delete(chunk.id);
        this.#events.dropped?.(chunk, error);
      },
    );
    this.#queue.add(entry);
    return entry;
  }

  #drop(entry: Entry): void {
    this.#entries.delete(entry.chunk.id);
    this.#queue.remove(entry);
    entry.cancel();
  }

  #bytesHeld(): number {
    let sum = 0;
    for (const entry of this.#entries.values()) if (!entry.demanded) sum += entry.chunk.sizeBytes;
    return sum;
  }
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((done, failed) => {
    const abort = () => failed(new Cancelled());
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(done, failed).finally(() => signal.removeEventListener('abort', abort));
  });
}
