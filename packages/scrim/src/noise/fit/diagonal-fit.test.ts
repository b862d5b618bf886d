import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../../engine/engine.js';
import { createNodeEngine } from '../../node/ort-engine.js';
import { Graph } from '../../onnx/index.js';
import { float32, type Tensor } from '../../tensor.js';
import { validateDiagonalParameters } from '../diagonal.js';
import { type ActivationCache, cacheActivations } from './activation-cache.js';
import { createDiagonalFitter, type DiagonalFitCheckpoint, privacyWeight } from './diagonal-fit.js';
import { createFitRandom } from './fit-random.js';

/** Head: 1×1 convolution to 6 channels. Tail: only the first two channels matter to the answer. */
function model(task: 'classification' | 'regression'): { head: Graph; tail: Graph } {
  const random = createFitRandom('model');
  const weights = (shape: number[]): ReturnType<typeof float32> => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    random.normal(data);
    return float32(shape, data);
  };
  const head = Graph.create();
  head.addInput('x', 'float32', ['N', 3, 4, 4]);
  head.add(
    'Conv',
    ['x', head.addInitializer('w', weights([6, 3, 1, 1]))],
    { kernel_shape: [1, 1] },
    { outputs: ['z'] },
  );
  head.addOutput('z', 'float32', ['N', 6, 4, 4]);
  const tail = Graph.create();
  tail.addInput('z', 'float32', ['N', 6, 4, 4]);
  const w = weights([3, 6, 1, 1]);
  for (let i = 0; i < w.data.length; i++) if (i % 6 > 1) w.data[i] = 0;
  const mixed = tail.add('Conv', ['z', tail.addInitializer('w', w)], { kernel_shape: [1, 1] });
  const pooled = tail.add('GlobalAveragePool', [mixed]);
  const flat = tail.add('Flatten', [pooled], { axis: 1 }, { outputs: ['logits'] });
  const output = task === 'classification' ? tail.add('Softmax', [flat], { axis: -1 }, { outputs: ['p'] }) : flat;
  tail.addOutput(output, 'float32', ['N', 3]);
  return { head, tail };
}

describe('diagonal fit', () => {
  let engine: Engine;
  const caches = new Map<string, { tail: Graph; cache: ActivationCache }>();
  beforeAll(async () => {
    engine = await createNodeEngine({ thread: 'inline', threads: 1 });
    for (const task of ['classification', 'regression'] as const) {
      const { head, tail } = model(task);
      const random = createFitRandom('inputs');
      async function* inputs(): AsyncGenerator<Tensor> {
        for (let i = 0; i < 40; i++) {
          const data = new Float32Array(48);
          random.normal(data);
          yield float32([1, 3, 4, 4], data);
        }
      }
      const [headSession, tailSession] = [await engine.load(head.encode()), await engine.load(tail.encode())];
      const cache = await cacheActivations(inputs(), { head: headSession, tail: tailSession, input: 'x', cut: 'z' });
      caches.set(task, { tail, cache });
    }
  });
  afterAll(() => engine.close());

  it('gives a channel that hardly varies a noise that a transform takes', async () => {
    const { tail, cache } = caches.get('regression') as { tail: Graph; cache: ActivationCache };
    // The channel's own scale is far below the least noise.
    const faint = cache.activations.map((values) => values.map((value, i) => (i < 16 ? value * 1e-6 : value)));
    async function* one(): AsyncGenerator<Tensor> {
      for (const values of faint) yield float32([1, 6, 4, 4], values);
    }
    const pass = Graph.create();
    pass.addInput('x', 'float32', ['N', 6, 4, 4]);
    pass.addOutput(pass.add('Identity', ['x'], {}, { outputs: ['z'] }), 'float32', ['N', 6, 4, 4]);
    const [head, answers] = [await engine.load(pass.encode()), await engine.load(tail.encode())];
    const small = await cacheActivations(one(), { head, tail: answers, input: 'x', cut: 'z' });
    const task = { kind: 'regression', outputs: ['logits'] } as const;
    const fitter = await createDiagonalFitter({ engine, tail, task, cache: small, batchSize: 4 });
    const fit = await fitter.fit({ alpha: 0.1, steps: 3, suppress: false }, createFitRandom('faint'));
    await fitter.close();
    expect(() => validateDiagonalParameters(fit.parameters)).not.toThrow();
    expect(fit.parameters.gain[0]).toBeGreaterThan(0);
  });

  const fitterFor = async (kind: 'classification' | 'regression', granularity?: 'per-element') => {
    const { tail, cache } = caches.get(kind) as { tail: Graph; cache: ActivationCache };
    const task =
      kind === 'classification' ? ({ kind, output: 'p' } as const) : ({ kind, outputs: ['logits'] } as const);
    const fitter = await createDiagonalFitter({
      engine,
      tail,
      task,
      cache,
      batchSize: 4,
      ...(granularity ? { granularity } : {}),
    });
    return { fitter, cache };
  };

  it('hides the channels the task does not need and spares those it needs', async () => {
    const { fitter, cache } = await fitterFor('classification');
    const { parameters } = await fitter.fit({ alpha: 0.0003, steps: 300, suppress: false }, createFitRandom('fit'));
    validateDiagonalParameters(parameters);
    const snr = Array.from(
      parameters.gain,
      (gain, c) => (gain ** 2 * (cache.statistics.variance[c] as number)) / (parameters.sigma[c] as number) ** 2,
    );
    const needed = Math.max(snr[0] as number, snr[1] as number);
    for (const unneeded of snr.slice(2)) expect(unneeded).toBeLessThan(needed / 10);
  });

  it('tells less for a larger alpha, for each kind of task', async () => {
    for (const kind of ['classification', 'regression'] as const) {
      const { fitter } = await fitterFor(kind);
      const nats: number[] = [];
      for (const alpha of [0.0001, 0.002, 0.05, 0.6]) {
        nats.push((await fitter.fit({ alpha, steps: 150 }, createFitRandom('fit'))).nats);
      }
      expect(nats).toEqual([...nats].sort((a, b) => b - a));
      expect(nats.at(-1)).toBeLessThan((nats[0] as number) / 2);
    }
    expect([0, 0.2, 0.5, 0.9].map(privacyWeight)).toEqual([0, 0.2, 0.5, 0.9].map(privacyWeight).sort((a, b) => a - b));
    expect(() => privacyWeight(1)).toThrowError(/alpha is 1/);
  });

  it('fits a parameter for every element when asked', async () => {
    const { fitter } = await fitterFor('regression', 'per-element');
    const { parameters } = await fitter.fit({ alpha: 0.5, steps: 20 }, createFitRandom('fit'));
    expect(parameters.shape).toEqual([6, 4, 4]);
    expect(parameters.sigma).toHaveLength(96);
    validateDiagonalParameters(parameters);
  });

  it('goes on from a checkpoint to the same result, and refuses one of another fit', async () => {
    const { fitter } = await fitterFor('classification');
    const whole = await fitter.fit({ alpha: 0.6, steps: 40 }, createFitRandom('fit'));
    const controller = new AbortController();
    let kept: DiagonalFitCheckpoint | undefined;
    const interrupted = fitter.fit({ alpha: 0.6, steps: 40 }, createFitRandom('fit'), {
      signal: controller.signal,
      onProgress: ({ step }) => step === 17 && controller.abort(),
      onCheckpoint: (checkpoint) => {
        kept = structuredClone(checkpoint);
      },
    });
    await expect(interrupted).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(kept?.step).toBe(17);
    const resume = kept as DiagonalFitCheckpoint;
    const resumed = await fitter.fit({ alpha: 0.6, steps: 40 }, createFitRandom('fit'), { resume });
    expect(resumed.parameters).toEqual(whole.parameters);
    expect(resumed.finalTask).toBe(whole.finalTask);
    await expect(fitter.fit({ alpha: 0.7, steps: 40 }, createFitRandom('fit'), { resume })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  it('stops with a reason when it diverges', async () => {
    const { fitter } = await fitterFor('regression');
    const fit = fitter.fit({ alpha: 0.1, steps: 200, learningRate: 1e6 }, createFitRandom('fit'));
    await expect(fit).rejects.toMatchObject({ code: 'DIVERGED' });
  });

  it('names an output that is not there', async () => {
    const { tail, cache } = caches.get('regression') as { tail: Graph; cache: ActivationCache };
    const task = { kind: 'classification', output: 'missing' } as const;
    await expect(createDiagonalFitter({ engine, tail, task, cache })).rejects.toThrowError(/'missing'.*logits/);
  });
});
