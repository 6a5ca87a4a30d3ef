// Headless Chromium, and what every test does with a page.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

/** Without these, Chromium looks for services that have nothing to do with the page. */
const QUIET = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run', '--disable-gpu', '--disable-quic'];

export async function launch(more = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Chromium's own sandbox does not work for root, nor in most containers.
    args: ['--no-sandbox', '--autoplay-policy=no-user-gesture-required', ...QUIET, ...more],
  });
}

/** A page that remembers what went wrong in it. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on('pageerror', (error) => page.problems.push(String(error)));
  page.on('console', (message) => {
    // A fetch that fails because a node is dead is logged by Chromium itself, whatever the page does about it.
    if (message.type() === 'error' && !/Failed to load resource|blocked by CORS/.test(message.text())) page.problems.push(message.text());
  });
  await page.goto(url);
  return page;
}

/** Starts the video at a speed, and gives its duration once it is known. */
export async function play(page, speed = 1) {
  await page.locator('[data-testid=video]').waitFor();
  return page.evaluate(async (rate) => {
    const video = document.querySelector('[data-testid=video]');
    video.muted = true;
    if (!(video.readyState >= 1)) await new Promise((resolve) => video.addEventListener('loadedmetadata', resolve, { once: true }));
    video.playbackRate = rate;
    await video.play();
    return video.duration;
  }, speed);
}

export function state(page) {
  return page.evaluate(() => {
    const video = document.querySelector('[data-testid=video]');
    const ranges = [...Array(video.buffered.length).keys()].map((at) => [video.buffered.start(at), video.buffered.end(at)]);
    return {
      time: video.currentTime,
      duration: video.duration,
      ended: video.ended,
      paused: video.paused,
      ranges,
      error: video.error?.message ?? null,
      vstack: window.__vstack
        ? {
            chunks: { ...window.__vstack.chunks },
            byNode: { ...window.__vstack.chunksByNode },
            failovers: window.__vstack.failovers,
            stalls: window.__vstack.stalls,
            errors: [...window.__vstack.errors],
            hasher: window.__vstack.hasher,
          }
        : null,
    };
  });
}

/** Plays to the end: `currentTime` arrives there, over one gapless buffered range. */
export async function playToEnd(page, speed, limitMs = 120_000) {
  const duration = await play(page, speed);
  await page.waitForFunction(() => document.querySelector('[data-testid=video]').ended, undefined, { timeout: limitMs });
  const end = await state(page);
  assert.ok(Math.abs(end.time - duration) <= 0.5, `ended at ${end.time} of ${duration}`);
  assert.equal(end.error, null);
  assert.equal(end.ranges.length, 1, `buffered in pieces: ${JSON.stringify(end.ranges)}`);
  assert.ok(end.ranges[0][0] <= 0.3 && Math.abs(end.ranges[0][1] - duration) <= 0.5, `buffered ${end.ranges[0]} of ${duration}`);
  assert.deepEqual(end.vstack.errors, []);
  return end;
}

/** Jumps, and waits until it plays there. */
export async function seek(page, to) {
  await page.evaluate((time) => {
    const video = document.querySelector('[data-testid=video]');
    video.currentTime = time;
    return video.play();
  }, to);
  await page.waitForFunction(
    (time) => {
      const video = document.querySelector('[data-testid=video]');
      return !video.seeking && video.readyState >= 3 && (video.currentTime > time + 0.2 || video.ended);
    },
    to,
    { timeout: 20_000 },
  );
}

/**
 * From its next page on, keeps what is appended to any SourceBuffer: what the browser is given to play, whoever gave it to
 * the player. For films of a few megabytes.
 */
export async function keepAppended(page) {
  await page.addInitScript(() => {
    const kept = [];
    const append = SourceBuffer.prototype.appendBuffer;
    SourceBuffer.prototype.appendBuffer = function appendBuffer(data) {
      const bytes = ArrayBuffer.isView(data)
        ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice()
        : new Uint8Array(data).slice();
      append.call(this, data);
      // Only now: what is refused because there is no room is appended again.
      kept.push({ to: this, bytes });
    };
    Object.defineProperty(window, '__appended', { value: kept });
  });
}

/** The SHA-256 of everything that was appended, in that order, and in which pieces to how many SourceBuffers. */
export function appended(page) {
  return page.evaluate(async () => {
    const kept = window.__appended;
    const whole = await new Blob(kept.map(({ bytes }) => bytes)).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', whole));
    return {
      sha256: [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join(''),
      pieces: kept.map(({ bytes }) => bytes.length),
      sourceBuffers: new Set(kept.map(({ to }) => to)).size,
    };
  });
}
