/** Convolutions, pools, resizing, normalisation and matrix products against central differences. */
import { describe } from 'vitest';
import {
  type GradientCase,
  gradientTests,
  type Mode,
  type Random,
} from '../../../../../test/vectors/autodiff/gradient-check.js';
import { type Attributes, float } from '../../onnx/attributes.js';
import { float32, int64 } from '../../tensor.js';

interface ConvShape {
  readonly kernel: number[];
  readonly size: number[];
  readonly batch?: number;
  readonly channels?: number;
  readonly filters?: number;
  readonly group?: number;
  readonly attributes?: Attributes;
  readonly bias?: boolean;
  readonly opset?: number;
  readonly modes?: readonly Mode[];
}

const conv =
  (shape: ConvShape, opType: 'Conv' | 'ConvTranspose' = 'Conv') =>
  (random: Random): GradientCase => {
    const { kernel, size, batch = random.int(1, 2), channels = 2, filters = 3, group = 1, attributes = {} } = shape;
    const first = opType === 'Conv' ? filters * group : channels * group;
    const second = opType === 'Conv' ? channels : filters;
    const inputs = {
      x: { shape: [batch, channels * group, ...size] },
      w: { shape: [first, second, ...kernel], keepShape: true },
      ...(shape.bias ? { b: { shape: [filters * group] } } : {}),
    };
    return {
      opset: shape.opset ?? 17,
      inputs,
      ...(shape.modes ? { modes: shape.modes } : {}),
      build: (graph) => graph.add(opType, Object.keys(inputs), { ...attributes, ...(group > 1 ? { group } : {}) }),
    };
  };

/** Random geometry: strides, dilations and pads drawn anew each time. */
const anyConv =
  (dims: number, opType: 'Conv' | 'ConvTranspose' = 'Conv') =>
  (random: Random): GradientCase => {
    const draw = (low: number, high: number): number[] => Array.from({ length: dims }, () => random.int(low, high));
    const kernel = draw(1, 3);
    const dilations = draw(1, 2);
    const strides = draw(1, 3);
    const spans = kernel.map((k, i) => (k - 1) * (dilations[i] as number) + 1);
    const size = spans.map((span) => span + random.int(0, 3));
    const pads = [...kernel, ...kernel].map((k) => random.int(0, k - 1));
    return conv(
      {
        kernel,
        size,
        group: random.int(1, 2),
        channels: random.int(1, 2),
        filters: random.int(1, 2),
        bias: true,
        attributes: { strides, dilations, pads },
      },
      opType,
    )(random);
  };

describe('convolution', () => {
  gradientTests(
    {
      'any 1-D': anyConv(1),
      'any 2-D': anyConv(2),
      'any 3-D': anyConv(3),
      'any transposed 1-D': anyConv(1, 'ConvTranspose'),
      'any transposed 2-D': anyConv(2, 'ConvTranspose'),
    },
    5,
  );
  const fixed: readonly Mode[] = ['fixed', 'initializers', 'cuda', 'webgpu'];
  gradientTests({
    '1×1': conv({ kernel: [1, 1], size: [3, 4], bias: true }),
    '3×3 as in a network': conv({ kernel: [3, 3], size: [6, 5], bias: true, attributes: { pads: [1, 1, 1, 1] } }),
    '3×3 with stride 2': conv({ kernel: [3, 3], size: [6, 7], attributes: { pads: [1, 1, 1, 1], strides: [2, 2] } }),
    '5×5 with stride 2': conv({ kernel: [5, 5], size: [7, 8], attributes: { pads: [2, 2, 2, 2], strides: [2, 2] } }),
    '1×1 with stride 2': conv({ kernel: [1, 1], size: [5, 4], attributes: { strides: [2, 2] } }),
    '2×2 with stride 3, rows left over': conv({ kernel: [2, 2], size: [7, 7], attributes: { strides: [3, 3] } }),
    'few positions, many filters (batch merged)': conv({
      kernel: [3, 3],
      size: [2, 2],
      batch: 3,
      channels: 8,
      filters: 8,
      attributes: { pads: [1, 1, 1, 1] },
    }),
    'batch merged, groups and stride': conv({
      kernel: [3, 2],
      size: [4, 3],
      batch: 2,
      channels: 8,
      filters: 8,
      group: 2,
      attributes: { strides: [2, 1] },
    }),
    '1×1 with stride to fewer positions': conv({ kernel: [1, 1], size: [2, 2], attributes: { strides: [2, 2] } }),
    'few filters, dilated': conv({
      kernel: [3, 2],
      size: [5, 4],
      batch: 2,
      channels: 9,
      filters: 1,
      bias: true,
      attributes: { pads: [2, 1, 1, 0], dilations: [2, 1] },
    }),
    'few filters, with stride and rows left over': conv({
      kernel: [3, 2],
      size: [6, 4],
      channels: 17,
      filters: 1,
      attributes: { pads: [1, 0, 0, 1], strides: [2, 1] },
    }),
    'few channels, transposed': conv(
      { kernel: [3, 2], size: [3, 3], batch: 2, channels: 1, filters: 14, attributes: { strides: [1, 2] } },
      'ConvTranspose',
    ),
    'padding beyond the kernel': conv({ kernel: [2, 1], size: [3, 3], attributes: { pads: [2, 1, 3, 0] } }),
    depthwise: conv({
      kernel: [3, 3],
      size: [4, 4],
      channels: 1,
      filters: 1,
      group: 3,
      bias: true,
      attributes: { pads: [1, 1, 1, 1] },
    }),
    'SAME_UPPER with stride 1': conv({ kernel: [2, 3], size: [4, 5], attributes: { auto_pad: 'SAME_UPPER' } }),
    'SAME_LOWER with stride 2': conv({
      kernel: [2, 3],
      size: [5, 4],
      modes: fixed,
      attributes: { auto_pad: 'SAME_LOWER', strides: [2, 2] },
    }),
    'SAME_UPPER with stride 2': conv({
      kernel: [3, 2],
      size: [4, 5],
      modes: fixed,
      attributes: { auto_pad: 'SAME_UPPER', strides: [2, 2] },
    }),
    VALID: conv({ kernel: [2, 2], size: [3, 4], attributes: { auto_pad: 'VALID' } }),
    'operator set 11': conv({
      kernel: [3, 3],
      size: [5, 4],
      bias: true,
      opset: 11,
      attributes: { strides: [2, 1], pads: [1, 0, 0, 1] },
    }),
    'operator set 22': conv({ kernel: [3, 3], size: [5, 4], bias: true, opset: 22 }),
    'transposed with output padding': conv(
      {
        kernel: [3, 3],
        size: [3, 2],
        bias: true,
        attributes: { strides: [2, 3], output_padding: [1, 2], pads: [1, 0, 1, 1] },
      },
      'ConvTranspose',
    ),
    'transposed to an output shape': conv(
      { kernel: [3, 3], size: [3, 3], modes: fixed, attributes: { strides: [2, 2], output_shape: [6, 5] } },
      'ConvTranspose',
    ),
    'transposed, SAME_UPPER': conv(
      { kernel: [3, 3], size: [3, 3], modes: fixed, attributes: { strides: [2, 2], auto_pad: 'SAME_UPPER' } },
      'ConvTranspose',
    ),
    'transposed with groups and dilation': conv(
      { kernel: [2, 3], size: [3, 3], group: 2, attributes: { dilations: [2, 1] } },
      'ConvTranspose',
    ),
  });
});

describe('pools', () => {
  const pool =
    (opType: string, size: number[], attributes: Attributes = {}, opset = 17, modes?: readonly Mode[]) =>
    (random: Random): GradientCase => ({
      opset,
      inputs: { x: { shape: [random.int(1, 2), 2, ...size], distinct: opType.includes('Max') } },
      ...(modes ? { modes } : {}),
      build: (graph) => graph.add(opType, ['x'], attributes),
    });
  const anyPool =
    (opType: string, dims: number) =>
    (random: Random): GradientCase => {
      const draw = (low: number, high: number): number[] => Array.from({ length: dims }, () => random.int(low, high));
      const kernel_shape = draw(1, 3);
      const size = kernel_shape.map((k) => k + random.int(0, 4));
      const attributes = {
        kernel_shape,
        strides: draw(1, 3),
        pads: [...kernel_shape, ...kernel_shape].map((k) => random.int(0, k - 1)),
        ...(opType === 'AveragePool' ? { count_include_pad: random.int(0, 1) } : {}),
      };
      return pool(opType, size, attributes)(random);
    };
  gradientTests(
    {
      'any AveragePool 1-D': anyPool('AveragePool', 1),
      'any AveragePool 2-D': anyPool('AveragePool', 2),
      'any MaxPool 1-D': anyPool('MaxPool', 1),
      'any MaxPool 2-D': anyPool('MaxPool', 2),
      'any MaxPool 3-D': anyPool('MaxPool', 3),
    },
    5,
  );
  const fixed: readonly Mode[] = ['fixed'];
  gradientTests({
    'AveragePool 3/1 with padding counted': pool('AveragePool', [4, 5], {
      kernel_shape: [3, 3],
      pads: [1, 1, 1, 1],
      count_include_pad: 1,
    }),
    'AveragePool 2/2': pool('AveragePool', [5, 4], { kernel_shape: [2, 2], strides: [2, 2] }),
    'AveragePool 3/2 with ceil_mode': pool('AveragePool', [6, 7], {
      kernel_shape: [3, 3],
      strides: [2, 2],
      ceil_mode: 1,
    }),
    'AveragePool 3/2 with ceil_mode and padding': pool(
      'AveragePool',
      [6, 5],
      { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], ceil_mode: 1 },
      19,
    ),
    'AveragePool with dilation': pool(
      'AveragePool',
      [6, 5],
      { kernel_shape: [2, 3], dilations: [2, 1], pads: [1, 1, 0, 1] },
      19,
    ),
    'AveragePool SAME_UPPER': pool(
      'AveragePool',
      [5, 4],
      { kernel_shape: [3, 2], strides: [2, 2], auto_pad: 'SAME_UPPER' },
      17,
      fixed,
    ),
    'MaxPool 3/2': pool('MaxPool', [6, 7], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] }),
    'MaxPool 3/1': pool('MaxPool', [4, 5], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
    'MaxPool 2/2': pool('MaxPool', [4, 6], { kernel_shape: [2, 2], strides: [2, 2] }),
    'MaxPool 3/2 with ceil_mode': pool('MaxPool', [6, 7], { kernel_shape: [3, 3], strides: [2, 2], ceil_mode: 1 }),
    'MaxPool with dilation': pool('MaxPool', [6, 5], { kernel_shape: [2, 2], dilations: [2, 3], strides: [1, 2] }),
    'MaxPool SAME_LOWER': pool(
      'MaxPool',
      [5, 4],
      { kernel_shape: [3, 2], strides: [2, 2], auto_pad: 'SAME_LOWER' },
      17,
      fixed,
    ),
    'MaxPool that only strides': pool('MaxPool', [5, 6], { kernel_shape: [1, 1], strides: [2, 3] }),
    'MaxPool, operator set 11': pool('MaxPool', [5, 6], { kernel_shape: [3, 2], strides: [2, 1] }, 11),
    GlobalAveragePool: pool('GlobalAveragePool', [3, 4]),
    GlobalMaxPool: pool('GlobalMaxPool', [3, 4]),
  });
});

describe('resizing', () => {
  const resize =
    (
      size: number[],
      how: { scales?: number[]; sizes?: number[]; axes?: number[] },
      attributes: Attributes,
      opset = 17,
    ) =>
    (random: Random): GradientCase => ({
      opset,
      inputs: { x: { shape: [random.int(1, 2), 2, ...size] } },
      // Resize itself wants to know the batch's size when sizes are given.
      ...(how.sizes && !how.axes ? { modes: ['fixed'] as const } : {}),
      build: (graph) => {
        const { scales, sizes, axes } = how;
        const roi = opset < 13 ? graph.addInitializer('roi', float32([0], [])) : '';
        const inputs = scales
          ? ['x', roi, graph.addInitializer('scales', float32([scales.length], scales))]
          : ['x', roi, '', graph.addInitializer('sizes', int64(sizes as number[]))];
        return graph.add('Resize', inputs, { ...attributes, ...(axes ? { axes } : {}) });
      },
    });
  gradientTests(
    {
      'nearest by 2, asymmetric floor': resize(
        [2, 3],
        { scales: [1, 1, 2, 2] },
        { coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' },
      ),
      'nearest by 2 and 3': resize([2, 3], { scales: [1, 1, 2, 3] }, {}),
      'nearest by 1.5': resize([4, 3], { scales: [1, 1, 1.5, 0.7] }, {}),
      'nearest, operator set 11': resize(
        [2, 3],
        { scales: [1, 1, 2, 1.5] },
        { coordinate_transformation_mode: 'align_corners' },
        11,
      ),
      'linear by 2': resize([3, 2], { scales: [1, 1, 2, 2] }, { mode: 'linear' }),
      'linear by 2, pytorch_half_pixel': resize(
        [3, 2],
        { scales: [1, 1, 2, 2] },
        { mode: 'linear', coordinate_transformation_mode: 'pytorch_half_pixel' },
      ),
      'linear, align_corners, smaller': resize(
        [5, 4],
        { scales: [1, 1, 0.6, 0.5] },
        { mode: 'linear', coordinate_transformation_mode: 'align_corners' },
      ),
      'linear, asymmetric': resize(
        [3, 3],
        { scales: [1, 1, 1.7, 2] },
        { mode: 'linear', coordinate_transformation_mode: 'asymmetric' },
      ),
      cubic: resize([4, 5], { scales: [1, 1, 1.5, 2] }, { mode: 'cubic', cubic_coeff_a: float(-0.5) }),
      'linear to sizes of listed axes': resize([3, 4], { sizes: [5, 6], axes: [2, 3] }, { mode: 'linear' }, 18),
      'linear with antialiasing': resize([6, 6], { scales: [1, 1, 0.5, 0.5] }, { mode: 'linear', antialias: 1 }, 18),
      'nearest to sizes, operator set 19': () => ({
        opset: 19,
        inputs: { x: { shape: [2, 2, 3, 4] } },
        modes: ['fixed', 'batch'],
        build: (graph, random) =>
          graph.add('Resize', ['x', '', '', graph.addInitializer('sizes', int64([2, 2, 5, random.int(3, 9)]))], {
            mode: 'nearest',
          }),
      }),
    },
    1,
  );
});

describe('normalisation', () => {
  const channels = 3;
  const vector = { shape: [channels], keepShape: true };
  const batchNorm =
    (opset: number, wrt?: readonly string[]) =>
    (random: Random): GradientCase => ({
      opset,
      inputs: {
        x: { shape: [2, channels, ...random.pick([[3, 2], [4], []])] },
        scale: vector,
        bias: vector,
        mean: vector,
        variance: { ...vector, range: [1, 2] },
      },
      ...(wrt ? { wrt } : {}),
      build: (graph) =>
        graph.add('BatchNormalization', ['x', 'scale', 'bias', 'mean', 'variance'], { epsilon: float(0.01) }),
    });
  gradientTests({
    'BatchNormalization, operator set 11': batchNorm(11),
    'BatchNormalization, operator set 14': batchNorm(14),
    'BatchNormalization by its input, operator set 15': batchNorm(15, ['x']),
    'BatchNormalization by its variance': batchNorm(17, ['variance']),
    'LayerNormalization over the last axis': (random) => ({
      inputs: { x: { shape: [2, random.int(1, 3), 4] }, scale: { shape: [4] }, bias: { shape: [4] } },
      build: (graph) => graph.add('LayerNormalization', ['x', 'scale', 'bias']),
    }),
    'LayerNormalization over two axes, without bias': () => ({
      inputs: { x: { shape: [2, 3, 4] }, scale: { shape: [3, 4] } },
      build: (graph) => graph.add('LayerNormalization', ['x', 'scale'], { axis: 1, epsilon: float(0.1) }),
    }),
    InstanceNormalization: (random) => ({
      inputs: { x: { shape: [2, channels, random.int(2, 3), 3] }, scale: vector, bias: vector },
      build: (graph) => graph.add('InstanceNormalization', ['x', 'scale', 'bias'], { epsilon: float(0.1) }),
    }),
    'InstanceNormalization, operator set 11': () => ({
      opset: 11,
      inputs: { x: { shape: [1, channels, 5] }, scale: vector, bias: vector },
      build: (graph) => graph.add('InstanceNormalization', ['x', 'scale', 'bias'], { epsilon: float(0.1) }),
    }),
    'GroupNormalization per group': () => ({
      opset: 18,
      inputs: {
        x: { shape: [2, 4, 3] },
        scale: { shape: [2], keepShape: true },
        bias: { shape: [2], keepShape: true },
      },
      build: (graph) => graph.add('GroupNormalization', ['x', 'scale', 'bias'], { num_groups: 2, epsilon: float(0.1) }),
    }),
    'GroupNormalization per channel': () => ({
      opset: 21,
      inputs: {
        x: { shape: [2, 4, 3, 2] },
        scale: { shape: [4], keepShape: true },
        bias: { shape: [4], keepShape: true },
      },
      build: (graph) => graph.add('GroupNormalization', ['x', 'scale', 'bias'], { num_groups: 2, epsilon: float(0.1) }),
    }),
  });
});

describe('matrix products', () => {
  const product = (a: number[], b: number[]) => (): GradientCase => ({
    inputs: { a: { shape: a }, b: { shape: b } },
    build: (graph) => graph.add('MatMul', ['a', 'b']),
  });
  const gemm = (transA: number, transB: number, c?: number[]) => (): GradientCase => ({
    inputs: {
      a: { shape: transA ? [4, 3] : [3, 4] },
      b: { shape: transB ? [2, 4] : [4, 2] },
      ...(c ? { c: { shape: c } } : {}),
    },
    build: (graph) =>
      graph.add('Gemm', c ? ['a', 'b', 'c'] : ['a', 'b'], { transA, transB, alpha: float(0.7), beta: float(1.5) }),
  });
  gradientTests(
    {
      'matrix · matrix': product([3, 4], [4, 2]),
      'batch · batch': product([2, 3, 4], [2, 4, 2]),
      'batch · matrix': product([2, 2, 3, 4], [4, 2]),
      'matrix · batch': product([3, 4], [2, 4, 2]),
      'broadcast batches': product([2, 1, 3, 4], [3, 4, 2]),
      'vector · matrix': product([4], [4, 2]),
      'vector · batch': product([4], [2, 4, 2]),
      'matrix · vector': product([3, 4], [4]),
      'batch · vector': product([2, 3, 4], [4]),
      'vector · vector': product([4], [4]),
      Gemm: gemm(0, 0, [2]),
      'Gemm without C': gemm(0, 0),
      'Gemm, A transposed': gemm(1, 0, [3, 1]),
      'Gemm, B transposed': gemm(0, 1, [3, 2]),
      'Gemm, both transposed': gemm(1, 1, []),
    },
    1,
  );
});

describe('local response normalisation', () => {
  const lrn =
    (size: number, opset = 17) =>
    (random: Random): GradientCase => ({
      opset,
      inputs: { x: { shape: [2, random.int(3, 6), 2, random.int(1, 3)] } },
      build: (graph) => graph.add('LRN', ['x'], { size, alpha: float(0.3), beta: float(0.75), bias: float(1.5) }),
    });
  gradientTests({
    'LRN over 1 channel': lrn(1),
    'LRN over 3 channels': lrn(3),
    'LRN over 5 channels, operator set 11': lrn(5, 11),
  });
});
