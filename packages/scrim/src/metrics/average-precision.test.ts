import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { averagePrecision, precisionRecallCurve } from './average-precision.js';

/**
 * The definition, read literally: to find the i-th face, the best precision of any threshold that finds at least i
 * faces; averaged over all faces.
 */
function literal(right: readonly number[], wrong: readonly number[], positives: number): number {
  const thresholds = [...new Set([...right, ...wrong])];
  let sum = 0;
  for (let i = 1; i <= positives; i++) {
    let best = 0;
    for (const t of thresholds) {
      const found = right.filter((s) => s >= t).length;
      const kept = found + wrong.filter((s) => s >= t).length;
      if (found >= i) best = Math.max(best, found / kept);
    }
    sum += best;
  }
  return sum / positives;
}

const scores = (maxLength: number) =>
  fc.array(
    fc.integer({ min: 0, max: 20 }).map((s) => s / 16),
    { maxLength },
  );
const sample = fc.tuple(scores(15), scores(15), fc.integer({ min: 1, max: 20 })).map(([right, wrong, more]) => ({
  right,
  wrong,
  positives: right.length + more - 1 || 1,
}));

describe('averagePrecision', () => {
  it.each([
    ['nothing found', [], [], 3, 0],
    ['only false positives', [], [0.9, 0.8], 3, 0],
    ['all found, nothing else', [0.9, 0.2, 0.5], [], 3, 1],
    ['all found before the first mistake', [0.9, 0.5], [0.1, 0.1], 2, 1],
    ['half found', [0.9], [], 2, 0.5],
    // Ranking: right, wrong, right. Precision 1 up to recall 1/2, then 2/3.
    ['right, wrong, right', [0.9, 0.7], [0.8], 2, 5 / 6],
    // Wrong, right, right, wrong of 4 faces: precisions 1/2 and 2/3; the envelope lifts the first to 2/3.
    ['the envelope', [0.8, 0.7], [0.9, 0.1], 4, 1 / 3],
    // A tie can't be split: both faces come with one mistake.
    ['a tie', [0.5, 0.5], [0.5], 2, 2 / 3],
  ])('is right by hand for %s', (_, right, wrong, positives, expected) => {
    expect(averagePrecision(right, wrong, positives)).toBeCloseTo(expected, 14);
  });

  it('without interpolation takes the precision as it is', () => {
    expect(averagePrecision([0.8, 0.7], [0.9, 0.1], 4, { interpolation: 'none' })).toBeCloseTo((1 / 2 + 2 / 3) / 4, 14);
  });

  it('without interpolation agrees with scikit-learn 1.9.1', () => {
    const right: number[] = [];
    const wrong: number[] = [];
    for (let i = 0; i < 60; i++) ((i * i + 3 * i) % 7 < 3 ? right : wrong).push(((i * 37) % 41) / 41);
    expect(right).toHaveLength(17);
    expect(averagePrecision(right, wrong, 17, { interpolation: 'none' })).toBeCloseTo(0.37256861668352353, 14);
  });

  it('is what the definition says', () => {
    fc.assert(
      fc.property(sample, ({ right, wrong, positives }) => {
        expect(averagePrecision(right, wrong, positives)).toBeCloseTo(literal(right, wrong, positives), 12);
      }),
      { seed: 4, numRuns: 500 },
    );
  });

  it('does not change under a monotone change of scores, nor with the order of scores', () => {
    fc.assert(
      fc.property(sample, ({ right, wrong, positives }) => {
        const ap = averagePrecision(right, wrong, positives);
        const squash = (s: number): number => Math.tanh(s) * 7 - 3;
        expect(averagePrecision(right.map(squash), wrong.map(squash), positives)).toBe(ap);
        expect(averagePrecision([...right].reverse(), [...wrong].reverse(), positives)).toBe(ap);
      }),
      { seed: 5, numRuns: 300 },
    );
  });

  it('never rises with another false positive, and does not change with one below every right detection', () => {
    fc.assert(
      fc.property(sample, fc.double({ min: 0, max: 1.3, noNaN: true }), ({ right, wrong, positives }, score) => {
        const ap = averagePrecision(right, wrong, positives);
        expect(averagePrecision(right, [...wrong, score], positives)).toBeLessThanOrEqual(ap + 1e-15);
        expect(averagePrecision(right, [...wrong, -1], positives)).toBe(ap);
      }),
      { seed: 6, numRuns: 300 },
    );
  });

  it('refuses what makes no sense', () => {
    const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
    expect(() => averagePrecision([], [], 0)).toThrow(invalid);
    expect(() => averagePrecision([], [], 1.5)).toThrow(invalid);
    expect(() => averagePrecision([1, 2], [], 1)).toThrow(invalid);
    expect(() => averagePrecision([Number.NaN], [], 1)).toThrow(invalid);
    expect(() => averagePrecision([], [Infinity], 1)).toThrow(invalid);
  });

  it('leaves its arguments alone', () => {
    const right = [0.1, 0.9, 0.5];
    averagePrecision(right, right, 3);
    expect(right).toEqual([0.1, 0.9, 0.5]);
  });
});

describe('precisionRecallCurve', () => {
  it('has a point for each distinct score', () => {
    expect(precisionRecallCurve([0.9, 0.5], [0.7, 0.5], 4)).toEqual([
      { threshold: 0.9, precision: 1, recall: 0.25 },
      { threshold: 0.7, precision: 0.5, recall: 0.25 },
      { threshold: 0.5, precision: 0.5, recall: 0.5 },
    ]);
    expect(precisionRecallCurve([], [], 4)).toEqual([]);
  });

  it('has rising recall and falling thresholds', () => {
    fc.assert(
      fc.property(sample, ({ right, wrong, positives }) => {
        const curve = precisionRecallCurve(right, wrong, positives);
        for (let i = 1; i < curve.length; i++) {
          expect(curve[i]!.threshold).toBeLessThan(curve[i - 1]!.threshold);
          expect(curve[i]!.recall).toBeGreaterThanOrEqual(curve[i - 1]!.recall);
        }
      }),
      { seed: 7 },
    );
  });
});
