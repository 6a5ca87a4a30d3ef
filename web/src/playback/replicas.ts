/** Gets a chunk whole from one of its replicas: the best first, and at once another one when that fails. */
import { fromNode, type Means } from './node_transfer';
import type { Located } from './places';
import type { FetchOptions, Found, Reach, Way } from './way';

export class Replicas implements Way {
  failures = 0;
  #means: Means;
  #chunk: Located;
  #options: FetchOptions;
  #untried: Set<string>;

  constructor(means: Means, chunk: Located, replicas: readonly string[], options: FetchOptions) {
    this.#means = means;
    this.#chunk = chunk;
    this.#options = options;
    this.#untried = new Set(replicas);
  }

  async find(reach: Reach): Promise<Found | null> {
    for (;;) {
      const node = this.#next(reach);
      if (node === null) return null;
      this.#untried.delete(node);
      const outcome = await fromNode(this.#means, { node, chunk: this.#chunk, item: this.#chunk }, this.#options);
      if (typeof outcome !== 'string') return { ...outcome, origins: [{ node }] };
      this.failures += 1;
    }
  }

  #next(reach: Reach): string | null {
    const { book, env } = this.#means;
    const untried = [...this.#untried];
    const best = book.choose(untried, env.now(), this.#options.explore());
    return best ?? (reach === 'everyone' ? (untried[0] ?? null) : null);
  }
}
