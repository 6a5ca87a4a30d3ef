/** Decides when a playback counts as a view: once, after 10 s or half the video was really played. Pure. */

const ENOUGH_SEC = 10;
/** A step of the position larger than this is a seek, not playing. */
const STEP_MAX_SEC = 2;

export class ViewCounter {
  #played = 0;
  #last: number | null = null;
  #counted = false;

  /** Told of the position as it moves; true exactly once, when the view is to be counted. */
  at(positionSec: number, durationSec: number): boolean {
    const step = this.#last === null ? 0 : positionSec - this.#last;
    this.#last = positionSec;
    if (step > 0 && step <= STEP_MAX_SEC) this.#played += step;
    const needed = durationSec > 0 ? Math.min(ENOUGH_SEC, durationSec / 2) : ENOUGH_SEC;
    if (this.#counted || this.#played < needed) return false;
    this.#counted = true;
    return true;
  }
}
