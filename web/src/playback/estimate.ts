/** Smoothed figures of one node: round trip, rate, reliability. Pure arithmetic; times are in ms. */

/** Weight of a new round trip: four pings (12 s) replace two thirds of what was thought before. */
const LATENCY_WEIGHT = 0.25;
/**
 * Weight of a new rate in the fast and in the slow mean. The lesser of both is believed: a drop shows at once, a
 * rise has to last.
 */
const RATE_WEIGHT_FAST = 0.5;
const RATE_WEIGHT_SLOW = 0.15;
/** Outcomes remembered for the success rate. */
const OUTCOMES_MAX = 10;
/** Less than this many bytes says more about round trips than about the rate. */
const SAMPLE_BYTES_MIN = 16 * 1024;
/** A transfer that went wrong after so long counts as a (poor) rate; before, it only counts as a failure. */
const SAMPLE_TIME_MIN_MS = 250;
/** While transfers run, a rate is taken at least this often, so that a node that slows down shows before they end. */
const SAMPLE_TIME_MAX_MS = 1_000;

const smoothed = (mean: number | null, sample: number, weight: number) =>
  mean === null ? sample : mean + weight * (sample - mean);

/** Smoothed round trip of pings. */
export class Latency {
  #mean: number | null = null;
  #pinged = false;

  addPing(rttMs: number): void {
    // A time to first byte stood in until now; it holds the node's own work too, so it does not linger.
    if (!this.#pinged) this.#mean = null;
    this.#pinged = true;
    this.#mean = smoothed(this.#mean, rttMs, LATENCY_WEIGHT);
  }

  /** Before the first ping is back, the wait for a first byte is the best guess there is. */
  addFirstByte(waitMs: number): void {
    if (!this.#pinged) this.#mean = smoothed(this.#mean, waitMs, LATENCY_WEIGHT);
  }

  get ms(): number | null {
    return this.#mean;
  }
}

/**
 * Smoothed rate of all transfers from a node together, in Mbit/s.
 *
 * Four transfers side by side each see a quarter of the rate, so bytes are counted per node over the time during
 * which any transfer runs, the wait for the first byte included: that is the rate at which chunks come.
 */
export class Rate {
  #fast: number | null = null;
  #slow: number | null = null;
  #sampledAt: number | null = null;
  #running = 0;
  #since = 0;
  #bytes = 0;

  begin(now: number): void {
    if (this.#running === 0) this.#restart(now);
    this.#running += 1;
  }

  progress(now: number, bytes: number): void {
    this.#bytes += bytes;
    if (now - this.#since >= SAMPLE_TIME_MAX_MS) this.#sample(now);
  }

  end(now: number): void {
    if (this.#bytes >= SAMPLE_BYTES_MIN || now - this.#since >= SAMPLE_TIME_MIN_MS) this.#sample(now);
    this.#running = Math.max(0, this.#running - 1);
  }

  /**
   * A transfer of `bytes` bytes was not over after so long: the rate is no higher than if it had ended now. Others that
   * ran beside it may have had as much each.
   */
  noMoreThan(now: number, bytes: number, afterMs: number): void {
    const most = (Math.max(1, this.#running) * bytes * 8) / 1000 / Math.max(afterMs, 0.1);
    if (this.mbps !== null && this.mbps > most) this.#take(most, now);
  }

  get running(): number {
    return this.#running;
  }

  get mbps(): number | null {
    return this.#fast === null || this.#slow === null ? null : Math.min(this.#fast, this.#slow);
  }

  get sampledAt(): number | null {
    return this.#sampledAt;
  }

  #sample(now: number): void {
    // Below a tenth of a millisecond the clock says nothing.
    this.#take((this.#bytes * 8) / 1000 / Math.max(now - this.#since, 0.1), now);
  }

  #take(mbps: number, now: number): void {
    this.#fast = smoothed(this.#fast, mbps, RATE_WEIGHT_FAST);
    this.#slow = smoothed(this.#slow, mbps, RATE_WEIGHT_SLOW);
    this.#sampledAt = now;
    this.#restart(now);
  }

  #restart(now: number): void {
    this.#since = now;
    this.#bytes = 0;
  }
}

/** The last pings and transfers, good or bad. */
export class Outcomes {
  #last: boolean[] = [];

  add(good: boolean): void {
    if (this.#last.length === OUTCOMES_MAX) this.#last.shift();
    this.#last.push(good);
  }

  /** Share that went well, 0 to 1; 1 while nothing happened. */
  get reliability(): number {
    return this.#last.length === 0 ? 1 : this.#last.filter(Boolean).length / this.#last.length;
  }
}
