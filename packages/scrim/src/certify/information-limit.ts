/**
 * What releases tell about their input at most: I(x; z′₁…z′ₙ) ≤ Σᵢ ½ ln(1 + n λᵢ/σᵢ²) nats, λᵢ the variance of the
 * signal of element i over the inputs (Xiao & Devadas, PAC Privacy, CRYPTO 2023, for diagonal noise).
 *
 * Per channel the sum over positions is at most their number times the term of the mean variance, as the term is
 * concave. Unlike noise/information-bound.ts, which reads the variances a fit stored, this takes the limits of
 * signal-variance.ts.
 */
import { assertArgument } from '../errors.js';
import type { DiagonalParameters } from '../noise/diagonal.js';

/**
 * Sum over all elements of one activation.
 * @param variances of the signal m·z, by channel or element as the parameters are
 * @param positions H·W
 * @param releases independent releases of the same input
 * @throws ScrimError INVALID_ARGUMENT if the arrays differ in length
 */
export function informationLimit(
  parameters: DiagonalParameters,
  variances: Float64Array,
  positions: number,
  releases: number,
): number {
  const { kind, gain, sigma } = parameters;
  assertArgument(variances.length === gain.length, `there are ${variances.length} variances, expected ${gain.length}`);
  assertArgument(releases >= 1, `releases is ${releases}, expected a number ≥ 1`);
  let nats = 0;
  for (let i = 0; i < gain.length; i++) {
    if (gain[i] === 0) continue;
    nats += 0.5 * Math.log1p((releases * (variances[i] as number)) / (sigma[i] as number) ** 2);
  }
  return kind === 'per-channel' ? nats * positions : nats;
}
