/** The backward sweep: what it computes, what it leaves out, what it refuses; and a network with everything in it. */
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { type GradientCase, gradientTests } from '../../../../test/vectors/autodiff/gradient-check.js';
import { ScrimError } from '../errors.js';
import { float } from '../onnx/attributes.js';
import { Graph } from '../onnx/graph.js';
import { float32, int64, scalar, type Tensor, tensor } from '../tensor.js';
import { addGradients, differentiability, gradientName, supportsGradient } from './gradients.js';

async function run(graph: Graph, feeds: Record<string, Tensor>): Promise<Record<string, OrtTensor>> {
  const session = await InferenceSession.create(graph.encode(), { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const result = await session.run(
    Object.fromEntries(
      Object.entries(feeds).map(([name, { dtype, data, shape }]) => [
        name,
        new OrtTensor(dtype as 'float32', data as Float32Array, shape as number[]),
      ]),
    ),
  );
  await session.release();
  return result as Record<string, OrtTensor>;
}

/** The gradient by a value among the results. */
function valuesOf(results: Record<string, OrtTensor>, value: string): number[] {
  const result = results[gradientName(value)] as OrtTensor;
  return Array.from(result.data as Float32Array);
}

/** x [3] · w [3] summed, plus things beside the path. */
function small(): Graph {
  const graph = Graph.create();
  graph.addInput('x', 'float32', [3]);
  graph.addInitializer('w', float32([3], [1, 2, 3]));
  graph.add('Mul', ['x', 'w'], {}, { outputs: ['product'] });
  graph.add('ReduceSum', ['product'], { keepdims: 0 }, { outputs: ['loss'] });
  return graph;
}

function codeOf(action: () => unknown): { code: string; message: string; details: unknown } {
  try {
    action();
  } catch (error) {
    if (error instanceof ScrimError) return { code: error.code, message: error.message, details: error.details };
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('addGradients', () => {
  it('differentiates by inputs, initializers and inner values, and names outputs', async () => {
    const graph = small();
    const gradients = addGradients(graph, { loss: 'loss', wrt: ['x', 'w', 'product', 'x'], outputs: true });
    expect([...gradients]).toEqual(['x', 'w', 'product'].map((name) => [name, gradientName(name)]));
    const found = await run(graph, { x: float32([3], [4, 5, 6]) });
    expect(valuesOf(found, 'x')).toEqual([1, 2, 3]);
    expect(valuesOf(found, 'w')).toEqual([4, 5, 6]);
    expect(valuesOf(found, 'product')).toEqual([1, 1, 1]);
  });

  it.each(['cpu', 'cuda', 'webgpu'] as const)('differentiates by Relus that are joined, for %s', async (target) => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [3]);
    graph.addInput('y', 'float32', [2]);
    graph.add('Relu', ['x'], {}, { outputs: ['left'] });
    graph.add('Relu', ['y'], {}, { outputs: ['right'] });
    const factors = graph.addInitializer('factors', float32([5], [1, 2, 3, 4, 5]));
    const product = graph.add('Mul', [graph.add('Concat', ['left', 'right'], { axis: 0 }), factors]);
    graph.add('ReduceSum', [product], { keepdims: 0 }, { outputs: ['loss'] });
    addGradients(graph, { loss: 'loss', wrt: ['x', 'left', 'y'], outputs: true, target });
    const found = await run(graph, { x: float32([3], [1, -1, 0]), y: float32([2], [-2, 2]) });
    expect(valuesOf(found, 'x')).toEqual([1, 0, 0]);
    expect(valuesOf(found, 'left')).toEqual([1, 2, 3]);
    expect(valuesOf(found, 'y')).toEqual([0, 5]);
  });

  it('adds only what lies between the variables and the loss', () => {
    const graph = small();
    graph.add('Exp', ['x'], {}, { outputs: ['aside'] });
    const before = graph.nodes().length;
    addGradients(graph, { loss: 'loss', wrt: ['product'] });
    const added = graph.nodes().slice(before);
    expect(added.map(({ opType }) => opType)).toEqual(['Expand']);
  });

  it('gives zeros where the loss does not depend on the variable, or only in steps', async () => {
    const graph = small();
    graph.addInput('other', 'float32', ['N', 2]);
    graph.addInput('stepped', 'float32', [2]);
    const floor = graph.add('ReduceSum', [graph.add('Floor', ['stepped'])], { keepdims: 0 });
    const loss = graph.add('Add', ['loss', floor]);
    addGradients(graph, { loss, wrt: ['other', 'stepped'], outputs: true });
    graph.addOutput(loss, 'float32', []);
    const found = await run(graph, {
      x: float32([3], [1, 1, 1]),
      other: float32([4, 2], new Float32Array(8)),
      stepped: float32([2], [1.5, 2.5]),
    });
    expect(found[gradientName('other')]?.dims).toEqual([4, 2]);
    expect(valuesOf(found, 'other')).toEqual(new Array(8).fill(0));
    expect(valuesOf(found, 'stepped')).toEqual([0, 0]);
  });

  it('gives one for the loss by itself', async () => {
    const graph = small();
    addGradients(graph, { loss: 'loss', wrt: ['loss'], outputs: true });
    const found = await run(graph, { x: float32([3], [1, 1, 1]) });
    expect(valuesOf(found, 'loss')).toEqual([1]);
  });

  it('can be applied to its own result: second derivatives', async () => {
    // f = Σ x³, so ∂/∂x Σ (∂f/∂x)·v = 6·x·v
    const graph = Graph.create();
    graph.addInput('x', 'float32', [3]);
    graph.addInput('v', 'float32', [3]);
    const f = graph.add('ReduceSum', [graph.add('Mul', ['x', graph.add('Mul', ['x', 'x'])])], { keepdims: 0 });
    const first = addGradients(graph, { loss: f, wrt: ['x'] }).get('x') as string;
    const product = graph.add('ReduceSum', [graph.add('Mul', [first, 'v'])], { keepdims: 0 });
    addGradients(graph, { loss: product, wrt: ['x'], outputs: true });
    const found = await run(graph, { x: float32([3], [1, -2, 3]), v: float32([3], [1, 2, -1]) });
    expect(valuesOf(found, 'x')).toEqual([6, -24, -18]);
  });

  it('differentiates products that hold zeros', async () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [3, 3]);
    const loss = graph.add('ReduceSum', [graph.add('ReduceProd', ['x'], { axes: [1] })], { keepdims: 0 });
    addGradients(graph, { loss, wrt: ['x'], outputs: true });
    const found = await run(graph, { x: float32([3, 3], [0, 2, 3, 0, 0, 5, 1, 2, 4]) });
    expect(valuesOf(found, 'x')).toEqual([6, 0, 0, 0, 0, 0, 8, 4, 2]);
  });

  it('differentiates in double precision', async () => {
    const graph = Graph.create();
    graph.addInput('x', 'float64', [2]);
    const loss = graph.add('ReduceSum', [graph.add('Exp', ['x'])], { keepdims: 0 });
    addGradients(graph, { loss, wrt: ['x'], outputs: true });
    const found = await run(graph, { x: tensor('float64', [2], Float64Array.of(0.1, 1)) });
    expect(valuesOf(found, 'x')).toEqual([Math.exp(0.1), Math.exp(1)].map((v) => expect.closeTo(v, 14)));
  });

  it('sends ties of a maximum to the first element in row-major order, as PyTorch does', async () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [1, 1, 2, 2]);
    const pooled = graph.add('MaxPool', ['x'], { kernel_shape: [2, 2] });
    const loss = graph.add('ReduceSum', [pooled], { keepdims: 0 });
    addGradients(graph, { loss, wrt: ['x'], outputs: true });
    for (const [values, expected] of [
      [
        [1, 1, 1, 1],
        [1, 0, 0, 0],
      ],
      [
        [0, 2, 2, 2],
        [0, 1, 0, 0],
      ],
      [
        [0, 1, 2, 2],
        [0, 0, 1, 0],
      ],
    ] as const) {
      const found = await run(graph, { x: float32([1, 1, 2, 2], values) });
      expect(valuesOf(found, 'x')).toEqual(expected);
    }
  });

  it('uses given input shapes in place of symbolic ones', () => {
    const count = (inputShapes?: Record<string, number[]>): number => {
      const graph = Graph.create();
      graph.addInput('x', 'float32', ['N', 'M']);
      const mean = graph.add('ReduceMean', [graph.add('Mul', ['x', 'x'])], { keepdims: 0 });
      addGradients(graph, { loss: mean, wrt: ['x'], ...(inputShapes ? { inputShapes } : {}) });
      return graph.nodes().filter(({ opType }) => opType === 'Shape').length;
    };
    expect(count()).toBeGreaterThan(0);
    expect(count({ x: [2, 3] })).toBe(0);
  });

  it('refuses a loss or a variable of the wrong kind', () => {
    const graph = small();
    graph.addInput('n', 'int64', [1]);
    const of = (loss: string, wrt: string[]): unknown => codeOf(() => addGradients(graph, { loss, wrt }));
    expect(of('nothing', ['x'])).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: "loss: the graph has no value 'nothing'",
    });
    expect(of('product', ['x'])).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('float32 [3]'),
    });
    expect(of('loss', ['y'])).toMatchObject({ code: 'INVALID_ARGUMENT', message: "wrt: the graph has no value 'y'" });
    expect(of('loss', ['n'])).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: "wrt: 'n' is int64, expected float32",
    });
  });

  it('names operator, node and value of what it has no rule for, if that is on the way', () => {
    const build = (): Graph => {
      const graph = Graph.create();
      graph.addInput('x', 'float32', [2, 2]);
      graph.add('Det', ['x'], {}, { name: 'the determinant', outputs: ['det'] });
      graph.add('ReduceSum', ['x'], { keepdims: 0 }, { outputs: ['sum'] });
      graph.add('Add', ['det', 'sum'], {}, { outputs: ['both'] });
      return graph;
    };
    expect(codeOf(() => addGradients(build(), { loss: 'both', wrt: ['x'] }))).toEqual({
      code: 'UNSUPPORTED',
      message:
        "can't differentiate through operator Det (node 'the determinant', value 'det'): there is no gradient rule for it",
      details: { operator: 'Det', node: 'the determinant', value: 'det' },
    });
    expect(() => addGradients(build(), { loss: 'sum', wrt: ['x'] })).not.toThrow();
    expect(() => addGradients(build(), { loss: 'both', wrt: ['det'] })).not.toThrow();
  });

  it('takes a loss of shape [1]', async () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [4]);
    const loss = graph.add('ReduceMean', [graph.add('Mul', ['x', 'x'])], { keepdims: 1 });
    addGradients(graph, { loss, wrt: ['x'], outputs: true });
    const found = await run(graph, { x: float32([4], [2, 4, 6, 8]) });
    expect(valuesOf(found, 'x')).toEqual([1, 2, 3, 4]);
  });

  it('says so where a rank stays unknown, and where half precision lies on the way', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [4]);
    const opaque = graph.add('Opaque', ['x'], {}, { domain: 'elsewhere', outputs: ['opaque'] });
    const sums = graph.add('ReduceSum', [opaque, graph.addInitializer('axis', int64([0]))], { keepdims: 0 });
    const loss = graph.add('ReduceSum', [graph.add('Cast', [sums], { to: 1 })], { keepdims: 0 });
    expect(codeOf(() => addGradients(graph, { loss, wrt: [opaque] }))).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringMatching(/^the rank of '.*' is unknown/),
    });
    const half = Graph.create();
    half.addInput('x', 'float32', [4]);
    const exp = half.add('Exp', [half.add('Cast', ['x'], { to: 10 })], {}, { name: 'low' });
    const sum = half.add('ReduceSum', [half.add('Cast', [exp], { to: 1 })], { keepdims: 0 });
    expect(codeOf(() => addGradients(half, { loss: sum, wrt: ['x'] }))).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('has half precision'),
    });
  });

  it('refuses a Dropout and a BatchNormalization in training mode', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [2, 3]);
    for (const name of ['s', 'b', 'm', 'v']) graph.addInitializer(name, float32([3], [1, 1, 1]));
    const norm = graph.addMany('BatchNormalization', ['x', 's', 'b', 'm', 'v'], { training_mode: 1 }, { outputs: 3 });
    const loss = graph.add('ReduceSum', [norm[0] as string], { keepdims: 0 });
    expect(codeOf(() => addGradients(graph, { loss, wrt: ['x'] }))).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('it is in training mode'),
    });
    const other = Graph.create();
    other.addInput('x', 'float32', [2]);
    const flag = other.addInitializer('flag', tensor('bool', [], Uint8Array.of(1)));
    const dropped = other.add('Dropout', ['x', '', flag]);
    const sum = other.add('ReduceSum', [dropped], { keepdims: 0 });
    expect(codeOf(() => addGradients(other, { loss: sum, wrt: ['x'] })).message).toContain(
      'Dropout is in training mode',
    );
  });
});

describe('quantised arithmetic', () => {
  it('is refused, not passed over as steps', () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    const step = graph.addInitializer('step', float32([], [0.5]));
    const answer = graph.add('DequantizeLinear', [graph.add('QuantizeLinear', ['x', step]), step]);
    const loss = graph.add('ReduceSum', [answer], { keepdims: 0 });
    expect(codeOf(() => addGradients(graph, { loss, wrt: ['x'] }))).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('scrim model bind --float32'),
    });
  });
});

describe('differentiability', () => {
  it('stops where integers are computed with', () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    const size = graph.add('Squeeze', [graph.add('Shape', ['x'])]);
    const one = graph.addInitializer('one', int64([1], []));
    graph.add('Range', [one, size, one], {}, { name: 'range' });
    expect(differentiability(graph).at(-1)).toEqual({ node: 'range', operator: 'Range', differentiable: 'stops' });
  });

  it('tells what gradients can flow through', () => {
    const graph = Graph.create({ opset: 13 });
    graph.addInput('x', 'float32', [4]);
    graph.add('Relu', ['x'], {}, { name: 'a' });
    graph.add('Shape', ['x'], {}, { name: 'b' });
    graph.add('Det', ['x'], {}, { name: 'c' });
    graph.add('GatherElements', ['x', graph.addInitializer('i', int64([0]))], {}, { name: 'd' });
    graph.add('Relu', ['x'], {}, { name: 'e', domain: 'elsewhere' });
    expect(differentiability(graph)).toEqual([
      { node: 'a', operator: 'Relu', differentiable: 'yes' },
      { node: 'b', operator: 'Shape', differentiable: 'stops' },
      { node: 'c', operator: 'Det', differentiable: 'no', reason: 'there is no gradient rule for it' },
      { node: 'd', operator: 'GatherElements', differentiable: 'yes' },
      { node: 'e', operator: 'elsewhere.Relu', differentiable: 'no', reason: 'there is no gradient rule for it' },
    ]);
    expect(graph.nodes().map((node) => supportsGradient(node))).toEqual([true, true, false, true, false]);
  });

  it('judges operators of older sets in the form in which they are differentiated, by their own names', () => {
    const graph = Graph.create({ opset: 11 });
    for (const entry of graph.model.opsetImport) entry.version = 9n;
    graph.addInput('x', 'float32', [1, 1, 2, 2]);
    const scales = graph.addInitializer('scales', float32([4], [1, 1, 2, 2]));
    graph.add('Upsample', ['x', scales], { mode: 'nearest' }, { name: 'a', outputs: ['larger'] });
    graph.add('Scatter', ['larger', graph.addInitializer('i', int64([0], [1, 1, 1, 1])), 'x'], {}, { name: 'b' });
    expect(differentiability(graph)).toEqual([
      { node: 'a', operator: 'Upsample', differentiable: 'yes' },
      { node: 'b', operator: 'Scatter', differentiable: 'yes' },
    ]);
    // Where one node can't be raised, nodes are judged as they are.
    const ones = graph.addInitializer('ones', float32([1], [1]));
    graph.add('BatchNormalization', ['x', ones, ones, ones, ones], { spatial: 0 });
    for (const entry of graph.model.opsetImport) entry.version = 8n;
    expect(differentiability(graph).map(({ differentiable }) => differentiable)).toEqual(['no', 'no', 'yes']);
  });
});

describe('a network with everything in it', () => {
  const network = (opset: number) => (): GradientCase => ({
    opset,
    inputs: {
      x: { shape: [2, 3, 8, 8], range: [-1, 1] },
      w: { shape: [4, 3, 3, 3], range: [-0.4, 0.4], keepShape: true },
      dense: { shape: [16, 5], range: [-0.4, 0.4], keepShape: true },
    },
    modes: ['fixed', 'batch', 'initializers'],
    step: 1 / 64,
    build: (graph) => {
      const ints = (values: number[]): string => graph.addInitializer('ints', int64(values));
      const conv = graph.add('Conv', ['x', 'w'], { pads: [1, 1, 1, 1], strides: [2, 2] });
      const vector = (value: number): string => graph.addInitializer('v', float32([4], [value, 1, value, 0.5]));
      const norm = graph.add('BatchNormalization', [conv, vector(1.2), vector(0.1), vector(-0.1), vector(0.9)]);
      const gate = graph.add('Mul', [norm, graph.add('Sigmoid', [norm])]);
      const average = graph.add('AveragePool', [gate], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
      const joined = graph.add('Concat', [average, graph.add('Softplus', [gate])], { axis: 1 });
      const deep = graph.add('SpaceToDepth', [joined], { blocksize: 2 });
      const up = graph.add(
        'Resize',
        [
          deep,
          opset < 13 ? graph.addInitializer('roi', float32([0], [])) : '',
          graph.addInitializer('scales', float32([4], [1, 1, 2, 2])),
        ],
        { mode: 'linear' },
      );
      const rows = graph.add('Reshape', [graph.add('Transpose', [up], { perm: [0, 2, 3, 1] }), ints([0, -1, 16])]);
      const logits = graph.add('MatMul', [graph.add('Tanh', [rows]), 'dense']);
      const centred = graph.add('Sub', [logits, graph.add('ReduceMean', [logits], { axes: [1], keepdims: 1 })]);
      const sliced = graph.add('Slice', [centred, ints([1]), ints([-1]), ints([1]), ints([3])]);
      const scaled = graph.add('Div', [sliced, graph.addInitializer('two', scalar(2))]);
      const leaky = graph.add('Elu', [scaled], { alpha: float(1) });
      return graph.add('LogSoftmax', [leaky], { axis: 2 });
    },
  });
  gradientTests({ 'operator set 11': network(11), 'operator set 17': network(17) });
});
