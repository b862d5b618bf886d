/**
 * Recognition among many people: is the most similar entry of a gallery the right person?
 *
 * Rank-1 identification in a closed set, as in P. Grother and P. J. Phillips, "Models of Large Population Recognition
 * Performance" (CVPR 2004). Ties are settled in expectation, so that an attacker who gives all entries one score gets
 * what guessing gets, neither more nor less.
 */
import { ScrimError } from '../errors.js';

/** Similarities of queries to gallery entries, and who they show. */
export interface IdentificationScores {
  /** Row-major [queries, gallery]; higher means more alike. */
  readonly scores: ArrayLike<number>;
  readonly queryLabels: readonly (string | number)[];
  readonly galleryLabels: readonly (string | number)[];
}

/**
 * Rank-1 rate in [0, 1]: the share of queries whose most similar gallery entry has the query's label. Where k entries
 * tie for the first place and j of them are right, the query counts j / k.
 * @throws ScrimError INVALID_ARGUMENT if a side is empty, the sizes don't fit, or a score is NaN.
 */
export function rankOneRate(input: IdentificationScores): number {
  const { scores, queryLabels, galleryLabels } = input;
  const queries = queryLabels.length;
  const gallery = galleryLabels.length;
  if (queries === 0 || gallery === 0 || scores.length !== queries * gallery) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `scores has ${scores.length} entries for ${queries} queries and ${gallery} gallery entries: ` +
        'expected their product, and at least one of each',
    );
  }
  let hits = 0;
  for (let q = 0; q < queries; q++) {
    let best = -Infinity;
    let tied = 0;
    let right = 0;
    for (let g = 0; g < gallery; g++) {
      const score = scores[q * gallery + g]!;
      if (Number.isNaN(score)) throw new ScrimError('INVALID_ARGUMENT', `scores has a NaN in row ${q}`);
      if (score < best) continue;
      if (score > best) {
        best = score;
        tied = 0;
        right = 0;
      }
      tied++;
      if (galleryLabels[g] === queryLabels[q]) right++;
    }
    hits += right / tied;
  }
  return hits / queries;
}
