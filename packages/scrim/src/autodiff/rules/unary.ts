/**
 * Gradients of elementwise functions of one variable: g times the derivative, written with the output y where that is
 * cheaper than the input x. Functions that are constant almost everywhere (Floor, Sign, …) are listed as stops in
 * stops.ts instead.
 */
import { floatAttribute, intAttribute } from '../../onnx/attributes.js';
import type { Emitter } from '../emitter.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';

/** The derivative as a formula of x and y; `s` makes scalars. */
type Derivative = (emit: Emitter, x: string, y: string, s: (value: number) => string) => string;

/** dx = g · derivative. */
function times(derivative: Derivative): GradientRule {
  return ({ emit, x, y, dy }) => [
    emit.mul(
      dy,
      derivative(emit, x, y, (value) => emit.scalar(value, x)),
    ),
  ];
}

/** dx = formula(g). */
function from(formula: (context: RuleContext) => string): GradientRule {
  return (context) => [formula(context)];
}

/** 1 + a·x², the shape many derivatives share. */
function onePlus(emit: Emitter, x: string, factor: number, s: (value: number) => string): string {
  const square = emit.mul(x, x);
  return factor === -1 ? emit.sub(s(1), square) : emit.add(square, s(1));
}

/** Rules of the functions of one variable that are no activations. */
export const UNARY: RuleTable = {
  // y = −x
  Neg: from(({ emit, dy }) => emit.neg(dy)),
  // y = |x|: g·sign x
  Abs: times((emit, x) => emit.sign(x, x)),
  // y = 1/x: −g·y²
  Reciprocal: from(({ emit, y, dy }) => emit.neg(emit.mul(dy, emit.mul(y, y)))),
  // y = √x: g/(2y)
  Sqrt: from(({ emit, y, dy }) => emit.div(dy, emit.scale(y, 2, y))),
  // y = eˣ: g·y
  Exp: times((_, __, y) => y),
  // y = ln x: g/x
  Log: from(({ emit, x, dy }) => emit.div(dy, x)),
  // y = erf x: g·2/√π·e^(−x²)
  Erf: times((emit, x, _, s) => emit.mul(emit.op('Exp', [emit.neg(emit.mul(x, x))]), s(2 / Math.sqrt(Math.PI)))),
  // y = sin x, cos x, tan x: g·cos x, −g·sin x, g·(1 + y²)
  Sin: times((emit, x) => emit.op('Cos', [x])),
  Cos: from(({ emit, x, dy }) => emit.neg(emit.mul(dy, emit.op('Sin', [x])))),
  Tan: times((emit, _, y, s) => onePlus(emit, y, 1, s)),
  // y = asin x, acos x: ±g/√(1 − x²); atan x: g/(1 + x²)
  Asin: from(({ emit, x, dy }) => emit.div(dy, emit.op('Sqrt', [onePlus(emit, x, -1, (v) => emit.scalar(v, x))]))),
  Acos: from(({ emit, x, dy }) =>
    emit.neg(emit.div(dy, emit.op('Sqrt', [onePlus(emit, x, -1, (v) => emit.scalar(v, x))]))),
  ),
  Atan: from(({ emit, x, dy }) =>
    emit.div(
      dy,
      onePlus(emit, x, 1, (v) => emit.scalar(v, x)),
    ),
  ),
  // y = sinh x, cosh x: g·cosh x, g·sinh x
  Sinh: times((emit, x) => emit.op('Cosh', [x])),
  Cosh: times((emit, x) => emit.op('Sinh', [x])),
  Identity: from(({ dy }) => dy),
  // Between float types the gradient is cast back; the engine stops it at integers.
  Cast: from(({ emit, x, dy }) => emit.cast(dy, emit.dtype(x))),
  CastLike: from(({ emit, x, dy }) => emit.cast(dy, emit.dtype(x))),
  // At inference Dropout passes its input through.
  Dropout: (context) => {
    const training = context.constant(2);
    if (context.input(2) !== '' && !training) throw context.unsupported('training_mode is no constant');
    if (training && Number(training.data[0]) !== 0) throw context.unsupported('Dropout is in training mode');
    return [context.gradient(0)];
  },
  // y = cumulative sum: the cumulative sum of g the other way round
  CumSum: (context) => [
    context.emit.op('CumSum', [context.dy, context.input(1)], {
      exclusive: intAttribute(context.node, 'exclusive', 0),
      reverse: 1 - intAttribute(context.node, 'reverse', 0),
    }),
  ],
  // y = the upper or lower triangle: the same triangle of g
  Trilu: (context) => [
    context.emit.op('Trilu', context.input(1) === '' ? [context.dy] : [context.dy, context.input(1)], {
      upper: intAttribute(context.node, 'upper', 1),
    }),
  ],
  // y = x where |x| > λ (shifted by the bias), else 0
  Shrink: from(({ emit, node, x, dy }) => {
    const lambda = emit.scalar(floatAttribute(node, 'lambd', 0.5), x);
    return emit.keepWhere(emit.op('Greater', [emit.op('Abs', [x]), lambda]), dy, x);
  }),
};
