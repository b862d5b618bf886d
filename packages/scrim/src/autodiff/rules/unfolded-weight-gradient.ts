/**
 * The gradient of a convolution by its weight in few nodes, for GPUs: x is unfolded (im2col), then one matrix product
 * per image, dw = Σ over the batch of g [M, P]·unfolded [P, taps·C] with P the windows of an image.
 *
 * Unfolding is one Gather over positions, with padding as one more position of zeros. It copies x once for every tap,
 * which weight-gradient.ts avoids at the price of twice as many nodes.
 */
import type { RuleContext } from '../rule.js';
import { areFixed, type Size } from '../size.js';
import type { Side, WindowAxis } from './window.js';

/**
 * An unfolded batch beyond this many bytes is left to weight-gradient.ts: onnxruntime's WebGPU provider keeps no larger
 * buffers for the next step, and making one takes longer than all the rest.
 */
const MAX_BYTES = 160 * 2 ** 20;

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
  const [batch = 1, channels = 1] = from;
  const [, filters = 1, ...windows] = to;
  const places = windows.reduce((product, size) => product * size, 1);
  const taps = axes.reduce((product, { kernel }) => product * kernel, 1);
  if (4 * batch * places * taps * channels > MAX_BYTES) return undefined;
  const images = emit.op('MatMul', [emit.planes(y.value, to), unfold(context, x.value, from, places, taps, axes)]);
  const summed = emit.sumRows(images, batch, filters * taps * channels, x.shape);
  if (taps === 1) return emit.reshapeLike(summed, weight);
  return emit.reshapeLike(emit.transpose(emit.reshape(summed, [filters, taps, channels]), [0, 2, 1]), weight);
}

/** x [N, C, …] as [N, P, taps·C]; convolutions over the same x by the same windows share it. */
function unfold(
  { emit }: RuleContext,
  x: string,
  [batch = 1, channels = 1, ...space]: readonly number[],
  places: number,
  taps: number,
  axes: readonly WindowAxis[],
): string {
  const flat = emit.once(`pixels of ${x}`, () =>
    emit.transpose(emit.planes(x, [batch, channels, ...space]), [0, 2, 1]),
  );
  const windows = axes.map(({ kernel, stride, dilation, begin, out }) => [kernel, stride, dilation, begin, out].join());
  return emit.once(`unfolded ${x} ${windows.join(';')}`, () => {
    const positions = tapPositions(axes, space);
    if (taps === 1 && positions.every((position, i) => position === i)) return flat;
    const padded = emit.once(`padded pixels of ${x}`, () => emit.pad(flat, [0, 0, 0], [0, 1, 0]));
    const index = emit.once(`positions ${space.join()} ${windows.join(';')}`, () => emit.ints(positions));
    return emit.reshape(emit.gather(padded, index, 1), [batch, places, taps * channels]);
  });
}

/** For every window and tap the position in an image's flattened space; its size stands for padding. */
function tapPositions(axes: readonly WindowAxis[], space: readonly number[]): number[] {
  const outs = axes.map(({ out }) => out as number);
  const places = outs.reduce((product, count) => product * count, 1);
  const taps = axes.reduce((product, { kernel }) => product * kernel, 1);
  const outside = space.reduce((product, size) => product * size, 1);
  return Array.from({ length: places * taps }, (_, index) => {
    let [place, tap] = [Math.floor(index / taps), index % taps];
    let [at, step] = [0, 1];
    // The last axis is the fastest in all three.
    for (let i = axes.length - 1; i >= 0; i--) {
      const { kernel, stride, dilation, begin } = axes[i] as WindowAxis;
      const [out, size] = [outs[i] as number, space[i] as number];
      const here = (place % out) * stride + (tap % kernel) * dilation - begin;
      if (here < 0 || here >= size) return outside;
      at += here * step;
      step *= size;
      place = Math.floor(place / out);
      tap = Math.floor(tap / kernel);
    }
    return at;
  });
}
