/**
 * The gradient of a convolution by its weight in few nodes, for GPUs: one side is unfolded, then one matrix product per
 * image. With P the windows of an image and Q the positions of x, dw is the sum over the batch of
 *   g [M, P] · unfolded x [P, taps·C]   (im2col), or
 *   x [C, Q] · unfolded g [Q, taps·M],
 * the second where it unfolds to much less: a layer with few filters, such as the last one of a decoder, has a small g.
 * Else x is unfolded, since convolutions over the same x share it.
 *
 * Unfolding is one Gather over positions, with padding as one more position of zeros. It copies a side once for every
 * tap, which weight-gradient.ts avoids at the price of twice as many nodes.
 */
import type { RuleContext } from '../rule.js';
import { areFixed, type Size } from '../size.js';
import type { Side, WindowAxis } from './window.js';

/**
 * An unfolded batch beyond this many bytes is left to weight-gradient.ts: onnxruntime's WebGPU provider keeps no larger
 * buffers for the next step, and making one takes longer than all the rest.
 */
const MAX_BYTES = 160 * 2 ** 20;

/** How many times less g must unfold to than x. */
const MUCH_LESS = 4;

/** A convolution without groups. */
export interface PlainConvolution {
  /** [N, C, …], and the gradient [N, M, …] of the output. */
  readonly x: Side;
  readonly y: Side;
  /** [M, C, k…]. */
  readonly weight: string;
  readonly axes: readonly WindowAxis[];
}

/** The gradient by the weight; undefined where sizes are symbolic or too large. */
export function unfoldedWeightGradient(
  context: RuleContext,
  { x, y, weight, axes }: PlainConvolution,
): string | undefined {
  const { emit } = context;
  const from: readonly Size[] = emit.sizes(x.shape);
  const to: readonly Size[] = emit.sizes(y.shape);
  if (!areFixed(from) || !areFixed(to)) return undefined;
  const [batch = 1, channels = 1, ...space] = from;
  const [, filters = 1, ...windows] = to;
  const [positions, places] = [product(space), product(windows)];
  const taps = product(axes.map(({ kernel }) => kernel));
  const [ofX, ofY] = [places * channels, positions * filters];
  const byWindows = taps === 1 || ofX < MUCH_LESS * ofY;
  if (4 * batch * taps * (byWindows ? ofX : ofY) > MAX_BYTES) return undefined;
  const images = byWindows
    ? emit.op('MatMul', [emit.planes(y.value, to), unfold(context, x.value, from, windowRows(axes, space))])
    : emit.op('MatMul', [emit.planes(x.value, from), unfold(context, y.value, to, placeRows(axes, space))]);
  const [rows, columns] = byWindows ? [filters, channels] : [channels, filters];
  // Summed last, so that who needs many gradients can sum them all at once.
  const order = byWindows ? [0, 1, 3, 2] : [0, 3, 1, 2];
  const ordered = taps === 1 ? images : emit.transpose(emit.reshape(images, [batch, rows, taps, columns]), order);
  return emit.reshapeLike(emit.sumRows(ordered, batch, rows * taps * columns, x.shape), weight);
}

const product = (sizes: readonly number[]): number => sizes.reduce((all, size) => all * size, 1);

/** One axis of an unfolding: row r finds tap t at position (perRow·r + perTap·t + first)/divisor of `size`, or nowhere. */
interface UnfoldedAxis {
  readonly rows: number;
  readonly taps: number;
  readonly size: number;
  readonly perRow: number;
  readonly perTap: number;
  readonly first: number;
  readonly divisor: number;
}

/** A row for every window: its taps lie in x. */
function windowRows(axes: readonly WindowAxis[], space: readonly number[]): UnfoldedAxis[] {
  return axes.map(({ kernel, stride, dilation, begin, out }, i) => ({
    rows: out as number,
    taps: kernel,
    size: space[i] as number,
    perRow: stride,
    perTap: dilation,
    first: -begin,
    divisor: 1,
  }));
}

/** A row for every position of x: a tap lies in the window that reads it there, if there is one. */
function placeRows(axes: readonly WindowAxis[], space: readonly number[]): UnfoldedAxis[] {
  return axes.map(({ kernel, stride, dilation, begin, out }, i) => ({
    rows: space[i] as number,
    taps: kernel,
    size: out as number,
    perRow: 1,
    perTap: -dilation,
    first: begin,
    divisor: stride,
  }));
}

/** A value [N, C, …] as [N, rows, taps·C]; who asks for the same value by the same axes shares it. */
function unfold({ emit }: RuleContext, value: string, sizes: readonly number[], axes: readonly UnfoldedAxis[]): string {
  const [batch = 1, channels = 1, ...space] = sizes;
  const flat = emit.pixels(value, sizes);
  const key = axes.map((axis) => Object.values(axis).join()).join(';');
  return emit.once(`unfolded ${value} ${key}`, () => {
    const positions = unfoldedPositions(axes);
    if (positions.length === product(space) && positions.every((position, i) => position === i)) return flat;
    const padded = emit.once(`padded pixels of ${value}`, () => emit.pad(flat, [0, 0, 0], [0, 1, 0]));
    const index = emit.once(`positions ${key}`, () => emit.ints(positions));
    const rows = product(axes.map((axis) => axis.rows));
    return emit.reshape(emit.gather(padded, index, 1), [batch, rows, (positions.length / rows) * channels]);
  });
}

/** For every row and tap, taps fastest, the position in the flattened space; its size stands for nowhere. */
function unfoldedPositions(axes: readonly UnfoldedAxis[]): number[] {
  const taps = product(axes.map((axis) => axis.taps));
  const nowhere = product(axes.map(({ size }) => size));
  return Array.from({ length: product(axes.map(({ rows }) => rows)) * taps }, (_, index) => {
    let [row, tap] = [Math.floor(index / taps), index % taps];
    let [position, step] = [0, 1];
    // The last axis is the fastest in all three.
    for (let i = axes.length - 1; i >= 0; i--) {
      const axis = axes[i] as UnfoldedAxis;
      const at = axis.perRow * (row % axis.rows) + axis.perTap * (tap % axis.taps) + axis.first;
      const here = at / axis.divisor;
      if (!Number.isInteger(here) || here < 0 || here >= axis.size) return nowhere;
      position += here * step;
      step *= axis.size;
      row = Math.floor(row / axis.rows);
      tap = Math.floor(tap / axis.taps);
    }
    return position;
  });
}
