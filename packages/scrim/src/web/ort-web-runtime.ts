/**
 * onnxruntime-web 1.30 as a {@link Backend}: picks the execution provider, imports only the build it needs (lazily; it
 * is an optional peer dependency), and proves that it starts.
 *
 * Used on the page's thread or in ort-web-worker.ts. Nothing is fetched from anywhere but `wasmUrl`, or by default
 * from beside onnxruntime-web's own script, where bundlers put the .wasm file.
 */
import type { Backend, BackendIdentity } from '../engine/backend.js';
import { createOrtBackend } from '../engine/ort-backend.js';
import { probe } from '../engine/probe-model.js';
import { createRewritingBackend } from '../engine/rewriting-backend.js';
import { ScrimError } from '../errors.js';

/** Execution providers a web engine can be asked for. */
export type WebExecutionProvider = 'webgpu' | 'wasm';

/** Settings of a runtime, all resolved but `threads`; plain data, as they are posted to a worker. */
export interface WebRuntimeSettings {
  readonly executionProvider: 'auto' | WebExecutionProvider;
  readonly threads?: number;
  /** Absolute URL of the folder that serves onnxruntime-web's .wasm files, with a slash at its end. */
  readonly wasmUrl?: string;
  /** Where it runs, for the description. */
  readonly thread: 'worker' | 'inline';
}

// The .wasm file of each build of onnxruntime-web 1.30.
const WASM_FILES: Readonly<Record<WebExecutionProvider, string>> = {
  wasm: 'ort-wasm-simd-threaded.wasm',
  webgpu: 'ort-wasm-simd-threaded.asyncify.wasm',
};

/**
 * Starts onnxruntime-web on this thread.
 * @throws ScrimError UNSUPPORTED if the package can't be imported or the execution provider can't start;
 * INVALID_ARGUMENT if onnxruntime-web already runs on this thread with another number of threads.
 */
export async function startWebRuntime(
  settings: WebRuntimeSettings,
): Promise<{ readonly backend: Backend; readonly identity: BackendIdentity }> {
  const { executionProvider } = settings;
  if (executionProvider === 'wasm') return startProvider('wasm', settings, []);
  const lacking = await whyNoWebGpu(executionProvider === 'webgpu');
  if (lacking === undefined) {
    try {
      return await startProvider('webgpu', settings, []);
    } catch (error) {
      if (executionProvider === 'webgpu') throw error;
      return startProvider('wasm', settings, [(error as Error).message]);
    }
  }
  if (executionProvider === 'auto') return startProvider('wasm', settings, [`no webgpu: ${lacking}`]);
  throw new ScrimError('UNSUPPORTED', `execution provider "webgpu" can't start here: ${lacking}`, {
    details: { executionProvider },
  });
}

async function startProvider(
  executionProvider: WebExecutionProvider,
  settings: WebRuntimeSettings,
  reasons: readonly string[],
): Promise<{ readonly backend: Backend; readonly identity: BackendIdentity }> {
  const ort = await importOrt(executionProvider);
  const { threads, reason } = chooseThreads(settings.threads);
  const running = ort.env.wasm.numThreads;
  if (running !== undefined && running !== threads) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `threads is ${threads}, but onnxruntime-web already runs with ${running} on this thread; use worker: true`,
    );
  }
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = 'fatal';
  if (settings.wasmUrl !== undefined) {
    ort.env.wasm.wasmPaths = { wasm: new URL(WASM_FILES[executionProvider], settings.wasmUrl).href };
  }
  const plain = createOrtBackend(ort, (graph) => {
    if (graph.threads !== threads) {
      throw new ScrimError(
        'UNSUPPORTED',
        `threads is ${graph.threads}, but onnxruntime-web has one number for all graphs: the engine's, ${threads}`,
      );
    }
    return {
      executionProviders: [executionProvider],
      enableCpuMemArena: true,
      enableMemPattern: false,
      logSeverityLevel: 4,
      // Idle threads that wait in a loop for the next run would keep processors from whatever else the tab has to do.
      extra: { session: { force_spinning_stop: '1' } },
    };
  });
  // A chunk of its own, for this provider alone.
  const backend =
    executionProvider === 'webgpu'
      ? createRewritingBackend(plain, async (model) =>
          (await import('../onnx/pad-conv-channels.js')).withPaddedConvolutions(model),
        )
      : plain;
  try {
    await probe(backend, threads);
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^.*can't load the model: /, '') : String(error);
    const from =
      settings.wasmUrl === undefined ? '' : `; ${WASM_FILES[executionProvider]} is expected in ${settings.wasmUrl}`;
    throw new ScrimError(
      'UNSUPPORTED',
      `execution provider "${executionProvider}" of onnxruntime-web can't start here: ${reason}${from}`,
      { details: { executionProvider }, cause: error },
    );
  }
  const where = `${threads} ${threads === 1 ? 'thread' : 'threads'}, ${settings.thread}`;
  const why = [...reasons, ...(reason === undefined ? [] : [reason])];
  const description = [`onnxruntime-web ${ort.env.versions.web} (${executionProvider}, ${where})`, ...why].join('; ');
  return { backend, identity: { description, executionProvider, threads } };
}

interface Adapter {
  readonly isFallbackAdapter?: boolean;
  readonly info?: { readonly isFallbackAdapter?: boolean };
}

/** Why WebGPU can't be used here; undefined if it can. A GPU drawn in software is slower than WebAssembly. */
async function whyNoWebGpu(allowSoftware: boolean): Promise<string | undefined> {
  const gpu = (globalThis.navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } } | undefined)?.gpu;
  if (gpu === undefined) return 'there is no navigator.gpu';
  const adapter = await gpu.requestAdapter().catch(() => null);
  if (adapter === null) return 'navigator.gpu gives no adapter';
  const isSoftware = adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter ?? false;
  return isSoftware && !allowSoftware ? 'the only adapter is a software one' : undefined;
}

/**
 * WebAssembly threads need shared memory, which a page has only if it is cross-origin isolated. By default as many
 * as there are processors, half of them above 4 (they are mostly hyper-threads) and at most 8.
 */
function chooseThreads(asked: number | undefined): { readonly threads: number; readonly reason?: string } {
  if (asked === 1) return { threads: 1 };
  if (globalThis.crossOriginIsolated !== true) {
    return { threads: 1, reason: 'one thread: the page is not cross-origin isolated' };
  }
  const processors = globalThis.navigator?.hardwareConcurrency ?? 1;
  return { threads: asked ?? Math.min(8, Math.max(Math.min(4, processors), Math.ceil(processors / 2))) };
}

async function importOrt(executionProvider: WebExecutionProvider): Promise<typeof import('onnxruntime-web')> {
  try {
    return executionProvider === 'webgpu'
      ? await import('onnxruntime-web/webgpu')
      : await import('onnxruntime-web/wasm');
  } catch (error) {
    throw new ScrimError(
      'UNSUPPORTED',
      `onnxruntime-web can't be imported; if it is not installed, run: npm install onnxruntime-web@1.30.0`,
      { details: { package: 'onnxruntime-web' }, cause: error },
    );
  }
}
