/**
 * From Fisher information to reconstruction: the least mean squared error of any estimate of the input.
 *
 * Van Trees' inequality for an input x in ℝᵈ whose distribution has Fisher information S, and a release with Fisher
 * information I(x): E‖x̂ − x‖²/d ≥ d / (E Tr I(x) + Tr S). If x is some input plus independent N(0, s²) on each of its
 * values (the noise of a sensor), S ⪯ 1/s² (convolution), so the right side is 1/(E Tr I/d + 1/s²). It also holds for
 * the values of a region alone, against an attacker who knows everything outside it. n independent releases multiply I
 * by n. (C. Guo et al., "Bounding Training Data Reconstruction in Private (Deep) Learning", ICML 2022; K. Maeng et al.,
 * "Bounding the Invertibility of Privacy-preserving Instance Encoding using Fisher Information", NeurIPS 2023.)
 */
import { assertArgument } from '../errors.js';

/**
 * Least mean squared error per value.
 * @param fisherPerValue E Tr I/d of one release, in 1/unit²
 * @param smoothing s in units, or Infinity: no knowledge beforehand (then it holds for unbiased estimates alone)
 * @param releases independent releases of the same input
 * @returns in unit²; Infinity if nothing is known at all
 * @throws ScrimError INVALID_ARGUMENT for a negative or missing number
 */
export function reconstructionLimit(fisherPerValue: number, smoothing: number, releases = 1): number {
  assertArgument(fisherPerValue >= 0, 'the Fisher information is negative or no number');
  assertArgument(smoothing > 0, `smoothing is ${smoothing}, expected a number > 0`);
  assertArgument(releases >= 1, `releases is ${releases}, expected a number ≥ 1`);
  return 1 / (releases * fisherPerValue + 1 / (smoothing * smoothing));
}
