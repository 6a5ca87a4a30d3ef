/**
 * Chooses how chunks are hashed: the browser's own SHA-256 in a secure context, ours in a worker elsewhere, and ours
 * on the main thread when a worker cannot be had. Whichever it is, the caller gets its bytes back: a worker takes the
 * buffer by transfer and returns it.
 */
import type { HashAnswer } from './hash.worker';
import { hex, sha256 } from './sha256';
import { WorkerCalls } from './worker_calls';

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

class WorkerHasher implements Hasher {
  readonly kind = 'worker';
  #calls: WorkerCalls<Uint8Array<ArrayBuffer>, HashAnswer>;

  constructor(worker: Worker) {
    this.#calls = new WorkerCalls(worker, 'the hashing worker failed');
  }

  async hash(bytes: Uint8Array<ArrayBuffer>): Promise<Hashed> {
    // A worker that never started (a stricter content policy, say) is found out on the first use.
    if (this.#calls.isBroken) return mainThreadHasher().hash(bytes);
    const answer = await this.#calls.ask(bytes, [bytes.buffer]);
    return { bytes: answer.bytes, digest: hex(answer.digest) };
  }

  close(): void {
    this.#calls.close();
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
