/**
 * Gradients of elementwise arithmetic with broadcasting.
 *
 * With g the gradient of the output, every formula gives the gradient in the output's shape; `reduceTo` then undoes the
 * broadcasting. Where several operands attain a maximum or minimum, the gradient is split evenly among them, which is
 * the subgradient PyTorch chooses as well.
 */
import { intAttribute } from '../../onnx/attributes.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';

/** Wraps a formula per input: reduced to the input's shape, computed only where wanted. */
function broadcast(...formulas: readonly ((context: RuleContext) => string)[]): GradientRule {
  return (context) =>
    formulas.map((formula, i) =>
      context.wants(i) ? context.emit.reduceTo(formula(context), context.y, context.input(i)) : undefined,
    );
}

/** Sum, Mean: the same gradient for every operand. */
function shared(factor: (count: number) => number): GradientRule {
  return (context) => {
    const { emit, node, dy, y } = context;
    const scaled = emit.scale(dy, factor(node.input.length), y);
    return node.input.map((name, i) => (context.wants(i) ? emit.reduceTo(scaled, y, name) : undefined));
  };
}

/** Max, Min: g / (number of operands that attain y) where x_i = y. */
const extreme: GradientRule = (context) => {
  const { emit, node, dy, y } = context;
  const masks = node.input.map((name) => emit.mask(emit.op('Equal', [name, y]), y));
  const share = masks.length === 1 ? dy : emit.div(dy, emit.sum(masks));
  return node.input.map((name, i) =>
    context.wants(i) ? emit.reduceTo(emit.mul(share, masks[i] as string), y, name) : undefined,
  );
};

/** d(a^b)/da = b·a^(b−1); the exponents that have a cheaper form get it. */
function powBase(context: RuleContext): string {
  const { emit, x, dy } = context;
  const exponent = context.constant(1);
  if (exponent && exponent.data.length === 1) {
    const value = Number(exponent.data[0]);
    if (value === 1) return dy;
    if (value === 2) return emit.mul(dy, emit.scale(x, 2, x));
    if (value === 0) return emit.mul(dy, emit.scalar(0, x));
    const power = value === 3 ? emit.mul(x, x) : emit.op('Pow', [x, emit.scalar(value - 1, x)]);
    return emit.mul(dy, emit.scale(power, value, x));
  }
  const b = sameType(context);
  return emit.mul(dy, emit.mul(b, emit.op('Pow', [x, emit.sub(b, emit.scalar(1, x))])));
}

/** d(a^b)/db = a^b·ln a, taken as 0 where a is 0 (and b ≥ 0 keeps the power finite). */
function powExponent(context: RuleContext): string {
  const { emit, x, y, dy } = context;
  const zero = emit.op('Equal', [x, emit.scalar(0, x)]);
  const log = emit.op('Log', [emit.op('Where', [zero, emit.scalar(1, x), x])]);
  const gradient = emit.mul(dy, emit.mul(y, log));
  return emit.dtype(context.input(1)) === emit.dtype(x) ? gradient : emit.cast(gradient, emit.dtype(context.input(1)));
}

/** The exponent of a Pow in the element type of the base. */
function sameType({ emit, node }: RuleContext): string {
  const [base, exponent] = node.input as [string, string];
  return emit.dtype(exponent) === emit.dtype(base) ? exponent : emit.cast(exponent, emit.dtype(base));
}

/** Rules of Add, Sub, Mul, Div, Pow, Mod-free n-ary Sum, Mean, Max and Min, and Where. */
export const ARITHMETIC: RuleTable = {
  // y = a + b: da = g, db = g
  Add: broadcast(
    ({ dy }) => dy,
    ({ dy }) => dy,
  ),
  // y = a − b: da = g, db = −g
  Sub: broadcast(
    ({ dy }) => dy,
    ({ emit, dy }) => emit.neg(dy),
  ),
  // y = a·b: da = g·b, db = g·a
  Mul: broadcast(
    (context) => context.emit.mul(context.dy, context.input(1)),
    (context) => context.emit.mul(context.dy, context.input(0)),
  ),
  // y = a/b: da = g/b, db = −g·y/b
  Div: broadcast(
    (context) => context.emit.div(context.dy, context.input(1)),
    ({ emit, dy, y, node }) => emit.neg(emit.div(emit.mul(dy, y), node.input[1] as string)),
  ),
  Pow: broadcast(powBase, powExponent),
  Sum: shared(() => 1),
  Mean: shared((count) => 1 / count),
  Max: extreme,
  Min: extreme,
  // y = c ? a : b: da = c ? g : 0, db = c ? 0 : g
  Where: (context) => {
    const { emit, dy, y } = context;
    const condition = context.input(0);
    const zero = emit.scalar(0, y);
    return [
      undefined,
      context.wants(1) ? emit.reduceTo(emit.op('Where', [condition, dy, zero]), y, context.input(1)) : undefined,
      context.wants(2) ? emit.reduceTo(emit.op('Where', [condition, zero, dy]), y, context.input(2)) : undefined,
    ];
  },
  // y = a − floor(a/b)·b with fmod = 1 towards zero: da = g, db = −g·quotient
  Mod: {
    gradient: broadcast(
      ({ dy }) => dy,
      (context) => {
        const { emit, dy, y } = context;
        const [a, b] = context.node.input as [string, string];
        return emit.neg(emit.mul(dy, emit.div(emit.sub(a, y), b)));
      },
    ),
    refuse: (node) => (intAttribute(node, 'fmod', 0) === 1 ? undefined : 'Mod of integers has no gradient'),
  },
};
