/** Videos that are no more while somebody watches them: deleted, and their chunks given up one by one. */
import { ApiError } from '../api/http';

/** There is no such video any more. The message is what the service says of it. */
export class VideoGone extends Error {}

/** What is asked for, unless the service says that the video is no more. */
export async function orGone<T>(asking: Promise<T>): Promise<T> {
  try {
    return await asking;
  } catch (error) {
    if (error instanceof ApiError && (error.status === 404 || error.status === 410)) throw new VideoGone(error.message);
    throw error;
  }
}
