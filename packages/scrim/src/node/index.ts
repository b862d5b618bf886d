/** `scrim/node`: engines, files, photos and cryptography of a Node process. */
export { openBundle, recordResults, writeDirectory, writeFileAtomically } from './bundle-files.js';
export { type CanvasOptions, createCanvases } from './canvases.js';
export { attachExternalFiles } from './external-data.js';
export {
  type FddbDataset,
  type FddbFold,
  type FddbPhoto,
  type OpenFddbOptions,
  openFddb,
} from './fddb-files.js';
export * from './images.js';
export { createNodeCrypto } from './node-crypto.js';
export { createNodeEngine, type NodeEngineOptions } from './ort-engine.js';
export { listPhotos } from './photo-files.js';
export { createInputReader, type DetectorInput, type InputReader } from './vision-input.js';
