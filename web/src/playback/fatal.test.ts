import { describe, expect, it } from 'vitest';
import { afterFatal, goneInWords } from './fatal';

const network = { isMedia: false, mayRecover: true };
const there = { gone: null, isHeldUp: false };

describe('when hls.js gives up', () => {
  it('is loaded again later only what nobody gives and is needed next', () => {
    expect(afterFatal(network, { gone: null, isHeldUp: true })).toEqual({ do: 'load again later' });
    expect(afterFatal(network, there)).toMatchObject({ do: 'end', why: expect.stringContaining('cannot be fetched') });
  });

  it('ends with a video that is no more, and says why', () => {
    for (const isHeldUp of [true, false]) {
      const next = afterFatal(network, { gone: 'video 1 was deleted', isHeldUp });
      expect(next).toEqual({ do: 'end', why: goneInWords('video 1 was deleted') });
    }
    expect(goneInWords('The server answered 404.')).toMatch(/any more: The server answered 404\.$/);
  });

  it('recovers once from what the browser cannot take, whatever is missing', () => {
    for (const standing of [there, { gone: null, isHeldUp: true }, { gone: 'it was deleted', isHeldUp: true }]) {
      expect(afterFatal({ isMedia: true, mayRecover: true }, standing)).toEqual({ do: 'recover' });
      const next = afterFatal({ isMedia: true, mayRecover: false }, standing);
      expect(next).toMatchObject({ do: 'end', why: expect.stringContaining('cannot decode') });
    }
  });
});
