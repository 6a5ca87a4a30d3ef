/** Figures as people read them. Pure: what "now" is comes as an argument. */

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** Decimal units: 1 MB is 1,000,000 bytes. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** `1:05`, `1:02:03`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(value).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** `just now`, `5 min ago`, `3 days ago`, and a date when that is clearer. */
export function ago(iso: string, now: number): string {
  const then = Date.parse(iso);
  if (Number.isNaN(then)) return '';
  const seconds = Math.max(0, (now - then) / 1000);
  if (seconds < 5) return 'just now';
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86_400);
  if (days < 14) return days === 1 ? 'yesterday' : `${days} days ago`;
  return new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' }).format(then);
}

/** `14:03` today, `Tuesday 14:03`, and a date when that is clearer; as clocks are where the page is read. */
export function until(iso: string, now: number, timeZone?: string): string {
  const then = Date.parse(iso);
  if (Number.isNaN(then)) return '';
  const written = (moment: number, options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat('en-GB', timeZone ? { ...options, timeZone } : options).format(moment);
  const time = written(then, { hour: '2-digit', minute: '2-digit' });
  if (written(then, { dateStyle: 'short' }) === written(now, { dateStyle: 'short' })) return time;
  const isNear = then > now && then - now < 6 * 86_400_000;
  const day = written(then, isNear ? { weekday: 'long' } : { day: 'numeric', month: 'short', year: 'numeric' });
  return `${day} ${time}`;
}

export const count = (value: number, one: string, many = `${one}s`) =>
  `${value.toLocaleString('en-GB')} ${value === 1 ? one : many}`;

/** Milliseconds with as many digits as make sense. */
export function milliseconds(value: number | null): string {
  if (value === null) return '–';
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function megabits(value: number | null): string {
  if (value === null) return '–';
  if (value >= 999.5) return `${(value / 1000).toFixed(1)} Gbit/s`;
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} Mbit/s`;
}

export const percent = (share: number) => `${Math.round(share * 100)} %`;

/** A hue for a thing without a picture, always the same for the same id. */
export function hueOf(id: string): number {
  let hash = 2166136261;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 16777619);
  return (hash >>> 0) % 360;
}
