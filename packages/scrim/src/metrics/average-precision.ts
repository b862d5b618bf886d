/**
 * Average precision and the precision-recall curve from scores of right and wrong detections.
 *
 * All-points interpolation: M. Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective"
 * (IJCV 2015), section 4.1, the form used since VOC2010 and by the evaluation scripts for WIDER FACE and FDDB.
 * A threshold can't separate equal scores, so the curve has one point for each distinct score and the order of ties
 * can't change the figure. Which detection is right is decided in `match-detections.ts`.
 */
import { ScrimError } from '../errors.js';

/** A point of the precision-recall curve: what holds if detections with `score ≥ threshold` are kept. */
export interface PrecisionRecallPoint {
  readonly threshold: number;
  readonly precision: number;
  readonly recall: number;
}

/** How {@link averagePrecision} joins the points of the curve. */
export interface AveragePrecisionOptions {
  /**
   * `all-points` (default): the precision at a recall is the best precision at that recall or a higher one.
   * `none`: the precision as it is at each point, as scikit-learn's `average_precision_score` has it.
   */
  readonly interpolation?: 'all-points' | 'none';
}

/**
 * Average precision in [0, 1] of detections with these scores, where `positives` faces were there to be found.
 *
 * AP = Σ_k (R_k − R_{k−1})·P_k over distinct scores in falling order, with P_k replaced by max_{j ≥ k} P_j unless
 * interpolation is `none`. Scores may come in any order and are not changed.
 * @throws ScrimError INVALID_ARGUMENT if `positives` is no integer ≥ 1 or below the number of true positives, or a
 * score is not finite.
 */
export function averagePrecision(
  truePositives: ArrayLike<number>,
  falsePositives: ArrayLike<number>,
  positives: number,
  options: AveragePrecisionOptions = {},
): number {
  const { interpolation = 'all-points' } = options;
  const groups = scoreGroups(truePositives, falsePositives, positives);
  let best = 0;
  let sum = 0;
  // From the lowest score up, so that the best precision further down the list is known at each step.
  for (let k = groups.length - 1; k >= 0; k--) {
    const { found, kept } = groups[k]!;
    const gained = found - (groups[k - 1]?.found ?? 0);
    const precision = found / kept;
    best = Math.max(best, precision);
    sum += gained * (interpolation === 'none' ? precision : best);
  }
  return sum / positives;
}

/**
 * The precision-recall curve, one point for each distinct score, thresholds falling; see {@link averagePrecision}.
 * @throws ScrimError INVALID_ARGUMENT as {@link averagePrecision} does.
 */
export function precisionRecallCurve(
  truePositives: ArrayLike<number>,
  falsePositives: ArrayLike<number>,
  positives: number,
): PrecisionRecallPoint[] {
  return scoreGroups(truePositives, falsePositives, positives).map(({ threshold, found, kept }) => ({
    threshold,
    precision: found / kept,
    recall: found / positives,
  }));
}

/** At each distinct score: how many detections reach it (`kept`), and how many of them are right (`found`). */
interface ScoreGroup {
  readonly threshold: number;
  readonly found: number;
  readonly kept: number;
}

function scoreGroups(
  truePositives: ArrayLike<number>,
  falsePositives: ArrayLike<number>,
  positives: number,
): ScoreGroup[] {
  if (!Number.isSafeInteger(positives) || positives < 1) {
    throw new ScrimError('INVALID_ARGUMENT', `positives is ${positives}, expected an integer ≥ 1`);
  }
  if (truePositives.length > positives) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `truePositives has ${truePositives.length} scores, more than the ${positives} positives`,
    );
  }
  const right = ascending(truePositives, 'truePositives');
  const wrong = ascending(falsePositives, 'falsePositives');
  const groups: ScoreGroup[] = [];
  let r = right.length - 1;
  let w = wrong.length - 1;
  while (r >= 0 || w >= 0) {
    const threshold = Math.max(right[r] ?? -Infinity, wrong[w] ?? -Infinity);
    while (r >= 0 && right[r] === threshold) r--;
    while (w >= 0 && wrong[w] === threshold) w--;
    const found = right.length - 1 - r;
    groups.push({ threshold, found, kept: found + wrong.length - 1 - w });
  }
  return groups;
}

function ascending(scores: ArrayLike<number>, what: string): Float64Array {
  const sorted = Float64Array.from(scores);
  if (!sorted.every(Number.isFinite))
    throw new ScrimError('INVALID_ARGUMENT', `${what} has a score that is not finite`);
  return sorted.sort();
}
