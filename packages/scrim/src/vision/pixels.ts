/**
 * Bytes of a picture -> the network's input: resampled to its size, (value − mean) · scale per channel, channels first
 * and in the model's order. Both steps are one pass over the rows, horizontally once for each source row, vertically once
 * for each output row, so that a photo never exists in memory at the network's size but as the network's input.
 */
import { ScrimError } from '../errors.js';
import { float32, type Tensor } from '../tensor.js';
import { channelsOf, expectSize, type PixelSource, type Rgb, type RgbImage, type Size } from './image.js';
import { createPixelKernel, type PixelKernel, type PixelKernelKind } from './pixel-kernel.js';
import { makeTaps, type ResampleKernel, type Taps } from './resample.js';

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
  /** How pixels between pixels are made. */
  readonly kernel: ResampleKernel;
}

/** Where and how a picture is written. */
export interface PixelOptions {
  /** Size to resample the picture to. Default: its own. */
  readonly resized?: Size;
  /** Size of the input; the resampled picture lies in its upper left corner. Default: as large as that. */
  readonly canvas?: Size;
  /** Array to write to, of `3 · width · height` elements of the canvas. Default: a fresh one. */
  readonly out?: Float32Array;
}

/** Converts one picture after another with the same settings; one caller at a time. */
export interface PixelConverter {
  readonly preprocessing: Preprocessing;
  readonly kind: PixelKernelKind;
  /**
   * Normalises a picture: [1, 3, canvas height, canvas width].
   * @throws ScrimError INVALID_ARGUMENT if the picture's bytes don't fit its size, the canvas is smaller than the
   * resampled picture, or `out` has another length.
   */
  convert(image: PixelSource, options?: PixelOptions): Tensor<'float32'>;
}

/** Rows of output that are made before they are copied: a band of 1024 columns takes 192 KiB. */
const BAND_ROWS = 16;
/** Taps of this many axes are kept. */
const KEPT_TAPS = 16;

/** Makes a converter. `kind` chooses the kernel; default: WebAssembly SIMD if this runtime has it. */
export function createPixelConverter(preprocessing: Preprocessing, kind?: PixelKernelKind): PixelConverter {
  const kernel = createPixelKernel(kind);
  const kept = new Map<string, Taps>();
  const tapsFor = (from: number, to: number): Taps => {
    const key = `${from} ${to}`;
    let taps = kept.get(key);
    if (taps === undefined) {
      taps = makeTaps(from, to, preprocessing.kernel);
      const oldest = kept.keys().next();
      if (kept.size >= KEPT_TAPS && !oldest.done) kept.delete(oldest.value);
      kept.set(key, taps);
    }
    return taps;
  };
  return {
    preprocessing,
    kind: kernel.kind,
    convert(image, options = {}) {
      const channels = channelsOf(image);
      const resized = options.resized ?? image;
      const canvas = options.canvas ?? resized;
      expectSize(resized, 'the size to resample to');
      expectSize(canvas, 'the canvas');
      if (resized.width > canvas.width || resized.height > canvas.height) {
        throw new ScrimError(
          'INVALID_ARGUMENT',
          `the picture is ${resized.width}×${resized.height}, larger than the canvas of ${canvas.width}×${canvas.height}`,
        );
      }
      const size = 3 * canvas.width * canvas.height;
      const out = options.out ?? new Float32Array(size);
      if (out.length !== size) {
        throw new ScrimError('INVALID_ARGUMENT', `out has ${out.length} elements, expected ${size}`);
      }
      const planes = planesOf(out, preprocessing, canvas, resized);
      const columns = tapsFor(image.width, resized.width);
      const rows = tapsFor(image.height, resized.height);
      const { order, mean, scale } = preprocessing;
      const [first, second, third] = order === 'rgb' ? mean : [mean[2], mean[1], mean[0]];
      kernel.begin({
        sourceWidth: image.width,
        channels,
        width: resized.width,
        taps: columns,
        scale,
        start: [-first * scale, -second * scale, -third * scale],
        slots: rows.count,
        bandRows: Math.min(BAND_ROWS, resized.height),
      });
      run(kernel, image.data, image.width * channels, rows, resized, canvas.width, planes);
      return float32([1, 3, canvas.height, canvas.width], out);
    },
  };
}

/** Normalises one picture; {@link createPixelConverter} is for many. @throws as {@link PixelConverter.convert}. */
export function imageToTensor(
  image: PixelSource,
  preprocessing: Preprocessing,
  options: PixelOptions = {},
): Tensor<'float32'> {
  return createPixelConverter(preprocessing).convert(image, options);
}

/**
 * The picture that a normalised tensor stands for: the inverse of {@link imageToTensor}, values rounded and clamped.
 * @throws ScrimError INVALID_ARGUMENT unless `input` is [N, 3, H, W] and `index` below N.
 */
export function tensorToImage(input: Tensor<'float32'>, preprocessing: Preprocessing, index = 0): RgbImage {
  const [batch = 0, channels, height = 0, width = 0] = input.shape;
  if (input.shape.length !== 4 || channels !== 3 || !(index >= 0 && index < batch)) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `input is [${input.shape.join(', ')}] and index ${index}, expected [N, 3, H, W] and an index below N`,
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
      data[3 * p + target] = Math.min(Math.max(value, 0), 255);
    }
  }
  return { width, height, data };
}

/** The planes of red, green and blue in `out`, filled with the canvas colour where the picture won't cover them. */
function planesOf(out: Float32Array, { order, mean, scale, fill }: Preprocessing, canvas: Size, covered: Size) {
  const plane = canvas.width * canvas.height;
  return fill.map((colour, i) => {
    const channel = order === 'rgb' ? i : 2 - i;
    const values = out.subarray(channel * plane, (channel + 1) * plane);
    if (covered.width < canvas.width || covered.height < canvas.height) values.fill((colour - mean[channel]!) * scale);
    return values;
  });
}

/** Makes every output row, band by band; slot `row mod count` holds a source row, read when it is first needed. */
function run(
  kernel: PixelKernel,
  data: Uint8Array | Uint8ClampedArray,
  rowBytes: number,
  rows: Taps,
  resized: Size,
  pitch: number,
  planes: readonly Float32Array[],
): void {
  const holds = new Int32Array(rows.count).fill(-1);
  const slots = new Array<number>(rows.count);
  for (let y = 0; y < resized.height; y += BAND_ROWS) {
    const height = Math.min(BAND_ROWS, resized.height - y);
    for (let row = 0; row < height; row++) {
      const start = rows.starts[y + row]!;
      for (let t = 0; t < rows.count; t++) {
        const slot = (start + t) % rows.count;
        slots[t] = slot;
        if (holds[slot] !== start + t) {
          kernel.read(data, (start + t) * rowBytes, slot);
          holds[slot] = start + t;
        }
      }
      kernel.combine(slots, rows.weights, (y + row) * rows.count, row);
    }
    planes.forEach((plane, i) => {
      const band = kernel.band(i, height);
      if (resized.width === pitch && kernel.pitch === pitch) {
        plane.set(band, y * pitch);
      } else {
        for (let row = 0; row < height; row++) {
          plane.set(band.subarray(row * kernel.pitch, row * kernel.pitch + resized.width), (y + row) * pitch);
        }
      }
    });
  }
}
