/** `scrim/web`: engine, photos, bundles and cryptography of a browser. */
export { type FetchBundleOptions, fetchBundle } from './fetch-bundle.js';
export {
  createInputReader,
  decodePhoto,
  readImage,
  readImageTowards,
  type WebDetectorInput,
  type WebImageInput,
  type WebImageLimits,
  type WebInputReader,
  type WebResizedImage,
} from './images.js';
export { openConfidentialSession, type WebConfidentialSession, type WebSessionOptions } from './open-session.js';
export { createWebEngine, type WebEngineOptions } from './ort-web-engine.js';
export { createWebCrypto } from './web-crypto.js';
