/** Decodes off the main thread. The chunk travels back by transfer, so that it is not copied. */
import type { Decodable } from './decoder';
import { readShards } from './erasure';
import { answerCalls } from './worker_calls';

answerCalls(({ sizeBytes, dataShards, parityShards, shards }: Decodable) => {
  const answer = readShards(sizeBytes, dataShards, parityShards, shards);
  return { answer, moved: [answer.buffer] };
});
