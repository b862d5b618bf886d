import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeTaps, type ResampleKernel } from './resample.js';

/** `values` resampled to `to` with float64 sums. */
function apply(values: number[], to: number, kernel: ResampleKernel): number[] {
  const { count, starts, weights } = makeTaps(values.length, to, kernel);
  return Array.from({ length: to }, (_, i) => {
    let sum = 0;
    for (let t = 0; t < count; t++) sum += weights[i * count + t]! * values[starts[i]! + t]!;
    return sum;
  });
}

const close = (got: number[], expected: number[]): void => {
  expect(got.length).toBe(expected.length);
  got.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 4);
  });
};

describe('makeTaps', () => {
  it('enlarges linearly as OpenCV does: half-pixel centres, edges repeated', () => {
    close(apply([0, 100], 4, 'linear'), [0, 25, 75, 100]);
    close(apply([10, 20, 40], 5, 'linear'), [10, 14, 20, 32, 40]);
  });

  it('widens the kernel where it shrinks', () => {
    close(apply([0, 0, 80, 0, 0, 0, 0, 0], 4, 'linear'), [10, 30, 0, 0]);
  });

  it('copies what keeps its size', () => {
    expect(apply([3, 1, 4, 1, 5], 5, 'cubic')).toEqual([3, 1, 4, 1, 5]);
  });

  it('laws: weights sum to 1, taps lie inside, constants stay, mirrored input gives mirrored output', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(255), { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 90 }),
        fc.constantFrom<ResampleKernel>('linear', 'cubic'),
        (values, to, kernel) => {
          const { count, starts, weights } = makeTaps(values.length, to, kernel);
          for (let i = 0; i < to; i++) {
            const row = weights.subarray(i * count, (i + 1) * count);
            expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
            expect(starts[i]! + count).toBeLessThanOrEqual(values.length);
          }
          const mirrored = apply([...values].reverse(), to, kernel).reverse();
          apply(values, to, kernel).forEach((value, i) => {
            expect(Math.abs(value - mirrored[i]!)).toBeLessThan(0.01);
          });
        },
      ),
      { numRuns: 300, seed: 4 },
    );
  });

  it('reproduces straight lines away from the edges, cubic also where it enlarges', () => {
    for (const kernel of ['linear', 'cubic'] as const) {
      const line = Array.from({ length: 40 }, (_, i) => 3 * i + 7);
      const got = apply(line, 97, kernel);
      for (let i = 10; i < 87; i++) expect(got[i]).toBeCloseTo(3 * (((i + 0.5) * 40) / 97 - 0.5) + 7, 3);
    }
  });
});
