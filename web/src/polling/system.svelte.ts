/** The cluster's health and figures, asked every three seconds while the page is looked at. */
import * as calls from '../api/calls';
import type { SystemHealth, SystemStats } from '../api/types';
import { poll } from './poll';

const EVERY_MS = 3_000;

class System {
  health = $state.raw<SystemHealth | null>(null);
  stats = $state.raw<SystemStats | null>(null);
  /** Why the last question went unanswered. */
  error = $state<string | null>(null);
  /** The time of the last answer, and the clock for "how long ago". */
  now = $state(Date.now());

  start(): () => void {
    return poll(() => this.#ask(), EVERY_MS);
  }

  async #ask(): Promise<void> {
    const [health, stats] = await Promise.allSettled([calls.health(), calls.stats()]);
    this.now = Date.now();
    if (stats.status === 'fulfilled') this.stats = stats.value;
    if (health.status === 'fulfilled') {
      this.health = health.value;
      this.error = null;
    } else this.error = health.reason instanceof Error ? health.reason.message : String(health.reason);
  }
}

export const system = new System();
