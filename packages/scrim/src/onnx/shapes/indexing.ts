/**
 * Shapes of operators that pick or place elements by index (Gather, Scatter, OneHot, NonZero and kin) and of
 * quantisation, which keeps the shape and changes the element type. Follows the ONNX operator pages.
 */
import type { DataType } from '../../tensor.js';
import { intAttribute } from '../attributes.js';
import { dataTypeFromCode } from '../tensor-proto.js';
import type { Dimension } from '../value-info.js';
import { MAX_VALUES, type ShapeRule, sameAsInput, show, unknownShape } from './rule.js';

const gather: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const shape = node.shape(0);
  const indices = node.shape(1);
  if (!shape || !indices) return [{ dtype, shape: undefined }];
  if (shape.length === 0) node.fail('the data is a scalar');
  const axis = node.axis(shape.length, 0);
  const result = [...shape.slice(0, axis), ...indices, ...shape.slice(axis + 1)];
  const value = node.value(0);
  const at = node.value(1);
  const elements =
    value && at && shape.length === 1 && at.length <= MAX_VALUES
      ? at.map((index): Dimension => {
          if (typeof index !== 'number') return '';
          const element = value[index < 0 ? index + value.length : index];
          return element ?? node.fail(`index ${index} is out of range for ${value.length} elements`);
        })
      : undefined;
  return [{ dtype, shape: result, value: elements }];
};

const gatherElements: ShapeRule = (node) => {
  const [shape, indices] = [node.shape(0), node.shape(1)];
  if (shape && indices && shape.length !== indices.length) {
    node.fail(`data ${show(shape)} and indices ${show(indices)} differ in rank`);
  }
  return [{ dtype: node.dtype(0), shape: indices }];
};

const gatherNd: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const [shape, indices] = [node.shape(0), node.shape(1)];
  const depth = indices?.at(-1);
  if (!shape || !indices || typeof depth !== 'number') return [{ dtype, shape: undefined }];
  const start = intAttribute(node.proto, 'batch_dims', 0) + depth;
  if (start > shape.length) node.fail(`indices ${show(indices)} reach deeper than data ${show(shape)}`);
  return [{ dtype, shape: [...indices.slice(0, -1), ...shape.slice(start)] }];
};

const oneHot: ShapeRule = (node) => {
  const indices = node.shape(0);
  if (!indices) return [{ dtype: node.dtype(2), shape: undefined }];
  const axis = node.axis(indices.length + 1, -1);
  const depth = node.value(1)?.[0] ?? '';
  return [{ dtype: node.dtype(2), shape: [...indices.slice(0, axis), depth, ...indices.slice(axis)] }];
};

const nonZero: ShapeRule = (node) => [{ dtype: 'int64', shape: [node.shape(0)?.length ?? '', ''] }];

const compress: ShapeRule = (node) => {
  const shape = node.shape(0);
  const axis = intAttribute(node.proto, 'axis');
  if (axis === undefined) return [{ dtype: node.dtype(0), shape: [''] }];
  if (!shape) return [{ dtype: node.dtype(0), shape }];
  const at = node.normalize(axis, shape.length);
  return [{ dtype: node.dtype(0), shape: shape.map((dimension, i) => (i === at ? '' : dimension)) }];
};

const unique: ShapeRule = (node) => {
  const shape = node.shape(0);
  const axis = intAttribute(node.proto, 'axis');
  const at = axis === undefined || !shape ? undefined : node.normalize(axis, shape.length);
  const result = axis === undefined ? [''] : shape?.map((dimension, i) => (i === at ? '' : dimension));
  const indices = { dtype: 'int64' as DataType, shape: [''] };
  return [{ dtype: node.dtype(0), shape: result }, indices, indices, indices];
};

const quantize: ShapeRule = (node) => {
  const code = intAttribute(node.proto, 'output_dtype', 0);
  const dtype = node.has(2) ? node.dtype(2) : code === 0 ? 'uint8' : dataTypeFromCode(code);
  return [{ dtype, shape: node.shape(0) }];
};

const dequantize: ShapeRule = (node) => {
  const code = intAttribute(node.proto, 'output_dtype', 0);
  return [{ dtype: code === 0 ? node.dtype(1) : dataTypeFromCode(code), shape: node.shape(0) }];
};

const dynamicQuantize: ShapeRule = (node) => [
  { dtype: 'uint8', shape: node.shape(0) },
  { dtype: 'float32', shape: [] },
  { dtype: 'uint8', shape: [] },
];

/** Rules by operator name. */
export const INDEXING: Readonly<Record<string, ShapeRule>> = {
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  Scatter: sameAsInput,
  ScatterElements: sameAsInput,
  ScatterND: sameAsInput,
  TensorScatter: sameAsInput,
  OneHot: oneHot,
  NonZero: nonZero,
  Compress: compress,
  Unique: unique,
  NonMaxSuppression: () => [{ dtype: 'int64', shape: ['', 3] }],
  QuantizeLinear: quantize,
  DequantizeLinear: dequantize,
  DynamicQuantizeLinear: dynamicQuantize,
  StringNormalizer: () => [{ dtype: 'string', shape: undefined }],
  TfIdfVectorizer: (node) => {
    const shape = node.shape(0);
    return [{ dtype: 'float32', shape: shape && unknownShape(shape.length) }];
  },
};
