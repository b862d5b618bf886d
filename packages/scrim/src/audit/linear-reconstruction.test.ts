import { describe, expect, it } from 'vitest';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { float32 } from '../tensor.js';
import { createReconstructionFitter, reconstruct } from './linear-reconstruction.js';

describe('linear reconstruction', () => {
  const random = createFitRandom('reconstruction');
  const picture = (): { data: Uint8Array; width: number; height: number } => ({
    data: Uint8Array.from({ length: 6 * 4 * 3 }, () => random.integer(256)),
    width: 6,
    height: 4,
  });
  /** A release that is a linear image of each 2×2 patch: 12 channels, one a pixel and colour. */
  const encode = (image: { data: Uint8Array }, noise: number) => {
    const normals = new Float32Array(12 * 6);
    random.normal(normals);
    const release = float32([1, 12, 2, 3], new Float32Array(12 * 6));
    for (let row = 0; row < 2; row++) {
      for (let column = 0; column < 3; column++) {
        for (let j = 0; j < 12; j++) {
          const at = ((row * 2 + Math.floor(j / 6)) * 6 + column * 2) * 3 + (j % 6);
          const index = j * 6 + row * 3 + column;
          release.data[index] = ((image.data[at] as number) / 255) * (1 + j / 12) + noise * (normals[index] as number);
        }
      }
    }
    return release;
  };

  it('finds a linear map exactly', () => {
    const fitter = createReconstructionFitter(12, 2);
    for (let i = 0; i < 60; i++) {
      const image = picture();
      fitter.add(encode(image, 0), image);
    }
    const fitted = fitter.solve();
    const image = picture();
    const guess = reconstruct(fitted, encode(image, 0));
    const worst = Math.max(...guess.data.map((value, i) => Math.abs(value - (image.data[i] as number))));
    expect(worst).toBeLessThanOrEqual(2);
  });

  it('falls back to the mean picture under noise that hides everything', () => {
    const fitter = createReconstructionFitter(12, 2);
    for (let i = 0; i < 200; i++) {
      const image = picture();
      fitter.add(encode(image, 100), image);
    }
    const guess = reconstruct(fitter.solve(), encode(picture(), 100));
    for (const value of guess.data) expect(Math.abs(value - 127.5)).toBeLessThan(50);
  });

  it('refuses to solve without data and names a picture of the wrong size', () => {
    const fitter = createReconstructionFitter(12, 2);
    expect(() => fitter.solve()).toThrowError(/nothing to fit/);
    const image = picture();
    expect(() => fitter.add(float32([1, 12, 1, 1], new Float32Array(12)), image)).toThrowError(/6×4/);
  });
});
