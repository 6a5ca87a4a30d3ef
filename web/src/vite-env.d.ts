/// <reference types="svelte" />
/// <reference types="vite/client" />

/** The build of hls.js without subtitles, DRM and content steering; it has the interface of the whole. */
declare module 'hls.js/light' {
  export * from 'hls.js';
  export { default } from 'hls.js';
}
