/**
 * One playback: the manifest as segments, the store that fetches them, the pings that measure the nodes, and the
 * record of what happened. hls.js sits on top of it (`fragment_loader`), the live panel reads it.
 */
import type { Manifest } from '../api/types';
import { ChunkSource } from './chunk_source';
import { VideoGone } from './gone';
import { ManifestRenewal } from './manifest_renewal';
import { NodeBook, type NodeView } from './node_book';
import { entriesOf, type Located, located, nodesOf } from './places';
import type { Explore } from './score';
import { type Segment, type SegmentLoaded, SegmentStore } from './segment_store';
import type { Origin, SourceEvents } from './source_events';
import { Cancelled, type Environment } from './transfer';

/** How far ahead of the playhead segments are fetched, in seconds. */
export const AHEAD_SEC = 30;
/** Above this the buffer is healthy, in seconds. */
export const HEALTHY_SEC = 15;
/** How often nodes are pinged, and how long an answer may take, in ms. */
export const PING_EVERY_MS = 3_000;
const PING_TIMEOUT_MS = 2_000;
/** What begins so soon after what is buffered is needed next, in seconds: a buffer may end some frames early. */
const NEXT_SEC = 0.5;
const EVENTS_MAX = 60;
/** Errors that are kept: what is asked for again and again may fail as often. */
const ERRORS_MAX = 100;

export type ChunkState = 'idle' | 'loading' | 'done' | 'failed';

/** A chunk in the strip. */
export interface ChunkCell {
  readonly id: string;
  /** -1 for the init segment. */
  readonly sequence: number;
  state: ChunkState;
  /** Id of the node that gave it, or `gateway`; of one in shards the node of the first. */
  from: string | null;
  /** Ids of all that gave it, or shards of it. */
  givers: readonly string[];
}

export interface PlaybackEvent {
  atMs: number;
  kind: 'info' | 'warn' | 'error';
  text: string;
}

export interface Totals {
  verifiedBytes: number;
  chunks: number;
  failovers: number;
  gatewayChunks: number;
}

interface TimedSegment extends Segment {
  startSec: number;
  /** Of the last one there is no end: whatever is behind it is its. */
  endSec: number;
}

/** Adds to a list of which only the last ones are kept. */
function keepSome<T>(list: T[], one: T, most: number): void {
  list.push(one);
  if (list.length > most) list.splice(0, list.length - most);
}

function segmentsOf(manifest: Manifest): TimedSegment[] {
  const segments: (TimedSegment & { chunks: Located[] })[] = [];
  for (const chunk of manifest.chunks) {
    const segment = (segments[chunk.segment] ??= {
      key: `segment-${chunk.segment}`,
      startSec: chunk.start_sec,
      endSec: chunk.start_sec,
      chunks: [],
    });
    segment.endSec = chunk.start_sec + chunk.duration_sec;
    segment.chunks.push(located(chunk));
  }
  const last = segments.at(-1);
  if (last) last.endSec = Infinity;
  return segments;
}

export interface SessionOptions {
  gateway(chunkId: string): string;
  /** Seconds into the video. */
  playhead(): number;
  /** Seconds that can be played without another byte. */
  bufferedSec(): number;
  /** Asked when nodes do not give what they should have. Rejects with `VideoGone` when the video is no more. */
  newerManifest?(): Promise<Manifest>;
  /** Told when a cell of the strip changed. */
  onCell?(cell: ChunkCell): void;
}

export class PlaybackSession {
  readonly cells: ChunkCell[];
  readonly totals: Totals = { verifiedBytes: 0, chunks: 0, failovers: 0, gatewayChunks: 0 };
  /** Newest last. */
  readonly events: PlaybackEvent[] = [];
  /** What went wrong for good, in words, newest last. */
  readonly errors: string[] = [];
  /** What nobody gave when it was asked for last, is not here yet, and is still of use where the viewer is. */
  readonly missing = new Set<ChunkCell>();

  #env: Environment;
  #options: SessionOptions;
  #book: NodeBook;
  #store: SegmentStore;
  #init: Segment | null;
  #segments: TimedSegment[];
  #cellById = new Map<string, ChunkCell>();
  #chunkById = new Map<string, Located>();
  /** By chunk; none for the init segment. */
  #segmentOf = new Map<string, TimedSegment>();
  #idByUrl = new Map<string, string>();
  /** Of the manifest that says where chunks are. */
  #version: number;
  #gone: string | null = null;
  #startedAt: number;
  #stopPinging = () => {};
  #closed = false;

  constructor(manifest: Manifest, env: Environment, options: SessionOptions) {
    this.#env = env;
    this.#options = options;
    this.#startedAt = env.now();
    this.#book = new NodeBook(() => env.chance());
    this.#init = manifest.init ? { key: 'init', chunks: [located(manifest.init)] } : null;
    this.#segments = segmentsOf(manifest);
    this.#version = manifest.version;
    const remember = ({ chunks }: Segment) => chunks.forEach((chunk) => this.#chunkById.set(chunk.id, chunk));
    if (this.#init) remember(this.#init);
    this.#segments.forEach(remember);
    this.#segments.forEach((segment) => segment.chunks.forEach(({ id }) => this.#segmentOf.set(id, segment)));
    this.#meetNodes(manifest);
    const all = [...(manifest.init ? [{ ...manifest.init, sequence_num: -1 }] : []), ...manifest.chunks];
    this.cells = all.map((entry) => ({
      id: entry.chunk_id,
      sequence: entry.sequence_num,
      state: 'idle',
      from: null,
      givers: [],
    }));
    for (const cell of this.cells) this.#cellById.set(cell.id, cell);
    const source = new ChunkSource(env, this.#book, (id) => options.gateway(id), this.#sourceEvents());
    this.#store = new SegmentStore(source, (demanded) => this.#explore(demanded), {
      arrived: (chunk, fetched) => {
        this.totals.verifiedBytes += chunk.sizeBytes;
        this.totals.chunks += 1;
        if (fetched.origins.includes('gateway')) this.totals.gatewayChunks += 1;
        const givers = fetched.origins.map((origin) => this.#name(origin));
        this.#setCell(chunk.id, 'done', givers);
        this.#miss(chunk.id, false);
        if (fetched.failures > 0) this.#note('info', `${this.#short(chunk.id)} came from ${givers.join(', ')} instead`);
      },
      dropped: (chunk, error) => {
        if (error instanceof Cancelled) {
          this.#setCell(chunk.id, 'idle', []);
          // Nobody wants it any more.
          this.#miss(chunk.id, false);
          return;
        }
        const text = error instanceof Error ? error.message : String(error);
        this.#setCell(chunk.id, 'failed', []);
        this.#miss(chunk.id, true);
        this.remark('error', text);
      },
    });
  }

  get segmentCount(): number {
    return this.#segments.length;
  }

  /** Begins to measure the nodes and to fetch the beginning, before anybody asked. */
  start(): void {
    this.#store.prefetch(this.#ahead(-1));
    this.#pingAll();
  }

  close(): void {
    this.#closed = true;
    this.#stopPinging();
    this.#store.close();
  }

  /** The size of a segment in bytes; none when there is no such segment. `'init'` names the init segment. */
  segment(which: number | 'init'): { segment: Segment; sizeBytes: number } | null {
    const segment = which === 'init' ? this.#init : this.#segments[which];
    if (!segment) return null;
    return { segment, sizeBytes: segment.chunks.reduce((sum, chunk) => sum + chunk.sizeBytes, 0) };
  }

  /** Loads a segment, and what follows it ahead. */
  load(which: number | 'init', signal: AbortSignal, onBytes: (count: number) => void): Promise<SegmentLoaded> {
    const found = this.segment(which);
    if (!found) return Promise.reject(new Error(`there is no segment ${which}`));
    const ahead = this.#ahead(which === 'init' ? -1 : which);
    this.#forgetMissing([found.segment, ...ahead]);
    const loading = this.#store.load(found.segment, signal, onBytes);
    this.#store.prefetch(ahead);
    return loading;
  }

  /** Why the video is no more, in the service's words; null while it is there, as far as is known. */
  get gone(): string | null {
    return this.#gone;
  }

  /** It is tried once more: whether the video is there is found out again. */
  tryAgain(): void {
    this.#gone = null;
  }

  /** Of what is missing that which playback needs next: from the playhead to where what is buffered ends. */
  heldUpBy(): ChunkCell[] {
    const from = this.#options.playhead();
    const to = from + this.#options.bufferedSec() + NEXT_SEC;
    return [...this.missing].filter(({ id }) => {
      const segment = this.#segmentOf.get(id);
      return !segment || (segment.startSec <= to && from < segment.endSec);
    });
  }

  nodes(): NodeView[] {
    return this.#book.view(this.#env.now());
  }

  /** Adds a line to the record. */
  remark(kind: PlaybackEvent['kind'], text: string): void {
    if (kind === 'error') keepSome(this.errors, text, ERRORS_MAX);
    this.#note(kind, text);
  }

  #sourceEvents(): SourceEvents {
    const { newerManifest } = this.#options;
    const take = (manifest: Manifest) => this.#relocate(manifest);
    const ask = newerManifest && (() => this.#unlessGone(newerManifest()));
    const renewal = ask ? new ManifestRenewal(() => this.#env.now(), ask, take) : null;
    return {
      transferStarted: (chunk) => {
        renewal?.used();
        this.#setCell(chunk.id, 'loading', []);
      },
      transferFailed: (item, origin, kind, message) => {
        this.totals.failovers += 1;
        this.#note('warn', `${this.#name(origin)} ${kind}: ${this.#short(item.id)} (${message})`);
      },
      joinFailed: (chunk, message) => this.#note('warn', `${this.#short(chunk.id)} cannot be joined (${message})`),
      roundOver: () => renewal?.want(),
    };
  }

  /** Notes whether the service says that the video is no more. What nodes still give of it is played all the same. */
  async #unlessGone(asking: Promise<Manifest>): Promise<Manifest> {
    try {
      const manifest = await asking;
      this.#gone = null;
      return manifest;
    } catch (error) {
      if (error instanceof VideoGone && this.#gone === null) {
        this.#gone = error.message;
        this.#note('warn', `the video is no more: ${error.message}`);
      }
      throw error;
    }
  }

  /** Takes over where the chunks are by now; false when `manifest` says nothing new. */
  #relocate(manifest: Manifest): boolean {
    if (this.#closed || manifest.version <= this.#version) return false;
    this.#version = manifest.version;
    this.#meetNodes(manifest);
    for (const { id, sha256, places } of entriesOf(manifest).map(located)) {
      const chunk = this.#chunkById.get(id);
      // Bytes never change under a name: whatever does is not of this playback.
      if (chunk?.sha256 === sha256) chunk.places = places;
    }
    this.#note('info', `a newer manifest (version ${manifest.version}) says where the chunks are`);
    return true;
  }

  /** The next segment at least, and those that begin within `AHEAD_SEC` of the playhead. */
  #ahead(current: number): Segment[] {
    const horizon = this.#options.playhead() + AHEAD_SEC;
    const segments = this.#segments.filter(
      (segment, index) => index === current + 1 || (index > current && segment.startSec < horizon),
    );
    return current < 0 && this.#init ? [this.#init, ...segments] : segments;
  }

  /** A healthy buffer bears a slow answer; an empty one does not. */
  #explore(demanded: boolean): Explore {
    if (this.#options.bufferedSec() >= HEALTHY_SEC) return 'all';
    return demanded ? 'no' : 'unmeasured';
  }

  #meetNodes(manifest: Manifest): void {
    for (const { url, id } of entriesOf(manifest).flatMap(nodesOf)) {
      this.#book.meet(url, id);
      this.#idByUrl.set(url, id);
    }
  }

  #pingAll(): void {
    if (this.#closed) return;
    for (const url of this.#book.urls()) void this.#ping(url);
    this.#stopPinging = this.#env.after(PING_EVERY_MS, () => this.#pingAll());
  }

  async #ping(url: string): Promise<void> {
    const controller = new AbortController();
    const stop = this.#env.after(PING_TIMEOUT_MS, () => controller.abort());
    const sentAt = this.#env.now();
    try {
      const response = await this.#env.fetch(`${url}/ping`, {
        method: 'HEAD',
        mode: 'cors',
        credentials: 'omit',
        cache: 'no-store',
        signal: controller.signal,
      });
      if (response.ok) this.#book.pingAnswered(url, this.#env.now() - sentAt);
      else this.#book.pingFailed(url, this.#env.now());
    } catch {
      if (!this.#closed) this.#book.pingFailed(url, this.#env.now());
    } finally {
      stop();
    }
  }

  #name(origin: Origin): string {
    return origin === 'gateway' ? 'gateway' : (this.#idByUrl.get(origin.node) ?? origin.node);
  }

  /** A chunk's name without the video's id in front. */
  #short(chunkId: string): string {
    return chunkId.replace(/^[0-9a-f-]{36}-/, '');
  }

  #setCell(id: string, state: ChunkState, givers: readonly string[]): void {
    const cell = this.#cellById.get(id);
    if (!cell) return;
    cell.state = state;
    cell.from = givers[0] ?? null;
    cell.givers = givers;
    this.#options.onCell?.(cell);
  }

  /** That it is asked for again does not bring it here. */
  #miss(id: string, isMissing: boolean): void {
    const cell = this.#cellById.get(id);
    if (cell && isMissing) this.missing.add(cell);
    else if (cell) this.missing.delete(cell);
  }

  /** Where the viewer is now, all but `wanted` is of no use: it is waited for no more. */
  #forgetMissing(wanted: readonly Segment[]): void {
    for (const cell of this.missing) {
      const segment = this.#segmentOf.get(cell.id);
      if (segment && !wanted.includes(segment)) this.missing.delete(cell);
    }
  }

  #note(kind: PlaybackEvent['kind'], text: string): void {
    keepSome(this.events, { atMs: this.#env.now() - this.#startedAt, kind, text }, EVENTS_MAX);
  }
}
