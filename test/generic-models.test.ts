/**
 * Any model goes the whole way: written, read, cut at every place, fitted for a few steps, released and answered; or it is
 * refused with a code and a reason. Random small networks of vectors, sequences and pictures.
 */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { Engine } from '../packages/scrim/src/engine/engine.js';
import { ScrimError } from '../packages/scrim/src/errors.js';
import { createNodeCrypto } from '../packages/scrim/src/node/node-crypto.js';
import { createNodeEngine } from '../packages/scrim/src/node/ort-engine.js';
import {
  cacheActivations,
  createDiagonalFitter,
  createDiagonalTransform,
  createFitRandom,
  createReplayNoiser,
  releaseToTensor,
} from '../packages/scrim/src/noise/index.js';
import { Graph } from '../packages/scrim/src/onnx/index.js';
import { cutInPlanes, listCuts, splitAt } from '../packages/scrim/src/split/index.js';
import { float32, int64, type Tensor, tensor } from '../packages/scrim/src/tensor.js';
import { runOnnx, sampleTensor } from './run-onnx.js';
import { Random } from './vectors/autodiff/gradient-check.js';

/** Makes one layer of a random network; returns what it makes and the shape, batch left out. */
type Layer = (graph: Graph, x: string, shape: number[], random: Random) => readonly [string, number[]];

let seed = 0;
function weight(graph: Graph, shape: number[]): string {
  const value = sampleTensor('float32', shape, ++seed) as Tensor<'float32'>;
  return graph.addInitializer(
    'w',
    float32(
      shape,
      value.data.map((v) => v / 4),
    ),
  );
}

const elementwise =
  (opType: string, since = 11): Layer =>
  (graph, x, shape) => [graph.opset >= since ? graph.add(opType, [x]) : graph.add('Tanh', [x]), shape];

const ANY: readonly Layer[] = [
  elementwise('Relu'),
  elementwise('Tanh'),
  elementwise('Sigmoid'),
  elementwise('Softplus'),
  elementwise('Erf'),
  elementwise('HardSwish', 14),
  (graph, x, shape) => [graph.add('LeakyRelu', [x]), shape],
  (graph, x, shape) => [graph.add('Add', [x, weight(graph, shape)]), shape],
  (graph, x, shape) => [graph.add('Add', [x, graph.add('Tanh', [x])]), shape],
  (graph, x, shape) => [graph.add('Clip', [x, weight(graph, []), graph.add('Abs', [weight(graph, [])])]), shape],
  // Half precision on the way: no gradient passes.
  (graph, x, shape) => [graph.add('Cast', [graph.add('Cast', [x], { to: 10 })], { to: 1 }), shape],
  (graph, x, shape) => [
    graph.opset < 12 ? x : graph.add('Einsum', [x, weight(graph, [])], { equation: '...,->...' }),
    shape,
  ],
];

const VECTOR: readonly Layer[] = [
  (graph, x, [c = 1], random) => {
    const out = random.int(2, 5);
    return [graph.add('MatMul', [x, weight(graph, [c, out])]), [out]];
  },
  (graph, x, [c = 1], random) => {
    const out = random.int(2, 5);
    return [graph.add('Gemm', [x, weight(graph, [out, c]), weight(graph, [out])], { transB: 1 }), [out]];
  },
  (graph, x, shape) => [graph.add('Concat', [x, graph.add('Neg', [x])], { axis: 1 }), [2 * (shape[0] ?? 1)]],
];

const SEQUENCE: readonly Layer[] = [
  (graph, x, [c = 1, t = 1], random) => {
    const out = random.int(2, 4);
    return [graph.add('Conv', [x, weight(graph, [out, c, 3])], { pads: [1, 1] }), [out, t]];
  },
  (graph, x, [c = 1, t = 1]) => [graph.add('Transpose', [x], { perm: [0, 2, 1] }), [t, c]],
  (graph, x, [c = 1, t = 1], random) => {
    const hidden = random.int(2, 3);
    const steps = graph.add('Transpose', [x], { perm: [2, 0, 1] });
    const [states = ''] = graph.addMany(
      'GRU',
      [steps, weight(graph, [1, 3 * hidden, c]), weight(graph, [1, 3 * hidden, hidden])],
      { hidden_size: hidden },
    );
    // [T, 1, N, H] -> [N, H, T, 1] -> [N, H, T]
    const turned = graph.add('Transpose', [states], { perm: [2, 3, 0, 1] });
    return [graph.add('Reshape', [turned, graph.addInitializer('s', int64([0, hidden, t]))]), [hidden, t]];
  },
];

const PICTURE: readonly Layer[] = [
  (graph, x, [c = 1, h = 1, w = 1], random) => {
    const out = random.int(2, 4);
    return [graph.add('Conv', [x, weight(graph, [out, c, 3, 3])], { pads: [1, 1, 1, 1] }), [out, h, w]];
  },
  (graph, x, [c = 1, h = 1, w = 1]) => [
    graph.add('MaxPool', [x], { kernel_shape: [2, 2], pads: [0, 0, 1, 1] }),
    [c, h, w],
  ],
  (graph, x, [c = 1]) => [graph.add('GlobalAveragePool', [x]), [c, 1, 1]],
  (graph, x, shape) => [graph.add('LRN', [x], { size: 3 }), shape],
  (graph, x, shape) => [graph.add('PRelu', [x, weight(graph, [shape[0] ?? 1, 1, 1])]), shape],
];

interface Made {
  readonly graph: Graph;
  readonly shape: readonly number[];
}

function makeModel(random: Random): Made {
  seed = random.int(0, 1e6);
  const graph = Graph.create({ opset: random.int(11, 22) });
  const rank = random.int(1, 3);
  const shape = Array.from({ length: rank }, () => random.int(2, 4));
  const batch = random.next() < 0.2 ? 1 : random.next() < 0.5 ? 'N' : '';
  graph.addInput('x', 'float32', [batch, ...shape]);
  const own = [VECTOR, SEQUENCE, PICTURE][rank - 1] as readonly Layer[];
  let [value, now] = ['x', [...shape]];
  for (let layer = random.int(2, 5); layer > 0; layer--) {
    [value, now] = random.pick(random.next() < 0.5 ? own : ANY)(graph, value, now, random) as [string, number[]];
  }
  if (random.next() < 0.3) value = graph.add('Flatten', [value], { axis: 1 });
  const end = random.int(0, 2);
  if (end === 1) value = graph.add('Softmax', [value], { axis: 1 });
  if (end === 2) value = graph.add('Sigmoid', [value]);
  graph.add('Identity', [value], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', undefined);
  if (random.next() < 0.2) graph.addOutput(graph.add('ArgMax', [value], { axis: 1 }), 'int64', undefined);
  return { graph, shape };
}

const REFUSALS = new Set(['UNSUPPORTED', 'INVALID_ARGUMENT', 'INVALID_MODEL']);
let engine: Engine | undefined;
afterAll(() => engine?.close());

/** Goes the whole way. @returns what it came to, for the count of what is refused */
async function goAllTheWay({ graph, shape }: Made): Promise<string> {
  engine ??= await createNodeEngine({ thread: 'inline', threads: 1 });
  const again = Graph.decode(graph.encode());
  const x = sampleTensor('float32', [1, ...shape], 3) as Tensor<'float32'>;
  const expected = await runOnnx(again.encode(), { x });
  const cuts = listCuts(again, { maxTensors: 2 }).filter(({ isFloat }) => isFloat);
  const single = cuts.filter(({ tensors }) => tensors.length === 1);
  let outcome = 'no cut';
  for (const cut of single) {
    const planar = cutInPlanes(again, cut.name);
    const { head, tail } = splitAt(planar.graph, [planar.cut]);
    const activation = await runOnnx(head.encode(), { x });
    const found = await runOnnx(tail.encode(), activation);
    for (const [name, { data }] of Object.entries(expected)) {
      expect(Array.from(found[name]?.data as Float32Array)).toEqual(Array.from(data as Float32Array));
    }
    if (outcome !== 'no cut') continue;
    const [headSession, tailSession] = [await engine.load(head.encode()), await engine.load(tail.encode())];
    async function* inputs(): AsyncGenerator<Tensor> {
      for (let i = 0; i < 6; i++) yield sampleTensor('float32', [1, ...shape], 10 + i);
    }
    const cache = await cacheActivations(inputs(), {
      head: headSession,
      tail: tailSession,
      input: 'x',
      cut: planar.cut,
    });
    const batchSize = typeof tail.declaredType(planar.cut)?.shape?.[0] === 'number' ? 1 : 3;
    const task =
      seed % 2 === 0
        ? { kind: 'classification' as const, output: 'y' }
        : { kind: 'regression' as const, outputs: ['y'] };
    const fitter = await createDiagonalFitter({ engine, tail, task, cache, batchSize });
    const fit = await fitter.fit({ alpha: 0.5, steps: 3, batchSize, suppress: false }, createFitRandom('generic'));
    await fitter.close();
    const noiser = createReplayNoiser({
      transform: createDiagonalTransform(fit.parameters),
      bundleHash: '0'.repeat(64),
      alpha: 0.5,
      crypto: createNodeCrypto(),
      seedKey: new Uint8Array(32),
    });
    const release = await noiser.release(tensor('float32', [1, ...cache.shape], cache.activations[0] as Float32Array));
    const answer = await tailSession.run({ [planar.cut]: releaseToTensor(release, fit.parameters) });
    expect(answer.y?.shape).toEqual(expected.y?.shape);
    noiser.close();
    outcome = 'fitted';
  }
  return outcome;
}

describe('models of any kind', () => {
  it('go the whole way, or are refused with a reason', async () => {
    const outcomes: Record<string, number> = {};
    await fc.assert(
      fc.asyncProperty(fc.noShrink(fc.integer({ min: 0, max: 2 ** 31 })), async (start) => {
        const random = new Random(start);
        const made = makeModel(random);
        const outcome = await goAllTheWay(made).catch((error: unknown) => {
          if (!(error instanceof ScrimError) || !REFUSALS.has(error.code)) throw error;
          expect(error.message.length).toBeGreaterThan(20);
          return error.code;
        });
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      }),
      { numRuns: 60, seed: 20_240_601 },
    );
    // Most of these networks have a gradient; half precision and Einsum have none.
    expect(outcomes.fitted).toBeGreaterThan(30);
  }, 60_000);
});
