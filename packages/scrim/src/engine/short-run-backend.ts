/**
 * A {@link Backend} on another thread that runs here what is too short for the way there.
 *
 * Handing a run to a thread and back costs more than a graph of a few small operators takes. Small graphs are therefore
 * loaded on both sides. Runs with small inputs go to the thread until enough of that shape were short there, then they
 * are made here, where they block the event loop for less time than the messages would have; if some take long they go
 * back, and stay away the longer the more often that happened. Both sides compute the same. A caller must not be able to
 * make a run here long by what its tensors hold: graphs whose work depends on values are the owner's to leave out.
 */
import type { Tensor } from '../tensor.js';
import type { Backend, BackendRunOptions, GraphOptions, LoadedGraph } from './backend.js';
import type { NamedTensors } from './engine.js';

/** Larger models are not loaded twice. */
const MAX_MODEL_BYTES = 2 ** 20;
/** Larger inputs are not expected to be quick. */
const MAX_INPUT_BYTES = 2 ** 14;
/** Shapes of inputs that are remembered for a graph; others run there. */
const MAX_SHAPES = 64;
/** Runs that take no longer there are worth trying here: they will not block longer. */
const SOON_MS = 0.5;
/** What runs here may take before they go back to the thread. */
const SHORT_MS = 0.25;
const RUNS_BEFORE = 16;
const LONGEST_ABSENCE = 2 ** 16;
/** A long run weighs as much as this many short ones: a busy machine makes some runs long. */
const LONG_WEIGHT = 4;
/** One that blocks for longer than this weighs more. */
const BLOCKING_MS = 5;
const MAX_DEBT = 3 * LONG_WEIGHT;

/** What is known of the runs of one graph with inputs of one shape. */
interface RunRecord {
  /** Quick runs that are still to be seen before the next run here. */
  wait: number;
  /** What `wait` is set to when runs here took long. */
  absence: number;
  /** Long runs here that short ones have not made up for. */
  debt: number;
}

interface Twin {
  /** The graph on this thread. */
  readonly here: number;
  readonly records: Map<string, RunRecord>;
}

/** What {@link createShortRunBackend} needs besides the two sides. */
export interface ShortRunOptions {
  /** Whether the work of a model depends on the shapes of its inputs alone. */
  readonly isSteady: (model: Uint8Array) => boolean;
  /**
   * Calls its argument right before the native part of a run that is asked for next starts (setImmediate, where the
   * binding uses it), so that the wait for the event loop does not count.
   */
  readonly mark: (start: () => void) => void;
  readonly now?: () => number;
}

/** Makes the backend over `there`, with `here` for the short runs; both are closed with it. */
export function createShortRunBackend(there: Backend, here: Backend, options: ShortRunOptions): Backend {
  const { isSteady, mark, now = () => performance.now() } = options;
  const twins = new Map<number, Twin>();
  // Runs keep their order: none starts on one side while another is under way on the other.
  let underWayThere = 0;
  let underWayHere = 0;
  let lastHere: Promise<unknown> = Promise.resolve();

  const runThere = async (
    record: RunRecord | undefined,
    graph: number,
    feeds: NamedTensors,
    runOptions: BackendRunOptions,
  ): Promise<Record<string, Tensor>> => {
    const onTime = (ms: number): void => {
      if (record) record.wait += ms <= SOON_MS ? -1 : LONG_WEIGHT;
    };
    underWayThere++;
    try {
      if (underWayHere > 0) await lastHere;
      return await there.run(graph, feeds, record ? { ...runOptions, onTime } : runOptions);
    } finally {
      underWayThere--;
    }
  };

  const runHere = async (
    record: RunRecord,
    graph: number,
    feeds: NamedTensors,
    runOptions: BackendRunOptions,
  ): Promise<Record<string, Tensor>> => {
    let started = now();
    mark(() => {
      started = now();
    });
    const run = here.run(graph, feeds, runOptions);
    underWayHere++;
    lastHere = run.catch(() => {});
    const outputs = await run.finally(() => {
      underWayHere--;
    });
    const took = now() - started;
    if (took <= SHORT_MS) record.debt = Math.max(0, record.debt - 1);
    else record.debt += took <= BLOCKING_MS ? LONG_WEIGHT : MAX_DEBT / 2;
    if (record.debt >= MAX_DEBT) {
      record.debt = 0;
      record.wait = record.absence;
      record.absence = Math.min(2 * record.absence, LONGEST_ABSENCE);
    }
    return outputs;
  };

  return {
    load: async (model: Uint8Array, graphOptions: GraphOptions): Promise<LoadedGraph> => {
      const loaded = await there.load(model, graphOptions);
      // State that stays with the graph would part in two.
      if (model.length > MAX_MODEL_BYTES || Object.keys(graphOptions.resident).length > 0) return loaded;
      if (!isSteady(model)) return loaded;
      // Where it can't be loaded twice it is not.
      const twin = await here.load(model, graphOptions).catch(() => undefined);
      if (twin) twins.set(loaded.graph, { here: twin.graph, records: new Map() });
      return loaded;
    },
    run: (graph, feeds, runOptions) => {
      const twin = twins.get(graph);
      const record = twin && recordOf(twin.records, feeds);
      return twin && record && record.wait <= 0 && underWayThere === 0
        ? runHere(record, twin.here, feeds, runOptions)
        : runThere(record, graph, feeds, runOptions);
    },
    release: async (graph) => {
      const twin = twins.get(graph);
      twins.delete(graph);
      await there.release(graph);
      if (twin) await here.release(twin.here);
    },
    close: async () => {
      twins.clear();
      await there.close();
      await here.close();
    },
  };
}

/** The record of inputs of these shapes; undefined for large ones, for text, and where too many shapes are known. */
function recordOf(records: Map<string, RunRecord>, feeds: NamedTensors): RunRecord | undefined {
  let size = 0;
  let key = '';
  for (const name in feeds) {
    const { data, shape } = feeds[name] as Tensor;
    if (Array.isArray(data)) return undefined;
    size += data.byteLength;
    key += `${name}:${shape.join('x')};`;
  }
  if (size > MAX_INPUT_BYTES) return undefined;
  let record = records.get(key);
  if (!record) {
    if (records.size >= MAX_SHAPES) return undefined;
    record = { wait: RUNS_BEFORE, absence: RUNS_BEFORE, debt: 0 };
    records.set(key, record);
  }
  return record;
}
