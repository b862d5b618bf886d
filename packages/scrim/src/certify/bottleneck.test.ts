/** A bottleneck bundle is certified by the same code: its head ends in the bounded encoder, its release is diagonal. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { randomTensor } from '../../../../test/random-tensor.js';
import { encodeBundle, loadBundle } from '../bundle/bundle.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { cacheActivations } from '../noise/fit/activation-cache.js';
import { bottleneckWeight, fitBottleneck } from '../noise/fit/bottleneck-fit.js';
import { Graph } from '../onnx/index.js';
import { splitAt } from '../split/index.js';
import type { Tensor } from '../tensor.js';
import { certifyBundle } from './certificate.js';

let engine: Engine;
beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1, thread: 'inline' });
});
afterAll(() => engine.close());

async function* inputs(count: number, name: string): AsyncGenerator<Tensor> {
  for (let i = 0; i < count; i++) yield randomTensor([1, 2, 12, 12], `${name} ${i}`);
}

it('certifies a bottleneck bundle', async () => {
  const model = Graph.create();
  model.addInput('x', 'float32', ['N', 2, 12, 12]);
  const attributes = { kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [2, 2] };
  const weights = model.addInitializer('w1', randomTensor([6, 2, 3, 3], 'w1', 0.4));
  model.add('Relu', [model.add('Conv', ['x', weights], attributes)], {}, { outputs: ['cut'] });
  const pooled = model.add('Flatten', [model.add('GlobalAveragePool', ['cut'])]);
  const logits = model.add('MatMul', [pooled, model.addInitializer('w2', randomTensor([6, 3], 'w2', 3))]);
  model.add('Softmax', [logits], { axis: -1 }, { outputs: ['y'] });
  model.setOutputs([]);
  model.addOutput('y', 'float32', ['N', 3]);
  const { head, tail } = splitAt(model, ['cut']);
  const [headSession, tailSession] = [await engine.load(head.encode()), await engine.load(tail.encode())];
  const cache = await cacheActivations(inputs(30, 'fit'), {
    head: headSession,
    tail: tailSession,
    input: 'x',
    cut: 'cut',
  });
  const fitted = await fitBottleneck({
    engine,
    tail,
    task: { kind: 'classification', output: 'y' },
    cache,
    settings: { encoder: 'mlp', channels: 2, batchSize: 4, pushSteps: 20, recoverSteps: 5, alpha: 0.5 },
    seed: 's',
  });
  const crypto = createNodeCrypto();
  const files = await encodeBundle(
    {
      head,
      tail,
      parameters: fitted.parameters,
      bottleneck: { parts: fitted, beta: bottleneckWeight(0.5), adversary: 0 },
      manifest: {
        createdAt: '2026-01-01T00:00:00.000Z',
        createdBy: 'test',
        alpha: 0.5,
        model: { name: 'classifier', source: 'generated', sha256: '0'.repeat(64), input: 'x' },
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', 6, 6, 6] }] },
        task: { kind: 'classification', output: 'y' },
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
    },
    crypto,
  );
  const bundle = await loadBundle(async (path) => files.get(path) as Uint8Array, crypto);
  const certificate = await certifyBundle({
    bundle,
    engine,
    inputs: inputs(200, 'certify'),
    count: 200,
    data: 'normal numbers',
    releases: 2,
    smoothing: 1,
    probeInputs: 4,
  });
  expect(certificate.releaseShape).toEqual([1, 2, 6, 6]);
  const [estimate, limit, worst] = certificate.information.map(({ figure }) => figure.value);
  expect(limit).toBeGreaterThan(estimate as number);
  expect(worst).toBeGreaterThan(limit as number);
  // h₀ lies in [−3, 3], so no variance is above 9.
  const most = fitted.parameters.sigma.reduce((sum, sigma) => sum + 36 * 0.5 * Math.log1p(9.2 / sigma ** 2), 0);
  expect(worst).toBeLessThan(most);
  const [, smoothed] = certificate.reconstruction;
  expect(smoothed?.figure.value).toBeGreaterThan(0);
  expect(smoothed?.figure.value).toBeLessThan(1);
});
