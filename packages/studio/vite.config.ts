/**
 * How the page is built. Workers are ES modules, because onnxruntime-web starts its threads from its own script; nothing
 * is inlined as a data: URL, because the page's policy allows none. `npm run dev` takes everything but the page from a
 * running `scrim studio`.
 */
import { defineConfig } from 'vite';

const STUDIO = 'http://127.0.0.1:7860';
const ISOLATION = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
};

// biome-ignore lint/style/noDefaultExport: vite reads the default export
export default defineConfig({
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  worker: { format: 'es' },
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false },
  server: {
    headers: ISOLATION,
    proxy: Object.fromEntries(
      ['/v2', '/metrics', '/bundles', '/samples', '/studio.json'].map((path) => [path, STUDIO]),
    ),
  },
});
