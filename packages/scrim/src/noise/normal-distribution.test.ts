import { describe, expect, it } from 'vitest';
import { chiSquareToNormal, normalCdf, normalQuantile } from './normal-distribution.js';

describe('normal distribution', () => {
  // Tabulated to 16 digits by mpmath (ncdf at 40 digits).
  it.each([
    [0, 0.5],
    [1, 0.8413447460685429],
    [-1, 0.15865525393145705],
    [1.96, 0.9750021048517795],
    [-3, 0.0013498980316300946],
    [-3.0001, 0.0013494549132607181],
    [-5, 2.866515718791939e-7],
    [-8, 6.220960574271784e-16],
    [-37, 5.725571222524576e-300],
  ])('Φ(%d)', (x, p) => {
    expect(Math.abs(normalCdf(x) / p - 1)).toBeLessThan(1e-11);
  });

  it('has the quantile as its inverse, far into the tails', () => {
    for (const p of [1e-300, 1e-100, 1e-20, 1e-9, 1e-4, 0.02, 0.3, 0.5, 0.7, 0.98]) {
      expect(Math.abs(normalCdf(normalQuantile(p)) / p - 1)).toBeLessThan(1e-10);
    }
    expect(normalQuantile(0)).toBe(Number.NEGATIVE_INFINITY);
    expect(normalQuantile(1)).toBe(Number.POSITIVE_INFINITY);
    expect(normalQuantile(2)).toBeNaN();
  });

  it('brings chi-square to the normal scale', () => {
    // 0.999 quantiles of chi-square with 10 and 1000 degrees: 29.5883 and 1143.92; that of the normal is 3.0902.
    expect(chiSquareToNormal(29.5883, 10)).toBeCloseTo(3.0902, 1);
    expect(chiSquareToNormal(1143.92, 1000)).toBeCloseTo(3.0902, 2);
  });
});
