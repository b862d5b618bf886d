/**
 * A second limit on the information of releases, which needs no limit on any single variance.
 *
 * For every fixed distribution Q of releases, I(x; y) ≤ E_x KL(P(y|x) ‖ Q), with equality where Q is the releases' own.
 * Q is an even mixture of two products of Gaussians: one at the means and variances of calibration inputs, one at the
 * middle of the public range with variance R²/4. Hence
 *   g(x) = ln 2 + min(Σᵢ KL(N(sᵢ, σᵢ²/n) ‖ N(aᵢ, vᵢ + σᵢ²/n)), W),   W = Σᵢ ½ ln(1 + n Rᵢ²/(4σᵢ²)),
 * is one number in [0, W + ln 2] for each further input, and its mean is a limit: empirical Bernstein for one bounded
 * variable instead of a union over channels. The calibration inputs must not be among the further ones.
 */
import { assertArgument } from '../errors.js';
import type { ReleasedSignal } from './released-signal.js';
import { meanLimit, type SignalStatistics } from './signal-variance.js';

/** Gathers g(x) over inputs that were not used for calibration. */
export interface ReferenceLimit {
  /** Adds one input. */
  add(signal: { readonly values: Float32Array; readonly positions: number }): void;
  /** How many were added. */
  readonly inputs: number;
  /** Upper limit in nats that holds but for a probability of `failure`. @throws ScrimError INVALID_ARGUMENT below two inputs */
  limit(failure: number): number;
}

/** Inputs that the channel's mean weighs among those of one position. */
const SHRINKAGE = 4;

/**
 * Fixes the reference from what `statistics` saw so far.
 * @param releases independent releases of the same input
 * @throws ScrimError INVALID_ARGUMENT for fewer than two calibration inputs
 */
export function createReferenceLimit(
  signal: ReleasedSignal,
  statistics: SignalStatistics,
  releases: number,
): ReferenceLimit {
  const { parameters, sent, range, entryOf } = signal;
  const { inputs: calibration, positions, estimate } = statistics.variances(0.5);
  const centre = shrinkToChannels(statistics.means(), sent, positions, calibration);
  const { kind, sigma, gain } = parameters;
  const elements = kind === 'per-channel' ? positions : 1;
  const weight = new Float64Array(gain.length);
  let constant = 0;
  let worst = 0;
  for (let i = 0; i < gain.length; i++) {
    if (!((range[i] as number) > 0)) continue;
    const noise = (sigma[i] as number) ** 2 / releases;
    const total = (estimate[i] as number) * (1 + 1 / calibration) + noise;
    weight[i] = 1 / (2 * total);
    constant += elements * 0.5 * (Math.log(total / noise) + noise / total - 1);
    worst += elements * 0.5 * Math.log1p((range[i] as number) ** 2 / (4 * noise));
  }
  const values: number[] = [];
  return {
    get inputs() {
      return values.length;
    },
    add: ({ values: s, positions: found }) => {
      assertArgument(found === positions, `the activation has ${found} positions, the calibration's ${positions}`);
      let divergence = constant;
      for (const c of sent) {
        for (let at = c * positions; at < (c + 1) * positions; at++) {
          const distance = (s[at] as number) - (centre[at] as number);
          divergence += (weight[entryOf(at, positions)] as number) * distance * distance;
        }
      }
      values.push(Math.LN2 + Math.min(divergence, worst));
    },
    limit: (failure) => Math.min(worst, meanLimit(values, worst + Math.LN2, failure)),
  };
}

/** Means by element, drawn to the mean of their channel as far as few inputs make them uncertain. */
function shrinkToChannels(means: Float64Array, sent: Int32Array, positions: number, inputs: number): Float64Array {
  const shrunk = means.slice();
  for (const c of sent) {
    const plane = means.subarray(c * positions, (c + 1) * positions);
    const channel = plane.reduce((sum, value) => sum + value, 0) / positions;
    for (let p = 0; p < positions; p++) {
      shrunk[c * positions + p] = (inputs * (plane[p] as number) + SHRINKAGE * channel) / (inputs + SHRINKAGE);
    }
  }
  return shrunk;
}
