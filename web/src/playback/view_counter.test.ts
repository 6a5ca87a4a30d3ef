import { expect, it } from 'vitest';
import { ViewCounter } from './view_counter';

/** Plays from `from` to `to` in quarter seconds; the position at which the view was counted. */
function play(counter: ViewCounter, from: number, to: number, duration: number): number | null {
  let counted: number | null = null;
  for (let at = from; at <= to; at += 0.25) if (counter.at(at, duration)) counted = at;
  return counted;
}

it('counts after ten seconds, once', () => {
  const counter = new ViewCounter();
  expect(play(counter, 0, 60, 600)).toBe(10);
  expect(play(counter, 60, 120, 600)).toBeNull();
});

it('counts a short video after half of it', () => {
  expect(play(new ViewCounter(), 0, 8, 8)).toBe(4);
});

it('does not count what was skipped', () => {
  const counter = new ViewCounter();
  expect(play(counter, 0, 3, 600)).toBeNull();
  expect(play(counter, 300, 306, 600)).toBeNull();
  expect(play(counter, 500, 510, 600)).toBe(501);
});
