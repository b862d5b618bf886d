import { afterEach, describe, expect, it } from 'vitest';
import { DEFAULT_SETTINGS, startOrtRuntime } from '../node/ort-runtime.js';
import { decodeModel, Graph, isSteady } from '../onnx/index.js';
import { float32, int64, type Tensor } from '../tensor.js';
import type { Backend, BackendRunOptions } from './backend.js';
import { createShortRunBackend } from './short-run-backend.js';

/** y = x + 1, for rows of any length. */
function addOne(): Uint8Array {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n']);
  graph.add('Add', ['x', graph.addInitializer('one', float32([1], [1]))], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n']);
  return graph.encode();
}

/** The real runtime on this thread, which says that its runs took `time.ms`, and counts them. */
async function counted(time: { ms: number }): Promise<{ backend: Backend; runs: () => number; held: () => number }> {
  const { backend } = await startOrtRuntime({
    ...DEFAULT_SETTINGS,
    threads: 1,
    thread: 'inline',
  });
  let runs = 0;
  let held = 0;
  const run = async (graph: number, feeds: Record<string, Tensor>, options: BackendRunOptions) => {
    runs++;
    const outputs = await backend.run(graph, feeds, options);
    options.onTime?.(time.ms);
    return outputs;
  };
  const own: Backend = {
    load: (model, options) => {
      held++;
      return backend.load(model, options);
    },
    run,
    release: (graph) => {
      held--;
      return backend.release(graph);
    },
    close: () => backend.close(),
  };
  return { backend: own, runs: () => runs, held: () => held };
}

const closing: Backend[] = [];
afterEach(async () => {
  for (const backend of closing.splice(0)) await backend.close();
});

async function both() {
  const time = { ms: 0.01 };
  const clock = { ms: 0, step: 0 };
  const [there, here] = [await counted(time), await counted(time)];
  const backend = createShortRunBackend(there.backend, here.backend, {
    isSteady: (model) => isSteady(decodeModel(model)),
    mark: (start) => start(),
    now: () => {
      clock.ms += clock.step;
      return clock.ms;
    },
  });
  closing.push(backend);
  const { graph } = await backend.load(addOne(), { threads: 1, optimize: 'all', resident: {} });
  const go = async (size = 2): Promise<number> => {
    const feeds = { x: float32([size], new Float32Array(size).fill(3)) };
    const { y } = await backend.run(graph, feeds, { fetches: ['y'], transfer: false });
    return (y as Tensor<'float32'>).data[size - 1] as number;
  };
  return { there, here, time, clock, graph, backend, go };
}

describe('a backend for short runs', () => {
  it('runs here once enough runs were short there, with the same answers', async () => {
    const { there, here, go } = await both();
    for (let i = 0; i < 30; i++) expect(await go()).toBe(4);
    expect([there.runs(), here.runs()]).toEqual([16, 14]);
  });

  it('leaves long runs, large inputs, large models and graphs with state there', async () => {
    const { there, here, time, go, backend } = await both();
    time.ms = 3;
    for (let i = 0; i < 40; i++) await go();
    time.ms = 0.01;
    for (let i = 0; i < 40; i++) await go(2 ** 13);
    expect(here.runs()).toBe(0);
    expect(there.runs()).toBe(80);
    await backend.load(addOne(), { threads: 1, optimize: 'all', resident: { x: 'y' } });
    expect([there.held(), here.held()]).toEqual([2, 1]);
  });

  it('trusts no other shape for one that was short, and no graph whose work depends on values', async () => {
    const { there, here, go, backend } = await both();
    for (let i = 0; i < 20; i++) await go(2);
    expect(here.runs()).toBe(4);
    for (let i = 0; i < 16; i++) await go(3);
    expect(here.runs()).toBe(4);
    await go(3);
    expect(here.runs()).toBe(5);
    // A caller that sends ever new shapes gets none of them run here, and makes nothing grow.
    for (let size = 10; size < 110; size++) await go(size);
    expect(here.runs()).toBe(5);
    const graph = Graph.create({ opset: 17 });
    graph.addInput('n', 'int64', []);
    const [zero, one] = [0n, 1n].map((value) => graph.addInitializer(`c${value}`, int64([value], [])));
    graph.add('Range', [zero!, 'n', one!], {}, { outputs: ['y'] });
    graph.addOutput('y', 'int64', ['m']);
    const held = here.held();
    await backend.load(graph.encode(), { threads: 1, optimize: 'all', resident: {} });
    expect([there.held(), here.held()]).toEqual([2, held]);
  });

  it('goes back when runs here take long, and stays away longer each time', async () => {
    const { there, here, clock, go } = await both();
    clock.step = 1;
    for (let i = 0; i < 200; i++) await go();
    // Three long runs here send it back: after 16 runs there, then 16, 32, 64 and so on.
    expect(here.runs()).toBe(3 * 4);
    expect(there.runs()).toBe(200 - 12);
    clock.step = 0;
    for (let i = 0; i < 200; i++) await go();
    expect(here.runs()).toBeGreaterThan(100);
  });

  it('releases a graph on both sides', async () => {
    const { there, here, graph, backend } = await both();
    await backend.release(graph);
    expect([there.held(), here.held()]).toEqual([0, 0]);
  });
});
