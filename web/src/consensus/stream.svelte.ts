/** The live stream of acceptors' messages: one connection, events put on the page once a frame, a pause. */
import { refusalOf } from '../api/http';
import type { ConsensusEvent, ConsensusGap } from '../api/types';
import { after, NO_GAPS, type Gaps } from './gaps';
import { exchangeOf, Known, merge, type Exchange } from './trace';

/** After the server refused a stream, which the browser does not ask for again by itself. */
const AGAIN_MS = 3_000;
/** Asked for when a stream begins. */
const RECENT = 400;

export type Scope = { chunk: string } | { prefix: string } | 'all';
/** `refused`: for good, and not asked for again. */
export type Connection = 'connecting' | 'live' | 'lost' | 'refused';

export class Trace {
  exchanges = $state.raw<Exchange[]>([]);
  connection = $state<Connection>('connecting');
  paused = $state(false);
  /** Came while it was paused. */
  held = $state(0);
  /** Known to have gone by unseen. */
  missed = $state(0);
  /** Whose messages are not there at the moment. */
  gaps = $state.raw<Gaps>(NO_GAPS);
  /** Why there is no stream for good. */
  refusal = $state<string | null>(null);

  #known = new Known();
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
    this.gaps = NO_GAPS;
    this.#known = new Known();
    this.#open(scope, onNews);
    return () => {
      this.#source?.close();
      this.#source = null;
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
    this.refusal = null;
    const path = `/api/consensus/events?${search}`;
    const source = new EventSource(path);
    this.#source = source;
    source.onopen = () => {
      this.connection = 'live';
      // The stream begins with those that last.
      this.gaps = NO_GAPS;
    };
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) {
        this.connection = 'lost';
        return;
      }
      void refusalOf(path).then((refusal) => {
        if (this.#source !== source) return;
        if (refusal === null) {
          this.connection = 'lost';
          this.#again = setTimeout(() => this.#open(scope, onNews), AGAIN_MS);
          return;
        }
        this.refusal = refusal;
        this.connection = 'refused';
      });
    };
    source.onmessage = (event: MessageEvent<string>) => {
      this.connection = 'live';
      const exchange = exchangeOf(JSON.parse(event.data) as ConsensusEvent);
      if (!this.#known.add(exchange.key)) return;
      this.#take(exchange);
      if (!this.#frame) {
        this.#frame = requestAnimationFrame(() => {
          this.#frame = 0;
          onNews(new Set(this.#waiting.filter((e) => e.request !== 'read').map((e) => e.chunk_id)));
          if (!this.paused) this.#show();
        });
      }
    };
    source.addEventListener('lagged', (event) => (this.missed += Number(event.data) || 0));
    source.addEventListener('gap', (event) => {
      const gap = JSON.parse(event.data) as ConsensusGap;
      if (gap.state === 'missed') this.missed += gap.missed;
      this.gaps = after(this.gaps, gap);
    });
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
