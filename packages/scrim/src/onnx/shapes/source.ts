/**
 * Shapes of operators that make tensors from settings or from other tensors' shapes: Constant, Shape, Size, Range,
 * ConstantOfShape, random tensors, window functions. They start the values that later rules follow.
 */
import type { DataType } from '../../tensor.js';
import { findAttribute, intAttribute, intsAttribute } from '../attributes.js';
import { type TensorProto, TensorProto_DataLocation } from '../gen/onnx_pb.js';
import { dataTypeFromCode, dimsOf, tensorFromProto } from '../tensor-proto.js';
import type { Dimension } from '../value-info.js';
import { isInteger } from './elementwise.js';
import {
  type InferredType,
  isStatic,
  MAX_RANK,
  MAX_VALUES,
  type Shape,
  type ShapeNode,
  type ShapeRule,
  shapeOfRank,
  UNKNOWN,
  unknownShape,
} from './rule.js';

/**
 * Type of a stored tensor, with its elements if they are few.
 * @throws ScrimError INVALID_MODEL for a dimension below zero or data that does not fit the shape.
 */
export function storedType(proto: TensorProto): InferredType {
  const dtype = dataTypeFromCode(proto.dataType);
  const shape = dimsOf(proto);
  if (shape.length > MAX_RANK) return { dtype, shape: undefined };
  const size = shape.reduce((total, dimension) => total * dimension, 1);
  const external = proto.dataLocation === TensorProto_DataLocation.EXTERNAL;
  if (dtype === undefined || external || size > MAX_VALUES || !followed(dtype)) return { dtype, shape };
  return { dtype, shape, value: Array.from(tensorFromProto(proto).data as ArrayLike<number | bigint>, Number) };
}

/** Element types whose values are followed; 16-bit floats are stored as bit patterns and never hold sizes. */
function followed(dtype: DataType): boolean {
  return isInteger(dtype) || dtype === 'bool' || dtype === 'float32' || dtype === 'float64';
}

const constant: ShapeRule = ({ proto }) => {
  const whole = findAttribute(proto, 'value')?.t;
  if (whole) return [storedType(whole)];
  const sparse = findAttribute(proto, 'sparse_value')?.sparseTensor;
  if (sparse) return [{ dtype: dataTypeFromCode(sparse.values?.dataType ?? 0), shape: sparse.dims.map(Number) }];
  const vector = (dtype: DataType, values: readonly (number | bigint)[]): InferredType[] => [
    { dtype, shape: [values.length], value: values.length > MAX_VALUES ? undefined : values.map(Number) },
  ];
  for (const { name, i, f, ints, floats, strings } of proto.attribute) {
    if (name === 'value_int') return [{ dtype: 'int64', shape: [], value: [Number(i)] }];
    if (name === 'value_float') return [{ dtype: 'float32', shape: [], value: [f] }];
    if (name === 'value_ints') return vector('int64', ints);
    if (name === 'value_floats') return vector('float32', floats);
    if (name === 'value_string') return [{ dtype: 'string', shape: [] }];
    if (name === 'value_strings') return [{ dtype: 'string', shape: [strings.length] }];
  }
  return [UNKNOWN];
};

const shapeOf: ShapeRule = (node) => {
  const shape = node.shape(0);
  if (!shape) return [{ dtype: 'int64', shape: [''] }];
  const clamp = (value: number): number =>
    Math.min(Math.max(value < 0 ? value + shape.length : value, 0), shape.length);
  const start = clamp(intAttribute(node.proto, 'start', 0));
  const end = clamp(intAttribute(node.proto, 'end', shape.length));
  const value = shape.slice(start, Math.max(start, end));
  return [{ dtype: 'int64', shape: [value.length], value }];
};

const size: ShapeRule = (node) => {
  const shape = node.shape(0);
  return [{ dtype: 'int64', shape: [], value: shape && [node.dims.product(shape)] }];
};

/** A shape that a value spells out. */
function shapeFromValue(value: readonly Dimension[] | undefined, length: Dimension | undefined): Shape | undefined {
  if (value && value.length <= MAX_RANK)
    return value.map((element) => (typeof element === 'number' && element < 0 ? '' : element));
  return shapeOfRank(length);
}

const constantOfShape: ShapeRule = (node) => {
  const shape = shapeFromValue(node.value(0), node.shape(0)?.[0]);
  const fill = findAttribute(node.proto, 'value')?.t;
  const stored: InferredType = fill ? storedType(fill) : { dtype: 'float32', shape: [1], value: [0] };
  const element = stored.value?.[0];
  const count = shape && isStatic(shape) ? shape.reduce((a, b) => a * b, 1) : Number.POSITIVE_INFINITY;
  const value = element === undefined || count > MAX_VALUES ? undefined : Array.from({ length: count }, () => element);
  return [{ dtype: stored.dtype, shape, value }];
};

const range: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const [start, limit, delta] = [0, 1, 2].map((i) => node.value(i)?.[0]);
  if (typeof start === 'number' && typeof limit === 'number' && typeof delta === 'number' && delta !== 0) {
    const count = Math.max(0, Math.ceil((limit - start) / delta));
    const value =
      count > MAX_VALUES || !isInteger(dtype) ? undefined : Array.from({ length: count }, (_, i) => start + i * delta);
    return [{ dtype, shape: [Number.isSafeInteger(count) ? count : ''], value }];
  }
  const whole =
    isInteger(dtype) && start !== undefined && limit !== undefined && typeof delta === 'number' && delta > 0;
  return [{ dtype, shape: [whole ? node.dims.ceilDivide(node.dims.subtract(limit, start), delta) : ''] }];
};

const random: ShapeRule = (node) => {
  const dtype = dataTypeFromCode(intAttribute(node.proto, 'dtype', 1));
  return [{ dtype, shape: intsAttribute(node.proto, 'shape') }];
};

const like: ShapeRule = (node) => {
  const code = intAttribute(node.proto, 'dtype');
  return [{ dtype: code === undefined ? node.dtype(0) : dataTypeFromCode(code), shape: node.shape(0) }];
};

const multinomial: ShapeRule = (node) => [
  {
    dtype: dataTypeFromCode(intAttribute(node.proto, 'dtype', 6)),
    shape: [node.shape(0)?.[0] ?? '', intAttribute(node.proto, 'sample_size', 1)],
  },
];

const windowFunction: ShapeRule = (node) => [
  { dtype: dataTypeFromCode(intAttribute(node.proto, 'output_datatype', 1)), shape: [node.value(0)?.[0] ?? ''] },
];

/** Spectra: real and imaginary part along the last axis; a half of each where the signal is real. */
const bins = (node: ShapeNode, length: Dimension): Dimension =>
  intAttribute(node.proto, 'onesided', node.proto.opType === 'STFT' ? 1 : 0) === 1
    ? node.dims.add(node.dims.floorDivide(length, 2), 1)
    : length;

const shortTimeFourier: ShapeRule = (node) => {
  const signal = node.shape(0);
  const step = node.value(1)?.[0];
  const length = node.has(3) ? node.value(3)?.[0] : node.shape(2)?.[0];
  const frames =
    typeof step === 'number' && step > 0
      ? node.dims.add(node.dims.floorDivide(node.dims.subtract(signal?.[1] ?? '', length ?? ''), step), 1)
      : '';
  return [{ dtype: node.dtype(0), shape: [signal?.[0] ?? '', frames, bins(node, length ?? ''), 2] }];
};

const fourier: ShapeRule = (node) => {
  const shape = node.shape(0);
  if (!shape) return [{ dtype: node.dtype(0), shape }];
  const given = node.opset >= 20 ? (node.has(2) ? node.numbers(2)?.[0] : -2) : intAttribute(node.proto, 'axis', 1);
  if (given === undefined) return [{ dtype: node.dtype(0), shape: unknownShape(shape.length) }];
  const axis = node.normalize(given, shape.length);
  const length = node.has(1) ? (node.value(1)?.[0] ?? '') : (shape[axis] ?? '');
  const result = shape.map((size, i) => (i === axis ? bins(node, length) : i === shape.length - 1 ? 2 : size));
  return [{ dtype: node.dtype(0), shape: result }];
};

/** Rules by operator name. */
export const SOURCE: Readonly<Record<string, ShapeRule>> = {
  Constant: constant,
  Shape: shapeOf,
  Size: size,
  ConstantOfShape: constantOfShape,
  Range: range,
  RandomNormal: random,
  RandomUniform: random,
  RandomNormalLike: like,
  RandomUniformLike: like,
  EyeLike: like,
  Multinomial: multinomial,
  HannWindow: windowFunction,
  HammingWindow: windowFunction,
  BlackmanWindow: windowFunction,
  STFT: shortTimeFourier,
  DFT: fourier,
};
