/**
 * `scrim`: the one path. Open a bundle, make its trusted half, release, and let a tail answer.
 * `scrim/node` and `scrim/web` bring engines, files and cryptography; the other subpaths hold the parts.
 */
export {
  type Bundle,
  type BundleContent,
  type BundleReader,
  encodeBundle,
  HEAD_PATH,
  loadBundle,
  MANIFEST_PATH,
  type ManifestInput,
  readBottleneck,
  verifyBundle,
} from './bundle/bundle.js';
export {
  decodeDetector,
  type Figure,
  type FitRecord,
  type Manifest,
  type ManifestDetector,
  type ManifestTask,
  type MeasuredFigure,
  type ProvenFigure,
} from './bundle/manifest.js';
export { decodeSafetensors, encodeSafetensors, type SafetensorsFile } from './bundle/safetensors.js';
export { createLocalTail, type LocalTail } from './client/local-tail.js';
export {
  createTrustedHalf,
  type ReleaseOptions,
  type TrustedHalf,
  type TrustedHalfOptions,
} from './client/trusted-half.js';
export type { Engine, LoadOptions, NamedTensors, RunOptions, Session, ValueInfo } from './engine/engine.js';
export { warmUp, zeroFeeds } from './engine/warm-up.js';
export {
  ERROR_CODES,
  type ErrorCodeInfo,
  type ErrorDetails,
  ScrimError,
  type ScrimErrorCode,
} from './errors.js';
export { Release } from './noise/release.js';
export {
  type DataType,
  expectType,
  float32,
  int64,
  scalar,
  sizeOf,
  type Tensor,
  type TensorArrays,
  tensor,
} from './tensor.js';
