import { describe, expect, it } from 'vitest';
import { rankOneRate } from './identification.js';

const galleryLabels = ['ada', 'grace', 'alan', 'ada'];

describe('rankOneRate', () => {
  it('counts the queries whose best entry is the right person', () => {
    const scores = [
      [0.1, 0.2, 0.3, 0.9],
      [0.5, 0.4, 0.1, 0.1],
      [-3, -2, -1, -4],
    ].flat();
    expect(rankOneRate({ scores, queryLabels: ['ada', 'grace', 'alan'], galleryLabels })).toBeCloseTo(2 / 3, 14);
  });

  it('gives an attacker who scores all alike what guessing gives', () => {
    const scores = new Float32Array(12);
    const rate = rankOneRate({ scores, queryLabels: ['ada', 'grace', 'nobody'], galleryLabels });
    expect(rate).toBeCloseTo((2 / 4 + 1 / 4 + 0) / 3, 14);
  });

  it('handles −Infinity as the worst score', () => {
    const scores = [-Infinity, -Infinity, -5, -Infinity];
    expect(rankOneRate({ scores, queryLabels: ['alan'], galleryLabels })).toBe(1);
  });

  it('refuses sizes that do not fit, empty sides and NaN', () => {
    const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
    expect(() => rankOneRate({ scores: [1], queryLabels: ['a'], galleryLabels })).toThrow(invalid);
    expect(() => rankOneRate({ scores: [], queryLabels: [], galleryLabels })).toThrow(invalid);
    expect(() => rankOneRate({ scores: [], queryLabels: ['a'], galleryLabels: [] })).toThrow(invalid);
    expect(() => rankOneRate({ scores: [0, 0, Number.NaN, 0], queryLabels: ['a'], galleryLabels })).toThrow(invalid);
  });
});
