import { describe, expect, it } from 'vitest';
import { float32, tensor } from '../tensor.js';
import { mse, psnr } from './squared-error.js';

describe('mse and psnr', () => {
  it('are right by hand', () => {
    const a = float32([2, 2], [0, 1, 2, 3]);
    const b = float32([2, 2], [0, 1, 2, 5]);
    expect(mse(a, b)).toBe(1);
    expect(psnr(a, b, { dataRange: 10 })).toBeCloseTo(20, 12);
    expect(psnr(a, a, { dataRange: 10 })).toBe(Infinity);
  });

  it('take bytes without wrapping around', () => {
    const a = tensor('uint8', [2], Uint8Array.of(0, 255));
    const b = tensor('uint8', [2], Uint8Array.of(255, 0));
    expect(mse(a, b)).toBe(255 ** 2);
    expect(psnr(a, b, { dataRange: 255 })).toBeCloseTo(0, 12);
  });

  it('refuse shapes that differ, empty tensors and ranges that make no sense', () => {
    const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
    expect(() => mse(float32([4], [1, 2, 3, 4]), float32([2, 2], [1, 2, 3, 4]))).toThrow(invalid);
    expect(() => mse(float32([0], []), float32([0], []))).toThrow(invalid);
    for (const dataRange of [0, -1, Number.NaN, Infinity]) {
      expect(() => psnr(float32([1], [1]), float32([1], [2]), { dataRange })).toThrow(invalid);
    }
  });
});
