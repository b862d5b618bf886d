/**
 * What does the browser cost? In one run on one machine, headless Chromium on WebAssembly against Node:
 *
 *   1. photo to boxes at 1024×1024 (file in, head and noise here, tail on the same server, boxes out), median;
 *   2. the page: seconds until it can be used from a cold cache, and the longest task of its main thread over the story;
 *   3. with FDDB: average precision of browser and Node on the same photos, without noise, so that they can be compared.
 *
 *   node bench/browser.mjs [FDDB_DIRECTORY] [--runs N]
 *
 * Needs the built library and page (`npm run studio` builds both) and Chromium.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { loadBundle } from 'scrim';
import { createFddbEvaluator } from 'scrim/metrics';
import { createInputReader, createNodeCrypto, createNodeEngine, openConfidentialSession, openFddb } from 'scrim/node';
import { createDetectionDecoder } from 'scrim/vision';
import { build } from 'vite';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const BUNDLE = 'faceboxes-tfjs/alpha-0.80';
const MODEL = 'faces_faceboxes_tfjs_alpha_0_80';
const SAMPLES = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'assets');
/** How far average precision may be apart; the only limit here whose breach is a failure, for it does not depend on the machine. */
const AP_LIMIT = 0.005;
/** The size of the network's input, so that both sides do the same work. */
const PHOTO = await squarePhoto(join(SAMPLES, 'sample5.jpg'));

const runs = Number(process.argv[process.argv.indexOf('--runs') + 1]) || 15;
const fddb = process.argv.slice(2).find((argument, i, all) => !argument.startsWith('--') && all[i - 1] !== '--runs');

const folder = await buildPage();
const site = await start(join(ROOT, 'bench/browser-page/serve.mjs'), folder);
const { url } = site;
const browser = await chromium.launch({
  executablePath: process.env.SCRIM_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
try {
  print(`${cpus()[0]?.model}, ${cpus().length} cores; Chromium ${browser.version()}, Node ${process.versions.node}`);
  const bench = await openBench();
  const node = await openNode();
  // Turn about, so that whatever else the machine does falls on both.
  const times = { browser: [], node: [] };
  const stages = { browser: [], node: [] };
  for (let i = 0; i < runs + 2; i++) {
    const there = await bench.evaluate(() => globalThis.detect());
    const here = await node.detect();
    if (i < 2) continue;
    times.browser.push(there.ms);
    times.node.push(here.ms);
    stages.browser.push(await bench.evaluate(() => globalThis.stages()));
    stages.node.push(await node.stages());
  }
  const [there, here] = [median(times.browser), median(times.node)];
  print(`photo to boxes, median of ${runs}: browser ${there.toFixed(0)} ms, Node ${here.toFixed(0)} ms`);
  print(`  ratio ${(there / here).toFixed(2)}, limit 2.0; ${await bench.evaluate(() => globalThis.description)}`);
  for (const stage of ['read', 'head', 'noise', 'remote']) {
    const [one, other] = ['browser', 'node'].map((side) =>
      median(stages[side].map((found) => found[stage])).toFixed(1),
    );
    print(`  ${stage.padEnd(6)} browser ${one} ms, Node ${other} ms`);
  }
  if (fddb !== undefined) await compareAccuracy(bench, node, fddb);
  await node.close();
  await bench.context().close();
  await measurePage();
} finally {
  await browser.close();
  site.close();
  await rm(folder, { recursive: true });
}

/** The same path in Node, through the same server. */
async function openNode() {
  const read = async (path) => {
    const response = await fetch(new URL(`bundles/${BUNDLE}/${path}`, url));
    return new Uint8Array(await response.arrayBuffer());
  };
  const bundle = await loadBundle(read, createNodeCrypto());
  const session = await openConfidentialSession({ bundle, url, model: MODEL });
  const detector = bundle.manifest.model.detector;
  const reader = createInputReader(detector);
  const engine = await createNodeEngine();
  const head = await engine.load(await bundle.read('trusted/head.onnx'));
  const tail = await engine.load(await bundle.read(`remote/${bundle.manifest.remote.base}/1/model.onnx`));
  const decoder = createDetectionDecoder(detector);
  return {
    detect: async () => {
      const started = performance.now();
      const { detections } = await session.detect(PHOTO);
      return { ms: performance.now() - started, faces: detections.length };
    },
    stages: async () => {
      const started = performance.now();
      const { tensor } = await reader.read(PHOTO);
      const read = performance.now();
      let timing = {};
      const release = await session.trusted.release(tensor, {
        transfer: true,
        now: () => performance.now(),
        onTiming: (found) => {
          timing = found;
        },
      });
      const released = performance.now();
      await session.send(release);
      const remote = performance.now() - released;
      return { read: read - started, head: timing.headMs, noise: timing.transformMs, remote };
    },
    clean: async (photo) => {
      const { tensor, plan } = await reader.read(photo);
      const activation = await head.run({ [bundle.manifest.model.input]: tensor });
      const { remote } = bundle.manifest;
      const answer = await tail.run({ [remote.input]: Object.values(activation)[0] });
      const named = Object.fromEntries(remote.outputs.map((output) => [output.model, answer[output.remote]]));
      return decoder.decodeOutputs(named, [plan])[0];
    },
    close: async () => {
      await session.close();
      await engine.close();
    },
  };
}

/** A page of its own for the bench: the library in a worker, and nothing else. */
async function openBench() {
  const page = await browser.newPage();
  page.on('pageerror', (error) => print(`page: ${error.message}`));

  await page.goto(url);
  await page.waitForFunction(() => globalThis.description !== undefined, null, { timeout: 120_000 });
  return page;
}

async function compareAccuracy(bench, node, directory) {
  const dataset = await openFddb(directory);
  const photos = dataset.photos.filter(({ present }) => present);
  const evaluators = { browser: createFddbEvaluator(dataset.folds), node: createFddbEvaluator(dataset.folds) };
  for (const [done, photo] of photos.entries()) {
    const bytes = await readFile(photo.path);
    const found = {
      browser: await bench.evaluate((text) => globalThis.clean(text), bytes.toString('base64')),
      node: await node.clean(photo.path),
    };
    for (const side of ['browser', 'node']) {
      const boxes = found[side].map(({ box: [x, y, right, bottom], score }) => ({
        x,
        y,
        width: right - x,
        height: bottom - y,
        score,
      }));
      evaluators[side].add(photo.name, boxes);
    }
    if (done % 20 === 19) process.stderr.write(`${done + 1}/${photos.length}\n`);
  }
  const [there, here] = [evaluators.browser.result().pooledAP, evaluators.node.result().pooledAP];
  print(`AP on ${photos.length} photos of FDDB without noise: browser ${there.toFixed(4)}, Node ${here.toFixed(4)}`);
  const difference = Math.abs(there - here);
  print(`  difference ${difference.toFixed(4)}, limit ${AP_LIMIT}`);
  if (!(difference <= AP_LIMIT)) process.exitCode = 1;
}

/** The studio from a cold cache, and the longest task of its main thread while the story is told and moved through. */
async function measurePage() {
  const studio = await start(join(ROOT, 'packages/cli/bin/scrim.js'), 'studio', '--port', '0');
  const ready = [];
  for (let i = 0; i < 3; i++) {
    const context = await browser.newContext();
    const page = await context.newPage();
    const started = performance.now();
    await page.goto(studio.url, { waitUntil: 'commit' });
    await page.getByRole('button', { name: 'Choose a photo' }).waitFor();
    ready.push(performance.now() - started);
    await context.close();
  }
  print(`page usable from a cold cache, median of 3: ${(median(ready) / 1000).toFixed(2)} s, limit 2 s`);
  const page = await browser.newPage();
  await page.addInitScript(() => {
    globalThis.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, duration);
    }).observe({ type: 'longtask', buffered: true });
  });
  await page.goto(studio.url);
  const told = () =>
    page.waitForFunction(
      () =>
        document.querySelector('.panes')?.getAttribute('aria-busy') === 'false' &&
        document.querySelector('.pane.attacker canvas') !== null,
      null,
      { timeout: 120_000 },
    );
  await told();
  for (const key of ['ArrowLeft', 'ArrowRight', 'Home', 'End']) {
    await page.getByRole('slider').focus();
    await page.keyboard.press(key);
    await page.waitForTimeout(300);
    await told();
  }
  await page.getByRole('button', { name: 'sample3' }).click();
  await page.waitForTimeout(300);
  await told();
  const longest = await page.evaluate(() => globalThis.longest);
  const said = longest === 0 ? 'below 50 ms' : `${longest.toFixed(0)} ms`;
  print(`longest task of the main thread: ${said}, limit 100 ms`);
  studio.close();
}

/** Builds bench/browser-page/ as an application would be built, into a folder of its own. */
async function buildPage() {
  const folder = await mkdtemp(join(tmpdir(), 'scrim-bench-'));
  await build({
    root: join(ROOT, 'bench/browser-page'),
    logLevel: 'silent',
    configFile: false,
    base: './',
    worker: { format: 'es' },
    build: { outDir: folder, assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: 'es2022' },
  });
  await writeFile(join(folder, 'photo.jpg'), PHOTO);
  return folder;
}

/** Starts a program that prints its address first. */
async function start(...argv) {
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'ignore'] });
  const address = await new Promise((resolve, reject) => {
    child.stdout.once('data', (data) => resolve(String(data).trim()));
    child.once('exit', (code) => reject(new Error(`${argv[0]} ended with ${code}`)));
  });
  return { url: address, close: () => child.kill('SIGTERM') };
}

/** A JPEG of 1024×1024 of a sample photo. */
async function squarePhoto(path) {
  const { default: sharp } = await import('sharp');
  return sharp(path).resize(1024, 1024, { fit: 'fill' }).jpeg({ quality: 90 }).toBuffer();
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function print(line) {
  process.stdout.write(`${line}\n`);
}
