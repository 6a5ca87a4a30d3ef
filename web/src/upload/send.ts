/** Sends one file as multipart, with the bytes really sent as its progress: fetch() cannot tell, XMLHttpRequest can. */
import { ApiError, errorFromBody } from '../api/http';
import type { UploadAccepted } from '../api/types';

export interface Sending {
  /** Rejects with `ApiError`; `null` when it was aborted. */
  done: Promise<UploadAccepted | null>;
  abort(): void;
}

export function sendFile(file: File, title: string, onSent: (sent: number, total: number) => void): Sending {
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
  // The title comes first, so that the service knows it before the long part.
  form.append('title', title);
  form.append('video', file, file.name);
  request.open('POST', '/api/upload');
  request.send(form);
  return { done, abort: () => request.abort() };
}
