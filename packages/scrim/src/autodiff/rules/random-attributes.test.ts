/**
 * Rules whose operators have many attributes, over random ones drawn together: every window geometry, every mode of
 * Resize and Pad, every sign of a step, every axis. What a draw makes invalid by ONNX's own rules is drawn again.
 */
import { describe } from 'vitest';
import {
  type GradientCase,
  gradientTests,
  type Mode,
  type Random,
} from '../../../../../test/vectors/autodiff/gradient-check.js';
import type { Graph } from '../../onnx/graph.js';
import { float32, int64 } from '../../tensor.js';

const RUNS = 8;

const draws = (random: Random, count: number, low: number, high: number): number[] =>
  Array.from({ length: count }, () => random.int(low, high));

const ints = (graph: Graph, values: readonly number[], name = 'ints'): string =>
  graph.addInitializer(name, int64(values));

/** SAME padding with a stride depends on the size: it must be known when the gradient is written. */
const modesOf = (autoPad: string): { modes?: readonly Mode[] } =>
  autoPad.startsWith('SAME') ? { modes: ['fixed', 'initializers'] } : {};

/** A pool with strides, dilations, uneven pads or auto_pad, ceil_mode and what counts of the padding. */
const pool =
  (opType: 'MaxPool' | 'AveragePool', dims: number) =>
  (random: Random): GradientCase => {
    const kernel_shape = draws(random, dims, 1, 3);
    const auto_pad = random.pick(['NOTSET', 'NOTSET', 'NOTSET', 'VALID', 'SAME_UPPER', 'SAME_LOWER']);
    const dilations = auto_pad === 'NOTSET' ? draws(random, dims, 1, 3) : kernel_shape.map(() => 1);
    const spans = kernel_shape.map((k, i) => (k - 1) * (dilations[i] as number) + 1);
    const size = spans.map((span) => span + random.int(0, 5));
    // With SAME and a stride above the kernel the runtime computes negative padding and refuses.
    const strides = kernel_shape.map((k) => random.int(1, auto_pad.startsWith('SAME') ? k : 3));
    const pads = [...kernel_shape, ...kernel_shape].map((k) => random.int(0, k - 1));
    // With ceil_mode a last window may start in the padding; then the runtime's shapes contradict its own results.
    const startsInPadding = (): boolean =>
      spans.some((span, i) => {
        const [stride, begin, end] = [strides[i] as number, pads[i] as number, pads[i + dims] as number];
        const windows = Math.ceil(((size[i] as number) + begin + end - span) / stride);
        return windows * stride >= (size[i] as number) + begin;
      });
    const attributes = {
      kernel_shape,
      strides,
      dilations,
      ceil_mode: auto_pad === 'NOTSET' && !startsInPadding() ? random.int(0, 1) : 0,
      ...(auto_pad === 'NOTSET' ? { pads } : { auto_pad }),
      ...(opType === 'AveragePool' ? { count_include_pad: random.int(0, 1) } : {}),
    };
    return {
      opset: opType === 'AveragePool' ? 19 : random.pick([12, 17, 22]),
      inputs: { x: { shape: [random.int(1, 2), random.int(1, 2), ...size], distinct: opType === 'MaxPool' } },
      ...modesOf(auto_pad),
      build: (graph) => graph.add(opType, ['x'], attributes),
    };
  };

/** A convolution, or a transposed one with output_padding. */
const convolution =
  (opType: 'Conv' | 'ConvTranspose', dims: number) =>
  (random: Random): GradientCase => {
    const kernel = draws(random, dims, 1, 3);
    const strides = draws(random, dims, 1, 3);
    const dilations = draws(random, dims, 1, 3);
    const spans = kernel.map((k, i) => (k - 1) * (dilations[i] as number) + 1);
    const pads = [...spans, ...spans].map((span) => random.int(0, Math.min(span - 1, 2)));
    const group = random.int(1, 3);
    const [channels, filters] = draws(random, 2, 1, 2) as [number, number];
    const size = spans.map((span) => (opType === 'Conv' ? span : 3) + random.int(0, 2));
    const output_padding = strides.map((stride) => random.int(0, stride - 1));
    const inputs = {
      x: { shape: [random.int(1, 2), channels * group, ...size] },
      w: {
        shape: [...(opType === 'Conv' ? [filters * group, channels] : [channels * group, filters]), ...kernel],
        keepShape: true,
      },
      b: { shape: [filters * group] },
    };
    return {
      opset: random.pick([11, 17, 22]),
      inputs,
      build: (graph) =>
        graph.add(opType, Object.keys(inputs), {
          strides,
          dilations,
          pads,
          group,
          ...(opType === 'ConvTranspose' ? { output_padding } : {}),
        }),
    };
  };

/** A Resize of one mode, by scales or by sizes, up or down, with any coordinates. */
const resize =
  (mode: 'nearest' | 'linear' | 'cubic') =>
  (random: Random): GradientCase => {
    const size = draws(random, 2, 2, 5);
    const opset = random.pick([11, 13, 18, 19]);
    const bySizes = random.int(0, 1) === 1;
    const out = size.map((n) => Math.max(1, n + random.int(-2, 5)));
    const scales = size.map(() => random.pick([0.5, 0.75, 1, 1.5, 2, 2.3, 3]));
    const attributes = {
      mode,
      coordinate_transformation_mode: random.pick(['half_pixel', 'pytorch_half_pixel', 'align_corners', 'asymmetric']),
      ...(mode === 'nearest'
        ? { nearest_mode: random.pick(['round_prefer_floor', 'round_prefer_ceil', 'floor', 'ceil']) }
        : {}),
      ...(mode !== 'nearest' && opset >= 18 ? { antialias: random.int(0, 1) } : {}),
    };
    return {
      opset,
      inputs: { x: { shape: [1, 2, ...size] } },
      ...(bySizes ? { modes: ['fixed'] as const } : {}),
      build: (graph) => {
        const region = opset < 13 ? graph.addInitializer('region', float32([0], [])) : '';
        return bySizes
          ? graph.add(
              'Resize',
              [
                'x',
                region,
                opset < 13 ? graph.addInitializer('none', float32([0], [])) : '',
                ints(graph, [1, 2, ...out]),
              ],
              attributes,
            )
          : graph.add(
              'Resize',
              ['x', region, graph.addInitializer('scales', float32([4], [1, 1, ...scales]))],
              attributes,
            );
      },
    };
  };

/** A Slice of one to three axes with any bounds and any step but 0, that leaves something. */
const slice = (random: Random): GradientCase => {
  const shape = draws(random, 3, 2, 6);
  const axes = random.permutation(3).slice(0, random.int(1, 3));
  const picks = axes.map((axis) => {
    const size = shape[axis] as number;
    for (;;) {
      const [start, end, step] = [random.int(-size - 1, size + 1), random.int(-size - 1, size + 1), random.int(-3, 3)];
      if (step === 0) continue;
      const picked = pythonRange(start, end, step, size);
      if (picked > 0) return { start, end, step };
    }
  });
  return {
    opset: random.pick([11, 13, 17]),
    inputs: { x: { shape } },
    build: (graph) =>
      graph.add('Slice', [
        'x',
        ints(
          graph,
          picks.map(({ start }) => start),
          'starts',
        ),
        ints(
          graph,
          picks.map(({ end }) => end),
          'ends',
        ),
        ints(graph, axes, 'axes'),
        ints(
          graph,
          picks.map(({ step }) => step),
          'steps',
        ),
      ]),
  };
};

/** How many elements a[start:end:step] has. */
function pythonRange(start: number, end: number, step: number, size: number): number {
  const wrap = (value: number): number => (value < 0 ? value + size : value);
  const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);
  const [low, high] = step > 0 ? [0, size] : [-1, size - 1];
  return Math.ceil((clamp(wrap(end), low, high) - clamp(wrap(start), step > 0 ? 0 : 0, high)) / step);
}

/** A Pad of one mode; constant pads may crop. */
const pad =
  (mode: 'constant' | 'reflect' | 'edge' | 'wrap') =>
  (random: Random): GradientCase => {
    const shape = draws(random, 3, 2, 4);
    const most = mode === 'reflect' || mode === 'wrap' ? 1 : 2;
    const low = mode === 'constant' ? -1 : 0;
    const pads = draws(random, 6, low, most);
    for (let axis = 0; axis < 3; axis++) {
      if ((shape[axis] as number) + (pads[axis] as number) + (pads[axis + 3] as number) < 1) pads[axis] = 0;
    }
    return {
      opset: mode === 'wrap' ? 19 : random.pick([11, 13, 18]),
      inputs: { x: { shape } },
      build: (graph) => graph.add('Pad', ['x', ints(graph, pads)], { mode }),
    };
  };

/** A Gather along any axis with indices of any rank and sign. */
const gather = (random: Random): GradientCase => {
  const shape = draws(random, 3, 2, 4);
  const axis = random.int(-3, 2);
  const size = shape[axis < 0 ? axis + 3 : axis] as number;
  const indexShape = draws(random, random.int(0, 2), 1, 3);
  const count = indexShape.reduce((a, b) => a * b, 1);
  return {
    opset: random.pick([11, 13, 17]),
    inputs: { x: { shape } },
    build: (graph, inner) => {
      const indices = graph.addInitializer('indices', int64(draws(inner, count, -size, size - 1), indexShape));
      return graph.add('Gather', ['x', indices], { axis });
    },
  };
};

/** Axes of a reduction: any, from either end, kept or not. */
const reduce =
  (opType: 'ReduceSum' | 'ReduceMean' | 'ReduceMax') =>
  (random: Random): GradientCase => {
    const shape = draws(random, random.int(1, 4), 1, 3);
    const axes = random
      .permutation(shape.length)
      .slice(0, random.int(1, shape.length))
      .map((axis) => (random.int(0, 1) === 1 ? axis - shape.length : axis));
    const opset = random.pick([11, 13, 18]);
    const keepdims = random.int(0, 1);
    return {
      opset,
      inputs: { x: { shape, distinct: opType === 'ReduceMax' } },
      build: (graph) =>
        opset >= (opType === 'ReduceSum' ? 13 : 18)
          ? graph.add(opType, ['x', ints(graph, axes)], { keepdims })
          : graph.add(opType, ['x'], { keepdims, axes }),
    };
  };

const softmax =
  (opType: 'Softmax' | 'LogSoftmax') =>
  (random: Random): GradientCase => {
    const shape = draws(random, random.int(1, 4), 1, 4);
    const axis = random.int(-shape.length, shape.length - 1);
    return {
      opset: random.pick([11, 13, 17]),
      inputs: { x: { shape } },
      build: (graph) => graph.add(opType, ['x'], { axis }),
    };
  };

/** Layer normalisation from any axis on, of values far enough apart that no deviation comes near 0. */
const layerNorm = (random: Random): GradientCase => {
  const shape = draws(random, random.int(2, 4), 2, 3);
  const axis = random.int(-shape.length, shape.length - 1);
  const normalised = shape.slice(axis < 0 ? axis + shape.length : axis);
  return {
    inputs: {
      x: { shape, distinct: true },
      s: { shape: normalised, keepShape: true },
      b: { shape: normalised, keepShape: true },
    },
    step: 1 / 64,
    build: (graph) => graph.add('LayerNormalization', ['x', 's', 'b'], { axis }),
  };
};

describe('random attributes', () => {
  gradientTests(
    {
      'MaxPool 1-D': pool('MaxPool', 1),
      'MaxPool 2-D': pool('MaxPool', 2),
      'MaxPool 3-D': pool('MaxPool', 3),
      'AveragePool 1-D': pool('AveragePool', 1),
      'AveragePool 2-D': pool('AveragePool', 2),
      'AveragePool 3-D': pool('AveragePool', 3),
      'Conv 1-D': convolution('Conv', 1),
      'Conv 2-D': convolution('Conv', 2),
      'ConvTranspose 1-D': convolution('ConvTranspose', 1),
      'ConvTranspose 2-D': convolution('ConvTranspose', 2),
      'Resize nearest': resize('nearest'),
      'Resize linear': resize('linear'),
      'Resize cubic': resize('cubic'),
      Slice: slice,
      'Pad constant': pad('constant'),
      'Pad reflect': pad('reflect'),
      'Pad edge': pad('edge'),
      'Pad wrap': pad('wrap'),
      Gather: gather,
      ReduceSum: reduce('ReduceSum'),
      ReduceMean: reduce('ReduceMean'),
      ReduceMax: reduce('ReduceMax'),
      Softmax: softmax('Softmax'),
      LogSoftmax: softmax('LogSoftmax'),
      LayerNormalization: layerNorm,
    },
    RUNS,
  );
});
