import { describe, expect, it } from 'vitest';
import { FakeWorker } from './testing';
import { answerCalls, type Answered, type Asked, WorkerCalls, type WorkerScope } from './worker_calls';

/** A worker that doubles numbers, and cannot double zero. */
function setUp() {
  const answered: Answered<number>[] = [];
  const scope: WorkerScope<number, number> = { onmessage: null, postMessage: (message) => void answered.push(message) };
  answerCalls((question) => {
    if (question === 0) throw new Error('nothing to double');
    return { answer: 2 * question, moved: [] };
  }, scope);
  const fake = new FakeWorker();
  const calls = new WorkerCalls<number, number>(fake.worker, 'it broke');
  /** Lets the worker have a question, and the page its answer. */
  const deliver = (at: number) => {
    scope.onmessage?.({ data: fake.asked[at] as Asked<number> } as MessageEvent<Asked<number>>);
    fake.onmessage?.({ data: answered.pop() });
  };
  return { fake, calls, deliver };
}

describe('calls to a worker', () => {
  it('get each its own answer, in whatever order those come', async () => {
    const { calls, deliver } = setUp();
    const both = [calls.ask(3), calls.ask(4)];
    deliver(1);
    deliver(0);
    expect(await Promise.all(both)).toEqual([6, 8]);
  });

  it('fail alone when the worker cannot answer', async () => {
    const { calls, deliver } = setUp();
    const [bad, good] = [calls.ask(0), calls.ask(1)];
    deliver(0);
    deliver(1);
    await expect(bad).rejects.toThrow('nothing to double');
    expect(await good).toBe(2);
    expect(calls.isBroken).toBe(false);
  });

  it('fail all when the worker breaks or is closed, and from then on', async () => {
    for (const { end, reason } of [
      { end: ({ fake }: ReturnType<typeof setUp>) => fake.onerror?.(), reason: 'it broke' },
      { end: ({ calls }: ReturnType<typeof setUp>) => calls.close(), reason: 'closed' },
    ]) {
      const made = setUp();
      const both = [made.calls.ask(1), made.calls.ask(2)];
      end(made);
      const said = await Promise.all(both.map((call) => call.catch((error: Error) => error.message)));
      for (const text of said) expect(text).toContain(reason);
      expect(made.calls.isBroken).toBe(true);
      await expect(made.calls.ask(3)).rejects.toThrow(reason);
      expect(made.fake.asked.length).toBe(2);
    }
  });
});
