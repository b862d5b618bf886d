/**
 * Gradients of reductions.
 *
 * The gradient of the output is first given back the reduced axes with size 1, then broadcast against x. Elements that
 * share an extreme value share its gradient evenly, as in PyTorch's amax.
 */
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import type { Size } from '../size.js';

/** Axes that a reduction removes, counted from the front; undefined if only the run knows them. */
function reducedAxes(context: RuleContext, inputSince: number): number[] | undefined {
  const { emit, node, x } = context;
  const given =
    emit.opset >= inputSince && context.input(1) !== '' ? context.constantInts(1) : intsAttribute(node, 'axes', []);
  if (given === undefined) return undefined;
  const rank = emit.rank(x);
  if (given.length === 0) {
    return intAttribute(node, 'noop_with_empty_axes', 0) === 1 ? [] : Array.from({ length: rank }, (_, i) => i);
  }
  return given.map((axis) => (axis < 0 ? axis + rank : axis)).sort((a, b) => a - b);
}

/** `value`, which has the shape of the output, with the reduced axes back as 1. */
function withAxes(context: RuleContext, value: string, axes: readonly number[] | undefined): string {
  const { emit, node, x } = context;
  if (intAttribute(node, 'keepdims', 1) === 1 || axes?.length === 0) return value;
  if (!axes) throw context.unsupported('keepdims is 0 and its axes are no constant');
  if (axes.length === emit.rank(x)) return value;
  return emit.reshape(
    value,
    emit.sizes(x).map((size, axis): Size => (axes.includes(axis) ? 1 : size)),
  );
}

/** Number of elements that each output element is made of, as a Size. */
function elementsPerOutput({ emit, x, y }: RuleContext, axes: readonly number[] | undefined): Size {
  if (axes) return emit.product(axes.map((axis) => emit.size(x, axis)));
  return emit.over(emit.product(emit.sizes(x)), emit.product(emit.sizes(y)));
}

type Formula = (context: RuleContext, g: string, y: () => string, axes: readonly number[] | undefined) => string;

/** A rule whose formula sees g and y with the reduced axes kept. `inputSince`: operator set where axes is an input. */
function reduction(inputSince: number, formula: Formula): GradientRule {
  return (context) => {
    const axes = reducedAxes(context, inputSince);
    return [formula(context, withAxes(context, context.dy, axes), () => withAxes(context, context.y, axes), axes)];
  };
}

const mean: Formula = (context, g, _, axes) => {
  const { emit, x } = context;
  const count = elementsPerOutput(context, axes);
  const share =
    typeof count === 'number'
      ? emit.scale(g, 1 / count, x)
      : emit.div(g, emit.cast(emit.squeeze(count.value, [0]), emit.dtype(x)));
  return emit.expandLike(share, x);
};

/** ReduceMax, ReduceMin: g / (how many attain y) where x = y. */
const extreme: Formula = (context, g, y, axes) => {
  const { emit, x } = context;
  const mask = emit.mask(emit.op('Equal', [x, y()]), x);
  if (!axes) throw context.unsupported('its axes are no constant');
  return emit.mul(emit.div(g, emit.reduceSum(mask, axes, true)), mask);
};

/** ReduceProd: g times the product of the other elements, which is y/x where nothing is 0. */
const product: Formula = (context, g, y, axes) => {
  const { emit, x } = context;
  if (!axes) throw context.unsupported('its axes are no constant');
  const zero = emit.scalar(0, x);
  const isZero = emit.op('Equal', [x, zero]);
  const others = emit.op('Where', [isZero, emit.scalar(1, x), x]);
  const zeros = emit.reduceSum(emit.mask(isZero, x), axes, true);
  // Beside one zero only that zero has a product of others, beside more nothing has.
  const atZero = emit.op('Where', [
    emit.op('Equal', [zeros, emit.scalar(1, x)]),
    emit.reduceProd(others, axes, true),
    zero,
  ]);
  return emit.mul(g, emit.op('Where', [isZero, atZero, emit.div(y(), others)]));
};

/** Rules of the Reduce operators. */
export const REDUCTION: RuleTable = {
  // y = Σ x: g
  ReduceSum: reduction(13, ({ emit, x }, g) => emit.expandLike(g, x)),
  // y = Σ x / n: g/n
  ReduceMean: reduction(18, mean),
  ReduceProd: reduction(18, product),
  ReduceMax: reduction(18, extreme),
  ReduceMin: reduction(18, extreme),
  // y = Σ x²: 2gx
  ReduceSumSquare: reduction(18, ({ emit, x }, g) => emit.mul(emit.scale(g, 2, x), x)),
  // y = Σ |x|: g·sign x
  ReduceL1: reduction(18, ({ emit, x }, g) => emit.mul(g, emit.sign(x, x))),
  // y = √Σ x²: g·x/y, and 0 where y is 0
  ReduceL2: reduction(18, ({ emit, x }, g, y) => {
    const norm = y();
    const zero = emit.op('Equal', [norm, emit.scalar(0, x)]);
    return emit.mul(emit.div(g, emit.op('Where', [zero, emit.scalar(1, x), norm])), x);
  }),
  // y = ln Σ x: g/e^y
  ReduceLogSum: reduction(18, ({ emit, x }, g, y) => emit.expandLike(emit.div(g, emit.op('Exp', [y()])), x)),
  // y = ln Σ eˣ: g·e^(x − y)
  ReduceLogSumExp: reduction(18, ({ emit, x }, g, y) => emit.mul(g, emit.op('Exp', [emit.sub(x, y())]))),
};
