/**
 * Gradients of Slice and Pad: what one cuts away, the other adds.
 *
 * Slice: with fixed bounds its picked positions are worked out here; otherwise the same Slice is applied to the
 * positions 0, 1, 2, … of the axis at run time. Pad: modes that copy elements (edge, reflect, wrap) are linear maps of
 * one axis at a time, and the map is the Pad of the identity matrix.
 */
import { stringAttribute } from '../../onnx/attributes.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import { isFixed, type Size } from '../size.js';

/** Positions that a Slice picks along one axis: lowest, lowest + stride, …; read backwards if `reversed`. */
interface Picked {
  readonly axis: number;
  readonly lowest: Size;
  readonly highest: Size;
  readonly count: Size;
  readonly stride: number;
  readonly reversed: boolean;
}

const slice: GradientRule = (context) => {
  const { emit, x, y, dy } = context;
  const rank = emit.rank(x);
  const picks = pickedPositions(context, rank);
  if (picks.some(({ count }) => count === 0)) return [emit.zerosLike(x)];
  const reversed = picks.filter((pick) => pick.reversed).map(({ axis }) => axis);
  let gradient =
    reversed.length === 0
      ? dy
      : emit.slice(
          dy,
          reversed,
          reversed.map(() => -1),
          reversed.map(() => Number.MIN_SAFE_INTEGER),
          reversed.map(() => -1),
        );
  const sizes = emit.sizes(y);
  const begins: Size[] = sizes.map(() => 0);
  const ends: Size[] = sizes.map(() => 0);
  for (const { axis, lowest, highest, stride } of picks) {
    gradient = emit.spread(gradient, sizes, axis, stride);
    sizes[axis] = emit.plus(emit.minus(highest, lowest), 1);
    begins[axis] = lowest;
    ends[axis] = emit.minus(emit.minus(emit.size(x, axis), 1), highest);
  }
  return [emit.pad(gradient, begins, ends)];
};

function pickedPositions(context: RuleContext, rank: number): Picked[] {
  const { emit, node, x } = context;
  const starts = context.constantInts(1);
  const ends = context.constantInts(2);
  const count = starts?.length ?? ends?.length ?? vectorLength(context, 1);
  const axes =
    context.input(3) === '' ? Array.from({ length: count }, (_, i) => i) : (context.constantInts(3) as number[]);
  const steps = context.input(4) === '' ? axes.map(() => 1) : context.constantInts(4);
  if (!axes || !steps) throw context.unsupported('its axes or steps are no constants');
  return axes.map((given, i) => {
    const axis = given < 0 ? given + rank : given;
    const step = steps[i] ?? 1;
    const size = emit.size(x, axis);
    if (isFixed(size) && starts && ends) return fixedPick(axis, size, starts[i] as number, ends[i] as number, step);
    const bound = (position: number): string => emit.gather(node.input[position] as string, emit.ints([i]), 0);
    const positions = emit.op('Slice', [emit.iota(size), bound(1), bound(2), emit.ints([0]), emit.ints([step])]);
    const at = (index: number): Size => ({ value: emit.gather(positions, emit.ints([index]), 0) });
    return {
      axis,
      lowest: at(step > 0 ? 0 : -1),
      highest: at(step > 0 ? -1 : 0),
      count: { value: positions },
      stride: Math.abs(step),
      reversed: step < 0,
    };
  });
}

function vectorLength(context: RuleContext, i: number): number {
  const [length] = context.emit.dims(context.input(i));
  if (typeof length !== 'number') throw context.unsupported('the number of its axes is unknown');
  return length;
}

/** ONNX's Slice: bounds count from the end if negative and are clamped to the axis. */
function fixedPick(axis: number, size: number, start: number, end: number, step: number): Picked {
  const clamp = (value: number, low: number, high: number): number =>
    Math.min(Math.max(value < 0 ? value + size : value, low), high);
  const [low, high] = step > 0 ? [0, size] : [-1, size - 1];
  const first = clamp(start, 0, high);
  const count = Math.max(0, Math.ceil((clamp(end, low, high) - first) / step));
  const last = first + (count - 1) * step;
  return {
    axis,
    lowest: Math.min(first, last),
    highest: Math.max(first, last),
    count,
    stride: Math.abs(step),
    reversed: step < 0,
  };
}

/** Padding before and after every axis, as Sizes; negative amounts crop. */
function amounts(context: RuleContext, rank: number): { begins: Size[]; ends: Size[]; fixed: boolean } {
  const { emit } = context;
  const begins: Size[] = Array.from({ length: rank }, () => 0);
  const ends: Size[] = Array.from({ length: rank }, () => 0);
  const pads = context.constantInts(1);
  const axes =
    context.input(3) === ''
      ? begins.map((_, axis) => axis)
      : context.constantInts(3)?.map((a) => (a < 0 ? a + rank : a));
  if (!axes) throw context.unsupported('its axes are no constant');
  const at = (i: number): Size => pads?.[i] ?? { value: emit.gather(context.input(1), emit.ints([i]), 0) };
  axes.forEach((axis, i) => {
    begins[axis] = at(i);
    ends[axis] = at(i + axes.length);
  });
  return { begins, ends, fixed: pads !== undefined };
}

const pad: GradientRule = (context) => {
  const { emit, node, x, y, dy } = context;
  const rank = emit.rank(x);
  const { begins, ends, fixed } = amounts(context, rank);
  const mode = stringAttribute(node, 'mode', 'constant');
  const touched = begins.map((_, axis) => axis).filter((axis) => begins[axis] !== 0 || ends[axis] !== 0);
  if (mode !== 'constant') {
    if (!fixed) throw context.unsupported(`mode is ${mode} and its pads are no constant`);
    const sizes = emit.sizes(y);
    let gradient = dy;
    for (const axis of touched) {
      const size = emit.size(x, axis);
      const padding = emit.ints([0, begins[axis] as number, 0, ends[axis] as number]);
      const matrix = emit.op('Pad', [emit.identity(size, x), padding, emit.scalar(0, x)], { mode });
      gradient = emit.alongAxis(gradient, sizes, axis, matrix, size);
      sizes[axis] = size;
    }
    return [gradient];
  }
  // What was put in is cut away, what was cropped comes back as zeros; negative pads do both at once.
  let gradient: string | undefined;
  if (context.wants(0)) {
    const negated = (size: Size): Size => emit.minus(0, size);
    gradient = touched.length === 0 ? dy : emit.pad(dy, begins.map(negated), ends.map(negated));
  }
  // The padding value takes the gradient of all it filled: everything that is not x.
  let value: string | undefined;
  if (context.wants(2)) {
    const kept =
      gradient ??
      emit.pad(
        dy,
        begins.map((b) => emit.minus(0, b)),
        ends.map((e) => emit.minus(0, e)),
      );
    const all = Array.from({ length: rank }, (_, i) => i);
    const filled = emit.sub(emit.reduceSum(dy, all, false), emit.reduceSum(kept, all, false));
    value = emit.reshapeLike(filled, context.input(2));
  }
  return [gradient, undefined, value];
};

/** Rules of Slice and Pad. */
export const SLICING: RuleTable = { Slice: slice, Pad: pad };
