/**
 * How much the released signal varies from input to input, with upper limits that hold at a stated confidence.
 *
 * Inputs are the independent samples, not positions. Per channel, λ is the mean over positions of the variance over
 * inputs. Upper limit: A. Maurer, M. Pontil, "Empirical Bernstein Bounds and Sample-Variance Penalization" (COLT 2009),
 * Theorem 10, √λ ≤ √V + R·√(2 ln(1/δ)/(n−1)), R the range; the proof asks for a self-bounding function, and a mean of
 * such functions over positions is one too. δ is shared out over channels (or elements). Popoviciu's λ ≤ R²/4 needs
 * no sample and holds for any inputs.
 */
import { assertArgument } from '../errors.js';
import type { ReleasedSignal } from './released-signal.js';

/** Variances of the signal. Arrays have one entry per channel, or per element for a transform per element. */
export interface SignalVariances {
  /** Independent inputs they were estimated from. */
  readonly inputs: number;
  /** Positions H·W of one activation. */
  readonly positions: number;
  /** Sample variance over inputs, per channel its mean over positions. 0 where suppressed. */
  readonly estimate: Float64Array;
  /** Upper confidence limits, which all hold at once but for a probability of `failure`; never above `worst`. */
  readonly limit: Float64Array;
  /** Largest variance that any distribution on the public range has. */
  readonly worst: Float64Array;
}

/** Gathers signals. */
export interface SignalStatistics {
  /** How many inputs were added. */
  readonly inputs: number;
  /**
   * Adds the signal of one input.
   * @param values as {@link ReleasedSignal.read} gives them
   * @throws ScrimError INVALID_ARGUMENT for another number of positions than before
   */
  add(signal: { readonly values: Float32Array; readonly positions: number }): void;
  /** A copy of the means over inputs, by element of an activation. */
  means(): Float64Array;
  /**
   * Variances over what was added.
   * @param failure probability in (0, 1) that a limit may be too low
   * @throws ScrimError INVALID_ARGUMENT for fewer than two inputs
   */
  variances(failure: number): SignalVariances;
}

/** Starts empty statistics. */
export function createSignalStatistics(signal: ReleasedSignal): SignalStatistics {
  const { range, sent, parameters } = signal;
  const squares = new Float64Array(range.length);
  const worst = range.map((r) => (r * r) / 4);
  let inputs = 0;
  let positions = 0;
  let mean = new Float64Array(0);
  return {
    get inputs() {
      return inputs;
    },
    add: ({ values, positions: found }) => {
      if (inputs === 0) {
        positions = found;
        mean = new Float64Array(values.length);
      }
      assertArgument(
        found === positions,
        `the activation has ${found} positions, the ones before it ${positions}: use inputs of one size`,
      );
      inputs++;
      for (const c of sent) {
        for (let at = c * positions; at < (c + 1) * positions; at++) {
          const entry = signal.entryOf(at, positions);
          const s = values[at] as number;
          // Welford: the sum of squares grows by (s − old mean)(s − new mean).
          const difference = s - (mean[at] as number);
          mean[at] = (mean[at] as number) + difference / inputs;
          squares[entry] = (squares[entry] as number) + difference * (s - (mean[at] as number));
        }
      }
    },
    means: () => mean.slice(),
    variances: (failure) => {
      assertArgument(inputs >= 2, `there are ${inputs} inputs, expected at least 2 to estimate a variance`);
      const perEntry = parameters.kind === 'per-channel' ? positions : 1;
      const varying = range.reduce((count, r) => (r > 0 ? count + 1 : count), 0);
      const slack = deviationSlack(inputs, failure / Math.max(1, varying));
      const estimate = squares.map((sum) => sum / perEntry / (inputs - 1));
      const limit = estimate.map((v, i) =>
        Math.min(worst[i] as number, (Math.sqrt(v) + (range[i] as number) * slack) ** 2),
      );
      return { inputs, positions, estimate, limit, worst };
    },
  };
}

/**
 * How far a standard deviation may lie above its estimate from `inputs` samples, in units of the range, but for a
 * probability of `failure`: √(2 ln(1/δ)/(n−1)).
 * @throws ScrimError INVALID_ARGUMENT unless 0 < failure < 1 and there are two samples
 */
export function deviationSlack(inputs: number, failure: number): number {
  assertArgument(inputs >= 2 && failure > 0 && failure < 1, 'expected two samples and a failure between 0 and 1');
  return Math.sqrt((2 * Math.log(1 / failure)) / (inputs - 1));
}

/**
 * Upper limit of the mean of values in [0, range], but for a probability of `failure`: mean + √(2V ln(2/δ)/n) +
 * 7 R ln(2/δ)/(3(n−1)), V the sample variance (Maurer & Pontil, Theorem 4). Never above `range`.
 * @throws ScrimError INVALID_ARGUMENT unless 0 < failure < 1 and there are two values
 */
export function meanLimit(values: readonly number[], range: number, failure: number): number {
  const n = values.length;
  assertArgument(n >= 2 && failure > 0 && failure < 1, 'expected two values and a failure between 0 and 1');
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  const log = Math.log(2 / failure);
  return Math.min(range, mean + Math.sqrt((2 * variance * log) / n) + (7 * range * log) / (3 * (n - 1)));
}
