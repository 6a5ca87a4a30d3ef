/**
 * Joins shards to chunks. Data shards alone are only put side by side; everything else takes arithmetic on every byte,
 * which is done in a worker, so that the page goes on meanwhile.
 */
import { readShards, type Shard } from './erasure';
import { WorkerCalls } from './worker_calls';

/** At least as many different shards as there are data shards. */
export interface Decodable {
  /** Of the chunk. */
  sizeBytes: number;
  dataShards: number;
  parityShards: number;
  shards: readonly Shard[];
}

/** Whether the shards are of one chunk at all only its SHA-256 says. */
export interface Decoder {
  decode(some: Decodable): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
}

/** The chunk, decoded if it has to be. */
export async function join(some: Decodable, decoder: Decoder): Promise<Uint8Array<ArrayBuffer>> {
  const dataShards = new Set(some.shards.map(({ index }) => index).filter((index) => index < some.dataShards));
  return dataShards.size === some.dataShards ? read(some) : decoder.decode(some);
}

/** On the caller's thread. */
export function read({ sizeBytes, dataShards, parityShards, shards }: Decodable): Uint8Array<ArrayBuffer> {
  return readShards(sizeBytes, dataShards, parityShards, shards);
}

class WorkerDecoder implements Decoder {
  #begin: () => Worker;
  #calls: WorkerCalls<Decodable, Uint8Array<ArrayBuffer>> | null = null;
  #isClosed = false;

  constructor(begin: () => Worker) {
    this.#begin = begin;
  }

  async decode(some: Decodable): Promise<Uint8Array<ArrayBuffer>> {
    try {
      // Not before it is needed: most playbacks never decode.
      this.#calls ??= new WorkerCalls(this.#begin(), 'the decoding worker failed');
      // The worker gets copies, which cost little beside the decoding: where it fails, the shards are needed here.
      return await this.#calls.ask(some);
    } catch (error) {
      if (this.#isClosed) throw error;
      // There may be no worker (a stricter content policy, say). If it is the shards that are wrong, that shows again.
      return read(some);
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#calls?.close();
  }
}

/** Decodes in the worker that `begin` gives, and on the main thread when it gives none. */
export function workerDecoder(begin: () => Worker): Decoder {
  return new WorkerDecoder(begin);
}

/** The decoder of this page. */
export function browserDecoder(): Decoder {
  return workerDecoder(() => new Worker(new URL('./decode.worker.ts', import.meta.url), { type: 'module' }));
}
