import { expect, it } from 'vitest';
import { isDue, isUnreadable, survivalOf, survivalOfUpload } from './survival';

const survival = (failures_survived: number | null, survival_counted: boolean) => ({ failures_survived, survival_counted });

it('says what a video survives, and that it is not known where it is not', () => {
  const table: [number | null, boolean, string, boolean][] = [
    [2, true, 'survives 2 lost nodes', false],
    [1, true, 'survives 1 lost node', false],
    [0, true, 'survives no lost node', false],
    [2, false, 'survives 2 lost nodes, not counted yet', false],
    [null, true, 'cannot be read now', true],
    [null, false, 'not counted yet', false],
  ];
  for (const [nodes, counted, text, unreadable] of table) {
    expect(survivalOf(survival(nodes, counted))).toBe(text);
    expect(isUnreadable(survival(nodes, counted))).toBe(unreadable);
  }
});

it('assumes nothing of an upload of which copies are still to be made', () => {
  expect(survivalOfUpload(null, 0)).toBeNull();
  expect(survivalOfUpload(survival(2, false), 0)).toBe('survives 2 lost nodes, not counted yet');
  expect(survivalOfUpload(survival(2, false), 1)).toBeNull();
  expect(survivalOfUpload(survival(1, true), 1)).toBe('survives 1 lost node');
});

it('is asked for often until it is counted, and seldom after', () => {
  expect(isDue(null, 0)).toBe(true);
  expect(isDue(survival(2, false), 5_000)).toBe(true);
  expect(isDue(survival(null, false), 5_000)).toBe(true);
  for (const counted of [survival(2, true), survival(null, true)]) {
    expect(isDue(counted, 5_000)).toBe(false);
    expect(isDue(counted, 59_999)).toBe(false);
    expect(isDue(counted, 60_000)).toBe(true);
  }
});
