import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(`../../packages/${path}`, import.meta.url));

// biome-ignore lint/style/noDefaultExport: vitest reads the default export
export default defineConfig({
  resolve: {
    alias: [
      { find: /^scrim$/, replacement: source('scrim/src/index.ts') },
      { find: /^scrim\/(.+)$/, replacement: `${source('scrim/src/')}$1/index.ts` },
      { find: /^@scrim\/dataops$/, replacement: source('dataops/src/index.ts') },
    ],
  },
  test: {
    root: fileURLToPath(new URL('.', import.meta.url)),
    include: ['*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 1_800_000,
    // One control plane at a time: each takes most of a core while it starts.
    fileParallelism: false,
    reporters: ['default', '../closing-line.ts'],
  },
});
