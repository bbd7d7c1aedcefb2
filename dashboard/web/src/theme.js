// Runs before the first paint, so that a dark page does not flash white.
try {
  const kept = JSON.parse(localStorage.getItem('patronus') ?? '{}');
  if (kept.theme && kept.theme !== 'auto') document.documentElement.dataset.theme = kept.theme;
  if (kept.density) document.documentElement.dataset.density = kept.density;
} catch { /* the page follows the system */ }
