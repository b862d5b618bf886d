/** Optimizers: hand-computed steps, convergence, resumption bit for bit, schedules, clipping, averages. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import {
  adam,
  adamW,
  clipByGlobalNorm,
  constantSchedule,
  cosineDecay,
  exponentialAverage,
  type Optimizer,
  sgd,
  warmupFlatCosine,
} from './optimizers.js';

/** ∇ of ½ Σ c_i (p_i − i)², whose minimum is p_i = i. */
function bowl(parameters: Float32Array): Float32Array {
  return parameters.map((p, i) => (i + 1) * (p - i));
}

function run(optimizer: Optimizer, steps: number, size = 5): Float32Array {
  const parameters = { p: new Float32Array(size).fill(3) };
  let state = optimizer.init(parameters);
  for (let i = 0; i < steps; i++) state = optimizer.update(parameters, { p: bowl(parameters.p) }, state);
  return parameters.p;
}

describe('adam', () => {
  it('takes the steps of the paper', () => {
    // First step: m̂ = g and v̂ = g², so p moves by η·sign(g) (ε aside). Second step by hand for g = 2, then 1.
    const parameters = { p: Float32Array.of(1) };
    const optimizer = adam({ learningRate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 0 });
    let state = optimizer.init(parameters);
    state = optimizer.update(parameters, { p: Float32Array.of(2) }, state);
    expect(parameters.p[0]).toBeCloseTo(0.9, 6);
    state = optimizer.update(parameters, { p: Float32Array.of(1) }, state);
    const m = (0.9 * 0.2 + 0.1 * 1) / (1 - 0.81);
    const v = (0.99 * 0.04 + 0.01 * 1) / (1 - 0.9801);
    expect(parameters.p[0]).toBeCloseTo(0.9 - (0.1 * m) / Math.sqrt(v), 5);
    expect(state.step).toBe(2);
  });

  it('decays weights apart from the gradient', () => {
    const parameters = { p: Float32Array.of(2) };
    const optimizer = adamW({ learningRate: 0.1, weightDecay: 0.5 });
    optimizer.update(parameters, { p: Float32Array.of(0) }, optimizer.init(parameters));
    expect(parameters.p[0]).toBeCloseTo(2 - 0.1 * 0.5 * 2, 6);
  });

  it('is invariant to the scale of the gradient', () => {
    fc.assert(
      fc.property(fc.double({ min: 0.01, max: 100, noNaN: true }), (scale) => {
        const optimizer = adam({ learningRate: 0.05, epsilon: 0 });
        const [plain, scaled] = [1, scale].map((factor) => {
          const parameters = { p: Float32Array.of(1, -2, 3) };
          let state = optimizer.init(parameters);
          for (let i = 0; i < 5; i++) {
            state = optimizer.update(parameters, { p: bowl(parameters.p).map((g) => (g + 0.5) * factor) }, state);
          }
          return parameters.p;
        }) as [Float32Array, Float32Array];
        plain.forEach((value, i) => {
          expect(scaled[i]).toBeCloseTo(value, 4);
        });
      }),
      { seed: 1, numRuns: 20 },
    );
  });

  it('leaves parameters without a gradient alone and refuses what does not fit', () => {
    const parameters = { p: Float32Array.of(1), q: Float32Array.of(1) };
    const optimizer = adam();
    const state = optimizer.init(parameters);
    optimizer.update(parameters, { p: Float32Array.of(1) }, state);
    expect(parameters.q[0]).toBe(1);
    expect(() => optimizer.update(parameters, { p: Float32Array.of(1, 2) }, state)).toThrow(ScrimError);
    expect(() => optimizer.update(parameters, { r: Float32Array.of(1) }, state)).toThrow("parameter 'r' is missing");
    expect(() => adam({ beta1: 1 })).toThrow('beta1 is 1');
  });
});

describe.each<[string, () => Optimizer, number]>([
  ['adam with a cosine', () => adam({ learningRate: cosineDecay(0.3, 300) }), 300],
  ['adamW without decay', () => adamW({ learningRate: cosineDecay(0.3, 300), weightDecay: 0 }), 300],
  ['sgd', () => sgd({ learningRate: 0.2 }), 150],
  ['sgd with momentum', () => sgd({ learningRate: 0.05, momentum: 0.8 }), 300],
])('%s', (_, make, steps) => {
  it('finds the bottom of a bowl', () => {
    run(make(), steps).forEach((value, i) => {
      expect(value).toBeCloseTo(i, 3);
    });
  });

  it('goes on from a saved state bit for bit', () => {
    const whole = run(make(), 40);
    const parameters = { p: new Float32Array(5).fill(3) };
    let optimizer = make();
    let state = optimizer.init(parameters);
    for (let i = 0; i < 17; i++) state = optimizer.update(parameters, { p: bowl(parameters.p) }, state);
    // Through plain JSON, as a checkpoint might.
    const saved = JSON.stringify({
      step: state.step,
      p: [...parameters.p],
      moments: Object.entries(state.moments).map(([name, values]) => [name, [...values]]),
    });
    const read = JSON.parse(saved) as { step: number; p: number[]; moments: [string, number[]][] };
    const restored = { p: Float32Array.from(read.p) };
    optimizer = make();
    let again = {
      step: read.step,
      moments: Object.fromEntries(read.moments.map(([name, values]) => [name, Float32Array.from(values)])),
    };
    for (let i = 17; i < 40; i++) {
      again = optimizer.update(restored, { p: bowl(restored.p) }, again) as typeof again;
    }
    expect(restored.p).toEqual(whole);
  });
});

describe('schedules', () => {
  it('constant', () => expect(constantSchedule(0.3)(1e6)).toBe(0.3));

  it('cosine decay starts, halves, ends and stays', () => {
    const rate = cosineDecay(2, 100, 0.5);
    expect([0, 50, 100, 1000].map((step) => rate(step))).toEqual([2, expect.closeTo(1.25, 12), 0.5, 0.5]);
    expect(() => cosineDecay(1, 0)).toThrow(ScrimError);
  });

  it('warm-up, flat, cosine', () => {
    const rate = warmupFlatCosine(1, { steps: 1000, warmup: 0.04, flat: 0.7, final: 0.3 });
    expect(rate(0)).toBeCloseTo(1 / 40, 12);
    expect(rate(19)).toBeCloseTo(0.5, 12);
    expect([39, 300, 700].map(rate)).toEqual([1, 1, 1]);
    expect(rate(850)).toBeCloseTo(0.65, 12);
    expect(rate(1000)).toBeCloseTo(0.3, 12);
    expect(() => warmupFlatCosine(1, { steps: 10, warmup: 0.8, flat: 0.5 })).toThrow(ScrimError);
  });
});

describe('global norm', () => {
  it('is returned, and clipped to', () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: -10, max: 10, noNaN: true }), { minLength: 1, maxLength: 8 }),
        fc.double({ min: 0.1, max: 20, noNaN: true }),
        (values, limit) => {
          const gradients = { a: Float32Array.from(values), b: Float32Array.of(1) };
          const before = Math.hypot(...values, 1);
          expect(clipByGlobalNorm(gradients, limit)).toBeCloseTo(before, 4);
          expect(Math.hypot(...gradients.a, ...gradients.b)).toBeCloseTo(Math.min(before, limit), 4);
        },
      ),
      { seed: 2 },
    );
  });

  it('leaves gradients that are not finite for the caller to see', () => {
    const gradients = { a: Float32Array.of(1, Number.POSITIVE_INFINITY) };
    expect(clipByGlobalNorm(gradients, 1)).toBe(Number.POSITIVE_INFINITY);
    expect([...gradients.a]).toEqual([1, Number.POSITIVE_INFINITY]);
  });
});

describe('exponential average', () => {
  it('starts as a copy and follows', () => {
    const average = exponentialAverage(0.9);
    const parameters = { p: Float32Array.of(1) };
    const mean = average.init(parameters);
    parameters.p[0] = 2;
    expect(mean.p?.[0]).toBe(1);
    average.update(mean, parameters);
    expect(mean.p?.[0]).toBeCloseTo(1.1, 6);
    expect(() => exponentialAverage(1)).toThrow(ScrimError);
  });
});
