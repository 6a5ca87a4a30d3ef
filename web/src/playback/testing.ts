/** A world for the player's tests: a clock moved by hand, nodes that behave as told, and a real hasher. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Manifest } from '../api/types';
import { type Decodable, type Decoder, read } from './decoder';
import { mainThreadHasher } from './hasher';
import type { Environment } from './transfer';

export const sha256Hex = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** How an address answers a GET. */
export type Behaviour =
  | { kind: 'bytes'; bytes: Uint8Array }
  /** Gives the same after so many ms. */
  | { kind: 'late'; bytes: Uint8Array; afterMs: number }
  | { kind: 'status'; status: number; code?: string }
  /** The connection is refused. */
  | { kind: 'unreachable' }
  /** Takes the request and says nothing. */
  | { kind: 'silent' }
  /** Sends this much and then nothing. */
  | { kind: 'hangs after'; bytes: Uint8Array };

/** Decodes at once, and counts. */
class CountingDecoder implements Decoder {
  count = 0;

  async decode(some: Decodable): Promise<Uint8Array<ArrayBuffer>> {
    this.count += 1;
    return read(some);
  }

  close(): void {}
}

interface Timer {
  at: number;
  run: () => void;
}

export class World implements Environment {
  hasher = mainThreadHasher();
  decoder = new CountingDecoder();
  /** Every GET, in order. */
  readonly requests: string[] = [];
  /** Every GET that was given up before it was over, in order. */
  readonly aborted: string[] = [];
  readonly pings: string[] = [];
  /** Most GETs that were open at a time. */
  openMax = 0;
  #open = 0;
  #now = 0;
  #timers = new Set<Timer>();
  #answer: (url: string) => Behaviour;
  chances: number[] = [];

  constructor(answer: (url: string) => Behaviour) {
    this.#answer = answer;
  }

  now = () => this.#now;
  chance = () => this.chances.shift() ?? 0.5;

  after = (ms: number, run: () => void) => {
    const timer = { at: this.#now + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  /** Moves the clock, firing what falls due on the way, and lets promises run. */
  async pass(ms: number): Promise<void> {
    const until = this.#now + ms;
    for (;;) {
      await this.settle();
      const next = [...this.#timers].filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.run();
    }
    this.#now = until;
    await this.settle();
  }

  /** Moves the clock without firing timers, as when the page's thread was busy. */
  freeze(ms: number): void {
    this.#now += ms;
  }

  /** Runs everything that waits only for promises and streams. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) await new Promise((done) => setImmediate(done));
  }

  fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const signal = init.signal!;
    if (init.method === 'HEAD') {
      this.pings.push(url);
      const ok = this.#answer(url).kind === 'bytes';
      if (!ok) throw new TypeError('Failed to fetch');
      return new Response(null, { status: 200 });
    }
    this.requests.push(url);
    signal.addEventListener('abort', () => this.aborted.push(url), { once: true });
    this.#open += 1;
    this.openMax = Math.max(this.openMax, this.#open);
    try {
      return await this.#respond(this.#answer(url), signal);
    } finally {
      // The body is tiny and at hand, so an open fetch stands for an open transfer.
      this.#open -= 1;
    }
  };

  async #respond(behaviour: Behaviour, signal: AbortSignal): Promise<Response> {
    switch (behaviour.kind) {
      case 'bytes':
        await new Promise((done) => setImmediate(done));
        return new Response(behaviour.bytes.slice());
      case 'late':
        await new Promise<void>((done, failed) => {
          const stop = this.after(behaviour.afterMs, done);
          signal.addEventListener('abort', () => {
            stop();
            failed(new DOMException('aborted', 'AbortError'));
          });
        });
        return new Response(behaviour.bytes.slice());
      case 'status':
        return new Response('{"detail":"no"}', {
          status: behaviour.status,
          headers: behaviour.code ? { 'X-Error-Code': behaviour.code } : {},
        });
      case 'unreachable':
        throw new TypeError('Failed to fetch');
      case 'silent':
        return aborted(signal);
      case 'hangs after': {
        const body = new ReadableStream({
          start(controller) {
            controller.enqueue(behaviour.bytes.slice());
            signal.addEventListener('abort', () => controller.error(new DOMException('aborted', 'AbortError')));
          },
        });
        return new Response(body);
      }
    }
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, failed) => {
    signal.addEventListener('abort', () => failed(new DOMException('aborted', 'AbortError')));
  });
}

export const NODES = ['http://a:1', 'http://b:2', 'http://c:3'];

/** One for each shard. */
export const FIVE = [...NODES, 'http://d:4', 'http://e:5'];

interface Vector {
  shape: string;
  chunk: string;
  shards: string[];
}

const fromHex = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (digits) => parseInt(digits, 16));

/** A chunk and its shards. */
export interface CodedChunk {
  dataShards: number;
  parityShards: number;
  bytes: Uint8Array;
  shards: Uint8Array[];
}

/** A chunk of so many bytes, coded in this shape by the Rust code. */
export function codedAs(shape: string, sizeBytes: number): CodedChunk {
  const file = new URL('../../../crates/erasure/vectors.json', import.meta.url);
  const vectors = JSON.parse(readFileSync(file, 'utf8')) as Vector[];
  const vector = vectors.find((one) => one.shape === shape && one.chunk.length === 2 * sizeBytes);
  if (!vector) throw new Error('there is no such vector');
  const [dataShards = 0, parityShards = 0] = shape.split('+').map(Number);
  return { dataShards, parityShards, bytes: fromHex(vector.chunk), shards: vector.shards.map(fromHex) };
}

/** The last data shard is longer than what is left. */
export const CODED = codedAs('3+2', 100);

/** Indexes of shards, where each is, and what was made for it where that is something else than it should be. */
export type ShardsAt = readonly (readonly [index: number, url: string, made?: Uint8Array])[];

const ONE_EACH: ShardsAt = FIVE.map((url, index) => [index, url] as const);

/** What a manifest says of a chunk. */
export function codedEntry(id: string, shards: ShardsAt = ONE_EACH, coded: CodedChunk = CODED) {
  return {
    chunk_id: id,
    size_bytes: coded.bytes.length,
    checksum: `sha256:${sha256Hex(coded.bytes)}`,
    replicas: [] as string[],
    replica_ids: [] as string[],
    fragments: {
      data_shards: coded.dataShards,
      parity_shards: coded.parityShards,
      size_bytes: coded.shards[0]!.length,
      shards: shards.map(([index, url, made]) => ({
        fragment_id: `${id}-frag-${index}`,
        fragment_index: index,
        checksum: `sha256:${sha256Hex(made ?? coded.shards[index]!)}`,
        node_url: url,
        node_id: `node-${new URL(url).hostname}`,
      })),
    },
  };
}

/** The shard of `coded` that a URL names, if it names one. */
export function shardAt(url: string, coded: CodedChunk = CODED): Behaviour | undefined {
  const index = /-frag-(\d+)\?/.exec(url)?.[1];
  return index === undefined ? undefined : { kind: 'bytes', bytes: coded.shards[Number(index)]! };
}

/** What is asked for by its SHA-256, of what is listed though something else should have been made. */
export const madeAt = (shards: ShardsAt) => (url: string): Behaviour | undefined => {
  for (const [, node, made] of shards) {
    if (made && url.startsWith(node) && url.endsWith(sha256Hex(made))) return { kind: 'bytes', bytes: made };
  }
  return undefined;
};

/** Something else of the same length. */
export const other = (bytes: Uint8Array) => bytes.map((byte) => byte ^ 1);

/** `a0` for the shard 0 of node a, and so on. */
export const shardNames = (urls: readonly string[]) =>
  urls.map((url) => url.replace(/^http:\/\/(\w).*-frag-(\d+)\?sha256=[0-9a-f]{64}$/, '$1$2'));

/** A worker that answers when it is told to. */
export class FakeWorker {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: (() => void) | null = null;
  readonly asked: { ticket: number; question: unknown }[] = [];
  isTerminated = false;

  /** As the code takes it. */
  get worker(): Worker {
    return this as unknown as Worker;
  }

  postMessage(message: { ticket: number; question: unknown }): void {
    this.asked.push(message);
  }

  terminate(): void {
    this.isTerminated = true;
  }
}

/** The bytes of a chunk: different for every id, `size` long. */
export function chunkBytes(id: string, size: number): Uint8Array {
  const seed = createHash('sha256').update(id).digest();
  return Uint8Array.from({ length: size }, (_, index) => seed[index % 32]! ^ (index >> 5));
}

/** A video whose segments have the given numbers of chunks, each segment 10 s long. */
export function makeManifest(chunksOfSegment: number[], size = 20_000): Manifest {
  const entry = (id: string, bytes: number) => ({
    chunk_id: id,
    size_bytes: bytes,
    checksum: `sha256:${sha256Hex(chunkBytes(id, bytes))}`,
    replicas: NODES,
    replica_ids: ['node-a', 'node-b', 'node-c'],
  });
  const chunks = chunksOfSegment.flatMap((count, segment) =>
    Array.from({ length: count }, (_, part) => ({ segment, part, count })),
  );
  return {
    video_id: 'v',
    title: 'A video',
    duration_sec: chunksOfSegment.length * 10,
    total_chunks: chunks.length,
    chunk_duration_sec: 10,
    chunk_size_bytes: 2_097_152,
    created_at: '2026-01-01T00:00:00.000Z',
    status: 'active',
    version: 1,
    codecs: 'avc1.640028',
    width: 640,
    height: 360,
    init: entry('v-init', 700),
    chunks: chunks.map(({ segment, part, count }, sequence) => ({
      ...entry(`v-chunk-${String(sequence).padStart(3, '0')}`, size),
      sequence_num: sequence,
      redundancy_mode: 'replication' as const,
      segment,
      start_sec: segment * 10 + (part * 10) / count,
      duration_sec: 10 / count,
      independent: part === 0,
    })),
  };
}
