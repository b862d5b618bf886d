import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { richModel } from '../../../../test/rich-model.js';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { ScrimError } from '../errors.js';
import { float32, int64, scalar } from '../tensor.js';
import { type GraphProto, GraphProtoSchema, NodeProtoSchema } from './gen/onnx_pb.js';
import { Graph } from './graph.js';
import { hasShapeRule, inferShapes } from './shape-inference.js';
import { type Dimension, type ValueType, valueInfo } from './value-info.js';

function errorOf(action: () => unknown): ScrimError {
  try {
    action();
  } catch (error) {
    if (error instanceof ScrimError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

function subgraph(
  inputs: readonly [string, ValueType][],
  nodes: readonly (readonly [string, readonly string[], string])[],
  outputs: readonly string[],
): GraphProto {
  const declare = (name: string) =>
    valueInfo(name, { dtype: name === 'more' ? 'bool' : 'float32', shape: name === 'more' ? [] : undefined });
  return create(GraphProtoSchema, {
    name: 'body',
    input: inputs.map(([name, type]) => valueInfo(name, type)),
    node: nodes.map(([opType, input, output]) =>
      create(NodeProtoSchema, { opType, input: [...input], output: [output] }),
    ),
    output: outputs.map(declare),
  });
}

const shapeOf = (graph: Graph, name: string): readonly Dimension[] | undefined => inferShapes(graph).get(name)?.shape;

describe('inferShapes', () => {
  it('keeps symbols and computes sizes from them', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['N', 3, 'H', 'W']);
    const weights = (channels: number) =>
      graph.addInitializer('w', float32([8, channels, 3, 3], new Float32Array(channels * 72)));
    const halve = { strides: [2, 2], pads: [1, 1, 1, 1] };
    graph.add('Conv', ['x', weights(3)], halve, { outputs: ['c'] });
    graph.add('Conv', ['c', weights(8)], halve, { outputs: ['d'] });
    graph.add('Shape', ['d'], {}, { outputs: ['s'] });
    graph.add('Gather', ['s', graph.addInitializer('zero', int64([0]))], {}, { outputs: ['n'] });
    const rest = [graph.addInitializer('m1', int64([-1])), graph.addInitializer('two', int64([2]))];
    graph.add('Concat', ['n', ...rest], { axis: 0 }, { outputs: ['target'] });
    graph.add('Reshape', ['d', 'target'], {}, { outputs: ['r'] });
    const types = inferShapes(graph);
    expect(types.get('c')).toEqual({ dtype: 'float32', shape: ['N', 8, 'floor((H+1)/2)', 'floor((W+1)/2)'] });
    expect(types.get('d')?.shape).toEqual(['N', 8, 'floor((H+3)/4)', 'floor((W+3)/4)']);
    expect(types.get('target')).toEqual({ dtype: 'int64', shape: [3] });
    expect(types.get('r')?.shape).toEqual(['N', '4*floor((H+3)/4)*floor((W+3)/4)', 2]);
    const sized = inferShapes(graph, { inputShapes: { x: [2, 3, 17, 33] } });
    expect(sized.get('d')?.shape).toEqual([2, 8, 5, 9]);
    expect(sized.get('r')?.shape).toEqual([2, 4 * 5 * 9, 2]);
  });

  it('follows the shape arithmetic that exporters write', () => {
    // y = interpolate(x, scale 2) as PyTorch writes it, then x.view(x.size(0), x.size(1) // 2, -1).
    const graph = Graph.create({ opset: 13 });
    graph.addInput('x', 'float32', ['N', 6, 'H', 'W']);
    const constant = (...values: number[]): string => graph.addInitializer('k', int64(values));
    graph.add('Shape', ['x'], {}, { outputs: ['shape'] });
    const spatial = graph.add('Slice', ['shape', constant(2), constant(4), constant(0)]);
    const doubled = graph.add(
      'Cast',
      [
        graph.add('Floor', [
          graph.add('Mul', [graph.add('Cast', [spatial], { to: 1 }), graph.addInitializer('f', scalar(2))]),
        ]),
      ],
      { to: 7 },
    );
    const front = graph.add('Slice', ['shape', constant(0), constant(2), constant(0)]);
    const sizes = graph.add('Concat', [front, doubled], { axis: 0 });
    graph.add('Resize', ['x', '', '', sizes], { mode: 'nearest' }, { outputs: ['big'] });
    const at = (index: number): string => graph.add('Gather', ['shape', graph.addInitializer('i', int64([index], []))]);
    const half = graph.add('Div', [at(1), graph.addInitializer('two', int64([2], []))]);
    const axes = constant(0);
    const target = graph.add(
      'Concat',
      [graph.add('Unsqueeze', [at(0), axes]), graph.add('Unsqueeze', [half, axes]), constant(-1)],
      { axis: 0 },
    );
    graph.add('Reshape', ['x', target], {}, { outputs: ['view'] });
    graph.add(
      'Expand',
      [graph.addInitializer('one', float32([1], [1])), graph.add('Shape', ['big'])],
      {},
      { outputs: ['wide'] },
    );
    expect(shapeOf(graph, 'big')).toEqual(['N', 6, '2*H', '2*W']);
    expect(shapeOf(graph, 'wide')).toEqual(['N', 6, '2*H', '2*W']);
    expect(shapeOf(graph, 'view')).toEqual(['N', 3, '2*H*W']);
  });

  it('knows equal symbols to be equal and different ones not', () => {
    const graph = Graph.create();
    graph.addInput('a', 'float32', ['N', 'L']);
    graph.addInput('b', 'float32', ['N', 'L']);
    graph.addInput('c', 'float32', ['N', 'M']);
    graph.addInput('d', 'float32', ['?', 7]);
    graph.add('Add', ['a', 'b'], {}, { outputs: ['same'] });
    graph.add('Add', ['a', 'c'], {}, { outputs: ['other'] });
    graph.add('Add', ['a', 'd'], {}, { outputs: ['sized'] });
    graph.add('Concat', ['a', 'c'], { axis: 1 }, { outputs: ['joined'] });
    expect(shapeOf(graph, 'same')).toEqual(['N', 'L']);
    expect(shapeOf(graph, 'other')).toEqual(['N', '']);
    expect(shapeOf(graph, 'sized')).toEqual(['', 7]);
    expect(shapeOf(graph, 'joined')).toEqual(['N', 'L+M']);
  });

  it('binds symbols from the sizes it is given, everywhere', () => {
    const graph = Graph.create();
    graph.addInput('a', 'float32', ['N', 'L']);
    graph.addInput('b', 'float32', ['N', 4]);
    graph.add('Mystery', ['b'], {}, { outputs: ['m'], domain: 'somewhere' });
    graph.proto.valueInfo.push(valueInfo('m', { dtype: 'int32', shape: ['N', 'K', 'L'] }));
    const types = inferShapes(graph, { inputShapes: { a: [5, 9] } });
    expect(types.get('b')?.shape).toEqual([5, 4]);
    expect(types.get('m')).toEqual({ dtype: 'int32', shape: [5, 'K', 9] });
    const refusal = (inputShapes: Record<string, number[]>): ScrimError =>
      errorOf(() => inferShapes(graph, { inputShapes }));
    for (const inputShapes of [
      { x: [1] },
      { a: [1] },
      { b: [1, 5] },
      { a: [1, -1] },
      { a: [1.5, 1] },
      { a: [2, 3], b: [3, 4] },
    ]) {
      expect(refusal(inputShapes as never).code).toBe('INVALID_ARGUMENT');
    }
    expect(refusal({ a: [2, 3], b: [3, 4] }).message).toBe("inputShapes: 'b' [3, 4] has 3 where the model has N = 2");
  });

  it('keeps what the file declares for operators it does not know', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['N', 4]);
    graph.addMany('Mystery', ['x'], {}, { outputs: ['known', 'unknown'], domain: 'somewhere' });
    graph.proto.valueInfo.push(valueInfo('known', { dtype: 'float16', shape: ['N', 2] }));
    graph.add('Relu', ['known'], {}, { outputs: ['r'] });
    graph.add('Relu', ['unknown'], {}, { outputs: ['u'] });
    const types = inferShapes(graph);
    expect(types.get('r')).toEqual({ dtype: 'float16', shape: ['N', 2] });
    expect(types.has('u')).toBe(false);
    expect(hasShapeRule(graph.nodes()[0]!)).toBe(false);
    expect(hasShapeRule(graph.nodes()[1]!)).toBe(true);
  });

  it('trusts its rules over a declaration that contradicts them, and fills gaps from one that does not', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['N', 4]);
    graph.addInput('open', 'float32', ['', 4]);
    graph.add('Relu', ['x'], {}, { outputs: ['r'] });
    graph.add('Relu', ['open'], {}, { outputs: ['o'] });
    graph.proto.valueInfo.push(valueInfo('r', { dtype: 'float32', shape: ['N', 5] }));
    graph.proto.valueInfo.push(valueInfo('o', { dtype: 'float32', shape: ['B', 4] }));
    expect(shapeOf(graph, 'r')).toEqual(['N', 4]);
    expect(shapeOf(graph, 'o')).toEqual(['B', 4]);
  });

  it('names the node whose inputs contradict each other', () => {
    const refusal = (build: (graph: Graph) => void): string => {
      const graph = Graph.create();
      graph.addInput('x', 'float32', [1, 3, 8, 8]);
      graph.addInput('y', 'float32', [1, 4, 8, 9]);
      build(graph);
      const error = errorOf(() => inferShapes(graph));
      expect(error.code).toBe('INVALID_MODEL');
      return error.message;
    };
    const weights = (graph: Graph): string => graph.addInitializer('w', float32([2, 5, 3, 3], new Float32Array(90)));
    expect(refusal((graph) => graph.add('Concat', ['x', 'y'], { axis: 1 }, { name: 'join' }))).toBe(
      "node 'join' (Concat): inputs [1, 3, 8, 8], [1, 4, 8, 9] differ off axis 1",
    );
    expect(refusal((graph) => graph.add('Conv', ['x', weights(graph)], {}, { name: 'conv1' }))).toBe(
      "node 'conv1' (Conv): input [1, 3, 8, 8] has 3 channels, weights [2, 5, 3, 3] with 1 groups expect 5",
    );
    expect(refusal((graph) => graph.add('Add', ['x', 'y'], {}, { name: 'sum' }))).toContain("node 'sum' (Add)");
    expect(refusal((graph) => graph.add('MatMul', ['x', 'y'], {}, { name: 'product' }))).toContain(
      "node 'product' (MatMul)",
    );
    const target = (graph: Graph): string => graph.addInitializer('t', int64([5, -1]));
    expect(refusal((graph) => graph.add('Reshape', ['x', target(graph)], {}, { name: 'view' }))).toContain("'view'");
    // Without a name, by what it makes.
    expect(
      refusal((graph) => {
        graph.add('Add', ['x', 'y'], {}, { outputs: ['z'] });
        graph.nodes()[0]!.name = '';
      }),
    ).toContain("node making 'z' (Add)");
  });

  it('infers functions with the attributes they are called with', async () => {
    const graph = new Graph(richModel());
    const types = inferShapes(graph);
    expect(types.get('s')).toEqual({ dtype: 'float32', shape: ['N', 4] });
    expect(types.get('sparse')).toEqual({ dtype: 'float32', shape: [4, 2] });
    const { y } = await runOnnx(graph.encode(), { x: sampleTensor('float32', [3, 4]) });
    expect(y?.shape).toEqual(inferShapes(graph, { inputShapes: { x: [3, 4] } }).get('y')?.shape);
  });

  it('infers branches: what both agree on, or the one that a constant condition takes', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['N', 4]);
    graph.addInput('c', 'bool', []);
    const branches = {
      then_branch: subgraph([], [['Transpose', ['x'], 't']], ['t']),
      else_branch: subgraph([], [['Relu', ['x'], 'e']], ['e']),
    };
    graph.add('If', ['c'], branches, { outputs: ['either'] });
    graph.add('If', [graph.addInitializer('yes', { dtype: 'bool', shape: [], data: Uint8Array.of(1) })], branches, {
      outputs: ['first'],
    });
    expect(shapeOf(graph, 'either')).toEqual(['', '']);
    expect(shapeOf(graph, 'first')).toEqual([4, 'N']);
  });

  it('infers loops: carried values that keep their shape, scanned ones with the length of the scan', async () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['T', 3]);
    graph.addInput('h', 'float32', ['B', 3]);
    const row: ValueType = { dtype: 'float32', shape: undefined };
    graph.addMany(
      'Scan',
      ['h', 'x'],
      {
        num_scan_inputs: 1,
        body: subgraph(
          [
            ['hidden', row],
            ['step', row],
          ],
          [
            ['Add', ['hidden', 'step'], 'next'],
            ['Neg', ['next'], 'row'],
          ],
          ['next', 'row'],
        ),
      },
      { outputs: ['last', 'all'] },
    );
    const loop = (carried: string): GraphProto =>
      subgraph(
        [
          ['i', { dtype: 'int64', shape: [] }],
          ['go', { dtype: 'bool', shape: [] }],
          ['state', row],
        ],
        [
          ['Identity', ['go'], 'more'],
          [carried, ['state'], 'grown'],
          ['Exp', ['grown'], 'seen'],
        ],
        ['more', 'grown', 'seen'],
      );
    const trips = graph.addInitializer('trips', int64([3], []));
    graph.addMany('Loop', [trips, '', 'h'], { body: loop('Relu') }, { outputs: ['kept', 'kept_each'] });
    graph.addMany('Loop', [trips, '', 'h'], { body: loop('Transpose') }, { outputs: ['turned', 'turned_each'] });
    for (const name of ['last', 'all', 'kept', 'kept_each']) graph.addOutput(name, 'float32', undefined);
    const types = inferShapes(graph);
    expect(types.get('last')?.shape).toEqual(['B', 3]);
    expect(types.get('all')?.shape).toEqual(['T', 'B', 3]);
    expect(types.get('kept')?.shape).toEqual(['B', 3]);
    expect(types.get('kept_each')?.shape).toEqual(['', 'B', 3]);
    expect(types.get('turned')?.shape).toBeUndefined();
    const feeds = { x: sampleTensor('float32', [5, 3]), h: sampleTensor('float32', [2, 3]) };
    const results = await runOnnx(graph.encode(), feeds);
    const sized = inferShapes(graph, { inputShapes: { x: [5, 3], h: [2, 3] } });
    for (const name of ['last', 'all', 'kept']) expect(sized.get(name)?.shape).toEqual(results[name]?.shape);
  });
});
