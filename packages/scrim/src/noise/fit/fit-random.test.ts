import { describe, expect, it } from 'vitest';
import { createFitRandom } from './fit-random.js';

describe('fit randomness', () => {
  it('draws standard normals: moments and tails within 6 standard errors', () => {
    const n = 400_000;
    const values = new Float32Array(n);
    createFitRandom('moments').normal(values);
    const moment = (k: number): number => values.reduce((sum, x) => sum + x ** k, 0) / n;
    // Standard errors of the first four moments of a standard normal: 1, √2, √15, √96 over √n.
    for (const [k, expected, deviation] of [
      [1, 0, 1],
      [2, 1, Math.SQRT2],
      [3, 0, Math.sqrt(15)],
      [4, 3, Math.sqrt(96)],
    ] as const) {
      expect(Math.abs(moment(k) - expected)).toBeLessThan((6 * deviation) / Math.sqrt(n));
    }
    for (const [edge, p] of [
      [1, 0.317310508],
      [2, 0.045500264],
      [3, 0.002699796],
      [3.8, 0.000144696],
    ] as const) {
      const share = values.filter((x) => Math.abs(x) > edge).length / n;
      expect(Math.abs(share - p)).toBeLessThan(6 * Math.sqrt((p * (1 - p)) / n));
    }
  });

  it('repeats from a seed, differs between seeds and goes on from a saved state', () => {
    const draw = (seed: string): number[] => {
      const out = new Float32Array(5);
      createFitRandom(seed).normal(out);
      return [...out];
    };
    expect(draw('a')).toEqual(draw('a'));
    expect(draw('a')).not.toEqual(draw('b'));
    const source = createFitRandom('c');
    source.integer(10);
    const state = source.state();
    const next = [source.uniform(), source.integer(1000)];
    source.restore(state);
    expect([source.uniform(), source.integer(1000)]).toEqual(next);
  });
});
