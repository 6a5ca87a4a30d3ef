/** The keys of the watch page. They leave fields, buttons and links alone, and combinations to the browser. */

const SKIP_SEC = 5;
const VOLUME_STEP = 0.05;

function seekBy(video: HTMLVideoElement, seconds: number): void {
  const end = Number.isFinite(video.duration) ? video.duration : Infinity;
  video.currentTime = Math.max(0, Math.min(end, video.currentTime + seconds));
}

function toggleFullScreen(frame: HTMLElement): void {
  if (document.fullscreenElement) void document.exitFullscreen();
  else void frame.requestFullscreen?.().catch(() => {});
}

function act(key: string, video: HTMLVideoElement, frame: HTMLElement): boolean {
  switch (key) {
    case ' ':
    case 'k':
      if (video.paused) void video.play().catch(() => {});
      else video.pause();
      return true;
    case 'arrowleft':
      seekBy(video, -SKIP_SEC);
      return true;
    case 'arrowright':
      seekBy(video, SKIP_SEC);
      return true;
    case 'arrowup':
      video.volume = Math.min(1, video.volume + VOLUME_STEP);
      return true;
    case 'arrowdown':
      video.volume = Math.max(0, video.volume - VOLUME_STEP);
      return true;
    case 'f':
      toggleFullScreen(frame);
      return true;
    case 'm':
      video.muted = !video.muted;
      return true;
    default:
      return false;
  }
}

/** Handles a key pressed anywhere on the page. */
export function onPlayerKey(event: KeyboardEvent, video: HTMLVideoElement, frame: HTMLElement): void {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target instanceof Element ? event.target : null;
  if (target?.closest('input, textarea, select, button, a, [contenteditable], [data-testid="events"]')) return;
  // The browser's own controls know these keys when the focus is on them; acting too would act twice.
  if (target === video && (event.key === ' ' || event.key.startsWith('Arrow'))) return;
  if (act(event.key.toLowerCase(), video, frame)) event.preventDefault();
}
