/**
 * The {@link Engine} for browsers: onnxruntime-web 1.30 on WebGPU or WebAssembly, by default in a Web Worker so that
 * the page stays responsive.
 *
 * Where there is no Worker (Node, for tests) it runs on the caller's thread. A worker that the browser kills for
 * memory gives no sign; bound waiting runs with a signal where that matters.
 */
import type { Backend, BackendIdentity } from '../engine/backend.js';
import type { Engine } from '../engine/engine.js';
import { checkThreads, createQueuedEngine } from '../engine/queued-engine.js';
import { RemoteBackend } from '../engine/remote-backend.js';
import { ScrimError } from '../errors.js';
import { nextTask } from './next-task.js';
import { startWebRuntime, type WebExecutionProvider, type WebRuntimeSettings } from './ort-web-runtime.js';

/** How an engine for the browser is made. */
export interface WebEngineOptions {
  /**
   * 'auto' (default): WebGPU if navigator.gpu gives an adapter that is no software one and onnxruntime-web starts on
   * it, else WebAssembly; the engine's description says which and why. A name asks for that one and fails without it.
   */
  readonly executionProvider?: 'auto' | WebExecutionProvider;
  /** WebAssembly threads, 1 to 1024; default by the processors. A page that is not cross-origin isolated gets 1. */
  readonly threads?: number;
  /**
   * Folder that serves onnxruntime-web's .wasm files, relative to the page or absolute; default: beside its script,
   * where bundlers put them. There is no fallback to another host.
   */
  readonly wasmPaths?: string;
  /**
   * True (default where Worker exists): runs are made in a Web Worker. False: on this thread, which WebAssembly
   * blocks during each run. A function makes the worker, for bundlers that need to see `new Worker(...)` in the page's
   * own code; it must run ort-web-worker.js as a module.
   */
  readonly worker?: boolean | (() => Worker);
}

// One run is computed while the inputs of the next are copied.
const WORKER_WIDTH = 2;

/**
 * Makes an engine over onnxruntime-web, which must be installed beside scrim. Close it when done.
 * @throws ScrimError INVALID_ARGUMENT for a wrong option; UNSUPPORTED if onnxruntime-web can't be imported or the
 * execution provider can't start; ENGINE_FAILED if the worker can't.
 */
export async function createWebEngine(options: WebEngineOptions = {}): Promise<Engine> {
  const { executionProvider = 'auto', threads, wasmPaths, worker = hasWorkers() } = options;
  if (!['auto', 'webgpu', 'wasm'].includes(executionProvider)) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `executionProvider is "${String(executionProvider)}", expected one of auto, webgpu, wasm`,
    );
  }
  if (threads !== undefined) checkThreads('threads', threads);
  const settings: WebRuntimeSettings = {
    executionProvider,
    thread: worker === false ? 'inline' : 'worker',
    ...(threads === undefined ? {} : { threads }),
    ...(wasmPaths === undefined ? {} : { wasmUrl: folderUrl(wasmPaths) }),
  };
  if (worker === false) {
    const { backend, identity } = await startWebRuntime(settings);
    return createQueuedEngine(backend, identity, 1, nextTask);
  }
  if (worker === true && !hasWorkers()) {
    throw new ScrimError('UNSUPPORTED', 'worker is true, but there are no Web Workers here; use worker: false');
  }
  const { backend, identity } = await startWebWorker(settings, worker === true ? createWorker : worker);
  return createQueuedEngine(backend, identity, WORKER_WIDTH);
}

async function startWebWorker(
  settings: WebRuntimeSettings,
  create: () => Worker,
): Promise<{ readonly backend: Backend; readonly identity: BackendIdentity }> {
  const worker = create();
  const remote = new RemoteBackend((message, transfer) => worker.postMessage(message, transfer), WORKER_WIDTH);
  worker.onmessage = (event) => remote.receive(event.data);
  worker.onerror = (event) => remote.fail(failed(event.message || 'its script could not be loaded'));
  worker.onmessageerror = () => remote.fail(failed('a message could not be read'));
  worker.postMessage(settings);
  try {
    const identity = await remote.ready;
    const close = async (): Promise<void> => {
      await remote.close();
      worker.terminate();
      remote.fail(failed('it is closed'));
    };
    const backend: Backend = {
      load: (model, options) => remote.load(model, options),
      run: (graph, feeds, options) => remote.run(graph, feeds, options),
      release: (graph) => remote.release(graph),
      close,
    };
    return { backend, identity };
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

// onnxruntime-web itself leaves a global Worker behind in Node, which is another class; the browser's has onmessage.
function hasWorkers(): boolean {
  return typeof Worker === 'function' && 'onmessage' in Worker.prototype;
}

// Bundlers recognise this form and bundle the worker.
function createWorker(): Worker {
  return new Worker(new URL('./ort-web-worker.js', import.meta.url), { type: 'module', name: 'scrim engine' });
}

function folderUrl(path: string): string {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    return new URL(path.endsWith('/') ? path : `${path}/`, base).href;
  } catch (error) {
    throw new ScrimError('INVALID_ARGUMENT', `wasmPaths is "${path}", expected the URL of a folder`, { cause: error });
  }
}

function failed(reason: string): ScrimError {
  return new ScrimError('ENGINE_FAILED', `the engine's worker failed: ${reason}; make a new engine`);
}
