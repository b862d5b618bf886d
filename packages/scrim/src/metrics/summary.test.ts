import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { betaProbability, betaQuantile } from './beta-distribution.js';
import { bootstrapInterval, mean, meanInterval, proportionInterval, quantile, standardDeviation } from './summary.js';

const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
const aps = [0.91, 0.935, 0.902, 0.894, 0.921, 0.907];

/** A small generator for repeatable tests (Park and Miller's minimal standard). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return (state - 1) / 2147483646;
  };
}

describe('mean, standard deviation and quantile', () => {
  it('agree with NumPy', () => {
    expect(mean(aps)).toBeCloseTo(0.9115, 15);
    expect(standardDeviation(aps)).toBeCloseTo(0.014570518178843209, 15);
    const values = [3, 1, 2, 10, 7];
    const expected = [1, 1.4, 2, 3, 8.8, 10];
    [0, 0.1, 0.25, 0.5, 0.9, 1].forEach((p, i) => {
      expect(quantile(values, p)).toBeCloseTo(expected[i]!, 14);
    });
    expect(values).toEqual([3, 1, 2, 10, 7]);
  });

  it('handle one value and infinities', () => {
    expect(quantile([4], 0.3)).toBe(4);
    expect(quantile([1, Infinity, Infinity], 0.75)).toBe(Infinity);
    expect(mean(Float32Array.of(2))).toBe(2);
  });

  it('refuse too few values, NaN and a p outside [0, 1]', () => {
    expect(() => mean([])).toThrow(invalid);
    expect(() => standardDeviation([1])).toThrow(invalid);
    expect(() => quantile([], 0.5)).toThrow(invalid);
    expect(() => quantile([1, Number.NaN], 0.5)).toThrow(invalid);
    expect(() => quantile([1], 1.1)).toThrow(invalid);
  });
});

// Expected: SciPy 1.17.1.
describe('intervals against SciPy', () => {
  it('has the right t interval for a mean', () => {
    expect(meanInterval(aps)).toMatchObject({ level: 0.95, samples: 6 });
    expect(meanInterval(aps).low).toBeCloseTo(0.8962091789313696, 13);
    expect(meanInterval(aps).high).toBeCloseTo(0.9267908210686305, 13);
    expect(meanInterval(aps, 0.99).low).toBeCloseTo(0.8875152444750258, 13);
    // Two values: t with one degree of freedom, 12.7062….
    expect(meanInterval([0, 2]).high - 1).toBeCloseTo(12.706204736174694, 9);
  });

  it.each([
    [7, 170, 0.95, 0.01671287148482251, 0.08299653645356782],
    [0, 20, 0.95, 0, 0.16843347098308548],
    [20, 20, 0.9, 0.8608916593316243, 1],
    [85, 170, 0.99, 0.399460486249268, 0.600539513750732],
    [1, 1, 0.95, 0.025, 1],
    [3000, 10000, 0.95, 0.2910276113098934, 0.30908899697596715],
  ])('has the exact interval for %d of %d at %d', (successes, trials, level, low, high) => {
    const interval = proportionInterval(successes, trials, level);
    expect(interval.estimate).toBe(successes / trials);
    expect(interval.low).toBeCloseTo(low, 12);
    expect(interval.high).toBeCloseTo(high, 12);
  });

  it.each([
    [0.3, 2, 5, 0.579825],
    [0.5, 0.5, 0.5, 0.5],
    [0.001, 0.5, 300, 0.5613457311299086],
    [0.9, 40, 3, 0.19510765482693676],
    [0.02, 1000, 40000, 4.3813571145640927e-10],
  ])('has the right beta distribution at %d for a = %d, b = %d', (x, a, b, expected) => {
    expect(Math.abs(betaProbability(x, a, b) / expected - 1)).toBeLessThan(1e-9);
    expect(betaQuantile(expected, a, b)).toBeCloseTo(x, 9);
  });

  it('refuse what makes no sense', () => {
    expect(() => meanInterval([1])).toThrow(invalid);
    expect(() => meanInterval([1, 2], 1)).toThrow(invalid);
    for (const [k, n] of [
      [-1, 3],
      [4, 3],
      [0, 0],
      [0.5, 1],
    ] as const) {
      expect(() => proportionInterval(k, n)).toThrow(invalid);
    }
    expect(() => betaProbability(2, 1, 1)).toThrow(invalid);
    expect(() => betaQuantile(-0.1, 1, 1)).toThrow(invalid);
  });
});

describe('betaQuantile', () => {
  it('undoes betaProbability', () => {
    const parameter = fc.double({ min: 0.5, max: 200, noNaN: true });
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 0.999, noNaN: true }), parameter, parameter, (p, a, b) => {
        expect(betaProbability(betaQuantile(p, a, b), a, b)).toBeCloseTo(p, 9);
      }),
      { seed: 16, numRuns: 60 },
    );
  });
});

describe('bootstrapInterval', () => {
  const normalish = (random: () => number) => Array.from({ length: 12 }, random).reduce((sum, u) => sum + u, -6);

  it('is close to the t interval for the mean of many values', () => {
    const random = seeded(7);
    const values = Array.from({ length: 200 }, () => normalish(random));
    const t = meanInterval(values);
    const bootstrap = bootstrapInterval(values, mean, { random });
    expect(bootstrap.estimate).toBe(t.estimate);
    expect(Math.abs(bootstrap.low - t.low)).toBeLessThan(0.02);
    expect(Math.abs(bootstrap.high - t.high)).toBeLessThan(0.02);
  });

  it('covers the true mean about as often as it says', () => {
    const random = seeded(11);
    let covered = 0;
    for (let r = 0; r < 400; r++) {
      const values = Array.from({ length: 40 }, () => normalish(random));
      const { low, high } = bootstrapInterval(values, mean, { random, level: 0.9, resamples: 200 });
      if (low <= 0 && 0 <= high) covered++;
    }
    // 0.9 of 400 is 360 with standard deviation 6; the percentile bootstrap covers slightly less. Seeded, so it is fixed.
    expect(covered).toBeGreaterThan(335);
    expect(covered).toBeLessThan(385);
  });

  it('repeats with the same random numbers and takes items of any kind', () => {
    const people = ['ada', 'grace', 'alan', 'edsger', 'barbara'].map((name) => ({ name }));
    const lengths = (items: readonly { name: string }[]) => mean(items.map(({ name }) => name.length));
    const once = bootstrapInterval(people, lengths, { random: seeded(3) });
    expect(bootstrapInterval(people, lengths, { random: seeded(3) })).toEqual(once);
    expect(once.samples).toBe(5);
    expect(once.low).toBeLessThanOrEqual(once.estimate);
    expect(once.high).toBeGreaterThanOrEqual(once.estimate);
  });

  it('refuses no items and too few resamples', () => {
    expect(() => bootstrapInterval([], mean, { random: seeded(1) })).toThrow(invalid);
    expect(() => bootstrapInterval([1], mean, { random: seeded(1), resamples: 10 })).toThrow(invalid);
    expect(() => bootstrapInterval([1], mean, { random: seeded(1), level: 0 })).toThrow(invalid);
  });
});
