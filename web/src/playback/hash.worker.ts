/** Hashes off the main thread. The bytes travel by transfer and come back the same way, so that nothing is copied. */
import { sha256 } from './sha256';
import { answerCalls } from './worker_calls';

export interface HashAnswer {
  bytes: Uint8Array<ArrayBuffer>;
  digest: Uint8Array;
}

answerCalls((bytes: Uint8Array<ArrayBuffer>) => {
  const answer: HashAnswer = { bytes, digest: sha256(bytes) };
  return { answer, moved: [bytes.buffer] };
});
