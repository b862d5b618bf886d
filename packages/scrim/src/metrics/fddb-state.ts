/**
 * What an FDDB evaluator knows, as plain JSON, and the checks on a state that comes from elsewhere.
 *
 * Scores are all that average precision needs of a detection, and sorted lists of them have one form only: two
 * evaluators that saw the same images have equal states, whatever the order. Adding to a state and merging states is
 * left to `fddb-evaluator.ts`.
 */
import { ScrimError } from '../errors.js';
import type { GroundTruth } from './match-detections.js';

/** State of an evaluation. Two evaluators that saw the same images have the same state. */
export interface FddbEvaluatorState {
  readonly format: 'scrim-fddb-evaluation';
  readonly version: 1;
  /** Hash of the annotations: states over different ones don't merge. */
  readonly annotations: string;
  readonly iouThreshold: number;
  /** Positions of the added images in the annotations, rising. */
  readonly images: readonly number[];
  /** One entry for each fold that has images. */
  readonly folds: readonly FddbFoldState[];
}

/** Scores of the right and the wrong detections in one fold, rising. */
export interface FddbFoldState {
  readonly fold: number;
  readonly truePositives: readonly number[];
  readonly falsePositives: readonly number[];
}

/** An annotated image and its place in the evaluation. */
export interface IndexedImage {
  readonly name: string;
  readonly faces: readonly GroundTruth[];
  readonly fold: number;
  /** Place in the annotations, counted over all folds in rising order of fold number. */
  readonly position: number;
  /** Faces that count: all but the ignored ones. */
  readonly countable: number;
}

/**
 * Checks that `value` is a state over `images`: its form, and that its counts fit its images.
 * @throws ScrimError INVALID_DATA; `what` names the value in the message.
 */
export function assertFddbState(
  value: unknown,
  what: string,
  images: readonly IndexedImage[],
): asserts value is FddbEvaluatorState {
  const fault = stateFault(value, images);
  if (fault !== undefined) {
    throw new ScrimError('INVALID_DATA', `${what} is no state of an FDDB evaluation: ${fault}`);
  }
}

function stateFault(value: unknown, images: readonly IndexedImage[]): string | undefined {
  if (!isRecord(value)) return 'it is no object';
  const state: { readonly [K in keyof FddbEvaluatorState]?: unknown } = value;
  if (state.format !== 'scrim-fddb-evaluation') return 'its format is another';
  if (state.version !== 1) return 'its version is not 1';
  if (typeof state.annotations !== 'string') return 'annotations is no string';
  if (typeof state.iouThreshold !== 'number') return 'iouThreshold is no number';
  if (!Array.isArray(state.images)) return 'images is no array';
  if (!Array.isArray(state.folds)) return 'folds is no array';

  const faces = new Map<number, number>();
  let previous = -1;
  for (const position of state.images as unknown[]) {
    const image = typeof position === 'number' ? images[position] : undefined;
    if (image === undefined) return 'images has an entry that is no position in the annotations';
    if (image.position <= previous) return 'images is not rising';
    previous = image.position;
    faces.set(image.fold, (faces.get(image.fold) ?? 0) + image.countable);
  }
  return foldsFault(state.folds as unknown[], faces);
}

/** Checks the fold entries against `faces`, which holds the number of countable faces of each fold with images. */
function foldsFault(entries: readonly unknown[], faces: ReadonlyMap<number, number>): string | undefined {
  const seen = new Set<number>();
  for (const entry of entries) {
    if (!isRecord(entry)) return 'folds has an entry that is no object';
    const { fold, truePositives, falsePositives }: { readonly [K in keyof FddbFoldState]?: unknown } = entry;
    const most = typeof fold === 'number' ? faces.get(fold) : undefined;
    if (typeof fold !== 'number' || most === undefined) return 'folds has an entry for a fold without images';
    if (seen.has(fold)) return `fold ${fold} comes twice`;
    seen.add(fold);
    if (!isScores(truePositives) || !isScores(falsePositives)) return `fold ${fold} has scores that are no numbers`;
    if (truePositives.length > most) return `fold ${fold} has more true positives than faces`;
  }
  return seen.size === faces.size ? undefined : 'folds lacks a fold that has images';
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isScores(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((score) => typeof score === 'number' && Number.isFinite(score));
}

/**
 * A 64-bit FNV-1a hash (two mixed lanes of 32 bits) over folds, names and faces, as 16 hexadecimal digits.
 *
 * It catches mistakes, not malice. Boxes are taken to a hundredth of a pixel, since cosines may differ in their last
 * bit from one machine to the next.
 */
export function fingerprintOf(images: readonly IndexedImage[]): string {
  let low = 0x811c9dc5;
  let high = 0xcbf29ce4;
  const mix = (value: number): void => {
    for (let shift = 0; shift < 32; shift += 8) {
      const byte = (value >>> shift) & 0xff;
      low = Math.imul(low ^ byte, 0x01000193);
      high = Math.imul(high ^ byte, 0x01000193) ^ (low >>> 15);
    }
  };
  for (const { name, fold, faces } of images) {
    mix(fold);
    mix(name.length);
    for (let i = 0; i < name.length; i++) mix(name.charCodeAt(i));
    mix(faces.length);
    for (const { box, ignored } of faces) {
      for (const value of [box.x, box.y, box.width, box.height]) mix(Math.round(value * 100));
      mix(ignored === true ? 1 : 0);
    }
  }
  return [high, low].map((lane) => (lane >>> 0).toString(16).padStart(8, '0')).join('');
}
