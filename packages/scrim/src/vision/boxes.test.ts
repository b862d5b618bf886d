import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { decodeBoxes, overlap, selectByScore, suppressOverlaps } from './boxes.js';

describe('selectByScore', () => {
  it('takes what reaches the floor, strongest first, ties in order, at most so many', () => {
    const scores = Float32Array.of(0.2, 0.9, 0.5, Number.NaN, 0.9, 0.05, 0.5);
    expect([...selectByScore(scores, 7, 0.2, 10)]).toEqual([1, 4, 2, 6, 0]);
    expect([...selectByScore(scores, 7, 0.2, 2)]).toEqual([1, 4]);
    expect([...selectByScore(scores, 7, 0.95, 2)]).toEqual([]);
    expect([...selectByScore(scores, 3, 0, 9)]).toEqual([1, 2, 0]);
  });

  it('reads one column of a table', () => {
    const table = Float32Array.of(0.9, 0.1, 0.2, 0.8, 0.5, 0.5);
    expect([...selectByScore(table, 3, 0.3, 9, 2, 1)]).toEqual([1, 2]);
    expect(() => selectByScore(table, 4, 0.3, 9, 2, 1)).toThrow(ScrimError);
  });

  it('law: it is sorting and cutting', () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: 0, max: 1, noNaN: true }), { maxLength: 300 }),
        fc.nat(100),
        (list, limit) => {
          const scores = Float32Array.from(list);
          const expected = Array.from(scores.keys())
            .filter((i) => scores[i]! >= 0.25)
            .sort((a, b) => scores[b]! - scores[a]! || a - b)
            .slice(0, limit);
          expect([...selectByScore(scores, scores.length, 0.25, limit)]).toEqual(expected);
        },
      ),
      { numRuns: 300, seed: 1 },
    );
  });
});

describe('decodeBoxes', () => {
  it('moves by the anchor size times the first variance, scales by the exponential of the second', () => {
    const anchors = Float32Array.of(0, 0, 1, 1, 100, 50, 40, 20);
    const offsets = Float32Array.of(9, 9, 9, 9, 0, 0, 0, 0, 1, -2, Math.log(2) / 0.2, 0);
    expect([...decodeBoxes(offsets, anchors, [0.1, 0.2], Uint32Array.of(1), 4)]).toEqual([
      ...[100 + 4 - 40, 50 - 4 - 10, 100 + 4 + 40, 50 - 4 + 10].map(Math.fround),
    ]);
    expect([...decodeBoxes(new Float32Array(8), anchors, [0.1, 0.2], Uint32Array.of(1, 0))]).toEqual([
      80, 40, 120, 60, -0.5, -0.5, 0.5, 0.5,
    ]);
  });
});

const boxes = fc.array(
  fc.tuple(fc.nat(100), fc.nat(100), fc.nat(60), fc.nat(60)).map(([x, y, w, h]) => [x, y, x + w, y + h]),
  { minLength: 2, maxLength: 40 },
);

describe('overlap and suppressOverlaps', () => {
  it('measures shared area over joint area', () => {
    const pair = Float32Array.of(0, 0, 10, 10, 5, 0, 15, 10, 20, 20, 30, 30, 3, 3, 3, 3);
    expect(overlap(pair, 0, pair, 1)).toBeCloseTo(50 / 150, 12);
    expect(overlap(pair, 0, pair, 2)).toBe(0);
    expect(overlap(pair, 3, pair, 3)).toBe(0);
    expect(overlap(pair, 0, pair, 0)).toBe(1);
  });

  it('keeps the stronger of two that overlap too much, and respects the limit', () => {
    const list = Float32Array.of(0, 0, 10, 10, 1, 0, 11, 10, 50, 50, 60, 60, 5, 0, 15, 10);
    expect([...suppressOverlaps(list, 0.3, 9)]).toEqual([0, 2]);
    expect([...suppressOverlaps(list, 0.4, 9)]).toEqual([0, 2, 3]);
    expect([...suppressOverlaps(list, 0.3, 1)]).toEqual([0]);
  });

  it('drops boxes that are not finite', () => {
    const list = Float32Array.of(Number.NaN, 0, 1, 1, 0, 0, Number.POSITIVE_INFINITY, 1, 0, 0, 5, 5);
    expect([...suppressOverlaps(list, 0.3, 9)]).toEqual([2]);
  });

  it('laws: overlap is symmetric and within 0 and 1; the kept are apart, the dropped are near a stronger one', () => {
    fc.assert(
      fc.property(boxes, fc.double({ min: 0.05, max: 0.95, noNaN: true }), (rows, threshold) => {
        const list = Float32Array.from(rows.flat());
        const kept = [...suppressOverlaps(list, threshold, 1000)];
        for (let i = 0; i < rows.length; i++) {
          for (let j = 0; j < rows.length; j++) {
            const value = overlap(list, i, list, j);
            expect(value).toBe(overlap(list, j, list, i));
            expect(value >= 0 && value <= 1).toBe(true);
            if (i < j && kept.includes(i) && kept.includes(j)) expect(value <= threshold + 1e-12).toBe(true);
          }
          const near = kept.some((k) => k < i && overlap(list, k, list, i) > threshold - 1e-12);
          if (!kept.includes(i)) expect(near).toBe(true);
        }
      }),
      { numRuns: 200, seed: 2 },
    );
  });
});
