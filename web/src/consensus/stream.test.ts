import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { listed } from './gaps';
import { Trace } from './stream.svelte';
import { stepsOf } from './trace';

const OWNER = '11111111-1111-4111-8111-111111111111';

/** A stream as a test has it: what the service sends, and how the connection stands. */
class FakeSource {
  static readonly CLOSED = 2;
  static all: FakeSource[] = [];
  readyState = 1;
  onopen = () => {};
  onerror = () => {};
  onmessage = (_: { lastEventId: string; data: string }) => {};
  readonly #heard = new Map<string, (event: { data: string }) => void>();

  constructor(readonly url: string) {
    FakeSource.all.push(this);
  }
  addEventListener(name: string, run: (event: { data: string }) => void): void {
    this.#heard.set(name, run);
  }
  close(): void {
    this.readyState = FakeSource.CLOSED;
  }
  send(name: string, json: unknown): void {
    this.#heard.get(name)!({ data: JSON.stringify(json) });
  }
  vote(node: number, id: string): void {
    const event = {
      event: `18c-${node}`,
      at: new Date(1_700_000_000_000 + node).toISOString(),
      node: `0000000${node}-0000-4000-8000-000000000000/1`,
      node_id: `node-${node}`,
      chunk_id: 'a-chunk-000',
      request: 'put0',
      ballot: `0@${OWNER}`,
      layout: 'replicated 3',
      reply: 'accepted',
      durable: true,
      took_us: 900,
    };
    this.onmessage({ lastEventId: id, data: JSON.stringify(event) });
  }
}

const latest = () => FakeSource.all.at(-1)!;
const NO_NEWS = () => {};
/** Frames wait until they are drawn. */
let frames: (() => void)[] = [];
const draw = () => frames.splice(0).forEach((run) => run());

beforeEach(() => {
  FakeSource.all = [];
  frames = [];
  vi.useFakeTimers();
  vi.stubGlobal('EventSource', FakeSource);
  vi.stubGlobal('requestAnimationFrame', (run: () => void) => frames.push(run));
  vi.stubGlobal('cancelAnimationFrame', () => {});
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const answers = (status: number, detail: string) =>
  vi.stubGlobal('fetch', async () => new Response(JSON.stringify({ detail, code: 'x' }), { status }));

it('a commit has six messages, also when the service between was started anew and tells it again', () => {
  const trace = new Trace();
  trace.follow('all', NO_NEWS);
  latest().onopen();
  for (const node of [1, 2, 3]) latest().vote(node, `a-${node}`);
  draw();
  for (const node of [1, 2, 3]) latest().vote(node, `b-${node + 7}`);
  draw();
  expect(stepsOf(trace.exchanges).map((step) => step.messages)).toEqual([6]);
});

it('what comes again is not counted while it is paused, nor shown after it was cleared', () => {
  const trace = new Trace();
  trace.follow('all', NO_NEWS);
  latest().vote(1, 'a-1');
  draw();
  trace.setPaused(true);
  latest().vote(1, 'b-1');
  latest().vote(2, 'b-2');
  expect(trace.held).toBe(1);
  trace.clear();
  trace.setPaused(false);
  latest().vote(2, 'c-2');
  draw();
  expect(trace.exchanges).toEqual([]);
});

it('nodes that are not heard are named until they are heard again, or the stream begins anew', () => {
  const trace = new Trace();
  trace.follow('all', NO_NEWS);
  const of = { node: '00000001-0000-4000-8000-000000000000/1', node_id: 'node-1' };
  latest().send('gap', { ...of, state: 'began', reason: 'it answers 503' });
  expect(listed(trace.gaps)).toEqual([{ label: 'node-1', reason: 'it answers 503' }]);
  latest().send('gap', { ...of, state: 'ended' });
  expect(listed(trace.gaps)).toEqual([]);
  latest().send('gap', { ...of, state: 'began', reason: 'it answers 503' });
  latest().onopen();
  expect(listed(trace.gaps)).toEqual([]);
  latest().send('gap', { ...of, state: 'missed', missed: 5 });
  expect(trace.missed).toBe(5);
});

it('a stream that is refused for good says why and is not asked for again', async () => {
  answers(400, 'a chunk id has other characters');
  const trace = new Trace();
  trace.follow({ chunk: 'a b' }, NO_NEWS);
  latest().close();
  latest().onerror();
  await vi.waitFor(() => expect(trace.connection).toBe('refused'));
  expect(trace.refusal).toBe('a chunk id has other characters');
  await vi.advanceTimersByTimeAsync(60_000);
  expect(FakeSource.all).toHaveLength(1);
});

it('a stream that is refused for now is asked for again', async () => {
  answers(503, 'too many watch this');
  const trace = new Trace();
  trace.follow('all', NO_NEWS);
  latest().close();
  latest().onerror();
  await vi.advanceTimersByTimeAsync(3_000);
  expect(FakeSource.all).toHaveLength(2);
  expect(trace.refusal).toBe(null);
});
