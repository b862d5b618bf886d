/**
 * What reports say about a sample: mean, spread, quantiles, and intervals of confidence.
 *
 * Student's t for a mean; C. J. Clopper and E. S. Pearson, "The Use of Confidence or Fiducial Limits Illustrated in
 * the Case of the Binomial" (Biometrika 1934), for a share; B. Efron's percentile bootstrap for anything else. The
 * bootstrap's random numbers are passed in, so that a report can be repeated.
 */
import { ScrimError } from '../errors.js';
import { betaQuantile } from './beta-distribution.js';

/** An estimate and the interval that covers the true value in `level` of repetitions. */
export interface Interval {
  readonly estimate: number;
  readonly low: number;
  readonly high: number;
  /** Confidence level in (0, 1), 0.95 for instance. */
  readonly level: number;
  /** How many samples it rests on. */
  readonly samples: number;
}

/**
 * Arithmetic mean.
 * @throws ScrimError INVALID_ARGUMENT for no values.
 */
export function mean(values: ArrayLike<number>): number {
  assertSamples(values, 1);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}

/**
 * Standard deviation of a sample, with n − 1 in the denominator.
 * @throws ScrimError INVALID_ARGUMENT for fewer than two values.
 */
export function standardDeviation(values: ArrayLike<number>): number {
  assertSamples(values, 2);
  const centre = mean(values);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i]! - centre) ** 2;
  return Math.sqrt(sum / (values.length - 1));
}

/**
 * The `p` quantile, p in [0, 1], by linear interpolation between order statistics (type 7 of Hyndman and Fan 1996,
 * NumPy's default). `values` may have any order and is not changed.
 * @throws ScrimError INVALID_ARGUMENT for no values, a NaN, or p outside [0, 1].
 */
export function quantile(values: ArrayLike<number>, p: number): number {
  assertSamples(values, 1);
  if (!(p >= 0 && p <= 1)) throw new ScrimError('INVALID_ARGUMENT', `p is ${p}, expected a number in [0, 1]`);
  const sorted = Float64Array.from(values).sort();
  if (sorted.some(Number.isNaN)) throw new ScrimError('INVALID_ARGUMENT', 'values has a NaN');
  return sortedQuantile(sorted, p);
}

/**
 * Mean with its confidence interval by Student's t: mean ± t·sd/√n. It takes the mean for normally distributed.
 * @throws ScrimError INVALID_ARGUMENT for fewer than two values or a level outside (0, 1).
 */
export function meanInterval(values: ArrayLike<number>, level = 0.95): Interval {
  assertLevel(level);
  const estimate = mean(values);
  const margin = (studentT(level, values.length - 1) * standardDeviation(values)) / Math.sqrt(values.length);
  return { estimate, low: estimate - margin, high: estimate + margin, level, samples: values.length };
}

/**
 * Share of successes with its exact (Clopper-Pearson) interval, which covers at least as often as `level` says.
 * @throws ScrimError INVALID_ARGUMENT unless 0 ≤ successes ≤ trials, trials ≥ 1, both integers, level in (0, 1).
 */
export function proportionInterval(successes: number, trials: number, level = 0.95): Interval {
  assertLevel(level);
  const whole = Number.isSafeInteger(successes) && Number.isSafeInteger(trials);
  if (!whole || trials < 1 || successes < 0 || successes > trials) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `${successes} successes in ${trials} trials: expected integers with 0 ≤ successes ≤ trials and trials ≥ 1`,
    );
  }
  const half = (1 - level) / 2;
  const failures = trials - successes;
  return {
    estimate: successes / trials,
    low: successes === 0 ? 0 : betaQuantile(half, successes, failures + 1),
    high: failures === 0 ? 1 : 1 - betaQuantile(half, failures, successes + 1),
    level,
    samples: trials,
  };
}

/** Settings of {@link bootstrapInterval}. */
export interface BootstrapOptions {
  /** Uniform random numbers in [0, 1). */
  readonly random: () => number;
  /** Confidence level in (0, 1); 0.95 unless given. */
  readonly level?: number;
  /** How many samples to draw with replacement; 2,000 unless given. */
  readonly resamples?: number;
}

/**
 * A statistic of a sample with its percentile bootstrap interval. `items` may be anything (numbers, images, people):
 * `statistic` gets as many items, drawn with replacement.
 * @throws ScrimError INVALID_ARGUMENT for no items, a level outside (0, 1), or fewer than 100 resamples.
 */
export function bootstrapInterval<T>(
  items: readonly T[],
  statistic: (items: readonly T[]) => number,
  options: BootstrapOptions,
): Interval {
  const { random, level = 0.95, resamples = 2000 } = options;
  assertSamples(items, 1);
  assertLevel(level);
  if (!Number.isSafeInteger(resamples) || resamples < 100) {
    throw new ScrimError('INVALID_ARGUMENT', `resamples is ${resamples}, expected an integer ≥ 100`);
  }
  const draw = new Array<T>(items.length);
  const values = new Float64Array(resamples);
  for (let r = 0; r < resamples; r++) {
    for (let i = 0; i < draw.length; i++) draw[i] = items[Math.floor(random() * items.length)]!;
    values[r] = statistic(draw);
  }
  values.sort();
  const half = (1 - level) / 2;
  return {
    estimate: statistic(items),
    low: sortedQuantile(values, half),
    high: sortedQuantile(values, 1 - half),
    level,
    samples: items.length,
  };
}

/**
 * The t with P(|T| ≤ t) = level for Student's distribution with `degrees` of freedom: t² / (t² + degrees) has the
 * distribution Beta(½, degrees/2).
 */
function studentT(level: number, degrees: number): number {
  const y = betaQuantile(level, 0.5, degrees / 2);
  return Math.sqrt((degrees * y) / (1 - y));
}

function sortedQuantile(sorted: Float64Array, p: number): number {
  const place = (sorted.length - 1) * p;
  const below = Math.floor(place);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  // Without the test, two equal infinities would give NaN.
  return low === high ? low : low + (high - low) * (place - below);
}

function assertSamples(values: ArrayLike<unknown>, least: number): void {
  if (values.length < least) {
    throw new ScrimError('INVALID_ARGUMENT', `values has ${values.length} entries, expected at least ${least}`);
  }
}

function assertLevel(level: number): void {
  if (!(level > 0 && level < 1)) {
    throw new ScrimError('INVALID_ARGUMENT', `level is ${level}, expected a number between 0 and 1`);
  }
}
