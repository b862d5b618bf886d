import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runOnnx } from '../../../../test/run-onnx.js';
import { createSmallService, SIDE, smallSamples } from '../../../../test/small-service.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto, createNodeEngine } from '../node/index.js';
import type { FitRandom } from '../noise/fit/fit-random.js';
import { float32 } from '../tensor.js';
import { type AttackData, type AttackTarget, collectAttackData, type TrainingCheckpoint } from './attack.js';
import { type ReleaseMechanism, releaseMechanism } from './attack-releases.js';
import { type DecoderSettings, trainDecoder } from './decoder.js';
import { type DecoderAttack, runDecoderAttack, runDecoderSweep } from './decoder-attack.js';
import { findRemoteFeatures } from './decoder-features.js';

const crypto = createNodeCrypto();
const SMALL: DecoderSettings = {
  steps: 50,
  batchSize: 4,
  trunkLayers: 1,
  trunkWidth: 16,
  stageWidths: [12],
  learningRate: 1e-2,
  checkpoints: 2,
  loss: 'mse',
};

describe('decoder attack', () => {
  let engine: Engine;
  let target: AttackTarget;
  let train: AttackData;
  let test: AttackData;
  let open: DecoderAttack;

  beforeAll(async () => {
    engine = await createNodeEngine({ threads: 1, thread: 'inline' });
    target = await createSmallService(engine, 0.02);
    train = await collectAttackData(target, smallSamples(160, 'train'));
    test = await collectAttackData(target, smallSamples(12, 'test'));
    open = await runDecoderAttack({ target, train, test, crypto }, SMALL);
  }, 60_000);
  afterAll(async () => {
    await open.decoder.close();
    await target.close();
    await engine.close();
  });

  it('finds what the remote half computes at the size of the release', () => {
    expect(findRemoteFeatures(target.remote, train.shape)).toEqual([
      { name: 'stem', channels: 16 },
      { name: 'block', channels: 16 },
    ]);
  });

  it('succeeds on clean activations and on a transform with next to no noise', () => {
    const { result } = open;
    const [ssim, , psnr] = result.values;
    const ceiling = result.baselines.find(({ kind }) => kind === 'ceiling');
    const mean = result.baselines.find(({ name }) => name === 'mean photo');
    expect(result.live, result.liveReason).toBe(true);
    expect(ceiling?.values[0]?.mean).toBeGreaterThan((mean?.values[0]?.mean ?? 1) + 0.25);
    expect(ssim?.mean).toBeGreaterThan((ceiling?.values[0]?.mean ?? 1) - 0.1);
    expect(psnr?.mean).toBeGreaterThan((mean?.values[2]?.mean ?? 99) + 4);
    expect(ssim?.worstDecile).toBeGreaterThanOrEqual(ssim?.worstDecileEdge ?? 1);
    expect(result.samples).toBe(12);
    expect(result.pictures.filter(({ label }) => label === 'rebuilt')).toHaveLength(6);
  });

  it('says that a short run is not to be trusted', () => {
    expect(open.result.trusted).toBe(false);
    expect(open.result.trustedReason).toMatch(/50 steps, below 5000; ran too short to be trusted/);
  });

  it('reports an attack that noise defeats as failed, not as privacy', async () => {
    const hidden = await createSmallService(engine, 60);
    const { result, decoder } = await runDecoderAttack(
      { target: hidden, train, test, crypto },
      { ...SMALL, steps: 40, ceiling: open.ceiling },
    );
    await Promise.all([decoder.close(), hidden.close()]);
    expect(result.live).toBe(false);
    expect(result.liveReason).toMatch(/does not beat its floor .* no proof of privacy/);
  });

  it('sees through noise that is the same for every photo', async () => {
    const strong = await createSmallService(engine, 1);
    const { result, decoder } = await runDecoderAttack(
      { target: strong, train, test, crypto, mechanism: reusedNoise(1) },
      { ...SMALL, ceiling: open.ceiling },
    );
    const { result: fresh, decoder: other } = await runDecoderAttack(
      { target: strong, train, test, crypto },
      { ...SMALL, ceiling: open.ceiling },
    );
    await Promise.all([decoder.close(), other.close(), strong.close()]);
    expect(result.live, result.liveReason).toBe(true);
    expect(result.values[0]?.mean).toBeGreaterThan((fresh.values[0]?.mean ?? 1) + 0.15);
  });

  it('gives the same answer for the same seed, and stops when told to', async () => {
    const settings = { ...SMALL, steps: 6, checkpoints: 1 };
    const mechanism = releaseMechanism(target, train.shape, crypto);
    const against = { engine, remote: target.remote, mechanism };
    const release = test.records[0]?.activation as Float32Array;
    const [first, second] = await Promise.all(
      ['x', 'x'].map(async (seed) => {
        const decoder = await trainDecoder(against, train, settings, seed);
        const [picture] = await decoder.rebuild([release]);
        await decoder.close();
        return picture;
      }),
    );
    expect(first).toEqual(second);
    const signal = AbortSignal.abort();
    await expect(trainDecoder(against, train, settings, 'x', { signal })).rejects.toThrowError(/interrupted after 0/);
  });

  it.each([
    { provider: 'cpu', after: 7 },
    { provider: 'cuda', after: 12 },
  ])('goes on from where it was interrupted, bit for bit, as on $provider', async ({ provider, after }) => {
    const settings = { ...SMALL, steps: 24, checkpoints: 2 };
    const mechanism = releaseMechanism(target, train.shape, crypto);
    // On CUDA several steps make one run.
    const { description, threads } = engine;
    const load: Engine['load'] = (...from) => engine.load(...from);
    const named = { description, threads, executionProvider: provider, load, close: () => engine.close() };
    const against = { engine: named, remote: target.remote, mechanism };
    const whole = await trainDecoder(against, train, settings, 'y');
    const kept = new Map<string, TrainingCheckpoint>();
    const checkpoints = {
      load: async (name: string) => kept.get(name),
      save: async (name: string, checkpoint: TrainingCheckpoint) => {
        kept.set(name, checkpoint);
      },
    };
    const stop = new AbortController();
    const onProgress = ({ done }: { done: number }) => {
      if (done === 6) stop.abort();
    };
    const first = trainDecoder(against, train, settings, 'y', { checkpoints, signal: stop.signal, onProgress });
    await expect(first).rejects.toThrowError(`interrupted after ${after} of 24`);
    const steps: number[] = [];
    const second = await trainDecoder(against, train, settings, 'y', {
      checkpoints,
      onProgress: ({ done }) => steps.push(done),
    });
    expect(steps[0]).toBe(after + 1);
    expect(second.curves).toEqual(whole.curves);
    expect(second.encode()).toEqual(whole.encode());
    await Promise.all([whole.close(), second.close()]);
  });

  it('exports one model that runs by itself and rebuilds what the decoder rebuilds', async () => {
    const release = test.records[0]?.activation as Float32Array;
    const [expected] = await open.decoder.rebuild([release]);
    const outputs = await runOnnx(open.decoder.encode(), { release: float32([1, ...test.shape], release) }, 'all');
    const image = outputs.image?.data as Float32Array;
    expect(outputs.image?.shape).toEqual([1, 3, SIDE, SIDE]);
    image.forEach((value, i) => {
      const clamped = Math.max(0, Math.min(1, expected?.[i] as number));
      expect(Math.abs(value - clamped)).toBeLessThan(0.02);
    });
  });

  it('sweeps views, capacity, data and losses with one ceiling', async () => {
    const results = await runDecoderSweep({ target, train, test, crypto }, open, { ...SMALL, steps: 10 }, [
      { name: 'release alone', settings: { sees: 'release' } },
      { name: 'SSIM loss', settings: { loss: 'ssim' } },
      { name: 'a quarter of the photos', settings: {}, dataShare: 0.25 },
    ]);
    expect(results.map(({ name }) => name)).toEqual([
      'decoder, release alone',
      'decoder, SSIM loss',
      'decoder, a quarter of the photos',
    ]);
    expect(results[2]?.trainedOn).toBe(36);
  });

  it('refuses photos that are both trained on and attacked', async () => {
    await expect(runDecoderAttack({ target, train, test: train, crypto }, SMALL)).rejects.toThrowError(/train-0/);
  });

  /** A broken service: one ε for ever. */
  function reusedNoise(sigma: number): ReleaseMechanism {
    const epsilon = new Float32Array(train.shape[0] * train.shape[1] * train.shape[2]);
    const seeded = { ...releaseMechanism(target, train.shape, crypto) };
    createNormals(epsilon);
    const noisy = (clean: Float32Array): Float32Array =>
      clean.map((value, i) => value + sigma * (epsilon[i] as number));
    return {
      ...seeded,
      trainingNoise: (_: FitRandom) => ({ apply: (clean, out, at) => out.set(noisy(clean), at) }),
      open: async ({ mode }) => ({ mode, draw: async (clean) => noisy(clean), close: () => undefined }),
    };
  }
});

function createNormals(out: Float32Array): void {
  for (let i = 0; i < out.length; i++) out[i] = Math.sqrt(12) * (((i * 2654435761) % 4294967296) / 4294967296 - 0.5);
}
