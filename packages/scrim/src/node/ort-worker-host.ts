/**
 * The host's side of ort-worker.ts: makes the thread, watches it, and ends it.
 *
 * The thread keeps the process alive only while an answer is awaited. If it dies, what was awaited and whatever is
 * asked later rejects with ENGINE_FAILED; nothing is restarted. Before the process exits the host waits for the run
 * under way, since ending the thread inside onnxruntime-node aborts the process. A fault inside native code ends the
 * process as well: a thread shares it.
 */
import { Worker } from 'node:worker_threads';
import type { Backend, BackendIdentity } from '../engine/backend.js';
import { RemoteBackend } from '../engine/remote-backend.js';
import { ScrimError } from '../errors.js';
import type { RuntimeSettings } from './ort-runtime.js';
import { createFlags, type OrtWorkerData, stopAndWait } from './ort-worker-data.js';

/** Runs handed to the thread at a time: one is computed while the inputs of the next are copied. */
export const WORKER_WIDTH = 2;

// How long the exit of the process is held up by a run under way.
const EXIT_WAIT_MS = 30_000;

/**
 * Starts onnxruntime-node in a thread of its own.
 * @throws ScrimError as {@link startOrtRuntime}; ENGINE_FAILED if the thread can't be started.
 */
export function startOrtWorker(
  settings: RuntimeSettings,
): Promise<{ readonly backend: Backend; readonly identity: BackendIdentity }> {
  const data: OrtWorkerData = { settings, flags: createFlags() };
  // execArgv: flags such as --import or --inspect-brk of the caller are not the thread's.
  const worker = new Worker(ortWorkerUrl(import.meta.url), { workerData: data, execArgv: [], name: 'scrim engine' });
  return connectOrtWorker(worker, data.flags);
}

/**
 * The backend that `worker`, which runs ort-worker.ts with `flags`, answers for.
 * @throws ScrimError what the thread says about its failure; ENGINE_FAILED if it dies before it is ready.
 */
export async function connectOrtWorker(
  worker: Worker,
  flags: Int32Array,
): Promise<{ readonly backend: Backend; readonly identity: BackendIdentity }> {
  let isReady = false;
  const remote = new RemoteBackend(
    (message, transfer) => worker.postMessage(message, transfer),
    WORKER_WIDTH,
    (busy) => {
      if (busy) worker.ref();
      else if (isReady) worker.unref();
    },
  );
  const exited = new Promise<void>((resolve) => {
    worker.on('exit', (exitCode) => {
      releaseFlags(flags);
      remote.fail(
        new ScrimError('ENGINE_FAILED', `the engine's thread ended with code ${exitCode}; make a new engine`),
      );
      resolve();
    });
  });
  worker.on('message', (message) => remote.receive(message));
  worker.on('messageerror', (error) => remote.fail(died(error)));
  worker.on('error', (error) => remote.fail(died(error)));
  holdFlags(flags);

  try {
    const identity = await remote.ready;
    isReady = true;
    worker.unref();
    const close = async (): Promise<void> => {
      await remote.close();
      worker.ref();
      await exited;
    };
    const backend: Backend = {
      load: (model, options) => remote.load(model, options),
      run: (graph, feeds, options) => remote.run(graph, feeds, options),
      release: (graph) => remote.release(graph),
      close,
    };
    return { backend, identity };
  } catch (error) {
    await worker.terminate();
    throw error;
  }
}

/** Where ort-worker.js lies beside the module at `moduleUrl`. Node runs no TypeScript, so from src/ it is dist/'s. */
export function ortWorkerUrl(moduleUrl: string): URL {
  const url = new URL('./ort-worker.js', moduleUrl);
  const source = url.pathname.lastIndexOf('/src/');
  if (moduleUrl.endsWith('.ts') && source !== -1) {
    url.pathname = `${url.pathname.slice(0, source)}/dist/${url.pathname.slice(source + '/src/'.length)}`;
  }
  return url;
}

function died(error: unknown): ScrimError {
  return ScrimError.from(error, 'ENGINE_FAILED', "the engine's thread failed; make a new engine");
}

// The threads that run now. The exit of the process concerns all of them at once, hence one listener and one set.
const heldFlags = new Set<Int32Array>();

function holdFlags(flags: Int32Array): void {
  if (heldFlags.size === 0) process.on('exit', onProcessExit);
  heldFlags.add(flags);
}

function releaseFlags(flags: Int32Array): void {
  heldFlags.delete(flags);
  if (heldFlags.size === 0) process.off('exit', onProcessExit);
}

function onProcessExit(): void {
  for (const flags of heldFlags) stopAndWait(flags, EXIT_WAIT_MS);
}
