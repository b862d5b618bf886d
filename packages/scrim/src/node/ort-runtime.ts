/**
 * onnxruntime-node 1.30 as a {@link Backend}: found lazily (it is an optional peer dependency), with the execution
 * provider asked for by name and proven to start, and with session settings chosen for flat memory.
 *
 * Used on the caller's thread by 'inline' engines and in ort-worker.ts by 'worker' engines.
 */
import type { InferenceSession } from 'onnxruntime-common';
import type { Backend, BackendIdentity } from '../engine/backend.js';
import { createOrtBackend } from '../engine/ort-backend.js';
import { probe } from '../engine/probe-model.js';
import { createRewritingBackend } from '../engine/rewriting-backend.js';
import { ScrimError } from '../errors.js';

/** Execution providers an engine can be asked for. */
export type NodeExecutionProvider = 'cpu' | 'webgpu' | 'cuda';

/** What onnxruntime itself writes to stderr. Above 'fatal' its lines may quote tensor values. */
export type OrtLogLevel = 'verbose' | 'info' | 'warning' | 'error' | 'fatal';

/** Settings of a runtime, all resolved; plain data, as they are handed to a worker. */
export interface RuntimeSettings {
  readonly executionProvider: NodeExecutionProvider;
  readonly threads: number;
  readonly interOpThreads: number;
  readonly spin: boolean;
  readonly buffers: 'rounded' | 'exact';
  readonly logLevel: OrtLogLevel;
  readonly thread: 'worker' | 'inline';
}

/** Settings of those who ask for nothing else; how many threads, and on which one, is to be said. */
export const DEFAULT_SETTINGS: Omit<RuntimeSettings, 'threads' | 'thread'> = {
  executionProvider: 'cpu',
  interOpThreads: 1,
  spin: false,
  buffers: 'rounded',
  logLevel: 'fatal',
};

const NEEDS: Readonly<Record<NodeExecutionProvider, string>> = {
  cpu: '',
  webgpu: '; it needs a GPU and its Vulkan, Metal or Direct3D 12 driver',
  cuda: '; it needs Linux x64, CUDA 12, and onnxruntime-node installed with --onnxruntime-node-install=cuda12',
};

const LOG_LEVELS: readonly OrtLogLevel[] = ['verbose', 'info', 'warning', 'error', 'fatal'];

/**
 * Starts onnxruntime-node.
 * @throws ScrimError UNSUPPORTED if the package is not installed, can't be loaded, does not list the execution
 * provider, or can't start it here.
 */
export async function startOrtRuntime(
  settings: RuntimeSettings,
): Promise<{ readonly backend: Backend; readonly identity: BackendIdentity }> {
  const ort = await importOrt();
  const version = ort.env.versions.node ?? ort.env.versions.common;
  const { executionProvider, threads, thread } = settings;
  const listed = ort.listSupportedBackends().map(({ name }) => name);
  if (!listed.includes(executionProvider)) {
    throw new ScrimError(
      'UNSUPPORTED',
      `execution provider "${executionProvider}" is not in the installed onnxruntime-node ${version}, which lists ${listed.join(', ')}`,
      { details: { executionProvider, listed } },
    );
  }
  ort.env.logLevel = settings.logLevel;
  const plain = createOrtBackend(ort, (graph) => sessionOptions(settings, graph.threads));
  const backend = executionProvider === 'webgpu' ? createRewritingBackend(plain, padConvolutions) : plain;
  try {
    await probe(backend, threads);
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^.*can't load the model: /, '') : String(error);
    throw new ScrimError(
      'UNSUPPORTED',
      `execution provider "${executionProvider}" is listed by onnxruntime-node ${version} but can't start here: ${reason}${NEEDS[executionProvider]}`,
      { details: { executionProvider, listed }, cause: error },
    );
  }
  const description = `onnxruntime-node ${version} (${executionProvider}, ${threads} threads, ${thread})`;
  return { backend, identity: { description, executionProvider, threads } };
}

/** Loaded where it is needed: an engine for the CPU does without the ONNX room. */
async function padConvolutions(model: Uint8Array): Promise<Uint8Array> {
  return (await import('../onnx/pad-conv-channels.js')).withPaddedConvolutions(model);
}

/**
 * Measured on a FaceBoxes-like graph (200 runs, 2 threads): without the arena a run faults its memory in anew each
 * time (261 against 170 MB at the peak, 3% slower); memory patterns keep a plan per input shape (+20 MB) and gain
 * nothing measurable. Threads that spin within a run only, in turns with threads that sleep between operators and with
 * threads that never stop: 4.7, 5.7 and 4.7 ms for the remote half at 24×24 positions in a row, 5.3, 7.4 and 5.0 ms with
 * pauses of 10 ms, in which the last take twice the processor time (21 ms a run) and the core that decodes the next image.
 */
function sessionOptions(settings: RuntimeSettings, threads: number): InferenceSession.SessionOptions {
  return {
    executionProviders: [
      settings.executionProvider === 'webgpu' && settings.buffers === 'exact'
        ? { name: 'webgpu', storageBufferCacheMode: 'simple' }
        : settings.executionProvider,
    ],
    intraOpNumThreads: threads,
    interOpNumThreads: settings.interOpThreads,
    executionMode: settings.interOpThreads > 1 ? 'parallel' : 'sequential',
    enableCpuMemArena: true,
    enableMemPattern: false,
    logSeverityLevel: LOG_LEVELS.indexOf(settings.logLevel) as 0 | 1 | 2 | 3 | 4,
    extra: { session: { intra_op: { allow_spinning: '1' }, force_spinning_stop: settings.spin ? '0' : '1' } },
  };
}

async function importOrt(): Promise<typeof import('onnxruntime-node')> {
  try {
    return (await import('onnxruntime-node')).default;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const missing = code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND';
    const reason = missing
      ? 'onnxruntime-node is not installed; run: npm install onnxruntime-node@1.30.0'
      : `onnxruntime-node can't be loaded on ${process.platform} ${process.arch}: ${(error as Error).message}`;
    throw new ScrimError('UNSUPPORTED', reason, { details: { package: 'onnxruntime-node' }, cause: error });
  }
}
