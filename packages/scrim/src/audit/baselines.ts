/**
 * What somebody gets who does not look at the release: the floors an attack that rebuilds pictures has to beat.
 *
 * The mean photo of the training set; and the average face (or object), cut out of the training set at the detected
 * boxes, painted onto the mean photo at the boxes that the service itself reports for the photo under attack. Whoever
 * sees the service's answers can do the latter, so what beats it has learnt more than where faces are.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { type Box, centredSsim, psnr, ssim } from '../metrics/index.js';
import { float32 } from '../tensor.js';
import { type AttackData, type AttackRecord, imageToPlanes } from './attack.js';
import type { PictureScores } from './attack-result.js';

/** Best PSNR that is reported: equal pictures would have an infinite one. */
const MAX_PSNR = 100;
/** Side of the average object, in pixels. */
const OBJECT_SIDE = 48;
/** Fewest boxes that an average is made of. */
const MIN_OBJECTS = 8;

/**
 * SSIM, centred SSIM and PSNR of guesses.
 * @param guesses one picture [3, H, W] in [0, 1] for each record of `data`; values outside are clamped
 * @throws ScrimError INVALID_ARGUMENT if there is not one guess a record; UNSUPPORTED for pictures below 11×11
 */
export function scorePictures(data: AttackData, guesses: readonly Float32Array[]): PictureScores {
  assertArgument(
    guesses.length === data.records.length,
    `there are ${guesses.length} guesses for ${data.records.length} samples`,
  );
  const scores = data.records.map((record, i) => scorePicture(data, record, guesses[i] as Float32Array));
  return {
    centred: scores.map((score) => score.centred),
    ssim: scores.map((score) => score.ssim),
    psnr: scores.map((score) => score.psnr),
  };
}

/** SSIM, centred SSIM and PSNR of one guess. @throws ScrimError UNSUPPORTED for pictures below 11×11 */
export function scorePicture(
  data: AttackData,
  record: AttackRecord,
  guess: Float32Array,
): { readonly centred: number; readonly ssim: number; readonly psnr: number } {
  const { width, height } = data.picture;
  if (Math.min(width, height) < 11) {
    throw new ScrimError(
      'UNSUPPORTED',
      `pictures of ${width}×${height} are too small to compare by SSIM, which takes 11×11 at least`,
    );
  }
  const original = imageToPlanes(record.picture, width, height);
  const clamped = float32(
    [3, height, width],
    guess.map((value) => Math.max(0, Math.min(1, value))),
  );
  return {
    centred: centredSsim(original, clamped),
    ssim: ssim(original, clamped, { dataRange: 1 }),
    psnr: Math.min(MAX_PSNR, psnr(original, clamped, { dataRange: 1 })),
  };
}

/** The mean picture of a data set: [3, H, W] in [0, 1]. */
export function meanPhoto(data: AttackData): Float32Array {
  const { width, height } = data.picture;
  const plane = width * height;
  const sums = new Float64Array(3 * plane);
  for (const { picture } of data.records) for (let i = 0; i < sums.length; i++) sums[i]! += picture[i]!;
  const mean = new Float32Array(3 * plane);
  const scale = 1 / (255 * Math.max(1, data.records.length));
  for (let i = 0; i < plane; i++) for (let c = 0; c < 3; c++) mean[c * plane + i] = sums[i * 3 + c]! * scale;
  return mean;
}

/** The mean colour of a data set: red, green, blue in [0, 1]. */
export function meanColour(mean: Float32Array): readonly [number, number, number] {
  const plane = mean.length / 3;
  const average = (c: number): number => mean.subarray(c * plane, (c + 1) * plane).reduce((a, b) => a + b, 0) / plane;
  return [average(0), average(1), average(2)];
}

/** An average object: RGB [side, side, 3] in [0, 1]. */
export interface AverageObject {
  readonly side: number;
  readonly values: Float32Array;
  /** Boxes it was made of. */
  readonly boxes: number;
}

/** The average of what lies in the boxes of a data set; undefined where it has fewer than 8 of at least 8 pixels. */
export function averageObject(data: AttackData): AverageObject | undefined {
  const side = OBJECT_SIDE;
  const { width, height } = data.picture;
  const sums = new Float64Array(side * side * 3);
  let boxes = 0;
  for (const record of data.records) {
    for (const box of record.boxes ?? []) {
      if (Math.min(box.width, box.height) < 8) continue;
      boxes++;
      for (let y = 0; y < side; y++) {
        const row = nearest(box.y + ((y + 0.5) / side) * box.height, height);
        for (let x = 0; x < side; x++) {
          const column = nearest(box.x + ((x + 0.5) / side) * box.width, width);
          for (let c = 0; c < 3; c++) {
            sums[(y * side + x) * 3 + c]! += record.picture[(row * width + column) * 3 + c]! / 255;
          }
        }
      }
    }
  }
  if (boxes < MIN_OBJECTS) return undefined;
  return { side, values: Float32Array.from(sums, (sum) => sum / boxes), boxes };
}

/** `background` with the average object in each box, bilinearly scaled: [3, H, W] in [0, 1]. */
export function paintObjects(
  background: Float32Array,
  size: { readonly width: number; readonly height: number },
  object: AverageObject,
  boxes: readonly Box[],
): Float32Array {
  const { width, height } = size;
  const { side, values } = object;
  const plane = width * height;
  const painted = background.slice();
  for (const box of boxes) {
    const [left, top] = [Math.max(0, Math.floor(box.x)), Math.max(0, Math.floor(box.y))];
    const [right, bottom] = [Math.min(width, box.x + box.width), Math.min(height, box.y + box.height)];
    for (let y = top; y < bottom; y++) {
      const v = Math.max(0, Math.min(side - 1, ((y + 0.5 - box.y) / box.height) * side - 0.5));
      const [v0, v1] = [Math.floor(v), Math.min(side - 1, Math.floor(v) + 1)];
      for (let x = left; x < right; x++) {
        const u = Math.max(0, Math.min(side - 1, ((x + 0.5 - box.x) / box.width) * side - 0.5));
        const [u0, u1] = [Math.floor(u), Math.min(side - 1, Math.floor(u) + 1)];
        const [fu, fv] = [u - u0, v - v0];
        for (let c = 0; c < 3; c++) {
          const at = (row: number, column: number): number => values[(row * side + column) * 3 + c]!;
          painted[c * plane + y * width + x] =
            (1 - fv) * ((1 - fu) * at(v0, u0) + fu * at(v0, u1)) + fv * ((1 - fu) * at(v1, u0) + fu * at(v1, u1));
        }
      }
    }
  }
  return painted;
}

/** A floor: what it guesses for each sample, and how good that is. */
export interface FloorGuesses {
  readonly name: string;
  readonly guesses: readonly Float32Array[];
  readonly scores: PictureScores;
}

/** The floors of an attack trained on `train` and tried on `test`; the second one where both have boxes. */
export function pictureFloors(train: AttackData, test: AttackData): FloorGuesses[] {
  const mean = meanPhoto(train);
  const guesses = test.records.map(() => mean);
  const floors: FloorGuesses[] = [{ name: 'mean photo', guesses, scores: scorePictures(test, guesses) }];
  const object = averageObject(train);
  if (object !== undefined && test.records.some(({ boxes }) => boxes !== undefined && boxes.length > 0)) {
    const painted = test.records.map(({ boxes }) => paintObjects(mean, test.picture, object, boxes ?? []));
    floors.push({
      name: 'average object at the detected boxes',
      guesses: painted,
      scores: scorePictures(test, painted),
    });
  }
  return floors;
}

function nearest(position: number, size: number): number {
  return Math.max(0, Math.min(size - 1, Math.floor(position)));
}
