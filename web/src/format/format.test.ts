import { expect, it } from 'vitest';
import { ago, bytes, count, duration, hueOf, megabits, milliseconds, until } from './format';

it('writes bytes in decimal units', () => {
  const table: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [1_500_000, '1.5 MB'],
    [99_960_000, '100 MB'],
    [999_600_000, '1.0 GB'],
    [2_097_152, '2.1 MB'],
  ];
  for (const [value, text] of table) expect(bytes(value)).toBe(text);
});

it('writes durations', () => {
  expect([0, 5.4, 65, 3599.6, 3723].map(duration)).toEqual(['0:00', '0:05', '1:05', '1:00:00', '1:02:03']);
});

it('writes how long ago', () => {
  const now = Date.parse('2026-03-20T12:00:00Z');
  const at = (text: string) => ago(text, now);
  expect(at('2026-03-20T11:59:58Z')).toBe('just now');
  expect(at('2026-03-20T12:00:30Z')).toBe('just now');
  expect(at('2026-03-20T11:59:30Z')).toBe('30 s ago');
  expect(at('2026-03-20T11:15:00Z')).toBe('45 min ago');
  expect(at('2026-03-20T02:00:00Z')).toBe('10 h ago');
  expect(at('2026-03-19T11:00:00Z')).toBe('yesterday');
  expect(at('2026-03-15T12:00:00Z')).toBe('5 days ago');
  expect(at('2025-12-24T12:00:00Z')).toBe('24 Dec 2025');
  expect(at('nonsense')).toBe('');
});

it('writes until when', () => {
  const now = Date.parse('2026-03-20T12:00:00Z');
  const at = (text: string) => until(text, now, 'UTC');
  expect(at('2026-03-20T14:03:59Z')).toBe('14:03');
  expect(at('2026-03-20T11:00:00Z')).toBe('11:00');
  expect(at('2026-03-21T00:30:00Z')).toBe('Saturday 00:30');
  expect(at('2026-03-25T09:00:00Z')).toBe('Wednesday 09:00');
  expect(at('2026-04-02T09:00:00Z')).toBe('2 Apr 2026 09:00');
  expect(at('2026-03-19T09:00:00Z')).toBe('19 Mar 2026 09:00');
  expect(at('nonsense')).toBe('');
});

it('writes figures', () => {
  expect([count(1, 'view'), count(2, 'view'), count(12_345, 'chunk')]).toEqual(['1 view', '2 views', '12,345 chunks']);
  expect([milliseconds(null), milliseconds(0.84), milliseconds(12.6)]).toEqual(['–', '0.8 ms', '13 ms']);
  expect([megabits(null), megabits(3.14), megabits(87.6), megabits(2345)]).toEqual([
    '–',
    '3.1 Mbit/s',
    '88 Mbit/s',
    '2.3 Gbit/s',
  ]);
  expect(hueOf('a')).toBe(hueOf('a'));
});
