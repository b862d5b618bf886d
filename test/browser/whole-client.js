// What a page that uses Scrim imports: the measure of the browser bundle (.size-limit.js).
export { createConfidentialSession, createTritonClient } from 'scrim/client';
export { createInputReader, createWebCrypto, createWebEngine, fetchBundle, openConfidentialSession } from 'scrim/web';
