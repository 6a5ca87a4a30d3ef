/**
 * Asks for a newer manifest when nodes do not give what the one at hand says they have: one call at a time, and less
 * and less often while there is nothing new. And when it is old, while things are fetched by it.
 */
import type { Manifest } from '../api/types';

const PAUSE_FIRST_MS = 1_000;
/** Short enough for a chunk that is waited for to be found where a repair has put it. */
const PAUSE_MAX_MS = 8_000;
/** Nodes keep what was moved for longer than that, so that hardly anything is looked for where it is gone. */
const OLD_AFTER_MS = 20_000;

export class ManifestRenewal {
  #now: () => number;
  #ask: () => Promise<Manifest>;
  #take: (manifest: Manifest) => boolean;
  #isAsking = false;
  #notBefore = -Infinity;
  #pauseMs = PAUSE_FIRST_MS;
  #askedAt: number;

  /** `take` says whether what it is given is newer. */
  constructor(now: () => number, ask: () => Promise<Manifest>, take: (manifest: Manifest) => boolean) {
    this.#now = now;
    this.#ask = ask;
    this.#take = take;
    this.#askedAt = now();
  }

  /** Somebody could use one. To be called for every round that fails. */
  want(): void {
    if (!this.#isAsking && this.#now() >= this.#notBefore) void this.#renew();
  }

  /** Something is fetched by the one at hand. That there is no newer one holds up nobody who misses something. */
  used(): void {
    if (!this.#isAsking && this.#now() >= this.#askedAt + OLD_AFTER_MS) void this.#isNewer();
  }

  async #renew(): Promise<void> {
    if (await this.#isNewer()) this.#pauseMs = PAUSE_FIRST_MS;
    this.#notBefore = this.#now() + this.#pauseMs;
    this.#pauseMs = Math.min(PAUSE_MAX_MS, 2 * this.#pauseMs);
  }

  async #isNewer(): Promise<boolean> {
    this.#isAsking = true;
    this.#askedAt = this.#now();
    try {
      return this.#take(await this.#ask());
    } catch {
      // Whoever cannot go on without it asks again.
      return false;
    } finally {
      this.#isAsking = false;
    }
  }
}
