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
  const geometry = axes
    .map(({ kernel, stride, dilation, begin }) => [kernel, stride, dilation, begin].join())
    .join(';');
  if (byWindows) {
    const unfolded = unfold(context, x.value, from, taps, {
      key: `windows ${space.join()} ${windows.join()} ${geometry}`,
      positions: () => inputPositions(axes, space),
    });
    const images = emit.op('MatMul', [emit.planes(y.value, to), unfolded]);
    const summed = emit.sumRows(images, batch, filters * taps * channels, x.shape);
    if (taps === 1) return emit.reshapeLike(summed, weight);
    return emit.reshapeLike(emit.transpose(emit.reshape(summed, [filters, taps, channels]), [0, 2, 1]), weight);
  }
  const unfolded = unfold(context, y.value, to, taps, {
    key: `places ${space.join()} ${windows.join()} ${geometry}`,
    positions: () => windowPositions(axes, space),
  });
  const images = emit.op('MatMul', [emit.planes(x.value, from), unfolded]);
  const summed = emit.sumRows(images, batch, channels * taps * filters, x.shape);
  return emit.reshapeLike(emit.transpose(emit.reshape(summed, [channels, taps, filters]), [2, 0, 1]), weight);
}

const product = (sizes: readonly number[]): number => sizes.reduce((all, size) => all * size, 1);

/** Which positions a value is unfolded by, and a name for them. */
interface Unfolding {
  readonly key: string;
  readonly positions: () => number[];
}

/** A value [N, C, …] as [N, rows, taps·C]; who asks for the same value by the same positions shares it. */
function unfold(
  { emit }: RuleContext,
  value: string,
  [batch = 1, channels = 1, ...space]: readonly number[],
  taps: number,
  { key, positions }: Unfolding,
): string {
  const flat = emit.once(`pixels of ${value}`, () =>
    emit.transpose(emit.planes(value, [batch, channels, ...space]), [0, 2, 1]),
  );
  return emit.once(`unfolded ${value} ${key}`, () => {
    const list = positions();
    if (list.length === product(space) && list.every((position, i) => position === i)) return flat;
    const padded = emit.once(`padded pixels of ${value}`, () => emit.pad(flat, [0, 0, 0], [0, 1, 0]));
    const index = emit.once(`positions ${key}`, () => emit.ints(list));
    return emit.reshape(emit.gather(padded, index, 1), [batch, list.length / taps, taps * channels]);
  });
}

/** For every window and tap, taps fastest, the position in x; its number of positions stands for padding. */
function inputPositions(axes: readonly WindowAxis[], space: readonly number[]): number[] {
  return combinations(
    axes.map(({ kernel, stride, dilation, begin, out }, i) => ({
      rows: out as number,
      taps: kernel,
      size: space[i] as number,
      at: (row, tap) => row * stride + tap * dilation - begin,
    })),
  );
}

/** For every position of x and tap, taps fastest, the window that reads it there; the number of windows stands for none. */
function windowPositions(axes: readonly WindowAxis[], space: readonly number[]): number[] {
  return combinations(
    axes.map(({ kernel, stride, dilation, begin, out }, i) => ({
      rows: space[i] as number,
      taps: kernel,
      size: out as number,
      at: (row, tap) => (row + begin - tap * dilation) / stride,
    })),
  );
}

/** One axis of an unfolding: where among `size` positions a row finds a tap; no whole number, or outside, is nowhere. */
interface UnfoldedAxis {
  readonly rows: number;
  readonly taps: number;
  readonly size: number;
  readonly at: (row: number, tap: number) => number;
}

function combinations(axes: readonly UnfoldedAxis[]): number[] {
  const taps = product(axes.map((axis) => axis.taps));
  const nowhere = product(axes.map(({ size }) => size));
  return Array.from({ length: product(axes.map(({ rows }) => rows)) * taps }, (_, index) => {
    let [row, tap] = [Math.floor(index / taps), index % taps];
    let [position, step] = [0, 1];
    // The last axis is the fastest in all three.
    for (let i = axes.length - 1; i >= 0; i--) {
      const axis = axes[i] as UnfoldedAxis;
      const here = axis.at(row % axis.rows, tap % axis.taps);
      if (!Number.isInteger(here) || here < 0 || here >= axis.size) return nowhere;
      position += here * step;
      step *= axis.size;
      row = Math.floor(row / axis.rows);
      tap = Math.floor(tap / axis.taps);
    }
    return position;
  });
}
