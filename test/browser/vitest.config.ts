import { defineConfig } from 'vitest/config';

// biome-ignore lint/style/noDefaultExport: vitest reads the default export
export default defineConfig({
  test: {
    include: ['test/browser/*.test.ts'],
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // One Chromium at a time: on two cores a second one only makes both slow.
    fileParallelism: false,
    reporters: ['default', './test/closing-line.ts'],
  },
});
