/**
 * Drawing on pictures in memory: boxes, pictures side by side, an activation as tiles. Pure pixel operations without
 * fonts, so that Node and a browser draw the same.
 */
import { assertArgument } from '../errors.js';
import type { Tensor } from '../tensor.js';
import { createImage, type Rgb, type RgbImage } from './image.js';

/** How boxes are drawn. */
export interface BoxStyle {
  /** Default: a bright green. */
  readonly colour?: Rgb;
  /** Width of the frame in pixels; default: 1/200 of the longer side, at least 2. */
  readonly thickness?: number;
}

/**
 * A copy of `image` with a frame for each box.
 * @param boxes left, top, right, bottom in pixels; parts outside the picture are left out
 */
export function drawBoxes(
  image: RgbImage,
  boxes: readonly (readonly [left: number, top: number, right: number, bottom: number])[],
  style: BoxStyle = {},
): RgbImage {
  const { colour = [57, 211, 83] } = style;
  const thickness = style.thickness ?? Math.max(2, Math.round(Math.max(image.width, image.height) / 200));
  const copy = { width: image.width, height: image.height, data: image.data.slice() };
  for (const [left, top, right, bottom] of boxes) {
    fillRectangle(copy, left, top, right, top + thickness, colour);
    fillRectangle(copy, left, bottom - thickness, right, bottom, colour);
    fillRectangle(copy, left, top, left + thickness, bottom, colour);
    fillRectangle(copy, right - thickness, top, right, bottom, colour);
  }
  return copy;
}

/** Pictures side by side, as high as the highest, `gap` pixels of white between them. */
export function sideBySide(images: readonly RgbImage[], gap = 8): RgbImage {
  assertArgument(images.length > 0, 'images is empty, expected at least one picture');
  const height = Math.max(...images.map((image) => image.height));
  const width = images.reduce((sum, image) => sum + image.width, gap * (images.length - 1));
  const canvas = createImage(width, height, [255, 255, 255]);
  let left = 0;
  for (const image of images) {
    paste(canvas, image, left, 0);
    left += image.width + gap;
  }
  return canvas;
}

/**
 * The channels of an activation or release as grey tiles in a grid as square as can be, each from black at its smallest
 * value to white at its largest.
 * @param value [1, C, H, W]
 */
export function drawTiles(value: Tensor<'float32'>, gap = 1): RgbImage {
  const [batch, channels = 0, height = 0, width = 0] = value.shape;
  assertArgument(
    value.shape.length === 4 && batch === 1 && channels * height * width > 0,
    `tiles are drawn of [1, C, H, W], got [${value.shape.join(', ')}]`,
  );
  const columns = Math.ceil(Math.sqrt((channels * height) / width));
  const rows = Math.ceil(channels / columns);
  const canvas = createImage(columns * (width + gap) - gap, rows * (height + gap) - gap, [24, 24, 28]);
  const plane = height * width;
  for (let c = 0; c < channels; c++) {
    const values = value.data.subarray(c * plane, (c + 1) * plane);
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    for (const v of values) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
    const scale = high > low ? 255 / (high - low) : 0;
    const tile = createImage(width, height);
    for (let i = 0; i < plane; i++) tile.data.fill(Math.round(((values[i] as number) - low) * scale), 3 * i, 3 * i + 3);
    paste(canvas, tile, (c % columns) * (width + gap), Math.floor(c / columns) * (height + gap));
  }
  return canvas;
}

function fillRectangle(image: RgbImage, left: number, top: number, right: number, bottom: number, colour: Rgb): void {
  const clamp = (value: number, most: number): number => Math.max(0, Math.min(most, Math.round(value)));
  const [x0, x1] = [clamp(left, image.width), clamp(right, image.width)];
  for (let y = clamp(top, image.height); y < clamp(bottom, image.height); y++) {
    for (let x = x0; x < x1; x++) image.data.set(colour, 3 * (y * image.width + x));
  }
}

function paste(canvas: RgbImage, image: RgbImage, left: number, top: number): void {
  for (let y = 0; y < image.height; y++) {
    const row = image.data.subarray(3 * y * image.width, 3 * (y + 1) * image.width);
    canvas.data.set(row, 3 * ((top + y) * canvas.width + left));
  }
}
