/**
 * The studio's web site as a function from request to answer: the page's own files, what the catalogue holds, and the
 * embedded server under /v2, all of one origin. The listener is scrim/node's.
 *
 * Headers: a policy that lets the page talk to nobody else, and cross-origin isolation, which WebAssembly threads need.
 * Paths are looked up in tables; no path of a request ever reaches the file system.
 */
import { readdir, readFile } from 'node:fs/promises';
import { extname, join, sep } from 'node:path';
import { ScrimError } from 'scrim';
import { errorAnswer, type HttpAnswer, type HttpCall, type InferenceServer } from 'scrim/server';
import type { StudioCatalogue } from './studio-catalogue.js';

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.jpg': 'image/jpeg',
  '.png': 'image/png',
  '.wasm': 'application/wasm',
};

/** What every answer bears. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': [
    "default-src 'none'",
    // WebAssembly has to be compiled; no other code may be made at run time.
    "script-src 'self' 'wasm-unsafe-eval'",
    "worker-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "media-src 'self' blob:",
    "connect-src 'self'",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(self), microphone=(), geolocation=(), browsing-topics=()',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
};

interface SiteFile {
  read(): Promise<Uint8Array>;
  readonly type: string;
  /** Files with a hash in their name never change. */
  readonly cacheControl: string;
}

/**
 * Makes the function that answers. The built page is read from `page` once, its names when the site is made.
 * @throws ScrimError NOT_FOUND if the page is not built
 */
export async function createStudioSite(options: {
  readonly page: string;
  readonly catalogue: StudioCatalogue;
  readonly server: InferenceServer;
  readonly version: string;
}): Promise<(call: HttpCall) => Promise<HttpAnswer>> {
  const { page, catalogue, server, version } = options;
  const files = await pageFiles(page);
  for (const [path, read] of catalogue.files) {
    files.set(path, { read, type: typeOf(path), cacheControl: 'no-cache' });
  }
  const { bundles, samples } = catalogue;
  const description = new TextEncoder().encode(JSON.stringify({ version, bundles, samples }));
  files.set('/studio.json', { read: async () => description, type: typeOf('.json'), cacheControl: 'no-store' });

  const answer = async (call: HttpCall): Promise<HttpAnswer> => {
    if (call.path === '/v2' || call.path.startsWith('/v2/') || call.path === '/metrics') return server.answer(call);
    const file = files.get(call.path);
    if (!file) throw new ScrimError('NOT_FOUND', 'there is nothing of that name here');
    if (call.method !== 'GET' && call.method !== 'HEAD') {
      return { status: 405, headers: { allow: 'GET, HEAD' }, parts: [] };
    }
    const headers = { 'content-type': file.type, 'cache-control': file.cacheControl };
    return { status: 200, headers, parts: [await file.read()] };
  };
  return async (call) => {
    const found = await answer(call).catch(errorAnswer);
    return { ...found, headers: { ...found.headers, ...SECURITY_HEADERS } };
  };
}

async function pageFiles(page: string): Promise<Map<string, SiteFile>> {
  const names = await readdir(page, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = new Map<string, SiteFile>();
  for (const entry of names) {
    if (!entry.isFile()) continue;
    const full = join(entry.parentPath, entry.name);
    const path = `/${full.slice(page.length).split(sep).filter(Boolean).join('/')}`;
    let kept: Promise<Uint8Array> | undefined;
    const read = (): Promise<Uint8Array> => {
      kept ??= readFile(full);
      return kept;
    };
    const cacheControl = path.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache';
    files.set(path, { read, type: typeOf(path), cacheControl });
  }
  const index = files.get('/index.html');
  if (!index) {
    throw new ScrimError(
      'NOT_FOUND',
      `the studio's page is not built: run 'npm run studio' in a clone, which builds it`,
    );
  }
  files.set('/', index);
  return files;
}

function typeOf(path: string): string {
  return CONTENT_TYPES[extname(path).toLowerCase()] ?? 'application/octet-stream';
}
