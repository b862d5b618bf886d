import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { percentile } from './server-state.js';

const EDGES = [0.001, 0.01, 0.1, 1, Number.POSITIVE_INFINITY];

/** The histogram of durations in seconds, as a server counts them. */
function histogram(durations: readonly number[]): [number, number][] {
  return EDGES.map((edge) => [edge, durations.filter((duration) => duration <= edge).length]);
}

describe('percentile', () => {
  it('lies in the bucket of the request that has that rank', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.0001, max: 0.99, noNaN: true }), { minLength: 1, maxLength: 50 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (durations, share) => {
          const ranked = [...durations].sort((a, b) => a - b);
          const exact = ranked[Math.ceil(share * ranked.length) - 1] as number;
          const found = (percentile(histogram(durations), share) as number) / 1000;
          const upper = EDGES.find((edge) => exact <= edge) as number;
          const lower = [0, ...EDGES].filter((edge) => edge < exact).at(-1) as number;
          expect(found).toBeGreaterThanOrEqual(lower);
          expect(found).toBeLessThanOrEqual(upper);
        },
      ),
    );
  });

  it('ends at the edge of the bucket, rounding or not', () => {
    expect(percentile(histogram([0.0010000000000000002]), 1)).toBe(10);
  });

  it('has nothing to say without requests, and the last edge for what lies beyond it', () => {
    expect(percentile(histogram([]), 0.5)).toBeUndefined();
    expect(percentile(histogram([5, 6]), 0.5)).toBe(1000);
  });
});
