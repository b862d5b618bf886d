/**
 * Statistical checks of a release mechanism from outside: is the noise Gaussian, of the size it should be, and
 * independent of everything else?
 *
 * The checker knows the parameters and the activation, so it knows the distribution of every released value exactly,
 * rounding and clamping included. The probability integral transform with a random place inside each step (Rosenblatt
 * 1952; Smith 1985) turns values into uniform scores u and normal scores w = Φ⁻¹(u), independent if the mechanism is
 * right. Each check compares one statistic with the threshold that a right mechanism passes with the stated
 * probability (asymptotic in the number of values, of which there should be 10⁴ or more).
 */
import { assertArgument, ScrimError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import type { DiagonalParameters } from './diagonal.js';
import { quantiseValue } from './grid.js';
import type { Awaitable } from './noise-crypto.js';
import { chiSquareToNormal, normalCdf, normalQuantile } from './normal-distribution.js';

/** The part of a release that can be seen from outside. */
export interface ReleasedGrid {
  /** [1, sent channels, H, W]. */
  readonly shape: readonly number[];
  readonly payload: Int16Array;
  readonly steps: Float32Array;
  readonly sentChannels: Int32Array | undefined;
}

/** Something that releases each sample of [N, C, H, W]; a noiser's releaseBatch is one. */
export type Mechanism = (activation: Tensor<'float32'>) => Promise<readonly ReleasedGrid[]>;

/** Outcome of one check. */
export interface CheckResult {
  readonly name: string;
  /** What was compared with the threshold; comparable between runs of the same size. */
  readonly statistic: number;
  /** The check passes if the statistic is not above this. */
  readonly threshold: number;
  /** Probability that a right mechanism fails this check. */
  readonly falseAlarmRate: number;
  /** Values, pairs or draws that went into the statistic. */
  readonly samples: number;
  readonly pass: boolean;
}

/** Settings of {@link checkMechanism}. */
export interface CheckOptions {
  /** How often the same activation is released; at least 2. Default 2. */
  readonly rounds?: number;
  /** False alarm rate of each check. Default 10⁻⁶. */
  readonly falseAlarmRate?: number;
  /** Seed of the random places inside steps. Default 1. */
  readonly seed?: number;
}

/** Scores of one sample: [sent channels · plane] each. */
interface Scores {
  readonly uniform: Float64Array;
  readonly normal: Float64Array;
}

/**
 * Runs every check on releases of `activation`.
 * @param parameters what the mechanism claims to do
 * @param activation [N, C, H, W] with N ≥ 2 samples
 * @returns one result for each of: mean, variance, variance by channel, distribution, bins and tails, autocorrelation,
 * autocorrelation of magnitudes, independence of samples, independence of rounds
 * @throws ScrimError INVALID_ARGUMENT if the activation or what was released does not fit the parameters
 */
export async function checkMechanism(
  mechanism: Mechanism,
  parameters: DiagonalParameters,
  activation: Tensor<'float32'>,
  options: CheckOptions = {},
): Promise<CheckResult[]> {
  const { rounds = 2, falseAlarmRate = 1e-6, seed = 1 } = options;
  const [samples = 0, channels = 0, height = 0, width = 0] = activation.shape;
  assertArgument(samples >= 2 && rounds >= 2, `${samples} samples and ${rounds} rounds, expected at least 2 of each`);
  assertArgument(
    activation.shape.length === 4 && channels === parameters.shape[0],
    `activation has shape [${activation.shape.join(', ')}], expected [N, ${parameters.shape[0]}, H, W]`,
  );
  const plane = height * width;
  const size = channels * plane;
  const uniforms = createUniforms(seed);
  const scores: Scores[][] = [];
  for (let round = 0; round < rounds; round++) {
    const releases = await mechanism(activation);
    assertArgument(releases.length === samples, `${releases.length} samples came back, expected ${samples}`);
    scores.push(
      releases.map((release, n) => {
        const sample = activation.data.subarray(n * size, (n + 1) * size);
        return scoreRelease(release, parameters, sample, plane, uniforms);
      }),
    );
  }

  const all = scores.flat();
  const byRound = scores.map((round) => round.map(({ normal }) => normal));
  return [
    checkMean(all, falseAlarmRate),
    checkVariance(all, falseAlarmRate),
    checkChannelVariance(all, plane, falseAlarmRate),
    checkDistribution(all, falseAlarmRate),
    checkBins(all, falseAlarmRate),
    checkAutocorrelation('autocorrelation', all, centred, falseAlarmRate),
    checkAutocorrelation('autocorrelation of magnitudes', all, folded, falseAlarmRate),
    checkPairs('independence of samples', byRound.flatMap(pairs), falseAlarmRate),
    checkPairs('independence of rounds', transpose(byRound).flatMap(pairs), falseAlarmRate),
  ];
}

/**
 * Looks for keys from a small space: draws that agree although each should have noise of its own. Draws from 2³² seeds
 * collide among 2¹⁸ with probability 1 − e⁻⁸, among 2¹⁹ with 1 − e⁻³².
 * @param draw noise of the n-th key: at least 8 bytes of keystream, or 16 values released from one and the same input
 * @returns the statistic is the number of draws seen before; its threshold is 0. The false alarm rate is n²/2⁶⁵
 */
export async function checkSeedSpace(
  draw: (n: number) => Awaitable<Uint8Array | Int16Array>,
  draws: number,
): Promise<CheckResult> {
  const seen = new Set<string>();
  for (let n = 0; n < draws; n++) {
    const drawn = await draw(n);
    assertArgument(
      drawn.length >= (drawn instanceof Int16Array ? 16 : 8),
      `a draw has ${drawn.length} elements, expected 8 bytes or 16 values`,
    );
    seen.add(String.fromCharCode(...drawn.subarray(0, 16)));
  }
  return result('size of the key space', draws - seen.size, 0, draws ** 2 / 2 ** 65, draws);
}

function result(
  name: string,
  statistic: number,
  threshold: number,
  falseAlarmRate: number,
  samples: number,
): CheckResult {
  return { name, statistic, threshold, falseAlarmRate, samples, pass: statistic <= threshold };
}

/** Threshold for the largest of `count` absolute values of standard normals (Bonferroni). */
function largestNormal(falseAlarmRate: number, count: number): number {
  return -normalQuantile(falseAlarmRate / (2 * count));
}

function scoreRelease(
  { payload, steps, sentChannels, shape }: ReleasedGrid,
  { gain, mean, sigma, clipLow, clipHigh, shape: own }: DiagonalParameters,
  sample: Float32Array,
  plane: number,
  uniforms: () => number,
): Scores {
  const channels = own[0] as number;
  const sent = sentChannels ?? Int32Array.from({ length: channels }, (_, c) => c);
  assertArgument(
    payload.length === sent.length * plane && steps.length === sent.length,
    `what was released has shape [${shape.join(', ')}], expected ${sent.length} channels of ${plane} values`,
  );
  const perElement = own.length === 3;
  const uniform: number[] = [];
  const normal: number[] = [];
  for (const [index, channel] of sent.entries()) {
    const step = steps[index] as number;
    const low = clipLow[channel] as number;
    const high = clipHigh[channel] as number;
    const lowest = Math.round(low / step);
    const highest = Math.round(high / step);
    // Per channel, the distribution of k − q is the same for all elements: remember its steps.
    let remembered = new Map<number, Edge>();
    for (let i = 0; i < plane; i++) {
      const at = perElement ? channel * plane + i : channel;
      const m = gain[at] as number;
      if (m === 0) continue;
      if (perElement) remembered = new Map();
      /** Where the integer n of the noise begins. */
      const edge = (n: number): Edge => {
        let found = remembered.get(n);
        if (found === undefined) {
          const x = (n - 0.5 - (mean[at] as number) / step) / ((sigma[at] as number) / step);
          found = { x, tail: normalCdf(-Math.abs(x)) };
          remembered.set(n, found);
        }
        return found;
      };
      const k = payload[index * plane + i] as number;
      const q = quantiseValue(sample[channel * plane + i] as number, Math.fround(m / step), low, high);
      const from = k <= lowest ? BOTTOM : edge(k - q);
      const to = k >= highest ? TOP : edge(k - q + 1);
      const place = uniforms();
      if (from.x > 0) {
        // Reckon in the upper tail, where small probabilities keep their digits.
        const tail = to.tail + place * (from.tail - to.tail);
        uniform.push(1 - tail);
        normal.push(-boundedQuantile(tail));
      } else {
        const end = to.x > 0 ? 1 - to.tail : to.tail;
        const score = from.tail + place * (end - from.tail);
        uniform.push(score);
        normal.push(boundedQuantile(score));
      }
    }
  }
  if (uniform.length < 2) throw new ScrimError('INVALID_ARGUMENT', 'nothing was released that has noise');
  return { uniform: Float64Array.from(uniform), normal: Float64Array.from(normal) };
}

/** Place of an edge in units of σ, and the probability of the tail beyond it. */
interface Edge {
  readonly x: number;
  readonly tail: number;
}

const BOTTOM: Edge = { x: Number.NEGATIVE_INFINITY, tail: 0 };
const TOP: Edge = { x: Number.POSITIVE_INFINITY, tail: 0 };

/** Φ⁻¹, finite: an impossible value becomes a very improbable one and fails the checks as it should. */
function boundedQuantile(p: number): number {
  return normalQuantile(Math.min(Math.max(p, 1e-300), 1 - 2 ** -53));
}

function checkMean(all: readonly Scores[], rate: number): CheckResult {
  let [sum, count] = [0, 0];
  for (const { normal } of all) {
    for (const w of normal) sum += w;
    count += normal.length;
  }
  return result('mean', Math.abs(sum) / Math.sqrt(count), largestNormal(rate, 1), rate, count);
}

function checkVariance(all: readonly Scores[], rate: number): CheckResult {
  let [sum, count] = [0, 0];
  for (const { normal } of all) {
    for (const w of normal) sum += w * w;
    count += normal.length;
  }
  return result('variance', Math.abs(chiSquareToNormal(sum, count)), largestNormal(rate, 1), rate, count);
}

/** The largest deviation of the variance within runs of `plane` scores; channels, unless elements are suppressed. */
function checkChannelVariance(all: readonly Scores[], plane: number, rate: number): CheckResult {
  const channels = Math.ceil((all[0] as Scores).normal.length / plane);
  let [largest, count] = [0, 0];
  for (let c = 0; c < channels; c++) {
    let [sum, degrees] = [0, 0];
    for (const { normal } of all) {
      const part = normal.subarray(c * plane, (c + 1) * plane);
      for (const w of part) sum += w * w;
      degrees += part.length;
    }
    largest = Math.max(largest, Math.abs(chiSquareToNormal(sum, degrees)));
    count += degrees;
  }
  return result('variance by channel', largest, largestNormal(rate, channels), rate, count);
}

/** Kolmogorov and Smirnov: √n times the largest distance between the distribution of u and the diagonal. */
function checkDistribution(all: readonly Scores[], rate: number): CheckResult {
  const sorted = Float64Array.from(all.flatMap(({ uniform }) => [...uniform])).sort();
  const n = sorted.length;
  let distance = 0;
  for (let i = 0; i < n; i++) {
    const u = sorted[i] as number;
    distance = Math.max(distance, (i + 1) / n - u, u - i / n);
  }
  return result(
    'distribution (Kolmogorov-Smirnov)',
    distance * Math.sqrt(n),
    Math.sqrt(-Math.log(rate / 2) / 2),
    rate,
    n,
  );
}

/** Chi-square over bins of half a σ, from the middle out into the tails as far as 10 values are expected in the last. */
function checkBins(all: readonly Scores[], rate: number): CheckResult {
  const count = all.reduce((sum, { normal }) => sum + normal.length, 0);
  const edges: number[] = [];
  for (let edge = 0; count * normalCdf(-edge) >= 10; edge += 0.5) edges.push(edge);
  const last = edges.length - 1;
  const found = new Float64Array(2 * edges.length);
  for (const { normal } of all) {
    for (const w of normal) {
      const bin = Math.min(Math.floor(Math.abs(w) / 0.5), last);
      const side = w < 0 ? 2 * bin : 2 * bin + 1;
      found[side] = (found[side] as number) + 1;
    }
  }
  let sum = 0;
  for (const [side, observed] of found.entries()) {
    const bin = Math.floor(side / 2);
    const outer = bin === last ? 0 : normalCdf(-(edges[bin + 1] as number));
    const expected = count * (normalCdf(-(edges[bin] as number)) - outer);
    sum += (observed - expected) ** 2 / expected;
  }
  return result(
    'bins and tails (chi-square)',
    chiSquareToNormal(sum, found.length - 1),
    -normalQuantile(rate),
    rate,
    count,
  );
}

/** u with mean 0 and variance 1. */
function centred(u: number): number {
  return Math.sqrt(12) * (u - 0.5);
}

/** |w| as such a score: large where the value is in either tail. */
function folded(u: number): number {
  return Math.sqrt(12) * (Math.abs(2 * u - 1) - 0.5);
}

/** The largest correlation of scores within a sample at any lag up to half its length, by fast Fourier transform. */
function checkAutocorrelation(
  name: string,
  all: readonly Scores[],
  score: (u: number) => number,
  rate: number,
): CheckResult {
  const length = (all[0] as Scores).uniform.length;
  const size = 2 ** Math.ceil(Math.log2(2 * length));
  const power = new Float64Array(size);
  for (const { uniform } of all) {
    const real = new Float64Array(size);
    const imaginary = new Float64Array(size);
    for (let i = 0; i < length; i++) real[i] = score(uniform[i] as number);
    fourierTransform(real, imaginary);
    for (let i = 0; i < size; i++) {
      power[i] = (power[i] as number) + (real[i] as number) ** 2 + (imaginary[i] as number) ** 2;
    }
  }
  fourierTransform(power, new Float64Array(size));
  const lags = Math.floor(length / 2);
  let largest = 0;
  for (let lag = 1; lag <= lags; lag++) {
    const sum = (power[lag] as number) / size;
    largest = Math.max(largest, Math.abs(sum) / Math.sqrt(all.length * (length - lag)));
  }
  return result(name, largest, largestNormal(rate, lags), rate, all.length * length);
}

/** The largest correlation of w between two samples, element by element. */
function checkPairs(
  name: string,
  compared: readonly (readonly [Float64Array, Float64Array])[],
  rate: number,
): CheckResult {
  let [largest, count] = [0, 0];
  for (const [a, b] of compared) {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
    largest = Math.max(largest, Math.abs(sum) / Math.sqrt(a.length));
    count += a.length;
  }
  return result(name, largest, largestNormal(rate, compared.length), rate, count);
}

function pairs<T>(items: readonly T[]): [T, T][] {
  return items.flatMap((a, i) => items.slice(i + 1).map((b): [T, T] => [a, b]));
}

function transpose<T>(rows: readonly (readonly T[])[]): T[][] {
  return (rows[0] ?? []).map((_, i) => rows.map((row) => row[i] as T));
}

/** Discrete Fourier transform in place; the length is a power of two (Cooley & Tukey 1965). */
function fourierTransform(real: Float64Array, imaginary: Float64Array): void {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j] as number, real[i] as number];
      [imaginary[i], imaginary[j]] = [imaginary[j] as number, imaginary[i] as number];
    }
  }
  const cosines = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
  const sines = Float64Array.from({ length: size / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
  for (let half = 1; half < size; half *= 2) {
    const stride = size / (2 * half);
    for (let start = 0; start < size; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const [low, high] = [start + k, start + k + half];
        const c = cosines[k * stride] as number;
        const s = sines[k * stride] as number;
        const re = (real[high] as number) * c - (imaginary[high] as number) * s;
        const im = (real[high] as number) * s + (imaginary[high] as number) * c;
        real[high] = (real[low] as number) - re;
        imaginary[high] = (imaginary[low] as number) - im;
        real[low] = (real[low] as number) + re;
        imaginary[low] = (imaginary[low] as number) + im;
      }
    }
  }
}

/** Uniforms in (0, 1) for places inside steps (SplitMix32): no noise is made from them, they only need to be even. */
function createUniforms(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32 + 2 ** -33;
  };
}
