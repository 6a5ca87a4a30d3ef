/** JSON over HTTP to the page's own origin: every wait has an end, and every failure a sentence for people. */

/** Longest a control call may take, in ms. */
const TIMEOUT_MS = 10_000;

/** What a service said, or that it said nothing (`status` 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

/** The sentence in an error body, or one of ours when there is none. */
export function errorFromBody(status: number, text: string): ApiError {
  try {
    const body: unknown = JSON.parse(text);
    if (body && typeof body === 'object' && 'detail' in body && typeof body.detail === 'string') {
      const code = 'code' in body && typeof body.code === 'string' ? body.code : '';
      return new ApiError(status, code, body.detail);
    }
  } catch {
    // Not JSON: a proxy in between, perhaps.
  }
  return new ApiError(status, '', `The server answered ${status}.`);
}

async function call(method: string, path: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { method, cache: 'no-cache', signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    throw new ApiError(0, 'unreachable', 'The V-Stack web service does not answer.');
  }
  if (!response.ok) throw errorFromBody(response.status, await response.text().catch(() => ''));
  return response;
}

export async function getJson<T>(path: string): Promise<{ body: T; headers: Headers }> {
  const response = await call('GET', path);
  return { body: (await response.json()) as T, headers: response.headers };
}

/** Why a stream is refused for good, which browsers do not tell; null when another try may go better. */
export async function refusalOf(path: string): Promise<string | null> {
  try {
    await (await call('GET', path)).body?.cancel();
  } catch (reason) {
    const final = reason instanceof ApiError && reason.status >= 400 && reason.status < 500 && ![408, 429].includes(reason.status);
    if (final) return reason.message;
  }
  return null;
}

/** For calls that change something and say what it is then. */
export async function sendJson<T>(method: 'POST' | 'DELETE', path: string): Promise<T> {
  return (await (await call(method, path)).json()) as T;
}

/** For calls whose answer does not matter beyond that it was a good one. */
export async function send(method: 'POST' | 'DELETE', path: string): Promise<void> {
  await (await call(method, path)).body?.cancel();
}
