/**
 * Inferred types against what onnxruntime returns, operator by operator, at several opsets.
 *
 * Every case runs three ways: with the sizes known, where each inferred dimension must be the number that came out; with
 * every input dimension a symbol, where each expression must evaluate to it; and with constant inputs fed instead, where
 * what is still claimed must hold.
 */
import { describe, expect, it } from 'vitest';
import { evaluateDimension } from '../../../../../test/evaluate-dimension.js';
import { runOnnx, sampleTensor } from '../../../../../test/run-onnx.js';
import { type DataType, float32, int64, type Tensor, tensor } from '../../tensor.js';
import { type Attributes, float, floats } from '../attributes.js';
import { Graph } from '../graph.js';
import { inferShapes } from '../shape-inference.js';
import type { Dimension, ValueType } from '../value-info.js';

/** A float32 input by its shape, a typed one, a constant, or '' for an optional input left out. */
type Input = readonly number[] | { readonly dtype: DataType; readonly shape: readonly number[] } | Tensor | '';

interface Case {
  readonly op: string;
  readonly inputs: readonly Input[];
  readonly attributes?: Attributes;
  readonly outputs?: number;
  /** First and last opset at which the operator takes these inputs; default 11 to 22. */
  readonly opsets?: readonly [number, number];
  /** Dimensions that depend on the data: output, axis. */
  readonly open?: readonly (readonly [number, number])[];
}

const ints = (...values: number[]): Tensor => int64(values);
const ramp = (...shape: number[]): Tensor => sampleTensor('float32', shape);
const bools = (...values: number[]): Tensor => tensor('bool', [values.length], Uint8Array.from(values));
const bytes = (...shape: number[]): Tensor => tensor('uint8', shape);
const byte = (value: number): Tensor => tensor('uint8', [], Uint8Array.of(value));
const step = (value: number): Tensor => float32([], [value]);

const UNARY =
  'Abs Neg Floor Ceil Round Sqrt Sign Identity Relu LeakyRelu Sigmoid Tanh Erf Exp Log Reciprocal Softplus Softsign ' +
  'HardSigmoid Elu Selu Celu ThresholdedRelu Shrink Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Softmax ' +
  'LogSoftmax Hardmax IsNaN IsInf Dropout';
const BINARY = 'Add Sub Mul Div Pow Min Max Sum Mean PRelu';
const COMPARE = 'Equal Less Greater LessOrEqual GreaterOrEqual';
const REDUCE =
  'ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare';

const each = (names: string, make: (op: string) => Omit<Case, 'op'>): Case[] =>
  names.split(' ').map((op) => ({ op, ...make(op) }));

const CASES: readonly Case[] = [
  ...each(UNARY, (op) => ({ inputs: [[2, 3, 4]], opsets: [op === 'Celu' ? 12 : 11, 22] })),
  ...each('HardSwish', () => ({ inputs: [[2, 3, 4]], opsets: [14, 22] })),
  ...each('Mish', () => ({ inputs: [[2, 3, 4]], opsets: [18, 22] })),
  ...each('Gelu', () => ({ inputs: [[2, 3, 4]], opsets: [20, 22] })),
  ...each(BINARY, () => ({
    inputs: [
      [2, 3, 4],
      [3, 1],
    ],
  })),
  ...each('Add Mul Min Max', () => ({
    inputs: [
      [3, 1],
      [2, 1, 4],
    ],
  })),
  ...each(COMPARE, (op) => ({
    inputs: [
      [2, 1, 4],
      [3, 1],
    ],
    opsets: [op.endsWith('OrEqual') ? 12 : 11, 22],
  })),
  ...each('And Or Xor', () => ({
    inputs: [
      { dtype: 'bool', shape: [2, 1] },
      { dtype: 'bool', shape: [3] },
    ],
  })),
  { op: 'Not', inputs: [{ dtype: 'bool', shape: [2, 3] }] },
  { op: 'Mod', inputs: [{ dtype: 'int64', shape: [2, 3] }, ints(2, 3, 4)] },
  { op: 'Where', inputs: [{ dtype: 'bool', shape: [2, 1] }, [3], [4, 1, 1]] },
  { op: 'Clip', inputs: [[2, 3], step(0), step(1)] },
  { op: 'Cast', inputs: [[2, 3]], attributes: { to: 7 } },
  { op: 'Cast', inputs: [[2, 3]], attributes: { to: 9 } },
  { op: 'CumSum', inputs: [[2, 3], int64([1], [])] },
  { op: 'LRN', inputs: [[1, 4, 3, 3]], attributes: { size: 3 } },
  { op: 'LpNormalization', inputs: [[2, 3]] },
  { op: 'Trilu', inputs: [[4, 3]], opsets: [14, 22] },
  { op: 'BitShift', inputs: [bytes(2, 3), byte(1)], attributes: { direction: 'LEFT' } },

  { op: 'Conv', inputs: [[2, 3, 9, 8], ramp(4, 3, 3, 2), [4]], attributes: { strides: [2, 1], pads: [1, 0, 2, 1] } },
  { op: 'Conv', inputs: [[1, 4, 11, 10], ramp(6, 2, 3, 3)], attributes: { group: 2, dilations: [2, 1] } },
  { op: 'Conv', inputs: [[1, 2, 9], ramp(3, 2, 4)], attributes: { auto_pad: 'SAME_UPPER', strides: [2] } },
  { op: 'Conv', inputs: [[1, 2, 9], ramp(3, 2, 3)], attributes: { auto_pad: 'SAME_LOWER', strides: [4] } },
  {
    op: 'Conv',
    inputs: [[1, 2, 9], ramp(3, 2, 4)],
    attributes: { auto_pad: 'VALID', strides: [3], kernel_shape: [4] },
  },
  { op: 'Conv', inputs: [[1, 2, 5, 6, 7], ramp(3, 2, 2, 3, 1)] },
  {
    op: 'ConvTranspose',
    inputs: [[2, 3, 5, 4], ramp(3, 2, 3, 3)],
    attributes: { strides: [2, 3], pads: [1, 0, 1, 2] },
  },
  {
    op: 'ConvTranspose',
    inputs: [[1, 4, 5, 4], ramp(4, 2, 3, 3)],
    attributes: { group: 2, strides: [2, 2], output_padding: [1, 0], dilations: [2, 1] },
  },
  { op: 'ConvTranspose', inputs: [[1, 2, 5], ramp(2, 3, 4)], attributes: { strides: [2], auto_pad: 'SAME_UPPER' } },
  { op: 'ConvTranspose', inputs: [[1, 2, 5], ramp(2, 3, 1)], attributes: { strides: [3], auto_pad: 'SAME_LOWER' } },
  { op: 'ConvTranspose', inputs: [[1, 2, 5], ramp(2, 3, 4)], attributes: { strides: [2], output_shape: [11] } },
  ...each('MaxPool AveragePool', () => ({
    inputs: [[2, 3, 11, 10]],
    attributes: { kernel_shape: [3, 2], strides: [2, 3], pads: [1, 0, 1, 1] },
  })),
  ...each('MaxPool AveragePool', () => ({
    inputs: [[2, 3, 10, 13]],
    attributes: { kernel_shape: [3, 2], strides: [2, 3], ceil_mode: 1 },
  })),
  ...each('MaxPool AveragePool LpPool', () => ({
    inputs: [[2, 3, 10, 13]],
    attributes: { kernel_shape: [3, 2], strides: [2, 3], auto_pad: 'SAME_UPPER' },
  })),
  // The last window would start in the right padding.
  { op: 'MaxPool', inputs: [[1, 1, 2, 2]], attributes: { kernel_shape: [1, 1], strides: [2, 2], ceil_mode: 1 } },
  {
    op: 'AveragePool',
    inputs: [[1, 1, 7]],
    attributes: { kernel_shape: [2], strides: [3], pads: [1, 1], ceil_mode: 1 },
  },
  { op: 'MaxPool', inputs: [[1, 2, 12]], attributes: { kernel_shape: [3], dilations: [2] }, outputs: 2 },
  ...each('GlobalAveragePool GlobalMaxPool', () => ({ inputs: [[2, 3, 5, 4]] })),
  { op: 'GlobalLpPool', inputs: [[2, 3, 5, 4]], opsets: [11, 21] },
  {
    op: 'GridSample',
    inputs: [
      [2, 3, 5, 4],
      [2, 6, 7, 2],
    ],
    opsets: [16, 22],
  },
  {
    op: 'RoiAlign',
    inputs: [[1, 3, 8, 8], [5, 4], { dtype: 'int64', shape: [5] }],
    attributes: { output_height: 3, output_width: 2 },
    opsets: [16, 21],
  },

  {
    op: 'MatMul',
    inputs: [
      [2, 3, 4],
      [4, 5],
    ],
  },
  {
    op: 'MatMul',
    inputs: [
      [3, 1, 2, 4],
      [5, 4, 6],
    ],
  },
  { op: 'MatMul', inputs: [[4], [2, 4, 5]] },
  { op: 'MatMul', inputs: [[2, 3, 4], [4]] },
  { op: 'MatMul', inputs: [[4], [4]] },
  {
    op: 'Gemm',
    inputs: [
      [4, 3],
      [5, 4],
      [3, 1],
    ],
    attributes: { transA: 1, transB: 1 },
    opsets: [11, 22],
  },
  { op: 'Gemm', inputs: [[3, 4], ramp(4, 5), [5]] },
  {
    op: 'Einsum',
    inputs: [
      [2, 3, 4],
      [2, 4, 5],
    ],
    attributes: { equation: 'bij, bjk -> bik' },
    opsets: [12, 22],
  },
  { op: 'Einsum', inputs: [[3, 4]], attributes: { equation: 'ij->ji' }, opsets: [12, 22] },
  { op: 'MatMulInteger', inputs: [{ dtype: 'uint8', shape: [3, 4] }, bytes(4, 2)] },
  {
    op: 'BatchNormalization',
    inputs: [[2, 3, 4, 4], ramp(3), ramp(3), ramp(3), float32([3], [1, 1, 1])],
  },
  { op: 'InstanceNormalization', inputs: [[2, 3, 4], ramp(3), ramp(3)] },
  { op: 'LayerNormalization', inputs: [[2, 3, 4], ramp(3, 4)], attributes: { axis: 1 }, opsets: [17, 22], outputs: 3 },
  { op: 'GroupNormalization', inputs: [[2, 4, 5], ramp(4), ramp(4)], attributes: { num_groups: 2 }, opsets: [21, 22] },
  ...each('LSTM GRU RNN', (op) => {
    const gates = { LSTM: 4, GRU: 3, RNN: 1 }[op] ?? 1;
    return {
      inputs: [[6, 2, 3], ramp(2, gates * 5, 3), ramp(2, gates * 5, 5)],
      attributes: { hidden_size: 5, direction: 'bidirectional' },
      outputs: op === 'LSTM' ? 3 : 2,
    };
  }),

  {
    op: 'Concat',
    inputs: [
      [2, 3, 4],
      [2, 5, 4],
      [2, 1, 4],
    ],
    attributes: { axis: -2 },
  },
  { op: 'Split', inputs: [[2, 6, 4]], attributes: { axis: 1, split: [1, 2, 3] }, outputs: 3, opsets: [11, 12] },
  { op: 'Split', inputs: [[2, 6, 4], ints(1, 5)], attributes: { axis: 1 }, outputs: 2, opsets: [13, 22] },
  { op: 'Split', inputs: [[2, 6]], attributes: { axis: 1 }, outputs: 3, opsets: [11, 17] },
  { op: 'Split', inputs: [[2, 7]], attributes: { axis: 1, num_outputs: 3 }, outputs: 3, opsets: [18, 22] },
  { op: 'Slice', inputs: [[8, 9, 7], ints(1, -4), ints(-1, 2 ** 31), ints(0, 2), ints(3, 1)] },
  { op: 'Slice', inputs: [[8, 9], ints(-1, 7), ints(-(2 ** 31), 1), ints(0, 1), ints(-1, -2)] },
  { op: 'Slice', inputs: [[8, 9], ints(2), ints(100)] },
  { op: 'Slice', inputs: [[8, 9], ints(5), ints(3)] },
  { op: 'Slice', inputs: [[8, 9], ints(0, 0), ints(3, 9)] },
  { op: 'Pad', inputs: [[2, 3, 4], ints(0, 1, 2, 0, 3, -1)] },
  { op: 'Pad', inputs: [[2, 3, 4], ints(1, 2), step(0), ints(-1)], attributes: { mode: 'constant' }, opsets: [18, 22] },
  { op: 'Reshape', inputs: [[2, 3, 4], ints(0, -1)] },
  { op: 'Reshape', inputs: [[2, 3, 4], ints(4, 0, -1, 1)] },
  { op: 'Reshape', inputs: [[2, 3, 4], ints(24)] },
  { op: 'Reshape', inputs: [[0, 3, 4], ints(3, 0)], attributes: { allowzero: 1 }, opsets: [14, 22] },
  { op: 'Transpose', inputs: [[2, 3, 4]] },
  { op: 'Transpose', inputs: [[2, 3, 4]], attributes: { perm: [1, 2, 0] } },
  { op: 'Squeeze', inputs: [[1, 3, 1]], attributes: { axes: [0, -1] }, opsets: [11, 12] },
  { op: 'Squeeze', inputs: [[1, 3, 1], ints(-1)], opsets: [13, 22] },
  { op: 'Squeeze', inputs: [[1, 3, 1]] },
  { op: 'Unsqueeze', inputs: [[2, 3]], attributes: { axes: [0, 3] }, opsets: [11, 12] },
  { op: 'Unsqueeze', inputs: [[2, 3], ints(-1, 1)], opsets: [13, 22] },
  { op: 'Flatten', inputs: [[2, 3, 4]] },
  { op: 'Flatten', inputs: [[2, 3, 4]], attributes: { axis: 3 } },
  { op: 'Flatten', inputs: [[2, 3, 4]], attributes: { axis: -1 } },
  { op: 'Expand', inputs: [[3, 1], ints(2, 1, 4)] },
  { op: 'Tile', inputs: [[2, 3], ints(2, 1)] },
  { op: 'DepthToSpace', inputs: [[1, 8, 2, 3]], attributes: { blocksize: 2 } },
  { op: 'SpaceToDepth', inputs: [[1, 2, 4, 6]], attributes: { blocksize: 2 } },
  { op: 'Resize', inputs: [[1, 2, 5, 7], '', float32([4], [1, 1, 2, 3])], opsets: [13, 22] },
  { op: 'Resize', inputs: [[1, 2, 5, 7], float32([0], []), float32([4], [1, 1, 2, 3])] },
  {
    op: 'Resize',
    inputs: [[1, 2, 5, 7], '', float32([4], [1, 1, 0.5, 1.7])],
    attributes: { mode: 'linear' },
    opsets: [13, 22],
  },
  { op: 'Resize', inputs: [[1, 2, 5, 7], '', '', ints(1, 2, 3, 9)], opsets: [13, 22] },
  { op: 'Resize', inputs: [[1, 2, 5, 7], '', '', ints(3, 9)], attributes: { axes: [2, 3] }, opsets: [18, 22] },
  ...each('not_larger not_smaller', () => ({ inputs: [] as Input[] })).map(({ op: policy }) => ({
    op: 'Resize',
    inputs: [[1, 2, 5, 7], '', '', ints(8, 9)] as Input[],
    attributes: { axes: [2, 3], keep_aspect_ratio_policy: policy },
    opsets: [18, 22] as const,
  })),
  { op: 'CenterCropPad', inputs: [[6, 7, 3], ints(4, 9)], attributes: { axes: [0, 1] }, opsets: [18, 22] },
  { op: 'ReverseSequence', inputs: [[4, 2, 3], ints(1, 2)] },

  { op: 'Gather', inputs: [[4, 5, 3], int64([0, 1, 2, 0], [2, 2])], attributes: { axis: 1 } },
  { op: 'Gather', inputs: [[4, 5], int64([-1], [])], attributes: { axis: -1 } },
  { op: 'GatherElements', inputs: [[3, 3], int64([0, 1], [1, 2])] },
  { op: 'GatherND', inputs: [[2, 3, 4], int64([0, 1, 1, 2], [2, 2])], opsets: [12, 22] },
  { op: 'GatherND', inputs: [[2, 3, 4], int64([0, 1], [2, 1])], attributes: { batch_dims: 1 }, opsets: [12, 22] },
  { op: 'ScatterElements', inputs: [[3, 3], int64([0, 1], [1, 2]), [1, 2]] },
  { op: 'ScatterND', inputs: [[4, 3], int64([1, 2], [2, 1]), [2, 3]] },
  {
    op: 'OneHot',
    inputs: [{ dtype: 'int64', shape: [2, 3] }, int64([5], []), float32([2], [0, 1])],
    attributes: { axis: 1 },
  },
  { op: 'TopK', inputs: [[3, 6], ints(2)], outputs: 2 },
  { op: 'TopK', inputs: [[3, 6], ints(2)], attributes: { axis: 0 }, outputs: 2 },
  { op: 'NonZero', inputs: [[2, 3, 2]], open: [[0, 1]] },
  { op: 'Compress', inputs: [[3, 2], bools(1, 0, 1)], attributes: { axis: 0 }, open: [[0, 0]] },
  {
    op: 'Unique',
    inputs: [[4]],
    outputs: 4,
    open: [
      [0, 0],
      [1, 0],
      [2, 0],
      [3, 0],
    ],
  },
  { op: 'NonMaxSuppression', inputs: [[1, 6, 4], [1, 2, 6], int64([3], [])], open: [[0, 0]] },
  { op: 'QuantizeLinear', inputs: [[2, 3], step(0.5), byte(3)] },
  { op: 'QuantizeLinear', inputs: [[2, 3], step(0.5)] },
  { op: 'DequantizeLinear', inputs: [{ dtype: 'uint8', shape: [2, 3] }, step(0.5), byte(3)] },
  { op: 'DynamicQuantizeLinear', inputs: [[2, 3]], outputs: 3 },
  { op: 'ConvInteger', inputs: [{ dtype: 'uint8', shape: [1, 1, 4, 4] }, bytes(2, 1, 3, 3)] },

  ...each(REDUCE, () => ({ inputs: [[2, 3, 4]], attributes: { axes: [0, -1] }, opsets: [11, 17] })),
  ...each(`${REDUCE} ReduceSum`, (op) => ({
    inputs: [[2, 3, 4], ints(0, -1)],
    attributes: { keepdims: 0 },
    opsets: [op === 'ReduceSum' ? 13 : 18, 22],
  })),
  ...each(`${REDUCE} ReduceSum`, () => ({ inputs: [[2, 3, 4]], attributes: { keepdims: 0 } })),
  { op: 'ReduceSum', inputs: [[2, 3]], attributes: { noop_with_empty_axes: 1 }, opsets: [13, 22] },
  { op: 'ReduceSum', inputs: [[2, 3]], attributes: { axes: [1], keepdims: 0 }, opsets: [11, 12] },
  ...each('ArgMax ArgMin', () => ({ inputs: [[2, 3, 4]], attributes: { axis: 1, keepdims: 0 } })),
  ...each('ArgMax ArgMin', () => ({ inputs: [[2, 3, 4]], attributes: { axis: -1 } })),

  { op: 'Shape', inputs: [[2, 3, 4]] },
  { op: 'Shape', inputs: [[2, 3, 4]], attributes: { start: -2, end: 2 }, opsets: [15, 22] },
  { op: 'Size', inputs: [[2, 3, 4]] },
  { op: 'ConstantOfShape', inputs: [ints(2, 3)] },
  { op: 'ConstantOfShape', inputs: [ints(2, 3)], attributes: { value: int64([7]) } },
  { op: 'Range', inputs: [int64([2], []), int64([11], []), int64([4], [])] },
  { op: 'Range', inputs: [step(0), step(1), step(0.3)] },
  { op: 'EyeLike', inputs: [[3, 4]], attributes: { dtype: 7 } },
  { op: 'RandomUniform', inputs: [], attributes: { shape: [2, 3] }, opsets: [11, 21] },
  { op: 'RandomNormalLike', inputs: [[3, 4]], opsets: [11, 21] },
  { op: 'STFT', inputs: [[2, 33, 1], int64([4], []), [8], int64([8], [])], opsets: [17, 22] },
  {
    op: 'STFT',
    inputs: [[1, 30, 1], int64([5], []), '', int64([7], [])],
    attributes: { onesided: 0 },
    opsets: [17, 22],
  },
  { op: 'DFT', inputs: [[2, 9, 1]], attributes: { onesided: 1 }, opsets: [17, 19] },
  { op: 'DFT', inputs: [[2, 9, 3, 2], int64([6], [])], attributes: { axis: 2 }, opsets: [17, 19] },
  { op: 'DFT', inputs: [[2, 9, 1], '', int64([1], [])], opsets: [20, 22] },
  { op: 'Constant', inputs: [], attributes: { value: ramp(2, 3) } },
  { op: 'Constant', inputs: [], attributes: { value_floats: floats([1, 2]) }, opsets: [12, 22] },
  { op: 'Constant', inputs: [], attributes: { value_int: 3 }, opsets: [12, 22] },
  { op: 'Elu', inputs: [[]], attributes: { alpha: float(0.5) } },
];

interface Built {
  readonly graph: Graph;
  readonly feeds: Record<string, Tensor>;
  readonly symbols: ReadonlyMap<string, number>;
}

function build(example: Case, opset: number, mode: 'sized' | 'symbolic' | 'fed'): Built {
  const graph = Graph.create({ opset });
  const feeds: Record<string, Tensor> = {};
  const symbols = new Map<string, number>();
  const inputs = example.inputs.map((input, i) => {
    if (input === '') return '';
    const name = `in${i}`;
    const constant = 'data' in input;
    if (constant && mode !== 'fed') return graph.addInitializer(name, input);
    const { dtype, shape } = 'dtype' in input ? input : { dtype: 'float32' as const, shape: input };
    const declared = shape.map((size, axis): Dimension => {
      if (mode === 'sized' || constant) return size;
      symbols.set(`s${i}_${axis}`, size);
      return `s${i}_${axis}`;
    });
    graph.addInput(name, dtype, declared);
    feeds[name] = constant ? input : sampleTensor(dtype, shape, i + 1);
    return name;
  });
  const outputs = Array.from({ length: example.outputs ?? 1 }, (_, i) => `out${i}`);
  graph.addMany(example.op, inputs, example.attributes, { outputs });
  return { graph, feeds, symbols };
}

/** What the runtime returns; the outputs' declared types are left to it. */
async function actual({ graph, feeds }: Built, types: ReadonlyMap<string, ValueType>): Promise<Record<string, Tensor>> {
  const copy = graph.clone();
  for (const name of graph.nodes().flatMap(({ output }) => output)) {
    copy.addOutput(name, types.get(name)?.dtype ?? 'float32', undefined);
  }
  return runOnnx(copy.encode(), feeds);
}

describe('inferred shapes and the runtime', () => {
  for (const [index, example] of CASES.entries()) {
    const [first, last] = example.opsets ?? [11, 22];
    const opsets = [...new Set([first, 12, 13, 14, 17, 18, 19, 21, last])].filter((v) => v >= first && v <= last);
    it(`agree on ${example.op} (case ${index})`, async () => {
      for (const opset of opsets) {
        const sized = build(example, opset, 'sized');
        const types = inferShapes(sized.graph);
        const results = await actual(sized, types);
        const isOpen = (output: number, axis: number): boolean =>
          example.open?.some(([o, a]) => o === output && a === axis) ?? false;
        for (const [name, { dtype, shape }] of Object.entries(results)) {
          const output = Number(name.slice(3));
          const expected = shape.map((size, axis) => (isOpen(output, axis) ? '' : size));
          expect(types.get(name), `${example.op} opset ${opset}`).toEqual({ dtype, shape: expected });
        }
        for (const mode of ['symbolic', 'fed'] as const) {
          const open = build(example, opset, mode);
          const claims = inferShapes(open.graph);
          for (const [name, { shape }] of Object.entries(results)) {
            const claim = claims.get(name)?.shape;
            if (!claim) continue;
            expect(claim.length, `rank of ${name}, ${mode}`).toBe(shape.length);
            claim.forEach((dimension, axis) => {
              if (dimension === '') return;
              const size = typeof dimension === 'number' ? dimension : evaluateDimension(dimension, open.symbols);
              expect(size, `axis ${axis} of ${name}: ${dimension}, ${mode}, opset ${opset}`).toBe(shape[axis]);
            });
          }
        }
      }
    });
  }
});
