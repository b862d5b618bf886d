/**
 * Pictures about pictures, without fonts or a canvas: boxes drawn on a photo, photos side by side, and an activation as
 * a mosaic of its channels. Pure operations on bytes, the same in Node and in a browser.
 */
import { ScrimError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import type { Detection } from './detector.js';
import { channelsOf, createImage, expectSize, type PixelSource, type Rgb, type RgbImage } from './image.js';

/** How boxes are drawn. */
export interface BoxStyle {
  readonly colour?: Rgb;
  /** Width of the line in pixels; default: a three-hundredth of the picture's longer side, at least 2. */
  readonly thickness?: number;
  /** 'corners' draws the corners only, a quarter of each edge; default 'frame'. */
  readonly shape?: 'frame' | 'corners';
}

/** How pictures are put side by side. */
export interface SideBySideOptions {
  /** Pictures in a row; default: all. */
  readonly columns?: number;
  /** Pixels between pictures and around them; default 8. */
  readonly gap?: number;
  readonly background?: Rgb;
}

/** How channels are drawn. */
export interface TileOptions {
  /** Tiles in a row; default: what comes closest to a square. */
  readonly columns?: number;
  /** Pixels of the picture for one element, an integer ≥ 1; default 2. */
  readonly magnify?: number;
  /** Pixels between tiles; default 1. */
  readonly gap?: number;
  /**
   * Which values are black and white: 'channel' the least and the greatest of each channel, 'all' those of all
   * channels. Default 'channel'.
   */
  readonly range?: 'channel' | 'all';
  /** Which picture of a batch; default 0. */
  readonly index?: number;
}

const GREEN: Rgb = [57, 255, 20];
const DARK: Rgb = [24, 24, 27];
const MAX_SIDE = 32_768;

/** A copy of `image` without alpha. @throws ScrimError INVALID_ARGUMENT if the bytes don't fit the size. */
export function copyImage(image: PixelSource): RgbImage {
  const channels = channelsOf(image);
  const { width, height } = image;
  if (channels === 3) return { width, height, data: new Uint8Array(image.data) };
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = image.data[from]!;
    data[to + 1] = image.data[from + 1]!;
    data[to + 2] = image.data[from + 2]!;
  }
  return { width, height, data };
}

/**
 * A copy of `image` with `boxes` drawn on it, later ones on top. Lines lie inside the boxes; what reaches beyond the
 * picture is cut off, and a box without area or with a coordinate that is not finite is left out.
 */
export function drawBoxes(image: PixelSource, boxes: readonly Detection['box'][], style: BoxStyle = {}): RgbImage {
  const result = copyImage(image);
  const { colour = GREEN, shape = 'frame' } = style;
  const thickness = style.thickness ?? Math.max(2, Math.max(image.width, image.height) / 300);
  for (const box of boxes) drawBox(result, box, colour, Math.max(1, Math.round(thickness)), shape);
  return result;
}

function drawBox(
  image: RgbImage,
  box: Detection['box'],
  colour: Rgb,
  thickness: number,
  shape: 'frame' | 'corners',
): void {
  if (!box.every(Number.isFinite)) return;
  // Clamped far outside, so that huge boxes cost nothing.
  const [left, top, right, bottom] = box.map((edge) => Math.round(Math.min(Math.max(edge, -65_536), 65_536))) as [
    number,
    number,
    number,
    number,
  ];
  if (right <= left || bottom <= top) return;
  const line = Math.min(thickness, Math.ceil((right - left) / 2), Math.ceil((bottom - top) / 2));
  const [armX, armY] =
    shape === 'corners'
      ? [Math.max(line, Math.round((right - left) / 4)), Math.max(line, Math.round((bottom - top) / 4))]
      : [right - left, bottom - top];
  const fill = (x0: number, y0: number, x1: number, y1: number): void => {
    for (let y = Math.max(y0, 0); y < Math.min(y1, image.height); y++) {
      for (let x = Math.max(x0, 0); x < Math.min(x1, image.width); x++)
        image.data.set(colour, 3 * (y * image.width + x));
    }
  };
  for (const y of [top, bottom - line]) {
    fill(left, y, left + armX, y + line);
    fill(right - armX, y, right, y + line);
  }
  for (const x of [left, right - line]) {
    fill(x, top, x + line, top + armY);
    fill(x, bottom - armY, x + line, bottom);
  }
}

/**
 * Pictures in rows, each in the middle of a cell of the largest one's size.
 * @throws ScrimError INVALID_ARGUMENT for no pictures, columns or a gap out of range, or a sheet above 32,768 pixels
 * along a side.
 */
export function sideBySide(images: readonly PixelSource[], options: SideBySideOptions = {}): RgbImage {
  const { columns = images.length, gap = 8, background = DARK } = options;
  if (images.length === 0) throw new ScrimError('INVALID_ARGUMENT', 'images is empty, expected at least one picture');
  if (!Number.isInteger(columns) || columns < 1 || !Number.isInteger(gap) || gap < 0) {
    throw new ScrimError('INVALID_ARGUMENT', `columns is ${columns} and gap ${gap}, expected integers ≥ 1 and ≥ 0`);
  }
  const cellWidth = Math.max(...images.map(({ width }) => width));
  const cellHeight = Math.max(...images.map(({ height }) => height));
  const inRow = Math.min(columns, images.length);
  const rows = Math.ceil(images.length / inRow);
  const result = createSheet(inRow * (cellWidth + gap) + gap, rows * (cellHeight + gap) + gap, background);
  images.forEach((image, i) => {
    const left = gap + (i % inRow) * (cellWidth + gap) + Math.floor((cellWidth - image.width) / 2);
    const top = gap + Math.floor(i / inRow) * (cellHeight + gap) + Math.floor((cellHeight - image.height) / 2);
    paste(result, copyImage(image), left, top);
  });
  return result;
}

/**
 * The channels of an activation or a release [N, C, H, W] as grey tiles in rows. A channel without contrast is middle
 * grey; values that are not finite are drawn red.
 * @throws ScrimError INVALID_ARGUMENT for another rank, an index outside the batch, options out of range, or a sheet
 * above 32,768 pixels along a side.
 */
export function drawTiles(
  activation: Tensor<'float32' | 'int8' | 'uint8' | 'int16' | 'int32'>,
  options: TileOptions = {},
): RgbImage {
  const { magnify = 2, gap = 1, range = 'channel', index = 0 } = options;
  const [batch = 0, channels = 0, height = 0, width = 0] = activation.shape;
  if (activation.shape.length !== 4 || !Number.isInteger(index) || index < 0 || index >= batch) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `the activation is [${activation.shape.join(', ')}] and index ${index}, expected [N, C, H, W] and an index below N`,
    );
  }
  const columns = options.columns ?? Math.ceil(Math.sqrt((channels * height) / Math.max(1, width)));
  for (const [name, value, least] of [
    ['columns', columns, 1],
    ['magnify', magnify, 1],
    ['gap', gap, 0],
  ] as const) {
    if (!Number.isInteger(value) || value < least) {
      throw new ScrimError('INVALID_ARGUMENT', `${name} is ${value}, expected an integer ≥ ${least}`);
    }
  }
  expectSize({ width, height }, 'the activation');
  const cellWidth = width * magnify + gap;
  const cellHeight = height * magnify + gap;
  const inRow = Math.min(columns, Math.max(1, channels));
  const sheet = createSheet(inRow * cellWidth + gap, Math.ceil(channels / inRow) * cellHeight + gap, DARK);

  const plane = width * height;
  const first = index * channels * plane;
  const shared = range === 'all' ? extent(activation.data, first, first + channels * plane) : undefined;
  for (let c = 0; c < channels; c++) {
    const start = first + c * plane;
    const [low, high] = shared ?? extent(activation.data, start, start + plane);
    const left = gap + (c % inRow) * cellWidth;
    const top = gap + Math.floor(c / inRow) * cellHeight;
    for (let y = 0; y < height * magnify; y++) {
      const row = start + Math.floor(y / magnify) * width;
      let at = 3 * ((top + y) * sheet.width + left);
      for (let x = 0; x < width * magnify; x++, at += 3) {
        const value = activation.data[row + Math.floor(x / magnify)]!;
        const grey = high > low ? Math.round((255 * (value - low)) / (high - low)) : 128;
        const finite = Number.isFinite(value);
        sheet.data[at] = finite ? grey : 255;
        sheet.data[at + 1] = finite ? grey : 0;
        sheet.data[at + 2] = finite ? grey : 0;
      }
    }
  }
  return sheet;
}

function extent(data: ArrayLike<number>, start: number, end: number): [low: number, high: number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = start; i < end; i++) {
    const value = data[i]!;
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function createSheet(width: number, height: number, colour: Rgb): RgbImage {
  if (width > MAX_SIDE || height > MAX_SIDE) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `the picture would be ${width}×${height}, at most ${MAX_SIDE} along a side`,
    );
  }
  return createImage(Math.max(1, width), Math.max(1, height), colour);
}

function paste(target: RgbImage, image: RgbImage, left: number, top: number): void {
  for (let y = 0; y < image.height; y++) {
    const row = image.data.subarray(3 * y * image.width, 3 * (y + 1) * image.width);
    target.data.set(row, 3 * ((top + y) * target.width + left));
  }
}
