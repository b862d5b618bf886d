/**
 * Gradients of activation functions.
 *
 * The common ones are written from the output y, so that a runtime may still fuse the activation into the operator
 * before it. At kinks the derivative from the left is taken, as PyTorch does (0 for Relu at 0).
 */
import { float, floatAttribute, stringAttribute } from '../../onnx/attributes.js';
import type { Emitter } from '../emitter.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';

type Formula = (context: RuleContext, s: (value: number) => string) => string;

function activation(formula: Formula): GradientRule {
  return (context) => [formula(context, (value) => context.emit.scalar(value, context.x))];
}

const SQRT_HALF = Math.SQRT1_2;
const INVERSE_SQRT_2PI = 1 / Math.sqrt(2 * Math.PI);
/** Of the tanh form of GELU: √(2/π) and the cubic's factor. */
const GELU_TANH = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;

/** y = x·Φ(x): g·(Φ(x) + x·φ(x)). */
const geluErf: Formula = ({ emit, x, dy }, s) => {
  const cdf = emit.mul(emit.add(emit.op('Erf', [emit.mul(x, s(SQRT_HALF))]), s(1)), s(0.5));
  const density = emit.mul(emit.op('Exp', [emit.mul(emit.mul(x, x), s(-0.5))]), s(INVERSE_SQRT_2PI));
  return emit.mul(dy, emit.add(cdf, emit.mul(x, density)));
};

/** y = ½x(1 + t), t = tanh(c(x + ax³)): g·½·(1 + t + x(1 − t²)·c(1 + 3ax²)). */
const geluTanh: Formula = ({ emit, x, dy }, s) => {
  const square = emit.mul(x, x);
  const inner = emit.mul(emit.mul(x, s(GELU_TANH)), emit.add(emit.mul(square, s(GELU_CUBIC)), s(1)));
  const t = emit.op('Tanh', [inner]);
  const slope = emit.mul(emit.add(emit.mul(square, s(3 * GELU_CUBIC)), s(1)), s(GELU_TANH));
  const bend = emit.mul(emit.mul(x, emit.sub(s(1), emit.mul(t, t))), slope);
  return emit.mul(dy, emit.mul(emit.add(emit.add(t, s(1)), bend), s(0.5)));
};

/**
 * 1 where y > 0, else 0, for y ≥ 0. In float32 as HardSigmoid with a very steep slope, which is exact but for y below
 * 10⁻³⁰: onnxruntime runs it in the blocked layout of its convolutions, where a comparison would cost two reorderings.
 */
function positive(emit: Emitter, y: string): string {
  if (emit.dtype(y) !== 'float32') return emit.mask(emit.op('Greater', [y, emit.scalar(0, y)]), y);
  return emit.op('HardSigmoid', [y], { alpha: float(1e30), beta: float(0) });
}

/** g·[y > 0] for y ≥ 0. */
export function keepPositive(emit: Emitter, y: string, g: string): string {
  return emit.once(keptKey(y, g), () => emit.mul(g, positive(emit, y)));
}

/** Says that a gradient of y is 0 wherever y is, so that {@link keepPositive} has nothing to do. */
export function sayKept(emit: Emitter, y: string, g: string): void {
  emit.once(keptKey(y, g), () => g);
}

const keptKey = (y: string, g: string): string => `${g} where ${y} is positive`;

/** Rules of the activation functions. */
export const ACTIVATION: RuleTable = {
  // y = max(x, 0): g·[y > 0]
  Relu: activation(({ emit, y, dy }) => keepPositive(emit, y, dy)),
  // y = x > 0 ? x : αx
  LeakyRelu: activation(({ emit, node, x, dy }, s) => {
    const alpha = floatAttribute(node, 'alpha', 0.01);
    return emit.op('Where', [emit.op('Greater', [x, s(0)]), dy, emit.mul(dy, s(alpha))]);
  }),
  // y = x > 0 ? x : αx with α a tensor: dα = Σ g·x where x ≤ 0
  PRelu: (context) => {
    const { emit, x, y, dy } = context;
    const slope = context.input(1);
    const positive = emit.op('Greater', [x, emit.scalar(0, x)]);
    return [
      context.wants(0) ? emit.op('Where', [positive, dy, emit.mul(dy, slope)]) : undefined,
      context.wants(1)
        ? emit.reduceTo(emit.op('Where', [positive, emit.scalar(0, x), emit.mul(dy, x)]), y, slope)
        : undefined,
    ];
  },
  // y = 1/(1 + e^(−x)): g·y(1 − y)
  Sigmoid: activation(({ emit, y, dy }, s) => emit.mul(dy, emit.mul(y, emit.sub(s(1), y)))),
  // y = tanh x: g(1 − y²)
  Tanh: activation(({ emit, y, dy }, s) => emit.mul(dy, emit.sub(s(1), emit.mul(y, y)))),
  // y = ln(1 + eˣ): g·σ(x)
  Softplus: activation(({ emit, x, dy }) => emit.mul(dy, emit.op('Sigmoid', [x]))),
  // y = x/(1 + |x|): g/(1 + |x|)²
  Softsign: activation(({ emit, x, dy }, s) => {
    const denominator = emit.add(emit.op('Abs', [x]), s(1));
    return emit.div(dy, emit.mul(denominator, denominator));
  }),
  // y = x > 0 ? x : α(eˣ − 1): g·(y + α) below 0
  Elu: activation(({ emit, node, x, y, dy }, s) => {
    const alpha = floatAttribute(node, 'alpha', 1);
    return emit.op('Where', [emit.op('Greater', [x, s(0)]), dy, emit.mul(dy, emit.add(y, s(alpha)))]);
  }),
  // y = γx above 0, γα(eˣ − 1) below: g·γ, g·(y + γα)
  Selu: activation(({ emit, node, x, y, dy }, s) => {
    const alpha = floatAttribute(node, 'alpha', 1.6732632423543772);
    const gamma = floatAttribute(node, 'gamma', 1.0507009873554805);
    const slope = emit.op('Where', [emit.op('Greater', [x, s(0)]), s(gamma), emit.add(y, s(gamma * alpha))]);
    return emit.mul(dy, slope);
  }),
  // y = max(0, x) + min(0, α(e^(x/α) − 1)): g·e^(x/α) below 0
  Celu: activation(({ emit, node, x, dy }, s) => {
    const alpha = floatAttribute(node, 'alpha', 1);
    const negative = emit.op('Min', [emit.mul(x, s(1 / alpha)), s(0)]);
    return emit.mul(dy, emit.op('Exp', [negative]));
  }),
  // y = x > α ? x : 0
  ThresholdedRelu: activation(({ emit, node, x, dy }, s) =>
    emit.keepWhere(emit.op('Greater', [x, s(floatAttribute(node, 'alpha', 1))]), dy, x),
  ),
  // y = clip(αx + β, 0, 1): g·α inside
  HardSigmoid: activation(({ emit, node, y, dy }, s) => {
    const inside = emit.op('And', [emit.op('Greater', [y, s(0)]), emit.op('Less', [y, s(1)])]);
    return emit.scale(emit.keepWhere(inside, dy, y), floatAttribute(node, 'alpha', 0.2), y);
  }),
  // y = x·clip(x/6 + ½, 0, 1): g·(x/3 + ½) for −3 < x < 3, g above
  HardSwish: activation(({ emit, x, dy }, s) => {
    const middle = emit.add(emit.mul(x, s(1 / 3)), s(0.5));
    const upper = emit.op('Where', [emit.op('Less', [x, s(3)]), middle, s(1)]);
    return emit.mul(dy, emit.keepWhere(emit.op('Greater', [x, s(-3)]), upper, x));
  }),
  // y = x·tanh(softplus x): g·(t + x(1 − t²)σ(x))
  Mish: activation(({ emit, x, dy }, s) => {
    const t = emit.op('Tanh', [emit.op('Softplus', [x])]);
    const bend = emit.mul(emit.mul(x, emit.sub(s(1), emit.mul(t, t))), emit.op('Sigmoid', [x]));
    return emit.mul(dy, emit.add(t, bend));
  }),
  Gelu: activation((context, s) =>
    stringAttribute(context.node, 'approximate', 'none') === 'tanh' ? geluTanh(context, s) : geluErf(context, s),
  ),
  // y = clip(x, a, b): g where y = x; da = Σ g where x < a; db = Σ g where x > b
  Clip: (context) => {
    const { emit, x, y, dy } = context;
    const bound = (i: number, comparison: 'Less' | 'Greater'): string | undefined => {
      if (!context.wants(i)) return undefined;
      const beyond = emit.op(comparison, [x, context.input(i)]);
      return emit.reduceTo(emit.keepWhere(beyond, dy, x), y, context.input(i));
    };
    return [
      context.wants(0) ? emit.keepWhere(emit.op('Equal', [x, y]), dy, x) : undefined,
      bound(1, 'Less'),
      bound(2, 'Greater'),
    ];
  },
};
