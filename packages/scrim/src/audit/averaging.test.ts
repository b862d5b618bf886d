import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createSmallService, smallSamples } from '../../../../test/small-service.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto, createNodeEngine } from '../node/index.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { expectType } from '../tensor.js';
import { type AttackData, type AttackTarget, collectAttackData } from './attack.js';
import { createReleaseSource, createTrainingNoise, type ReleaseMechanism } from './attack-releases.js';
import { type AveragingAttack, runAveragingAttack, runSeveralAlphas } from './averaging.js';
import { collectCopies, neighbouringFrames, reencodedCopies, shiftedCopies } from './averaging-copies.js';
import type { DecoderSettings } from './decoder.js';

const crypto = createNodeCrypto();
const encoding = { rgb: [0, 1, 2], black: [0, 0, 0], white: [1, 1, 1] } as const;
const SMALL: DecoderSettings = {
  steps: 60,
  batchSize: 6,
  trunkLayers: 1,
  trunkWidth: 16,
  stageWidths: [12],
  learningRate: 1e-2,
  checkpoints: 1,
  loss: 'mse',
};

describe('averaging attack', () => {
  let engine: Engine;
  let target: AttackTarget;
  let train: AttackData;
  let test: AttackData;
  let attack: AveragingAttack;
  const ceiling = (): { name: string; scores: { centred: number[]; ssim: number[]; psnr: number[] } } => ({
    name: 'clean activation',
    scores: {
      centred: test.records.map(() => 0.9),
      ssim: test.records.map(() => 0.9),
      psnr: test.records.map(() => 25),
    },
  });

  beforeAll(async () => {
    engine = await createNodeEngine({ threads: 1, thread: 'inline' });
    target = await createSmallService(engine, 3);
    train = await collectAttackData(target, smallSamples(160, 'train'));
    test = await collectAttackData(target, smallSamples(10, 'test'));
    attack = await runAveragingAttack(
      { target, train, test, crypto },
      {
        ...SMALL,
        counts: [1, 4, 16],
        ceiling: ceiling(),
        copies: [
          await collectCopies(target, smallSamples(10, 'test'), shiftedCopies(1)),
          await collectCopies(target, smallSamples(10, 'test'), reencodedCopies(encoding, 16)),
        ],
      },
    );
  }, 60_000);
  afterAll(async () => {
    await attack.decoder.close();
    await target.close();
    await engine.close();
  });

  const ssim = (name: string, count: number): number => {
    const result = attack.results.find((candidate) => candidate.name === name);
    return result?.values.find((value) => value.name === `SSIM ×${count}`)?.mean ?? Number.NaN;
  };

  it('gets better with every fresh release', () => {
    expect(ssim('averaging, fresh keys', 4)).toBeGreaterThan(ssim('averaging, fresh keys', 1) + 0.05);
    expect(ssim('averaging, fresh keys', 16)).toBeGreaterThan(ssim('averaging, fresh keys', 4) + 0.05);
    expect(attack.results[0]?.values[0]?.name).toBe('centred SSIM ×16');
    expect(attack.results[0]?.live, attack.results[0]?.liveReason).toBe(true);
  });

  it('gets nothing from further releases with repeatable keys', () => {
    const [one, many] = [1, 16].map((n) => ssim('averaging, repeatable keys', n)) as [number, number];
    expect(many).toBeCloseTo(one, 6);
    expect(attack.results[1]?.settings.distinctReleases).toBe(1);
  });

  it('gets around repeatable keys with copies that look the same', () => {
    expect(ssim('averaging, re-encoded copies', 16)).toBeGreaterThan(ssim('averaging, repeatable keys', 16) + 0.1);
    const shifted = attack.results.find(({ name }) => name === 'averaging, shifted copies');
    expect(shifted?.curves[0]?.points.map(({ x }) => x)).toEqual([1, 4]);
    expect(shifted?.settings.distinctReleases).toBe(4);
  });

  it('solves for noise that two bundles share, and not for noise of their own', async () => {
    const other = await createSmallService(engine, 6, 'cd');
    const bundles = [
      { target, train, test },
      { target: other, train, test },
    ];
    const settings = { ...SMALL, ceiling: ceiling() };
    const own = await runSeveralAlphas(bundles, { crypto }, settings);
    const shared = await runSeveralAlphas(bundles, { crypto, mechanism: sharedNoise(3, 6) }, settings);
    await Promise.all([own.decoder.close(), shared.decoder.close(), other.close()]);
    expect(shared.result.values[0]?.mean).toBeGreaterThan((own.result.values[0]?.mean ?? 1) + 0.1);
    expect(own.result.settings.alphas).toBe('0.5, 0.5');
  });

  it('draws means of releases that have the mean and spread of real ones', async () => {
    const activation = (test.records[0] as AttackData['records'][number]).activation;
    const source = await createReleaseSource(target, test.shape, { mode: 'replay', seed: 'x' }, crypto);
    const noise = createTrainingNoise(target.parameters, test.shape, createFitRandom('x'));
    for (const count of [1, 4, 16]) {
      const real = new Float64Array(activation.length);
      for (let n = 0; n < count; n++) {
        for (const [i, value] of (await source.draw(activation)).entries())
          real[i] = (real[i] as number) + value / count;
      }
      const fast = new Float32Array(activation.length);
      noise.apply(activation, fast, 0, 1, count);
      const [a, b] = [real, fast].map((values) => {
        let squares = 0;
        for (let i = 0; i < values.length; i++) squares += ((values[i] as number) - (activation[i] as number)) ** 2;
        return Math.sqrt(squares / values.length);
      }) as [number, number];
      expect(a / b).toBeGreaterThan(0.93);
      expect(a / b).toBeLessThan(1.07);
    }
    source.close();
  });

  it('makes copies that stay close to the photo', () => {
    const [sample] = smallSamples(1, 'copies');
    const input = expectType(sample?.input as NonNullable<typeof sample>['input'], 'float32', 'input');
    for (const maker of [shiftedCopies(2), neighbouringFrames(5), reencodedCopies(encoding, 5)]) {
      expect(maker.make(input, 0).data).toEqual(input.data);
      const copies = Array.from({ length: maker.copies }, (_, i) => String(maker.make(input, i).data));
      expect(new Set(copies).size).toBe(maker.copies);
    }
    const worst = Math.max(
      ...reencodedCopies(encoding, 5)
        .make(input, 4)
        .data.map((value, i) => Math.abs(value - (input.data[i] as number))),
    );
    expect(worst).toBeLessThan(0.15);
  });

  /** A broken service: two bundles that use the same ε. */
  function sharedNoise(first: number, second: number): ReleaseMechanism {
    const join = (clean: Float32Array, epsilon: Float32Array): Float32Array =>
      clean.map((value, i) => value + (i < epsilon.length ? first : second) * (epsilon[i % epsilon.length] as number));
    return {
      trainingNoise: (random) => {
        return {
          apply: (clean, out, at) => {
            const epsilon = new Float32Array(clean.length / 2);
            random.normal(epsilon);
            out.set(join(clean, epsilon), at);
          },
        };
      },
      open: async ({ mode }) => {
        const random = createFitRandom('shared');
        return {
          mode,
          draw: async (clean) => {
            const epsilon = new Float32Array(clean.length / 2);
            random.normal(epsilon);
            return join(clean, epsilon);
          },
          close: () => undefined,
        };
      },
    };
  }
});
