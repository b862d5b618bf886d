/**
 * FDDB's accuracy as TR-4928 prints it: average precision at IoU 0.5 for each fold, and the mean over folds.
 *
 * Faces are the exact boxes around FDDB's ellipses, boxes are continuous, and nothing is clipped to the photo. That is
 * the choice that gives the figures known for detections published by others for all 2,845 images: 0.888 and 0.886
 * with all folds in one ranking; the means over folds are 0.8880 and 0.8866 (`test/suites/fddb-published.mjs`).
 * Counting "+ 1" pixels would give 0.881 and 0.875, clipping at the photo's left and top edge 0.900 and 0.897.
 *
 * Images are added one at a time and forgotten: eight bytes for each detection stay. The state is JSON and merges
 * exactly, so that an evaluation spread over machines has to the last bit the figures of a single run.
 */
import { ScrimError } from '../errors.js';
import { averagePrecision } from './average-precision.js';
import { assertFddbState, type FddbEvaluatorState, fingerprintOf, type IndexedImage } from './fddb-state.js';
import { assertBox, type ScoredBox } from './intersection-over-union.js';
import { DEFAULT_IOU_THRESHOLD, type GroundTruth, matchDetections } from './match-detections.js';

/** One fold of an annotated data set; `fold` is its number. */
export interface AnnotatedFold {
  readonly fold: number;
  readonly images: readonly AnnotatedImage[];
}

/** An image and the faces in it; FDDB's own are read by `parseEllipseList`. */
export interface AnnotatedImage {
  readonly name: string;
  readonly faces: readonly GroundTruth[];
}

/** Settings of {@link createFddbEvaluator}. */
export interface FddbEvaluatorOptions {
  /** Overlap from which a detection counts as right, in (0, 1]; 0.5 unless given. */
  readonly iouThreshold?: number;
}

/** The figures of one fold: its AP, and how many images and faces (ignored ones apart) that rests on. */
export interface FddbFoldResult {
  readonly fold: number;
  readonly ap: number;
  readonly images: number;
  readonly faces: number;
}

/** The figures of an evaluation. */
export interface FddbResult {
  /** Folds of which at least one face was evaluated, by number. */
  readonly folds: readonly FddbFoldResult[];
  /** Mean of `folds[].ap`: what TR-4928 prints as "FDDB Dataset Average AP". */
  readonly mAP: number;
  /** AP of all folds in one ranking, the figure most papers on FDDB give. */
  readonly pooledAP: number;
  /** Images that were added, and images in the annotations. */
  readonly images: { readonly found: number; readonly expected: number };
  /** Faces (ignored ones apart) in the images that were added, and in the annotations. */
  readonly faces: { readonly found: number; readonly expected: number };
}

/** Accumulates an evaluation; see {@link createFddbEvaluator}. */
export interface FddbEvaluator {
  /**
   * Adds what was found in one image, once, in any order; an image in which nothing was found is added with `[]`.
   * @throws ScrimError NOT_FOUND if the annotations have no such image, ALREADY_EXISTS if it was added before,
   * INVALID_ARGUMENT for a box or score that isn't finite. Nothing is added then.
   */
  add(imageName: string, detections: readonly ScoredBox[]): void;
  /**
   * The figures over what was added so far.
   * @throws ScrimError INVALID_ARGUMENT if no image with a face was added.
   */
  result(): FddbResult;
  /** What was added so far, to be merged elsewhere. */
  state(): FddbEvaluatorState;
  /**
   * Takes in states of evaluators over the same annotations, for instance parsed from JSON.
   * @throws ScrimError INVALID_DATA for something that is no state, INVALID_ARGUMENT for a state over other
   * annotations or another threshold, ALREADY_EXISTS if two hold the same image. Nothing is merged then.
   */
  merge(states: readonly FddbEvaluatorState[]): void;
}

/**
 * Makes an empty evaluator over `annotations`.
 * @throws ScrimError INVALID_ARGUMENT for an image or fold that comes twice, a face that is no box, or a threshold
 * outside (0, 1].
 */
export function createFddbEvaluator(
  annotations: readonly AnnotatedFold[],
  options: FddbEvaluatorOptions = {},
): FddbEvaluator {
  const { iouThreshold = DEFAULT_IOU_THRESHOLD } = options;
  if (!(iouThreshold > 0 && iouThreshold <= 1)) {
    throw new ScrimError('INVALID_ARGUMENT', `iouThreshold is ${iouThreshold}, expected a number in (0, 1]`);
  }
  const index = indexImages(annotations);
  const fingerprint = fingerprintOf(index.images);
  const added = new Uint8Array(index.images.length);
  const tallies = new Map<number, Tally>(index.folds.map((fold) => [fold, emptyTally()]));

  const countImage = (image: IndexedImage): void => {
    added[image.position] = 1;
    const tally = tallies.get(image.fold)!;
    tally.images += 1;
    tally.faces += image.countable;
  };

  return {
    add(imageName: string, detections: readonly ScoredBox[]): void {
      const image = index.byName.get(imageName);
      if (image === undefined) {
        throw new ScrimError('NOT_FOUND', `imageName ${imageName} is not in the annotations`);
      }
      if (added[image.position] === 1) {
        throw new ScrimError('ALREADY_EXISTS', `imageName ${imageName} was added before`);
      }
      const matches = matchDetections(detections, image.faces, iouThreshold);
      const tally = tallies.get(image.fold)!;
      matches.forEach(({ outcome }, i) => {
        if (outcome === 'true-positive') tally.truePositives.push(detections[i]!.score);
        else if (outcome === 'false-positive') tally.falsePositives.push(detections[i]!.score);
      });
      countImage(image);
    },

    result(): FddbResult {
      const folds: FddbFoldResult[] = [];
      const pooled = emptyTally();
      for (const [fold, tally] of tallies) {
        pooled.images += tally.images;
        pooled.faces += tally.faces;
        for (const score of tally.truePositives) pooled.truePositives.push(score);
        for (const score of tally.falsePositives) pooled.falsePositives.push(score);
        if (tally.faces > 0) folds.push({ fold, ap: apOf(tally), images: tally.images, faces: tally.faces });
      }
      if (folds.length === 0) {
        throw new ScrimError('INVALID_ARGUMENT', 'result() was asked for before an image with a face was added');
      }
      return {
        folds,
        mAP: folds.reduce((sum, { ap }) => sum + ap, 0) / folds.length,
        pooledAP: apOf(pooled),
        images: { found: pooled.images, expected: index.images.length },
        faces: { found: pooled.faces, expected: index.images.reduce((sum, image) => sum + image.countable, 0) },
      };
    },

    state(): FddbEvaluatorState {
      return {
        format: 'scrim-fddb-evaluation',
        version: 1,
        annotations: fingerprint,
        iouThreshold,
        images: index.images.filter(({ position }) => added[position] === 1).map(({ position }) => position),
        folds: [...tallies]
          .filter(([, tally]) => tally.images > 0)
          .map(([fold, { truePositives, falsePositives }]) => ({
            fold,
            truePositives: rising(truePositives),
            falsePositives: rising(falsePositives),
          })),
      };
    },

    merge(states: readonly FddbEvaluatorState[]): void {
      // Everything is checked before anything is taken in.
      const seen = Uint8Array.from(added);
      states.forEach((state, s) => {
        const what = `states[${s}]`;
        assertFddbState(state, what, index.images);
        if (state.annotations !== fingerprint) {
          throw new ScrimError('INVALID_ARGUMENT', `${what} was made with other annotations`);
        }
        if (state.iouThreshold !== iouThreshold) {
          throw new ScrimError(
            'INVALID_ARGUMENT',
            `${what} was made with IoU threshold ${state.iouThreshold}, this evaluator has ${iouThreshold}`,
          );
        }
        for (const position of state.images) {
          if (seen[position] === 1) {
            throw new ScrimError(
              'ALREADY_EXISTS',
              `${what} holds image ${index.images[position]!.name}, which was added before`,
            );
          }
          seen[position] = 1;
        }
      });
      for (const state of states) {
        for (const position of state.images) countImage(index.images[position]!);
        for (const { fold, truePositives, falsePositives } of state.folds) {
          const tally = tallies.get(fold)!;
          for (const score of truePositives) tally.truePositives.push(score);
          for (const score of falsePositives) tally.falsePositives.push(score);
        }
      }
    },
  };
}

interface Tally {
  images: number;
  faces: number;
  readonly truePositives: number[];
  readonly falsePositives: number[];
}

function emptyTally(): Tally {
  return { images: 0, faces: 0, truePositives: [], falsePositives: [] };
}

function apOf(tally: Tally): number {
  return averagePrecision(tally.truePositives, tally.falsePositives, tally.faces);
}

function rising(scores: readonly number[]): number[] {
  return Array.from(Float64Array.from(scores).sort());
}

interface ImageIndex {
  readonly folds: readonly number[];
  readonly images: readonly IndexedImage[];
  readonly byName: ReadonlyMap<string, IndexedImage>;
}

function indexImages(annotations: readonly AnnotatedFold[]): ImageIndex {
  const sorted = [...annotations].sort((a, b) => a.fold - b.fold);
  const images: IndexedImage[] = [];
  const byName = new Map<string, IndexedImage>();
  sorted.forEach((fold, f) => {
    if (!Number.isSafeInteger(fold.fold)) {
      throw new ScrimError('INVALID_ARGUMENT', `annotations: fold number ${fold.fold} is not an integer`);
    }
    if (fold.fold === sorted[f - 1]?.fold) {
      throw new ScrimError('INVALID_ARGUMENT', `annotations: fold ${fold.fold} comes twice`);
    }
    for (const { name, faces } of fold.images) {
      if (byName.has(name)) {
        throw new ScrimError('INVALID_ARGUMENT', `annotations: image ${name} comes twice`);
      }
      faces.forEach((face, i) => {
        assertBox(face.box, `annotations: face ${i + 1} of ${name}`);
      });
      const countable = faces.filter((face) => face.ignored !== true).length;
      const image: IndexedImage = { name, faces, fold: fold.fold, position: images.length, countable };
      images.push(image);
      byName.set(name, image);
    }
  });
  return { folds: sorted.map(({ fold }) => fold), images, byName };
}
