/**
 * Gradients of normalisations.
 *
 * BatchNormalization at inference is affine in x. Layer, instance and group normalisation share one formula: with
 * x̂ = (x − mean)·r, r = 1/√(variance + ε) over a set of axes and h = g·scale,
 * dx = r·(h − mean h − x̂·mean(h·x̂)).
 */
import { floatAttribute, intAttribute } from '../../onnx/attributes.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import type { Size } from '../size.js';

/** x̂ and r, over `axes`. */
function standardise(context: RuleContext, x: string, axes: readonly number[]): { hat: string; r: string } {
  const { emit, node } = context;
  const epsilon = emit.scalar(floatAttribute(node, 'epsilon', 1e-5), context.x);
  const centred = emit.sub(x, emit.reduceMean(x, axes, true));
  const variance = emit.reduceMean(emit.mul(centred, centred), axes, true);
  const r = emit.op('Reciprocal', [emit.op('Sqrt', [emit.add(variance, epsilon)])]);
  return { hat: emit.mul(centred, r), r };
}

/** dx from h, the gradient by x̂. */
function throughStandardise(
  { emit }: RuleContext,
  h: string,
  { hat, r }: { hat: string; r: string },
  axes: readonly number[],
): string {
  const mean = emit.reduceMean(h, axes, true);
  const slope = emit.reduceMean(emit.mul(h, hat), axes, true);
  return emit.mul(r, emit.sub(emit.sub(h, mean), emit.mul(hat, slope)));
}

/** A per-channel vector [C] as [C, 1, …] so that it broadcasts against [N, C, …] of the given rank. */
function perChannel({ emit }: RuleContext, vector: string, rank: number): string {
  return rank <= 2
    ? vector
    : emit.unsqueeze(
        vector,
        Array.from({ length: rank - 2 }, (_, i) => i + 1),
      );
}

/** Every axis but the channel's. */
function besidesChannel(rank: number): number[] {
  return Array.from({ length: rank }, (_, axis) => axis).filter((axis) => axis !== 1);
}

/** y = (x − m)·r·s + b with r = 1/√(v + ε): dx = g·s·r, ds = Σ g(x − m)r, db = Σ g, dm = −s·r·db, dv = −½·s·r²·ds. */
const batchNormalization: GradientRule = (context) => {
  const { emit, node, x, dy } = context;
  const rank = emit.rank(x);
  const others = besidesChannel(rank);
  const [, scale, , mean, variance] = node.input as [string, string, string, string, string];
  const epsilon = emit.scalar(floatAttribute(node, 'epsilon', 1e-5), x);
  const r = emit.op('Reciprocal', [emit.op('Sqrt', [emit.add(variance, epsilon)])]);
  const factor = emit.mul(scale, r);
  const needsScale = context.wants(1) || context.wants(4);
  const biasGradient = context.wants(2) || context.wants(3) ? emit.reduceSum(dy, others, false) : undefined;
  let scaleGradient: string | undefined;
  if (needsScale) {
    const centred = emit.sub(x, perChannel(context, mean, rank));
    scaleGradient = emit.mul(emit.reduceSum(emit.mul(dy, centred), others, false), r);
  }
  return [
    context.wants(0) ? emit.mul(dy, perChannel(context, factor, rank)) : undefined,
    scaleGradient,
    biasGradient,
    context.wants(3) && biasGradient ? emit.neg(emit.mul(factor, biasGradient)) : undefined,
    context.wants(4) && scaleGradient
      ? emit.mul(emit.mul(emit.mul(factor, r), scaleGradient), emit.scalar(-0.5, x))
      : undefined,
  ];
};

/** Normalised over the axes from `axis` on; scale and bias have (or broadcast to) the shape of those axes. */
const layerNormalization: GradientRule = (context) => {
  const { emit, node, x, y, dy } = context;
  if (context.gradient(1) !== undefined || context.gradient(2) !== undefined) {
    throw context.unsupported('its mean or inverse deviation is used');
  }
  const rank = emit.rank(x);
  const given = intAttribute(node, 'axis', -1);
  const first = given < 0 ? given + rank : given;
  const axes = Array.from({ length: rank - first }, (_, i) => first + i);
  const whitened = context.wants(0) || context.wants(1) ? standardise(context, x, axes) : undefined;
  return [
    context.wants(0) && whitened
      ? throughStandardise(context, emit.mul(dy, context.input(1)), whitened, axes)
      : undefined,
    context.wants(1) && whitened ? emit.reduceTo(emit.mul(dy, whitened.hat), y, context.input(1)) : undefined,
    context.wants(2) ? emit.reduceTo(dy, y, context.input(2)) : undefined,
  ];
};

/** Normalised per sample and channel, over space. */
const instanceNormalization: GradientRule = (context) => {
  const { emit, x, dy } = context;
  const rank = emit.rank(x);
  const axes = Array.from({ length: rank - 2 }, (_, i) => i + 2);
  const others = besidesChannel(rank);
  const whitened = context.wants(0) || context.wants(1) ? standardise(context, x, axes) : undefined;
  return [
    context.wants(0) && whitened
      ? throughStandardise(context, emit.mul(dy, perChannel(context, context.input(1), rank)), whitened, axes)
      : undefined,
    context.wants(1) && whitened ? emit.reduceSum(emit.mul(dy, whitened.hat), others, false) : undefined,
    context.wants(2) ? emit.reduceSum(dy, others, false) : undefined,
  ];
};

/** Normalised per sample and group of channels; scale and bias per channel (operator set 21) or per group (18). */
const groupNormalization: GradientRule = (context) => {
  const { emit, node, x, dy } = context;
  const groups = intAttribute(node, 'num_groups', 1);
  const [batch, channels, ...space] = emit.sizes(x) as [Size, Size, ...Size[]];
  const rank = space.length + 2;
  // As [N, G, C/G, …]; a per-channel vector becomes [G, C/G, 1, …], a per-group one [G, 1, 1, …].
  const grouped = [batch, groups, emit.over(channels, groups), ...space];
  const axes = Array.from({ length: rank - 1 }, (_, i) => i + 2);
  const ones = space.map(() => 1);
  const perGroup = emit.opset < 21;
  const vectorSizes: Size[] = [groups, perGroup ? 1 : emit.over(channels, groups), ...ones];
  const summed = [0, ...axes.slice(perGroup ? 0 : 1)];
  const g = emit.reshape(dy, grouped);
  const whitened =
    context.wants(0) || context.wants(1) ? standardise(context, emit.reshape(x, grouped), axes) : undefined;
  const collect = (value: string, i: number): string =>
    emit.reshapeLike(emit.reduceSum(value, summed, false), context.input(i));
  return [
    context.wants(0) && whitened
      ? emit.reshapeLike(
          throughStandardise(context, emit.mul(g, emit.reshape(context.input(1), vectorSizes)), whitened, axes),
          x,
        )
      : undefined,
    context.wants(1) && whitened ? collect(emit.mul(g, whitened.hat), 1) : undefined,
    context.wants(2) ? collect(g, 2) : undefined,
  ];
};

/**
 * y_c = x_c / d_c^β with d_c = k + α·mean of x² over a window of channels around c (zeros beyond the ends count).
 * dx_c = g_c·d_c^−β − 2αβ·x_c·mean over the windows that c is in of g·x·d^(−β − 1): the same window, turned round.
 */
const localResponse: GradientRule = ({ emit, node, x, dy }) => {
  const size = intAttribute(node, 'size') ?? 1;
  const [alpha, beta] = [floatAttribute(node, 'alpha', 1e-4), floatAttribute(node, 'beta', 0.75)];
  const [batch, channels, ...space] = emit.sizes(x) as [Size, Size, ...Size[]];
  const [before, after] = [Math.floor((size - 1) / 2), Math.ceil((size - 1) / 2)];
  const windows = (value: string, begin: number, end: number): string => {
    const columns = emit.reshape(value, [batch, 1, channels, emit.product(space)]);
    const attributes = { kernel_shape: [size, 1], pads: [begin, 0, end, 0], count_include_pad: 1 };
    return emit.reshapeLike(emit.op('AveragePool', [columns], attributes), x);
  };
  const power = (value: string, exponent: number): string => emit.op('Pow', [value, emit.scalar(exponent, x)]);
  const squares = emit.scale(windows(emit.mul(x, x), before, after), alpha, x);
  const divisor = emit.add(squares, emit.scalar(floatAttribute(node, 'bias', 1), x));
  const through = windows(emit.mul(emit.mul(dy, x), power(divisor, -beta - 1)), after, before);
  return [emit.sub(emit.mul(dy, power(divisor, -beta)), emit.mul(emit.scale(x, 2 * alpha * beta, x), through))];
};

/** Rules of the normalisations. */
export const NORMALIZATION: RuleTable = {
  BatchNormalization: {
    gradient: batchNormalization,
    refuse: (node) =>
      intAttribute(node, 'training_mode', 0) === 1 || node.output.slice(1).some((output) => output !== '')
        ? 'it is in training mode'
        : undefined,
  },
  LRN: localResponse,
  LayerNormalization: layerNormalization,
  InstanceNormalization: instanceNormalization,
  GroupNormalization: groupNormalization,
};
