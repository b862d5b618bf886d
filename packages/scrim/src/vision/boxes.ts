/**
 * Boxes as typed arrays of corners (left, top, right, bottom): decoding offsets from default boxes (the SSD code of
 * Liu et al., 2016, with its variances), overlap, and greedy non-maximum suppression. Only boxes whose score passes the
 * floor are decoded and sorted; a photo has 20,000 default boxes and a few hundred of these.
 */
import { ScrimError } from '../errors.js';

/** What scales the offsets of centres and of sizes. */
export type Variances = readonly [centre: number, size: number];

/** Most boxes whose indices fit beside a score in one exact number. */
const MAX_CANDIDATES = 2 ** 22;

/**
 * Indices of the scores ≥ `floor`, highest first, at most `limit`; equal scores keep their order. Scores are ≥ 0; one
 * that is not a number is left out. `scores[offset + stride · i]` is the score of box i, of `count` boxes.
 * @throws ScrimError INVALID_ARGUMENT if there are too few scores, LIMIT_EXCEEDED for more than 2²² candidates.
 */
export function selectByScore(
  scores: Float32Array,
  count: number,
  floor: number,
  limit: number,
  stride = 1,
  offset = 0,
): Uint32Array {
  if (offset + stride * (count - 1) >= scores.length) {
    throw new ScrimError('INVALID_ARGUMENT', `scores has ${scores.length} elements, too few for ${count} boxes`);
  }
  const least = Math.max(floor, 0);
  let found = 0;
  for (let i = 0, at = offset; i < count; i++, at += stride) {
    if (scores[at]! >= least) found++;
  }
  if (found > MAX_CANDIDATES) {
    throw new ScrimError('LIMIT_EXCEEDED', `${found} boxes reach the floor of ${floor}, at most ${MAX_CANDIDATES}`);
  }
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  const lowest = found > limit ? lowestBin(bits, scores, count, least, limit, stride, offset) : 0;
  // A float ≥ 0 sorts like its bits, and 31 bits of score over 22 bits of position make one exact double: numbers sort
  // ten times faster than indices with a comparison.
  const candidates = new Uint32Array(found);
  const keys = new Float64Array(found);
  let next = 0;
  for (let i = 0, at = offset; i < count; i++, at += stride) {
    if (scores[at]! >= least && binOf(bits[at]!) >= lowest) {
      keys[next] = (0x7fffffff - (bits[at]! & 0x7fffffff)) * MAX_CANDIDATES + next;
      candidates[next++] = i;
    }
  }
  keys.subarray(0, next).sort();
  const selected = new Uint32Array(Math.min(found, limit));
  for (let k = 0; k < selected.length; k++) selected[k] = candidates[keys[k]! % MAX_CANDIDATES]!;
  return selected;
}

/** One of 4,096 bins of a float ≥ 0 by exponent and leading bits: higher scores lie in the same bin or a higher one. */
function binOf(bits: number): number {
  return (bits & 0x7fffffff) >>> 19;
}

/**
 * The bin at and above which lie at least `limit` of the scores that reach `least`, and as few more as bins allow: what
 * lies below need not be sorted.
 */
function lowestBin(
  bits: Uint32Array,
  scores: Float32Array,
  count: number,
  least: number,
  limit: number,
  stride: number,
  offset: number,
): number {
  const counts = new Uint32Array(4096);
  for (let i = 0, at = offset; i < count; i++, at += stride) {
    if (scores[at]! >= least) counts[binOf(bits[at]!)]!++;
  }
  let bin = counts.length - 1;
  for (let seen = counts[bin]!; seen < limit && bin > 0; ) seen += counts[--bin]!;
  return bin;
}

/**
 * Decodes the boxes that `indices` names, in that order: centre = anchor centre + offset · variance · anchor size,
 * size = anchor size · exp(offset · variance).
 * @param offsets four numbers a box (x, y, width, height), those of box i at `start + 4·i`.
 * @param anchors four numbers a box: centre x, centre y, width, height.
 * @returns four numbers a box: left, top, right, bottom, in the unit of the anchors.
 */
export function decodeBoxes(
  offsets: Float32Array,
  anchors: Float32Array,
  variances: Variances,
  indices: Uint32Array,
  start = 0,
): Float32Array {
  const boxes = new Float32Array(4 * indices.length);
  const [centre, size] = variances;
  for (let k = 0; k < indices.length; k++) {
    const anchor = 4 * indices[k]!;
    const offset = start + anchor;
    const anchorWidth = anchors[anchor + 2]!;
    const anchorHeight = anchors[anchor + 3]!;
    const x = anchors[anchor]! + offsets[offset]! * centre * anchorWidth;
    const y = anchors[anchor + 1]! + offsets[offset + 1]! * centre * anchorHeight;
    const halfWidth = (anchorWidth * Math.exp(offsets[offset + 2]! * size)) / 2;
    const halfHeight = (anchorHeight * Math.exp(offsets[offset + 3]! * size)) / 2;
    boxes[4 * k] = x - halfWidth;
    boxes[4 * k + 1] = y - halfHeight;
    boxes[4 * k + 2] = x + halfWidth;
    boxes[4 * k + 3] = y + halfHeight;
  }
  return boxes;
}

/** Intersection over union of box `i` of `a` and box `j` of `b`; 0 for boxes without area. */
export function overlap(a: Float32Array, i: number, b: Float32Array, j: number): number {
  const width = Math.min(a[4 * i + 2]!, b[4 * j + 2]!) - Math.max(a[4 * i]!, b[4 * j]!);
  const height = Math.min(a[4 * i + 3]!, b[4 * j + 3]!) - Math.max(a[4 * i + 1]!, b[4 * j + 1]!);
  if (!(width > 0) || !(height > 0)) return 0;
  return (width * height) / (areaOf(a, i) + areaOf(b, j) - width * height);
}

function areaOf(boxes: Float32Array, i: number): number {
  return (boxes[4 * i + 2]! - boxes[4 * i]!) * (boxes[4 * i + 3]! - boxes[4 * i + 1]!);
}

/**
 * Greedy suppression: of boxes that come in falling order of score, keeps each whose overlap with every box kept before
 * is at most `threshold`. Boxes with an area that is not finite are dropped.
 * @returns positions in `boxes` of those kept, at most `limit`.
 */
export function suppressOverlaps(boxes: Float32Array, threshold: number, limit: number): Uint32Array {
  const count = boxes.length >>> 2;
  const kept = new Uint32Array(Math.min(count, limit));
  // The boxes kept, side by side: left, top, right, bottom, area.
  const near = new Float64Array(5 * kept.length);
  let end = 0;
  for (let i = 0; i < count && end < near.length; i++) {
    const left = boxes[4 * i]!;
    const top = boxes[4 * i + 1]!;
    const right = boxes[4 * i + 2]!;
    const bottom = boxes[4 * i + 3]!;
    const area = (right - left) * (bottom - top);
    let keep = Number.isFinite(area);
    for (let k = 0; keep && k < end; k += 5) {
      const width = Math.min(right, near[k + 2]!) - Math.max(left, near[k]!);
      if (width <= 0) continue;
      const height = Math.min(bottom, near[k + 3]!) - Math.max(top, near[k + 1]!);
      if (height <= 0) continue;
      keep = width * height <= threshold * (area + near[k + 4]! - width * height);
    }
    if (keep) {
      kept[end / 5] = i;
      near[end] = left;
      near[end + 1] = top;
      near[end + 2] = right;
      near[end + 3] = bottom;
      near[end + 4] = area;
      end += 5;
    }
  }
  return kept.subarray(0, end / 5);
}
