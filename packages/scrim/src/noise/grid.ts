/**
 * The public grid that a release lies on, and one value's way onto it: the plain twin of the WebAssembly kernel.
 *
 *   q = round(m·clip(z, low, high)/step),  n = round(μ/step + ε·σ/step),  k = clamp(q + n, gridLow, gridHigh)
 *
 * n is an integer made without looking at the input, and q + n is exact: which values can come out, and how they
 * were rounded, says nothing about z (Mironov, CCS 2012). Rounding and clamping to the public range of the clean
 * activation come after the noise, so every bound on z′ = m·z + μ + σ·ε holds for k·step too.
 *
 * step is the largest power of two ≤ σ/64, σ being the smallest of the channel. It is public, as the range is.
 * Where [low, high]/step would not fit Int16, the step is doubled until it does, but never above σ: a coarse grid
 * costs accuracy, not privacy (q is still a function of z, and its noise still at least σ). Rounding is half to
 * even in float32 by adding 1.5·2²³, hence exact below 2²² steps; {@link planGrid} makes sure of that.
 */
import { ScrimError } from '../errors.js';

/** 1.5·2²³: adding it to a float32 below 2²² rounds it to an integer. */
const INTEGERS = 12582912;
/** Largest number of steps that q and n may have each. */
const MAX_STEPS = 2 ** 21;
/** No normal is larger; see gaussian.ts. */
const LARGEST_NORMAL = 7.9;
const FINENESS = 64;

/** What a channel needs of its parameters to be put on a grid. */
export interface GridInput {
  /** For messages. */
  readonly channel: number;
  /** Public range of the clean activation. */
  readonly clipLow: number;
  readonly clipHigh: number;
  /** Largest m, and the smallest and largest σ and the largest |μ| among the elements that are not suppressed. */
  readonly largestGain: number;
  readonly smallestSigma: number;
  readonly largestSigma: number;
  readonly largestMean: number;
}

/** The grid of one channel: the multiples of `step` from `low` to `high` (in steps). */
export interface ChannelGrid {
  /** Distance of two neighbours: a power of two. */
  readonly step: number;
  /** Smallest and largest value that comes out, in steps; both fit Int16. */
  readonly low: number;
  readonly high: number;
}

/**
 * Chooses the grid of a channel.
 * @throws ScrimError INVALID_ARGUMENT if no grid is as fine as σ and has at most 2¹⁶ values, or gain or mean are too large
 */
export function planGrid(input: GridInput): ChannelGrid {
  const { channel, clipLow, clipHigh, largestGain, smallestSigma, largestSigma, largestMean } = input;
  let step = 2 ** Math.floor(Math.log2(smallestSigma / FINENESS));
  // Math.log2 may be off by one place at exact powers of two.
  if (step > smallestSigma / FINENESS) step /= 2;
  while (Math.round(clipLow / step) < -32768 || Math.round(clipHigh / step) > 32767) step *= 2;
  const largest = Math.max(Math.abs(clipLow), Math.abs(clipHigh)) * largestGain;
  const noise = largestMean + LARGEST_NORMAL * largestSigma;
  if (step > smallestSigma || largest / step > MAX_STEPS || noise / step > MAX_STEPS || step < 2 ** -100) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `channel ${channel}: the ranges of activation, gain and mean are too wide for its smallest sigma`,
      { details: { channel, sigmaPerStep: smallestSigma / step } },
    );
  }
  return { step, low: Math.round(clipLow / step), high: Math.round(clipHigh / step) };
}

/** Parameters of one channel in steps: gain = m/step, scale = −σ/step, offset = −μ/step, all float32. */
export interface ChannelParameters {
  readonly gain: number;
  readonly scale: number;
  readonly offset: number;
  readonly clipLow: number;
  readonly clipHigh: number;
  readonly gridLow: number;
  readonly gridHigh: number;
}

/** The activation on the grid: round(clip(z)·gain) in steps, whose ties go to even. NaN gives NaN. */
export function quantiseValue(z: number, gain: number, clipLow: number, clipHigh: number): number {
  const clipped = Math.max(Math.min(z, clipHigh), clipLow);
  return Math.fround(Math.fround(clipped * gain) + INTEGERS) - INTEGERS;
}

/**
 * Puts one float32 value on its grid. NaN gives NaN.
 * @param epsilon a standard normal; `scale` and `offset` are negative, see {@link ChannelParameters}
 */
export function releaseValue(
  z: number,
  epsilon: number,
  gain: number,
  scale: number,
  offset: number,
  { clipLow, clipHigh, gridLow, gridHigh }: ChannelParameters,
): number {
  const fround = Math.fround;
  const minusNoise = fround(fround(fround(epsilon * scale) + offset) + INTEGERS) - INTEGERS;
  const k = quantiseValue(z, gain, clipLow, clipHigh) - minusNoise;
  return Math.max(Math.min(k, gridHigh), gridLow);
}

/** values[to + i] = grid[from + i]·step for `count` of them: exact, since steps are powers of two. */
export function dequantise(
  grid: Int16Array,
  from: number,
  values: Float32Array,
  to: number,
  count: number,
  step: number,
): void {
  for (let i = 0; i < count; i++) values[to + i] = (grid[from + i] as number) * step;
}
