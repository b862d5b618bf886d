import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { createQueuedEngine } from '../engine/queued-engine.js';
import { float32 } from '../tensor.js';
import { DEFAULT_SETTINGS, type RuntimeSettings } from './ort-runtime.js';
import { BUSY, createFlags, markBusy, STOP, stopAndWait } from './ort-worker-data.js';
import { connectOrtWorker, ortWorkerUrl, WORKER_WIDTH } from './ort-worker-host.js';

const GRAPHS = new URL('../engine/test-graphs.json', import.meta.url);
const { graphs } = JSON.parse(readFileSync(GRAPHS, 'utf8')) as { graphs: Record<string, string> };
const model = (name: string): Uint8Array => new Uint8Array(Buffer.from(graphs[name]!, 'base64'));
const DIST = fileURLToPath(new URL('../../dist/', import.meta.url));
const SETTINGS: RuntimeSettings = {
  ...DEFAULT_SETTINGS,
  threads: 1,
  thread: 'worker',
};
const x = float32([1, 3], [1, 1, 1]);
const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

/** Runs a module in a process of its own. */
function run(source: string): Promise<{ code: number; stdout: string; stderr: string; ms: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'scrim-engine-'));
  folders.push(folder);
  const file = join(folder, 'main.mjs');
  const engine = pathToFileURL(join(DIST, 'node/ort-engine.js')).href;
  writeFileSync(
    file,
    `import { readFileSync } from 'node:fs';
     import { createNodeEngine } from ${JSON.stringify(engine)};
     const { graphs } = JSON.parse(readFileSync(new URL(${JSON.stringify(GRAPHS.href)}), 'utf8'));
     const model = (name) => new Uint8Array(Buffer.from(graphs[name], 'base64'));
     const square = (n) => ({ dtype: 'float32', shape: [n, n], data: new Float32Array(n * n).fill(1) });
     ${source}`,
  );
  const start = performance.now();
  return new Promise((resolve) => {
    execFile(process.execPath, [file], { timeout: 30_000 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : ((error as { code?: number }).code ?? -1);
      resolve({ code, stdout, stderr, ms: performance.now() - start });
    });
  });
}

describe('the thread of an engine', () => {
  it('may die: what waits and what comes later is refused, and closing still works', async () => {
    const flags = createFlags();
    const worker = new Worker(ortWorkerUrl(import.meta.url), { workerData: { settings: SETTINGS, flags } });
    const { backend, identity } = await connectOrtWorker(worker, flags);
    const engine = createQueuedEngine(backend, identity, WORKER_WIDTH);
    const session = await engine.load(model('affine'));
    expect(await session.run({ x })).toEqual({ y: float32([1, 2], [19, 32]) });
    // STOP keeps the thread from entering native code, so that the runs are still under way when it ends.
    stopAndWait(flags, 1000);
    const runs = [1, 2, 3].map(() => session.run({ x }));
    const settled = Promise.allSettled(runs);
    await worker.terminate();
    for (const result of await settled) {
      expect(result).toMatchObject({
        reason: { code: 'ENGINE_FAILED', message: expect.stringMatching(/thread ended/) },
      });
    }
    await expect(session.run({ x })).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await expect(engine.load(model('affine'))).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await session.close();
    await engine.close();
  });

  it('may fail with an exception: that is the reason given', async () => {
    // A thread that answers as far as the load, then throws.
    const source = `
      const { parentPort } = require('node:worker_threads');
      const identity = { description: 'short-lived', executionProvider: 'cpu', threads: 1 };
      parentPort.postMessage({ answer: 'ready', identity });
      parentPort.on('message', ({ ask, call }) => {
        if (ask !== 'load') throw new Error('out of luck');
        const value = { graph: 0, inputs: [{ name: 'x', dtype: 'float32', shape: [] }], outputs: [] };
        parentPort.postMessage({ answer: 'done', call, value });
      });`;
    const { backend, identity } = await connectOrtWorker(new Worker(source, { eval: true }), createFlags());
    const session = await createQueuedEngine(backend, identity, 2).load(Uint8Array.of(1));
    await expect(session.run({ x })).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      message: expect.stringMatching(/thread failed.*out of luck/),
    });
  });

  it('may not start', async () => {
    const missing = new Worker(new URL('./nowhere.js', pathToFileURL(DIST)));
    await expect(connectOrtWorker(missing, createFlags())).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    const silent = new Worker('process.exit(7)', { eval: true });
    await expect(connectOrtWorker(silent, createFlags())).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      message: expect.stringMatching(/ended with code 7/),
    });
  });

  it('ends when the engine is closed', async () => {
    const flags = createFlags();
    const worker = new Worker(ortWorkerUrl(import.meta.url), { workerData: { settings: SETTINGS, flags } });
    const exit = once(worker, 'exit');
    const { backend } = await connectOrtWorker(worker, flags);
    await backend.close();
    expect(await exit).toEqual([0]);
  });
});

describe('the process of an engine', () => {
  it('is kept alive by runs under way and by nothing else', async () => {
    const { code, stdout } = await run(`
      const engine = await createNodeEngine({ threads: 1 });
      const session = await engine.load(model('product'));
      session.run({ a: square(600), b: square(600) }).then(({ y }) => console.log('done', y.data[0]));`);
    expect([code, stdout.trim()]).toEqual([0, 'done 600']);
  });

  it('keeps its memory over 2,000 runs', async () => {
    const { stdout } = await run(`
      const engine = await createNodeEngine({ threads: 1 });
      const session = await engine.load(model('mean'));
      const x = { dtype: 'float32', shape: [1, 3, 256, 256], data: new Float32Array(3 * 256 * 256) };
      const runs = async (n) => { for (let i = 0; i < n; i++) await session.run({ x }); return process.memoryUsage().rss; };
      const [early, late] = [await runs(500), await runs(1500)];
      console.log(late - early);
      await engine.close();`);
    // 2,000 inputs are 1.6 GB; what grows is a fraction of one percent of that.
    expect(Number(stdout)).toBeLessThan(16e6);
    expect(stdout).toMatch(/\d/);
  });

  it('can exit in the middle of a run, from an event or an exception', async () => {
    const busy = `
      const engine = await createNodeEngine({ threads: 1 });
      const session = await engine.load(model('product'));
      for (let i = 0; i < 4; i++) session.run({ a: square(900), b: square(900) }).catch(() => {});`;
    const exited = await run(`${busy} setTimeout(() => process.exit(3), 30);`);
    expect([exited.code, exited.stderr]).toEqual([3, '']);
    const threw = await run(`${busy} setTimeout(() => { throw new Error('boom'); }, 30);`);
    expect(threw.code).toBe(1);
    expect(threw.stderr).toMatch(/boom/);
    expect(threw.stderr).not.toMatch(/terminate called/);
  });

  it('is told how to install onnxruntime-node where it is missing, in both threads', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'scrim-engine-'));
    folders.push(folder);
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    for (const room of ['engine', 'node']) {
      mkdirSync(join(folder, room));
      cpSync(join(DIST, room), join(folder, room), { recursive: true });
    }
    for (const file of ['errors.js', 'tensor.js']) cpSync(join(DIST, file), join(folder, file));
    const alone = pathToFileURL(join(folder, 'node/ort-engine.js')).href;
    const { code, stdout, stderr } = await run(`
      const { createNodeEngine: create } = await import(${JSON.stringify(alone)});
      for (const thread of ['worker', 'inline']) {
        await create({ thread }).catch((error) => console.log(error.code, error.message));
      }`);
    expect([code, stderr]).toEqual([0, '']);
    const line = 'UNSUPPORTED onnxruntime-node is not installed; run: npm install onnxruntime-node@1.30.0\n';
    expect(stdout).toBe(line + line);
  });
});

describe('ortWorkerUrl', () => {
  it('lies beside compiled modules, and in dist/ for sources', () => {
    expect(ortWorkerUrl('file:///app/dist/node/ort-worker-host.js').href).toBe('file:///app/dist/node/ort-worker.js');
    expect(ortWorkerUrl('file:///src/scrim/src/node/a.ts').href).toBe('file:///src/scrim/dist/node/ort-worker.js');
  });
});

describe('markBusy', () => {
  it('marks a task, starts none after STOP, and lets the one under way end first', async () => {
    const flags = createFlags();
    let during = -1;
    expect(
      await markBusy(flags, async () => {
        during = Atomics.load(flags, BUSY);
        return 5;
      }),
    ).toBe(5);
    expect([during, Atomics.load(flags, BUSY)]).toEqual([1, 0]);
    await expect(markBusy(flags, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(Atomics.load(flags, BUSY)).toBe(0);

    Atomics.store(flags, BUSY, 1);
    expect(stopAndWait(flags, 10)).toBe(false);
    Atomics.store(flags, BUSY, 0);
    expect(stopAndWait(flags, 10)).toBe(true);
    expect(Atomics.load(flags, STOP)).toBe(1);
    let started = false;
    void markBusy(flags, async () => {
      started = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect([started, Atomics.load(flags, BUSY)]).toEqual([false, 0]);
  });
});
