import { describe, expect, it } from 'vitest';
import { richModel } from '../../../../test/rich-model.js';
import { float32, int64 } from '../tensor.js';
import type { Attributes } from './attributes.js';
import { countFlops, nodeFlops } from './flops.js';
import { Graph } from './graph.js';
import { inferShapes } from './shape-inference.js';

interface Case {
  readonly op: string;
  /** Input shapes; the first is fed, the others are weights. */
  readonly inputs: readonly (readonly number[])[];
  readonly attributes?: Attributes;
  /** The count, spelled out. */
  readonly flops: number;
}

const CASES: readonly Case[] = [
  // outputs · 2 · taps + bias
  {
    op: 'Conv',
    inputs: [[1, 3, 8, 8], [16, 3, 3, 3], [16]],
    attributes: { pads: [1, 1, 1, 1] },
    flops: 16 * 64 * (2 * 27 + 1),
  },
  {
    op: 'Conv',
    inputs: [
      [2, 8, 8, 8],
      [8, 1, 3, 3],
    ],
    attributes: { group: 8, strides: [2, 2], pads: [1, 1, 1, 1] },
    flops: 2 * 8 * 16 * 2 * 9,
  },
  // inputs · 2 · taps
  {
    op: 'ConvTranspose',
    inputs: [
      [1, 4, 5, 5],
      [4, 6, 2, 2],
    ],
    attributes: { strides: [2, 2] },
    flops: 2 * 100 * 24,
  },
  {
    op: 'MatMul',
    inputs: [
      [7, 3, 4],
      [4, 5],
    ],
    flops: 2 * 7 * 3 * 4 * 5,
  },
  { op: 'Gemm', inputs: [[4, 3], [5, 4], [5]], attributes: { transA: 1, transB: 1 }, flops: 3 * 5 * (2 * 4 + 1) },
  {
    op: 'Einsum',
    inputs: [
      [2, 3, 4],
      [2, 4, 5],
    ],
    attributes: { equation: 'bij,bjk->bik' },
    flops: 2 * 2 * 3 * 4 * 5,
  },
  { op: 'MaxPool', inputs: [[1, 2, 8, 8]], attributes: { kernel_shape: [2, 2], strides: [2, 2] }, flops: 2 * 16 * 4 },
  { op: 'GlobalAveragePool', inputs: [[1, 2, 8, 8]], flops: 128 },
  { op: 'Relu', inputs: [[2, 5]], flops: 10 },
  {
    op: 'Add',
    inputs: [
      [2, 5],
      [3, 1, 1],
    ],
    flops: 30,
  },
  { op: 'Sum', inputs: [[2, 5], [5], [5]], flops: 20 },
  { op: 'ReduceMean', inputs: [[2, 5]], flops: 10 },
  { op: 'Transpose', inputs: [[2, 5]], flops: 0 },
  {
    op: 'LSTM',
    inputs: [
      [6, 2, 3],
      [1, 20, 3],
      [1, 20, 5],
    ],
    attributes: { hidden_size: 5 },
    flops: 2 * 6 * 2 * (60 + 100),
  },
];

function build({ op, inputs, attributes }: Omit<Case, 'flops'>): Graph {
  const graph = Graph.create();
  const names = inputs.map((shape, i) =>
    i === 0
      ? graph.addInput('x', 'float32', shape)
      : graph.addInitializer('w', float32(shape, new Float32Array(shape.reduce((a, b) => a * b, 1)))),
  );
  graph.add(op, names, attributes, { outputs: ['y'] });
  return graph;
}

describe('operations of a node', () => {
  for (const example of CASES) {
    it(`of ${example.op} [${example.inputs.join('] [')}] are ${example.flops}`, () => {
      const graph = build(example);
      expect(nodeFlops(graph.nodes()[0]!, inferShapes(graph))).toBe(example.flops);
    });
  }

  it('are unknown for symbolic sizes and unknown operators, and said to be', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['N', 4]);
    graph.add('Relu', ['x'], {}, { outputs: ['r'] });
    graph.add('Mystery', ['r'], {}, { domain: 'somewhere', outputs: ['m'] });
    graph.add('Reshape', ['r', graph.addInitializer('t', int64([-1]))], {}, { outputs: ['f'] });
    const open = countFlops(graph);
    expect(open.uncounted.map(({ opType }) => opType)).toEqual(['Relu', 'Mystery']);
    expect(open.total).toBe(0);
    const sized = countFlops(graph, inferShapes(graph, { inputShapes: { x: [3, 4] } }));
    expect(sized.uncounted.map(({ opType }) => opType)).toEqual(['Mystery']);
    expect(sized.total).toBe(12);
    expect(sized.of(graph.nodes()[0]!)).toBe(12);
  });

  it('of a whole model are the sum over its nodes', () => {
    const graph = new Graph(richModel(17, false));
    const count = countFlops(graph, inferShapes(graph, { inputShapes: { x: [3, 4] } }));
    // project 3·4·4, sparse_project 3·4·2, ReduceMax over 6, one comparison; If is not counted.
    expect(count.total).toBe(2 * 48 + 2 * 24 + 6 + 1);
    expect(count.uncounted.map(({ opType }) => opType)).toEqual(['If']);
  });
});
