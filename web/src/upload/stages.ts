/** Words and figures of an upload. Pure. */
import type { UploadStage, UploadStatus } from '../api/types';

/** What the file input offers; the uploader decides by the content, not by the name. */
export const ACCEPTED = '.mp4,.m4v,.avi,.mov,.mkv,.webm,.flv,video/*';

const LABELS: Record<UploadStage, string> = {
  queued: 'Waiting in the queue',
  uploading: 'Receiving the file',
  processing: 'Looking at the file',
  chunking: 'Cutting into chunks',
  registering: 'Registering the video',
  uploading_chunks: 'Storing chunks on the nodes',
  finalizing: 'Finishing',
  completed: 'Ready to watch',
  failed: 'Failed',
};

export function describeStage(status: UploadStatus): string {
  const label = LABELS[status.status] ?? status.status;
  if (status.status === 'queued' && status.queue_position) return `${label}, place ${status.queue_position}`;
  if (status.status === 'uploading_chunks' && status.total_chunks > 0) return `${label} (${status.total_chunks} so far)`;
  return label;
}

/** The file's name without its extension, as a first title. */
export function titleOf(filename: string): string {
  const bare = filename.replace(/\.[A-Za-z0-9]{1,5}$/, '').replace(/[_]+/g, ' ').trim();
  return (bare || filename || 'Untitled').slice(0, 500);
}

/** Bytes a second over a sliding window, from (time in ms, bytes sent so far). */
export class SendRate {
  #samples: { at: number; sent: number }[] = [];

  add(at: number, sent: number): void {
    this.#samples.push({ at, sent });
    while (this.#samples.length > 2 && at - this.#samples[0]!.at > 5_000) this.#samples.shift();
  }

  /** Null until there is enough to tell. */
  get bytesPerSecond(): number | null {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (!first || !last || last.at - first.at < 250) return null;
    return ((last.sent - first.sent) * 1000) / (last.at - first.at);
  }
}
