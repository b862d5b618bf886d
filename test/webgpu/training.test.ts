/**
 * What trains on a GPU, through onnxruntime's WebGPU provider, against the same on the processor: gradients, a bottleneck
 * fit with an adversary that is interrupted and goes on, and an attacker's decoder. How it is run: run.mjs.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collectAttackData } from '../../packages/scrim/src/audit/attack.js';
import { releaseMechanism } from '../../packages/scrim/src/audit/attack-releases.js';
import { trainDecoder } from '../../packages/scrim/src/audit/decoder.js';
import { addGradients } from '../../packages/scrim/src/autodiff/index.js';
import type { Engine } from '../../packages/scrim/src/engine/engine.js';
import { createNodeCrypto, createNodeEngine } from '../../packages/scrim/src/node/index.js';
import { cacheActivations } from '../../packages/scrim/src/noise/fit/activation-cache.js';
import {
  type BottleneckCheckpoint,
  type BottleneckHooks,
  fitBottleneck,
} from '../../packages/scrim/src/noise/fit/bottleneck-fit.js';
import { Graph } from '../../packages/scrim/src/onnx/index.js';
import type { Tensor } from '../../packages/scrim/src/tensor.js';
import { randomTensor } from '../random-tensor.js';
import { createSmallService, smallSamples } from '../small-service.js';

let cpu: Engine;
let gpu: Engine;
beforeAll(async () => {
  cpu = await createNodeEngine({ threads: 1, thread: 'inline' });
  gpu = await createNodeEngine({ executionProvider: 'webgpu', threads: 1, thread: 'inline', buffers: 'exact' });
});
afterAll(async () => {
  // One may not have started.
  await Promise.all([cpu, gpu].map((engine?: Engine) => engine?.close()));
});

/** The largest difference, as a share of the largest value. */
function difference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [most, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    most = Math.max(most, Math.abs((found[i] as number) - (expected[i] as number)));
    largest = Math.max(largest, Math.abs(expected[i] as number));
  }
  return found.length === expected.length ? most / largest : Number.POSITIVE_INFINITY;
}

describe('gradients', () => {
  const size = [2, 6, 9, 7] as const;
  type Weights = (name: string, shape: readonly number[]) => string;
  const networks: Record<string, (graph: Graph, weight: Weights) => string> = {
    'convolutions with stride, dilation, many and few filters': (graph, weight) => {
      const conv = (x: string, name: string, shape: readonly number[], attributes: object): string =>
        graph.add('Relu', [
          graph.add('Conv', [x, weight(name, shape), weight(`${name}b`, [shape[0] as number])], attributes),
        ]);
      const wide = conv('x', 'w1', [17, 6, 3, 3], { pads: [1, 1, 1, 1] });
      const strided = conv(wide, 'w2', [8, 17, 5, 3], { pads: [2, 1, 2, 1], strides: [2, 1] });
      const narrow = conv(strided, 'w3', [1, 8, 3, 3], { pads: [2, 2, 2, 2], dilations: [2, 2] });
      return graph.add('ConvTranspose', [narrow, weight('w4', [1, 9, 2, 2])], { strides: [2, 2] });
    },
    'normalisation, pooling, shuffles and a softmax': (graph, weight) => {
      const wide = graph.add('Conv', ['x', weight('w1', [8, 6, 1, 1])]);
      const shuffled = graph.add('DepthToSpace', [wide], { blocksize: 2, mode: 'CRD' });
      const pooled = graph.add('MaxPool', [shuffled], { kernel_shape: [2, 2], strides: [2, 2] });
      const scaled = graph.add('Mul', [pooled, weight('w2', [1, 2, 1, 1])]);
      return graph.add('Softmax', [graph.add('Add', [scaled, weight('w3', [2, 1, 1])])], { axis: 1 });
    },
  };

  it.each(Object.keys(networks))('of %s are those of the processor', async (name) => {
    const compute = async (engine: Engine, target: 'cpu' | 'webgpu'): Promise<Float32Array[]> => {
      const graph = Graph.create({ opset: 17 });
      graph.addInput('x', 'float32', size);
      const weights: string[] = [];
      const weight: Weights = (label, shape) => {
        const fanIn = shape.slice(1).reduce((product, n) => product * n, 1);
        const added = graph.addInitializer(label, randomTensor(shape, label, 1 / Math.sqrt(fanIn)));
        weights.push(added);
        return added;
      };
      const y = (networks[name] as (typeof networks)[string])(graph, weight);
      const loss = graph.add('ReduceMean', [graph.add('Mul', [y, graph.add('Tanh', [y])])], { keepdims: 0 });
      const gradients = [...addGradients(graph, { loss, wrt: ['x', ...weights], target }).values()];
      graph.setOutputs(gradients);
      const session = await engine.load(graph.encode());
      const answer = await session.run({ x: randomTensor(size, 'x') });
      await session.close();
      return gradients.map((gradient) => answer[gradient]?.data as Float32Array);
    };
    const [found, expected] = [await compute(gpu, 'webgpu'), await compute(cpu, 'cpu')];
    for (const [i, values] of expected.entries())
      expect(difference(found[i] as Float32Array, values)).toBeLessThan(1e-4);
  });
});

describe('a bottleneck fit against an adversary', () => {
  const SETTINGS = {
    alpha: 0.5,
    encoder: 'mlp',
    channels: 2,
    batchSize: 4,
    pushSteps: 8,
    recoverSteps: 4,
    adversary: 1,
  } as const;

  async function run(engine: Engine, hooks: BottleneckHooks = {}) {
    const head = Graph.create({ opset: 17 });
    head.addInput('x', 'float32', [1, 6, 8, 8]);
    head.add('Relu', ['x'], {}, { outputs: ['cut'] });
    head.addOutput('cut', 'float32', [1, 6, 8, 8]);
    const tail = Graph.create({ opset: 17 });
    tail.addInput('cut', 'float32', ['N', 6, 8, 8]);
    const weight = (name: string, shape: readonly number[]) =>
      tail.addInitializer(name, randomTensor(shape, name, 0.3));
    const conv = tail.add('Conv', ['cut', weight('w2', [5, 6, 3, 3])], { pads: [1, 1, 1, 1] });
    const pooled = tail.add('Flatten', [tail.add('GlobalAveragePool', [tail.add('Relu', [conv])])]);
    tail.add('Softmax', [tail.add('Gemm', [pooled, weight('w3', [5, 3])])], { axis: -1 }, { outputs: ['y'] });
    tail.addOutput('y', 'float32', ['N', 3]);
    const [headSession, tailSession] = [await cpu.load(head.encode()), await cpu.load(tail.encode())];
    async function* inputs(): AsyncGenerator<Tensor> {
      for (let i = 0; i < 12; i++) yield randomTensor([1, 6, 8, 8], `input ${i}`);
    }
    const cache = await cacheActivations(inputs(), { head: headSession, tail: tailSession, input: 'x', cut: 'cut' });
    await Promise.all([headSession.close(), tailSession.close()]);
    const values = cache.activations.map((_, i) => randomTensor([3, 16, 16], `picture ${i}`, 0.2).data);
    return fitBottleneck({
      engine,
      tail,
      cache,
      task: { kind: 'classification', output: 'y' },
      pictures: { size: 16, values },
      settings: SETTINGS,
      seed: 's',
      hooks,
    });
  }

  it('takes the steps of the processor, and goes on from a checkpoint', async () => {
    const [expected, found]: [number[], number[]] = [[], []];
    const whole = await run(cpu, { onProgress: ({ loss }) => expected.push(loss) });
    const stop = new AbortController();
    let kept: BottleneckCheckpoint | undefined;
    const interrupted = run(gpu, {
      signal: stop.signal,
      checkpointEvery: 3,
      onProgress: ({ step, loss }) => {
        found.push(loss);
        if (step === 4) stop.abort();
      },
      onCheckpoint: (checkpoint) => {
        kept = structuredClone(checkpoint);
      },
    });
    await expect(interrupted).rejects.toMatchObject({ code: 'CANCELLED' });
    const resumed = await run(gpu, {
      resume: kept as BottleneckCheckpoint,
      onProgress: ({ loss }) => found.push(loss),
    });
    expect(found).toHaveLength(12);
    expect(difference(found, expected)).toBeLessThan(1e-3);
    expect(difference(resumed.parameters.sigma, whole.parameters.sigma)).toBeLessThan(1e-3);
    for (const [name, { data }] of whole.tailWeights) {
      expect(difference(resumed.tailWeights.get(name)?.data ?? [], data)).toBeLessThan(1e-2);
    }
  });
});

describe("an attacker's decoder", () => {
  it('learns what it learns on the processor, with looks at held-out photos', async () => {
    const crypto = createNodeCrypto();
    const target = await createSmallService(cpu, 0.02);
    const train = await collectAttackData(target, smallSamples(24, 'train'));
    const mechanism = releaseMechanism(target, train.shape, crypto);
    const settings = { steps: 12, batchSize: 4, trunkLayers: 1, trunkWidth: 8, stageWidths: [8], checkpoints: 2 };
    const decoders = [];
    for (const engine of [cpu, gpu]) {
      decoders.push(await trainDecoder({ engine, remote: target.remote, mechanism }, train, settings, 'seed'));
    }
    const release = train.records[0]?.activation as Float32Array;
    const [expected, found] = await Promise.all(
      decoders.map(async (decoder) => (await decoder.rebuild([release]))[0] as Float32Array),
    );
    expect(difference(found as Float32Array, expected as Float32Array)).toBeLessThan(0.02);
    await Promise.all([...decoders.map((decoder) => decoder.close()), target.close()]);
  });
});
