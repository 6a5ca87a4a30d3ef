import { expect, it } from 'vitest';
import { ApiError } from '../api/http';
import { orGone, VideoGone } from './gone';

it('tells a video that is no more from a service that cannot say', async () => {
  for (const status of [404, 410]) {
    const asked = orGone(Promise.reject(new ApiError(status, 'not_found', 'video 1 was deleted')));
    await expect(asked).rejects.toThrow(new VideoGone('video 1 was deleted'));
    await expect(asked).rejects.toBeInstanceOf(VideoGone);
  }
  for (const status of [0, 400, 409, 429, 500, 503, 504]) {
    const error = new ApiError(status, '', 'not now');
    await expect(orGone(Promise.reject(error))).rejects.toBe(error);
  }
  expect(await orGone(Promise.resolve(7))).toBe(7);
});
