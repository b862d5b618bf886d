import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { FACEBOXES_PYTORCH_SPEC, imageToTensor, type RgbImage } from '../vision/index.js';
import {
  encodeJpeg,
  encodePng,
  readImage,
  readImageResized,
  readImageSize,
  readImageTowards,
  resizeImage,
  setImageThreads,
  writeImage,
} from './images.js';
import { createInputReader } from './vision-input.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'scrim-images-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** Left half red, right half blue, upper half brighter. */
function flag(width = 8, height = 4): RgbImage {
  const data = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) data[3 * (y * width + x) + (x < width / 2 ? 0 : 2)] = y < height / 2 ? 250 : 100;
  }
  return { width, height, data };
}

const pixel = ({ width, data }: RgbImage, x: number, y: number): number[] =>
  Array.from(data.subarray(3 * (y * width + x), 3 * (y * width + x) + 3));

const raw = (image: RgbImage): sharp.Sharp =>
  sharp(image.data, { raw: { width: image.width, height: image.height, channels: 3 } });

const sameBytes = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

async function codeOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
  } catch (error) {
    if (error instanceof ScrimError) return error.code;
    throw error;
  }
  return 'nothing thrown';
}

describe('readImage', () => {
  it('reads back what was written, from a file and from bytes', async () => {
    const path = join(folder, 'flag.png');
    await writeImage(path, flag());
    expect(await readImage(path)).toEqual({ ...flag(), data: Buffer.from(flag().data) });
    expect(Array.from((await readImage(await encodePng(flag()))).data)).toEqual(Array.from(flag().data));
    const jpeg = await readImage(await encodeJpeg(flag(64, 32), 95));
    expect([jpeg.width, jpeg.height, jpeg.data.length]).toEqual([64, 32, 64 * 32 * 3]);
    expect(Math.abs(pixel(jpeg, 5, 5)[0]! - 250)).toBeLessThan(8);
  });

  it('turns a photo upright as its EXIF says, and says its upright size', async () => {
    for (const orientation of [1, 2, 3, 4, 5, 6, 7, 8]) {
      const bytes = await raw(flag()).withMetadata({ orientation }).png().toBuffer();
      const { width, height } = await readImage(bytes);
      expect([orientation, width, height]).toEqual([orientation, ...(orientation < 5 ? [8, 4] : [4, 8])]);
      expect(await readImageSize(bytes)).toEqual({ width, height });
    }
    // 6: the camera lay on its side; the stored left edge is the top of the photo.
    const turned = await readImage(await raw(flag()).withMetadata({ orientation: 6 }).png().toBuffer());
    expect(pixel(turned, 0, 0)[0]).toBe(100);
    expect(pixel(turned, 0, 7)[2]).toBe(100);
    expect(pixel(turned, 3, 0)[0]).toBe(250);
  });

  it('makes RGB of grey, transparent, 16-bit, palette and CMYK pictures', async () => {
    const grey = await readImage(await raw(flag()).toColourspace('b-w').png().toBuffer());
    expect(grey.data.length).toBe(96);
    expect(new Set(pixel(grey, 0, 0)).size).toBe(1);
    const greyAlpha = await raw(flag()).toColourspace('b-w').ensureAlpha(0.5).png().toBuffer();
    expect((await readImage(greyAlpha)).data.length).toBe(96);
    const clear = await readImage(await raw(flag()).ensureAlpha(0).png().toBuffer());
    expect(pixel(clear, 0, 0)).toEqual([128, 128, 128]);
    const deep = await readImage(await raw(flag()).toColourspace('rgb16').png().toBuffer());
    expect(pixel(deep, 0, 0)).toEqual([250, 0, 0]);
    const palette = await readImage(await raw(flag()).png({ palette: true }).toBuffer());
    expect(Math.abs(pixel(palette, 0, 0)[0]! - 250)).toBeLessThan(4);
    const cmyk = await readImage(await raw(flag(64, 32)).toColourspace('cmyk').jpeg().toBuffer());
    expect(cmyk.data.length).toBe(64 * 32 * 3);
    expect(pixel(cmyk, 5, 5)[0]!).toBeGreaterThan(pixel(cmyk, 5, 5)[2]! + 100);
  });

  it('reads WebP, GIF and TIFF', async () => {
    for (const format of ['webp', 'gif', 'tiff'] as const) {
      expect((await readImage(await raw(flag(32, 16)).toFormat(format).toBuffer())).width).toBe(32);
    }
  });

  it('says what is wrong: missing, empty, text, cut off, too large, no photo', async () => {
    const text = join(folder, 'text.jpg');
    writeFileSync(text, 'these are not the pixels you are looking for');
    writeFileSync(join(folder, 'empty.jpg'), '');
    expect(await codeOf(readImage(join(folder, 'none.jpg')))).toBe('NOT_FOUND');
    expect(await codeOf(readImage(folder))).toBe('INVALID_DATA');
    expect(await codeOf(readImage(join(folder, 'empty.jpg')))).toBe('INVALID_DATA');
    expect(await codeOf(readImage(text))).toBe('INVALID_DATA');
    await expect(readImage(text)).rejects.toThrow("text.jpg' is no picture that can be read");

    const photo = await encodeJpeg(flag(640, 480));
    for (const share of [0.1, 0.5, 0.9]) {
      expect(await codeOf(readImage(photo.subarray(0, Math.floor(photo.length * share))))).toBe('INVALID_DATA');
    }
    const png = await encodePng(flag(640, 480));
    expect(await codeOf(readImage(png.subarray(0, png.length / 2)))).toBe('INVALID_DATA');

    expect(await codeOf(readImage(photo, { maxPixels: 640 * 480 - 1 }))).toBe('LIMIT_EXCEEDED');
    expect(await codeOf(readImage(photo, { maxPixels: 640 * 480 }))).toBe('nothing thrown');
    expect(await codeOf(readImage(photo, { maxBytes: 100 }))).toBe('LIMIT_EXCEEDED');
    expect(await codeOf(readImage(text, { maxBytes: 10 }))).toBe('LIMIT_EXCEEDED');
    const vector = Buffer.from(
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
    );
    expect(await codeOf(readImage(vector))).toBe('INVALID_DATA');
  });

  it('refuses a picture whose header promises more pixels than may be', async () => {
    const bomb = Buffer.from(await encodePng(flag()));
    bomb.writeUInt32BE(100_000, 16);
    bomb.writeUInt32BE(100_000, 20);
    expect(['LIMIT_EXCEEDED', 'INVALID_DATA']).toContain(await codeOf(readImage(bomb)));
  });
});

describe('readImageResized and readImageTowards', () => {
  it('resizes to the size, or to what the photo’s own size asks for', async () => {
    const bytes = await encodePng(flag(80, 40));
    const fixed = await readImageResized(bytes, { width: 20, height: 30 });
    expect([fixed.width, fixed.height, fixed.original]).toEqual([20, 30, { width: 80, height: 40 }]);
    const half = await readImageResized(bytes, ({ width, height }) => ({ width: width / 2, height: height / 2 }), {
      kernel: 'lanczos3',
    });
    expect([half.width, half.height]).toEqual([40, 20]);
    expect(pixel(half, 3, 3)).toEqual([250, 0, 0]);
    expect(await codeOf(readImageResized(bytes, { width: 0, height: 1 }))).toBe('INVALID_ARGUMENT');
  });

  it('shrinks the sides that are longer and leaves the others', async () => {
    const bytes = await encodePng(flag(80, 40));
    const image = await readImageTowards(bytes, { width: 20, height: 100 });
    expect([image.width, image.height, image.original]).toEqual([20, 40, { width: 80, height: 40 }]);
    const same = await readImageTowards(bytes, { width: 800, height: 100 });
    expect(Array.from(same.data)).toEqual(Array.from(flag(80, 40).data));
  });

  it('turns a photo before it resizes it', async () => {
    const bytes = await raw(flag(80, 40)).withMetadata({ orientation: 6 }).png().toBuffer();
    const image = await readImageTowards(bytes, { width: 10, height: 100 });
    expect([image.width, image.height, image.original]).toEqual([10, 80, { width: 40, height: 80 }]);
  });

  it('resizes pictures in memory', async () => {
    const image = await resizeImage(flag(80, 40), { width: 8, height: 4 });
    expect(pixel(image, 0, 0)).toEqual([250, 0, 0]);
    expect(pixel(image, 7, 3)).toEqual([0, 0, 100]);
  });
});

describe('writeImage and setImageThreads', () => {
  it('refuse what they can’t do', async () => {
    expect(await codeOf(writeImage(join(folder, 'x.bmp'), flag()))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(encodeJpeg(flag(), 101))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(encodePng({ ...flag(), width: 9 }))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(setImageThreads(0))).toBe('INVALID_ARGUMENT');
  });

  it('set libvips’ threads', async () => {
    const before = sharp.concurrency();
    await setImageThreads(3);
    expect(sharp.concurrency()).toBe(3);
    await setImageThreads(before);
  });
});

describe('createInputReader', () => {
  it('reads a photo as imageToTensor would, at the document’s size by default', async () => {
    const { tensor, plan } = await createInputReader(FACEBOXES_PYTORCH_SPEC).read(await encodePng(flag(80, 40)));
    expect(tensor.shape).toEqual([1, 3, 1024, 1024]);
    expect(plan.original).toEqual({ width: 80, height: 40 });
    const expected = imageToTensor(flag(80, 40), FACEBOXES_PYTORCH_SPEC.preprocessing, { resized: plan.resized });
    expect(sameBytes(tensor.data, expected.data)).toBe(true);
  });

  it('writes overlapping reads to the arrays they were given', async () => {
    const reader = createInputReader(FACEBOXES_PYTORCH_SPEC, { kind: 'native' });
    const pictures = [flag(80, 40), flag(40, 100), flag(128, 128)];
    const outs = pictures.map(() => new Float32Array(3 * 128 * 128));
    const files = await Promise.all(pictures.map((picture) => encodePng(picture)));
    const read = await Promise.all(files.map((file, i) => reader.read(file, outs[i])));
    read.forEach(({ tensor }, i) => {
      expect(tensor.data).toBe(outs[i]);
      const canvas = { width: 128, height: 128 };
      const { data } = imageToTensor(pictures[i]!, FACEBOXES_PYTORCH_SPEC.preprocessing, { canvas });
      expect(sameBytes(tensor.data, data)).toBe(true);
    });
  });
});
