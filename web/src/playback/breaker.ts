/**
 * Leaving a failed node alone: open after a failure, half-open after a while, closed by a success.
 *
 * A node that answers pings and fails transfers must not be called well by its pings, so a failure of transfers is
 * only healed by a transfer. Pure; times are in ms.
 */
import type { Gate } from './score';

const BACKOFF_FIRST_MS = 500;
/** Short, so that a restarted node has its share again within 30 s. */
const BACKOFF_MAX_MS = 8_000;

export type Evidence = 'ping' | 'transfer';

/** `BACKOFF_FIRST_MS` for the first time, twice that for the second, and so on, up to the limit. */
export function pauseMs(times: number): number {
  return Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (times - 1));
}

export class Breaker {
  #open: { until: number; failures: number; by: Evidence } | null = null;

  gate(now: number): Gate {
    if (!this.#open) return 'ready';
    return now >= this.#open.until ? 'probe' : 'backing_off';
  }

  /** How long the node is still left alone. */
  leftMs(now: number): number {
    return this.#open ? Math.max(0, this.#open.until - now) : 0;
  }

  /** Failures during a pause do not prolong it: four transfers that die together are one failure. */
  fail(now: number, by: Evidence, jitter: number): void {
    const before = this.#open;
    const cause: Evidence = by === 'transfer' || before?.by === 'transfer' ? 'transfer' : 'ping';
    if (before && now < before.until) {
      before.by = cause;
      return;
    }
    const failures = (before?.failures ?? 0) + 1;
    this.#open = { until: now + pauseMs(failures) * jitter, failures, by: cause };
  }

  succeed(by: Evidence): void {
    if (by === 'transfer' || this.#open?.by === 'ping') this.#open = null;
  }
}
