/** The live stream of acceptors' messages: one connection, events put on the page once a frame, a pause. */
import type { ConsensusEvent } from '../api/types';
import { exchangeOf, merge, type Exchange } from './trace';

/** After the server refused a stream, which the browser does not ask for again by itself. */
const AGAIN_MS = 3_000;
/** Asked for when a stream begins. */
const RECENT = 400;

export type Scope = { chunk: string } | { prefix: string } | 'all';
export type Connection = 'connecting' | 'live' | 'lost';

export class Trace {
  exchanges = $state.raw<Exchange[]>([]);
  connection = $state<Connection>('connecting');
  paused = $state(false);
  /** Came while it was paused. */
  held = $state(0);
  /** Known to have gone by unseen. */
  missed = $state(0);

  #source: EventSource | null = null;
  #waiting: Exchange[] = [];
  #frame = 0;
  #again: ReturnType<typeof setTimeout> | undefined;

  /** Follows `scope` until the returned function is called. `onNews` hears of what came, paused or not. */
  follow(scope: Scope, onNews: (chunks: ReadonlySet<string>) => void): () => void {
    this.exchanges = [];
    this.#waiting = [];
    this.held = 0;
    this.missed = 0;
    this.#open(scope, onNews);
    return () => {
      this.#source?.close();
      clearTimeout(this.#again);
      cancelAnimationFrame(this.#frame);
      this.#frame = 0;
    };
  }

  setPaused(paused: boolean): void {
    this.paused = paused;
    if (!paused) this.#show();
  }

  clear(): void {
    this.exchanges = [];
    this.#waiting = [];
    this.held = 0;
    this.missed = 0;
  }

  #open(scope: Scope, onNews: (chunks: ReadonlySet<string>) => void): void {
    const search = new URLSearchParams({ recent: String(RECENT) });
    if (scope !== 'all') {
      if ('chunk' in scope) search.set('chunk', scope.chunk);
      else search.set('prefix', scope.prefix);
    }
    this.connection = 'connecting';
    const source = new EventSource(`/api/consensus/events?${search}`);
    this.#source = source;
    source.onopen = () => (this.connection = 'live');
    source.onerror = () => {
      this.connection = 'lost';
      if (source.readyState !== EventSource.CLOSED) return;
      this.#again = setTimeout(() => this.#open(scope, onNews), AGAIN_MS);
    };
    source.onmessage = (event: MessageEvent<string>) => {
      this.connection = 'live';
      this.#take(exchangeOf(event.lastEventId, JSON.parse(event.data) as ConsensusEvent));
      if (!this.#frame) {
        this.#frame = requestAnimationFrame(() => {
          this.#frame = 0;
          onNews(new Set(this.#waiting.filter((e) => e.request !== 'read').map((e) => e.chunk_id)));
          if (!this.paused) this.#show();
        });
      }
    };
    source.addEventListener('lagged', (event) => (this.missed += Number(event.data) || 0));
    source.addEventListener('gap', (event) => (this.missed += Number(JSON.parse(event.data).missed) || 0));
  }

  #take(exchange: Exchange): void {
    this.#waiting.push(exchange);
    if (!this.paused) return;
    // As many as are kept anyway.
    if (this.#waiting.length > 3_000) this.#waiting.shift();
    this.held = this.#waiting.length;
  }

  #show(): void {
    if (this.#waiting.length) this.exchanges = merge(this.exchanges, this.#waiting);
    this.#waiting = [];
    this.held = 0;
  }
}
