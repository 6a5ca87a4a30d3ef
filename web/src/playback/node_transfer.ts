/**
 * One transfer from a storage node, of a whole chunk or of a shard: the node book learns from it, and the record is
 * told.
 */
import type { FailureKind, NodeBook } from './node_book';
import type { Located } from './places';
import type { SourceEvents } from './source_events';
import { type Environment, type Expected, patienceMs, type Received, transfer, TransferError } from './transfer';

/** What every transfer works with. */
export interface Means {
  env: Environment;
  book: NodeBook;
  events: SourceEvents;
}

/** What is asked of a node. */
export interface NodeRequest {
  node: string;
  chunk: Located;
  /** The chunk, or a shard of it. */
  item: Expected;
}

/** Why a transfer was aborted: others were faster. */
export const OVERTAKEN = Symbol('overtaken');

export interface Control {
  signal: AbortSignal;
  onBytes?: ((count: number) => void) | undefined;
}

/**
 * Verified bytes, or why the node did not give them. Rejects with `Cancelled` when the signal fires, which says nothing
 * about the node, unless others were faster.
 */
export async function fromNode(
  { env, book, events }: Means,
  { node, chunk, item }: NodeRequest,
  { signal, onBytes }: Control,
): Promise<Received | FailureKind> {
  const beganAt = env.now();
  // Of a shard it is said which: while its chunk is moved, the node may have two of one index.
  const which = item === chunk ? '' : `?sha256=${item.sha256}`;
  book.transferBegan(node, beganAt);
  events.transferStarted?.(chunk, { node });
  try {
    const received = await transfer(env, `${node}/chunk/${item.id}${which}`, item, {
      signal,
      patienceMs: patienceMs(book.latencyMs(node)),
      onBytes: (count) => {
        book.progress(node, env.now(), count);
        onBytes?.(count);
      },
    });
    book.firstByte(node, received.firstByteAt - received.startedAt);
    book.transferDone(node, received.endedAt, item.sizeBytes);
    return received;
  } catch (error) {
    if (!(error instanceof TransferError)) {
      const now = env.now();
      if (signal.reason === OVERTAKEN) book.transferOvertaken(node, now, item.sizeBytes, now - beganAt);
      else book.transferUnwanted(node, now);
      throw error;
    }
    book.transferFailed(node, env.now(), error.kind);
    events.transferFailed?.(item, { node }, error.kind, error.message);
    return error.kind;
  }
}
