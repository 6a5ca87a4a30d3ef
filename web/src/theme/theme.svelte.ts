/** Light, dark, or as the system says; remembered. `public/theme.js` applies it before the first paint. */

export type Theme = 'system' | 'light' | 'dark';

const KEY = 'vstack-theme';
const ORDER: readonly Theme[] = ['system', 'light', 'dark'];

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === 'light' || value === 'dark' ? value : 'system';
  } catch {
    return 'system';
  }
}

class ThemeChoice {
  current = $state<Theme>(stored());

  /** The next of system, light, dark. */
  next(): void {
    this.current = ORDER[(ORDER.indexOf(this.current) + 1) % ORDER.length]!;
    const root = document.documentElement;
    if (this.current === 'system') delete root.dataset.theme;
    else root.dataset.theme = this.current;
    try {
      if (this.current === 'system') localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, this.current);
    } catch {
      // The choice then lasts as long as the page.
    }
  }
}

export const theme = new ThemeChoice();
