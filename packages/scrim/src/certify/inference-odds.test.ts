import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { binaryDivergence, inferenceOdds } from './inference-odds.js';

describe('inferenceOdds', () => {
  it('gives the prior for no information and says vacuous from ln(1/prior) on', () => {
    expect(inferenceOdds(0.3, 0)).toEqual({ prior: 0.3, posterior: expect.closeTo(0.3, 7), vacuous: false });
    expect(inferenceOdds(0.5, Math.LN2)).toEqual({ prior: 0.5, posterior: 1, vacuous: true });
    expect(inferenceOdds(0.001, 6.9).vacuous).toBe(false);
    expect(inferenceOdds(0.001, 6.91).vacuous).toBe(true);
  });

  it('solves the inequality from above, and grows with information', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 1e-6, max: 0.99, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (p, t) => {
          const nats = t * -Math.log(p) * 0.999;
          const { posterior } = inferenceOdds(p, nats);
          expect(posterior).toBeGreaterThanOrEqual(p);
          expect(binaryDivergence(posterior, p)).toBeGreaterThanOrEqual(nats * (1 - 1e-9) - 1e-12);
          expect(binaryDivergence(posterior, p)).toBeLessThanOrEqual(nats * (1 + 1e-6) + 1e-9);
          expect(inferenceOdds(p, nats / 2).posterior).toBeLessThanOrEqual(posterior);
        },
      ),
    );
  });

  it('is above what the best attacker of a Gaussian channel reaches (Monte Carlo, 20,000 draws)', () => {
    // One of N levels, equally likely, plus noise of σ = 1; the best guess is the nearest level.
    const random = createFitRandom('odds');
    const draw = new Float32Array(1);
    for (const [count, distance] of [
      [2, 0.7],
      [2, 1.5],
      [10, 0.3],
    ] as const) {
      let right = 0;
      const draws = 20_000;
      for (let k = 0; k < draws; k++) {
        const level = random.integer(count);
        random.normal(draw);
        const guess = Math.round(level + (draw[0] as number) / distance);
        if (Math.max(0, Math.min(count - 1, guess)) === level) right++;
      }
      const variance = (distance ** 2 * (count ** 2 - 1)) / 12;
      const { posterior } = inferenceOdds(1 / count, 0.5 * Math.log1p(variance));
      expect(posterior).toBeLessThan(1);
      // Four standard deviations of the count: a false alarm in about 30,000 runs, and the seed is fixed.
      expect(right / draws).toBeLessThan(posterior + 4 * Math.sqrt(0.25 / draws));
    }
  });

  it('refuses what is no probability', () => {
    expect(() => inferenceOdds(0, 1)).toThrow(/prior is 0/);
    expect(() => inferenceOdds(1, 1)).toThrow(/prior is 1/);
    expect(() => inferenceOdds(0.5, -1)).toThrow(/nats is -1/);
    expect(() => inferenceOdds(0.5, Number.NaN)).toThrow(/nats is NaN/);
  });
});
