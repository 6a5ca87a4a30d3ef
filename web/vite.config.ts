import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

/** Where `npm run dev` finds a running cluster's web service. */
const cluster = process.env.VSTACK_WEB ?? 'http://127.0.0.1:8085';

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    // The page's content policy allows no data: scripts or styles, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
  },
  worker: { format: 'es' },
  server: {
    proxy: Object.fromEntries(['/api', '/hls', '/gateway', '/video'].map((path) => [path, cluster])),
  },
  test: {
    include: ['src/**/*.test.ts'],
    environment: 'node',
    restoreMocks: true,
  },
});
