/**
 * Boxes and how much two of them overlap.
 *
 * Boxes are continuous: a box of width 10 covers exactly 10 units of the x axis. The older convention that counts
 * pixels, with x2 = x1 + width − 1 and "+ 1" in every area, isn't used anywhere here; `fddb-evaluator.ts` says why.
 */
import { ScrimError } from '../errors.js';

/** An axis-aligned box in pixels of the original photo: left and top edge, width and height ≥ 0. */
export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** A detected box; a higher score is a surer detection. Scores are compared, never taken for probabilities. */
export interface ScoredBox extends Box {
  readonly score: number;
}

/** Intersection over union of two boxes, in [0, 1]; 0 where both are empty. */
export function intersectionOverUnion(a: Box, b: Box): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  if (!(width > 0 && height > 0)) return 0;
  const intersection = width * height;
  const union = a.width * a.height + b.width * b.height - intersection;
  // Rounding can lift the ratio of two equal boxes a hair above one.
  return Math.min(1, intersection / union);
}

/**
 * Checks that `box` has finite edges and no negative side; `what` names it in the message.
 * @throws ScrimError INVALID_ARGUMENT
 */
export function assertBox(box: Box, what: string): void {
  const finite = [box.x, box.y, box.width, box.height].every(Number.isFinite);
  if (!finite || box.width < 0 || box.height < 0) {
    throw new ScrimError('INVALID_ARGUMENT', `${what} is no box: expected finite x, y and width, height ≥ 0`);
  }
}
