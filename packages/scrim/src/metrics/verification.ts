/**
 * How well scores tell "the same person" from "another person": ROC AUC, and true accepts at a rate of false accepts.
 *
 * Genuine scores come from pairs of the same person, impostor scores from pairs of two people; higher means more
 * alike. A tied pair counts half in the AUC (T. Fawcett, "An introduction to ROC analysis", 2006). Recognition among
 * many people is in `identification.ts`.
 */
import { ScrimError } from '../errors.js';

/** A point of operation: what a threshold accepts of the genuine and of the impostor pairs. */
export interface OperatingPoint {
  /** Pairs whose score is above (not equal to) this are accepted; −Infinity accepts all. */
  readonly threshold: number;
  /** Share of genuine pairs that are accepted. */
  readonly tar: number;
  /** Share of impostor pairs that are accepted: at most the rate that was asked for. */
  readonly far: number;
}

/**
 * Area under the ROC curve: the chance that a genuine pair scores above an impostor pair, a tie counting half.
 * @throws ScrimError INVALID_ARGUMENT for no scores or a NaN.
 */
export function rocAuc(genuine: ArrayLike<number>, impostor: ArrayLike<number>): number {
  const same = ascending(genuine, 'genuine');
  const other = ascending(impostor, 'impostor');
  let below = 0;
  let reached = 0;
  let twiceWins = 0;
  for (const score of same) {
    while (below < other.length && other[below]! < score) below++;
    if (reached < below) reached = below;
    while (reached < other.length && other[reached]! === score) reached++;
    twiceWins += below + reached;
  }
  return twiceWins / (2 * same.length * other.length);
}

/**
 * True accept rate at the lowest threshold whose false accept rate is at most `far`, in [0, 1].
 *
 * Rates below 1 / impostor.length can't be told from 0: then no impostor pair is accepted.
 * @throws ScrimError INVALID_ARGUMENT for no scores, a NaN, or `far` outside [0, 1].
 */
export function tarAtFar(genuine: ArrayLike<number>, impostor: ArrayLike<number>, far: number): OperatingPoint {
  if (!(far >= 0 && far <= 1)) throw new ScrimError('INVALID_ARGUMENT', `far is ${far}, expected a number in [0, 1]`);
  const same = ascending(genuine, 'genuine');
  const other = ascending(impostor, 'impostor');
  // The small addition keeps 0.29 of 100 pairs from being 28.999….
  const allowed = Math.min(other.length, Math.floor(far * other.length + 1e-9));
  const threshold = allowed === other.length ? -Infinity : other[other.length - 1 - allowed]!;
  return { threshold, tar: shareAbove(same, threshold), far: shareAbove(other, threshold) };
}

function shareAbove(scores: Float64Array, threshold: number): number {
  let above = 0;
  for (const score of scores) if (score > threshold) above++;
  return above / scores.length;
}

function ascending(scores: ArrayLike<number>, what: string): Float64Array {
  if (scores.length === 0) throw new ScrimError('INVALID_ARGUMENT', `${what} has no scores`);
  const sorted = Float64Array.from(scores).sort();
  if (sorted.some(Number.isNaN)) throw new ScrimError('INVALID_ARGUMENT', `${what} has a NaN`);
  return sorted;
}
