/**
 * Lets at most so many transfers run at once, the most urgent first. Pure bookkeeping: it starts what it is given
 * and knows nothing of what that does.
 */

/** Lower is more urgent. */
export interface Job {
  urgency(): number;
  run(): Promise<void>;
}

export class TransferQueue {
  #parallelMax: number;
  #running = 0;
  #waiting: Job[] = [];

  constructor(parallelMax: number) {
    this.#parallelMax = parallelMax;
  }

  get running(): number {
    return this.#running;
  }

  add(job: Job): void {
    this.#waiting.push(job);
    this.#startSome();
  }

  /** Takes a job that has not started out again. */
  remove(job: Job): boolean {
    const index = this.#waiting.indexOf(job);
    if (index >= 0) this.#waiting.splice(index, 1);
    return index >= 0;
  }

  #startSome(): void {
    while (this.#running < this.#parallelMax && this.#waiting.length > 0) {
      const next = this.#waiting.reduce((best, job) => (job.urgency() < best.urgency() ? job : best));
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#running += 1;
      void next.run().finally(() => {
        this.#running -= 1;
        this.#startSome();
      });
    }
  }
}
