/**
 * Bundles over HTTP: the manifest is asked for each time, every other file is named by its hash, checked, and kept in
 * the browser's Cache API under that hash.
 *
 * A file that was kept is checked again when it is used; one that no longer fits is fetched anew. Where there is no
 * Cache API (pages that are not secure, some private modes) everything is fetched. Redirects are refused.
 */
import { type Bundle, loadBundle, MANIFEST_PATH } from '../bundle/bundle.js';
import { createFetchTransport, type FetchFunction } from '../client/http-transport.js';
import { ScrimError } from '../errors.js';
import { type NoiseCrypto, toHex } from '../noise/noise-crypto.js';
import { createWebCrypto } from './web-crypto.js';

/** How a bundle is fetched. */
export interface FetchBundleOptions {
  /** Refuses any other bundle; in hexadecimal. Pin it where the page and the bundle come from different hands. */
  readonly expectedHash?: string;
  /** Name of the cache, or false for none. Default 'scrim-bundles'. */
  readonly cache?: string | false;
  /** Largest file; default 256 MiB. */
  readonly maxBytes?: number;
  /** Default {@link createWebCrypto}. */
  readonly crypto?: NoiseCrypto;
  /** Default: the global fetch. */
  readonly fetch?: FetchFunction;
  readonly signal?: AbortSignal;
}

const DEFAULT_CACHE = 'scrim-bundles';
const DEFAULT_MAX_BYTES = 2 ** 28;
const MAX_MANIFEST_BYTES = 2 ** 22;

/**
 * Opens the bundle whose files lie below `url`. Files are fetched when they are read.
 * @param url folder of manifest.json, relative to the page or worker, or absolute
 * @throws ScrimError UNAVAILABLE if it can't be reached, NOT_FOUND if it is not there, INVALID_BUNDLE if anything is
 * changed or inconsistent, LIMIT_EXCEEDED for a file above `maxBytes`
 */
export async function fetchBundle(url: string, options: FetchBundleOptions = {}): Promise<Bundle> {
  const { expectedHash, cache: cacheName = DEFAULT_CACHE, maxBytes = DEFAULT_MAX_BYTES } = options;
  const crypto = options.crypto ?? createWebCrypto();
  const signal = options.signal ?? new AbortController().signal;
  const folder = folderUrl(url);
  const transport = createFetchTransport(options.fetch);
  const cache = cacheName === false ? undefined : await openCache(cacheName);

  const load = async (path: string, limit: number): Promise<Uint8Array> => {
    const response = await transport.exchange({
      method: 'GET',
      url: new URL(path, folder).href,
      headers: path === MANIFEST_PATH ? { 'cache-control': 'no-cache' } : {},
      signal,
      maxBytes: limit,
    });
    if (response.status === 200) return response.body;
    const code = response.status === 404 ? 'NOT_FOUND' : response.status >= 500 ? 'UNAVAILABLE' : 'INVALID_BUNDLE';
    throw new ScrimError(code, `'${path}' of the bundle could not be fetched: the server answered ${response.status}`);
  };
  const matches = async (bytes: Uint8Array, hash: string): Promise<boolean> =>
    toHex(await crypto.sha256(bytes)) === hash;

  let hashes: Readonly<Record<string, unknown>> = {};
  return loadBundle(
    async (path) => {
      if (path === MANIFEST_PATH) {
        const manifest = await load(path, MAX_MANIFEST_BYTES);
        hashes = hashesIn(manifest);
        return manifest;
      }
      const hash = hashes[path];
      if (cache === undefined || typeof hash !== 'string' || !HASH.test(hash)) return load(path, maxBytes);
      const key = new URL(`/.scrim-bundle/${hash}`, folder).href;
      const kept = await cache.match(key).catch(() => undefined);
      if (kept) {
        const bytes = new Uint8Array(await kept.arrayBuffer());
        if (await matches(bytes, hash)) return bytes;
        await cache.delete(key);
      }
      const bytes = await load(path, maxBytes);
      // A cache that is full or forbidden is no reason to fail.
      if (await matches(bytes, hash)) {
        await cache.put(key, new Response(bytes as Uint8Array<ArrayBuffer>)).catch(() => undefined);
      }
      return bytes;
    },
    crypto,
    expectedHash,
  );
}

const HASH = /^[0-9a-f]{64}$/;

async function openCache(name: string): Promise<Cache | undefined> {
  return globalThis.caches?.open(name).catch(() => undefined);
}

/** The hashes a manifest lists, unchecked: what is kept under a wrong one does not match it. */
function hashesIn(manifest: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const { files } = JSON.parse(new TextDecoder().decode(manifest)) as { files?: Record<string, unknown> };
    return typeof files === 'object' && files !== null ? files : {};
  } catch {
    return {};
  }
}

function folderUrl(path: string): string {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    return new URL(path.endsWith('/') ? path : `${path}/`, base).href;
  } catch (error) {
    throw new ScrimError('INVALID_ARGUMENT', `url is "${path}", expected the URL of a bundle's folder`, {
      cause: error,
    });
  }
}
