/**
 * Shapes of operators that slide a window or sample a grid: Conv and its kin, pooling, RoiAlign, GridSample, Col2Im.
 *
 * Output sizes follow the formulas of the ONNX operator pages: floor((in + pads − ((k−1)·dilation + 1)) / stride) + 1
 * (ceil with ceil_mode, where a last window that would start in the right padding is dropped), ceil(in / stride) for
 * SAME, and the inverse for ConvTranspose.
 */
import type { DataType } from '../../tensor.js';
import { intAttribute, intsAttribute, stringAttribute } from '../attributes.js';
import type { Dimension } from '../value-info.js';
import { type InferredType, type Shape, type ShapeNode, type ShapeRule, show, UNKNOWN, unknownShape } from './rule.js';

interface Window {
  readonly kernel: readonly Dimension[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** All begins, then all ends. */
  readonly pads: readonly number[];
  readonly autoPad: string;
}

function list(node: ShapeNode, name: string, rank: number, fallback: number): readonly number[] {
  const values = intsAttribute(node.proto, name);
  if (!values || values.length === 0) return Array.from({ length: rank }, () => fallback);
  if (values.length !== rank) node.fail(`${name} has ${values.length} numbers, expected ${rank}`);
  return values;
}

function window(node: ShapeNode, kernel: readonly Dimension[]): Window {
  const rank = kernel.length;
  const strides = list(node, 'strides', rank, 1);
  const dilations = list(node, 'dilations', rank, 1);
  for (const value of [...strides, ...dilations]) {
    if (value < 1) node.fail(`strides [${strides}] and dilations [${dilations}] must be positive`);
  }
  for (const size of kernel)
    if (typeof size === 'number' && size < 1) node.fail(`kernel ${show(kernel)} must be positive`);
  return {
    kernel,
    strides,
    dilations,
    pads: list(node, 'pads', 2 * rank, 0),
    autoPad: stringAttribute(node.proto, 'auto_pad', 'NOTSET'),
  };
}

/** (k − 1)·dilation + 1. */
function extent(node: ShapeNode, w: Window, axis: number): Dimension {
  const { dims } = node;
  return dims.add(dims.multiply(dims.subtract(w.kernel[axis] ?? 1, 1), w.dilations[axis] ?? 1), 1);
}

function slide(node: ShapeNode, w: Window, axis: number, size: Dimension, ceil: boolean): Dimension {
  const { dims } = node;
  const stride = w.strides[axis] ?? 1;
  if (w.autoPad === 'SAME_UPPER' || w.autoPad === 'SAME_LOWER') return dims.ceilDivide(size, stride);
  const begin = w.autoPad === 'VALID' ? 0 : (w.pads[axis] ?? 0);
  const end = w.autoPad === 'VALID' ? 0 : (w.pads[axis + w.kernel.length] ?? 0);
  const room = dims.subtract(dims.add(size, begin + end), extent(node, w, axis));
  if (!ceil) {
    // Where no window fits, the runtime's division rounds towards zero.
    const steps = typeof room === 'number' ? Math.trunc(room / stride) : dims.floorDivide(room, stride);
    const result = dims.add(steps, 1);
    if (typeof result === 'number' && result < 0) {
      node.fail(
        `the window of ${extent(node, w, axis)} does not fit a spatial size of ${size} with pads ${begin}, ${end}`,
      );
    }
    return result;
  }
  const windows = dims.add(dims.ceilDivide(room, stride), 1);
  if (typeof windows !== 'number' || typeof size !== 'number') return stride === 1 ? windows : '';
  return (windows - 1) * stride >= size + begin ? windows - 1 : windows;
}

function slideAll(node: ShapeNode, kernel: readonly Dimension[], spatial: Shape, ceil: boolean): Dimension[] {
  const w = window(node, kernel);
  return spatial.map((size, axis) => slide(node, w, axis, size, ceil));
}

/** Conv-like operators differ in where the weights stand and in the type of the result. */
function convolution(weights: number, dtype: (node: ShapeNode) => DataType | undefined): ShapeRule {
  return (node) => {
    const type = dtype(node);
    const input = node.shape(0);
    const filter = node.shape(weights);
    const rank = input?.length ?? filter?.length;
    if (rank === undefined) return [{ dtype: type, shape: undefined }];
    if (rank < 3) node.fail(`input ${show(input ?? filter)} has no spatial dimension`);
    if (input && filter && input.length !== filter.length) {
      node.fail(`input ${show(input)} and weights ${show(filter)} differ in rank`);
    }
    const group = intAttribute(node.proto, 'group', 1);
    if (group < 1) node.fail(`group is ${group}`);
    const channels = input?.[1];
    const perGroup = filter?.[1];
    if (typeof channels === 'number' && typeof perGroup === 'number' && channels !== perGroup * group) {
      node.fail(
        `input ${show(input)} has ${channels} channels, weights ${show(filter)} with ${group} groups expect ${perGroup * group}`,
      );
    }
    const maps = filter?.[0] ?? '';
    if (typeof maps === 'number' && maps % group !== 0)
      node.fail(`${maps} output channels do not divide into ${group} groups`);
    const declared = intsAttribute(node.proto, 'kernel_shape');
    const kernel = (filter?.slice(2) ?? unknownShape(rank - 2)).map((size, i) =>
      declared?.[i] === undefined ? size : node.same(size, declared[i], 'kernel_shape and weights'),
    );
    if (!input) return [{ dtype: type, shape: ['', maps, ...unknownShape(rank - 2)] }];
    return [{ dtype: type, shape: [input[0] ?? '', maps, ...slideAll(node, kernel, input.slice(2), false)] }];
  };
}

const convTranspose: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const input = node.shape(0);
  const filter = node.shape(1);
  if (!input) return [{ dtype, shape: undefined }];
  if (input.length < 3) node.fail(`input ${show(input)} has no spatial dimension`);
  if (filter && filter.length !== input.length)
    node.fail(`input ${show(input)} and weights ${show(filter)} differ in rank`);
  if (filter)
    node.same(input[1] ?? '', filter[0] ?? '', `channels of input ${show(input)} and weights ${show(filter)}`);
  const rank = input.length - 2;
  const { dims } = node;
  const maps = dims.multiply(filter?.[1] ?? '', intAttribute(node.proto, 'group', 1));
  const w = window(node, filter?.slice(2) ?? intsAttribute(node.proto, 'kernel_shape') ?? unknownShape(rank));
  const extra = list(node, 'output_padding', rank, 0);
  const wanted = intsAttribute(node.proto, 'output_shape');
  const spatial = input.slice(2).map((size, axis): Dimension => {
    // Some exporters list batch and channels in output_shape too.
    if (wanted && wanted.length > 0) return wanted[wanted.length - rank + axis] ?? '';
    const stride = w.strides[axis] ?? 1;
    const full = dims.add(
      dims.add(dims.multiply(dims.subtract(size, 1), stride), extra[axis] ?? 0),
      extent(node, w, axis),
    );
    if (w.autoPad === 'SAME_UPPER' || w.autoPad === 'SAME_LOWER') {
      const target = dims.multiply(size, stride);
      if (typeof full === 'number' && typeof target === 'number') return Math.min(full, target);
      const slack = dims.subtract(full, target);
      return typeof slack === 'number' ? (slack < 0 ? full : target) : '';
    }
    return w.autoPad === 'VALID' ? full : dims.subtract(full, (w.pads[axis] ?? 0) + (w.pads[axis + rank] ?? 0));
  });
  return [{ dtype, shape: [input[0] ?? '', maps, ...spatial] }];
};

const pool: ShapeRule = (node) => {
  const input = node.shape(0);
  const kernel = intsAttribute(node.proto, 'kernel_shape') ?? node.fail('kernel_shape is missing');
  const shape = input && [
    ...input.slice(0, 2),
    ...(kernel.length === input.length - 2
      ? slideAll(node, kernel, input.slice(2), intAttribute(node.proto, 'ceil_mode', 0) !== 0)
      : node.fail(`kernel_shape [${kernel}] does not fit input ${show(input)}`)),
  ];
  const result: InferredType = { dtype: node.dtype(0), shape };
  return node.proto.opType === 'MaxPool' ? [result, { dtype: 'int64', shape }] : [result];
};

const globalPool: ShapeRule = (node) => {
  const input = node.shape(0);
  if (input && input.length < 2) node.fail(`input ${show(input)} has no channels`);
  return [{ dtype: node.dtype(0), shape: input && [...input.slice(0, 2), ...input.slice(2).map(() => 1)] }];
};

const maxUnpool: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const input = node.shape(0);
  if (node.has(2)) {
    const value = node.value(2);
    return [{ dtype, shape: value ?? (input && unknownShape(input.length)) }];
  }
  const kernel = intsAttribute(node.proto, 'kernel_shape') ?? node.fail('kernel_shape is missing');
  if (!input) return [{ dtype, shape: undefined }];
  const w = window(node, kernel);
  const { dims } = node;
  const spatial = input.slice(2).map((size, axis) => {
    const full = dims.add(dims.multiply(dims.subtract(size, 1), w.strides[axis] ?? 1), kernel[axis] ?? 1);
    return dims.subtract(full, (w.pads[axis] ?? 0) + (w.pads[axis + kernel.length] ?? 0));
  });
  return [{ dtype, shape: [...input.slice(0, 2), ...spatial] }];
};

const regions: ShapeRule = (node) => {
  const count = node.shape(1)?.[0] ?? '';
  const channels = node.shape(0)?.[1] ?? '';
  const [h, w] =
    node.proto.opType === 'MaxRoiPool'
      ? intsAttribute(node.proto, 'pooled_shape', [])
      : [intAttribute(node.proto, 'output_height', 1), intAttribute(node.proto, 'output_width', 1)];
  return [{ dtype: node.dtype(0), shape: [count, channels, h ?? '', w ?? ''] }];
};

const gridSample: ShapeRule = (node) => {
  const input = node.shape(0);
  const grid = node.shape(1);
  const rank = input?.length ?? grid?.length;
  if (rank === undefined) return [{ dtype: node.dtype(0), shape: undefined }];
  const batch = node.same(input?.[0] ?? '', grid?.[0] ?? '', 'batch of input and grid');
  return [
    { dtype: node.dtype(0), shape: [batch, input?.[1] ?? '', ...(grid?.slice(1, -1) ?? unknownShape(rank - 2))] },
  ];
};

const affineGrid: ShapeRule = (node) => {
  const size = node.value(1);
  if (!size) return [{ dtype: node.dtype(0), shape: undefined }];
  return [{ dtype: node.dtype(0), shape: [size[0] ?? '', ...size.slice(2), size.length - 2] }];
};

const col2im: ShapeRule = (node) => {
  const input = node.shape(0);
  const image = node.value(1);
  const block = node.numbers(2);
  if (!input || !image) return [{ dtype: node.dtype(0), shape: undefined }];
  const per = block?.reduce((a, b) => a * b, 1);
  const channels = per === undefined ? '' : node.dims.divideExactly(input[1] ?? '', per);
  return [{ dtype: node.dtype(0), shape: [input[0] ?? '', channels, ...image] }];
};

const deformConv: ShapeRule = (node) => {
  const input = node.shape(0);
  const filter = node.shape(1);
  if (!input || !filter) return [{ dtype: node.dtype(0), shape: undefined }];
  const spatial = slideAll(node, filter.slice(2), input.slice(2), false);
  return [{ dtype: node.dtype(0), shape: [input[0] ?? '', filter[0] ?? '', ...spatial] }];
};

/** Rules by operator name. */
export const WINDOW: Readonly<Record<string, ShapeRule>> = {
  Conv: convolution(1, (node) => node.dtype(0)),
  ConvInteger: convolution(1, () => 'int32'),
  QLinearConv: convolution(3, (node) => node.dtype(7)),
  ConvTranspose: convTranspose,
  DeformConv: deformConv,
  MaxPool: pool,
  AveragePool: pool,
  LpPool: pool,
  GlobalAveragePool: globalPool,
  GlobalMaxPool: globalPool,
  GlobalLpPool: globalPool,
  MaxUnpool: maxUnpool,
  MaxRoiPool: regions,
  RoiAlign: regions,
  GridSample: gridSample,
  AffineGrid: affineGrid,
  Col2Im: col2im,
  ImageDecoder: () => [{ ...UNKNOWN, dtype: 'uint8', shape: unknownShape(3) }],
};
