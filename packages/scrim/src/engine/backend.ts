/**
 * What stands behind an {@link Engine}: something that loads, runs and releases graphs without checking its arguments
 * and without keeping an order. queued-engine.ts puts the checks and the queue in front; ort-backend.ts implements
 * this over onnxruntime; remote-backend.ts carries it to another thread.
 */
import type { Tensor } from '../tensor.js';
import type { NamedTensors, ValueInfo } from './engine.js';

/** How a backend loads a graph; every setting is resolved. */
export interface GraphOptions {
  readonly threads: number;
  readonly optimize: 'all' | 'none';
  /** Inputs that an output of the run before takes the place of; empty where there is none. */
  readonly resident: Readonly<Record<string, string>>;
}

/** A graph that a backend holds, and the number it is addressed by. */
export interface LoadedGraph {
  readonly graph: number;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
}

/** How a backend makes one run. */
export interface BackendRunOptions {
  readonly fetches: readonly string[];
  readonly transfer: boolean;
  readonly signal?: AbortSignal;
  /** Another thread's backend tells the milliseconds that the run took there, without the way. */
  readonly onTime?: (ms: number) => void;
}

/** Loads, runs and releases graphs. Errors are ScrimErrors; tensor values never stand in them. */
export interface Backend {
  load(model: Uint8Array, options: GraphOptions): Promise<LoadedGraph>;
  run(graph: number, feeds: NamedTensors, options: BackendRunOptions): Promise<Record<string, Tensor>>;
  release(graph: number): Promise<void>;
  close(): Promise<void>;
}

/** What a started backend says about itself. */
export interface BackendIdentity {
  /** Runtime, version, execution provider and anything a person should know, for {@link Engine.description}. */
  readonly description: string;
  readonly executionProvider: string;
  readonly threads: number;
}
