import { describe, expect, it } from 'vitest';
import { richModel } from '../../../../test/rich-model.js';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { type ErrorDetails, ScrimError, type ScrimErrorCode } from '../errors.js';
import { float32, int64, type Tensor } from '../tensor.js';
import {
  float,
  floatAttribute,
  floats,
  floatsAttribute,
  intAttribute,
  intsAttribute,
  stringAttribute,
  tensorAttribute,
} from './attributes.js';
import { Graph } from './graph.js';
import { usedBy } from './node-scope.js';
import { readValueInfo, valueInfo } from './value-info.js';

function refusal(action: () => unknown): { code: ScrimErrorCode; message: string; details: ErrorDetails } {
  try {
    action();
  } catch (error) {
    if (error instanceof ScrimError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** y = relu(x·w + b), z = exp(x·w + b). */
function small(): Graph {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['N', 4]);
  graph.addInitializer('w', sampleTensor('float32', [4, 2]));
  graph.addInitializer('b', float32([2], [1, -1]));
  graph.add('MatMul', ['x', 'w'], {}, { name: 'product', outputs: ['p'] });
  graph.add('Add', ['p', 'b'], {}, { name: 'bias', outputs: ['s'] });
  graph.add('Relu', ['s'], {}, { name: 'relu', outputs: ['y'] });
  graph.add('Exp', ['s'], {}, { name: 'exp', outputs: ['z'] });
  graph.addOutput('y', 'float32', ['N', 2]);
  graph.addOutput('z', 'float32', ['N', 2]);
  return graph;
}

const x = sampleTensor('float32', [3, 4]);
const run = (graph: Graph, feeds: Record<string, Tensor> = { x }) => runOnnx(graph.encode(), feeds);

describe('Graph', () => {
  it('builds, encodes, decodes and prunes', () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', ['N', 4]);
    const w = graph.addInitializer('w', float32([4, 2], [1, 2, 3, 4, 5, 6, 7, 8]));
    const y = graph.add('Gemm', ['x', w], { alpha: float(0.5), transB: 0 }, { outputs: ['y'] });
    graph.add('Relu', [y]);
    graph.addInitializer('unused', int64([1]));
    graph.addOutput('y', 'float32', ['N', 2]);
    graph.prune();
    const again = Graph.decode(graph.encode());
    expect(again.nodes().map((node) => node.opType)).toEqual(['Gemm']);
    expect(again.initializerNames).toEqual(['w']);
    expect(again.initializer('w')?.shape).toEqual([4, 2]);
    expect(again.declaredType('x')).toEqual({ dtype: 'float32', shape: ['N', 4] });
    expect(again.producer('y')?.opType).toBe('Gemm');
    expect(again.opset).toBe(17);
  });

  it('answers who makes, who uses and what is constant', () => {
    const graph = small();
    expect(graph.producer('s')?.name).toBe('bias');
    expect(graph.producer('x')).toBeUndefined();
    expect(graph.consumers('s').map(({ name }) => name)).toEqual(['relu', 'exp']);
    expect(graph.consumers('y')).toEqual([]);
    expect([graph.isInput('x'), graph.isInput('w'), graph.isOutput('y'), graph.isOutput('s')]).toEqual([
      true,
      false,
      true,
      false,
    ]);
    expect([graph.has('x'), graph.has('w'), graph.has('s'), graph.has('nobody')]).toEqual([true, true, true, false]);
    graph.add('Constant', [], { value_ints: [1, 2] }, { outputs: ['k'] });
    graph.add('Constant', [], { value_float: float(0.5) }, { outputs: ['f'] });
    graph.add('Constant', [], { value: float32([1], [7]) }, { outputs: ['t'] });
    expect(graph.constant('k')).toEqual(int64([1, 2]));
    expect(graph.constant('f')).toEqual(float32([], [0.5]));
    expect(graph.constant('t')).toEqual(float32([1], [7]));
    expect(graph.constant('b')).toEqual(float32([2], [1, -1]));
    expect(graph.constant('s')).toBeUndefined();
  });

  it('counts what subgraphs capture as used by the node that holds them', () => {
    const graph = new Graph(richModel());
    expect(graph.consumers('q').map(({ name }) => name)).toEqual(['largest', 'choose']);
    expect(usedBy(graph.producer('y')!).sort()).toEqual(['c', 'm', 'q']);
    expect(graph.has('sparse')).toBe(true);
    expect(graph.isInput('sparse')).toBe(false);
    expect(graph.declaredType('sparse')).toEqual({ dtype: 'float32', shape: [4, 2] });
    // Names inside subgraphs stay free of new values.
    expect(graph.uniqueName('no_neg')).not.toBe('no_neg');
    expect(refusal(() => graph.addInput('yes_out', 'float32', [])).code).toBe('INVALID_ARGUMENT');
  });

  it('refuses edits that would break it, and stays as it was', () => {
    const graph = new Graph(richModel());
    const before = graph.encode();
    const codes = [
      () => graph.addInput('x', 'float32', []),
      () => graph.addInput('', 'float32', []),
      () => graph.add('Relu', ['nobody']),
      () => graph.add('Relu', ['x'], {}, { outputs: ['q'] }),
      () => graph.addOutput('nobody', 'float32', []),
      () => graph.addOutput('y', 'float32', []),
      () => graph.removeNode(graph.producer('q')!),
      () => graph.replaceUses('x', 'nobody'),
      () => graph.replaceUses('q', 'p'),
      () => graph.renameValue('q', 'free'),
      () => graph.renameValue('x', 'p'),
      () => graph.renameValue('nobody', 'free'),
      () => graph.setOutputs(['nobody']),
      () => graph.setInitializer('nobody', float32([], [1])),
      () => graph.initializerToInput('nobody'),
      () => Graph.create({ opset: 10 }),
      () => graph.add('Relu', ['x'], { alpha: 0.5 }),
    ].map((action) => refusal(action).code);
    expect(codes.filter((code) => code !== 'INVALID_ARGUMENT')).toEqual(['UNSUPPORTED', 'UNSUPPORTED']);
    expect(graph.encode()).toEqual(before);
  });

  it('may call a value like a node', () => {
    const graph = small();
    graph.add('Neg', ['z'], {}, { outputs: ['exp'] });
    graph.renameValue('y', 'relu');
    expect(graph.outputNames).toEqual(['relu', 'z']);
  });

  it('renames a value everywhere', async () => {
    const graph = small();
    const whole = await run(graph);
    graph.renameValue('x', 'INPUT__0');
    graph.renameValue('y', 'OUTPUT__0');
    graph.renameValue('w', 'weights');
    graph.renameValue('s', 'sum');
    const renamed = await run(graph, { INPUT__0: x });
    expect(renamed).toEqual({ OUTPUT__0: whole.y, z: whole.z });
    const rich = new Graph(richModel());
    const expected = await run(rich);
    rich.renameValue('sparse', 'thin');
    rich.renameValue('two', 'factor');
    expect(await run(rich)).toEqual(expected);
    // The old name is free for another value.
    graph.renameValue('OUTPUT__0', 'whole');
    graph.add('Neg', ['whole'], {}, { outputs: ['OUTPUT__0'] });
    expect(graph.outputNames).toEqual(['whole', 'z']);
  });

  it('replaces uses, apart from those that keep the old value', async () => {
    const graph = small();
    const { z } = await run(graph);
    const halved = graph.add('Mul', ['s', graph.addInitializer('half', float32([], [0.5]))], {}, { name: 'halve' });
    graph.replaceUses('s', halved, [graph.producer(halved)!, graph.producer('z')!]);
    expect(graph.producer('y')?.input).toEqual([halved]);
    const after = await run(graph);
    expect(after.z).toEqual(z);
    expect(graph.nodes().map(({ name }) => name)).toEqual(['product', 'bias', 'exp', 'halve', 'relu']);
  });

  it('cuts itself down to new inputs and outputs', async () => {
    const graph = small();
    const whole = await run(graph);
    const front = graph.clone();
    front.setOutputs(['s']);
    front.prune();
    expect(front.nodes().map(({ name }) => name)).toEqual(['product', 'bias']);
    const { s } = await run(front);
    const back = graph.clone();
    back.setInputs([{ name: 's', type: { dtype: 'float32', shape: ['N', 2] } }]);
    back.prune();
    expect(back.inputNames).toEqual(['s']);
    expect(back.initializerNames).toEqual([]);
    expect(await run(back, { s: s! })).toEqual(whole);
    expect(graph.nodes()).toHaveLength(4);
  });

  it('turns weights into inputs and replaces them', async () => {
    const graph = small();
    const bias = graph.initializer('b')!;
    const whole = await run(graph);
    graph.initializerToInput('b');
    expect(graph.inputNames).toEqual(['x', 'b']);
    expect(await run(graph, { x, b: bias })).toEqual(whole);
    graph.setInitializer('w', float32([4, 2], new Float32Array(8)));
    const { y } = await run(graph, { x, b: bias });
    expect(Array.from(y?.data as Float32Array)).toEqual([1, 0, 1, 0, 1, 0]);
  });

  it('prunes unused inputs only when asked', () => {
    const graph = small();
    graph.addInput('idle', 'float32', [1]);
    graph.prune();
    expect(graph.inputNames).toEqual(['x', 'idle']);
    graph.prune({ inputs: true });
    expect(graph.inputNames).toEqual(['x']);
  });

  it('removes a node nobody needs', () => {
    const graph = small();
    graph.setOutputs(['y']);
    graph.removeNode(graph.producer('z')!);
    expect(graph.has('z')).toBe(false);
    expect(graph.consumers('s').map(({ name }) => name)).toEqual(['relu']);
  });
});

describe('attributes', () => {
  it('are written from plain values and read with a default', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [1]);
    graph.add('Any', ['x'], {
      i: -3,
      is: [1, -2],
      f: float(2),
      fs: floats([0.5, 1]),
      s: 'ü',
      t: int64([7]),
      none: undefined,
    });
    const [node] = graph.nodes();
    expect(intAttribute(node!, 'i')).toBe(-3);
    expect(intAttribute(node!, 'nothing')).toBeUndefined();
    expect(intAttribute(node!, 'nothing', 9)).toBe(9);
    expect(intsAttribute(node!, 'is')).toEqual([1, -2]);
    expect(intsAttribute(node!, 'nothing', [4])).toEqual([4]);
    expect(floatAttribute(node!, 'f', 0)).toBe(2);
    expect(floatAttribute(node!, 'nothing', 1.5)).toBe(1.5);
    expect(floatsAttribute(node!, 'fs')).toEqual([0.5, 1]);
    expect(stringAttribute(node!, 's', '')).toBe('ü');
    expect(stringAttribute(node!, 'nothing', 'default')).toBe('default');
    expect(tensorAttribute(node!, 't')).toEqual(int64([7]));
    expect(node!.attribute.map(({ name }) => name)).not.toContain('none');
  });
});

describe('value types', () => {
  it('survive the way through the message', () => {
    for (const shape of [undefined, [], [1, 'N', '', 0]]) {
      const type = { dtype: 'int8' as const, shape };
      expect(readValueInfo(valueInfo('v', type))).toEqual(type);
    }
  });
});
