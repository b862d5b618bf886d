/**
 * A {@link Backend} on another thread that runs here what is too short for the way there.
 *
 * Handing a run to a thread and back costs more than a graph of a few small operators takes. Small graphs are therefore
 * loaded on both sides. Runs with small inputs go to the thread until enough were short there, then they are made here,
 * where they block the event loop for less time than the messages would have; if some take long they go back, and stay
 * away the longer the more often that happened. Both sides compute the same.
 */
import type { Tensor } from '../tensor.js';
import type { Backend, BackendRunOptions, GraphOptions, LoadedGraph } from './backend.js';
import type { NamedTensors } from './engine.js';

/** Larger models are not loaded twice. */
const MAX_MODEL_BYTES = 2 ** 20;
/** Larger inputs are not expected to be quick. */
const MAX_INPUT_BYTES = 2 ** 14;
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

interface Twin {
  /** The graph on this thread. */
  readonly here: number;
  /** Quick runs that are still to be seen before the next run here. */
  wait: number;
  /** What `wait` is set to when runs here took long. */
  absence: number;
  /** Long runs here that short ones have not made up for. */
  debt: number;
}

/**
 * Makes the backend over `there`, with `here` for the short runs; both are closed with it.
 * @param mark Calls its argument right before the native part of a run that is asked for next starts (setImmediate,
 * where the binding uses it), so that the wait for the event loop does not count.
 */
export function createShortRunBackend(
  there: Backend,
  here: Backend,
  mark: (start: () => void) => void,
  now: () => number = () => performance.now(),
): Backend {
  const twins = new Map<number, Twin>();

  const runThere = (
    twin: Twin | undefined,
    graph: number,
    feeds: NamedTensors,
    options: BackendRunOptions,
  ): Promise<Record<string, Tensor>> => {
    if (!twin) return there.run(graph, feeds, options);
    const onTime = (ms: number): void => {
      twin.wait += ms <= SOON_MS ? -1 : LONG_WEIGHT;
    };
    return there.run(graph, feeds, { ...options, onTime });
  };

  const runHere = async (
    twin: Twin,
    feeds: NamedTensors,
    options: BackendRunOptions,
  ): Promise<Record<string, Tensor>> => {
    let started = now();
    mark(() => {
      started = now();
    });
    const outputs = await here.run(twin.here, feeds, options);
    const took = now() - started;
    if (took <= SHORT_MS) twin.debt = Math.max(0, twin.debt - 1);
    else twin.debt += took <= BLOCKING_MS ? LONG_WEIGHT : MAX_DEBT / 2;
    if (twin.debt >= MAX_DEBT) {
      twin.debt = 0;
      twin.wait = twin.absence;
      twin.absence = Math.min(2 * twin.absence, LONGEST_ABSENCE);
    }
    return outputs;
  };

  return {
    load: async (model: Uint8Array, options: GraphOptions): Promise<LoadedGraph> => {
      const loaded = await there.load(model, options);
      // State that stays with the graph would part in two.
      if (model.length > MAX_MODEL_BYTES || Object.keys(options.resident).length > 0) return loaded;
      // Where it can't be loaded twice it is not.
      const twin = await here.load(model, options).catch(() => undefined);
      if (twin) twins.set(loaded.graph, { here: twin.graph, wait: RUNS_BEFORE, absence: RUNS_BEFORE, debt: 0 });
      return loaded;
    },
    run: (graph, feeds, options) => {
      const twin = isSmall(feeds) ? twins.get(graph) : undefined;
      return twin && twin.wait <= 0 ? runHere(twin, feeds, options) : runThere(twin, graph, feeds, options);
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

function isSmall(feeds: NamedTensors): boolean {
  let size = 0;
  for (const name in feeds) {
    const { data } = feeds[name] as Tensor;
    if (Array.isArray(data)) return false;
    size += data.byteLength;
  }
  return size <= MAX_INPUT_BYTES;
}
