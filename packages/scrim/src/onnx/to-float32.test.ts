/** Models in float32 against what they were made from, as onnxruntime runs both. */
import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { addGradients } from '../autodiff/index.js';
import { float32, int64, type Tensor, tensor } from '../tensor.js';
import { FunctionProtoSchema } from './gen/onnx_pb.js';
import { Graph } from './graph.js';
import { toFloat32 } from './to-float32.js';
import { valueInfo } from './value-info.js';

const HALF_ONE_AND_A_HALF = 0x3e00;

/** Answers of a model and of its form in float32 to x; what differs is at most `tolerance`. */
async function compare(graph: Graph, feeds: Record<string, Tensor>, tolerance: number): Promise<Graph> {
  const bytes = graph.encode();
  const float = toFloat32(graph);
  expect(graph.encode()).toEqual(bytes);
  const before = await runOnnx(bytes, feeds);
  const after = await runOnnx(float.encode(), feeds);
  expect(Object.keys(after)).toEqual(Object.keys(before));
  for (const [name, value] of Object.entries(before)) {
    expect(after[name]?.shape).toEqual(value.shape);
    const found = (after[name] as Tensor<'float32'>).data;
    for (const [i, expected] of Array.from(value.data as Float32Array).entries()) {
      expect(Math.abs((found[i] as number) - expected), `${name} ${i}`).toBeLessThanOrEqual(tolerance);
    }
  }
  return float;
}

/** The gradient of the sum of the first output by x is no longer missing, nor 0 everywhere. */
async function expectGradient(graph: Graph, x: Tensor): Promise<void> {
  const loss = graph.add('ReduceSum', [graph.outputNames[0] as string], { keepdims: 0 });
  const gradient = addGradients(graph, { loss, wrt: ['x'], inputShapes: { x: x.shape }, outputs: true }).get('x');
  const { [gradient as string]: found } = await runOnnx(graph.encode(), { x });
  expect((found as Tensor<'float32'>).data.some((value) => Math.abs(value) > 1e-4)).toBe(true);
}

const bytes = (shape: readonly number[], seed: number): Tensor => {
  const values = (sampleTensor('float32', shape, seed) as Tensor<'float32'>).data;
  return tensor(
    'int8',
    shape,
    Int8Array.from(values, (value) => Math.round(value * 60)),
  );
};
const scale = (...values: number[]): Tensor => float32(values.length === 1 ? [] : [values.length], values);

describe('toFloat32', () => {
  it('widens weights, constants, casts and declared types of half precision', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float16', ['N', 4]);
    const weight = graph.addInitializer('w', tensor('float16', [4], new Uint16Array(4).fill(HALF_ONE_AND_A_HALF)));
    const one = graph.add('Constant', [], { value: tensor('float16', [], Uint16Array.of(HALF_ONE_AND_A_HALF)) });
    const moved = graph.add('Add', [graph.add('Mul', ['x', weight]), one]);
    const wide = graph.add('Exp', [graph.add('Cast', [moved], { to: 1 })]);
    const narrow = graph.add('Cast', [wide], { to: 10 }, { outputs: ['y'] });
    graph.addOutput(narrow, 'float16', ['N', 4]);
    const float = toFloat32(graph);
    const x = sampleTensor('float32', [2, 4]) as Tensor<'float32'>;
    const { y } = await runOnnx(float.encode(), { x });
    expect(y?.dtype).toBe('float32');
    const expected = Array.from(x.data, (value) => Math.exp(1.5 * value + 1.5));
    for (const [i, value] of expected.entries()) expect((y?.data[i] as number) / value).toBeCloseTo(1, 5);
    expect(float.declaredType('x')).toEqual({ dtype: 'float32', shape: ['N', 4] });
  });

  it('feeds integers as float32, in branches too', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('ids', 'int64', ['N', 3]);
    const branch = (row: number) => {
      const inner = Graph.create({ opset: 17 });
      inner.addInput('ids', 'int64', ['N', 3]);
      const shift = inner.addInitializer('shift', int64([row], []));
      inner.addOutput(inner.add('Add', ['ids', shift], {}, { outputs: [`moved${row}`] }), 'int64', undefined);
      inner.proto.input = [];
      return inner.proto;
    };
    const yes = graph.addInitializer('yes', tensor('bool', [], Uint8Array.of(1)));
    const chosen = graph.add('If', [yes], { then_branch: branch(1), else_branch: branch(0) });
    const table = graph.addInitializer('table', sampleTensor('float32', [9, 2]));
    graph.addOutput(graph.add('Gather', [table, chosen]), 'float32', undefined);
    const float = toFloat32(graph);
    const [output = ''] = graph.outputNames;
    const before = await runOnnx(graph.encode(), { ids: int64([0, 5, 7], [1, 3]) });
    const after = await runOnnx(float.encode(), { ids: float32([1, 3], [0, 5, 7]) });
    expect(after[output]).toEqual(before[output]);
  });

  it('computes what QDQ stands for, by tensor and by channel, and folds weights', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', ['N', 3, 5, 5]);
    const add = (name: string, value: Tensor): string => graph.addInitializer(name, value);
    const zero = add('zero', tensor('uint8', [], Uint8Array.of(128)));
    const step = add('step', scale(1 / 40));
    const levels = graph.add('QuantizeLinear', ['x', step, zero]);
    const moved = graph.add('DequantizeLinear', [graph.add('Transpose', [levels], { perm: [0, 1, 3, 2] }), step, zero]);
    const weight = graph.add(
      'DequantizeLinear',
      [
        add('w', bytes([2, 3, 3, 3], 3)),
        add('ws', scale(0.01, 0.002)),
        add('wz', tensor('int8', [2], Int8Array.of(0, 4))),
      ],
      { axis: 0 },
    );
    graph.addOutput(graph.add('Conv', [moved, weight]), 'float32', undefined);
    const x = sampleTensor('float32', [2, 3, 5, 5]);
    const float = await compare(graph, { x }, 0.2);
    const conv = float.nodes().find(({ opType }) => opType === 'Conv');
    expect(float.initializer(conv?.input[1] ?? '')?.shape).toEqual([2, 3, 3, 3]);
    await expectGradient(float, x);
  });

  it('keeps to the range of the levels', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    const step = graph.addInitializer('step', scale(0.5));
    graph.addOutput(graph.add('DequantizeLinear', [graph.add('QuantizeLinear', ['x', step]), step]), 'float32', [4]);
    await compare(graph, { x: float32([4], [-3, 1, 120, 300]) }, 1e-6);
  });

  it('declares levels as what they are, where the file declares integers', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    const step = graph.addInitializer('step', scale(0.5));
    graph.add('QuantizeLinear', ['x', step], {}, { outputs: ['inside'] });
    graph.addOutput(graph.add('DequantizeLinear', ['inside', step]), 'float32', [4]);
    graph.addOutput(graph.add('QuantizeLinear', ['x', step]), 'uint8', [4]);
    graph.proto.valueInfo.push(valueInfo('inside', { dtype: 'uint8', shape: [4] }));
    const float = await compare(graph, { x: float32([4], [-3, 1, 120, 300]) }, 1e-6);
    expect(float.declaredType('inside')?.dtype).toBe('float32');
  });

  it('joins levels with constants', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    const step = graph.addInitializer('step', scale(0.5));
    const constant = graph.addInitializer('constant', tensor('uint8', [2], Uint8Array.of(3, 7)));
    const joined = graph.add('Concat', [constant, graph.add('QuantizeLinear', ['x', step])], { axis: 0 });
    graph.addOutput(graph.add('DequantizeLinear', [joined, step]), 'float32', [6]);
    await compare(graph, { x: float32([4], [-3, 1, 120, 300]) }, 1e-6);
  });

  it("reads onnxruntime's own quantisation of 16 bits", async () => {
    const graph = Graph.create({ opset: 17 });
    graph.model.opsetImport.push({ ...graph.model.opsetImport[0], domain: 'com.microsoft', version: 1n } as never);
    graph.addInput('x', 'float32', [4]);
    const more = [
      graph.addInitializer('step', scale(0.25)),
      graph.addInitializer('zero', tensor('uint16', [], Uint16Array.of(300))),
    ];
    const domain = { domain: 'com.microsoft' };
    const levels = graph.add('QuantizeLinear', ['x', ...more], {}, domain);
    graph.addOutput(graph.add('DequantizeLinear', [levels, ...more], {}, domain), 'float32', [4]);
    const x = float32([4], [-100, 1, 120, 300]);
    const float = await compare(graph, { x }, 1e-4);
    expect(float.nodes().every((node) => node.domain === '')).toBe(true);
    await expectGradient(float, x);
  });

  it('widens functions', async () => {
    const graph = Graph.create({ opset: 17 });
    const inner = Graph.create({ opset: 17 });
    inner.addInput('a', 'float16', [4]);
    inner.add('Add', ['a', inner.add('Cast', ['a'], { to: 10 })], {}, { outputs: ['b'] });
    graph.model.opsetImport.push({ ...graph.model.opsetImport[0], domain: 'local', version: 1n } as never);
    graph.model.functions.push(
      create(FunctionProtoSchema, {
        ...{ name: 'Twice', domain: 'local', input: ['a'], output: ['b'] },
        opsetImport: inner.model.opsetImport,
        node: inner.proto.node,
      }),
    );
    graph.addInput('x', 'float16', [4]);
    graph.addOutput(graph.add('Twice', ['x'], {}, { domain: 'local' }), 'float16', [4]);
    const answer = await runOnnx(toFloat32(graph).encode(), { x: float32([4], [1, -2, 0.1, 70_000]) });
    expect(answer[graph.outputNames[0] as string]).toEqual(float32([4], [2, -4, 0.2, 140_000]));
  });

  it('computes what dynamic quantisation stands for', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', ['N', 6, 4, 4]);
    const add = (name: string, value: Tensor): string => graph.addInitializer(name, value);
    const quantised = (value: string): string[] => graph.addMany('DynamicQuantizeLinear', [value], {}, { outputs: 3 });
    const [a = '', as = '', az = ''] = quantised('x');
    const weightStep = add('ws', scale(0.01));
    const product = graph.add('Mul', [as, weightStep]);
    const conv = graph.add('ConvInteger', [
      a,
      add('w', bytes([2, 6, 3, 3], 2)),
      az,
      add('wz', tensor('int8', [], Int8Array.of(3))),
    ]);
    // As onnxruntime's own tool writes a bias.
    const bias = graph.add(
      'Cast',
      [graph.add('Floor', [graph.add('Div', [add('bias', float32([1, 2, 1, 1], [0.5, -1])), product])])],
      { to: 6 },
    );
    const whole = graph.add('Cast', [graph.add('Add', [conv, bias])], { to: 1 });
    const flat = graph.add('Flatten', [graph.add('Mul', [whole, product])]);
    const [b = '', bs = '', bz = ''] = quantised(graph.add('Tanh', [flat]));
    const matrix = graph.add('Cast', [graph.add('MatMulInteger', [b, add('m', bytes([8, 3], 5)), bz])], { to: 1 });
    graph.addOutput(graph.add('Mul', [matrix, graph.add('Mul', [bs, weightStep])]), 'float32', undefined);
    const x = sampleTensor('float32', [2, 6, 4, 4]);
    await expectGradient(await compare(graph, { x }, 0.3), x);
  });

  it('gives a quantised LSTM the weights that its levels mean', async () => {
    const [inputs, hidden] = [3, 4];
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [5, 2, inputs]);
    const part = (name: string, from: number, seed: number): string[] => [
      graph.addInitializer(name, bytes([1, from, 4 * hidden], seed)),
      graph.addInitializer(`${name}s`, float32([1], [0.006])),
      graph.addInitializer(`${name}z`, tensor('int8', [1], Int8Array.of(2))),
    ];
    const [w = '', ws = '', wz = ''] = part('w', inputs, 2);
    const [r = '', rs = '', rz = ''] = part('r', hidden, 3);
    const made = graph.add(
      'DynamicQuantizeLSTM',
      ['x', w, r, '', '', '', '', '', ws, wz, rs, rz],
      { hidden_size: hidden },
      { domain: 'com.microsoft' },
    );
    graph.model.opsetImport.push({ ...graph.model.opsetImport[0], domain: 'com.microsoft', version: 1n } as never);
    graph.addOutput(made, 'float32', undefined);
    const x = sampleTensor('float32', [5, 2, inputs]);
    await expectGradient(await compare(graph, { x }, 0.03), x);
  });

  it('names what it has no form for', () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    const step = graph.addInitializer('step', scale(0.5));
    const levels = graph.add('QuantizeLinear', ['x', step]);
    graph.add('Mod', [levels, levels], {}, { name: 'odd', outputs: ['m'] });
    graph.addOutput(graph.add('DequantizeLinear', ['m', step]), 'float32', [4]);
    expect(() => toFloat32(graph)).toThrow("node 'odd' (Mod) computes with quantised values");
    // A branch reads levels that no list of inputs names.
    const branching = Graph.create({ opset: 17 });
    branching.addInput('x', 'float32', [4]);
    branching.addInitializer('step', scale(0.5));
    branching.add('QuantizeLinear', ['x', 'step'], {}, { outputs: ['levels'] });
    const branch = (name: string) => {
      const inner = Graph.create({ opset: 17 });
      inner.addInput('levels', 'uint8', [4]);
      inner.addInput('step', 'float32', []);
      inner.addOutput(inner.add('DequantizeLinear', ['levels', 'step'], {}, { outputs: [name] }), 'float32', [4]);
      inner.proto.input = [];
      return inner.proto;
    };
    const yes = branching.addInitializer('yes', tensor('bool', [], Uint8Array.of(1)));
    const branches = { then_branch: branch('a'), else_branch: branch('b') };
    branching.addOutput(branching.add('If', [yes], branches, { name: 'fork' }), 'float32', [4]);
    expect(() => toFloat32(branching)).toThrow("node 'fork' (If) computes with quantised values");
  });
});
