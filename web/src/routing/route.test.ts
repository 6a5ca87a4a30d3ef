import { expect, it } from 'vitest';
import { parseRoute } from './route';

it('names pages', () => {
  expect(parseRoute('/', '')).toEqual({ page: 'library' });
  expect(parseRoute('/nodes/', '')).toEqual({ page: 'nodes' });
  expect(parseRoute('/watch/0190', '')).toEqual({ page: 'watch', id: '0190' });
  expect(parseRoute('/consensus', '?chunk=x-chunk-001')).toEqual({ page: 'consensus', chunk: 'x-chunk-001' });
  expect(parseRoute('/storage-efficiency', '')).toEqual({ page: 'efficiency' });
  expect(parseRoute('/watch/a/b', '')).toEqual({ page: 'unknown', path: '/watch/a/b' });
  expect(parseRoute('/watch/%', '')).toEqual({ page: 'unknown', path: '/watch/%' });
});
