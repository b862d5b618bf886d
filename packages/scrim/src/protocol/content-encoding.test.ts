import { deflateSync, gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { chooseContentEncoding, createLimits, decodeContent, encodeContent, parseContentEncoding } from './index.js';

const compress = { gzip: gzipSync, deflate: deflateSync };
const decompress = { gzip: gunzipSync, deflate: inflateSync };

describe.each(['gzip', 'deflate'] as const)('%s', (encoding) => {
  it('agrees with zlib both ways', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200_000, size: 'max' }), fc.nat(100), async (bytes, cut) => {
        const parts = [bytes.subarray(0, cut), bytes.subarray(cut)];
        const encoded = await encodeContent(parts, encoding);
        expect(decompress[encoding](encoded).equals(bytes)).toBe(true);
        expect(Buffer.from(await decodeContent(compress[encoding](bytes), encoding)).equals(bytes)).toBe(true);
      }),
      { seed: 8, numRuns: 8 },
    );
  });

  it('stops a body that grows past the limit', async () => {
    const bomb = compress[encoding](new Uint8Array(2 ** 26));
    expect(bomb.length).toBeLessThan(2 ** 17);
    const before = process.memoryUsage().arrayBuffers;
    const limits = createLimits({ maxBytes: 2 ** 20 });
    await expect(decodeContent(bomb, encoding, { limits })).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 24);
    const exact = await decodeContent(compress[encoding](new Uint8Array(2 ** 20)), encoding, { limits });
    expect(exact.length).toBe(2 ** 20);
    await expect(
      decodeContent(compress[encoding](new Uint8Array(2 ** 20 + 1)), encoding, { limits }),
    ).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
  });

  it('refuses what is cut off, changed or something else', async () => {
    const whole = compress[encoding](Buffer.from('a text that is long enough to be cut '.repeat(50)));
    const changed = Uint8Array.from(whole);
    changed[changed.length - 3] = (changed[changed.length - 3] ?? 0) ^ 1;
    for (const bytes of [
      new Uint8Array(0),
      whole.subarray(0, -3),
      whole.subarray(0, 5),
      changed,
      Uint8Array.of(1, 2, 3),
    ]) {
      await expect(decodeContent(bytes, encoding)).rejects.toBeInstanceOf(ScrimError);
      await expect(decodeContent(bytes, encoding, { code: 'INVALID_DATA' })).rejects.toMatchObject({
        code: 'INVALID_DATA',
      });
    }
  });

  it('never does anything but fail on noise', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.nat(), async (noise, at) => {
        const bytes = Uint8Array.from(compress[encoding](noise));
        bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ (1 << (at % 8));
        for (const body of [noise, bytes]) {
          try {
            expect(await decodeContent(body, encoding)).toBeInstanceOf(Uint8Array);
          } catch (error) {
            expect(error).toBeInstanceOf(ScrimError);
          }
        }
      }),
      { seed: 9, numRuns: 100 },
    );
  });
});

describe('headers', () => {
  it('name an encoding', () => {
    expect([null, '', 'identity', 'GZIP', ' deflate ', 'x-gzip'].map(parseContentEncoding)).toEqual([
      'identity',
      'identity',
      'identity',
      'gzip',
      'deflate',
      'gzip',
    ]);
    expect(() => parseContentEncoding('br')).toThrow(ScrimError);
    expect(() => parseContentEncoding('gzip, gzip')).toThrow(ScrimError);
  });
  it.each([
    [undefined, 'identity'],
    ['gzip', 'gzip'],
    ['deflate', 'deflate'],
    ['deflate, gzip', 'gzip'],
    ['deflate;q=1.0, gzip;q=0.5', 'deflate'],
    ['gzip;q=0, br', 'identity'],
    ['*', 'identity'],
    ['identity;q=1, gzip;q=0.5', 'identity'],
    ['gzip;q=x', 'identity'],
    ['gzip ; q=0.3 , deflate; q=0.2', 'gzip'],
  ])('choose for %s: %s', (accept, expected) => {
    expect(chooseContentEncoding(accept)).toBe(expected);
  });
});
