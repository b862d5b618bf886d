/**
 * The browser bundle without onnxruntime-web stays under 60 KB gzip: all that a page needs for a confidential session.
 * The reader of model configurations (client/http-client.ts) and the graph edits for WebGPU (web/ort-web-runtime.ts) are
 * loaded on demand and not counted.
 */
// biome-ignore lint/style/noDefaultExport: size-limit reads the default export
export default [
  {
    name: 'confidential session in a browser',
    path: 'test/browser/whole-client.js',
    limit: '60 kB',
    gzip: true,
    ignore: ['onnxruntime-web'],
    modifyEsbuildConfig: (config) => ({
      ...config,
      platform: 'browser',
      format: 'esm',
      external: [...(config.external ?? []), 'onnxruntime-web/*', '*/model-config.js', '*/pad-conv-channels.js'],
    }),
  },
];
