/**
 * Questions to a worker, and its answers: both ends of it. A question has a ticket, which its answer bears too, so
 * several may wait at a time. What is `moved` travels by transfer and is gone where it was.
 */

export interface Asked<Question> {
  ticket: number;
  question: Question;
}

export type Answered<Answer> = { ticket: number } & ({ answer: Answer } | { error: string });

interface Waiting<Answer> {
  done(answer: Answer): void;
  failed(reason: Error): void;
}

/** The page's end. */
export class WorkerCalls<Question, Answer> {
  #worker: Worker;
  #waiting = new Map<number, Waiting<Answer>>();
  #next = 0;
  #broken: Error | null = null;

  /** `failure` says in words that the worker broke, or never started. */
  constructor(worker: Worker, failure: string) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<Answered<Answer>>) => this.#settle(data);
    worker.onerror = () => this.#fail(new Error(failure));
  }

  /** Nothing will be answered any more. */
  get isBroken(): boolean {
    return this.#broken !== null;
  }

  ask(question: Question, moved: Transferable[] = []): Promise<Answer> {
    if (this.#broken) return Promise.reject(this.#broken);
    const asked: Asked<Question> = { ticket: this.#next++, question };
    return new Promise((done, failed) => {
      this.#waiting.set(asked.ticket, { done, failed });
      this.#worker.postMessage(asked, moved);
    });
  }

  close(): void {
    this.#worker.terminate();
    this.#fail(new Error('the player was closed'));
  }

  #settle(answered: Answered<Answer>): void {
    const waiting = this.#waiting.get(answered.ticket);
    this.#waiting.delete(answered.ticket);
    if ('error' in answered) waiting?.failed(new Error(answered.error));
    else waiting?.done(answered.answer);
  }

  #fail(reason: Error): void {
    this.#broken = reason;
    for (const waiting of this.#waiting.values()) waiting.failed(reason);
    this.#waiting.clear();
  }
}

/** What a worker sees of the world. */
export interface WorkerScope<Question, Answer> {
  onmessage: ((event: MessageEvent<Asked<Question>>) => void) | null;
  postMessage(message: Answered<Answer>, moved: Transferable[]): void;
}

/** The worker's end: answers one question after the other, in order. */
export function answerCalls<Question, Answer>(
  work: (question: Question) => { answer: Answer; moved: Transferable[] },
  scope = globalThis as unknown as WorkerScope<Question, Answer>,
): void {
  scope.onmessage = ({ data: { ticket, question } }) => {
    try {
      const { answer, moved } = work(question);
      scope.postMessage({ ticket, answer }, moved);
    } catch (error) {
      scope.postMessage({ ticket, error: error instanceof Error ? error.message : String(error) }, []);
    }
  };
}
