/**
 * Boxes as typed arrays of corners (left, top, right, bottom): decoding offsets from default boxes (the SSD code of
 * Liu et al., 2016, with its variances), overlap, and greedy non-maximum suppression. Only boxes whose score passes the
 * floor are decoded and sorted; a photo has 20,000 default boxes and a few hundred of these.
 */
import { ScrimError } from '../errors.js';

/** What scales the offsets of centres and of sizes. */
export type Variances = readonly [centre: number, size: number];

/**
 * Indices of the scores ≥ `floor`, highest first, at most `limit`; equal scores keep their order.
 * `scores[offset + stride · i]` is the score of box i, of `count` boxes.
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
  let found = 0;
  for (let i = 0, at = offset; i < count; i++, at += stride) {
    if (scores[at]! >= floor) found++;
  }
  const selected = new Uint32Array(found);
  for (let i = 0, at = offset, next = 0; i < count; i++, at += stride) {
    if (scores[at]! >= floor) selected[next++] = i;
  }
  const score = (i: number): number => scores[offset + stride * i]!;
  selected.sort((a, b) => score(b) - score(a) || a - b);
  return selected.length > limit ? selected.slice(0, limit) : selected;
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
  const left = Math.max(a[4 * i]!, b[4 * j]!);
  const top = Math.max(a[4 * i + 1]!, b[4 * j + 1]!);
  const right = Math.min(a[4 * i + 2]!, b[4 * j + 2]!);
  const bottom = Math.min(a[4 * i + 3]!, b[4 * j + 3]!);
  if (!(right > left) || !(bottom > top)) return 0;
  const shared = (right - left) * (bottom - top);
  return shared / (areaOf(a, i) + areaOf(b, j) - shared);
}

function areaOf(boxes: Float32Array, i: number): number {
  return (boxes[4 * i + 2]! - boxes[4 * i]!) * (boxes[4 * i + 3]! - boxes[4 * i + 1]!);
}

/**
 * Greedy suppression: of boxes that come in falling order of score, keeps each whose overlap with every box kept before
 * is at most `threshold`. Boxes with a coordinate that is not finite are dropped.
 * @returns positions in `boxes` of those kept, at most `limit`.
 */
export function suppressOverlaps(boxes: Float32Array, threshold: number, limit: number): Uint32Array {
  const count = boxes.length >>> 2;
  const kept = new Uint32Array(Math.min(count, limit));
  let size = 0;
  for (let i = 0; i < count && size < limit; i++) {
    let keep = Number.isFinite(areaOf(boxes, i));
    for (let k = 0; keep && k < size; k++) keep = overlap(boxes, i, boxes, kept[k]!) <= threshold;
    if (keep) kept[size++] = i;
  }
  return kept.subarray(0, size);
}
