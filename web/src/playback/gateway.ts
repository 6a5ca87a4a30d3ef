/** Gets a chunk whole from the gateway, which asks the nodes itself. */
import type { Means } from './node_transfer';
import type { Located } from './places';
import { transfer, TransferError } from './transfer';
import type { FetchOptions, Found, Way } from './way';

/** Longest silence, in ms: it may itself have to try one node after the other. */
const PATIENCE_MS = 8_000;

export class Gateway implements Way {
  failures = 0;
  #means: Means;
  #url: string;
  #chunk: Located;
  #options: FetchOptions;

  constructor(means: Means, url: string, chunk: Located, options: FetchOptions) {
    this.#means = means;
    this.#url = url;
    this.#chunk = chunk;
    this.#options = options;
  }

  async find(): Promise<Found | null> {
    const { env, events } = this.#means;
    const { signal, onBytes } = this.#options;
    events.transferStarted?.(this.#chunk, 'gateway');
    try {
      const received = await transfer(env, this.#url, this.#chunk, { signal, patienceMs: PATIENCE_MS, onBytes });
      return { ...received, origins: ['gateway'] };
    } catch (error) {
      if (!(error instanceof TransferError)) throw error;
      this.failures += 1;
      events.transferFailed?.(this.#chunk, 'gateway', error.kind, error.message);
      return null;
    }
  }
}
