import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createDiagonalTransform, type DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom, type FitRandom } from '../noise/fit/fit-random.js';
import { createReplayNoiser } from '../noise/release.js';
import { float32, type Tensor } from '../tensor.js';
import { inferenceOdds } from './inference-odds.js';
import { informationLimit } from './information-limit.js';
import { createReferenceLimit } from './reference-limit.js';
import { createReleasedSignal } from './released-signal.js';
import { createSignalStatistics, meanLimit } from './signal-variance.js';

/** Per channel: gain, σ, and a range of ±`reach`. */
function parametersOf(gain: readonly number[], sigma: readonly number[], reach = 6): DiagonalParameters {
  const channels = gain.length;
  const fill = (value: number): Float32Array => new Float32Array(channels).fill(value);
  return {
    kind: 'per-channel',
    shape: [channels],
    gain: Float32Array.from(gain),
    mean: fill(0),
    sigma: Float32Array.from(sigma),
    clipLow: fill(-reach),
    clipHigh: fill(reach),
    variance: fill(1),
  };
}

function gaussianActivation(random: FitRandom, deviations: readonly number[], positions: number): Tensor {
  const data = new Float32Array(deviations.length * positions);
  random.normal(data);
  for (let i = 0; i < data.length; i++) {
    data[i] = (data[i] as number) * (deviations[Math.floor(i / positions)] as number);
  }
  return float32([1, deviations.length, 1, positions], data);
}

/** All three limits after `inputs` inputs of independent Gaussian elements, and the capacity they must stay above. */
function run(
  releases: number,
  inputs: number,
): Record<'exact' | 'plain' | 'byVariance' | 'byReference' | 'worst', number> {
  const parameters = parametersOf([1, 2, 0], [0.5, 4, 1]);
  const deviations = [0.5, 1, 1];
  const positions = 16;
  const signal = createReleasedSignal(parameters);
  const statistics = createSignalStatistics(signal);
  const random = createFitRandom(`information/${releases}`);
  let reference: ReturnType<typeof createReferenceLimit> | undefined;
  for (let k = 0; k < inputs; k++) {
    if (k === Math.floor(inputs / 3)) reference = createReferenceLimit(signal, statistics, releases);
    const values = signal.read(gaussianActivation(random, deviations, positions));
    statistics.add(values);
    reference?.add(values);
  }
  const { estimate, limit, worst } = statistics.variances(0.025);
  const capacity = (snr: number): number => 0.5 * Math.log(1 + releases * snr) * positions;
  return {
    // Gaussian inputs reach capacity: ½ ln(1 + n m²λ/σ²) for each element.
    exact: capacity(1) + capacity(4 / 16),
    plain: informationLimit(parameters, estimate, positions, releases),
    byVariance: informationLimit(parameters, limit, positions, releases),
    byReference: reference?.limit(0.025) ?? 0,
    worst: informationLimit(parameters, worst, positions, releases),
  };
}

describe('information of releases', () => {
  it('agrees with the capacity of parallel Gaussian channels, and its limits lie above', () => {
    for (const releases of [1, 5]) {
      const { exact, plain, byVariance, byReference, worst } = run(releases, 3000);
      expect(plain / exact).toBeCloseTo(1, 1);
      expect(byVariance).toBeGreaterThan(exact);
      expect(byReference).toBeGreaterThan(exact);
      expect(byReference).toBeLessThan(exact * 1.25);
      expect(worst).toBeGreaterThan(byReference);
    }
  });

  it('bounds what the best attacker on real releases guesses, after one and after three (1,000 draws each)', async () => {
    // A coin decides the sign of eight values of 0.3; with noise of σ = 1 the sum of what is released tells best.
    const [positions, amplitude, draws] = [8, 0.3, 1000];
    const parameters = parametersOf([1], [1]);
    const noiser = createReplayNoiser({
      transform: createDiagonalTransform(parameters),
      bundleHash: '0'.repeat(64),
      alpha: 0.5,
      crypto: createNodeCrypto(),
      seedKey: new Uint8Array(32).fill(9),
    });
    const random = createFitRandom('coins');
    for (const releases of [1, 3]) {
      let right = 0;
      for (let k = 0; k < draws; k++) {
        const sign = random.integer(2) === 0 ? 1 : -1;
        const activation = float32([1, 1, 1, positions], new Float32Array(positions).fill(sign * amplitude));
        let sum = 0;
        for (let n = 0; n < releases; n++) for (const step of (await noiser.release(activation)).payload) sum += step;
        if (Math.sign(sum) === sign) right++;
      }
      const nats = informationLimit(parameters, Float64Array.of(amplitude ** 2), positions, releases);
      const { posterior, vacuous } = inferenceOdds(0.5, nats);
      expect(vacuous).toBe(releases === 3);
      expect(right / draws).toBeLessThan(posterior + 4 * Math.sqrt(0.25 / draws));
      // The attacker is alive: Φ(0.3·√(8n)) is 0.80 and 0.93.
      expect(right / draws).toBeGreaterThan(0.75);
    }
    noiser.close();
  });

  it('grows slower than the number of releases', () => {
    const one = run(1, 30).worst;
    const ten = run(10, 30).worst;
    expect(ten).toBeGreaterThan(one);
    expect(ten).toBeLessThan(10 * one);
  });

  it('counts nothing for suppressed channels', () => {
    const signal = createReleasedSignal(parametersOf([0, 1], [1, 1]));
    expect([...signal.sent]).toEqual([1]);
    expect(signal.range[0]).toBe(0);
    const { values } = signal.read(float32([1, 2, 1, 2], [5, 5, 1, -1]));
    expect([...values]).toEqual([0, 0, 1, -1]);
  });

  it('reads the signal as the kernel does: clipped, scaled, on the grid', () => {
    const signal = createReleasedSignal(parametersOf([2], [1], 3));
    const { values } = signal.read(float32([1, 1, 1, 3], [100, -100, 0.3]));
    expect(values[0]).toBe(6);
    expect(values[1]).toBe(-6);
    expect(Math.abs((values[2] as number) - 0.6)).toBeLessThanOrEqual(1 / 128);
    expect(signal.range[0]).toBe(12);
    expect(() => signal.read(float32([1, 1, 1, 1], [Number.NaN]))).toThrow(/not a number/);
  });

  it('keeps variance limits that fail seldom even for rare large values (1,000 repetitions)', () => {
    // z is 6 with probability 1/200, else 0: the hardest kind, most samples show no variance at all.
    const parameters = parametersOf([1], [0.5]);
    const truth = 36 * (1 / 200) * (199 / 200);
    const random = createFitRandom('rare');
    const signal = createReleasedSignal(parameters);
    let failures = 0;
    for (let repetition = 0; repetition < 1000; repetition++) {
      const statistics = createSignalStatistics(signal);
      for (let k = 0; k < 50; k++) {
        statistics.add({ values: Float32Array.of(random.integer(200) === 0 ? 6 : 0), positions: 1 });
      }
      const { estimate, limit } = statistics.variances(0.1);
      expect(limit[0]).toBeGreaterThanOrEqual(estimate[0] as number);
      if ((limit[0] as number) < truth) failures++;
    }
    expect(failures).toBeLessThanOrEqual(100);
  });

  it('keeps limits of a mean that fail seldom', () => {
    const random = createFitRandom('mean');
    let failures = 0;
    for (let repetition = 0; repetition < 1000; repetition++) {
      const values = Array.from({ length: 60 }, () => (random.uniform() < 0.02 ? 1 : 0.1 * random.uniform()));
      if (meanLimit(values, 1, 0.1) < 0.02 + 0.98 * 0.05) failures++;
    }
    expect(failures).toBeLessThanOrEqual(100);
  });

  it('refuses activations of other sizes and too few inputs', () => {
    const signal = createReleasedSignal(parametersOf([1], [1]));
    const statistics = createSignalStatistics(signal);
    statistics.add(signal.read(float32([1, 1, 1, 2], [1, 2])));
    expect(() => statistics.add(signal.read(float32([1, 1, 1, 3], [1, 2, 3])))).toThrow(
      /3 positions, the ones before it 2/,
    );
    expect(() => statistics.variances(0.05)).toThrow(/at least 2/);
    expect(() => signal.read(float32([2, 1, 1, 1], [1, 2]))).toThrow(/2 samples, expected 1/);
  });
});
