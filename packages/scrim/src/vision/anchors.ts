/**
 * The default boxes of FaceBoxes (Zhang et al., "FaceBoxes: A CPU Real-time Face Detector with High Accuracy",
 * section 3.3): squares on the grids of strides 32, 64 and 128, the small ones densified so that every size is tiled
 * with the same number of boxes per area.
 *
 * The order is that of the network's outputs: level by level; within a level row by row and cell by cell; within a
 * cell size by size; within a densified size y outside, x inside.
 */
import { expectSize, type Size } from './image.js';

/** Sizes of squares on one grid. */
export interface AnchorLevel {
  /** Distance of the grid's cells in pixels. */
  readonly stride: number;
  /** Edge of each square in pixels, and how often it is repeated along each axis of a cell. */
  readonly squares: readonly { readonly size: number; readonly density: number }[];
}

/** How a network's default boxes lie. */
export interface AnchorSpec {
  readonly levels: readonly AnchorLevel[];
  /**
   * Where the repetitions of a densified square lie. 'cell': stride/density apart, from the cell's corner on, as in the
   * PyTorch training. 'square': size/density apart, centred on the cell, as in the TensorFlow one. A square that is not
   * repeated lies in the middle of its cell in both.
   */
  readonly dense: 'cell' | 'square';
  /** True if boxes are cut at the input's edges before offsets are applied to them. */
  readonly clip: boolean;
}

/** The levels of FaceBoxes: 21 boxes a cell at stride 32, one at 64, one at 128. */
export const FACEBOXES_LEVELS: readonly AnchorLevel[] = [
  {
    stride: 32,
    squares: [
      { size: 32, density: 4 },
      { size: 64, density: 2 },
      { size: 128, density: 1 },
    ],
  },
  { stride: 64, squares: [{ size: 256, density: 1 }] },
  { stride: 128, squares: [{ size: 512, density: 1 }] },
];

/** Number of default boxes for an input of `input`'s size; a grid has ⌈side / stride⌉ cells along a side. */
export function countAnchors(spec: AnchorSpec, input: Size): number {
  let count = 0;
  for (const { stride, squares } of spec.levels) {
    const cells = Math.ceil(input.height / stride) * Math.ceil(input.width / stride);
    for (const { density } of squares) count += cells * density * density;
  }
  return count;
}

/**
 * The default boxes for an input of `input`'s size: four numbers each, centre x, centre y, width, height, in pixels of
 * the input.
 * @throws ScrimError INVALID_ARGUMENT for a size that is no integer ≥ 1.
 */
export function makeAnchors(spec: AnchorSpec, input: Size): Float32Array {
  expectSize(input, 'the input');
  const anchors = new Float32Array(4 * countAnchors(spec, input));
  let at = 0;
  const put = (x: number, y: number, size: number): void => {
    let [left, top, right, bottom] = [x - size / 2, y - size / 2, x + size / 2, y + size / 2];
    if (spec.clip) {
      [left, right] = [Math.max(left, 0), Math.min(right, input.width)];
      [top, bottom] = [Math.max(top, 0), Math.min(bottom, input.height)];
    }
    anchors[at++] = (left + right) / 2;
    anchors[at++] = (top + bottom) / 2;
    anchors[at++] = right - left;
    anchors[at++] = bottom - top;
  };
  for (const { stride, squares } of spec.levels) {
    const rows = Math.ceil(input.height / stride);
    const columns = Math.ceil(input.width / stride);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        for (const { size, density } of squares) {
          for (let j = 0; j < density; j++) {
            for (let i = 0; i < density; i++) {
              put(
                column * stride + offsetInCell(spec, stride, size, density, i),
                row * stride + offsetInCell(spec, stride, size, density, j),
                size,
              );
            }
          }
        }
      }
    }
  }
  return anchors;
}

/** Distance in pixels from a cell's edge to the centre of repetition `k` of a square. */
function offsetInCell(spec: AnchorSpec, stride: number, size: number, density: number, k: number): number {
  if (density === 1) return stride / 2;
  return spec.dense === 'cell' ? (stride * k) / density : stride / 2 + size * ((k + 0.5) / density - 0.5);
}
