/**
 * Checks gradient rules against central differences.
 *
 * A case builds a graph over random inputs and names its output y. With c random, the gradients of Σ c·y that the
 * library writes are compared with (f(x + h) − f(x − h)) / 2h, extrapolated from h and h/2 (Richardson), where f sums
 * c·y in double precision over what the runtime computes for y. Inputs are multiples of 2⁻¹⁰ and h is a power of two, so
 * that x ± h is exact in float32. Each case runs with fixed shapes, with a symbolic first axis, with all sizes unknown,
 * with every input but the first as an initializer, and
 * with fixed shapes as it is written for GPUs.
 */
import fc from 'fast-check';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { expect, it } from 'vitest';
import { addGradients } from '../../../packages/scrim/src/autodiff/gradients.js';
import { Graph } from '../../../packages/scrim/src/onnx/graph.js';
import { float32, sizeOf, type Tensor } from '../../../packages/scrim/src/tensor.js';

/** How the shapes of the inputs are declared. */
export type Mode = 'fixed' | 'batch' | 'unknown' | 'initializers' | 'cuda' | 'webgpu';

/** A differentiable input. */
export interface InputSpec {
  readonly shape: readonly number[];
  /** Values lie in [low, high); default [-2, 2). */
  readonly range?: readonly [number, number];
  /** Points to stay away from by more than the step (kinks and poles). */
  readonly avoid?: readonly number[];
  /** True to make all elements differ by more than two steps (for maxima). */
  readonly distinct?: boolean;
  /** True if its shape must be declared in every mode (weights). */
  readonly keepShape?: boolean;
}

/** One check. */
export interface GradientCase {
  readonly opset?: number;
  readonly inputs: Readonly<Record<string, InputSpec>>;
  /** Builds the graph over the inputs and returns y. */
  readonly build: (graph: Graph, random: Random) => string;
  /** Inputs to differentiate by; default all. */
  readonly wrt?: readonly string[];
  readonly modes?: readonly Mode[];
  readonly tolerance?: number;
  /** Largest step h, a power of two; default 1/16. */
  readonly step?: number;
}

/** A small generator for test data (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** Integer from low to high, both included. */
  int(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick<T>(values: readonly T[]): T {
    return values[this.int(0, values.length - 1)] as T;
  }

  /** Numbers 0 … n−1 in random order. */
  permutation(n: number): number[] {
    const values = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.int(0, i);
      [values[i], values[j]] = [values[j] as number, values[i] as number];
    }
    return values;
  }
}

const STEP = 1 / 16;
const GRID = 1024;
const SESSION: InferenceSession.SessionOptions = {
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  logSeverityLevel: 3,
  executionProviders: ['cpu'],
};

/** Makes one vitest test per named case; each runs on `runs` random instances. */
export function gradientTests(cases: Readonly<Record<string, (random: Random) => GradientCase>>, runs = 1): void {
  for (const [name, make] of Object.entries(cases)) {
    it(name, async () => {
      await fc.assert(
        fc.asyncProperty(fc.noShrink(fc.integer({ min: 0, max: 2 ** 31 })), async (seed) => {
          await checkGradients(make, seed);
        }),
        { numRuns: runs, seed: hash(name) },
      );
    });
  }
}

/** Checks one instance of a case. */
export async function checkGradients(make: (random: Random) => GradientCase, seed: number): Promise<void> {
  const random = new Random(seed);
  const check = make(random);
  const values = Object.fromEntries(
    Object.entries(check.inputs).map(([name, spec]) => [name, randomTensor(spec, random)]),
  );
  const buildSeed = random.int(0, 2 ** 30);
  const wrt = check.wrt ?? Object.keys(check.inputs);

  const forward = newGraph(check, 'fixed', values);
  const y = check.build(forward, new Random(buildSeed));
  forward.addOutput(y, 'float32', undefined);
  const session = await InferenceSession.create(forward.encode(), SESSION);
  const run = async (feeds: Record<string, Tensor>): Promise<Float32Array> => {
    const result = await session.run(toFeeds(feeds), [y]);
    return (result[y] as OrtTensor).data as Float32Array;
  };
  const shape = (await session.run(toFeeds(values), [y]))[y]?.dims as readonly number[];
  const weights = randomTensor({ shape, range: [-1, 1] }, random);
  const f = async (feeds: Record<string, Tensor>): Promise<number> => {
    const out = await run(feeds);
    let sum = 0;
    for (let i = 0; i < out.length; i++) sum += (out[i] as number) * (weights.data[i] as number);
    return sum;
  };

  // Directions: single elements where there are few, random ones (entries within ±1) where there are many.
  const directions: { name: string; direction: Float32Array; slope: number }[] = [];
  for (const name of wrt) {
    const size = (values[name] as Tensor).data.length;
    const single = size <= 12;
    for (let i = 0; i < (single ? size : 8); i++) {
      const direction = new Float32Array(size);
      if (single) direction[i] = 1;
      else for (let j = 0; j < size; j++) direction[j] = random.int(-4, 4) / 4;
      const slopeAt = async (h: number): Promise<number> => {
        const moved = (sign: number): Record<string, Tensor> => {
          const base = values[name] as Tensor<'float32'>;
          const data = base.data.map((value, j) => value + sign * h * (direction[j] as number));
          return { ...values, [name]: float32(base.shape, data) };
        };
        return ((await f(moved(1))) - (await f(moved(-1)))) / (2 * h);
      };
      const h = check.step ?? STEP;
      const [coarse, fine] = [await slopeAt(h), await slopeAt(h / 2)];
      directions.push({ name, direction, slope: (4 * fine - coarse) / 3 });
    }
  }
  await session.release();

  const modes: readonly Mode[] = check.modes ?? ['fixed', 'batch', 'unknown', 'initializers', 'cuda', 'webgpu'];
  for (const mode of modes) {
    if (mode === 'initializers' && Object.keys(values).length < 2) continue;
    const graph = newGraph(check, mode, values);
    const out = check.build(graph, new Random(buildSeed));
    graph.addInput('cotangent', 'float32', mode === 'unknown' ? shape.map(() => '') : shape);
    const loss = graph.add('ReduceSum', [graph.add('Mul', [out, 'cotangent'])], { keepdims: 0 });
    const gradients = addGradients(graph, { loss, wrt, outputs: true, target: mode === 'cuda' || mode === 'webgpu' ? mode : 'cpu' });
    const backward = await InferenceSession.create(graph.encode(), SESSION);
    const feeds = toFeeds({ ...values, cotangent: weights });
    const needed = Object.fromEntries(backward.inputNames.map((name) => [name, feeds[name] as OrtTensor]));
    const results = await backward.run(needed, [...gradients.values()]);
    await backward.release();
    for (const name of wrt) {
      const gradient = results[gradients.get(name) as string] as OrtTensor;
      expect(gradient.dims, `${mode}: shape of the gradient by ${name}`).toEqual((values[name] as Tensor).shape);
    }
    for (const { name, direction, slope } of directions) {
      const gradient = (results[gradients.get(name) as string] as OrtTensor).data as Float32Array;
      let found = 0;
      for (let j = 0; j < direction.length; j++) found += (gradient[j] as number) * (direction[j] as number);
      const allowed = (check.tolerance ?? 1e-3) * (1 + Math.abs(slope));
      expect(
        Math.abs(found - slope),
        `${mode}: gradient by ${name} is ${found}, differences say ${slope}`,
      ).toBeLessThanOrEqual(allowed);
    }
  }
}

/** A random float32 tensor on the grid of multiples of 2⁻¹⁰. */
export function randomTensor(spec: InputSpec, random: Random): Tensor<'float32'> {
  const { shape, range: [low, high] = [-2, 2], avoid = [], distinct = false } = spec;
  const size = sizeOf(shape);
  if (distinct) {
    // Spaced by 3 steps in random order, around 0.
    return float32(
      shape,
      random.permutation(size).map((rank) => (rank - (size >> 1)) * 3 * STEP + random.int(0, 8) / GRID),
    );
  }
  const draw = (): number => {
    for (;;) {
      const value = Math.round((low + (high - low) * random.next()) * GRID) / GRID;
      if (avoid.every((point) => Math.abs(value - point) > 1.5 * STEP)) return value;
    }
  };
  return float32(shape, Array.from({ length: size }, draw));
}

function newGraph(check: GradientCase, mode: Mode, values: Readonly<Record<string, Tensor>>): Graph {
  const graph = Graph.create({ opset: check.opset ?? 17 });
  Object.entries(check.inputs).forEach(([name, { shape, keepShape }], i) => {
    if (mode === 'initializers' && i > 0) graph.addInitializer(name, values[name] as Tensor);
    else if (mode === 'unknown' && !keepShape) graph.addInput(name, 'float32', shape.map(() => ''));
    else if (mode === 'batch' && !keepShape) {
      graph.addInput(name, 'float32', shape.map((size, axis) => (axis === 0 && i === 0 ? 'N' : size)));
    } else graph.addInput(name, 'float32', shape);
  });
  return graph;
}

function toFeeds(values: Readonly<Record<string, Tensor>>): Record<string, OrtTensor> {
  return Object.fromEntries(
    Object.entries(values).map(([name, { dtype, shape, data }]) => [
      name,
      new OrtTensor(dtype as 'float32', data as Float32Array, shape as number[]),
    ]),
  );
}

function hash(text: string): number {
  let value = 2166136261;
  for (const character of text) value = Math.imul(value ^ (character.codePointAt(0) as number), 16777619);
  return value | 0;
}
