/**
 * Photos in files, through libvips (sharp): decoding, orientation, colour conversion and resizing, off the event loop
 * in libvips' own threads. Whatever a file holds (grey, CMYK, 16 bits, transparency, an EXIF rotation), what comes out
 * is upright 8-bit sRGB. sharp is an optional dependency, loaded when the first picture is.
 */
import { readFile, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import type sharpModule from 'sharp';
import { ScrimError } from '../errors.js';
import { channelsOf, expectSize, type PixelSource, type RgbImage, type Size } from '../vision/index.js';
import { writeFileAtomically } from './bundle-files.js';

/** A path, or the bytes of a file. */
export type ImageInput = string | Uint8Array;

/** Limits of one picture. */
export interface ImageLimits {
  /** Most pixels, width × height; default 100 million. */
  readonly maxPixels?: number;
  /** Largest file; default 256 MiB. */
  readonly maxBytes?: number;
}

/** How pixels between pixels are made; where a picture shrinks, each kernel is widened, so that nothing aliases. */
export type ResizeKernel = 'nearest' | 'linear' | 'cubic' | 'lanczos3';

/** A picture read at another size than the file's, perhaps. */
export interface ResizedImage extends RgbImage {
  /** Size of the upright photo in the file. */
  readonly original: Size;
}

/** Formats that are photos; libvips could also render vector graphics and documents, which is not wanted here. */
const FORMATS: ReadonlySet<string> = new Set(['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif', 'avif']);

const DEFAULT_MAX_PIXELS = 100_000_000;
const DEFAULT_MAX_BYTES = 2 ** 28;
/** Behind transparent pixels: neither the network nor a person should see what an editor left there. */
const BACKGROUND = '#808080';

type Sharp = typeof sharpModule;
type Pipeline = ReturnType<Sharp>;

let loading: Promise<Sharp> | undefined;

function loadSharp(): Promise<Sharp> {
  loading ??= import('sharp').then(
    (module) => module.default,
    (error: unknown) => {
      loading = undefined;
      throw ScrimError.from(
        error,
        'UNSUPPORTED',
        "the package 'sharp' can't be loaded, which reads and writes pictures",
      );
    },
  );
  return loading;
}

/**
 * Sets how many threads libvips may use for one picture; pictures read at the same time each have their own.
 * @throws ScrimError INVALID_ARGUMENT unless `threads` is an integer ≥ 1; UNSUPPORTED without sharp.
 */
export async function setImageThreads(threads: number): Promise<void> {
  if (!Number.isInteger(threads) || threads < 1) {
    throw new ScrimError('INVALID_ARGUMENT', `threads is ${threads}, expected an integer ≥ 1`);
  }
  (await loadSharp()).concurrency(threads);
}

/**
 * Reads a photo at its own size.
 * @throws ScrimError NOT_FOUND, INVALID_DATA if it is no readable photo, LIMIT_EXCEEDED above the limits, UNSUPPORTED
 * without sharp.
 */
export async function readImage(input: ImageInput, limits: ImageLimits = {}): Promise<RgbImage> {
  const { pipeline, what } = await open(input, limits);
  return toRgb(pipeline, what);
}

/**
 * Reads a photo and resizes it to exactly the size that `target` is or, given the photo's size, returns. JPEGs that
 * shrink are decoded at a fraction of their size, which makes large photos cheap.
 * @throws ScrimError as {@link readImage}, and INVALID_ARGUMENT for a size that is no integer ≥ 1.
 */
export async function readImageResized(
  input: ImageInput,
  target: Size | ((original: Size) => Size),
  options: ImageLimits & { readonly kernel?: ResizeKernel } = {},
): Promise<ResizedImage> {
  const { pipeline, original, what } = await open(input, options);
  const size = typeof target === 'function' ? target(original) : target;
  expectSize(size, 'the size to read a photo at');
  const resized = pipeline.resize(size.width, size.height, { fit: 'fill', kernel: options.kernel ?? 'linear' });
  return { ...(await toRgb(resized, what)), original };
}

/**
 * Reads a photo on its way to the size that `target` is or, given the photo's size, returns: a side that is longer is
 * shrunk to it, a shorter one is left as it is. What is left to do, `PixelConverter.convert` does ten times faster
 * than libvips, while it normalises.
 * @throws ScrimError as {@link readImageResized}.
 */
export async function readImageTowards(
  input: ImageInput,
  target: Size | ((original: Size) => Size),
  options: ImageLimits = {},
): Promise<ResizedImage> {
  const { pipeline, original, what } = await open(input, options);
  const size = typeof target === 'function' ? target(original) : target;
  expectSize(size, 'the size to read a photo at');
  const width = Math.min(size.width, original.width);
  const height = Math.min(size.height, original.height);
  const smaller = width < original.width || height < original.height;
  const resized = smaller ? pipeline.resize(width, height, { fit: 'fill', kernel: 'linear' }) : pipeline;
  return { ...(await toRgb(resized, what)), original };
}

/** Resizes a picture in memory. @throws ScrimError INVALID_ARGUMENT for a size that is no integer ≥ 1. */
export async function resizeImage(image: PixelSource, size: Size, kernel: ResizeKernel = 'linear'): Promise<RgbImage> {
  expectSize(size, 'the size to resize to');
  const pipeline = (await fromPixels(image)).resize(size.width, size.height, { fit: 'fill', kernel });
  return toRgb(pipeline, 'the picture');
}

/** Width and height of an upright photo, from the file's header. @throws ScrimError as {@link readImage}. */
export async function readImageSize(input: ImageInput, limits: ImageLimits = {}): Promise<Size> {
  return (await open(input, limits)).original;
}

/** Encodes a picture as PNG. */
export async function encodePng(image: PixelSource): Promise<Uint8Array> {
  return (await fromPixels(image)).png().toBuffer();
}

/** Encodes a picture as JPEG; `quality` 1 to 100, default 90, colours at full resolution. */
export async function encodeJpeg(image: PixelSource, quality = 90): Promise<Uint8Array> {
  if (!Number.isInteger(quality) || quality < 1 || quality > 100) {
    throw new ScrimError('INVALID_ARGUMENT', `quality is ${quality}, expected an integer from 1 to 100`);
  }
  return (await fromPixels(image)).jpeg({ quality, chromaSubsampling: '4:4:4' }).toBuffer();
}

/**
 * Writes a picture to a file whose name ends in .png, .jpg or .jpeg.
 * @throws ScrimError INVALID_ARGUMENT for another ending.
 */
export async function writeImage(path: string, image: PixelSource): Promise<void> {
  const ending = extname(path).toLowerCase();
  if (ending === '.png') await writeFileAtomically(path, await encodePng(image));
  else if (ending === '.jpg' || ending === '.jpeg') await writeFileAtomically(path, await encodeJpeg(image));
  else throw new ScrimError('INVALID_ARGUMENT', `'${path}' ends in '${ending}', expected .png, .jpg or .jpeg`);
}

/** Reads the file and its header, and sets up the upright photo. */
async function open(
  input: ImageInput,
  { maxPixels = DEFAULT_MAX_PIXELS, maxBytes = DEFAULT_MAX_BYTES }: ImageLimits,
): Promise<{ pipeline: Pipeline; original: Size; what: string }> {
  const what = typeof input === 'string' ? `'${input}'` : 'the picture';
  const sharp = await loadSharp();
  const bytes = typeof input === 'string' ? await readBytes(input, maxBytes) : input;
  if (bytes.length > maxBytes) throw tooLarge(what, bytes.length, maxBytes);
  if (bytes.length === 0) throw new ScrimError('INVALID_DATA', `${what} is empty`);

  const pipeline = sharp(bytes, { failOn: 'truncated', limitInputPixels: false, sequentialRead: true });
  let header: Awaited<ReturnType<Pipeline['metadata']>>;
  try {
    header = await pipeline.metadata();
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_DATA', `${what} is no picture that can be read`);
  }
  if (!FORMATS.has(header.format ?? '')) {
    throw new ScrimError('INVALID_DATA', `${what} is ${header.format ?? 'unknown'}, expected a photo`);
  }
  const stored = { width: header.width ?? 0, height: header.height ?? 0 };
  if (!(stored.width * stored.height <= maxPixels)) {
    throw new ScrimError(
      'LIMIT_EXCEEDED',
      `${what} has ${stored.width}×${stored.height} pixels, at most ${maxPixels} are read`,
    );
  }
  // EXIF orientations 5 to 8 lie on their side.
  const turned = (header.orientation ?? 1) >= 5;
  const original = turned ? { width: stored.height, height: stored.width } : stored;
  return { pipeline: pipeline.autoOrient(), original, what };
}

async function readBytes(path: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > maxBytes) throw tooLarge(`'${path}'`, size, maxBytes);
    return await readFile(path);
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    throw ScrimError.from(error, missing ? 'NOT_FOUND' : 'INVALID_DATA', `'${path}' can't be read`);
  }
}

async function fromPixels(image: PixelSource): Promise<Pipeline> {
  const channels = channelsOf(image);
  const pipeline = (await loadSharp())(image.data, { raw: { width: image.width, height: image.height, channels } });
  return channels === 4 ? pipeline.removeAlpha() : pipeline;
}

async function toRgb(pipeline: Pipeline, what: string): Promise<RgbImage> {
  try {
    const { data, info } = await pipeline
      .flatten({ background: BACKGROUND })
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new ScrimError('INVALID_DATA', `${what} has ${info.channels} channels, expected 3`);
    return { width: info.width, height: info.height, data };
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_DATA', `${what} is damaged or cut off`);
  }
}

function tooLarge(what: string, bytes: number, maxBytes: number): ScrimError {
  return new ScrimError('LIMIT_EXCEEDED', `${what} has ${bytes} bytes, at most ${maxBytes} are read`);
}
