/**
 * Photos in a browser: decoded by the platform (createImageBitmap), read back through an OffscreenCanvas, resized by the
 * project's own kernel, so that a network sees what it sees in Node. Runs on the page and in workers.
 *
 * The rules are node/images.ts's: upright by EXIF, sRGB, transparent parts over middle grey, a side that is longer than
 * wanted shrunk to bytes by the linear kernel, the rest left to the conversion. One thing differs: a photo above
 * {@link PLATFORM_SHRINK_PIXELS} is first shrunk by the platform to no less than twice the size wanted, to spare memory.
 */
import { ScrimError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import {
  createPixelConverter,
  type DetectorSpec,
  defaultResize,
  expectSize,
  type PixelSource,
  type Preprocessing,
  planResize,
  type ResizeMode,
  type ResizePlan,
  type RgbImage,
  type Size,
  tensorToImage,
} from '../vision/index.js';
import { pictureSize } from './picture-size.js';

/** An encoded photo: a file that was picked or dropped, or its bytes. An ImageBitmap, such as a camera's frame, is taken as it is. */
export type WebImageInput = Blob | Uint8Array | ImageBitmap;

/** Limits of one picture. */
export interface WebImageLimits {
  /** Most pixels, width × height; default 100 million. */
  readonly maxPixels?: number;
  /** Largest file; default 256 MiB. */
  readonly maxBytes?: number;
}

/** A picture read at another size than the file's, perhaps. */
export interface WebResizedImage extends PixelSource {
  /** Size of the upright photo in the file. */
  readonly original: Size;
}

/** A photo as a detector's input. */
export interface WebDetectorInput {
  /** [1, 3, canvas height, canvas width]. */
  readonly tensor: Tensor<'float32'>;
  /** How boxes get back to the photo. */
  readonly plan: ResizePlan;
}

/** Reads photos for one detector. */
export interface WebInputReader {
  /**
   * Reads a photo.
   * @param out array to write to, of the canvas' `3 · width · height` elements
   * @throws ScrimError as {@link readImage}; INVALID_ARGUMENT as `planResize`
   */
  read(input: WebImageInput, out?: Float32Array): Promise<WebDetectorInput>;
}

const DEFAULT_MAX_PIXELS = 100_000_000;
const DEFAULT_MAX_BYTES = 2 ** 28;
/** Headers with a large colour profile or preview before the size still fit. */
const HEADER_BYTES = 2 ** 20;
/** Above this many pixels the platform shrinks first: RGBA of 16 million pixels takes 64 MiB. */
const PLATFORM_SHRINK_PIXELS = 16_000_000;
/** Behind transparent pixels, as in Node. */
const BACKGROUND = '#808080';
/** Pixels as numbers from 0 to 255: what shrinking to bytes needs. */
const AS_BYTES: Preprocessing = { order: 'rgb', mean: [0, 0, 0], scale: 1, fill: [0, 0, 0], kernel: 'linear' };

/**
 * Decodes a photo, upright; close it when done. For those who show it as well as read it: a bitmap is taken wherever a
 * photo is.
 * @throws ScrimError as {@link readImage}
 */
export async function decodePhoto(input: Blob | Uint8Array, limits: WebImageLimits = {}): Promise<ImageBitmap> {
  expectPlatform();
  const { maxPixels = DEFAULT_MAX_PIXELS, maxBytes = DEFAULT_MAX_BYTES } = limits;
  const blob = input instanceof Blob ? input : new Blob([input as Uint8Array<ArrayBuffer>]);
  if (blob.size > maxBytes) {
    throw new ScrimError('LIMIT_EXCEEDED', `the picture has ${blob.size} bytes, at most ${maxBytes} are read`);
  }
  if (blob.size === 0) throw new ScrimError('INVALID_DATA', 'the picture is empty');
  let bitmap: ImageBitmap;
  try {
    const claimed = pictureSize(new Uint8Array(await blob.slice(0, HEADER_BYTES).arrayBuffer()));
    if (claimed) expectPixels(claimed, maxPixels);
    bitmap = await createImageBitmap(blob, { imageOrientation: 'from-image' });
  } catch (error) {
    if (error instanceof ScrimError) throw error;
    throw new ScrimError('INVALID_DATA', 'the file is no picture that this browser can read, or it is damaged', {
      cause: error,
    });
  }
  try {
    expectPixels(bitmap, maxPixels);
  } catch (error) {
    bitmap.close();
    throw error;
  }
  return bitmap;
}

/**
 * Reads a photo at its own size.
 * @throws ScrimError INVALID_DATA if it is no photo this browser can read, LIMIT_EXCEEDED above the limits, UNSUPPORTED
 * without createImageBitmap and OffscreenCanvas.
 */
export async function readImage(input: WebImageInput, limits: WebImageLimits = {}): Promise<PixelSource> {
  return withBitmap(input, limits, (bitmap) => readPixels(bitmap, bitmap));
}

/**
 * Reads a photo on its way to the size that `target` is or, given the photo's size, returns: a side that is longer is
 * shrunk to it, a shorter one is left as it is, for `PixelConverter.convert` to enlarge.
 * @throws ScrimError as {@link readImage}; INVALID_ARGUMENT for a size that is no integer ≥ 1.
 */
export async function readImageTowards(
  input: WebImageInput,
  target: Size | ((original: Size) => Size),
  limits: WebImageLimits = {},
): Promise<WebResizedImage> {
  return withBitmap(input, limits, (bitmap) => {
    const original = { width: bitmap.width, height: bitmap.height };
    const wanted = typeof target === 'function' ? target(original) : target;
    expectSize(wanted, 'the size to read a photo at');
    const size = {
      width: Math.min(wanted.width, original.width),
      height: Math.min(wanted.height, original.height),
    };
    const pixels = readPixels(bitmap, platformSize(original, size));
    const fits = pixels.width === size.width && pixels.height === size.height;
    return { ...(fits ? pixels : shrink(pixels, size)), original };
  });
}

/** Makes a reader of photos; `mode` defaults to the square that `spec` names, 1024×1024 where it names none. */
export function createInputReader(
  spec: DetectorSpec,
  mode: ResizeMode = defaultResize(spec),
  limits: WebImageLimits = {},
): WebInputReader {
  const converter = createPixelConverter(spec.preprocessing);
  return {
    async read(input, out) {
      const image = await readImageTowards(
        input,
        (original) => planResize(original, mode, spec.multiple).resized,
        limits,
      );
      const plan = planResize(image.original, mode, spec.multiple);
      const { resized, canvas } = plan;
      const tensor = converter.convert(image, { resized, canvas, ...(out === undefined ? {} : { out }) });
      return { tensor, plan };
    },
  };
}

async function withBitmap<T>(
  input: WebImageInput,
  limits: WebImageLimits,
  use: (bitmap: ImageBitmap) => T,
): Promise<T> {
  expectPlatform();
  if (isBitmap(input)) {
    expectPixels(input, limits.maxPixels ?? DEFAULT_MAX_PIXELS);
    return use(input);
  }
  const bitmap = await decodePhoto(input, limits);
  try {
    return use(bitmap);
  } finally {
    bitmap.close();
  }
}

function isBitmap(input: WebImageInput): input is ImageBitmap {
  return typeof ImageBitmap === 'function' && input instanceof ImageBitmap;
}

function expectPlatform(): void {
  if (typeof createImageBitmap !== 'function' || typeof OffscreenCanvas !== 'function') {
    throw new ScrimError(
      'UNSUPPORTED',
      'this browser has no createImageBitmap or no OffscreenCanvas to read photos with',
    );
  }
}

function expectPixels({ width, height }: Size, maxPixels: number): void {
  if (!(width * height <= maxPixels)) {
    throw new ScrimError('LIMIT_EXCEEDED', `the picture has ${width}×${height} pixels, at most ${maxPixels} are read`);
  }
}

/** The size the platform draws a photo at that is to become `size`: its own, unless that is too large to hold twice. */
function platformSize(original: Size, size: Size): Size {
  if (original.width * original.height <= PLATFORM_SHRINK_PIXELS) return original;
  return {
    width: Math.min(original.width, 2 * size.width),
    height: Math.min(original.height, 2 * size.height),
  };
}

function readPixels(bitmap: ImageBitmap, { width, height }: Size): PixelSource {
  const context = new OffscreenCanvas(width, height).getContext('2d', {
    willReadFrequently: true,
    colorSpace: 'srgb',
  });
  if (!context) {
    throw new ScrimError('UNSUPPORTED', `this browser has no canvas of ${width}×${height} to read the photo with`);
  }
  context.fillStyle = BACKGROUND;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, width, height);
  try {
    return { width, height, data: context.getImageData(0, 0, width, height).data };
  } catch (error) {
    throw ScrimError.from(error, 'LIMIT_EXCEEDED', `this browser can't hold a picture of ${width}×${height} pixels`);
  }
}

function shrink(image: PixelSource, resized: Size): RgbImage {
  return tensorToImage(createPixelConverter(AS_BYTES).convert(image, { resized }), AS_BYTES);
}
