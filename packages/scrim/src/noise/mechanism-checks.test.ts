import { hkdfSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { float32, type Tensor } from '../tensor.js';
import { createDiagonalTransform, type DiagonalParameters, type DiagonalTransform } from './diagonal.js';
import { createReplayKeys, type Keystream } from './keystream.js';
import { type CheckResult, checkMechanism, checkSeedSpace, type Mechanism } from './mechanism-checks.js';
import { fromHex } from './noise-crypto.js';
import { createReplayNoiser, type NoiserOptions } from './release.js';

// All keys are fixed, so the outcomes are too. Each check of a right mechanism would fail for one key in a million.
const RATE = 1e-6;
const [N, C, H, W] = [4, 8, 36, 30];
const crypto = createNodeCrypto();
const bundleHash = '34'.repeat(32);
const seed = (value: number): Uint8Array => new Uint8Array(32).fill(value);

/** A range so wide that nothing is clamped, as the checks see the noise best. */
function parametersOf(sigma: number, range = 60): DiagonalParameters {
  return {
    kind: 'per-channel',
    shape: [C],
    gain: new Float32Array(C).fill(0.9),
    mean: Float32Array.from({ length: C }, (_, c) => 0.1 * c),
    sigma: Float32Array.from({ length: C }, (_, c) => sigma * (1 + 0.05 * c)),
    clipLow: new Float32Array(C).fill(-range),
    clipHigh: new Float32Array(C).fill(range),
    variance: new Float32Array(C).fill(1),
  };
}

const parameters = parametersOf(0.6);
const transform = createDiagonalTransform(parameters);
const activation = float32(
  [N, C, H, W],
  Float32Array.from({ length: N * C * H * W }, (_, i) => 2 * Math.sin(0.3 * i)),
);
const optionsFor = (own: DiagonalTransform): NoiserOptions => ({ transform: own, bundleHash, alpha: 0.5, crypto });

const noiser = (own: DiagonalTransform, key: number): Mechanism => {
  const { releaseBatch } = createReplayNoiser({ ...optionsFor(own), seedKey: seed(key) });
  return (batch) => releaseBatch(batch);
};

/** Releases as a noiser does, with a keystream of the test's own for each sample. */
const withKeystream =
  (streams: () => Promise<Keystream>): Mechanism =>
  async ({ data, shape }) => {
    const size = C * H * W;
    const releases = [];
    for (let n = 0; n < (shape[0] as number); n++) {
      const payload = await transform.run(data.subarray(n * size, (n + 1) * size), H * W, await streams());
      releases.push({ shape: [1, C, H, W], payload, steps: transform.steps, sentChannels: undefined });
    }
    return releases;
  };

const failed = (results: readonly CheckResult[]): string[] =>
  results.filter(({ pass }) => !pass).map(({ name }) => name);
const NAMES = [
  'mean',
  'variance',
  'variance by channel',
  'distribution (Kolmogorov-Smirnov)',
  'bins and tails (chi-square)',
  'autocorrelation',
  'autocorrelation of magnitudes',
  'independence of samples',
  'independence of rounds',
];

describe('checkMechanism', () => {
  it.each([1, 2, 3])('passes the noiser (key %d)', async (key) => {
    const results = await checkMechanism(noiser(transform, key), parameters, activation, { falseAlarmRate: RATE });
    expect(results.map(({ name }) => name)).toEqual(NAMES);
    expect(failed(results)).toEqual([]);
    for (const result of results) {
      expect(result.falseAlarmRate).toBe(RATE);
      expect(result.samples).toBeGreaterThanOrEqual(N * C * H * W);
      expect(Number.isFinite(result.statistic)).toBe(true);
    }
  });

  it('passes it where most of the noise is clamped away, and with a grid as coarse as σ/2', async () => {
    const narrow = parametersOf(2, 1.5);
    const clamped = noiser(createDiagonalTransform(narrow), 4);
    expect(failed(await checkMechanism(clamped, narrow, activation, { falseAlarmRate: RATE }))).toEqual([]);
    const coarse = parametersOf(0.01, 120);
    const transformOfCoarse = createDiagonalTransform(coarse);
    expect(0.01 / (transformOfCoarse.steps[0] as number)).toBeLessThan(3);
    const results = await checkMechanism(noiser(transformOfCoarse, 5), coarse, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toEqual([]);
  });

  it('passes it per element, with suppressed channels and elements', async () => {
    const size = C * H * W;
    const suppressed = (i: number): boolean => Math.floor(i / (H * W)) === 2 || i % 7 === 0;
    const elements: DiagonalParameters = {
      ...parameters,
      kind: 'per-element',
      shape: [C, H, W],
      gain: Float32Array.from({ length: size }, (_, i) => (suppressed(i) ? 0 : 0.5 + 0.01 * (i % 50))),
      mean: Float32Array.from({ length: size }, (_, i) => Math.sin(i)),
      sigma: Float32Array.from({ length: size }, (_, i) => 0.4 + 0.01 * (i % 90)),
    };
    const two = float32([2, C, H, W], activation.data.subarray(0, 2 * size));
    const own = noiser(createDiagonalTransform(elements), 6);
    expect(failed(await checkMechanism(own, elements, two, { falseAlarmRate: RATE }))).toEqual([]);
  });

  it.each([
    ['5% too little', 0.95],
    ['5% too much', 1.05],
  ])('rejects noise that is %s', async (_, factor) => {
    const weak = createDiagonalTransform({ ...parameters, sigma: parameters.sigma.map((sigma) => factor * sigma) });
    const results = await checkMechanism(noiser(weak, 7), parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toContain('variance');
    expect(failed(results)).toContain('variance by channel');
  });

  it('rejects noise that is too small in one channel only', async () => {
    const sigma = parameters.sigma.slice();
    sigma[3] = 0.9 * (sigma[3] as number);
    const weak = createDiagonalTransform({ ...parameters, sigma });
    const results = await checkMechanism(noiser(weak, 8), parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toContain('variance by channel');
  });

  it('rejects noise that is off the mean by σ/25', async () => {
    const shifted = { ...parameters, mean: parameters.mean.map((mean) => mean + 0.6 / 25) };
    const own = noiser(createDiagonalTransform(shifted), 9);
    expect(failed(await checkMechanism(own, parameters, activation, { falseAlarmRate: RATE }))).toContain('mean');
  });

  it('rejects one ε for a whole batch', async () => {
    const shared: Mechanism = (() => {
      const keys = createReplayKeys(crypto, bundleHash, seed(10));
      return async (batch: Tensor<'float32'>) => {
        const key = await keys.next([C, H, W]);
        const memory = new Uint8Array(C * Math.ceil((H * W) / 8) * 32);
        await key.fill(memory);
        return withKeystream(async () => played(memory))(batch);
      };
    })();
    const results = await checkMechanism(shared, parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toContain('independence of samples');
    expect(failed(results)).not.toContain('independence of rounds');
  });

  it('rejects a release counter that is stuck: the same ε in every round', async () => {
    const stuck: Mechanism = (batch) => noiser(transform, 11)(batch);
    const results = await checkMechanism(stuck, parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toEqual(['independence of rounds']);
  });

  it('rejects a block counter that is stuck: the same keystream again within a release', async () => {
    let number = 0;
    const repeating = withKeystream(async () => {
      const own = new Uint8Array(32 * 100);
      const key = hkdfSync('sha256', seed(12), '', `${number++}`, 32);
      crypto.aes256Ctr(new Uint8Array(key), new Uint8Array(16)).fill(own);
      return played(own);
    });
    const results = await checkMechanism(repeating, parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toContain('autocorrelation');
  });

  it('rejects keystream of which every second word is a copy of the one before', async () => {
    let number = 0;
    const copying = withKeystream(async () => {
      const own = new Uint32Array(8 * C * Math.ceil((H * W) / 8));
      const key = new Uint8Array(hkdfSync('sha256', seed(13), '', `${number++}`, 32));
      crypto.aes256Ctr(key, new Uint8Array(16)).fill(new Uint8Array(own.buffer));
      for (let i = 0; i < own.length; i += 2) own[i + 1] = own[i] as number;
      return played(new Uint8Array(own.buffer));
    });
    const results = await checkMechanism(copying, parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toContain('autocorrelation of magnitudes');
  });

  it('rejects tails cut off at 3σ', async () => {
    const honest = noiser(transform, 14);
    const cut: Mechanism = async (batch) =>
      (await honest(batch)).map((release, n) => {
        const payload = release.payload.slice();
        for (let i = 0; i < payload.length; i++) {
          const c = Math.floor(i / (H * W));
          const step = release.steps[c] as number;
          const centre = 0.9 * (batch.data[n * payload.length + i] as number) + (parameters.mean[c] as number);
          const limit = 3 * (parameters.sigma[c] as number);
          const [low, high] = [Math.round((centre - limit) / step), Math.round((centre + limit) / step)];
          payload[i] = Math.min(Math.max(payload[i] as number, low), high);
        }
        return { ...release, payload };
      });
    const results = await checkMechanism(cut, parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results)).toContain('bins and tails (chi-square)');
  });

  it('rejects no noise at all', async () => {
    const none: Mechanism = async ({ data }) =>
      Array.from({ length: N }, (_, n) => ({
        shape: [1, C, H, W],
        payload: Int16Array.from(data.subarray(n * C * H * W, (n + 1) * C * H * W), (z) => Math.round(z * 128)),
        steps: transform.steps,
        sentChannels: undefined,
      }));
    const results = await checkMechanism(none, parameters, activation, { falseAlarmRate: RATE });
    expect(failed(results).length).toBeGreaterThan(4);
  });

  it('wants two samples, two rounds, and releases that fit', async () => {
    const one = float32([1, C, H, W], activation.data.subarray(0, C * H * W));
    await expect(checkMechanism(noiser(transform, 1), parameters, one)).rejects.toThrow('1 samples');
    await expect(checkMechanism(noiser(transform, 1), parameters, activation, { rounds: 1 })).rejects.toThrow(
      '1 rounds',
    );
    await expect(checkMechanism(async () => [], parameters, activation)).rejects.toThrow('0 samples came back');
  });
});

describe('checkSeedSpace', () => {
  it('finds no two of 2¹⁶ keys of a session alike, where 30-bit seeds would collide twice', async () => {
    const keys = createReplayKeys(crypto, bundleHash, seed(15));
    // Id and key are outputs of one derivation; keystream.test.ts holds both against it.
    const draw = async (): Promise<Uint8Array> => fromHex((await keys.next([C, H, W])).id);
    const result = await checkSeedSpace(draw, 2 ** 16);
    expect(result).toMatchObject({ pass: true, statistic: 0, threshold: 0, samples: 2 ** 16 });
    expect(result.falseAlarmRate).toBeLessThan(1e-9);
  });

  it('rejects noise from generators with 32-bit seeds: 8 of 2¹⁸ are expected to collide', async () => {
    // The seeds themselves are as random as can be.
    const seeds = new Uint32Array(2 ** 18);
    crypto.aes256Ctr(seed(17), new Uint8Array(16)).fill(new Uint8Array(seeds.buffer));
    const draw = (n: number): Uint8Array => {
      let state = seeds[n] as number;
      return Uint8Array.from({ length: 16 }, () => {
        state = (Math.imul(state, 1664525) + 1013904223) | 0;
        return state >>> 24;
      });
    };
    const result = await checkSeedSpace(draw, seeds.length);
    expect(result.pass).toBe(false);
    expect(result.statistic).toBeGreaterThan(1);
    expect(result.statistic).toBeLessThan(25);
  });

  it('takes released values as well, from a noiser that is seen from outside only', async () => {
    const one = createReplayNoiser({ ...optionsFor(transform), seedKey: seed(16) });
    const pixel = float32([1, C, 2, 1], new Float32Array(2 * C));
    const good = await checkSeedSpace(async () => (await one.release(pixel)).payload, 2 ** 12);
    expect(good.pass).toBe(true);
    // 150 stored noises picked at will: 7 bits.
    const few = (n: number) =>
      createReplayNoiser({ ...optionsFor(transform), seedKey: seed((n * 89) % 150) }).release(pixel);
    const bad = await checkSeedSpace(async (n) => (await few(n)).payload, 300);
    expect(bad.statistic).toBe(150);
  });
});

/** Plays `bytes` as keystream, over and over. */
function played(bytes: Uint8Array): Keystream {
  let at = 0;
  return {
    fill(out) {
      for (let i = 0; i < out.length; i++) out[i] = bytes[at++ % bytes.length] as number;
    },
  };
}
