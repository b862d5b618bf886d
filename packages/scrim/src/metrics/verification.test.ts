import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { rocAuc, tarAtFar } from './verification.js';

const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
const scores = fc.array(fc.integer({ min: -4, max: 4 }), { minLength: 1, maxLength: 12 });

describe('rocAuc', () => {
  it.each([
    [[3, 4], [1, 2], 1],
    [[1, 2], [3, 4], 0],
    [[1, 1], [1, 1], 0.5],
    [[2, 0], [1], 0.5],
    [[2, 1], [1, 0], 0.875],
  ])('is right by hand for %j against %j', (genuine, impostor, expected) => {
    expect(rocAuc(genuine, impostor)).toBe(expected);
  });

  it('agrees with scikit-learn 1.9.1', () => {
    const genuine: number[] = [];
    const impostor: number[] = [];
    for (let i = 0; i < 60; i++) ((i * i + 3 * i) % 7 < 3 ? genuine : impostor).push(((i * 37) % 41) / 41);
    expect(rocAuc(genuine, impostor)).toBeCloseTo(0.5697674418604651, 14);
  });

  it('is the share of pairs in the right order, a tie counting half', () => {
    fc.assert(
      fc.property(scores, scores, (genuine, impostor) => {
        let wins = 0;
        for (const g of genuine) for (const i of impostor) wins += g > i ? 1 : g === i ? 0.5 : 0;
        expect(rocAuc(genuine, impostor)).toBe(wins / (genuine.length * impostor.length));
      }),
      { seed: 17 },
    );
  });

  it('refuses no scores and NaN', () => {
    expect(() => rocAuc([], [1])).toThrow(invalid);
    expect(() => rocAuc([1], [])).toThrow(invalid);
    expect(() => rocAuc([Number.NaN], [1])).toThrow(invalid);
  });
});

describe('tarAtFar', () => {
  const impostor = Array.from({ length: 100 }, (_, i) => i);

  it('is right by hand', () => {
    // One false accept in 100 is allowed: impostor 99 may pass, so the threshold is 98.
    expect(tarAtFar([98, 98.5, 120], impostor, 0.01)).toEqual({ threshold: 98, tar: 2 / 3, far: 0.01 });
    expect(tarAtFar([98, 98.5, 120], impostor, 0)).toEqual({ threshold: 99, tar: 1 / 3, far: 0 });
    expect(tarAtFar([-5, 3], impostor, 1)).toEqual({ threshold: -Infinity, tar: 1, far: 1 });
  });

  it('counts exactly where the rate times the number of pairs rounds down in floating point', () => {
    for (let k = 0; k <= 100; k++) expect(tarAtFar([0], impostor, k / 100).far).toBe(k / 100);
  });

  it('does not let tied impostors through together', () => {
    expect(tarAtFar([5, 6], [5, 5, 5, 1], 0.5)).toEqual({ threshold: 5, tar: 0.5, far: 0 });
  });

  it('is the best of all thresholds that keep the rate', () => {
    fc.assert(
      fc.property(scores, scores, fc.integer({ min: 0, max: 12 }), (genuine, other, twelfths) => {
        const far = twelfths / 12;
        const share = (list: number[], t: number) => list.filter((s) => s > t).length / list.length;
        const best = Math.max(
          ...[-Infinity, ...genuine, ...other]
            .filter((t) => share(other, t) <= far + 1e-12)
            .map((t) => share(genuine, t)),
        );
        const point = tarAtFar(genuine, other, far);
        expect(point.tar).toBe(best);
        expect(point.far).toBeLessThanOrEqual(far + 1e-12);
      }),
      { seed: 18 },
    );
  });

  it('refuses a rate outside [0, 1]', () => {
    expect(() => tarAtFar([1], [1], -0.1)).toThrow(invalid);
    expect(() => tarAtFar([1], [1], Number.NaN)).toThrow(invalid);
  });
});
