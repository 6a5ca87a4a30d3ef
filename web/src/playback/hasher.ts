/**
 * Chooses how chunks are hashed: the browser's own SHA-256 in a secure context, ours in a worker elsewhere, and ours
 * on the main thread when a worker cannot be had. Whichever it is, the caller gets its bytes back: a worker takes the
 * buffer by transfer and returns it.
 */
import type { HashReply, HashRequest } from './hash.worker';
import { hex, sha256 } from './sha256';

/** Bytes, and the hex SHA-256 of them. The bytes handed in must not be used after the call. */
export interface Hashed {
  bytes: Uint8Array<ArrayBuffer>;
  digest: string;
}

export interface Hasher {
  readonly kind: 'native' | 'worker' | 'main thread';
  hash(bytes: Uint8Array<ArrayBuffer>): Promise<Hashed>;
  close(): void;
}

function nativeHasher(subtle: SubtleCrypto): Hasher {
  return {
    kind: 'native',
    async hash(bytes) {
      return { bytes, digest: hex(new Uint8Array(await subtle.digest('SHA-256', bytes))) };
    },
    close() {},
  };
}

/** Ours, on the caller's thread. */
export function mainThreadHasher(): Hasher {
  return {
    kind: 'main thread',
    async hash(bytes) {
      return { bytes, digest: hex(sha256(bytes)) };
    },
    close() {},
  };
}

interface Waiting {
  done(hashed: Hashed): void;
  failed(reason: Error): void;
}

class WorkerHasher implements Hasher {
  readonly kind = 'worker';
  #worker: Worker;
  #waiting = new Map<number, Waiting>();
  #next = 0;
  #broken: Error | null = null;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<HashReply>) => {
      this.#waiting.get(data.ticket)?.done({ bytes: data.bytes, digest: hex(data.digest) });
      this.#waiting.delete(data.ticket);
    };
    worker.onerror = () => this.#fail(new Error('the hashing worker failed'));
  }

  hash(bytes: Uint8Array<ArrayBuffer>): Promise<Hashed> {
    // A worker that never started (a stricter content policy, say) is found out on the first use.
    if (this.#broken) return mainThreadHasher().hash(bytes);
    const request: HashRequest = { ticket: this.#next++, bytes };
    return new Promise((done, failed) => {
      this.#waiting.set(request.ticket, { done, failed });
      this.#worker.postMessage(request, [bytes.buffer]);
    });
  }

  close(): void {
    this.#worker.terminate();
    this.#fail(new Error('the player was closed'));
  }

  #fail(reason: Error): void {
    this.#broken = reason;
    for (const waiting of this.#waiting.values()) waiting.failed(reason);
    this.#waiting.clear();
  }
}

/** The best hasher this page may use. */
export function browserHasher(): Hasher {
  if (globalThis.crypto?.subtle) return nativeHasher(crypto.subtle);
  try {
    return new WorkerHasher(new Worker(new URL('./hash.worker.ts', import.meta.url), { type: 'module' }));
  } catch {
    return mainThreadHasher();
  }
}
