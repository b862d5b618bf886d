/**
 * Which detections of one image count as right.
 *
 * Greedy, as in PASCAL VOC, WIDER FACE and FDDB's discrete score: in falling order of score each detection takes the
 * face it overlaps most among those still free, if the overlap reaches the threshold. A second detection of a face
 * is therefore wrong. Faces marked `ignored` (VOC's "difficult") excuse every detection that finds no free face but
 * overlaps them enough; they are neither to be found nor to be missed.
 */
import { ScrimError } from '../errors.js';
import { assertBox, type Box, intersectionOverUnion, type ScoredBox } from './intersection-over-union.js';

/** A face that is there. An `ignored` one may be found or not: neither counts. */
export interface GroundTruth {
  readonly box: Box;
  readonly ignored?: boolean;
}

/** What became of a detection. `face` is the index of the face it was matched to, −1 for a false positive. */
export interface Match {
  readonly outcome: 'true-positive' | 'false-positive' | 'ignored';
  readonly face: number;
}

/** Overlap from which a detection counts as right in VOC, WIDER FACE and FDDB. */
export const DEFAULT_IOU_THRESHOLD = 0.5;

/**
 * Matches the detections of one image with its faces; the answer has the order of `detections`.
 *
 * Equal scores are taken in the order of x, y, width, height, so the order in which detections arrive never matters
 * (two detections that are the same in all five numbers are interchangeable). Of faces overlapped equally, the first
 * wins.
 * @throws ScrimError INVALID_ARGUMENT for a box or score that isn't finite, or a threshold outside (0, 1].
 */
export function matchDetections(
  detections: readonly ScoredBox[],
  faces: readonly GroundTruth[],
  iouThreshold: number = DEFAULT_IOU_THRESHOLD,
): Match[] {
  if (!(iouThreshold > 0 && iouThreshold <= 1)) {
    throw new ScrimError('INVALID_ARGUMENT', `iouThreshold is ${iouThreshold}, expected a number in (0, 1]`);
  }
  detections.forEach((detection, i) => {
    assertBox(detection, `detections[${i}]`);
    if (!Number.isFinite(detection.score)) {
      throw new ScrimError('INVALID_ARGUMENT', `detections[${i}] has a score that is not finite`);
    }
  });

  const order = detections.map((_, i) => i).sort((i, j) => bySureness(detections[i]!, detections[j]!));
  const taken = new Uint8Array(faces.length);
  const matches = new Array<Match>(detections.length);
  for (const i of order) {
    const detection = detections[i]!;
    let best = -1;
    let bestOverlap = 0;
    let excuse = -1;
    let excuseOverlap = 0;
    for (let f = 0; f < faces.length; f++) {
      const face = faces[f]!;
      if (taken[f] === 1) continue;
      const overlap = intersectionOverUnion(detection, face.box);
      if (overlap < iouThreshold) continue;
      if (face.ignored === true) {
        if (overlap > excuseOverlap) [excuse, excuseOverlap] = [f, overlap];
      } else if (overlap > bestOverlap) [best, bestOverlap] = [f, overlap];
    }
    if (best >= 0) {
      taken[best] = 1;
      matches[i] = { outcome: 'true-positive', face: best };
    } else if (excuse >= 0) matches[i] = { outcome: 'ignored', face: excuse };
    else matches[i] = { outcome: 'false-positive', face: -1 };
  }
  return matches;
}

function bySureness(a: ScoredBox, b: ScoredBox): number {
  return b.score - a.score || a.x - b.x || a.y - b.y || a.width - b.width || a.height - b.height;
}
