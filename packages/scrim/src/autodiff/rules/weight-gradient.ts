/**
 * The gradient of a convolution by its weight:
 * dw[m, c, i, j] = Σ over batch and windows (o, q) of g[m, o, q]·x[c, o·s + i·d, q·s + j·d], x padded.
 *
 * One matrix product gives all taps. With r = o + i·d/s running over the rows of x, g moved down by i·d/s rows meets x
 * moved left by j·d columns, so g is stacked for every i and x for every j: [M·I, K]·[J·C, K]ᵀ computes each product
 * once and copies x only J times, where im2col would copy it I·J times. With a stride above 1, the rows of x and the taps
 * i fall into classes by (i·d mod s), with one product each. More spatial axes count as columns. On a GPU that is too many
 * nodes: unfolded-weight-gradient.ts.
 */
import type { RuleContext } from '../rule.js';
import { areFixed, isFixed, type Size } from '../size.js';
import { unfoldedWeightGradient } from './unfolded-weight-gradient.js';
import { reach, type Side, type WindowAxis } from './window.js';

/** Sizes of the product; channels and filters are per group. */
interface Plan {
  readonly batch: Size;
  readonly group: number;
  readonly channels: Size;
  readonly filters: Size;
  /** True if the batch is part of the inner axis of the product; false if products are made per image and summed. */
  readonly merged: boolean;
}

/**
 * The gradient by `weight` [g·M, C, k…] of the convolution from `x` [N, g·C, …] whose output has the gradient `y`
 * [N, g·M, …]. For a ConvTranspose the two sides change places.
 */
export function weightGradient(
  context: RuleContext,
  x: Side,
  y: Side,
  weight: string,
  axes: readonly WindowAxis[],
  group: number,
): string {
  const { emit } = context;
  const unfolded = emit.isGpu && group === 1 ? unfoldedWeightGradient(context, { x, y, weight, axes }) : undefined;
  if (unfolded !== undefined) return unfolded;
  const [batch, channels] = emit.sizes(x.shape) as [Size, Size];
  const filters = emit.size(y.shape, 1);
  const plan: Plan = {
    batch,
    group,
    channels: emit.over(channels, group),
    filters: emit.over(filters, group),
    merged: mergesBatch(batch, channels, filters, axes),
  };
  const [rows, ...columns] = axes as [WindowAxis, ...WindowAxis[]];
  const padded = emit.pad(
    x.value,
    [0, 0, ...axes.map(({ begin }) => begin)],
    [0, 0, ...axes.map((axis) => after(context, axis))],
  );
  const taps = Array.from({ length: rows.kernel }, (_, i) => i * rows.dilation);
  const classes = [...new Set(taps.map((offset) => offset % rows.stride))];
  const products = classes.map((phase) => {
    const offsets = taps.filter((offset) => offset % rows.stride === phase);
    // Counted from the class's first tap, which with a dilation above 1 may lie whole strides down.
    const first = offsets[0] as number;
    const shifts = offsets.map((offset) => (offset - first) / rows.stride);
    const left = movedDown(context, y.value, shifts, plan, axes);
    const right = movedLeft(context, padded, first, shifts.at(-1) as number, plan, axes);
    const product = emit.op('MatMul', [left, emit.transpose(right, plan.merged ? [0, 2, 1] : [0, 1, 3, 2])]);
    const summed = plan.merged || batch === 1 ? product : emit.reduceSum(product, [0], false);
    if (classes.length === 1) return summed;
    const columnTaps = columns.reduce((taken, { kernel }) => taken * kernel, 1);
    return emit.reshape(summed, [filters, shifts.length, emit.times(plan.channels, columnTaps)]);
  });
  const all = inOrder(context, products, taps, classes, rows.stride);
  const count = axes.reduce((taken, { kernel }) => taken * kernel, 1);
  if (count === 1) return emit.reshapeLike(all, weight);
  return emit.reshapeLike(emit.transpose(emit.reshape(all, [filters, count, plan.channels]), [0, 2, 1]), weight);
}

/** Products per class, [M, taps of the class, …], as one with the taps in their own order. */
function inOrder(
  { emit }: RuleContext,
  products: readonly string[],
  taps: readonly number[],
  classes: readonly number[],
  stride: number,
): string {
  if (products.length === 1) return products[0] as string;
  const joined = emit.op('Concat', products, { axis: 1 });
  const order = classes.flatMap((phase) => taps.flatMap((offset, i) => (offset % stride === phase ? [i] : [])));
  return emit.gather(joined, emit.ints(taps.map((_, i) => order.indexOf(i))), 1);
}

/** Merging copies both sides, not merging adds up a result per image: whichever moves less. */
function mergesBatch(batch: Size, channels: Size, filters: Size, axes: readonly WindowAxis[]): boolean {
  const sizes = [channels, filters, ...axes.map(({ out }) => out)];
  if (batch === 1 || !areFixed(sizes)) return false;
  const [c, m, ...windows] = sizes as [number, number, ...number[]];
  const taps = axes.reduce((product, { kernel }) => product * kernel, 1);
  return 2 * (c + m) * windows.reduce((a, b) => a * b, 1) < c * m * taps;
}

/** Padding after an axis so that every tap of the last window exists. */
function after(context: RuleContext, axis: WindowAxis): Size {
  const { emit } = context;
  const missing = emit.minus(emit.minus(reach(context, axis), axis.size), axis.begin);
  return isFixed(missing) ? Math.max(missing, 0) : axis.end;
}

/**
 * g with s rows of zeros above and (last − s) below, for every shift s, as one matrix with rows (m, s). The shifts start
 * at 0 and are evenly spaced, so the copies of g only have as many rows of zeros between them.
 */
function movedDown(
  context: RuleContext,
  value: string,
  shifts: readonly number[],
  plan: Plan,
  axes: readonly WindowAxis[],
): string {
  const { emit } = context;
  const { batch, group, filters } = plan;
  const [rows, ...columns] = axes as [WindowAxis, ...WindowAxis[]];
  const last = shifts.at(-1) as number;
  const space = [emit.plus(rows.out, last), ...columns.map(({ out }) => out)];
  if (shifts.length === 1) return matrix(context, value, filters, space, plan);
  const gap = last + (shifts[1] as number);
  const zeros = emit.zeros([batch, emit.times(filters, group), gap, ...columns.map(({ out }) => out)], context.x);
  const parts = shifts.flatMap((_, i) => (i === 0 ? [value] : [zeros, value]));
  return matrix(context, emit.op('Concat', parts, { axis: 2 }), emit.times(filters, shifts.length), space, plan);
}

/** Every s-th row of the padded x from row `first` on, moved left by every column tap, as one matrix with rows (tap, c). */
function movedLeft(
  context: RuleContext,
  padded: string,
  first: number,
  lastShift: number,
  plan: Plan,
  axes: readonly WindowAxis[],
): string {
  const { emit } = context;
  const { batch, group, channels } = plan;
  const [rows, ...columns] = axes as [WindowAxis, ...WindowAxis[]];
  const space = [emit.plus(rows.out, lastShift), ...columns.map(({ out }) => out)];
  const steps = axes.map(({ stride }) => stride);
  const moved = offsetsOf(columns).map((offsets) => {
    const starts = [first, ...offsets];
    const ends = space.map((size, i) =>
      emit.plus(emit.times(emit.minus(size, 1), steps[i] as number), (starts[i] as number) + 1),
    );
    const whole = axes.every(
      (axis, i) => steps[i] === 1 && starts[i] === 0 && axis.kernel === 1 && axis.begin === 0 && axis.end === 0,
    );
    const part = whole
      ? padded
      : emit.slice(
          padded,
          axes.map((_, i) => i + 2),
          starts,
          ends,
          steps,
        );
    return group === 1 ? part : emit.reshape(part, [batch, group, channels, ...space]);
  });
  const joined = moved.length === 1 ? (moved[0] as string) : emit.op('Concat', moved, { axis: group === 1 ? 1 : 2 });
  return matrix(context, joined, emit.times(channels, moved.length), space, plan);
}

/** [N, g, rows, positions], or [g, rows, N·positions] if the batch is merged. */
function matrix(
  { emit }: RuleContext,
  value: string,
  rows: Size,
  space: readonly Size[],
  { batch, group, merged }: Plan,
): string {
  const positions = emit.product(space);
  if (!merged) return emit.reshape(value, [batch, group, rows, positions]);
  const flat = emit.reshape(value, [batch, emit.times(rows, group), positions]);
  return emit.reshape(emit.transpose(flat, [1, 0, 2]), [group, rows, emit.times(batch, positions)]);
}

/** All combinations of offsets of the taps of these axes, the last axis fastest. */
function offsetsOf(axes: readonly WindowAxis[]): number[][] {
  return axes.reduce<number[][]>(
    (all, { kernel, dilation }) =>
      all.flatMap((prefix) => Array.from({ length: kernel }, (_, j) => [...prefix, j * dilation])),
    [[]],
  );
}
