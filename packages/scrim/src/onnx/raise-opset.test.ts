/** Old forms of operators against their raised ones, both as onnxruntime runs them. */
import { describe, expect, it } from 'vitest';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { addGradients } from '../autodiff/index.js';
import { float32, int64, sizeOf, type Tensor, tensor } from '../tensor.js';
import { type Attributes, float, floats } from './attributes.js';
import { Graph } from './graph.js';
import { RAISED_OPSET, raiseOpset } from './raise-opset.js';
import { valueInfo } from './value-info.js';

/** An empty graph that says it has the operator set, however old. */
function graphOf(opset: number): Graph {
  const graph = Graph.create({ opset: Math.max(11, opset) });
  for (const entry of graph.model.opsetImport) entry.version = BigInt(opset);
  graph.model.irVersion = opset < 9 ? 3n : 6n;
  return graph;
}

interface Case {
  readonly op: string;
  readonly opset: number;
  readonly shape: readonly number[];
  readonly more?: readonly Tensor[];
  readonly attributes?: Attributes;
  /** True declares no sizes of x, so that not even inference knows them. */
  readonly open?: boolean;
}

const CASES: readonly Case[] = [
  { op: 'Slice', opset: 9, shape: [3, 5], attributes: { starts: [1], ends: [-1], axes: [1] } },
  { op: 'Slice', opset: 7, shape: [3, 5], attributes: { starts: [1, 0], ends: [3, 2] } },
  { op: 'TopK', opset: 9, shape: [3, 5], attributes: { k: 2, axis: -1 } },
  { op: 'Clip', opset: 10, shape: [2, 6], attributes: { min: float(-0.5), max: float(1) } },
  { op: 'Clip', opset: 7, shape: [2, 6], attributes: { max: float(0.25) } },
  { op: 'Clip', opset: 7, shape: [2, 6] },
  { op: 'Pad', opset: 10, shape: [2, 3], attributes: { pads: [0, 1, 1, 0], value: float(7) } },
  { op: 'Pad', opset: 8, shape: [4, 5], attributes: { pads: [1, 2, 2, 1], mode: 'reflect' } },
  { op: 'Dropout', opset: 9, shape: [2, 3], attributes: { ratio: float(0.3) } },
  { op: 'Squeeze', opset: 12, shape: [2, 1, 3], attributes: { axes: [1] } },
  { op: 'Squeeze', opset: 11, shape: [2, 1, 3] },
  { op: 'Unsqueeze', opset: 9, shape: [2, 3], attributes: { axes: [0, 2] } },
  { op: 'ReduceSum', opset: 12, shape: [2, 3, 4], attributes: { axes: [0, 2], keepdims: 0 } },
  { op: 'ReduceSum', opset: 9, shape: [2, 3, 4] },
  { op: 'Split', opset: 11, shape: [5, 3], attributes: { axis: 0, split: [2, 3] } },
  { op: 'Split', opset: 9, shape: [4, 3], attributes: { axis: 0 } },
  { op: 'Upsample', opset: 8, shape: [1, 2, 3, 4], attributes: { scales: floats([1, 1, 2, 3]), mode: 'nearest' } },
  { op: 'Upsample', opset: 9, shape: [1, 2, 3, 4], more: [float32([4], [1, 1, 2, 2])], attributes: { mode: 'linear' } },
  {
    op: 'Resize',
    opset: 10,
    shape: [1, 2, 4, 4],
    more: [float32([4], [1, 1, 0.6, 0.3])],
    attributes: { mode: 'nearest' },
  },
  {
    op: 'Resize',
    opset: 10,
    shape: [1, 2, 4, 4],
    more: [float32([4], [1, 1, 2.5, 2])],
    attributes: { mode: 'linear' },
  },
  {
    op: 'BatchNormalization',
    opset: 7,
    shape: [2, 3, 4],
    more: ['scale', 'bias', 'mean', 'variance'].map((_, i) => float32([3], [1 + i, 0.5, 2])),
  },
  {
    op: 'Scatter',
    opset: 9,
    shape: [3, 2],
    more: [int64([2, 0], [1, 2]), float32([1, 2], [5, 6])],
    attributes: { axis: 0 },
  },
  {
    op: 'RoiAlign',
    opset: 11,
    shape: [1, 2, 6, 6],
    more: [float32([1, 4], [0.5, 1, 4, 4.5]), int64([0])],
    attributes: { output_height: 2, output_width: 3 },
  },
  ...['Softmax', 'LogSoftmax', 'Hardmax'].flatMap((op): Case[] => [
    { op, opset: 9, shape: [2, 3, 4] },
    { op, opset: 12, shape: [2, 3, 4], attributes: { axis: -1 } },
    { op, opset: 11, shape: [2, 3, 4], attributes: { axis: 0 } },
    { op, opset: 11, shape: [2, 3, 1, 1] },
    { op, opset: 11, shape: [2, 3, 4], attributes: { axis: -2 }, open: true },
  ]),
];

function build({ op, opset, shape, more = [], attributes = {}, open = false }: Case): Graph {
  const graph = graphOf(opset);
  graph.addInput('x', 'float32', open ? shape.map(() => '') : shape);
  const inputs = ['x', ...more.map((value, i) => graph.addInitializer(`more${i}`, value))];
  // In files of that age every initializer is an input, too.
  for (const name of opset < 9 ? graph.initializerNames : []) {
    const type = graph.declaredType(name);
    if (type) graph.proto.input.push(valueInfo(name, type));
  }
  const outputs = op === 'TopK' || op === 'Split' ? 2 : 1;
  for (const name of graph.addMany(op, inputs, attributes, { outputs })) {
    graph.addOutput(name, name.endsWith('1') && op === 'TopK' ? 'int64' : 'float32', undefined);
  }
  return graph;
}

describe('raiseOpset', () => {
  for (const each of CASES) {
    it(`${each.op} of ${each.opset}, [${each.shape}] ${JSON.stringify(each.attributes ?? {})}`, async () => {
      const graph = build(each);
      const feeds = { x: sampleTensor('float32', each.shape) };
      const before = await runOnnx(graph.encode(), feeds);
      raiseOpset(graph);
      expect(graph.opset).toBe(RAISED_OPSET);
      const after = await runOnnx(graph.encode(), feeds);
      expect(Object.keys(after)).toEqual(Object.keys(before));
      for (const [name, { shape, data }] of Object.entries(before)) {
        expect(after[name]?.shape).toEqual(shape);
        const found = Array.from((after[name] as Tensor).data as Float32Array, Number);
        expect(found).toEqual(Array.from(data as Float32Array, (value) => expect.closeTo(Number(value), 5)));
      }
    });
  }

  it('raises the bodies of branches', async () => {
    const graph = graphOf(9);
    graph.addInput('x', 'float32', [2, 4]);
    const body = (start: number) => {
      const inner = Graph.create({ opset: 11 });
      inner.addInput('x', 'float32', [2, 4]);
      inner.addOutput(inner.add('Slice', ['x'], { starts: [start], ends: [4], axes: [1] }), 'float32', undefined);
      inner.proto.input = [];
      return inner.proto;
    };
    const condition = graph.addInitializer('condition', tensor('bool', [], Uint8Array.of(1)));
    const y = graph.add('If', [condition], { then_branch: body(1), else_branch: body(2) });
    graph.addOutput(y, 'float32', undefined);
    raiseOpset(graph);
    const { [y]: found } = await runOnnx(graph.encode(), { x: sampleTensor('float32', [2, 4]) });
    expect(found?.shape).toEqual([2, 3]);
  });

  it('gives a constant in a branch, where types are not followed, the element type of what it stands beside', async () => {
    const graph = graphOf(9);
    graph.addInput('x', 'float64', [2, 4]);
    const body = (value: number) => {
      const inner = Graph.create({ opset: 11 });
      inner.addInput('x', 'float64', [2, 4]);
      inner.addOutput(inner.add('Pad', ['x'], { pads: [0, 0, 0, 1], value: float(value) }), 'float64', undefined);
      inner.proto.input = [];
      return inner.proto;
    };
    const condition = graph.addInitializer('condition', tensor('bool', [], Uint8Array.of(1)));
    const y = graph.add('If', [condition], { then_branch: body(3), else_branch: body(4) });
    graph.addOutput(y, 'float64', undefined);
    const x = sampleTensor('float64', [2, 4]);
    const before = await runOnnx(graph.encode(), { x });
    raiseOpset(graph);
    expect(await runOnnx(graph.encode(), { x })).toEqual(before);
  });

  it('drops the mask of an old Dropout, declared with the element type that it had', async () => {
    const graph = graphOf(9);
    graph.addInput('x', 'float32', [3]);
    const [y = '', mask = ''] = graph.addMany('Dropout', ['x'], {}, { outputs: 2 });
    graph.addOutput(y, 'float32', [3]);
    graph.proto.valueInfo.push(valueInfo(mask, { dtype: 'float32', shape: [3] }));
    const read = graph.clone();
    raiseOpset(graph);
    const x = float32([3], [1, -2, 3]);
    expect(await runOnnx(graph.encode(), { x })).toEqual({ [y]: x });
    read.addOutput(mask, 'float32', [3]);
    expect(() => raiseOpset(read)).toThrow("can't be brought from operator set 9 to 17: its mask is read");
  });

  it('leaves newer graphs and newer forms as they are', () => {
    const newer = Graph.create({ opset: 20 });
    newer.addInput('x', 'float32', [2]);
    newer.addOutput(newer.add('Relu', ['x']), 'float32', [2]);
    const bytes = newer.encode();
    raiseOpset(newer);
    expect(newer.encode()).toEqual(bytes);
    const mixed = graphOf(9);
    mixed.addInput('x', 'float32', [2]);
    const limit = mixed.addInitializer('limit', float32([], [1]));
    const clipped = mixed.add('Clip', ['x', '', limit]);
    mixed.addOutput(clipped, 'float32', [2]);
    raiseOpset(mixed);
    expect(mixed.producer(clipped)?.input).toEqual(['x', '', limit]);
  });

  it('says what it can not raise', () => {
    const old = graphOf(6);
    old.addInput('x', 'float32', [2]);
    old.addOutput(old.add('Relu', ['x']), 'float32', [2]);
    expect(() => raiseOpset(old)).toThrow('the model has operator set 6, expected 7 or newer');
    const planes = build({
      op: 'BatchNormalization',
      opset: 8,
      shape: [2, 3],
      more: Array.from({ length: 4 }, () => float32([3], [1, 1, 1])),
      attributes: { spatial: 0 },
    });
    expect(() => raiseOpset(planes)).toThrow(
      "(BatchNormalization) can't be brought from operator set 8 to 17: spatial is 0",
    );
  });

  it('lets gradients through a network of operator set 9', async () => {
    const graph = graphOf(9);
    const shape = [2, 3, 4, 4];
    graph.addInput('x', 'float32', shape);
    const weight = graph.addInitializer('w', sampleTensor('float32', [4, 3, 3, 3]));
    const conv = graph.add('Conv', ['x', weight], { strides: [2, 2], pads: [1, 1, 1, 1] });
    const pooled = graph.add('MaxPool', [graph.add('Pad', [conv], { pads: [0, 0, 1, 1, 0, 0, 0, 0] })], {
      kernel_shape: [2, 2],
    });
    const probabilities = graph.add('Softmax', [pooled]);
    const picked = graph.add('Slice', [probabilities], { starts: [0], ends: [1], axes: [1] });
    const loss = graph.add('ReduceSum', [picked], { keepdims: 0 });
    graph.addOutput(loss, 'float32', []);
    const plain = graph.encode();
    const gradient = addGradients(graph, { loss, wrt: ['x'], outputs: true }).get('x') as string;
    const x = sampleTensor('float32', shape) as Tensor<'float32'>;
    const found = (await runOnnx(graph.encode(), { x }))[gradient]?.data as Float32Array;
    expect(found).toHaveLength(sizeOf(shape));
    for (const place of [0, 17, 50]) {
      const at = async (step: number): Promise<number> => {
        const data = x.data.map((value, i) => (i === place ? value + step : value));
        return ((await runOnnx(plain, { x: float32(shape, data) }))[loss] as Tensor<'float32'>).data[0] as number;
      };
      const h = 1 / 256;
      expect(found[place]).toBeCloseTo(((await at(h)) - (await at(-h))) / (2 * h), 3);
    }
  });
});
