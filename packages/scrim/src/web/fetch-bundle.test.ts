import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { fetchBundle } from './fetch-bundle.js';
import { openConfidentialSession } from './open-session.js';

const folder = fileURLToPath(new URL('../../../../models/faceboxes-tfjs/alpha-0.80/', import.meta.url));
const crypto = createNodeCrypto();
const RECONSTRUCTION = 'audit/reconstruction.safetensors';

/** A server of the folder, and what was asked of it. `change` spoils a file. */
function serve(change: (path: string, bytes: Uint8Array) => Uint8Array = (_, bytes) => bytes) {
  const asked: string[] = [];
  const fetch = async (request: Request): Promise<Response> => {
    const path = new URL(request.url).pathname.replace('/bundles/a/', '');
    asked.push(path);
    const bytes = await readFile(`${folder}${path}`).catch(() => undefined);
    if (!bytes) return new Response('', { status: 404 });
    return new Response(change(path, new Uint8Array(bytes)) as Uint8Array<ArrayBuffer>);
  };
  return { asked, fetch };
}

/** The part of the Cache API that is used, in memory. */
function memoryCaches(): { kept: Map<string, Uint8Array<ArrayBuffer>> } {
  const kept = new Map<string, Uint8Array<ArrayBuffer>>();
  const cache = {
    match: async (key: string) => (kept.has(key) ? new Response(kept.get(key)!) : undefined),
    put: async (key: string, response: Response) => {
      kept.set(key, new Uint8Array(await response.arrayBuffer()));
    },
    delete: async (key: string) => kept.delete(key),
  };
  (globalThis as { caches?: unknown }).caches = { open: async () => cache };
  return { kept };
}

describe('fetchBundle', () => {
  afterEach(() => {
    delete (globalThis as { caches?: unknown }).caches;
  });
  const url = 'http://studio.test/bundles/a';

  it('fetches, verifies and pins', async () => {
    const { fetch, asked } = serve();
    const bundle = await fetchBundle(url, { crypto, fetch });
    expect(bundle.manifest.alpha).toBe(0.8);
    expect(asked).toEqual(['manifest.json', 'trusted/noise.safetensors']);
    expect((await fetchBundle(url, { crypto, fetch, expectedHash: bundle.hash })).hash).toBe(bundle.hash);
    const other = fetchBundle(url, { crypto, fetch, expectedHash: '0'.repeat(64) });
    await expect(other).rejects.toMatchObject({ code: 'INVALID_BUNDLE' });
  });

  it('is refused by a session that pins another', async () => {
    const { fetch, asked } = serve();
    const bundle = await fetchBundle(url, { crypto, fetch });
    const opened = openConfidentialSession({ bundle, expectedHash: '0'.repeat(64), url: 'http://studio.test' });
    await expect(opened).rejects.toMatchObject({ code: 'INVALID_BUNDLE' });
    expect(asked).not.toContain('trusted/head.onnx');
  });

  it('keeps files under their hash and mends what was spoilt in the cache', async () => {
    const { kept } = memoryCaches();
    const { fetch, asked } = serve();
    const first = await (await fetchBundle(url, { crypto, fetch })).read(RECONSTRUCTION);
    expect(kept.size).toBe(2);
    asked.length = 0;
    const again = await fetchBundle(url, { crypto, fetch });
    expect(Buffer.compare(await again.read(RECONSTRUCTION), first)).toBe(0);
    expect(asked).toEqual(['manifest.json']);
    for (const [key, bytes] of kept) kept.set(key, bytes.slice(1));
    const mended = await fetchBundle(url, { crypto, fetch });
    expect(Buffer.compare(await mended.read(RECONSTRUCTION), first)).toBe(0);
    expect(asked).toEqual(['manifest.json', 'manifest.json', 'trusted/noise.safetensors', RECONSTRUCTION]);
  });

  it('refuses what was changed on the way, and does not keep it', async () => {
    const { kept } = memoryCaches();
    const { fetch } = serve((path, bytes) => {
      if (path === RECONSTRUCTION) bytes[bytes.length - 1]! ^= 1;
      return bytes;
    });
    const bundle = await fetchBundle(url, { crypto, fetch });
    await expect(bundle.read(RECONSTRUCTION)).rejects.toMatchObject({ code: 'INVALID_BUNDLE' });
    expect(kept.size).toBe(1);
  });

  it.each([
    [404, 'NOT_FOUND'],
    [503, 'UNAVAILABLE'],
    [403, 'INVALID_BUNDLE'],
  ])('says what a status of %i means', async (status, code) => {
    const fetch = async (): Promise<Response> => new Response('', { status });
    await expect(fetchBundle(url, { crypto, fetch })).rejects.toMatchObject({ code });
  });

  it('names limits, broken connections and wrong addresses', async () => {
    const { fetch } = serve();
    const small = fetchBundle(url, { crypto, fetch, maxBytes: 100 });
    await expect(small).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
    const down = async (): Promise<Response> => Promise.reject(new TypeError('fetch failed'));
    await expect(fetchBundle(url, { crypto, fetch: down })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(fetchBundle('bundles/a', { crypto, fetch })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
