/**
 * Shapes of reductions, arg-reductions, cumulative sums, losses and TopK: the ONNX operator pages. Axes stand in an
 * attribute in older operator sets and in input 1 in newer ones. Reductions of followed values are carried out.
 */
import { intAttribute, stringAttribute } from '../attributes.js';
import type { Dimension } from '../value-info.js';
import { isInteger } from './elementwise.js';
import { type ShapeNode, type ShapeRule, sameAsInput, shapeOfRank, show, unknownShape } from './rule.js';

const FOLDS: Readonly<Record<string, (node: ShapeNode, a: Dimension, b: Dimension) => Dimension>> = {
  ReduceProd: (node, a, b) => node.dims.multiply(a, b),
  ReduceSum: (node, a, b) => node.dims.add(a, b),
  ReduceMax: (_, a, b) => (typeof a === 'number' && typeof b === 'number' ? Math.max(a, b) : a === b ? a : ''),
  ReduceMin: (_, a, b) => (typeof a === 'number' && typeof b === 'number' ? Math.min(a, b) : a === b ? a : ''),
};

const reduce: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const shape = node.shape(0);
  const keep = intAttribute(node.proto, 'keepdims', 1) !== 0;
  const axes = node.setting('axes', 1);
  const none = axes === 'absent' || axes?.length === 0;
  if (none && intAttribute(node.proto, 'noop_with_empty_axes', 0) !== 0) {
    return [{ dtype, shape, value: node.value(0) }];
  }
  if (!shape) return [{ dtype, shape: none && !keep ? [] : undefined }];
  if (axes === undefined) {
    const count = node.shape(1)?.[0];
    if (keep) return [{ dtype, shape: unknownShape(shape.length) }];
    return [{ dtype, shape: typeof count === 'number' ? shapeOfRank(shape.length - count) : undefined }];
  }
  const reduced = new Set(none ? shape.keys() : axes.map((axis) => node.normalize(axis, shape.length)));
  const result = shape.flatMap((dimension, i) => (reduced.has(i) ? (keep ? [1] : []) : [dimension]));
  const value = node.value(0);
  const fold = FOLDS[node.proto.opType];
  const [first, ...others] = value ?? [];
  const folded =
    fold && first !== undefined && shape.length === 1 && reduced.size === 1 && isInteger(dtype)
      ? [others.reduce<Dimension>((a, b) => fold(node, a, b), first)]
      : undefined;
  return [{ dtype, shape: result, value: folded }];
};

const argReduce: ShapeRule = (node) => {
  const shape = node.shape(0);
  if (!shape) return [{ dtype: 'int64', shape }];
  const axis = node.axis(shape.length, 0);
  const keep = intAttribute(node.proto, 'keepdims', 1) !== 0;
  return [{ dtype: 'int64', shape: shape.flatMap((dimension, i) => (i === axis ? (keep ? [1] : []) : [dimension])) }];
};

const topK: ShapeRule = (node) => {
  const shape = node.shape(0);
  const dtype = node.dtype(0);
  if (!shape)
    return [
      { dtype, shape },
      { dtype: 'int64', shape },
    ];
  const axis = node.axis(shape.length, -1);
  const k = node.has(1) ? (node.value(1)?.[0] ?? '') : (intAttribute(node.proto, 'k') ?? '');
  const size = shape[axis];
  if (typeof k === 'number' && typeof size === 'number' && k > size) {
    node.fail(`k is ${k}, above the ${size} elements along axis ${axis} of ${show(shape)}`);
  }
  const result = shape.map((dimension, i) => (i === axis ? k : dimension));
  return [
    { dtype, shape: result },
    { dtype: 'int64', shape: result },
  ];
};

const loss: ShapeRule = (node) => {
  const whole = stringAttribute(node.proto, 'reduction', 'mean') !== 'none';
  return [
    { dtype: node.dtype(0), shape: whole ? [] : node.shape(1) },
    { dtype: node.dtype(0), shape: node.shape(0) },
  ];
};

/** Rules by operator name. */
export const REDUCTION: Readonly<Record<string, ShapeRule>> = {
  ...Object.fromEntries(
    ['Sum', 'Mean', 'Max', 'Min', 'Prod', 'L1', 'L2', 'LogSum', 'LogSumExp', 'SumSquare'].map((name) => [
      `Reduce${name}`,
      reduce,
    ]),
  ),
  ArgMax: argReduce,
  ArgMin: argReduce,
  TopK: topK,
  CumSum: sameAsInput,
  NegativeLogLikelihoodLoss: loss,
  SoftmaxCrossEntropyLoss: loss,
};
