/**
 * Gradients of Conv and ConvTranspose.
 *
 * With y = x ∗ w, the gradient by x is the transposed convolution of g with w. For stride 1 that is a plain convolution
 * with the kernel turned by 180° and its channels swapped, which runtimes run fastest; constant weights are turned when
 * the graph is loaded; on a GPU it is a ConvTranspose. The gradient by w is in weight-gradient.ts. ConvTranspose is the
 * same seen from the other side. See Dumoulin & Visin (2016) for the geometry.
 */
import { intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import { areFixed, isFixed, type Size } from '../size.js';
import { weightGradient } from './weight-gradient.js';
import { kernelOf, type WindowAxis, windowAxes } from './window.js';

const conv: GradientRule = (context) => {
  const { node, x, y, dy } = context;
  const weight = context.input(1);
  const group = intAttribute(node, 'group', 1);
  const axes = windowAxes(context, x, y, kernelOf(context, weight));
  return [
    context.wants(0) ? inputGradient(context, weight, axes, group) : undefined,
    context.wants(1)
      ? weightGradient(context, { shape: x, value: x }, { shape: y, value: dy }, weight, axes, group)
      : undefined,
    context.wants(2) ? biasGradient(context) : undefined,
  ];
};

/** db = Σ g over batch and space. */
function biasGradient({ emit, y, dy }: RuleContext): string {
  const sizes = emit.sizes(y);
  if (emit.isGpu && areFixed(sizes)) {
    const [batch, filters, ...space] = sizes as [number, number, ...number[]];
    const places = space.reduce((product, size) => product * size, 1);
    const images = emit.sumColumns(emit.planes(dy, sizes), places, y);
    return emit.reshape(emit.sumRows(images, batch, filters, y), [filters]);
  }
  const axes = sizes.map((_, axis) => axis);
  return emit.reduceSum(
    dy,
    axes.filter((axis) => axis !== 1),
    false,
  );
}

/** The gradient by the input of a Conv. */
function inputGradient(context: RuleContext, weight: string, axes: readonly WindowAxis[], group: number): string {
  const { emit, x, dy } = context;
  const pointwise = group === 1 && emit.target === 'webgpu' ? pointwiseInputGradient(context, weight, axes) : undefined;
  if (pointwise !== undefined) return pointwise;
  const kernel_shape = axes.map(({ kernel }) => kernel);
  const dilations = axes.map(({ dilation }) => dilation);
  if (axes.every(({ stride }) => stride === 1) && !launchesTransposed(context, axes, group)) {
    // Padding beyond the span saw only zeros: those rows of g are cut.
    const before = axes.map(({ span, begin }) => span - 1 - begin);
    const after = axes.map(({ span, end }) => span - 1 - end);
    const cut = (sizes: readonly number[]): number[] => [0, 0, ...sizes.map((size) => Math.min(size, 0))];
    const pads = [...before, ...after].map((size) => Math.max(size, 0));
    return emit.op('Conv', [emit.pad(dy, cut(before), cut(after)), turned(context, weight, group)], {
      kernel_shape,
      dilations,
      group,
      pads,
    });
  }
  const strides = axes.map(({ stride }) => stride);
  const sizes = axes.map(({ size }) => size);
  const outs = axes.map(({ out }) => out);
  if (areFixed(sizes) && areFixed(outs)) {
    const output_padding = axes.map(
      ({ begin, end, stride, span }, i) =>
        (sizes[i] as number) + begin + end - span - ((outs[i] as number) - 1) * stride,
    );
    return emit.op('ConvTranspose', [dy, weight], {
      kernel_shape,
      dilations,
      group,
      strides,
      pads: [...axes.map(({ begin }) => begin), ...axes.map(({ end }) => end)],
      output_padding,
    });
  }
  // How many rows the last window leaves over is known at run time only: make too many and cut.
  const whole = emit.op('ConvTranspose', [dy, weight], {
    kernel_shape,
    dilations,
    group,
    strides,
    pads: [...axes.map(({ begin }) => begin), ...axes.map(() => 0)],
    output_padding: strides.map((stride) => stride - 1),
  });
  return emit.slice(
    whole,
    axes.map((_, i) => i + 2),
    axes.map(() => 0),
    axes.map((_, i) => emit.size(x, i + 2)),
  );
}

/**
 * Of a Conv that reads one position: one product over all positions, [N·P, M]·[M, C], where a transposed convolution
 * turns its weight first. Undefined for any other, and where sizes are symbolic.
 */
function pointwiseInputGradient(
  { emit, y, dy }: RuleContext,
  weight: string,
  axes: readonly WindowAxis[],
): string | undefined {
  const to: readonly Size[] = emit.sizes(y);
  const channels = emit.size(weight, 1);
  const reads = axes.every(
    ({ kernel, stride, begin, end }) => kernel === 1 && stride === 1 && begin === 0 && end === 0,
  );
  if (!reads || !areFixed(to) || !isFixed(channels)) return undefined;
  const [batch = 1, filters = 1, ...space] = to;
  const rows = emit.reshape(emit.pixels(dy, to), [to.reduce((all, size) => all * size, 1) / filters, filters]);
  const product = emit.op('MatMul', [rows, emit.reshape(weight, [filters, channels])]);
  const last = emit.reshape(product, [batch, ...space, channels]);
  return emit.transpose(last, [0, space.length + 1, ...space.map((_, i) => i + 1)]);
}

/** On a GPU turning a kernel costs more than a transposed convolution does. Kept to the usual: two axes, no groups. */
function launchesTransposed({ emit }: RuleContext, axes: readonly WindowAxis[], group: number): boolean {
  return (
    emit.isGpu &&
    group === 1 &&
    axes.length === 2 &&
    axes.every(({ size, out, begin, end, span }) => isFixed(size) && isFixed(out) && begin < span && end < span)
  );
}

/** A weight [g·M, C, k…] as [g·C, M, k…], every kernel turned by 180°. */
function turned(context: RuleContext, weight: string, group: number): string {
  const { emit } = context;
  const [outputs, inputs, ...kernel] = emit.sizes(weight) as [Size, Size, ...number[]];
  const spatial = kernel.map((_, i) => i);
  const flipped = spatial.filter((i) => kernel[i] !== 1);
  const flip = (value: string, first: number): string =>
    flipped.length === 0
      ? value
      : emit.slice(
          value,
          flipped.map((i) => i + first),
          flipped.map(() => -1),
          flipped.map(() => Number.MIN_SAFE_INTEGER),
          flipped.map(() => -1),
        );
  if (group === 1) return emit.transpose(flip(weight, 2), [1, 0, ...spatial.map((i) => i + 2)]);
  const grouped = emit.reshape(weight, [group, emit.over(outputs, group), inputs, ...kernel]);
  const swapped = emit.transpose(flip(grouped, 3), [0, 2, 1, ...spatial.map((i) => i + 3)]);
  return emit.reshape(swapped, [emit.times(inputs, group), emit.over(outputs, group), ...kernel]);
}

/** ConvTranspose as seen from its output: the Conv whose input gradient it is, with x as the windows' side. */
const convTranspose: GradientRule = (context) => {
  const { emit, node, x, y, dy } = context;
  const weight = context.input(1);
  const group = intAttribute(node, 'group', 1);
  const axes = transposedAxes(context, kernelOf(context, weight));
  let gradient: string | undefined;
  if (context.wants(0)) {
    const whole = emit.op('Conv', [dy, weight], {
      kernel_shape: axes.map(({ kernel }) => kernel),
      dilations: axes.map(({ dilation }) => dilation),
      group,
      strides: axes.map(({ stride }) => stride),
      pads: [...axes.map(({ begin }) => begin), ...axes.map(({ end }) => end)],
    });
    // Output padding of a whole stride and more adds windows that x has none for.
    const surplus = axes.some(({ size, out, begin, end, span, stride }) =>
      isFixed(size) && isFixed(out) ? Math.floor((size + begin + end - span) / stride) + 1 > out : false,
    );
    gradient = surplus
      ? emit.slice(
          whole,
          axes.map((_, i) => i + 2),
          axes.map(() => 0),
          axes.map(({ out }) => out),
        )
      : whole;
  }
  return [
    gradient,
    context.wants(1)
      ? weightGradient(context, { shape: y, value: dy }, { shape: x, value: x }, weight, axes, group)
      : undefined,
    context.wants(2) ? biasGradient(context) : undefined,
  ];
};

/** The windows of the Conv that runs from a ConvTranspose's output to its input. */
function transposedAxes(context: RuleContext, kernel: readonly number[]): WindowAxis[] {
  const { emit, node, x, y } = context;
  const ones = kernel.map(() => 1);
  const strides = intsAttribute(node, 'strides', ones);
  const dilations = intsAttribute(node, 'dilations', ones);
  const pads = intsAttribute(node, 'pads', [...kernel, ...kernel].fill(0));
  const padding = intsAttribute(
    node,
    'output_padding',
    kernel.map(() => 0),
  );
  const autoPad = stringAttribute(node, 'auto_pad', 'NOTSET');
  const shape = intsAttribute(node, 'output_shape');
  return kernel.map((k, i) => {
    const size = emit.size(y, i + 2);
    const out = emit.size(x, i + 2);
    const stride = strides[i] as number;
    const dilation = dilations[i] as number;
    const span = (k - 1) * dilation + 1;
    let [begin, end] = [pads[i] as number, pads[i + kernel.length] as number];
    if (autoPad === 'VALID') [begin, end] = [0, 0];
    if (shape || autoPad === 'SAME_UPPER' || autoPad === 'SAME_LOWER') {
      const full = emit.plus(emit.times(emit.minus(out, 1), stride), span + (padding[i] as number));
      const total = emit.minus(full, size);
      if (!isFixed(total)) throw context.unsupported('its padding depends on a symbolic size; pass inputShapes');
      const half = Math.floor(Math.max(total, 0) / 2);
      begin = autoPad === 'SAME_UPPER' ? half : Math.max(total, 0) - half;
      end = Math.max(total, 0) - begin;
    }
    return { size, out, kernel: k, stride, dilation, begin, end, span };
  });
}

/** Rules of Conv and ConvTranspose. */
export const CONVOLUTION: RuleTable = { Conv: conv, ConvTranspose: convTranspose };
