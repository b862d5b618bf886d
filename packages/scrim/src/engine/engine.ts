/**
 * The interface that runs ONNX graphs. Rooms that need to run something take an {@link Engine}; node/ and web/
 * provide one. Nothing here depends on a runtime.
 */
import type { DataType, Tensor } from '../tensor.js';

/** Name, element type and shape of a graph input or output; a symbolic dimension is its name, an unknown one ''. */
export interface ValueInfo {
  readonly name: string;
  readonly dtype: DataType;
  readonly shape: readonly (number | string)[];
}

/** Tensors by the name of the graph input or output. */
export type NamedTensors = Readonly<Record<string, Tensor>>;

/** How one graph is loaded. */
export interface LoadOptions {
  /** Threads for one operator; default: the engine's. */
  readonly threads?: number;
  /** 'all' (default) lets the runtime rewrite the graph; 'none' runs it node by node, for comparisons. */
  readonly optimize?: 'all' | 'none';
  /**
   * State that stays where the engine computes (in a GPU's memory, in the worker): input name -> name of the output that
   * takes its place in the next run. Such an input is fed in the first run and whenever it is to be replaced; such an
   * output is brought here, as a copy, by runs alone that fetch it by name.
   */
  readonly resident?: Readonly<Record<string, string>>;
}

/** How one run is made. */
export interface RunOptions {
  /** Outputs to bring here; default: all of the graph's but those that stay. None at all where there are such. */
  readonly fetches?: readonly string[];
  /**
   * True if the caller gives up the input arrays: an array that covers its whole ArrayBuffer may be moved to another
   * thread instead of copied, which leaves it empty here. Default: false; then inputs are only read.
   */
  readonly transfer?: boolean;
  /** Takes a run that waits out of the queue; the result of one under way is dropped when it comes. */
  readonly signal?: AbortSignal;
}

/**
 * A loaded graph. Runs may overlap; they are executed in the order of the calls. The inputs of a run are read until
 * its promise settles and must not be changed before; the outputs belong to the caller.
 */
export interface Session {
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /**
   * Runs the graph.
   * @throws ScrimError INVALID_ARGUMENT for a missing, unknown, wrongly typed or wrongly shaped input; ENGINE_FAILED if
   * the runtime fails or the session is closed; CANCELLED if the signal fires.
   */
  run(feeds: NamedTensors, options?: RunOptions): Promise<Record<string, Tensor>>;
  /** Frees the graph. Waits for the runs asked for before; later runs throw. */
  close(): Promise<void>;
}

/** True if an engine computes on a GPU. */
export function isGpu<E extends Pick<Engine, 'executionProvider'>>(
  engine: E,
): engine is E & { readonly executionProvider: 'webgpu' | 'cuda' } {
  return engine.executionProvider === 'webgpu' || engine.executionProvider === 'cuda';
}

/** Something that runs ONNX graphs on one execution provider. */
export interface Engine {
  /** For people: runtime, version and execution provider, such as 'onnxruntime-node 1.30.0 (cpu)'. */
  readonly description: string;
  /** Execution provider in use: 'cpu', 'webgpu', 'cuda', 'wasm'. */
  readonly executionProvider: string;
  /** Threads one operator may use. */
  readonly threads: number;
  /**
   * Loads an encoded ONNX model; the bytes may be reused once the promise settles.
   * @throws ScrimError INVALID_MODEL if the runtime refuses it; UNSUPPORTED for an operator or element type that the
   * runtime lacks; ENGINE_FAILED if the engine is closed.
   */
  load(model: Uint8Array, options?: LoadOptions): Promise<Session>;
  /** Closes every session and frees the engine. Waits for the runs asked for before; later calls throw. */
  close(): Promise<void>;
}
