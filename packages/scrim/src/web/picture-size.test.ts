import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { pictureSize } from './picture-size.js';

const picture = sharp({ create: { width: 321, height: 123, channels: 3, background: '#406080' } });

describe('pictureSize', () => {
  it.each([
    ['jpeg', () => picture.clone().jpeg().toBuffer()],
    [
      'progressive jpeg with EXIF',
      () => picture.clone().withMetadata({ orientation: 6 }).jpeg({ progressive: true }).toBuffer(),
    ],
    ['png', () => picture.clone().png().toBuffer()],
    ['gif', () => picture.clone().gif().toBuffer()],
    ['webp', () => picture.clone().webp().toBuffer()],
    ['lossless webp', () => picture.clone().webp({ lossless: true }).toBuffer()],
    ['webp with alpha', () => picture.clone().ensureAlpha(0.5).webp().toBuffer()],
  ])('reads the size of a %s as it is stored', async (_, encode) => {
    const bytes = new Uint8Array(await encode());
    expect(pictureSize(bytes)).toEqual({ width: 321, height: 123 });
    for (let length = 0; length < 40; length++) {
      const size = pictureSize(bytes.subarray(0, length));
      if (size) expect(size).toEqual({ width: 321, height: 123 });
    }
  });

  it('knows nothing of other files and never throws', async () => {
    expect(pictureSize(new TextEncoder().encode('this is no picture'))).toBeUndefined();
    const start = Uint8Array.of(0xff, 0xd8, 0xff);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, isJpeg) => {
        pictureSize(isJpeg ? Uint8Array.from([...start, ...bytes]) : bytes);
      }),
    );
  });
});
