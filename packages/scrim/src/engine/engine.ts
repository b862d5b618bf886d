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
}

/** How one run is made. */
export interface RunOptions {
  /** Outputs to compute; default: all of the graph's. */
  readonly fetches?: readonly string[];
  /** True if the caller gives up the input arrays: they may be moved to another thread instead of copied. */
  readonly transfer?: boolean;
  readonly signal?: AbortSignal;
}

/** A loaded graph. Runs may overlap; they are executed in the order of the calls. */
export interface Session {
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /**
   * Runs the graph.
   * @throws ScrimError INVALID_ARGUMENT for a missing, unknown or wrongly typed input; ENGINE_FAILED if the runtime
   * fails; CANCELLED if the signal fires.
   */
  run(feeds: NamedTensors, options?: RunOptions): Promise<Record<string, Tensor>>;
  /** Frees the graph. Waits for runs under way; later runs throw. */
  close(): Promise<void>;
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
   * Loads an encoded ONNX model.
   * @throws ScrimError INVALID_MODEL if the runtime refuses it.
   */
  load(model: Uint8Array, options?: LoadOptions): Promise<Session>;
  /** Closes every session and frees the engine. */
  close(): Promise<void>;
}
