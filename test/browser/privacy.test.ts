/**
 * What leaves the browser: no request carries the photo, its pixels or its clean activation, in any encoding, and none
 * goes anywhere but to the studio. Every byte is seen, for all of the browser's traffic goes through a proxy.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Page } from 'playwright-core';
import { createInputReader, createNodeEngine, encodePng, readImage, readImageResized } from 'scrim/node';
import { splitAt } from 'scrim/split';
import { faceBoxesFromTfjs } from 'scrim/vision';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findSecrets, type Secret } from './secrets.js';
import { SAMPLES, type Studio, startStudio } from './studio.js';

/** What Chromium asks for on its own account, whatever the page: none of it comes from a page or a worker. */
const BROWSERS_OWN = /(^|\.)(google|googleapis|gvt1|gstatic)\.com:443$/;
const PHOTO = join(SAMPLES, 'sample4.jpg');

let studio: Studio;
let secrets: Secret[];
let clean: Float32Array;
beforeAll(async () => {
  studio = await startStudio();
  ({ secrets, clean } = await secretsOf(PHOTO));
});
afterAll(() => studio?.close());

it('sends releases alone, and to nobody else', async () => {
  const { page, context } = await studio.open({ permissions: ['camera'] });
  const elsewhere: string[] = [];
  context.on('request', (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== 'blob:' && origin !== new URL(studio.url).origin) elsewhere.push(request.url());
  });
  await page.goto(`${studio.url}#/story?setting=clean`);
  await storyTold(page);
  studio.sent.length = 0;
  await page.getByLabel('Photo file').setInputFiles(PHOTO);
  await page.waitForFunction(() => document.querySelectorAll('.pane.attacker canvas').length === 0);
  await storyTold(page);
  // The clean setting runs here and asks nobody.
  expect(studio.sent.filter(({ method }) => method !== 'GET')).toEqual([]);

  const slider = page.getByRole('slider');
  for (const key of ['ArrowRight', 'End']) {
    await slider.focus();
    await page.keyboard.press(key);
    await page.waitForTimeout(400);
    await storyTold(page);
  }
  await page.getByRole('link', { name: 'Server' }).click();
  await page.getByRole('row', { name: /tfjs_alpha_0_80/ }).waitFor();
  await page.getByRole('link', { name: 'Audit report' }).click();
  await context.close();

  const releases = studio.sent.filter(({ url }) => url.endsWith('/infer'));
  expect(releases.length).toBeGreaterThanOrEqual(2);
  expect(releases.every(({ body }) => body.length > 8_000)).toBe(true);
  for (const request of studio.sent) {
    expect(new URL(request.url).origin, 'another origin').toBe(new URL(studio.url).origin);
    expect(findSecrets(request, secrets), request.url).toEqual([]);
    expect(request.headers.cookie).toBeUndefined();
  }
  expect(elsewhere).toEqual([]);
  expect(studio.tunnels.filter((host) => !BROWSERS_OWN.test(host))).toEqual([]);
  // The only bodies are releases and the server page's question for the index.
  const bodies = studio.sent.filter(({ body, url }) => body.length > 2 && !url.endsWith('/infer'));
  expect(bodies.map(({ url }) => url)).toEqual([]);
  for (const { headers, body } of releases) {
    const { json, values } = readRelease(headers['inference-header-content-length'], body);
    expect(json.inputs).toHaveLength(1);
    const likeClean = shareWithin(values, clean, json.inputs[0].shape[1]);
    // Two independent values agree to one part in a thousand in few places; zeros are left out.
    expect(likeClean).toBeLessThan(0.02);
  }
});

it('would be found out: the search finds the photo in every encoding', () => {
  const url = new URL('v2/models/x/infer', studio.url).href;
  for (const { name, bytes } of secrets) {
    // From the middle: the edges of a photo may be all of one colour.
    const part = bytes.slice(bytes.length >> 1, (bytes.length >> 1) + 40_000);
    const secret = [{ name, bytes: part }];
    const plain = Buffer.from(part);
    for (const body of [
      plain,
      gzipSync(plain),
      Buffer.from(plain.toString('base64')),
      Buffer.from(`{"pixels":[${[...plain].join(',')}]}`),
      Buffer.from(plain.toString('hex')),
    ]) {
      expect(findSecrets({ method: 'POST', url, headers: {}, body }, secret), name).not.toEqual([]);
    }
    const inAddress = `${url}?x=${encodeURIComponent(plain.toString('base64'))}`;
    expect(findSecrets({ method: 'GET', url: inAddress, headers: {}, body: Buffer.alloc(0) }, secret)).not.toEqual([]);
  }
});

it('forbids the page to talk to anybody else', async () => {
  const { page } = await studio.open();
  const answer = await page.goto(studio.url);
  const policy = answer?.headers()['content-security-policy'] ?? '';
  expect(policy).toMatch(/^default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; /);
  expect(policy).not.toMatch(/unsafe-inline|'unsafe-eval'|https?:|data:|\*/);
  const outcome = await page.evaluate(() =>
    fetch('http://127.0.0.2:9/').then(
      () => 'sent',
      () => 'refused',
    ),
  );
  expect(outcome).toBe('refused');
  expect(studio.sent.some(({ url }) => url.includes('127.0.0.2'))).toBe(false);
});

async function storyTold(page: Page): Promise<void> {
  await page.waitForFunction(
    () =>
      document.querySelector('.panes')?.getAttribute('aria-busy') === 'false' &&
      document.querySelectorAll('.pane.attacker canvas').length > 0,
    null,
    { timeout: 90_000 },
  );
}

/** The photo as a file, as pixels at its own size and at the network's, and what the head makes of it. */
async function secretsOf(path: string): Promise<{ secrets: Secret[]; clean: Float32Array }> {
  const models = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'models');
  const { graph, spec } = faceBoxesFromTfjs(
    await readFile(join(models, 'faceboxes.json'), 'utf8'),
    await readFile(join(models, 'faceboxes.bin')),
  );
  const engine = await createNodeEngine();
  const head = await engine.load(splitAt(graph, [spec.cut]).head.encode());
  const { tensor } = await createInputReader(spec).read(path);
  const [activation] = Object.values(await head.run({ [spec.input]: tensor }));
  await engine.close();
  const values = activation?.data as Float32Array;
  const photo = await readImage(path);
  const small = await readImageResized(path, { width: 1024, height: 1024 });
  const rgba = await sharp(photo.data, { raw: { width: photo.width, height: photo.height, channels: 3 } })
    .ensureAlpha()
    .raw()
    .toBuffer();
  const planes = new Uint8Array(small.data.length);
  const plane = small.width * small.height;
  for (let i = 0; i < small.data.length; i++) planes[(i % 3) * plane + Math.floor(i / 3)] = small.data[i]!;
  const halves = new Uint16Array(values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) halves[i] = halfOf(bits[i]!);
  return {
    clean: values,
    secrets: [
      { name: 'file', bytes: await readFile(path) },
      { name: 'pixels', bytes: photo.data },
      { name: 'pixels with alpha', bytes: rgba },
      { name: 'small pixels', bytes: small.data },
      { name: 'small pixels by colour', bytes: planes },
      { name: 'PNG of the pixels', bytes: await encodePng(small) },
      { name: 'input of the network', bytes: bytesOf(tensor.data) },
      { name: 'clean activation', bytes: bytesOf(values) },
      { name: 'clean activation as float16', bytes: bytesOf(halves) },
    ],
  };
}

function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** float32 bits to float16 bits, truncated; normal numbers only. */
function halfOf(bits: number): number {
  const exponent = ((bits >>> 23) & 255) - 112;
  return exponent <= 0 ? 0 : (exponent << 10) | ((bits >>> 13) & 1023);
}

function readRelease(
  headerLength: unknown,
  body: Buffer,
): { json: { inputs: { shape: number[] }[] }; values: number[] } {
  const length = Number(headerLength);
  const json = JSON.parse(body.subarray(0, length).toString());
  const halves = new Uint16Array(new Uint8Array(body.subarray(length)).buffer);
  return { json, values: Array.from(halves, (half) => (half & 0x8000 ? -1 : 1) * magnitude(half & 0x7fff)) };
}

function magnitude(half: number): number {
  const exponent = half >>> 10;
  const mantissa = half & 1023;
  return exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/**
 * Share of released values that are a clean value of the same place to one part in a thousand. Which channels were sent
 * is not said in the request, so the likest of all channels counts.
 */
function shareWithin(released: readonly number[], clean: Float32Array, channels: number): number {
  const plane = released.length / channels;
  let worst = 0;
  for (let sent = 0; sent < channels; sent += 7) {
    for (let channel = 0; channel < clean.length / plane; channel++) {
      let same = 0;
      let counted = 0;
      for (let i = 0; i < plane; i++) {
        const value = clean[channel * plane + i]!;
        if (Math.abs(value) < 1e-3) continue;
        counted++;
        if (Math.abs(released[sent * plane + i]! - value) < Math.abs(value) / 1000) same++;
      }
      if (counted > plane / 4) worst = Math.max(worst, same / counted);
    }
  }
  return worst;
}
