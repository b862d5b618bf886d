/** Bottleneck fits of small models: what is learned, resumed, bounded, packed and refused. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { randomTensor } from '../../../../../test/random-tensor.js';
import { encodeBundle, loadBundle } from '../../bundle/bundle.js';
import type { Engine, Session } from '../../engine/engine.js';
import { createNodeCrypto } from '../../node/node-crypto.js';
import { createNodeEngine } from '../../node/ort-engine.js';
import { Graph } from '../../onnx/index.js';
import { splitAt } from '../../split/index.js';
import type { Tensor } from '../../tensor.js';
import { type ActivationCache, cacheActivations } from './activation-cache.js';
import {
  type BottleneckCheckpoint,
  type BottleneckFitSettings,
  type BottleneckHooks,
  bottleneckWeight,
  fitBottleneck,
  trainableWeights,
} from './bottleneck-fit.js';

let engine: Engine;
beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1, thread: 'inline' });
});
afterAll(() => engine.close());

/** A classifier of pictures, 12×12 in two channels: conv, cut, conv, mean, three classes. */
function pictureModel(): Graph {
  const graph = Graph.create({ name: 'classifier' });
  graph.addInput('x', 'float32', ['N', 2, 12, 12]);
  const weight = (name: string, shape: readonly number[], scale: number) =>
    graph.addInitializer(name, randomTensor(shape, name, scale));
  const attributes = { kernel_shape: [3, 3], pads: [1, 1, 1, 1] };
  const head = graph.add('Conv', ['x', weight('w1', [6, 2, 3, 3], 0.4)], { ...attributes, strides: [2, 2] });
  graph.add('Relu', [head], {}, { outputs: ['cut'] });
  const tail = graph.add('Relu', [graph.add('Conv', ['cut', weight('w2', [5, 6, 3, 3], 0.3)], attributes)]);
  const pooled = graph.add('Flatten', [graph.add('GlobalAveragePool', [tail])]);
  const logits = graph.add('Gemm', [pooled, weight('w3', [5, 3], 3), weight('b3', [3], 0.1)]);
  graph.add('Softmax', [logits], { axis: -1 }, { outputs: ['y'] });
  graph.setOutputs([]);
  graph.addOutput('y', 'float32', ['N', 3]);
  return graph;
}

/** Regression over vectors of eight columns. */
function tableModel(): Graph {
  const graph = Graph.create({ name: 'table' });
  graph.addInput('x', 'float32', ['N', 8]);
  graph.add(
    'Tanh',
    [graph.add('MatMul', ['x', graph.addInitializer('w1', randomTensor([8, 10], 'a', 0.4))])],
    {},
    { outputs: ['cut'] },
  );
  graph.add('MatMul', ['cut', graph.addInitializer('w2', randomTensor([10, 2], 'b', 0.5))], {}, { outputs: ['y'] });
  graph.setOutputs([]);
  graph.addOutput('y', 'float32', ['N', 2]);
  return graph;
}

async function prepare(model: Graph, shape: readonly number[], count: number) {
  const { head, tail } = splitAt(model, ['cut']);
  const [headSession, tailSession] = [await engine.load(head.encode()), await engine.load(tail.encode())];
  async function* inputs(): AsyncGenerator<Tensor> {
    for (let i = 0; i < count; i++) yield randomTensor([1, ...shape], `input ${i}`, 1);
  }
  const cache = await cacheActivations(inputs(), { head: headSession, tail: tailSession, input: 'x', cut: 'cut' });
  await headSession.close();
  await tailSession.close();
  return { head, tail, cache };
}

const QUICK = { encoder: 'mlp', channels: 2, batchSize: 4, pushSteps: 60, recoverSteps: 20 } as const;

function fit(
  tail: Graph,
  cache: ActivationCache,
  settings: BottleneckFitSettings,
  hooks: BottleneckHooks = {},
  on: Engine = engine,
) {
  return fitBottleneck({
    engine: on,
    tail,
    task: { kind: 'classification', output: 'y' },
    cache,
    settings,
    seed: 's',
    hooks,
  });
}

describe('fitBottleneck', () => {
  it('learns the task, and tells less at a higher alpha', async () => {
    const { tail, cache } = await prepare(pictureModel(), [2, 12, 12], 60);
    const losses: number[] = [];
    const gentle = await fit(tail, cache, { ...QUICK, alpha: 0.2 }, { onProgress: ({ task }) => losses.push(task) });
    const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(mean(losses.slice(-15))).toBeLessThan(mean(losses.slice(0, 15)));
    expect(losses).toHaveLength(80);
    const strict = await fit(tail, cache, { ...QUICK, pushSteps: 150, learningRate: 0.01, alpha: 0.999 });
    expect(strict.nats).toBeLessThan(0.7 * gentle.nats);
    expect(gentle.parameters.shape).toEqual([2]);
    expect([...gentle.parameters.gain]).toEqual([1, 1]);
    expect([...gentle.tailWeights.keys()].sort()).toEqual(['b3', 'w2', 'w3']);
  });

  it('goes on from a checkpoint to the same result, in either phase', async () => {
    const { tail, cache } = await prepare(pictureModel(), [2, 12, 12], 30);
    const settings = { ...QUICK, alpha: 0.5, pushSteps: 10, recoverSteps: 6 };
    const whole = await fit(tail, cache, settings);
    for (const stopAt of [4, 12]) {
      const abort = new AbortController();
      let kept: BottleneckCheckpoint | undefined;
      const interrupted = fit(tail, cache, settings, {
        signal: abort.signal,
        onProgress: ({ step }) => {
          if (step === stopAt) abort.abort();
        },
        onCheckpoint: (checkpoint) => {
          kept = structuredClone(checkpoint);
        },
      });
      await expect(interrupted).rejects.toMatchObject({ code: 'CANCELLED' });
      const resumed = await fit(tail, cache, settings, { resume: kept as BottleneckCheckpoint });
      expect(resumed.parameters).toEqual(whole.parameters);
      expect(resumed.tailWeights).toEqual(whole.tailWeights);
      await expect(
        fit(tail, cache, { ...settings, channels: 3 }, { resume: kept as BottleneckCheckpoint }),
      ).rejects.toThrow('made with channels 2');
    }
  });

  it('takes the same steps where several make one run, interrupted or not', async () => {
    const { tail, cache } = await prepare(pictureModel(), [2, 12, 12], 30);
    const settings = { ...QUICK, alpha: 0.5, pushSteps: 21, recoverSteps: 6 };
    const { description, threads } = engine;
    const load: Engine['load'] = (...from) => engine.load(...from);
    const run = (executionProvider: string, hooks: BottleneckHooks = {}) =>
      fit(tail, cache, settings, hooks, { description, threads, executionProvider, load, close: () => engine.close() });
    // A run for each step that tells nothing, and a log of eight.
    const one = await run('webgpu');
    const progress: number[] = [];
    const due: number[] = [];
    const several = await run('cuda', {
      onProgress: ({ step }) => progress.push(step),
      checkpointEvery: 5,
      onCheckpoint: ({ trainer, phase }) => {
        due.push(trainer.step + (phase === 'push' ? 0 : 21));
      },
    });
    expect(several.parameters).toEqual(one.parameters);
    expect(several.tailWeights).toEqual(one.tailWeights);
    expect(several.finalTask).toBe(one.finalTask);
    expect(progress).toEqual(Array.from({ length: 27 }, (_, i) => i + 1));
    expect(due).toEqual([5, 10, 15, 20, 26]);
    const abort = new AbortController();
    let kept: BottleneckCheckpoint | undefined;
    await expect(
      run('cuda', {
        signal: abort.signal,
        onProgress: ({ step }) => {
          if (step === 3) abort.abort();
        },
        onCheckpoint: (checkpoint) => {
          kept = structuredClone(checkpoint);
        },
      }),
    ).rejects.toMatchObject({ code: 'CANCELLED', message: expect.stringContaining('after 16 of 27') });
    const resumed = await run('cuda', { resume: kept as BottleneckCheckpoint });
    expect(resumed.tailWeights).toEqual(one.tailWeights);
  });

  it('fits vectors and refuses what it can not do', async () => {
    const { tail, cache } = await prepare(tableModel(), [8], 40);
    const options = { engine, tail, cache, task: { kind: 'regression', outputs: ['y'] } as const, seed: 's' };
    const settings = { ...QUICK, alpha: 0.3, encoder: 'deep' } as const;
    const fitted = await fitBottleneck({ ...options, settings });
    expect(fitted.weights.get('encoder.last.weight')?.shape).toEqual([48, 2]);
    await expect(fitBottleneck({ ...options, settings: { ...settings, alpha: 1 } })).rejects.toThrow('alpha is 1');
    await expect(fitBottleneck({ ...options, settings: { ...settings, channels: 0 } })).rejects.toThrow(
      'channels is 0',
    );
    await expect(fitBottleneck({ ...options, settings: { ...settings, adversary: 1 } })).rejects.toThrow(
      'a picture for',
    );
  });

  it('trains an adversary beside it', async () => {
    const { tail, cache } = await prepare(pictureModel(), [2, 12, 12], 20);
    const values = cache.activations.map((_, i) => randomTensor([3, 12, 12], `picture ${i}`, 0.2).data);
    const fitted = await fitBottleneck({
      engine,
      tail,
      cache,
      task: { kind: 'classification', output: 'y' },
      pictures: { size: 12, values },
      settings: { ...QUICK, alpha: 0.3, pushSteps: 12, recoverSteps: 3, adversary: 2 },
      seed: 's',
    });
    expect(Number.isFinite(fitted.finalTask)).toBe(true);
    expect([...fitted.weights.keys()].every((name) => /^(encoder|expansion)/.test(name))).toBe(true);
  });

  it('is packed as two halves that compute what was fitted, models left out or not', async () => {
    const { head, tail, cache } = await prepare(pictureModel(), [2, 12, 12], 30);
    const fitted = await fit(tail, cache, { ...QUICK, alpha: 0.5, pushSteps: 20, recoverSteps: 5 });
    const content = {
      parameters: fitted.parameters,
      tail,
      bottleneck: { parts: fitted, beta: bottleneckWeight(0.5), adversary: 0 },
      manifest: {
        createdAt: '2026-01-01T00:00:00.000Z',
        createdBy: 'test',
        alpha: 0.5,
        model: { name: 'classifier', source: 'generated', sha256: '0'.repeat(64), input: 'x' },
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', 6, 6, 6] }] },
        task: { kind: 'classification' as const, output: 'y' },
        fit: {
          steps: 25,
          batchSize: 4,
          learningRate: 0.002,
          canvases: 30,
          photos: 0,
          photoFolders: [],
          seed: 's',
          finalTask: 0,
        },
        results: [],
      },
    };
    const crypto = createNodeCrypto();
    const files = await encodeBundle({ ...content, head }, crypto);
    const bundle = await loadBundle(async (path) => files.get(path) as Uint8Array, crypto);
    expect(bundle.manifest.transform).toMatchObject({ kind: 'bottleneck', channels: 2, suppressedChannels: 0 });
    expect(bundle.manifest.cut.tensors).toEqual([{ name: 'bottleneck', dtype: 'float32', shape: ['N', 2, 6, 6] }]);
    const run = async (session: Session, feeds: Record<string, Tensor>) => {
      const outputs = await session.run(feeds);
      await session.close();
      return outputs;
    };
    const x = randomTensor([1, 2, 12, 12], 'a picture', 1);
    const trusted = await engine.load(await bundle.read('trusted/head.onnx'));
    const h = (await run(trusted, { x })).bottleneck as Tensor;
    expect(h.shape).toEqual([1, 2, 6, 6]);
    expect(Math.max(...(h.data as Float32Array).map(Math.abs))).toBeLessThanOrEqual(3);
    const remote = await engine.load(await bundle.read('remote/face_detection_noisy/1/model.onnx'));
    const answer = (await run(remote, { INPUT__0: h })).OUTPUT__0?.data as Float32Array;
    const base = await engine.load(await bundle.read('remote/face_detection_base/1/model.onnx'));
    expect(base.inputs[0]?.shape).toEqual(['N', 6, 6, 6]);
    await base.close();
    expect(answer.reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 5);
    const noiseOnly = await encodeBundle(content, crypto);
    expect([...noiseOnly.keys()].sort()).toEqual([
      'manifest.json',
      'trusted/encoder.safetensors',
      'trusted/noise.safetensors',
      'weights/remote.safetensors',
    ]);
  });
});

describe('bottleneckWeight', () => {
  it('rises with alpha and names the range', () => {
    expect(bottleneckWeight(0)).toBe(0);
    expect(bottleneckWeight(0.8)).toBeCloseTo(0.1, 12);
    expect(bottleneckWeight(0.95)).toBeCloseTo(0.475, 12);
    expect(() => bottleneckWeight(1)).toThrow('alpha is 1');
  });
});

describe('trainableWeights', () => {
  it('lists weights and biases of layers, not other constants', () => {
    expect(trainableWeights(splitAt(tableModel(), ['cut']).tail)).toEqual(['w2']);
  });
});
