import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assertBox, type Box, intersectionOverUnion } from './intersection-over-union.js';

const side = fc.double({ min: 0, max: 500, noNaN: true });
const edge = fc.double({ min: -300, max: 300, noNaN: true });
const box: fc.Arbitrary<Box> = fc.record({ x: edge, y: edge, width: side, height: side });

describe('intersectionOverUnion', () => {
  it.each([
    ['equal', { x: 1, y: 2, width: 3, height: 4 }, { x: 1, y: 2, width: 3, height: 4 }, 1],
    ['half shifted', { x: 0, y: 0, width: 10, height: 10 }, { x: 5, y: 0, width: 10, height: 10 }, 1 / 3],
    ['inside', { x: 0, y: 0, width: 10, height: 10 }, { x: 2, y: 2, width: 5, height: 5 }, 0.25],
    ['a corner', { x: 0, y: 0, width: 2, height: 2 }, { x: 1, y: 1, width: 2, height: 2 }, 1 / 7],
    ['touching', { x: 0, y: 0, width: 2, height: 2 }, { x: 2, y: 0, width: 2, height: 2 }, 0],
    ['apart', { x: 0, y: 0, width: 2, height: 2 }, { x: 9, y: 9, width: 2, height: 2 }, 0],
    ['empty', { x: 0, y: 0, width: 0, height: 0 }, { x: 0, y: 0, width: 0, height: 0 }, 0],
  ])('is right for boxes that are %s', (_, a, b, expected) => {
    expect(intersectionOverUnion(a, b)).toBeCloseTo(expected, 14);
  });

  it('is symmetric, within [0, 1], and the same after a shift and a scaling by powers of two', () => {
    fc.assert(
      fc.property(box, box, (a, b) => {
        const overlap = intersectionOverUnion(a, b);
        expect(overlap).toBe(intersectionOverUnion(b, a));
        expect(overlap).toBeGreaterThanOrEqual(0);
        expect(overlap).toBeLessThanOrEqual(1);
        const scale = (r: Box): Box => ({ x: 4 * r.x, y: 4 * r.y, width: 4 * r.width, height: 4 * r.height });
        expect(intersectionOverUnion(scale(a), scale(b))).toBeCloseTo(overlap, 12);
      }),
      { seed: 1 },
    );
  });
});

describe('assertBox', () => {
  it.each([
    { x: Number.NaN, y: 0, width: 1, height: 1 },
    { x: 0, y: Infinity, width: 1, height: 1 },
    { x: 0, y: 0, width: -1, height: 1 },
    { x: 0, y: 0, width: 1, height: -1e-9 },
  ])('refuses %o', (bad) => {
    expect(() => assertBox(bad, 'faces[3]')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(() => assertBox(bad, 'faces[3]')).toThrow(/faces\[3\]/);
  });

  it('accepts an empty box', () => {
    expect(() => assertBox({ x: -5, y: 0, width: 0, height: 0 }, 'box')).not.toThrow();
  });
});
