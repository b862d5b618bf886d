/**
 * Floating-point operations of each node, from shapes.
 *
 * A multiply-accumulate counts as two operations, as papers on network cost count it; an elementwise operator as one per
 * output element, normalisations and softmax as a few. Operators that only move data count as zero. These are counts for
 * comparing parts of one model, not predictions of time.
 */
import { intAttribute, intsAttribute, stringAttribute } from './attributes.js';
import type { NodeProto } from './gen/onnx_pb.js';
import type { Graph } from './graph.js';
import { inferShapes } from './shape-inference.js';
import type { ValueType } from './value-info.js';

/** Operations of the nodes of a graph. */
export interface FlopCount {
  /** Operations of one node; undefined where a shape it depends on is symbolic or the operator is not known. */
  of(node: NodeProto): number | undefined;
  /** Sum over all nodes whose count is known. */
  readonly total: number;
  /** Nodes whose count is not known. */
  readonly uncounted: readonly NodeProto[];
}

/**
 * Counts the operations of every node of `graph`. Without concrete sizes most counts are unknown: pass the result of
 * `inferShapes` with `inputShapes`.
 */
export function countFlops(graph: Graph, types: ReadonlyMap<string, ValueType> = inferShapes(graph)): FlopCount {
  const counts = new Map<NodeProto, number | undefined>();
  const uncounted: NodeProto[] = [];
  let total = 0;
  for (const node of graph.nodes()) {
    const flops = nodeFlops(node, types);
    counts.set(node, flops);
    if (flops === undefined) uncounted.push(node);
    else total += flops;
  }
  return { of: (node) => counts.get(node), total, uncounted };
}

/** Operations of one node given the types of the values around it; undefined if they don't say. */
export function nodeFlops(node: NodeProto, types: ReadonlyMap<string, ValueType>): number | undefined {
  if (node.domain !== '' && node.domain !== 'ai.onnx') return undefined;
  const shape = (name: string | undefined): readonly number[] | undefined => {
    const known = name === undefined || name === '' ? undefined : types.get(name)?.shape;
    return known?.every((dimension) => typeof dimension === 'number') ? (known as readonly number[]) : undefined;
  };
  const count = COUNTS[node.opType];
  if (count === undefined) return undefined;
  if (count === 0) return 0;
  const flops = count(
    node,
    (i) => shape(node.input[i]),
    (i) => shape(node.output[i]),
  );
  return Number.isFinite(flops) ? flops : undefined;
}

type ShapeOf = (i: number) => readonly number[] | undefined;
type Count = (node: NodeProto, input: ShapeOf, output: ShapeOf) => number;

/** Number of elements; NaN for an unknown shape, so that the whole count becomes unknown. */
function elements(shape: readonly number[] | undefined): number {
  return shape ? shape.reduce((product, dimension) => product * dimension, 1) : Number.NaN;
}

/** `each` operations per element of output 0. */
function perOutput(each: number): Count {
  return (_node, _input, output) => each * elements(output(0));
}

/** `each` operations per element of input 0. */
function perInput(each: number): Count {
  return (_node, input) => each * elements(input(0));
}

/** 2 · outputs · (channels per group · kernel) + bias. */
function convolution(weights: number, bias: number): Count {
  return (node, input, output) => {
    const out = elements(output(0));
    const taps = elements(input(weights)?.slice(1));
    return 2 * out * taps + (node.input[bias] ? out : 0);
  };
}

const convTranspose: Count = (node, input, output) =>
  2 * elements(input(0)) * elements(input(1)?.slice(1)) + (node.input[2] ? elements(output(0)) : 0);

const matMul: Count = (_node, input, output) => 2 * elements(output(0)) * (input(0)?.at(-1) ?? Number.NaN);

const gemm: Count = (node, input, output) => {
  const out = elements(output(0));
  const inner = input(0)?.[intAttribute(node, 'transA', 0) !== 0 ? 0 : 1] ?? Number.NaN;
  return 2 * out * inner + (node.input[2] ? out : 0);
};

const pool: Count = (node, _input, output) =>
  elements(output(0)) * elements(intsAttribute(node, 'kernel_shape') ?? undefined);

/** Every distinct index of the equation is a loop; each turn multiplies the operands and adds. */
const einsum: Count = (node, input) => {
  const [operands = ''] = stringAttribute(node, 'equation', '').replace(/\s+/g, '').split('->');
  if (operands.includes('.')) return Number.NaN;
  const sizes = new Map<string, number>();
  for (const [i, term] of operands.split(',').entries()) {
    for (const [axis, letter] of [...term].entries()) {
      sizes.set(letter, Math.max(sizes.get(letter) ?? 1, input(i)?.[axis] ?? Number.NaN));
    }
  }
  return 2 * elements([...sizes.values()]);
};

/** Each gate is a product of [input, hidden] with its weights, for every step of every sequence and direction. */
const recurrent: Count = (node, input) => {
  const [sequence = Number.NaN, batch = Number.NaN] = input(0) ?? [];
  return 2 * sequence * batch * (elements(input(1)) + elements(input(2))) + (node.input[3] ? sequence * batch : 0);
};

const EACH = perOutput(1);

function table(names: string, count: Count | 0): Record<string, Count | 0> {
  return Object.fromEntries(names.split(' ').map((name) => [name, count]));
}

/** 0 for operators that move, compare shapes or make constants. */
const COUNTS: Readonly<Record<string, Count | 0 | undefined>> = {
  ...table(
    'Identity Constant ConstantOfShape Shape Size Range EyeLike Reshape Flatten Squeeze Unsqueeze Transpose Concat Split ' +
      'Slice Pad Expand Tile Gather GatherElements GatherND Scatter ScatterElements ScatterND OneHot DepthToSpace ' +
      'SpaceToDepth Dropout Cast CastLike NonZero Compress Unique TopK ReverseSequence Trilu CenterCropPad ' +
      'NonMaxSuppression MaxUnpool StringNormalizer Optional OptionalGetElement OptionalHasElement',
    0,
  ),
  ...table(
    'Abs Neg Floor Ceil Round Sqrt Sign Not IsNaN IsInf Relu LeakyRelu PRelu Sigmoid Tanh Gelu Erf Exp Log Reciprocal ' +
      'Softplus Softsign HardSwish HardSigmoid Elu Selu Celu Mish ThresholdedRelu Shrink Sin Cos Tan Asin Acos Atan Sinh ' +
      'Cosh Asinh Acosh Atanh BitwiseNot Add Sub Mul Div Mod Pow Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor ' +
      'BitShift BitwiseAnd BitwiseOr BitwiseXor Where Clip QuantizeLinear DequantizeLinear DynamicQuantizeLinear CumSum ' +
      'RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial',
    EACH,
  ),
  ...table('Min Max Sum Mean', (node, _input, output) => Math.max(1, node.input.length - 1) * elements(output(0))),
  ...table('BatchNormalization', perOutput(2)),
  ...table('Softmax LogSoftmax Hardmax LpNormalization', perOutput(3)),
  ...table('LayerNormalization InstanceNormalization GroupNormalization MeanVarianceNormalization LRN', perOutput(8)),
  ...table(
    'ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare ' +
      'ArgMax ArgMin GlobalAveragePool GlobalMaxPool GlobalLpPool NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss',
    perInput(1),
  ),
  ...table('MaxPool AveragePool LpPool', pool),
  Resize: (node, _input, output) =>
    elements(output(0)) * ({ linear: 8, cubic: 32 }[stringAttribute(node, 'mode', 'nearest')] ?? 0),
  GridSample: perOutput(8),
  RoiAlign: perOutput(8),
  Conv: convolution(1, 2),
  ConvInteger: convolution(1, -1),
  QLinearConv: convolution(3, 8),
  DeformConv: convolution(1, 3),
  ConvTranspose: convTranspose,
  MatMul: matMul,
  MatMulInteger: matMul,
  QLinearMatMul: matMul,
  Gemm: gemm,
  Einsum: einsum,
  LSTM: recurrent,
  GRU: recurrent,
  RNN: recurrent,
};
