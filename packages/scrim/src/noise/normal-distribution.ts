/**
 * The normal distribution in double precision: probabilities, quantiles, and what follows for chi-square.
 *
 * For checks of mechanisms and for bounds; the noise itself is made elsewhere. Distribution function by its power series
 * near 0 and the continued fraction of Mills' ratio in the tails (Abramowitz & Stegun 26.2.11 and 26.2.14), so that
 * small tail probabilities keep their relative accuracy.
 */

const HALF_LOG_2_PI = 0.5 * Math.log(2 * Math.PI);
/** Where the series hands over to the continued fraction. */
const TAIL = 3;

/** Φ(x): the probability of a standard normal below `x`. Relative error below 10⁻¹². */
export function normalCdf(x: number): number {
  if (Number.isNaN(x)) return x;
  const magnitude = Math.abs(x);
  const density = Math.exp(-0.5 * x * x - HALF_LOG_2_PI);
  if (magnitude > TAIL) {
    let fraction = magnitude;
    for (let k = 80; k >= 1; k--) fraction = magnitude + k / fraction;
    const tail = magnitude === Number.POSITIVE_INFINITY ? 0 : density / fraction;
    return x < 0 ? tail : 1 - tail;
  }
  let term = x;
  let sum = x;
  for (let k = 3; Math.abs(term) > 1e-17; k += 2) {
    term *= (x * x) / k;
    sum += term;
  }
  return 0.5 + density * sum;
}

/**
 * Φ⁻¹(p): below which value a standard normal falls with probability `p`. Infinite at 0 and 1.
 *
 * Rational start (Abramowitz & Stegun 26.2.23), then Halley's method. For p near 1 use −Φ⁻¹(1 − p) with a 1 − p
 * that is known better than as a difference.
 */
export function normalQuantile(p: number): number {
  if (!(p > 0 && p < 1)) return p === 0 ? Number.NEGATIVE_INFINITY : p === 1 ? Number.POSITIVE_INFINITY : Number.NaN;
  const tail = Math.min(p, 1 - p);
  const t = Math.sqrt(-2 * Math.log(tail));
  const start = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
  let x = -start;
  for (let i = 0; i < 2; i++) {
    const step = (normalCdf(x) - tail) * Math.exp(0.5 * x * x + HALF_LOG_2_PI);
    x -= step / (1 + (x * step) / 2);
  }
  return p < 0.5 ? x : -x;
}

/** A chi-square variable of `degrees` degrees as a nearly standard normal (Wilson & Hilferty 1931). */
export function chiSquareToNormal(value: number, degrees: number): number {
  const spread = 2 / (9 * degrees);
  return (Math.cbrt(value / degrees) - (1 - spread)) / Math.sqrt(spread);
}
