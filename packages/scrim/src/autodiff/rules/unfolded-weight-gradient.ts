/**
 * The gradient of a convolution by its weight in few nodes, for GPUs: x is unfolded (im2col), then one matrix product
 * per image, dw = Σ over the batch of g [M, P]·unfolded [P, taps·C] with P the windows of an image.
 *
 * Unfolding is one Gather over positions, with padding as one more position of zeros. It copies x once for every tap,
 * which weight-gradient.ts avoids at the price of twice as many nodes.
 */
import type { RuleContext } from '../rule.js';
import { areFixed, type Size } from '../size.js';
import type { Side } from './weight-gradient.js';
import type { WindowAxis } from './window.js';

/**
 * An unfolded batch beyond this many bytes is left to weight-gradient.ts: onnxruntime's WebGPU provider keeps no larger
 * buffers for the next step, and making one takes longer than all the rest.
 */
const MAX_BYTES = 160 * 2 ** 20;

/**
 * The gradient by `weight` [M, C, k…] of the convolution without groups from `x` [N, C, …] whose output has the gradient
 * `y` [N, M, …]; undefined where sizes are symbolic or too large.
 */
export function unfoldedWeightGradient(
  context: RuleContext,
  x: Side,
  y: Side,
  weight: string,
  axes: readonly WindowAxis[],
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
  const outside = -1;
  let positions: { window: number; tap: number; at: number }[] = [{ window: 0, tap: 0, at: 0 }];
  axes.forEach(({ kernel, stride, dilation, begin, out }, i) => {
    const size = space[i] as number;
    const count = out as number;
    positions = positions.flatMap(({ window, tap, at }) =>
      Array.from({ length: count * kernel }, (_, k) => {
        const [o, j] = [Math.floor(k / kernel), k % kernel];
        const here = o * stride + j * dilation - begin;
        const inside = at !== outside && here >= 0 && here < size;
        return { window: window * count + o, tap: tap * kernel + j, at: inside ? at * size + here : outside };
      }),
    );
  });
  const taps = axes.reduce((product, { kernel }) => product * kernel, 1);
  const whole = space.reduce((product, size) => product * size, 1);
  const result = new Array<number>(positions.length);
  for (const { window, tap, at } of positions) result[window * taps + tap] = at === outside ? whole : at;
  return result;
}
