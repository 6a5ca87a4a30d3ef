/**
 * Hashes off the main thread. One message in, one out, in order; the bytes travel by transfer and come back the same
 * way, so that nothing is copied.
 */
import { sha256 } from './sha256';

export interface HashRequest {
  ticket: number;
  bytes: Uint8Array<ArrayBuffer>;
}

export interface HashReply {
  ticket: number;
  bytes: Uint8Array<ArrayBuffer>;
  digest: Uint8Array<ArrayBufferLike>;
}

interface WorkerScope {
  onmessage: ((event: MessageEvent<HashRequest>) => void) | null;
  postMessage(message: HashReply, transfer: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;

scope.onmessage = ({ data }) => {
  const reply: HashReply = { ticket: data.ticket, bytes: data.bytes, digest: sha256(data.bytes) };
  scope.postMessage(reply, [data.bytes.buffer]);
};
