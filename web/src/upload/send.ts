/** Sends one file as multipart, with the bytes really sent as its progress: fetch() cannot tell, XMLHttpRequest can. */
import { ApiError, errorFromBody } from '../api/http';
import type { UploadAccepted } from '../api/types';

export interface Sending {
  /** Rejects with `ApiError`; `null` when it was aborted. */
  done: Promise<UploadAccepted | null>;
  abort(): void;
}

/** In which form a video is to be kept; '' leaves it to its views. */
export type Form = '' | 'replication' | 'erasure_coding';

export function sendFile(
  file: File,
  { title, form: keepAs }: { title: string; form: Form },
  onSent: (sent: number, total: number) => void,
): Sending {
  const request = new XMLHttpRequest();
  const done = new Promise<UploadAccepted | null>((resolve, reject) => {
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onSent(event.loaded, event.total);
    };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) {
        try {
          resolve(JSON.parse(request.responseText) as UploadAccepted);
        } catch {
          reject(new ApiError(request.status, '', 'The answer to the upload could not be read.'));
        }
      } else {
        reject(errorFromBody(request.status, request.responseText));
      }
    };
    request.onerror = () =>
      reject(new ApiError(0, 'unreachable', 'The connection broke while the file was being sent. Try again.'));
    request.onabort = () => resolve(null);
  });
  const form = new FormData();
  // The short parts come first, so that the service knows them before the long one.
  form.append('title', title);
  if (keepAs) form.append('redundancy_mode', keepAs);
  form.append('video', file, file.name);
  request.open('POST', '/api/upload');
  request.send(form);
  return { done, abort: () => request.abort() };
}
