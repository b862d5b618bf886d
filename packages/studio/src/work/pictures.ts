/** Pictures of the library (RGB bytes) to and from the platform's, inside the worker. */

import type { Tensor } from 'scrim';
import { createPixelConverter, type PixelSource, type Preprocessing, type RgbImage } from 'scrim/vision';

const UNIT: Preprocessing = { order: 'rgb', mean: [0, 0, 0], scale: 1 / 255, fill: [0, 0, 0], kernel: 'linear' };

/** RGB bytes as a bitmap that can be shown. */
export async function toBitmap({ width, height, data }: RgbImage): Promise<ImageBitmap> {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    rgba[to] = data[from] as number;
    rgba[to + 1] = data[from + 1] as number;
    rgba[to + 2] = data[from + 2] as number;
  }
  return createImageBitmap(new ImageData(rgba, width, height));
}

/** A bitmap whose longer side is at most `longest` pixels. */
export async function shrinkBitmap(bitmap: ImageBitmap, longest: number): Promise<ImageBitmap> {
  const factor = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  return createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * factor)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * factor)),
    resizeQuality: 'high',
  });
}

/** A picture as [1, 3, height, width] in [0, 1]. */
export function toUnitTensor(picture: PixelSource, width: number, height: number): Tensor<'float32'> {
  return createPixelConverter(UNIT).convert(picture, { resized: { width, height } });
}

/** [1, 3, height, width] in [0, 1] as bytes. */
export function fromUnitTensor({ shape, data }: Tensor<'float32'>): RgbImage {
  const [, , height = 0, width = 0] = shape;
  const plane = width * height;
  const bytes = new Uint8Array(plane * 3);
  for (let p = 0; p < plane; p++) {
    for (let c = 0; c < 3; c++) {
      bytes[3 * p + c] = Math.max(0, Math.min(255, Math.round((data[c * plane + p] as number) * 255)));
    }
  }
  return { width, height, data: bytes };
}
