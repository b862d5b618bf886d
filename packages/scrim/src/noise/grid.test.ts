import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type GridInput, planGrid, quantiseValue, releaseValue } from './grid.js';

const usual: GridInput = {
  channel: 3,
  clipLow: -4,
  clipHigh: 4,
  largestGain: 1,
  smallestSigma: 0.5,
  largestSigma: 0.5,
  largestMean: 0.1,
};

describe('planGrid', () => {
  it('takes the largest power of two that is at most σ/64', () => {
    expect(planGrid(usual)).toEqual({ step: 2 ** -7, low: -512, high: 512 });
    expect(planGrid({ ...usual, smallestSigma: 0.499, largestSigma: 0.499 }).step).toBe(2 ** -8);
    fc.assert(
      fc.property(fc.float({ min: Math.fround(1e-3), max: 10, noNaN: true }), (sigma) => {
        const { step } = planGrid({ ...usual, clipLow: 0, clipHigh: 0.1, smallestSigma: sigma, largestSigma: sigma });
        expect(Number.isInteger(Math.log2(step))).toBe(true);
        expect(sigma / step).toBeGreaterThanOrEqual(64);
        expect(sigma / step).toBeLessThan(128);
      }),
      { seed: 1 },
    );
  });

  it('doubles the step until the range fits Int16, and no further', () => {
    const { step, low, high } = planGrid({ ...usual, clipLow: -1000, clipHigh: 1500 });
    expect(step).toBe(2 ** -4);
    expect([low, high]).toEqual([-16000, 24000]);
  });

  it('refuses a step above σ, and gains and means that are too large', () => {
    const wrong: Partial<GridInput>[] = [
      { clipHigh: 1e5, smallestSigma: 0.1 },
      { largestMean: 1e9 },
      { largestSigma: 1e9 },
      { clipLow: -1e30, clipHigh: 1e30 },
    ];
    for (const input of wrong) {
      expect(() => planGrid({ ...usual, ...input })).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('channel 3') }),
      );
    }
  });
});

describe('releaseValue', () => {
  const channel = { gain: 0, scale: 0, offset: 0, clipLow: -4, clipHigh: 4, gridLow: -512, gridHigh: 512 };

  it('is round(m·clip(z)/step) + round(μ/step + ε·σ/step), clamped', () => {
    const input = fc.record({
      z: fc.float({ min: -10, max: 10, noNaN: true }),
      epsilon: fc.float({ min: -8, max: 8, noNaN: true }),
      m: fc.float({ min: 0, max: 4, noNaN: true }),
      sigma: fc.float({ min: Math.fround(0.5), max: Math.fround(0.99), noNaN: true }),
      mean: fc.float({ min: -1, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(input, ({ z, epsilon, m, sigma, mean }) => {
        const k = releaseValue(z, epsilon, m * 128, -sigma * 128, -mean * 128, channel);
        const q = m * Math.min(Math.max(z, -4), 4) * 128;
        const n = (mean + sigma * epsilon) * 128;
        expect(Number.isInteger(k)).toBe(true);
        // Both are rounded: at most ½ each, and what float32 adds.
        expect(Math.abs(k - Math.min(Math.max(q + n, -512), 512))).toBeLessThanOrEqual(1.001);
      }),
      { numRuns: 2000, seed: 1 },
    );
  });

  it('adds the same integer to every input: the noise does not see the activation', () => {
    const wide = { ...channel, gridLow: -32768, gridHigh: 32767 };
    fc.assert(
      fc.property(
        fc.float({ min: -4, max: 4, noNaN: true }),
        fc.float({ min: -4, max: 4, noNaN: true }),
        fc.float({ min: -8, max: 8, noNaN: true }),
        (z, other, epsilon) => {
          const noise = (value: number): number =>
            releaseValue(value, epsilon, 128, -71.3, -9.7, wide) - quantiseValue(value, 128, -4, 4);
          expect(noise(z)).toBe(noise(other));
        },
      ),
      { seed: 2 },
    );
  });

  it('rounds ties to even, and gives NaN for NaN', () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5].map((value) => quantiseValue(value, 1, -9, 9))).toEqual([0, 2, 2, 0, -2]);
    expect(quantiseValue(Number.POSITIVE_INFINITY, 1, -9, 9)).toBe(9);
    expect(quantiseValue(Number.NaN, 1, -9, 9)).toBeNaN();
  });
});
