/**
 * A picture in memory: 8 bits a channel, interleaved rows from the top, colours as sRGB. Reading and writing files is
 * left to node/ and web/.
 */
import { ScrimError } from '../errors.js';

/** A picture without transparency. `data` holds `width · height · 3` bytes: R, G, B of each pixel, row after row. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** An RGB or RGBA colour source, such as an ImageData; `data` holds 3 or 4 bytes a pixel, and alpha is ignored. */
export interface PixelSource {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** A colour: red, green, blue, 0 to 255. */
export type Rgb = readonly [red: number, green: number, blue: number];

/** A width and a height in pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** A picture of one colour. @throws ScrimError INVALID_ARGUMENT for a size that is no integer ≥ 1. */
export function createImage(width: number, height: number, colour: Rgb = [0, 0, 0]): RgbImage {
  expectSize({ width, height }, 'the picture');
  const data = new Uint8Array(width * height * 3);
  if (colour.some((channel) => channel !== 0)) {
    for (let i = 0; i < data.length; i += 3) data.set(colour, i);
  }
  return { width, height, data };
}

/**
 * Bytes of one pixel of `image`: 3 or 4.
 * @throws ScrimError INVALID_ARGUMENT naming `what` if the data has neither length.
 */
export function channelsOf(image: PixelSource, what = 'the picture'): 3 | 4 {
  expectSize(image, what);
  const channels = image.data.length / (image.width * image.height);
  if (channels === 3 || channels === 4) return channels;
  throw new ScrimError(
    'INVALID_ARGUMENT',
    `${what} of ${image.width}×${image.height} has ${image.data.length} bytes, expected 3 or 4 a pixel`,
  );
}

/** @throws ScrimError INVALID_ARGUMENT naming `what` unless both sides are integers ≥ 1. */
export function expectSize(size: Size, what: string): void {
  for (const side of [size.width, size.height]) {
    if (!Number.isSafeInteger(side) || side < 1) {
      throw new ScrimError('INVALID_ARGUMENT', `${what} is ${size.width}×${size.height}, expected integers ≥ 1`);
    }
  }
}
