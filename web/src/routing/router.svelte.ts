/** The current page, kept in step with the address bar. */
import { parseRoute } from './route';

const here = () => parseRoute(location.pathname, location.search);

class Router {
  route = $state(here());

  constructor() {
    addEventListener('popstate', () => (this.route = here()));
    document.addEventListener('click', (event) => this.#onClick(event));
  }

  /** Goes to an address of this site without loading it anew. */
  go(address: string, replace = false): void {
    if (replace) history.replaceState(null, '', address);
    else history.pushState(null, '', address);
    this.route = here();
    if (!replace) scrollTo(0, 0);
  }

  /** Plain clicks on links to pages of ours stay in the page; everything else is the browser's. */
  #onClick(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.('a');
    if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
    if (parseRoute(link.pathname, link.search).page === 'unknown') return;
    event.preventDefault();
    this.go(link.pathname + link.search);
  }
}

export const router = new Router();
