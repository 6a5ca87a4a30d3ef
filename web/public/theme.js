// Runs before the first paint, so that a reader who chose a theme never sees the other one flash by.
try {
  const chosen = localStorage.getItem('vstack-theme');
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; the system's preference then decides.
}
