/** Cuts that only sizes go past. */
import { describe, expect, it } from 'vitest';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { Graph } from '../onnx/index.js';
import { float32, int64, type Tensor } from '../tensor.js';
import { listCuts } from './list-cuts.js';
import { splitAt } from './split-at.js';

/**
 * x [N, 4, T] -> 'first' -> 'second' -> 'third' -> y. N and, where asked for, a size that `more` computes are read off x once
 * and used by the tail: as the target of a Reshape, in int32, and as a scalar that a mask is made of.
 */
function exported(more?: (graph: Graph, ints: (...values: number[]) => string) => string): Graph {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['N', 4, 'T']);
  const ints = (...values: number[]): string => graph.addInitializer('ints', int64(values));
  const shape = graph.add('Shape', ['x']);
  const batch = graph.add('Gather', [shape, ints(0)], { axis: 0 });
  const scalar = graph.add('Squeeze', [batch]);
  const rows = graph.add('Mul', [batch, ints(2)]);
  const extra = more?.(graph, ints);
  graph.add('Tanh', ['x'], {}, { outputs: ['first'] });
  graph.add('ReduceMean', ['first'], { axes: [2], keepdims: 0 }, { outputs: ['second'] });
  const halves = graph.add('Reshape', ['second', graph.add('Concat', [rows, ints(2)], { axis: 0 })]);
  const range = graph.add('Range', [
    graph.addInitializer('zero', int64([0], [])),
    scalar,
    graph.addInitializer('one', int64([1], [])),
  ]);
  const order = graph.add('Cast', [graph.add('Cast', [range], { to: 6 })], { to: 1 });
  const back = graph.add('Reshape', [halves, graph.add('Concat', [batch, ints(4)], { axis: 0 })]);
  graph.add('Mul', [back, graph.add('Unsqueeze', [order, ints(1)])], {}, { outputs: ['third'] });
  const last = extra === undefined ? 'third' : graph.add('Div', ['third', graph.add('Cast', [extra], { to: 1 })]);
  graph.addOutput(graph.add('Neg', [last]), 'float32', undefined);
  return graph;
}

const names = (graph: Graph, maxTensors = 1): string[] => listCuts(graph, { maxTensors }).map(({ name }) => name);

/** The answers of the model and of its halves. */
async function bothWays(graph: Graph, cut: string, x: Tensor): Promise<[Tensor, Tensor]> {
  const [output] = graph.outputNames as [string];
  const { head, tail } = splitAt(graph, [cut]);
  expect(tail.inputNames).toEqual([cut]);
  const between = await runOnnx(head.encode(), { x });
  expect(Object.keys(between)).toEqual([cut]);
  const whole = await runOnnx(graph.encode(), { x });
  return [whole[output] as Tensor, (await runOnnx(tail.encode(), between))[output] as Tensor];
}

describe('sizes past a cut', () => {
  it('are read off what crosses', async () => {
    const graph = exported();
    expect(names(graph)).toEqual(expect.arrayContaining(['first', 'second', 'third']));
    for (const cut of names(graph)) {
      for (const batch of [1, 3]) {
        const [whole, halves] = await bothWays(graph, cut, sampleTensor('float32', [batch, 4, 5]));
        expect(halves).toEqual(whole);
      }
    }
  });

  it('leave no node of the model on the wrong side', () => {
    const { head, tail } = splitAt(exported(), ['second']);
    expect(head.nodes().map(({ opType }) => opType)).toEqual(['Tanh', 'ReduceMean']);
    expect(tail.nodes().some(({ opType }) => opType === 'Tanh')).toBe(false);
  });

  it('cross as they are where they are named', async () => {
    const graph = exported();
    const [size = ''] = graph.nodes().find(({ opType }) => opType === 'Gather')?.output ?? [];
    const { head, tail } = splitAt(graph, ['first', size]);
    expect(tail.inputNames).toEqual(['first', size]);
    const x = sampleTensor('float32', [3, 4, 5]);
    const [output] = graph.outputNames as [string];
    const halves = await runOnnx(tail.encode(), await runOnnx(head.encode(), { x }));
    expect(halves[output]).toEqual((await runOnnx(graph.encode(), { x }))[output]);
  });

  it('make no cut where what crosses does not have them', async () => {
    const graph = exported((g, ints) => g.add('Gather', [g.add('Shape', ['x']), ints(2)], { axis: 0 }));
    // T ends with 'first'.
    expect(names(graph)).toContain('first');
    expect(names(graph)).not.toContain('second');
    expect(() => splitAt(graph, ['second'])).toThrow("'second' is no cut: the path 'x' -> Shape");
    const [whole, halves] = await bothWays(graph, 'first', sampleTensor('float32', [2, 4, 5]));
    expect(halves).toEqual(whole);
    // It still may cross as the integers it is.
    expect(names(graph, 2).some((name) => name.startsWith('Gather_out') || name.includes(' + '))).toBe(true);
  });

  it('are numbers where the model says so, and do not rest on sizes that are only planned with', () => {
    const fixed = Graph.create({ opset: 17 });
    fixed.addInput('x', 'float32', [2, 4, 'T']);
    const shape = fixed.add('Shape', ['x'], { end: 2 });
    fixed.add('ReduceMax', ['x'], { axes: [2], keepdims: 0 }, { outputs: ['cut'] });
    const scaled = fixed.add('Mul', ['cut', fixed.addInitializer('half', float32([], [0.5]))]);
    fixed.addOutput(fixed.add('Expand', [scaled, shape]), 'float32', undefined);
    expect(names(fixed)).toContain('cut');
    const open = exported((g, ints) => g.add('Gather', [g.add('Shape', ['x']), ints(2)], { axis: 0 }));
    expect(listCuts(open, { inputShapes: { x: [2, 4, 5] } }).map(({ name }) => name)).toEqual(names(open));
  });
});
