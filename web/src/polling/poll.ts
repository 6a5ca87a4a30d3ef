/**
 * Repeats a task for as long as somebody looks: not while the page is hidden, never two at a time, and at once when
 * the page is shown again.
 */

/** What polling needs of the browser; tests hand in their own. */
export interface Visibility {
  hidden(): boolean;
  onChange(run: () => void): () => void;
  after(ms: number, run: () => void): () => void;
}

const browser: Visibility = {
  hidden: () => document.hidden,
  onChange(run) {
    document.addEventListener('visibilitychange', run);
    return () => document.removeEventListener('visibilitychange', run);
  },
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

/** Runs `task` now and `everyMs` after each end of it. The task handles its own errors. Returns how to stop. */
export function poll(task: () => Promise<void>, everyMs: number, visibility: Visibility = browser): () => void {
  let stopped = false;
  let running = false;
  let cancel = () => {};

  const turn = async () => {
    if (stopped || running || visibility.hidden()) return;
    running = true;
    cancel();
    try {
      await task();
    } finally {
      running = false;
      if (!stopped) cancel = visibility.after(everyMs, () => void turn());
    }
  };
  const unlisten = visibility.onChange(() => void turn());
  void turn();
  return () => {
    stopped = true;
    cancel();
    unlisten();
  };
}
