/**
 * The loader hls.js is given for fragments: it answers a request for `init.mp4` or `segment-<n>.m4s` from a
 * `PlaybackSession`, and tells hls.js when bytes really came. It knows nothing of nodes.
 */
import type {
  FragmentLoaderContext,
  HlsConfig,
  Loader,
  LoaderCallbacks,
  LoaderConfiguration,
  LoaderStats,
} from 'hls.js';
import type { PlaybackSession } from './session';
import type { SegmentLoaded } from './segment_store';
import { Cancelled } from './transfer';

/** hls.js retries what failed with a 5xx; nobody having the bytes is most often over soon. */
const STATUS_NO_SOURCE = 503;
const STATUS_UNKNOWN = 404;

/** Which segment a URL of the playlist names. */
export function segmentOfUrl(url: string): number | 'init' | null {
  const path = url.split(/[?#]/, 1)[0]!;
  if (path.endsWith('/init.mp4')) return 'init';
  const match = /\/segment-(\d+)\.m4s$/.exec(path);
  return match ? Number(match[1]) : null;
}

function newStats(): LoaderStats {
  return {
    aborted: false,
    loaded: 0,
    retry: 0,
    total: 0,
    chunkCount: 0,
    bwEstimate: 0,
    loading: { start: 0, first: 0, end: 0 },
    parsing: { start: 0, end: 0 },
    buffering: { start: 0, first: 0, end: 0 },
  };
}

/** What a loader needs besides the session. */
export interface LoaderClock {
  now(): number;
  after(ms: number, run: () => void): () => void;
}

export class FragmentLoader implements Loader<FragmentLoaderContext> {
  context: FragmentLoaderContext | null = null;
  stats: LoaderStats = newStats();
  #session: PlaybackSession;
  #clock: LoaderClock;
  #controller = new AbortController();
  #callbacks: LoaderCallbacks<FragmentLoaderContext> | null = null;
  #stopTimer = () => {};

  constructor(session: PlaybackSession, clock: LoaderClock) {
    this.#session = session;
    this.#clock = clock;
  }

  load(
    context: FragmentLoaderContext,
    config: LoaderConfiguration,
    callbacks: LoaderCallbacks<FragmentLoaderContext>,
  ): void {
    this.context = context;
    this.#callbacks = callbacks;
    this.stats.loading.start = this.#clock.now();
    const which = segmentOfUrl(context.url);
    const found = which === null ? null : this.#session.segment(which);
    if (which === null || !found) {
      this.#fail(STATUS_UNKNOWN, `the playlist names ${context.url}, the manifest does not`);
      return;
    }
    this.stats.total = found.sizeBytes;
    const { maxLoadTimeMs } = config.loadPolicy;
    if (Number.isFinite(maxLoadTimeMs) && maxLoadTimeMs > 0) {
      this.#stopTimer = this.#clock.after(maxLoadTimeMs, () => this.#timeOut());
    }
    void this.#run(which);
  }

  abort(): void {
    const callbacks = this.#end();
    if (!callbacks || !this.context) return;
    this.stats.aborted = true;
    callbacks.onAbort?.(this.stats, this.context, null);
  }

  destroy(): void {
    this.#end();
    this.context = null;
  }

  getCacheAge(): number | null {
    return null;
  }

  getResponseHeader(): string | null {
    return null;
  }

  async #run(which: number | 'init'): Promise<void> {
    try {
      const loaded = await this.#session.load(which, this.#controller.signal, (count) => {
        this.stats.loading.first ||= this.#clock.now();
        // Bytes of a transfer that failed half way are not the segment's.
        this.stats.loaded = Math.min(this.stats.total, this.stats.loaded + count);
      });
      this.#succeed(loaded);
    } catch (error) {
      if (error instanceof Cancelled) return;
      this.#fail(STATUS_NO_SOURCE, error instanceof Error ? error.message : String(error));
    }
  }

  #succeed({ data, firstByteAt, failures }: SegmentLoaded): void {
    const { context, stats } = this;
    const callbacks = this.#end();
    if (!callbacks || !context) return;
    stats.loaded = stats.total = data.byteLength;
    stats.retry += failures;
    // What was fetched ahead was here before it was asked for.
    stats.loading.first = Math.max(stats.loading.start, firstByteAt);
    stats.loading.end = Math.max(stats.loading.first, this.#clock.now());
    const tookMs = stats.loading.end - stats.loading.start;
    if (tookMs > 0) stats.bwEstimate = (data.byteLength * 8000) / tookMs;
    callbacks.onSuccess({ url: context.url, data, code: 200 }, stats, context, null);
  }

  #fail(code: number, text: string): void {
    const { context, stats } = this;
    const callbacks = this.#end();
    if (!callbacks || !context) return;
    stats.loading.end = this.#clock.now();
    callbacks.onError({ code, text }, context, null, stats);
  }

  #timeOut(): void {
    const { context, stats } = this;
    const callbacks = this.#end();
    if (!callbacks || !context) return;
    callbacks.onTimeout(stats, context, null);
  }

  /** After this nothing is reported any more: exactly one callback ends a load. */
  #end(): LoaderCallbacks<FragmentLoaderContext> | null {
    const callbacks = this.#callbacks;
    this.#callbacks = null;
    this.#stopTimer();
    this.#controller.abort();
    return callbacks;
  }
}

/** The class hls.js instantiates, bound to one session. */
export function fragmentLoaderFor(session: PlaybackSession, clock: LoaderClock): NonNullable<HlsConfig['fLoader']> {
  return class extends FragmentLoader {
    constructor(_config: HlsConfig) {
      super(session, clock);
    }
  };
}
