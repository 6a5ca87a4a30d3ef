import type { FragmentLoaderContext, LoaderCallbacks, LoaderConfiguration, LoaderStats } from 'hls.js';
import { describe, expect, it } from 'vitest';
import { FragmentLoader, segmentOfUrl } from './fragment_loader';
import { PlaybackSession } from './session';
import { type Behaviour, chunkBytes, makeManifest, World } from './testing';

const SIZE = 20_000;

function setUp(answer: (url: string) => Behaviour | undefined = () => undefined) {
  const world = new World(
    (url) => answer(url) ?? { kind: 'bytes', bytes: chunkBytes(url.split('/').pop()!, url.endsWith('init') ? 700 : SIZE) },
  );
  const session = new PlaybackSession(makeManifest([2, 1], SIZE), world, {
    gateway: (id) => `/gateway/v/${id}`,
    playhead: () => 0,
    bufferedSec: () => 0,
  });
  return { world, session, loader: new FragmentLoader(session, world) };
}

type Outcome =
  | { kind: 'success'; data: ArrayBuffer; stats: LoaderStats }
  | { kind: 'error'; code: number; text: string }
  | { kind: 'timeout' | 'abort' };

/** Starts a load and collects every callback there is. */
function load(loader: FragmentLoader, url: string, maxLoadTimeMs = 20_000) {
  const outcomes: Outcome[] = [];
  const callbacks: LoaderCallbacks<FragmentLoaderContext> = {
    onSuccess: (response, stats) => outcomes.push({ kind: 'success', data: response.data as ArrayBuffer, stats }),
    onError: ({ code, text }) => outcomes.push({ kind: 'error', code, text }),
    onTimeout: () => outcomes.push({ kind: 'timeout' }),
    onAbort: () => outcomes.push({ kind: 'abort' }),
  };
  const config = { loadPolicy: { maxLoadTimeMs, maxTimeToFirstByteMs: 9_000 } } as LoaderConfiguration;
  loader.load({ url } as FragmentLoaderContext, config, callbacks);
  return outcomes;
}

describe('segmentOfUrl', () => {
  it('knows the names of the playlist', () => {
    expect(segmentOfUrl('http://x/hls/v/segment-12.m4s')).toBe(12);
    expect(segmentOfUrl('http://x/hls/v/segment-0.m4s?version=3')).toBe(0);
    expect(segmentOfUrl('http://x/hls/v/init.mp4')).toBe('init');
    expect(segmentOfUrl('http://x/hls/v/other.ts')).toBeNull();
  });
});

describe('the loader for hls.js', () => {
  it('gives a segment once, whole, with true timings', async () => {
    const { world, loader } = setUp();
    await world.pass(500);
    const outcomes = load(loader, 'http://x/hls/v/segment-0.m4s');
    await world.settle();
    expect(outcomes.length).toBe(1);
    const [outcome] = outcomes;
    if (outcome?.kind !== 'success') throw new Error('no success');
    const expected = Buffer.concat([chunkBytes('v-chunk-000', SIZE), chunkBytes('v-chunk-001', SIZE)]);
    expect(Buffer.from(outcome.data).equals(expected)).toBe(true);
    const { stats } = outcome;
    expect(stats).toMatchObject({ aborted: false, loaded: 2 * SIZE, total: 2 * SIZE, retry: 0 });
    expect(stats.loading.start).toBe(500);
    expect(stats.loading.first).toBeGreaterThanOrEqual(stats.loading.start);
    expect(stats.loading.end).toBeGreaterThanOrEqual(stats.loading.first);
  });

  it('gives the init segment', async () => {
    const { world, loader } = setUp();
    const outcomes = load(loader, 'http://x/hls/v/init.mp4');
    await world.settle();
    expect(outcomes.map((outcome) => outcome.kind)).toEqual(['success']);
  });

  it('fails with a status that hls.js retries when nobody has the bytes', async () => {
    const { world, loader } = setUp(() => ({ kind: 'unreachable' }));
    const outcomes = load(loader, 'http://x/hls/v/segment-1.m4s');
    await world.settle();
    expect(outcomes).toMatchObject([{ kind: 'error', code: 503 }]);
  });

  it('fails for a segment the manifest does not have', () => {
    const { loader } = setUp();
    expect(load(loader, 'http://x/hls/v/segment-9.m4s')).toMatchObject([{ kind: 'error', code: 404 }]);
  });

  it('times out, and says nothing afterwards', async () => {
    const { world, loader } = setUp((url) => (url.startsWith('/gateway') ? undefined : { kind: 'silent' }));
    const outcomes = load(loader, 'http://x/hls/v/segment-0.m4s', 1_500);
    await world.pass(30_000);
    expect(outcomes).toEqual([{ kind: 'timeout' }]);
  });

  it('aborts once, and is silent when destroyed', async () => {
    const { world, session, loader } = setUp();
    const outcomes = load(loader, 'http://x/hls/v/segment-0.m4s');
    loader.abort();
    loader.abort();
    await world.settle();
    expect(outcomes).toEqual([{ kind: 'abort' }]);
    expect(loader.stats.aborted).toBe(true);
    const second = new FragmentLoader(session, world);
    const none = load(second, 'http://x/hls/v/segment-0.m4s');
    second.destroy();
    await world.settle();
    expect(none).toEqual([]);
  });
});
