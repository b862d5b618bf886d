/**
 * The signal of a release: what the noise is added to.
 *
 * Element i of an activation z contributes s = round(m·clip(z)/step)·step, the value the release kernel computes
 * before it adds noise of standard deviation σ. Its range follows from the public clipping range. Everything that comes
 * after the noise (the clamp to the grid, the payload's form) can only lower what a release tells.
 */
import { assertArgument } from '../errors.js';
import { createDiagonalTransform, type DiagonalParameters } from '../noise/diagonal.js';
import { quantiseValue } from '../noise/grid.js';
import { expectType, type Tensor } from '../tensor.js';

/** Computes signals of one transform. */
export interface ReleasedSignal {
  readonly parameters: DiagonalParameters;
  /** Channels that are sent. */
  readonly sent: Int32Array;
  /** Width of the public range of the signal, by channel or element as the parameters are; 0 where suppressed. */
  readonly range: Float64Array;
  /** Its middle. */
  readonly middle: Float64Array;
  /** Index into the parameters of element `at` of an activation with `positions` positions. */
  entryOf(at: number, positions: number): number;
  /**
   * The signal of one activation, 0 in channels that are not sent.
   * @param activation float32 [1, C, H, W], or what else the transform takes
   * @throws ScrimError INVALID_ARGUMENT for a shape that does not fit, or NaN
   */
  read(activation: Tensor): { readonly values: Float32Array; readonly positions: number };
}

/**
 * Prepares the signal of one transform.
 * @param bound largest magnitude that the head can make by construction, as a bottleneck's c·tanh; default: none
 * @throws ScrimError INVALID_ARGUMENT for parameters that are wrong
 */
export function createReleasedSignal(
  parameters: DiagonalParameters,
  bound: number = Number.POSITIVE_INFINITY,
): ReleasedSignal {
  const transform = createDiagonalTransform(parameters, { kernel: 'plain' });
  const { channels, steps } = transform;
  const { kind, gain, clipLow, clipHigh } = parameters;
  const sent = transform.sentChannels ?? Int32Array.from({ length: channels }, (_, c) => c);
  const range = new Float64Array(gain.length);
  const middle = new Float64Array(gain.length);
  const each = gain.length / channels;
  for (const [index, c] of sent.entries()) {
    const step = steps[index] as number;
    const [low, high] = [clipLow[c] as number, clipHigh[c] as number];
    for (let i = c * each; i < (c + 1) * each; i++) {
      const m = Math.fround((gain[i] as number) / step);
      const ends = [Math.max(low, -bound), Math.min(high, bound)].map(
        (end) => quantiseValue(end, m, low, high) * step,
      ) as [number, number];
      range[i] = ends[1] - ends[0];
      middle[i] = (ends[0] + ends[1]) / 2;
    }
  }
  const entryOf = (at: number, positions: number): number => (kind === 'per-channel' ? Math.floor(at / positions) : at);
  const read: ReleasedSignal['read'] = (activation) => {
    const { data, shape } = expectType(activation, 'float32', 'the activation');
    transform.expectShape(shape);
    assertArgument(shape[0] === 1, `the activation holds ${shape[0]} samples, expected 1`);
    const positions = data.length / channels;
    const values = new Float32Array(data.length);
    for (const [index, c] of sent.entries()) {
      const step = steps[index] as number;
      const [low, high] = [clipLow[c] as number, clipHigh[c] as number];
      for (let at = c * positions; at < (c + 1) * positions; at++) {
        const m = Math.fround((gain[entryOf(at, positions)] as number) / step);
        values[at] = quantiseValue(data[at] as number, m, low, high) * step;
      }
    }
    assertArgument(!values.some(Number.isNaN), 'the activation holds a value that is not a number');
    assertArgument(
      bound === Number.POSITIVE_INFINITY || data.every((value) => Math.abs(value) <= bound),
      `the head makes values beyond ±${bound}, which it should not be able to`,
    );
    return { values, positions };
  };
  return { parameters, sent, range, middle, entryOf, read };
}
