/**
 * From information to odds: what an attacker who guesses gains from a release that tells at most β nats.
 *
 * An attacker who is right with probability p without the release and p₀ with it obeys
 *   p₀ ln(p₀/p) + (1−p₀) ln((1−p₀)/(1−p)) ≤ β
 * (Xiao & Devadas, PAC Privacy, CRYPTO 2023, Theorem 1; data processing of the Kullback-Leibler divergence between the
 * joint distribution and the product of its margins). It holds for any secret that is a function of the input: an
 * attribute, who of N it is, whether a pixel is within a tolerance. From β = ln(1/p) on it says nothing.
 */
import { assertArgument } from '../errors.js';

/** Limit on an attacker's odds. */
export interface InferenceOdds {
  /** Probability of a right guess without the release. */
  readonly prior: number;
  /** The most it can be with the release, in [prior, 1]. */
  readonly posterior: number;
  /** True if the limit is 1: the bound says nothing. */
  readonly vacuous: boolean;
}

/**
 * Largest probability of a right guess after releases that tell at most `nats`.
 * @param prior in (0, 1): 1/2 for a fair coin, 1/N for one of N
 * @param nats ≥ 0
 * @throws ScrimError INVALID_ARGUMENT outside these ranges
 */
export function inferenceOdds(prior: number, nats: number): InferenceOdds {
  assertArgument(prior > 0 && prior < 1, `prior is ${prior}, expected a number between 0 and 1`);
  assertArgument(nats >= 0, `nats is ${nats}, expected a number ≥ 0`);
  if (nats >= -Math.log(prior)) return { prior, posterior: 1, vacuous: true };
  let low = prior;
  let high = 1;
  for (;;) {
    const middle = (low + high) / 2;
    // The upper end is returned: rounding must not make the attacker look weaker.
    if (middle <= low || middle >= high) return { prior, posterior: high, vacuous: false };
    if (binaryDivergence(middle, prior) <= nats) low = middle;
    else high = middle;
  }
}

/** Divergence of two coins, KL(p ‖ q) in nats, for p in [0, 1] and q in (0, 1). */
export function binaryDivergence(p: number, q: number): number {
  const first = p === 0 ? 0 : p * Math.log(p / q);
  const second = p === 1 ? 0 : (1 - p) * (Math.log1p(-p) - Math.log1p(-q));
  return first + second;
}
