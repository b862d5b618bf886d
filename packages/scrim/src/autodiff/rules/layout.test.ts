/** Rules that move, pick and reduce elements, against central differences. */
import { describe } from 'vitest';
import { type GradientCase, gradientTests, type Random } from '../../../../../test/vectors/autodiff/gradient-check.js';
import type { Attributes } from '../../onnx/attributes.js';
import type { Graph } from '../../onnx/graph.js';
import { int64 } from '../../tensor.js';

const ints = (graph: Graph, values: readonly number[], name = 'ints'): string =>
  graph.addInitializer(name, int64(values));

/** A case over one input x of the given shape. */
const over =
  (
    shape: (random: Random) => number[],
    build: (graph: Graph, random: Random, shape: number[]) => string,
    opset = 17,
    more: Partial<GradientCase> = {},
  ) =>
  (random: Random): GradientCase => {
    const sizes = shape(random);
    return { opset, inputs: { x: { shape: sizes } }, build: (graph, inner) => build(graph, inner, sizes), ...more };
  };

const cube = (random: Random): number[] => [random.int(2, 3), random.int(2, 4), random.int(2, 4)];
const image = (random: Random): number[] => [random.int(1, 2), 4, random.int(2, 3), random.int(2, 3)];

/** An int64 vector that only the run knows: the given numbers times a 1 that comes from the shape of x. */
const atRun = (graph: Graph, values: readonly number[], name: string): string => {
  const size = graph.add('Gather', [graph.add('Shape', ['x']), ints(graph, [0], `${name}_axis`)], { axis: 0 });
  const one = graph.add('Div', [size, size]);
  return graph.add('Mul', [one, ints(graph, values, name)]);
};

describe('layout', () => {
  gradientTests({
    Reshape: over(cube, (graph, _, [a = 1, b = 1, c = 1]) => graph.add('Reshape', ['x', ints(graph, [a * b, c])])),
    'Reshape to −1': over(cube, (graph, _, [, , c = 1]) => graph.add('Reshape', ['x', ints(graph, [c, -1])])),
    Flatten: over(cube, (graph, random) => graph.add('Flatten', ['x'], { axis: random.int(0, 3) })),
    Squeeze: over(
      (random) => [1, random.int(2, 3), 1],
      (graph) => graph.add('Squeeze', ['x', ints(graph, [0, 2])]),
    ),
    'Squeeze, operator set 11': over(
      (random) => [random.int(2, 3), 1],
      (graph) => graph.add('Squeeze', ['x'], { axes: [1] }),
      11,
    ),
    Unsqueeze: over(cube, (graph) => graph.add('Unsqueeze', ['x', ints(graph, [0, 2])])),
    'Unsqueeze, operator set 11': over(cube, (graph) => graph.add('Unsqueeze', ['x'], { axes: [1] }), 11),
    Transpose: over(cube, (graph, random) => graph.add('Transpose', ['x'], { perm: random.permutation(3) })),
    'Transpose without perm': over(cube, (graph) => graph.add('Transpose', ['x'])),
    Expand: over(
      (random) => [random.int(1, 2), 1, random.pick([1, 3])],
      (graph, random) => graph.add('Expand', ['x', ints(graph, [2, 1, random.int(1, 3), 3])]),
      17,
      { modes: ['fixed', 'batch'] },
    ),
    'Expand of ones': over(
      () => [1, 3],
      (graph) => graph.add('Expand', ['x', ints(graph, [2, 4, 1])]),
    ),
    Tile: over(cube, (graph, random) =>
      graph.add('Tile', ['x', ints(graph, [random.int(1, 2), random.int(1, 3), random.int(1, 2)])]),
    ),
    'Concat of three': (random) => {
      const [a, b] = [random.int(1, 3), random.int(1, 3)];
      return {
        inputs: { p: { shape: [2, a, 2] }, q: { shape: [2, b, 2] }, r: { shape: [2, 1, 2] } },
        build: (graph, inner) => graph.add('Concat', ['p', 'q', 'r'], { axis: inner.pick([1, -2]) }),
      };
    },
    'Concat, operator set 11': () => ({
      opset: 11,
      inputs: { p: { shape: [2, 3] }, q: { shape: [1, 3] } },
      build: (graph) => graph.add('Concat', ['p', 'q'], { axis: 0 }),
    }),
    'Concat by one of its inputs': () => ({
      inputs: { p: { shape: [2, 3] }, q: { shape: [2, 1] }, r: { shape: [2, 2] } },
      wrt: ['q'],
      build: (graph) => graph.add('Concat', ['p', 'q', 'r'], { axis: 1 }),
    }),
    'Concat of a value with itself': over(cube, (graph) => graph.add('Concat', ['x', 'x'], { axis: 1 })),
    Split: over(
      () => [2, 6],
      (graph) => {
        const [a, b] = graph.addMany('Split', ['x', ints(graph, [2, 4])], { axis: 1 }, { outputs: 2 }) as [
          string,
          string,
        ];
        const second = graph.add('ReduceSum', [graph.add('Mul', [b, b]), ints(graph, [1], 'axes')]);
        return graph.add('Mul', [graph.add('Mul', [a, a]), second]);
      },
    ),
    'Split with an unused part, operator set 11': over(
      () => [5, 2],
      (graph) => {
        const parts = graph.addMany('Split', ['x'], { axis: 0, split: [1, 3, 1] }, { outputs: 3 });
        return graph.add('Mul', [parts[1] as string, parts[1] as string]);
      },
      11,
    ),
    'Split by number, operator set 18': over(
      () => [2, 6],
      (graph) => graph.addMany('Split', ['x'], { axis: -1, num_outputs: 3 }, { outputs: 3 })[2] as string,
      18,
    ),
    'DepthToSpace DCR': over(image, (graph) => graph.add('DepthToSpace', ['x'], { blocksize: 2 })),
    'DepthToSpace CRD': over(image, (graph) => graph.add('DepthToSpace', ['x'], { blocksize: 2, mode: 'CRD' })),
    SpaceToDepth: over(
      (random) => [1, random.int(1, 2), 4, 2],
      (graph) => graph.add('SpaceToDepth', ['x'], { blocksize: 2 }),
    ),
  });
});

describe('slicing', () => {
  const slice = (
    starts: number[],
    ends: number[],
    axes: number[],
    steps: number[],
    opset = 17,
  ): ((random: Random) => GradientCase) =>
    over(
      () => [5, 7],
      (graph) =>
        graph.add('Slice', [
          'x',
          ints(graph, starts, 'starts'),
          ints(graph, ends, 'ends'),
          ints(graph, axes, 'axes'),
          ints(graph, steps, 'steps'),
        ]),
      opset,
    );
  const pad =
    (pads: number[], mode: string, opset = 17) =>
    (random: Random): GradientCase =>
      over(
        () => [3, 4],
        (graph) => graph.add('Pad', ['x', ints(graph, pads)], { mode }),
        opset,
      )(random);
  gradientTests(
    {
      'a middle part': slice([1, 2], [4, 5], [0, 1], [1, 1]),
      'a middle part, operator set 11': slice([1], [4], [1], [1], 11),
      'bounds from the end': slice([-4], [-1], [1], [1]),
      'bounds beyond the axis': slice([-100, 3], [2, 1000], [0, 1], [1, 1]),
      'every second': slice([1, 0], [5, 7], [0, 1], [2, 2]),
      'every third from the end': slice([-1], [-100], [1], [-3]),
      'all reversed': slice([-1, -1], [Number.MIN_SAFE_INTEGER, -7], [0, 1], [-1, -2]),
      'bounds known at run time': over(
        () => [5, 7],
        (graph) =>
          graph.add('Slice', [
            'x',
            atRun(graph, [-2, 1], 'starts'),
            atRun(graph, [-5, 6], 'ends'),
            ints(graph, [0, -1], 'axes'),
            ints(graph, [-1, 2], 'steps'),
          ]),
      ),
      'without axes and steps': over(
        () => [5, 4, 2],
        (graph) => graph.add('Slice', ['x', ints(graph, [1, 0], 'starts'), ints(graph, [3, 2], 'ends')]),
      ),
      'Pad with zeros': pad([1, 0, 2, 3], 'constant'),
      'Pad with zeros, operator set 11': pad([0, 2, 1, 0], 'constant', 11),
      'Pad that crops': pad([-1, 2, 0, -2], 'constant'),
      'Pad by reflection': pad([2, 1, 0, 3], 'reflect'),
      'Pad by reflection, by sizes that follow from shapes': over(
        () => [5, 4],
        (graph) => graph.add('Pad', ['x', atRun(graph, [1, 0, 2, 3], 'pads')], { mode: 'reflect' }),
        17,
        { modes: ['fixed', 'cuda', 'webgpu'] },
      ),
      'Pad with the edge': pad([1, 2, 2, 0], 'edge'),
      'Pad by wrapping': pad([1, 2, 2, 0], 'wrap', 19),
      'Pad of listed axes': over(
        () => [2, 3, 4],
        (graph) => graph.add('Pad', ['x', ints(graph, [1, 2]), '', ints(graph, [-1], 'axes')]),
        18,
      ),
      'Pad known at run time': over(
        () => [3, 4],
        (graph) => graph.add('Pad', ['x', atRun(graph, [1, 0, 2, -1], 'pads')]),
      ),
      'Pad by its value': () => ({
        inputs: { x: { shape: [2, 3] }, value: { shape: [] } },
        build: (graph) => graph.add('Pad', ['x', ints(graph, [1, 0, 0, 2]), 'value']),
      }),
    },
    1,
  );
});

describe('gathering', () => {
  const gather = (indices: number[], shape: number[], axis: number, opset = 17): ((random: Random) => GradientCase) =>
    over(
      () => [3, 4, 2],
      (graph) => graph.add('Gather', ['x', graph.addInitializer('indices', int64(indices, shape))], { axis }),
      opset,
    );
  const gatherAtRun = (opset: number): ((random: Random) => GradientCase) =>
    over(
      (random) => [random.int(2, 4), 3, 2],
      (graph, random) => {
        const picked = atRun(
          graph,
          Array.from({ length: 4 }, () => random.int(-3, 2)),
          'picked',
        );
        return graph.add('Gather', ['x', graph.add('Reshape', [picked, ints(graph, [2, 2], 'square')])], { axis: 1 });
      },
      opset,
    );
  const elements = (graph: Graph): string => graph.addInitializer('elements', int64([0, 2, 2, 1, 0, 0], [2, 3]));
  gradientTests({
    'one position': gather([1], [], 1),
    'one from the end': gather([-1], [], 2),
    'a run': gather([1, 2, 3], [3], 1),
    'a permutation': gather([2, 0, 1], [3], 0),
    'the same ones twice': gather([0, 3, 3, 0, 1, 3], [2, 3], 1),
    'one of them many times': gather(
      Array.from({ length: 12 }, (_, i) => (i === 5 ? 1 : 0)),
      [12],
      2,
    ),
    'the same ones twice, operator set 11': gather([0, 3, 3], [3], 1, 11),
    'one of them many times, operator set 11': gather(
      Array.from({ length: 12 }, (_, i) => (i === 5 ? 1 : 0)),
      [12],
      2,
      11,
    ),
    'indices known at run time': gatherAtRun(17),
    'indices known at run time, operator set 13': gatherAtRun(13),
    GatherElements: over(
      () => [2, 3],
      (graph, random) => graph.add('GatherElements', ['x', elements(graph)], { axis: random.pick([1, -1]) }),
    ),
    GatherND: over(
      () => [3, 2, 2],
      (graph) => graph.add('GatherND', ['x', graph.addInitializer('nd', int64([0, 1, 2, 0, 0, 1], [3, 2]))]),
    ),
    ScatterElements: () => ({
      inputs: { x: { shape: [3, 3] }, updates: { shape: [2, 3] } },
      build: (graph) =>
        graph.add('ScatterElements', ['x', graph.addInitializer('at', int64([0, 2, 1, 2, 1, 0], [2, 3])), 'updates'], {
          axis: 0,
        }),
    }),
    'ScatterND that adds': () => ({
      inputs: { x: { shape: [3, 2] }, updates: { shape: [4, 2] } },
      build: (graph) =>
        graph.add('ScatterND', ['x', graph.addInitializer('at', int64([0, 2, 0, 1], [4, 1])), 'updates'], {
          reduction: 'add',
        }),
    }),
    TopK: () => ({
      inputs: { x: { shape: [2, 5], distinct: true } },
      build: (graph) => graph.addMany('TopK', ['x', ints(graph, [2])], { axis: 1 }, { outputs: 2 })[0] as string,
    }),
    'OneHot by its values': () => ({
      inputs: { values: { shape: [2] } },
      build: (graph) =>
        graph.add('OneHot', [ints(graph, [0, 2, 1], 'at'), ints(graph, [4], 'depth'), 'values'], { axis: 0 }),
    }),
  });
});

describe('reductions', () => {
  const reduce = (
    opType: string,
    { distinct = false, range, avoid }: { distinct?: boolean; range?: [number, number]; avoid?: number[] } = {},
  ): Record<string, (random: Random) => GradientCase> => {
    const sinceInput = opType === 'ReduceSum' ? 13 : 18;
    const make =
      (opset: number, keepdims: number, axes: number[] | undefined, more: Attributes = {}) =>
      (random: Random): GradientCase => ({
        opset,
        inputs: {
          x: { shape: cube(random), distinct, ...(range ? { range } : {}), ...(avoid ? { avoid } : {}) },
        },
        build: (graph) =>
          opset >= sinceInput
            ? graph.add(opType, axes ? ['x', ints(graph, axes)] : ['x'], { keepdims, ...more })
            : graph.add(opType, ['x'], { keepdims, ...(axes ? { axes } : {}), ...more }),
      });
    return {
      [`${opType} over one axis`]: make(18, 1, [1]),
      [`${opType} over two axes, dropped`]: make(18, 0, [0, -1]),
      [`${opType} over everything`]: make(18, 0, undefined),
      [`${opType}, operator set 11`]: make(11, 0, [2]),
      [`${opType} over everything, kept, operator set 13`]: make(13, 1, undefined),
    };
  };
  gradientTests(
    {
      ...reduce('ReduceSum'),
      ...reduce('ReduceMean'),
      ...reduce('ReduceMax', { distinct: true }),
      ...reduce('ReduceMin', { distinct: true }),
      ...reduce('ReduceSumSquare'),
      ...reduce('ReduceL1', { avoid: [0] }),
      ...reduce('ReduceL2', { range: [0.5, 2] }),
      ...reduce('ReduceProd', { range: [0.5, 2] }),
      ...reduce('ReduceLogSum', { range: [1, 3] }),
      ...reduce('ReduceLogSumExp'),
      'ReduceSum that does nothing': over(cube, (graph) => graph.add('ReduceSum', ['x'], { noop_with_empty_axes: 1 })),
      'ReduceMean over axes known at run time': over(
        cube,
        (graph) => graph.add('ReduceMean', ['x', atRun(graph, [1], 'axes')], { keepdims: 1 }),
        18,
      ),
    },
    1,
  );
});

describe('softmax', () => {
  const make =
    (opType: string, opset: number, axis: number | undefined, last = 3) =>
    (random: Random): GradientCase => ({
      opset,
      inputs: { x: { shape: [2, random.int(2, 3), last] } },
      build: (graph) => graph.add(opType, ['x'], axis === undefined ? {} : { axis }),
    });
  gradientTests({
    'Softmax over the last axis': make('Softmax', 17, -1),
    'Softmax over a long axis': make('Softmax', 17, undefined, 40),
    'Softmax over a middle axis': make('Softmax', 17, 1),
    'Softmax, operator set 11': make('Softmax', 11, undefined),
    'Softmax over the last axis, operator set 11': make('Softmax', 11, -1),
    'LogSoftmax over the last axis': make('LogSoftmax', 17, undefined),
    'LogSoftmax over the first axis': make('LogSoftmax', 17, 0),
    'LogSoftmax, operator set 12': make('LogSoftmax', 12, 0),
  });
});
