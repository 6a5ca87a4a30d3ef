/** Which page a path names. Pure. */

export type Route =
  | { page: 'library' }
  | { page: 'watch'; id: string }
  | { page: 'nodes' }
  | { page: 'census' }
  | { page: 'consensus'; chunk: string | null }
  | { page: 'efficiency' }
  | { page: 'unknown'; path: string };

export function parseRoute(pathname: string, search: string): Route {
  const path = pathname.replace(/\/+$/, '') || '/';
  switch (path) {
    case '/':
      return { page: 'library' };
    case '/nodes':
      return { page: 'nodes' };
    case '/census':
      return { page: 'census' };
    case '/consensus':
      return { page: 'consensus', chunk: new URLSearchParams(search).get('chunk') };
    case '/storage-efficiency':
      return { page: 'efficiency' };
  }
  const match = /^\/watch\/([^/]+)$/.exec(path);
  if (match) {
    try {
      return { page: 'watch', id: decodeURIComponent(match[1]!) };
    } catch {
      // A stray percent sign: not a path of ours.
    }
  }
  return { page: 'unknown', path };
}
