import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { float32, type Tensor, tensor } from '../tensor.js';
import { mse, psnr } from './squared-error.js';
import { CENTRED_UNIT, centredSsim, PHOTO_COLOUR, ssim } from './ssim.js';

/** Two images of a formula that is quickly written in any language; pixels in 0…255. */
function pair(channels: number, height: number, width: number): { a: Uint8Array; b: Uint8Array } {
  const a = new Uint8Array(channels * height * width);
  const b = new Uint8Array(a.length);
  let i = 0;
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        a[i] = (3 * x + 5 * y + 40 * c + ((x * y) % 17) * 4) % 256;
        b[i] = Math.min(255, Math.max(0, a[i]! + ((7 * x + 13 * y + c) % 61) - 30));
      }
    }
  }
  return { a, b };
}

const double = (shape: number[], values: Iterable<number>): Tensor<'float64'> =>
  tensor('float64', shape, Float64Array.from(values));

// Expected: scikit-image 0.26.0, structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
describe('ssim against scikit-image', () => {
  it('agrees for colour bytes, as do mse and psnr', () => {
    const { a, b } = pair(3, 40, 33);
    const x = tensor('uint8', [3, 40, 33], a);
    const y = tensor('uint8', [3, 40, 33], b);
    expect(ssim(x, y, { dataRange: 255 })).toBeCloseTo(0.8509515720676566, 12);
    expect(mse(x, y)).toBeCloseTo(285.655303030303, 10);
    expect(psnr(x, y, { dataRange: 255 })).toBeCloseTo(23.57238069963308, 12);
  });

  it('agrees channel by channel', () => {
    const { a, b } = pair(3, 40, 33);
    [0.8153961827087378, 0.8652946887197503, 0.8721638447744816].forEach((expected, c) => {
      const plane = (data: Uint8Array) => tensor('uint8', [40, 33], data.slice(c * 1320, (c + 1) * 1320));
      expect(ssim(plane(a), plane(b), { dataRange: 255 })).toBeCloseTo(expected, 12);
    });
  });

  it('agrees for an image as low as the window, in [0, 1]', () => {
    const { a, b } = pair(1, 11, 27);
    const scale = (data: Uint8Array) =>
      double(
        [1, 1, 11, 27],
        Array.from(data, (v) => v / 255),
      );
    expect(ssim(scale(a), scale(b), { dataRange: 1 })).toBeCloseTo(0.7533266636713847, 12);
  });

  it('agrees for an image and its negative, in [−1, 1]', () => {
    const { a } = pair(1, 24, 31);
    const image = double(
      [24, 31],
      Array.from(a, (v) => v / 127.5 - 1),
    );
    const negative = double(
      [24, 31],
      Array.from(a, (v) => 1 - v / 127.5),
    );
    expect(ssim(image, negative, { dataRange: 2 })).toBeCloseTo(0.7370643968355987, 12);
  });
});

describe('laws of ssim', () => {
  const pixels = fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 180, maxLength: 180 });

  it('is 1 for equal images, symmetric, and at most 1', () => {
    fc.assert(
      fc.property(pixels, pixels, (p, q) => {
        const a = float32([12, 15], p);
        const b = float32([12, 15], q);
        expect(ssim(a, a, { dataRange: 255 })).toBeCloseTo(1, 12);
        expect(ssim(a, b, { dataRange: 255 })).toBeCloseTo(ssim(b, a, { dataRange: 255 }), 12);
        expect(ssim(a, b, { dataRange: 255 })).toBeLessThanOrEqual(1);
      }),
      { seed: 14, numRuns: 50 },
    );
  });

  it('does not change if pixels and range are scaled together', () => {
    fc.assert(
      fc.property(pixels, pixels, (p, q) => {
        const scaled = (values: number[]) =>
          double(
            [15, 12],
            values.map((v) => v / 255),
          );
        const plain = (values: number[]) => double([15, 12], values);
        const expected = ssim(plain(p), plain(q), { dataRange: 255 });
        expect(ssim(scaled(p), scaled(q), { dataRange: 1 })).toBeCloseTo(expected, 10);
      }),
      { seed: 15, numRuns: 50 },
    );
  });

  it('refuses images that are too small, have too many dimensions, or differ in shape', () => {
    const zeros = (shape: number[]) => double(shape, new Float64Array(shape.reduce((p, d) => p * d, 1)));
    for (const shape of [[10, 20], [20, 10], [400], [2, 3, 12, 12]]) {
      expect(() => ssim(zeros(shape), zeros(shape), { dataRange: 1 })).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
      );
    }
    expect(() => ssim(zeros([12, 20]), zeros([20, 12]), { dataRange: 1 })).toThrow(/shape/);
    expect(() => ssim(zeros([12, 12]), zeros([12, 12]), { dataRange: 0 })).toThrow(/dataRange/);
  });
});

describe('centredSsim', () => {
  const shape = [3, 16, 20];
  const picture = (value: (i: number, plane: number) => number) =>
    float32(
      shape,
      Float32Array.from({ length: 960 }, (_, i) => value(i % 320, Math.floor(i / 320))),
    );
  const photo = picture((i, c) => 0.5 + 0.3 * Math.sin(i / 7 + c) + 0.1 * Math.cos(i / 3));

  it('is the SSIM of pixels less the mean colour, in units of 128 levels', () => {
    const other = picture((i, c) => 0.4 + 0.2 * Math.sin(i / 5 + 2 * c));
    const centre = (values: Float32Array) =>
      float32(
        shape,
        values.map((value, i) => (255 * value - (PHOTO_COLOUR[Math.floor(i / 320)] as number)) / CENTRED_UNIT),
      );
    const expected = ssim(centre(photo.data), centre(other.data), { dataRange: 1 });
    expect(centredSsim(photo, other)).toBeCloseTo(expected, 6);
    expect(centredSsim(photo, photo)).toBeCloseTo(1, 6);
  });

  it('gives little to who only knows how bright photos are', () => {
    const flat = picture((_, c) => (PHOTO_COLOUR[c] as number) / 255);
    const wall = picture((i) => 0.6 + 0.02 * Math.sin(i / 9));
    expect(Math.abs(centredSsim(wall, flat))).toBeLessThan(0.02);
    expect(ssim(wall, flat, { dataRange: 1 })).toBeGreaterThan(0.5);
  });

  it('refuses pictures without three planes', () => {
    const grey = float32([1, 16, 20], new Float32Array(320));
    expect(() => centredSsim(grey, grey)).toThrow(/\[1, 16, 20\], expected \[3, H, W\]/);
  });
});
