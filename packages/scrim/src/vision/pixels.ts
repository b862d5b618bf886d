/**
 * Bytes of a picture -> the network's input: float32, channels first, (value − mean) · scale per channel, the channels
 * in the model's order. Every byte has one of 256 results a channel, so a table is looked up; four pixels are read as
 * three 32-bit words where the bytes are aligned, which is what makes 1024×1024 cheap enough to run beside inference.
 *
 * Resizing comes before: node/images.ts and the browser's canvas do it.
 */
import { ScrimError } from '../errors.js';
import { float32, type Tensor } from '../tensor.js';
import { channelsOf, expectSize, type PixelSource, type Rgb, type Size } from './image.js';

/** How a network wants its pixels. */
export interface Preprocessing {
  /** Order of the input's three channels. */
  readonly order: 'rgb' | 'bgr';
  /** Subtracted first; in the order above, on the scale 0 to 255. */
  readonly mean: Rgb;
  /** Multiplied after. */
  readonly scale: number;
  /** Colour of the canvas that a picture does not cover, as R, G, B. */
  readonly fill: Rgb;
}

/** Where and how {@link imageToTensor} writes. */
export interface PixelOptions {
  /** Size of the input; the picture lies in its upper left corner. Default: the picture's size. */
  readonly canvas?: Size;
  /** Array to write to, of `3 · width · height` elements of the canvas. Default: a fresh one. */
  readonly out?: Float32Array;
}

/**
 * Normalises one picture: [1, 3, canvas height, canvas width].
 * @throws ScrimError INVALID_ARGUMENT if the picture's bytes don't fit its size, the canvas is smaller than the picture,
 * or `out` has another length.
 */
export function imageToTensor(
  image: PixelSource,
  preprocessing: Preprocessing,
  options: PixelOptions = {},
): Tensor<'float32'> {
  const canvas = options.canvas ?? image;
  expectSize(canvas, 'the canvas');
  const out = options.out ?? new Float32Array(3 * canvas.width * canvas.height);
  writePixels(image, preprocessing, canvas, out);
  return float32([1, 3, canvas.height, canvas.width], out);
}

/**
 * Normalises pictures of one canvas into a batch: [N, 3, canvas height, canvas width].
 * @throws ScrimError INVALID_ARGUMENT as {@link imageToTensor}, and for an empty list.
 */
export function imagesToTensor(
  images: readonly PixelSource[],
  preprocessing: Preprocessing,
  options: PixelOptions = {},
): Tensor<'float32'> {
  const first = images[0];
  if (first === undefined) throw new ScrimError('INVALID_ARGUMENT', 'images is empty, expected at least one picture');
  const canvas = options.canvas ?? first;
  expectSize(canvas, 'the canvas');
  const each = 3 * canvas.width * canvas.height;
  const out = options.out ?? new Float32Array(each * images.length);
  if (out.length !== each * images.length) throw wrongLength(out.length, each * images.length);
  images.forEach((image, i) => {
    writePixels(image, preprocessing, canvas, out.subarray(i * each, (i + 1) * each));
  });
  return float32([images.length, 3, canvas.height, canvas.width], out);
}

/**
 * The picture that a normalised tensor stands for: the inverse of {@link imageToTensor}, values rounded and clamped.
 * @throws ScrimError INVALID_ARGUMENT unless `input` is [N, 3, H, W] and `index` below N.
 */
export function tensorToImage(
  input: Tensor<'float32'>,
  preprocessing: Preprocessing,
  index = 0,
): { width: number; height: number; data: Uint8Array } {
  const [batch = 0, channels, height = 0, width = 0] = input.shape;
  if (input.shape.length !== 4 || channels !== 3 || !(index >= 0 && index < batch)) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `input is [${input.shape.join(', ')}] and index ${index}, expected [N, 3, H, W]`,
    );
  }
  const plane = width * height;
  const data = new Uint8Array(3 * plane);
  for (let channel = 0; channel < 3; channel++) {
    const target = preprocessing.order === 'rgb' ? channel : 2 - channel;
    const start = (3 * index + channel) * plane;
    const mean = preprocessing.mean[channel]!;
    for (let p = 0; p < plane; p++) {
      const value = Math.round(input.data[start + p]! / preprocessing.scale + mean);
      data[3 * p + target] = value < 0 ? 0 : value > 255 ? 255 : value;
    }
  }
  return { width, height, data };
}

function writePixels(image: PixelSource, preprocessing: Preprocessing, canvas: Size, out: Float32Array): void {
  const channels = channelsOf(image);
  const { width, height, data } = image;
  if (width > canvas.width || height > canvas.height) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `the picture is ${width}×${height}, larger than the canvas of ${canvas.width}×${canvas.height}`,
    );
  }
  const plane = canvas.width * canvas.height;
  if (out.length !== 3 * plane) throw wrongLength(out.length, 3 * plane);

  const { order, mean, scale, fill } = preprocessing;
  const planes: Float32Array[] = [];
  const tables: Float32Array[] = [];
  for (let colour = 0; colour < 3; colour++) {
    const channel = order === 'rgb' ? colour : 2 - colour;
    planes.push(out.subarray(channel * plane, (channel + 1) * plane));
    tables.push(Float32Array.from({ length: 256 }, (_, value) => (value - mean[channel]!) * scale));
    if (width < canvas.width || height < canvas.height) {
      planes[colour]!.fill((fill[colour]! - mean[channel]!) * scale);
    }
  }

  if (width === canvas.width) {
    writeRun(data, channels, 0, width * height, planes, tables, 0);
  } else {
    for (let y = 0; y < height; y++) {
      writeRun(data, channels, y * width * channels, width, planes, tables, y * canvas.width);
    }
  }
}

/** Writes `count` pixels that start at byte `from` of `data` to the three planes, from their element `at` on. */
function writeRun(
  data: Uint8Array | Uint8ClampedArray,
  channels: 3 | 4,
  from: number,
  count: number,
  planes: readonly Float32Array[],
  tables: readonly Float32Array[],
  at: number,
): void {
  const [red, green, blue] = planes as [Float32Array, Float32Array, Float32Array];
  const [reds, greens, blues] = tables as [Float32Array, Float32Array, Float32Array];
  let i = from;
  let p = at;
  const end = at + count;
  if (channels === 3 && (data.byteOffset + from) % 4 === 0) {
    const groups = count >>> 2;
    const words = new Uint32Array(data.buffer, data.byteOffset + from, 3 * groups);
    for (let w = 0; w < words.length; w += 3, p += 4) {
      // Little-endian, as every platform that JavaScript runs on: R0 G0 B0 R1 | G1 B1 R2 G2 | B2 R3 G3 B3.
      const x = words[w]!;
      const y = words[w + 1]!;
      const z = words[w + 2]!;
      red[p] = reds[x & 255]!;
      green[p] = greens[(x >>> 8) & 255]!;
      blue[p] = blues[(x >>> 16) & 255]!;
      red[p + 1] = reds[x >>> 24]!;
      green[p + 1] = greens[y & 255]!;
      blue[p + 1] = blues[(y >>> 8) & 255]!;
      red[p + 2] = reds[(y >>> 16) & 255]!;
      green[p + 2] = greens[y >>> 24]!;
      blue[p + 2] = blues[z & 255]!;
      red[p + 3] = reds[(z >>> 8) & 255]!;
      green[p + 3] = greens[(z >>> 16) & 255]!;
      blue[p + 3] = blues[z >>> 24]!;
    }
    i += 12 * groups;
  }
  for (; p < end; p++, i += channels) {
    red[p] = reds[data[i]!]!;
    green[p] = greens[data[i + 1]!]!;
    blue[p] = blues[data[i + 2]!]!;
  }
}

function wrongLength(length: number, expected: number): ScrimError {
  return new ScrimError('INVALID_ARGUMENT', `out has ${length} elements, expected ${expected}`);
}
