import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { runOnnx } from '../../../../test/run-onnx.js';
import { float32, int64, scalar, tensor } from '../tensor.js';
import { bindInputs } from './bind-inputs.js';
import { AttributeProto_AttributeType, AttributeProtoSchema, type GraphProto } from './gen/onnx_pb.js';
import { Graph } from './graph.js';

/** A branch: y = (x + shift) · 2, with names that the other branch has too. */
function branch(
  shift: number,
  prefix: string,
  nested?: { readonly condition: string; readonly yes: GraphProto; readonly no: GraphProto },
): GraphProto {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['N', 4]);
  if (nested) graph.addInput(nested.condition, 'bool', []);
  const moved = graph.add(
    'Add',
    ['x', graph.addInitializer(`${prefix}shift`, scalar(shift))],
    {},
    { outputs: [`${prefix}moved`] },
  );
  const two = graph.addInitializer(`${prefix}two`, scalar(2));
  const out = graph.add('Mul', [moved, two], {}, { outputs: [`${prefix}out`] });
  graph.addOutput(out, 'float32', ['N', 4]);
  if (nested) {
    const chosen = addIf(graph, nested.condition, nested.yes, nested.no);
    graph.add('Add', [chosen, out], {}, { outputs: ['whole'] });
    graph.setOutputs(['whole']);
  }
  graph.proto.input = [];
  return graph.proto;
}

function addIf(graph: Graph, condition: string, yes: GraphProto, no: GraphProto): string {
  const made = graph.add('If', [condition]);
  const node = graph.producer(made);
  for (const [name, g] of [
    ['then_branch', yes],
    ['else_branch', no],
  ] as const) {
    node?.attribute.push(create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.GRAPH, g }));
  }
  return made;
}

/** Picks a network by a rate, and inside it another by the size of the batch. */
function twoRates(): Graph {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['N', 4]);
  graph.addInput('rate', 'int64', []);
  const rate = graph.addInitializer('sixteen', tensor('int64', [], BigInt64Array.of(16n)));
  graph.add('Equal', ['rate', rate], {}, { outputs: ['fast'] });
  const batch = graph.add('Gather', [graph.add('Shape', ['x']), graph.addInitializer('zero', int64([0], []))]);
  graph.add('Equal', [batch, graph.addInitializer('one', int64([1], []))], {}, { outputs: ['single'] });
  const inner = { condition: 'single', yes: branch(30, 'inner_'), no: branch(40, 'inner_') };
  addIf(graph, 'fast', branch(1, '', inner), branch(2, ''));
  const chosen = graph.nodes().find(({ opType }) => opType === 'If')?.output[0] as string;
  graph.addOutput(graph.add('Neg', [chosen]), 'float32', undefined);
  return new Graph(graph.model);
}

const X = float32([1, 4], [1, 2, 3, 4]);
const RATE = tensor('int64', [], BigInt64Array.of(16n));

describe('bindInputs', () => {
  it('takes the branch that follows from a value, and leaves what does not follow', async () => {
    const graph = twoRates();
    const bound = bindInputs(graph, { values: { rate: RATE } });
    expect(bound.inputNames).toEqual(['x']);
    expect(bound.nodes().filter(({ opType }) => opType === 'If')).toHaveLength(1);
    const [name = ''] = graph.outputNames;
    const expected = await runOnnx(graph.encode(), { x: X, rate: RATE });
    const found = await runOnnx(bound.encode(), { x: X });
    expect(found[name]?.data).toEqual(expected[name]?.data);
  });

  it('takes branches inside branches once sizes are given', async () => {
    const graph = twoRates();
    for (const size of [1, 2]) {
      const bound = bindInputs(graph, { values: { rate: RATE }, shapes: { x: [size, 4] } });
      expect(bound.nodes().map(({ opType }) => opType)).not.toContain('If');
      expect(bound.nodes().map(({ opType }) => opType)).not.toContain('Shape');
      const [name = ''] = graph.outputNames;
      expect(bound.declaredType(name)?.shape).toEqual([size, 4]);
      const x = float32(
        [size, 4],
        Float32Array.from({ length: 4 * size }, (_, i) => i - 3),
      );
      const expected = await runOnnx(graph.encode(), { x, rate: RATE });
      const found = await runOnnx(bound.encode(), { x });
      expect(found[name]?.data).toEqual(expected[name]?.data);
    }
  });

  it('keeps a symbolic size that is named, and follows pads as PyTorch writes them', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', ['a', 'b']);
    graph.addInput('right', 'int64', [1]);
    const pads = graph.add('Concat', ['right', graph.addInitializer('zeros', int64([0, 0, 0]))], { axis: 0 });
    const pairs = graph.add('Reshape', [pads, graph.addInitializer('pairs', int64([-1, 2]))]);
    const turned = graph.add('Slice', [
      pairs,
      graph.addInitializer('from', int64([-1])),
      graph.addInitializer('to', int64([-9223372036854775807n])),
      graph.addInitializer('axis', int64([0])),
      graph.addInitializer('step', int64([-1])),
    ]);
    const flat = graph.add('Reshape', [graph.add('Transpose', [turned]), graph.addInitializer('all', int64([-1]))]);
    graph.addOutput(graph.add('Pad', ['x', flat]), 'float32', ['p', 'q']);
    const bound = bindInputs(graph, { values: { right: int64([2]) }, shapes: { x: ['N', 3] } });
    const [name = ''] = bound.outputNames;
    expect(bound.nodes().map(({ opType }) => opType)).toEqual(['Pad']);
    expect(bound.declaredType('x')?.shape).toEqual(['N', 3]);
    const found = await runOnnx(bound.encode(), { x: float32([1, 3], [1, 2, 3]) });
    const expected = await runOnnx(graph.encode(), { x: float32([1, 3], [1, 2, 3]), right: int64([2]) });
    expect(found[name]).toEqual(expected[name]);
    expect(bound.declaredType(name)?.shape).toEqual(['N', found[name]?.shape[1]]);
  });

  it('refuses what contradicts the model', () => {
    const graph = twoRates();
    expect(() => bindInputs(graph, { values: { y: X } })).toThrow(/'y' is no input; inputs are x, rate/);
    expect(() => bindInputs(graph, { values: { rate: scalar(16) } })).toThrow(
      /rate' is int64 \[\], the value given is float32/,
    );
    expect(() => bindInputs(graph, { shapes: { x: [1, 5] } })).toThrow(/x' is \[N, 4\], the shape given is \[1, 5\]/);
  });
});
