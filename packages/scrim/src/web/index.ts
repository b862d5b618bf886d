/** `scrim/web`: engine and cryptography of a browser. */
export { createWebEngine, type WebEngineOptions } from './ort-web-engine.js';
export { createWebCrypto } from './web-crypto.js';
