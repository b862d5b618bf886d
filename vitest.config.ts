import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(`./packages/scrim/src/${path}`, import.meta.url));

// biome-ignore lint/style/noDefaultExport: vitest reads the default export
export default defineConfig({
  resolve: {
    alias: [
      { find: /^scrim$/, replacement: source('index.ts') },
      { find: /^scrim\/(.+)$/, replacement: `${source('')}$1/index.ts` },
    ],
  },
  test: {
    include: ['packages/*/src/**/*.test.ts', 'test/*.test.ts', 'test/{vectors,privacy}/**/*.test.ts'],
    testTimeout: 60_000,
    maxWorkers: 2,
    reporters: ['default', './test/closing-line.ts'],
  },
});
