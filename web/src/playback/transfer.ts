/**
 * One transfer of one chunk or shard from one address: the bytes within their announced length, their SHA-256 compared,
 * and given up as soon as nothing arrives for a while. Knows nothing of other addresses.
 */
import type { Decoder } from './decoder';
import type { Hasher } from './hasher';
import type { FailureKind } from './node_book';

/**
 * Silence after which a transfer is given up, in ms: four round trips within these bounds. The upper one leaves a
 * round trip for the next node within 2 s; the lower one is generous because a page shares its thread with decoding.
 */
const PATIENCE_MIN_MS = 1_000;
const PATIENCE_MAX_MS = 1_750;
/** A timer this late shows that the page itself was held up: what came meanwhile has yet to be read. */
const TIMER_LATE_MS = 200;

/** How long to wait for a byte from a node with this round trip. */
export function patienceMs(latencyMs: number | null): number {
  return Math.min(PATIENCE_MAX_MS, Math.max(PATIENCE_MIN_MS, 4 * (latencyMs ?? Infinity)));
}

/** The world as the player sees it; tests hand in their own. */
export interface Environment {
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Monotonic, in ms. */
  now(): number;
  /** Calls `run` once after `ms` unless the returned function is called before. */
  after(ms: number, run: () => void): () => void;
  /** In [0, 1). */
  chance(): number;
  hasher: Hasher;
  decoder: Decoder;
}

/** What is expected. */
export interface Expected {
  id: string;
  sizeBytes: number;
  /** Lower-case hex. */
  sha256: string;
}

export interface Received {
  bytes: Uint8Array<ArrayBuffer>;
  startedAt: number;
  firstByteAt: number;
  endedAt: number;
}

/** The transfer went wrong at the other end or on the way. */
export class TransferError extends Error {
  constructor(
    readonly kind: FailureKind,
    message: string,
  ) {
    super(message);
  }
}

/** The caller gave the transfer up. */
export class Cancelled extends Error {
  constructor() {
    super('cancelled');
  }
}

/** Aborts `controller` when `pet` is not called for `patience` ms. */
function watchdog(env: Environment, controller: AbortController, patience: number) {
  let cancel = () => {};
  let barked = false;
  const arm = (ms: number) => {
    cancel();
    const due = env.now() + ms;
    cancel = env.after(ms, () => {
      if (env.now() - due > TIMER_LATE_MS) return arm(TIMER_LATE_MS);
      barked = true;
      controller.abort();
    });
  };
  arm(patience);
  return { pet: () => arm(patience), stop: () => cancel(), barked: () => barked };
}

/**
 * What a status other than 200 says: about the copy (it is not there, the node knows it to be damaged, or cannot tell
 * whether it had it), or more.
 */
function refusal({ status, headers }: Response): TransferError {
  const isOfThisCopy = (status >= 400 && status < 429) || status === 500 || headers.get('x-error-code') === 'incomplete';
  return new TransferError(isOfThisCopy ? 'missing' : 'busy', `answered ${status}`);
}

async function readBody(
  response: Response,
  sizeBytes: number,
  onBytes: (count: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  if (!response.body) throw new TransferError('truncated', 'an answer without a body');
  const bytes = new Uint8Array(sizeBytes);
  const reader = response.body.getReader();
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > sizeBytes) {
      await reader.cancel().catch(() => {});
      throw new TransferError('corrupt', `more than the ${sizeBytes} bytes there should be`);
    }
    bytes.set(value, filled);
    filled += value.length;
    onBytes(value.length);
  }
  if (filled < sizeBytes) throw new TransferError('truncated', `${filled} of ${sizeBytes} bytes`);
  return bytes;
}

/** How one transfer is to be made. */
export interface TransferOptions {
  signal: AbortSignal;
  /** Longest silence, in ms. */
  patienceMs: number;
  /** Told of every piece as it arrives. */
  onBytes?: ((count: number) => void) | undefined;
}

/** Fetches and verifies. Rejects with `Cancelled` when the signal fires, with `TransferError` otherwise. */
export async function transfer(
  env: Environment,
  url: string,
  expected: Expected,
  { signal, patienceMs: patience, onBytes }: TransferOptions,
): Promise<Received> {
  if (signal.aborted) throw new Cancelled();
  const controller = new AbortController();
  const forward = () => controller.abort();
  signal.addEventListener('abort', forward, { once: true });
  const dog = watchdog(env, controller, patience);
  const startedAt = env.now();
  let firstByteAt = 0;
  try {
    const response = await env.fetch(url, {
      signal: controller.signal,
      mode: 'cors',
      credentials: 'omit',
      // A cached answer would be counted as the node's, and its speed taken for the network's.
      cache: 'no-store',
    });
    if (response.status !== 200) {
      await response.body?.cancel().catch(() => {});
      throw refusal(response);
    }
    const bytes = await readBody(response, expected.sizeBytes, (count) => {
      firstByteAt ||= env.now();
      dog.pet();
      onBytes?.(count);
    });
    dog.stop();
    const endedAt = env.now();
    const hashed = await env.hasher.hash(bytes);
    if (signal.aborted) throw new Cancelled();
    if (hashed.digest !== expected.sha256) throw new TransferError('corrupt', 'the bytes have another SHA-256');
    return { bytes: hashed.bytes, startedAt, firstByteAt: firstByteAt || endedAt, endedAt };
  } catch (error) {
    if (signal.aborted) throw new Cancelled();
    if (dog.barked()) throw new TransferError('stalled', `nothing came for ${Math.round(patience)} ms`);
    if (error instanceof TransferError) throw error;
    throw new TransferError('unreachable', error instanceof Error ? error.message : String(error));
  } finally {
    dog.stop();
    signal.removeEventListener('abort', forward);
  }
}
