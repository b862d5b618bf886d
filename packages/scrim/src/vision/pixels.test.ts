import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compilePixelKernel, embedPixelKernel } from '../../assembly/compile-pixel-kernel.mjs';
import { ScrimError } from '../errors.js';
import type { PixelSource } from './image.js';
import { createPixelConverter, imageToTensor, type Preprocessing, tensorToImage } from './pixels.js';

const RGB: Preprocessing = { order: 'rgb', mean: [10, 20, 30], scale: 0.5, fill: [1, 2, 3], kernel: 'linear' };
const BGR: Preprocessing = { ...RGB, order: 'bgr' };

/** A picture of pseudo-random bytes. */
function noise(width: number, height: number, channels: 3 | 4 = 3, seed = 1): PixelSource {
  let state = seed;
  const data = Uint8Array.from({ length: width * height * channels }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
  return { width, height, data };
}

describe('imageToTensor', () => {
  it('normalises each channel and puts channels first, in the order that is asked for', () => {
    const image = { width: 2, height: 1, data: Uint8Array.of(110, 120, 130, 210, 220, 230) };
    const rgb = imageToTensor(image, RGB);
    expect(rgb.shape).toEqual([1, 3, 1, 2]);
    expect([...rgb.data]).toEqual([50, 100, 50, 100, 50, 100]);
    // Means are in the model's order: blue first here.
    expect([...imageToTensor(image, BGR).data]).toEqual([60, 110, 50, 100, 40, 90]);
  });

  it('ignores alpha', () => {
    const image = { width: 1, height: 2, data: Uint8ClampedArray.of(110, 120, 130, 7, 12, 22, 32, 255) };
    expect([...imageToTensor(image, RGB).data]).toEqual([50, 1, 50, 1, 50, 1]);
  });

  it('resamples: rows and columns between pixels', () => {
    const image = { width: 2, height: 1, data: Uint8Array.of(10, 20, 30, 110, 120, 130) };
    const { data } = imageToTensor(image, RGB, { resized: { width: 4, height: 2 } });
    expect([...data.subarray(0, 8)]).toEqual([0, 12.5, 37.5, 50, 0, 12.5, 37.5, 50]);
  });

  it('lays the picture in the upper left corner of its canvas', () => {
    const image = { width: 1, height: 1, data: Uint8Array.of(210, 220, 230) };
    const { data } = imageToTensor(image, RGB, { canvas: { width: 2, height: 2 } });
    expect([...data]).toEqual([100, -4.5, -4.5, -4.5, 100, -9, -9, -9, 100, -13.5, -13.5, -13.5]);
  });

  it('writes to the array it is given, overwriting all of it', () => {
    const out = new Float32Array(12).fill(Number.NaN);
    const made = imageToTensor({ width: 1, height: 1, data: new Uint8Array(3) }, RGB, {
      canvas: { width: 2, height: 2 },
      out,
    });
    expect(made.data).toBe(out);
    expect(out.some(Number.isNaN)).toBe(false);
  });

  it('refuses what does not fit', () => {
    const image = noise(4, 4);
    expect(() => imageToTensor({ ...image, width: 5 }, RGB)).toThrow('the picture of 5×4 has 48 bytes');
    expect(() => imageToTensor(image, RGB, { canvas: { width: 3, height: 9 } })).toThrow('larger than the canvas');
    expect(() => imageToTensor(image, RGB, { out: new Float32Array(47) })).toThrow('out has 47 elements, expected 48');
    expect(() => imageToTensor(image, RGB, { resized: { width: 0.5, height: 1 } })).toThrow(ScrimError);
  });

  it('is undone by tensorToImage', () => {
    for (const preprocessing of [RGB, BGR, { ...RGB, mean: [127.5, 127.5, 127.5], scale: 1 / 127.5 } as const]) {
      const image = noise(7, 5);
      expect(tensorToImage(imageToTensor(image, preprocessing), preprocessing)).toEqual(image);
    }
    expect(() => tensorToImage(imageToTensor(noise(2, 2), RGB), RGB, 1)).toThrow('index 1');
  });
});

describe('the two kernels', () => {
  it('give the same bits, at every size, for RGB and RGBA', () => {
    const side = fc.integer({ min: 1, max: 45 });
    for (const kernel of ['linear', 'cubic'] as const) {
      const simd = createPixelConverter({ ...BGR, kernel }, 'wasm-simd');
      const plain = createPixelConverter({ ...BGR, kernel }, 'plain');
      expect([simd.kind, plain.kind]).toEqual(['wasm-simd', 'plain']);
      fc.assert(
        fc.property(
          side,
          side,
          side,
          side,
          fc.nat(9),
          fc.boolean(),
          fc.nat(),
          (w, h, toW, toH, margin, alpha, seed) => {
            const image = noise(w, h, alpha ? 4 : 3, seed);
            const options = {
              resized: { width: toW, height: toH },
              canvas: { width: toW + margin, height: toH + (margin >> 1) },
            };
            expect(simd.convert(image, options).data).toEqual(plain.convert(image, options).data);
          },
        ),
        { numRuns: 200, seed: 6 },
      );
    }
  });

  it('agree with a direct computation in double precision', () => {
    const image = noise(9, 7);
    const { data } = imageToTensor(image, RGB, { resized: { width: 20, height: 17 } });
    for (let c = 0; c < 3; c++) {
      for (let y = 0; y < 17; y++) {
        for (let x = 0; x < 20; x++) {
          const at = (px: number, py: number): number => image.data[3 * (py * 9 + px) + c]!;
          const along = (i: number, from: number, to: number): [number, number, number] => {
            const position = ((i + 0.5) * from) / to - 0.5;
            const low = Math.floor(position);
            const clamp = (j: number): number => Math.min(Math.max(j, 0), from - 1);
            return [clamp(low), clamp(low + 1), position - low];
          };
          const [x0, x1, fx] = along(x, 9, 20);
          const [y0, y1, fy] = along(y, 7, 17);
          const top = at(x0, y0) * (1 - fx) + at(x1, y0) * fx;
          const bottom = at(x0, y1) * (1 - fx) + at(x1, y1) * fx;
          const expected = (top * (1 - fy) + bottom * fy - RGB.mean[c]!) * RGB.scale;
          expect(Math.abs(data[(c * 17 + y) * 20 + x]! - expected)).toBeLessThan(1e-4);
        }
      }
    }
  });

  it('keeps nothing of the picture before, whatever its size', () => {
    const converter = createPixelConverter(RGB);
    const small = converter.convert(noise(5, 5)).data.slice();
    converter.convert(noise(300, 200), { resized: { width: 64, height: 64 } });
    converter.convert(noise(3, 90), { resized: { width: 200, height: 10 } });
    expect(converter.convert(noise(5, 5)).data).toEqual(small);
  });

  it('is the one that assembly/pixel-kernel.ts compiles to', async () => {
    const committed = readFileSync(new URL('gen/pixel-kernel.ts', import.meta.url), 'utf8');
    expect(embedPixelKernel(await compilePixelKernel())).toBe(committed);
  });
});
