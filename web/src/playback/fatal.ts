/** What follows when hls.js gives up, and what is said to whoever watches. Pure. */

/** What hls.js could not get over. */
export interface Fatal {
  /** The browser could not take what it was given; otherwise something was not given. */
  isMedia: boolean;
  /** It did not have to recover from such a thing only just now. */
  mayRecover: boolean;
}

/** Where the playback stands. */
export interface Standing {
  /** Why the video is no more; null while it is there. */
  gone: string | null;
  /** Something that nobody gives is what it needs next. */
  isHeldUp: boolean;
}

export type Next = { do: 'recover' } | { do: 'load again later' } | { do: 'end'; why: string };

/** Why nothing more comes of a video that is no more. */
export function goneInWords(gone: string): string {
  return `The rest of this video cannot be fetched any more: ${gone.replace(/\.$/, '')}.`;
}

export function afterFatal({ isMedia, mayRecover }: Fatal, { gone, isHeldUp }: Standing): Next {
  if (isMedia && mayRecover) return { do: 'recover' };
  if (isMedia) {
    return { do: 'end', why: 'This browser cannot decode the video any further. The download may play elsewhere.' };
  }
  if (gone !== null) return { do: 'end', why: goneInWords(gone) };
  // A node that has it may be back at any time: nobody should have to sit by and click. Until then the page says so.
  if (isHeldUp) return { do: 'load again later' };
  return { do: 'end', why: 'The video cannot be fetched: neither the storage nodes nor the gateway give its chunks.' };
}
