/** A world for the player's tests: a clock moved by hand, nodes that behave as told, and a real hasher. */
import { createHash } from 'node:crypto';
import type { Manifest } from '../api/types';
import { mainThreadHasher } from './hasher';
import type { Environment } from './transfer';

export const sha256Hex = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** How an address answers a GET. */
export type Behaviour =
  | { kind: 'bytes'; bytes: Uint8Array }
  | { kind: 'status'; status: number; code?: string }
  /** The connection is refused. */
  | { kind: 'unreachable' }
  /** Takes the request and says nothing. */
  | { kind: 'silent' }
  /** Sends this much and then nothing. */
  | { kind: 'hangs after'; bytes: Uint8Array };

interface Timer {
  at: number;
  run: () => void;
}

export class World implements Environment {
  hasher = mainThreadHasher();
  /** Every GET, in order. */
  readonly requests: string[] = [];
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
