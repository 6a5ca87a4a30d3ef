/**
 * Binds hls.js and a `PlaybackSession` to a <video>, and keeps what the page shows of them. Where the browser has no
 * Media Source Extensions it plays the virtual MP4 of the gateway instead.
 */
import type Hls from 'hls.js';
import type { ErrorData } from 'hls.js';
import * as calls from '../api/calls';
import type { Manifest } from '../api/types';
import { browserDecoder, type Decoder } from './decoder';
import { afterFatal, goneInWords } from './fatal';
import { fragmentLoaderFor } from './fragment_loader';
import { orGone } from './gone';
import { browserHasher, type Hasher } from './hasher';
import type { NodeView } from './node_book';
import { AHEAD_SEC, type ChunkCell, HEALTHY_SEC, PlaybackSession, type PlaybackEvent, type Totals } from './session';
import type { Environment } from './transfer';
import { ViewCounter } from './view_counter';
import { whatIsMissing } from './waiting';

const SNAPSHOT_EVERY_MS = 250;
/** A minute of buffer levels. */
const HISTORY_MAX = 240;
/** With more than this buffered, a wait is the decoder's doing. */
const BUFFER_EMPTY_SEC = 0.5;
/** Media errors closer together than this are not recovered from a second time. */
const RECOVERY_PAUSE_MS = 5_000;
/** When hls.js gave up what nobody gave, it is asked to go on after this. */
const AGAIN_AFTER_MS = 5_000;

export type BufferState = 'idle' | 'starting' | 'healthy' | 'low' | 'stalled' | 'ended';

/** What the live panel shows, a few times a second. */
export interface Snapshot {
  bufferSec: number;
  state: BufferState;
  /** Why it does not go on, in words, while it waits for what nobody gives. */
  waitsFor: string | null;
  /** Times playback had to wait after it had begun. */
  stalls: number;
  startupMs: number | null;
  nodes: NodeView[];
  totals: Totals;
  events: PlaybackEvent[];
}

function environment(hasher: Hasher, decoder: Decoder): Environment {
  return {
    fetch: (url, init) => fetch(url, init),
    now: () => performance.now(),
    after(ms, run) {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
    chance: () => Math.random(),
    hasher,
    decoder,
  };
}

/** Seconds from the position to the end of the range that holds it. */
export function bufferedAhead(video: Pick<HTMLVideoElement, 'buffered' | 'currentTime'>): number {
  const { buffered, currentTime } = video;
  for (let i = 0; i < buffered.length; i++) {
    // Ranges may start a frame late.
    if (buffered.start(i) <= currentTime + 0.25 && currentTime < buffered.end(i)) {
      return buffered.end(i) - currentTime;
    }
  }
  return 0;
}

export class Player {
  readonly mode: 'smart' | 'native';
  cells = $state<ChunkCell[]>([]);
  snapshot = $state.raw<Snapshot | null>(null);
  history = $state.raw<number[]>([]);
  /** What ended the playback, in words. */
  failure = $state<string | null>(null);
  hasher: Hasher['kind'] = 'native';

  #manifest: Manifest;
  #video: HTMLVideoElement;
  #hls: Hls | null = null;
  #session: PlaybackSession | null = null;
  #views = new ViewCounter();
  #stalls = 0;
  #begun = false;
  /** A seek is not over before the video plays again. */
  #seeking = false;
  #attachedAt = performance.now();
  #startupMs: number | null = null;
  #recoveredAt = -Infinity;
  #again: ReturnType<typeof setTimeout> | undefined;
  #cleanUp: (() => void)[] = [];

  /** `Engine` is hls.js, or null where it cannot play. */
  constructor(video: HTMLVideoElement, manifest: Manifest, Engine: typeof Hls | null) {
    this.#video = video;
    this.#manifest = manifest;
    this.mode = Engine ? 'smart' : 'native';
    this.#listen();
    if (Engine) this.#startSmart(Engine);
    else this.#startNative();
    const timer = setInterval(() => this.#takeSnapshot(), SNAPSHOT_EVERY_MS);
    this.#cleanUp.push(() => clearInterval(timer));
    this.#takeSnapshot();
    this.#expose();
  }

  destroy(): void {
    for (const run of this.#cleanUp.splice(0)) run();
    clearTimeout(this.#again);
    this.#hls?.destroy();
    this.#session?.close();
    this.#video.removeAttribute('src');
    this.#video.load();
  }

  /** After a failure: from where it stopped. */
  retry(): void {
    this.failure = null;
    this.#session?.tryAgain();
    if (this.#hls) {
      this.#hls.startLoad();
      this.#hls.recoverMediaError();
    } else this.#video.load();
    void this.#video.play().catch(() => {});
  }

  #startSmart(Engine: typeof Hls): void {
    const hasher = browserHasher();
    this.hasher = hasher.kind;
    const decoder = browserDecoder();
    this.#cleanUp.push(
      () => hasher.close(),
      () => decoder.close(),
    );
    const env = environment(hasher, decoder);
    const session = new PlaybackSession(this.#manifest, env, {
      gateway: (chunk) => calls.gatewayUrl(this.#manifest.video_id, chunk),
      playhead: () => this.#video.currentTime,
      bufferedSec: () => bufferedAhead(this.#video),
      newerManifest: () => orGone(calls.manifest(this.#manifest.video_id)),
      onCell: (cell) => {
        const shown = this.cells.find((other) => other.id === cell.id);
        if (shown) Object.assign(shown, cell);
      },
    });
    this.#session = session;
    this.cells = session.cells.map((cell) => ({ ...cell }));
    session.start();
    const retry = { maxNumRetry: 4, retryDelayMs: 500, maxRetryDelayMs: 8_000 };
    // A metadata service that refuses because its disk is slow is asked again for nearly half a minute.
    const patient = { ...retry, maxNumRetry: 6 };
    const once = { ...retry, maxNumRetry: 1 };
    const playlists = { maxTimeToFirstByteMs: 20_000, maxLoadTimeMs: 20_000, timeoutRetry: once, errorRetry: patient };
    const hls = new Engine({
      fLoader: fragmentLoaderFor(session, env),
      enableWorker: false,
      progressive: false,
      lowLatencyMode: false,
      startFragPrefetch: true,
      maxBufferLength: AHEAD_SEC,
      maxMaxBufferLength: AHEAD_SEC,
      manifestLoadPolicy: { default: playlists },
      playlistLoadPolicy: { default: playlists },
      fragLoadPolicy: {
        default: { maxTimeToFirstByteMs: 30_000, maxLoadTimeMs: 60_000, timeoutRetry: retry, errorRetry: retry },
      },
    });
    this.#hls = hls;
    hls.on(Engine.Events.ERROR, (_event, data) => this.#onError(data, Engine));
    hls.loadSource(calls.playlistUrl(this.#manifest.video_id));
    hls.attachMedia(this.#video);
  }

  #startNative(): void {
    this.#video.src = calls.streamUrl(this.#manifest.video_id);
  }

  #onError(data: ErrorData, Engine: typeof Hls): void {
    this.#session?.remark(data.fatal ? 'error' : 'info', `player: ${data.details}`);
    if (!data.fatal) return;
    const isMedia = data.type === Engine.ErrorTypes.MEDIA_ERROR;
    const mayRecover = performance.now() - this.#recoveredAt > RECOVERY_PAUSE_MS;
    const isHeldUp = (this.#session?.heldUpBy().length ?? 0) > 0;
    const next = afterFatal({ isMedia, mayRecover }, { gone: this.#session?.gone ?? null, isHeldUp });
    switch (next.do) {
      case 'recover':
        this.#recoveredAt = performance.now();
        this.#hls?.recoverMediaError();
        break;
      case 'load again later':
        clearTimeout(this.#again);
        this.#again = setTimeout(() => this.#hls?.startLoad(), AGAIN_AFTER_MS);
        break;
      case 'end':
        this.#end(next.why);
    }
  }

  /** Nothing more is fetched until somebody asks for it. */
  #end(why: string): void {
    clearTimeout(this.#again);
    this.#hls?.stopLoad();
    this.failure = why;
  }

  #listen(): void {
    const on = (name: keyof HTMLMediaElementEventMap, run: () => void) => {
      this.#video.addEventListener(name, run);
      this.#cleanUp.push(() => this.#video.removeEventListener(name, run));
    };
    on('timeupdate', () => {
      const { currentTime, seeking, paused } = this.#video;
      if (seeking || paused) return;
      if (this.#views.at(currentTime, this.#manifest.duration_sec)) {
        calls.countView(this.#manifest.video_id).catch((error: unknown) => {
          this.#session?.remark('info', `the view was not counted: ${error instanceof Error ? error.message : error}`);
        });
      }
    });
    on('playing', () => {
      this.#begun = true;
      this.#seeking = false;
    });
    on('seeking', () => {
      this.#seeking = true;
    });
    on('loadeddata', () => {
      this.#startupMs ??= performance.now() - this.#attachedAt;
    });
    on('waiting', () => {
      // The wait after a seek is the viewer's wish, not a stall.
      if (!this.#begun || this.#seeking || this.#video.ended) return;
      const at = this.#video.currentTime.toFixed(1);
      if (bufferedAhead(this.#video) > BUFFER_EMPTY_SEC) {
        this.#session?.remark('info', `the decoder was late at ${at} s`);
        return;
      }
      this.#stalls += 1;
      this.#session?.remark('warn', `playback waited for data at ${at} s`);
    });
    on('error', () => {
      if (this.mode === 'native') this.failure = 'This browser cannot play the video. The download may play elsewhere.';
    });
  }

  #state(bufferSec: number): BufferState {
    const { ended, duration, currentTime, readyState } = this.#video;
    if (ended) return 'ended';
    const toTheEnd = Number.isFinite(duration) && duration - currentTime - bufferSec < 0.5;
    if (bufferSec >= HEALTHY_SEC || (bufferSec > 0 && toTheEnd)) return 'healthy';
    if (!this.#begun) return readyState < 3 ? 'starting' : 'low';
    return bufferSec > 0.1 ? 'low' : 'stalled';
  }

  #takeSnapshot(): void {
    const bufferSec = bufferedAhead(this.#video);
    const session = this.#session;
    const isWaiting = bufferSec <= BUFFER_EMPTY_SEC && !this.#video.ended;
    const heldUpBy = (isWaiting && session?.heldUpBy()) || [];
    const gone = session?.gone ?? null;
    // What is still to be had of it was played.
    if (gone !== null && heldUpBy.length > 0 && this.failure === null) this.#end(goneInWords(gone));
    this.snapshot = {
      bufferSec,
      state: this.#state(bufferSec),
      waitsFor: gone === null ? whatIsMissing(heldUpBy) : null,
      stalls: this.#stalls,
      startupMs: this.#startupMs,
      nodes: session?.nodes() ?? [],
      totals: { ...(session?.totals ?? { verifiedBytes: 0, chunks: 0, failovers: 0, gatewayChunks: 0 }) },
      events: [...(session?.events ?? [])],
    };
    this.history = [...this.history, bufferSec].slice(-HISTORY_MAX);
  }

  /** Read-only figures for tests of the page: `window.__vstack`. */
  #expose(): void {
    const session = this.#session;
    const player = this;
    const view = Object.freeze({
      get videoId() {
        return player.#manifest.video_id;
      },
      get mode() {
        return player.mode;
      },
      /** How chunks are hashed. */
      get hasher() {
        return player.hasher;
      },
      /** Chunk id to node id or `gateway`, for chunks that arrived; of those in shards the first that gave one. */
      get chunks() {
        const done = session?.cells.filter((cell) => cell.state === 'done') ?? [];
        return Object.fromEntries(done.map((cell) => [cell.id, cell.from]));
      },
      /** The same with all that gave a shard. */
      get givers() {
        const done = session?.cells.filter((cell) => cell.state === 'done') ?? [];
        return Object.fromEntries(done.map((cell) => [cell.id, [...cell.givers]]));
      },
      /** Verified chunks and shards by node id. */
      get chunksByNode() {
        const nodes = session?.nodes().map((node) => [node.id, node.chunks] as const) ?? [];
        return { ...Object.fromEntries(nodes), gateway: session?.totals.gatewayChunks ?? 0 };
      },
      get failovers() {
        return session?.totals.failovers ?? 0;
      },
      get verifiedBytes() {
        return session?.totals.verifiedBytes ?? 0;
      },
      get stalls() {
        return player.#stalls;
      },
      get startupMs() {
        return player.#startupMs;
      },
      get bufferSec() {
        return bufferedAhead(player.#video);
      },
      get errors() {
        return [...(session?.errors ?? []), ...(player.failure ? [player.failure] : [])];
      },
      get events() {
        return (session?.events ?? []).map((event) => ({ ...event }));
      },
    });
    Object.defineProperty(window, '__vstack', { value: view, configurable: true });
    this.#cleanUp.push(() => {
      if (Object.getOwnPropertyDescriptor(window, '__vstack')?.value === view) Reflect.deleteProperty(window, '__vstack');
    });
  }
}
