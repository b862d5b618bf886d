/**
 * The {@link Engine} for Node: onnxruntime-node 1.30 on the CPU, on WebGPU or on CUDA, in a thread of its own or on
 * the caller's. onnxruntime-node's run() blocks the thread that calls it, hence the choice.
 *
 * One engine makes one run at a time, over all its sessions; for runs side by side make several engines and divide
 * the threads between them.
 */
import type { Engine } from '../engine/engine.js';
import { checkThreads, createQueuedEngine } from '../engine/queued-engine.js';
import { createShortRunBackend } from '../engine/short-run-backend.js';
import { ScrimError } from '../errors.js';
import {
  DEFAULT_SETTINGS,
  type NodeExecutionProvider,
  type OrtLogLevel,
  type RuntimeSettings,
  startOrtRuntime,
} from './ort-runtime.js';
import { startOrtWorker, WORKER_WIDTH } from './ort-worker-host.js';
import { usableProcessors } from './usable-processors.js';

/** How an engine for Node is made. */
export interface NodeEngineOptions {
  /** Default 'cpu'. Operators that a GPU provider lacks run on the CPU. */
  readonly executionProvider?: NodeExecutionProvider;
  /** Threads one operator may use, 1 to 1024; default: {@link usableProcessors}. */
  readonly threads?: number;
  /** Operators that may run side by side; default 1. More than 1 helps only wide graphs. */
  readonly interOpThreads?: number;
  /**
   * 'worker' (default): runs are made in a thread of their own and the event loop stays free. 'inline': on this
   * thread, which every run blocks until it is done, for training loops and tools where nothing else waits; it saves
   * copying the inputs and the way to the thread. 'adaptive': in a thread of their own, apart from runs of small graphs
   * that take less time than the way there (below a quarter of a millisecond, whatever the input holds), for servers of
   * models of any size.
   */
  readonly thread?: 'worker' | 'inline' | 'adaptive';
  /**
   * Threads wait for the next operator of a run by spinning, and sleep when the run ends. True lets them go on for a while
   * after it: runs that come close together start sooner, and between runs they keep processors from other work.
   */
  readonly spin?: boolean;
  /**
   * Which buffers WebGPU keeps for the next run: 'rounded' (default) ones of some thirty sizes, few of the large ones, or
   * 'exact' ones of every size that was ever needed, so that a large graph of fixed shapes, such as a step of training,
   * makes none anew. Runs of ever new shapes would fill the GPU's memory. Without effect on other providers. The first
   * engine of a process decides for all.
   */
  readonly buffers?: 'rounded' | 'exact';
  /** What onnxruntime itself writes to stderr; default 'fatal'. Its lines may quote tensor values. */
  readonly logLevel?: OrtLogLevel;
}

const CHOICES = {
  executionProvider: ['cpu', 'webgpu', 'cuda'],
  thread: ['worker', 'inline', 'adaptive'],
  buffers: ['rounded', 'exact'],
  logLevel: ['verbose', 'info', 'warning', 'error', 'fatal'],
} as const;

/**
 * Makes an engine over onnxruntime-node, which must be installed beside scrim. Close it when done.
 * @throws ScrimError INVALID_ARGUMENT for a wrong option; UNSUPPORTED if onnxruntime-node is missing, does not list the
 * execution provider, or can't start it here.
 */
export async function createNodeEngine(options: NodeEngineOptions = {}): Promise<Engine> {
  const settings: RuntimeSettings = {
    executionProvider: options.executionProvider ?? DEFAULT_SETTINGS.executionProvider,
    threads: options.threads ?? usableProcessors(),
    interOpThreads: options.interOpThreads ?? DEFAULT_SETTINGS.interOpThreads,
    spin: options.spin ?? DEFAULT_SETTINGS.spin,
    buffers: options.buffers ?? DEFAULT_SETTINGS.buffers,
    logLevel: options.logLevel ?? DEFAULT_SETTINGS.logLevel,
    thread: options.thread === 'inline' ? 'inline' : 'worker',
  };
  checkThreads('threads', settings.threads);
  checkThreads('interOpThreads', settings.interOpThreads);
  const { thread = 'worker' } = options;
  for (const [name, choices] of Object.entries(CHOICES)) {
    const chosen = { ...settings, thread }[name as keyof typeof CHOICES];
    if (!(choices as readonly string[]).includes(chosen)) {
      throw new ScrimError('INVALID_ARGUMENT', `${name} is "${String(chosen)}", expected one of ${choices.join(', ')}`);
    }
  }
  if (thread === 'inline') {
    const { backend, identity } = await startOrtRuntime(settings);
    return createQueuedEngine(backend, identity, 1);
  }
  const { backend, identity } = await startOrtWorker(settings);
  if (thread === 'worker') return createQueuedEngine(backend, identity, WORKER_WIDTH);
  const here = await startOrtRuntime({ ...settings, threads: 1, thread: 'inline' });
  // Loaded where it is needed, as by ort-runtime.ts: other engines do without the ONNX room.
  const { decodeModel, isSteady } = await import('../onnx/index.js');
  const short = createShortRunBackend(backend, here.backend, {
    isSteady: (model) => {
      try {
        return isSteady(decodeModel(model));
      } catch {
        // What onnxruntime reads and this project does not stays in its thread.
        return false;
      }
    },
    mark: setImmediate,
  });
  const description = identity.description.replace('worker)', 'adaptive)');
  return createQueuedEngine(short, { ...identity, description }, WORKER_WIDTH);
}
