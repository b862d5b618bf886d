/**
 * Inference against onnxruntime for operators whose sizes depend on many settings at once, drawn at random.
 *
 * Where the runtime runs a node, the inferred shape is the one that comes out, with sizes known and with symbols. Where
 * inference refuses a node, the runtime refuses it too.
 */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluateDimension } from '../../../../../test/evaluate-dimension.js';
import { runOnnx, sampleTensor } from '../../../../../test/run-onnx.js';
import type { ScrimError } from '../../errors.js';
import { float32, int64, type Tensor } from '../../tensor.js';
import type { Attributes } from '../attributes.js';
import { Graph } from '../graph.js';
import { inferShapes } from '../shape-inference.js';
import type { Dimension } from '../value-info.js';

interface Drawn {
  readonly op: string;
  readonly shape: readonly number[];
  readonly constants?: readonly (Tensor | '')[];
  readonly attributes?: Attributes;
  readonly outputs?: number;
  readonly opset: number;
}

const opset = fc.constantFrom(11, 13, 17, 18, 19, 21, 22);
const small = (min: number, max: number): fc.Arbitrary<number> => fc.integer({ min, max });
const many = (count: number, each: fc.Arbitrary<number>): fc.Arbitrary<number[]> =>
  fc.array(each, { minLength: count, maxLength: count });
const padding = fc.constantFrom('NOTSET', 'NOTSET', 'NOTSET', 'SAME_UPPER', 'SAME_LOWER', 'VALID');

const convolution: fc.Arbitrary<Drawn> = fc
  .record({
    opset,
    op: fc.constantFrom('Conv', 'ConvTranspose'),
    spatial: many(2, small(1, 9)),
    kernel: many(2, small(1, 4)),
    strides: many(2, small(1, 3)),
    dilations: many(2, small(1, 2)),
    pads: many(4, small(0, 2)),
    auto: padding,
    group: small(1, 2),
    wrong: small(0, 9),
  })
  .map(({ op, spatial, kernel, strides, dilations, pads, auto, group, wrong, opset: version }) => {
    const inputs = 2 * group + (wrong === 0 ? 1 : 0);
    const weights = op === 'Conv' ? [2 * group, 2, ...kernel] : [2 * group, 3, ...kernel];
    return {
      op,
      opset: version,
      shape: [1, inputs, ...spatial],
      constants: [sampleTensor('float32', weights)],
      attributes: { strides, dilations, group, ...(auto === 'NOTSET' ? { pads } : { auto_pad: auto }) },
    };
  });

const pooling: fc.Arbitrary<Drawn> = fc
  .record({
    opset,
    op: fc.constantFrom('MaxPool', 'AveragePool'),
    spatial: many(2, small(2, 11)),
    kernel: many(2, small(1, 4)),
    strides: many(2, small(1, 4)),
    pads: many(4, small(0, 1)),
    auto: padding,
    ceil: small(0, 1),
  })
  .map(({ op, opset: version, spatial, kernel, strides, pads, auto, ceil }) => ({
    op,
    opset: version,
    shape: [1, 2, ...spatial],
    attributes: {
      kernel_shape: kernel,
      strides,
      ...(auto === 'NOTSET' ? { pads, ceil_mode: ceil } : { auto_pad: auto }),
    },
  }));

const slicing: fc.Arbitrary<Drawn> = fc
  .record({
    opset,
    shape: many(3, small(1, 8)),
    cuts: fc.uniqueArray(
      fc.record({
        axis: small(-3, 2),
        start: small(-10, 10),
        end: fc.oneof(small(-10, 10), fc.constantFrom(2 ** 31 - 1, -(2 ** 31))),
        step: fc.constantFrom(1, 1, 2, 3, -1, -2),
      }),
      { maxLength: 3, minLength: 1, selector: ({ axis }) => (axis + 3) % 3 },
    ),
  })
  .map(({ opset: version, shape, cuts }) => ({
    op: 'Slice',
    opset: version,
    shape,
    constants: (['start', 'end', 'axis', 'step'] as const).map((key) => int64(cuts.map((cut) => cut[key]))),
  }));

const reshaping: fc.Arbitrary<Drawn> = fc
  .record({
    opset,
    shape: fc.array(fc.constantFrom(1, 2, 3, 4, 6), { minLength: 1, maxLength: 4 }),
    target: fc.array(fc.constantFrom(-1, 0, 1, 2, 3, 4, 6, 12), { minLength: 1, maxLength: 4 }),
  })
  .map(({ opset: version, shape, target }) => ({
    op: 'Reshape',
    opset: version,
    shape,
    constants: [int64(target)],
  }));

const padded: fc.Arbitrary<Drawn> = fc
  .record({ opset, shape: many(2, small(2, 6)), pads: many(4, small(-2, 3)) })
  .map(({ opset: version, shape, pads }) => ({ op: 'Pad', opset: version, shape, constants: [int64(pads)] }));

const resized: fc.Arbitrary<Drawn> = fc
  .record({
    opset: fc.constantFrom(13, 18, 19, 22),
    spatial: many(2, small(1, 12)),
    scales: many(2, fc.constantFrom(0.25, 0.3, 0.5, 1, 1.1, 1.5, 2, 2.7, 3)),
    sizes: many(2, small(1, 20)),
    bySize: fc.boolean(),
    mode: fc.constantFrom('nearest', 'linear'),
  })
  .map(({ opset: version, spatial, scales, sizes, bySize, mode }) => ({
    op: 'Resize',
    opset: version,
    shape: [1, 2, ...spatial],
    constants: bySize ? ['', '', int64([1, 2, ...sizes])] : ['', float32([4], [1, 1, ...scales])],
    attributes: { mode },
  }));

const splitting: fc.Arbitrary<Drawn> = fc
  .record({
    opset: fc.constantFrom(13, 18, 22),
    size: small(1, 12),
    outputs: small(1, 4),
    parts: fc.option(fc.array(small(0, 5), { minLength: 1, maxLength: 4 }), { nil: undefined }),
  })
  .map(({ opset: version, size, outputs, parts }) => ({
    op: 'Split',
    opset: version,
    shape: [2, size],
    constants: parts ? [int64(parts)] : [],
    attributes: { axis: 1, ...(version >= 18 && !parts ? { num_outputs: outputs } : {}) },
    outputs: parts?.length ?? outputs,
  }));

const broadcasting: fc.Arbitrary<Drawn> = fc
  .record({
    opset,
    op: fc.constantFrom('Add', 'MatMul', 'Expand'),
    shape: fc.array(fc.constantFrom(1, 2, 3), { minLength: 1, maxLength: 4 }),
    other: fc.array(fc.constantFrom(1, 2, 3), { minLength: 1, maxLength: 4 }),
  })
  .map(({ opset: version, op, shape, other }) => ({
    op,
    opset: version,
    shape,
    constants: [op === 'Expand' ? int64(other) : sampleTensor('float32', other)],
  }));

const reducing: fc.Arbitrary<Drawn> = fc
  .record({
    opset: fc.constantFrom(18, 22),
    shape: many(3, small(1, 4)),
    axes: fc.uniqueArray(small(-3, 2), { maxLength: 3, selector: (axis) => (axis + 3) % 3 }),
    keep: small(0, 1),
    noop: small(0, 1),
  })
  .map(({ opset: version, shape, axes, keep, noop }) => ({
    op: 'ReduceMean',
    opset: version,
    shape,
    constants: [int64(axes)],
    attributes: { keepdims: keep, noop_with_empty_axes: noop },
  }));

function build({ op, shape, constants = [], attributes, outputs, opset: version }: Drawn, symbolic: boolean): Graph {
  const graph = Graph.create({ opset: version });
  graph.addInput('x', 'float32', symbolic ? shape.map((_, i): Dimension => `d${i}`) : shape);
  const inputs = constants.map((value) => (value === '' ? '' : graph.addInitializer('c', value)));
  const names = Array.from({ length: outputs ?? 1 }, (_, i) => `y${i}`);
  graph.addMany(op, ['x', ...inputs], attributes, { outputs: names });
  for (const name of names) graph.addOutput(name, 'float32', undefined);
  return graph;
}

async function check(drawn: Drawn): Promise<'ran' | 'refused'> {
  const graph = build(drawn, false);
  const actual = await runOnnx(graph.encode(), { x: sampleTensor('float32', drawn.shape) }).catch(() => undefined);
  let inferred: ReturnType<typeof inferShapes> | undefined;
  try {
    inferred = inferShapes(graph);
  } catch (error) {
    expect((error as ScrimError).code).toBe('INVALID_MODEL');
  }
  if (!actual) return 'refused';
  const open = inferShapes(build(drawn, true));
  const sizes = new Map(drawn.shape.map((size, i) => [`d${i}`, size]));
  for (const [name, { shape }] of Object.entries(actual)) {
    expect(inferred?.get(name)?.shape).toEqual(shape);
    open.get(name)?.shape?.forEach((dimension, axis) => {
      if (dimension === '') return;
      const size = typeof dimension === 'number' ? dimension : evaluateDimension(dimension, sizes);
      // Symbols stand for sizes at which nothing is cropped to nothing.
      if (size > 0) expect(size, `axis ${axis}: ${dimension}`).toBe(shape[axis]);
    });
  }
  return 'ran';
}

const FAMILIES: Readonly<Record<string, fc.Arbitrary<Drawn>>> = {
  convolution,
  pooling,
  slicing,
  reshaping,
  padded,
  resized,
  splitting,
  broadcasting,
  reducing,
};

describe('inferred shapes at random settings', () => {
  for (const [name, family] of Object.entries(FAMILIES)) {
    it(`are the runtime's: ${name}`, async () => {
      const outcomes = { ran: 0, refused: 0 };
      await fc.assert(
        fc.asyncProperty(family, async (drawn) => {
          outcomes[await check(drawn)]++;
        }),
        { seed: 31, numRuns: 120 },
      );
      expect(outcomes.ran).toBeGreaterThan(10);
    });
  }
});
