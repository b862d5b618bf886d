/**
 * A {@link Backend} over an onnxruntime JavaScript binding (onnxruntime-node or onnxruntime-web, which share the types
 * of onnxruntime-common), on the thread that calls it. Which package, which execution provider and which session
 * settings is the caller's choice; order and argument checks are queued-engine.ts's.
 */
import type {
  InferenceSession,
  InferenceSessionFactory,
  Tensor as OrtTensor,
  TensorConstructor,
} from 'onnxruntime-common';
import { ScrimError } from '../errors.js';
import { type Tensor, tensor } from '../tensor.js';
import type { Backend, BackendRunOptions, GraphOptions, LoadedGraph } from './backend.js';
import type { NamedTensors } from './engine.js';
import { loadError, runError } from './ort-errors.js';
import { fromOrt, toOrt, toValueInfo } from './ort-tensors.js';
import { unaryModel } from './probe-model.js';

/** The two classes of an onnxruntime package that are used here. */
export interface OrtClasses {
  readonly InferenceSession: InferenceSessionFactory;
  readonly Tensor: TensorConstructor;
}

/** Makes the session options of one graph; its `logSeverityLevel` also holds for every run. */
export type SessionSettings = (options: GraphOptions) => InferenceSession.SessionOptions;

interface Held {
  readonly session: InferenceSession;
  /** Input -> output that takes its place in the next run. */
  readonly resident: readonly (readonly [string, string])[];
  /** Those outputs. */
  readonly stays: ReadonlySet<string>;
  /** What the last run left, by input. */
  readonly kept: Map<string, OrtTensor>;
  /**
   * Where outputs stay on the device: all that were ever fetched. onnxruntime-node binds outputs for good there, and
   * refuses a run that asks for fewer than one before it.
   */
  readonly bound: Set<string> | undefined;
  readonly runOptions: InferenceSession.RunOptions;
}

/** Makes a backend that runs graphs with `ort`, each with the session options that `settings` gives. */
export function createOrtBackend(ort: OrtClasses, settings: SessionSettings): Backend {
  return new OrtBackend(ort, settings);
}

class OrtBackend implements Backend {
  readonly #ort: OrtClasses;
  readonly #settings: SessionSettings;
  readonly #held = new Map<number, Held>();
  /** Sessions that bring values here that lie on the device, by element type. */
  readonly #fetchers = new Map<string, Promise<InferenceSession>>();
  #next = 0;

  constructor(ort: OrtClasses, settings: SessionSettings) {
    this.#ort = ort;
    this.#settings = settings;
  }

  async load(model: Uint8Array, options: GraphOptions): Promise<LoadedGraph> {
    if (model.length === 0) throw new ScrimError('INVALID_MODEL', 'the model has 0 bytes');
    try {
      const settings = this.#settings(options);
      const session = await this.#ort.InferenceSession.create(model, {
        graphOptimizationLevel: options.optimize === 'all' ? 'all' : 'disabled',
        ...settings,
        ...outputLocations(settings, options.resident),
      });
      try {
        const inputs = session.inputMetadata.map((value) => toValueInfo('input', value));
        const outputs = session.outputMetadata.map((value) => toValueInfo('output', value));
        const graph = this.#next++;
        // Without it a run logs at its own level, and onnxruntime's lines may quote tensor values.
        const { logSeverityLevel } = settings;
        this.#held.set(graph, {
          session,
          resident: Object.entries(options.resident),
          stays: new Set(Object.values(options.resident)),
          kept: new Map(),
          bound: isBound(settings, options.resident) ? new Set() : undefined,
          runOptions: logSeverityLevel === undefined ? {} : { logSeverityLevel },
        });
        return { graph, inputs, outputs };
      } catch (error) {
        await session.release();
        throw error;
      }
    } catch (error) {
      throw loadError(error);
    }
  }

  async run(graph: number, feeds: NamedTensors, options: BackendRunOptions): Promise<Record<string, Tensor>> {
    const { session, runOptions, resident, stays, kept, bound } = this.#find(graph);
    try {
      const fed = Object.fromEntries(
        Object.entries(feeds).map(([name, value]) => [name, toOrt(this.#ort.Tensor, value)]),
      );
      for (const [input, value] of kept) fed[input] ??= value;
      const plain = options.fetches.filter((name) => !stays.has(name));
      for (const name of plain) bound?.add(name);
      const fetches = [...(bound ?? plain), ...stays];
      const given = await session.run(fed, fetches, runOptions);
      for (const [input, output] of resident) {
        kept.get(input)?.dispose();
        kept.set(input, given[output]!);
      }
      const answer: Record<string, Tensor> = {};
      for (const name of options.fetches) {
        const value = given[name] as OrtTensor;
        answer[name] = stays.has(name) ? await this.#copy(name, value) : fromOrt(name, value);
      }
      return answer;
    } catch (error) {
      throw runError(error, feeds);
    }
  }

  async release(graph: number): Promise<void> {
    const { session, kept } = this.#find(graph);
    this.#held.delete(graph);
    for (const value of kept.values()) value.dispose();
    await session.release();
  }

  async close(): Promise<void> {
    for (const graph of [...this.#held.keys()]) await this.release(graph);
    for (const fetcher of this.#fetchers.values()) {
      await fetcher.then(
        (session) => session.release(),
        () => {},
      );
    }
    this.#fetchers.clear();
  }

  /**
   * A copy of a value that stays. One on the device is taken through a session of its own: the session that made it would
   * have to bring it here in every later run too (see {@link Held.bound}), and onnxruntime-node 1.30 aborts in getData().
   */
  async #copy(name: string, value: OrtTensor): Promise<Tensor> {
    if (value.location === 'gpu-buffer') {
      let fetcher = this.#fetchers.get(value.type);
      if (fetcher === undefined) {
        const code = ORT_TYPES.indexOf(value.type);
        fetcher = this.#ort.InferenceSession.create(unaryModel('Identity', code), this.#settings(FETCHER));
        this.#fetchers.set(value.type, fetcher);
      }
      const { y } = await (await fetcher).run({ x: value });
      return fromOrt(name, y as OrtTensor);
    }
    const { dtype, shape, data } = fromOrt(name, value);
    return tensor(dtype, shape, data.slice() as Tensor['data']);
  }

  #find(graph: number): Held {
    const held = this.#held.get(graph);
    if (held === undefined) throw new ScrimError('ENGINE_FAILED', 'the session is closed');
    return held;
  }
}

/** Element types by their number in ONNX. */
const ORT_TYPES = ' float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64'.split(' ');

const FETCHER: GraphOptions = { threads: 1, optimize: 'none', resident: {} };

/** On WebGPU the resident outputs stay in buffers of the device; elsewhere all memory is the processor's anyway. */
function isBound(settings: InferenceSession.SessionOptions, resident: Readonly<Record<string, string>>): boolean {
  const providers = (settings.executionProviders ?? []).map((p) => (typeof p === 'string' ? p : p.name));
  return Object.keys(resident).length > 0 && providers.includes('webgpu');
}

function outputLocations(
  settings: InferenceSession.SessionOptions,
  resident: Readonly<Record<string, string>>,
): Pick<InferenceSession.SessionOptions, 'preferredOutputLocation'> {
  if (!isBound(settings, resident)) return {};
  const stays = Object.values(resident);
  return { preferredOutputLocation: Object.fromEntries(stays.map((name) => [name, 'gpu-buffer' as const])) };
}
