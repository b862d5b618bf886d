import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createSmallService, smallSamples } from '../../../../test/small-service.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto, createNodeEngine } from '../node/index.js';
import { type AttackData, type AttackTarget, collectAttackData, type PixelEncoding } from './attack.js';
import { clampedNormal } from './attack-releases.js';
import { meanPhoto } from './baselines.js';
import { createPictureSearch, pixelEncoding } from './optimisation.js';
import { runOptimisationAttack } from './optimisation-attack.js';

const crypto = createNodeCrypto();
const encoding: PixelEncoding = { rgb: [0, 1, 2], black: [0, 0, 0], white: [1, 1, 1] };

describe('optimisation attack', () => {
  let engine: Engine;
  let target: AttackTarget;
  let train: AttackData;
  let test: AttackData;

  beforeAll(async () => {
    engine = await createNodeEngine({ threads: 1, thread: 'inline' });
    target = await createSmallService(engine, 0.02);
    train = await collectAttackData(target, smallSamples(40, 'train'));
    test = await collectAttackData(target, smallSamples(10, 'test'));
  });
  afterAll(async () => {
    await target.close();
    await engine.close();
  });

  const settings = { encoding, steps: 60, learningRate: 0.3, restarts: 1, batchSize: 10, tuning: 2, samples: 10 };

  it('rebuilds pictures from next to no noise, and as well from clean activations', async () => {
    const result = await runOptimisationAttack({ target, train, test, crypto }, { ...settings, smoothness: [1] });
    expect(result.live, result.liveReason).toBe(true);
    expect(result.values[0]?.mean).toBeGreaterThan(0.8);
    expect(result.baselines.find(({ kind }) => kind === 'ceiling')?.values[0]?.mean).toBeGreaterThan(0.8);
  });

  it('fails where the noise hides everything, and says so', async () => {
    const hidden = await createSmallService(engine, 60);
    const ceiling = {
      name: 'clean activation',
      scores: {
        centred: test.records.map(() => 0.9),
        ssim: test.records.map(() => 0.9),
        psnr: test.records.map(() => 25),
      },
    };
    const result = await runOptimisationAttack(
      { target: hidden, train, test, crypto },
      { ...settings, steps: 20, smoothness: [1, 30], ceiling },
    );
    await hidden.close();
    expect(result.live).toBe(false);
    expect(result.liveReason).toMatch(/no proof of privacy/);
    expect([1, 30]).toContain(result.settings.smoothness);
  });

  it('keeps the start that explains the release best, and stops when told to', async () => {
    const search = await createPictureSearch({
      engine,
      head: target.head,
      parameters: target.parameters,
      data: test,
      start: meanPhoto(train),
      settings: { ...settings, restarts: 3, batchSize: 4, steps: 8 },
      seed: 'a',
    });
    const releases = test.records.slice(0, 2).map(({ activation }) => activation);
    const found = await search.find(releases, 1);
    expect(found).toHaveLength(2);
    const [first, second] = found.map(({ picture }) => picture);
    expect(first).not.toEqual(second);
    expect(first?.every((value) => value >= 0 && value <= 1)).toBe(true);
    await expect(search.find(releases, 1, { signal: AbortSignal.abort() })).rejects.toThrowError(/interrupted/);
    await search.close();
  });

  it('knows the mean and deviation of a clamped normal', () => {
    for (const [centre, sigma, low, high] of [
      [0, 1, -3, 3],
      [2, 1.5, -1, 2],
      [-5, 0.5, -3, 3],
    ] as const) {
      let [sum, squares, mass] = [0, 0, 0];
      for (let i = 0; i < 40_000; i++) {
        const x = -9 + (18 * (i + 0.5)) / 40_000;
        const density = Math.exp(-0.5 * x * x);
        const value = Math.min(Math.max(centre + sigma * x, low), high);
        mass += density;
        sum += density * value;
        squares += density * value * value;
      }
      const [location, deviation] = clampedNormal(centre, sigma, low, high);
      expect(location).toBeCloseTo(sum / mass, 6);
      expect(deviation).toBeCloseTo(Math.sqrt(Math.max(0, squares / mass - (sum / mass) ** 2)), 4);
    }
  });

  it('reads the encoding of a detector off its preprocessing', () => {
    expect(pixelEncoding({ order: 'bgr', mean: [104, 117, 123], scale: 1 })).toEqual({
      rgb: [2, 1, 0],
      black: [-104, -117, -123],
      white: [151, 138, 132],
    });
  });
});
