import { expect, it } from 'vitest';
import { whatIsMissing } from './waiting';

const cells = (...sequences: number[]) => sequences.map((sequence) => ({ sequence }));

it('names the first of what nobody gives, and counts the others', () => {
  expect(whatIsMissing(cells())).toBeNull();
  expect(whatIsMissing(cells(3))).toContain('give chunk 3 now');
  expect(whatIsMissing(cells(10, 2, 9))).toContain('give chunk 2 and 2 more now');
  expect(whatIsMissing(cells(0, -1))).toContain('give the init segment and 1 more now');
});
