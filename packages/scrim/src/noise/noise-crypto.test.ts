import { createCipheriv } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createWebCrypto } from '../web/web-crypto.js';
import { fromHex, type NoiseCrypto, toHex, verifyNoiseCrypto } from './noise-crypto.js';

const providers: [string, NoiseCrypto][] = [
  ['node:crypto', createNodeCrypto()],
  ['WebCrypto', createWebCrypto()],
];

describe.each(providers)('%s', (name, crypto) => {
  it('says who it is and passes the published vectors', async () => {
    expect(crypto.description).toBe(name);
    await expect(verifyNoiseCrypto(crypto)).resolves.toBeUndefined();
  });

  it('gives the keystream of OpenSSL for any key, counter and lengths, whatever was in memory', async () => {
    const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    const lengths = fc.array(fc.integer({ min: 1, max: 10_000 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(bytes(32), bytes(16), lengths, async (key, counter, blocks) => {
        const length = 16 * blocks.reduce((sum, count) => sum + count);
        const memory = new Uint8Array(length + 32).fill(0xaa);
        const expected = createCipheriv('aes-256-ctr', key, counter).update(new Uint8Array(length));
        const stream = crypto.aes256Ctr(key, counter);
        key.fill(0);
        counter.fill(0);
        let at = 16;
        for (const count of blocks) {
          await stream.fill(memory.subarray(at, at + 16 * count));
          at += 16 * count;
        }
        stream.close();
        expect(Buffer.compare(memory.subarray(16, at), expected)).toBe(0);
        expect(memory.subarray(0, 16).every((byte) => byte === 0xaa)).toBe(true);
        expect(memory.subarray(at).every((byte) => byte === 0xaa)).toBe(true);
      }),
      { numRuns: 20, seed: 1 },
    );
  });

  it('carries over all bytes of the counter, and round from the last', async () => {
    for (const start of ['000000000000000000000000ffffffff', '0000000000000000ffffffffffffffff', 'ff'.repeat(16)]) {
      const [key, counter] = [new Uint8Array(32).fill(7), fromHex(start)];
      const found = new Uint8Array(64);
      const stream = crypto.aes256Ctr(key, counter);
      for (let at = 0; at < 64; at += 16) await stream.fill(found.subarray(at, at + 16));
      const expected = createCipheriv('aes-256-ctr', key, counter).update(new Uint8Array(64));
      expect(toHex(found)).toBe(toHex(expected));
    }
  });

  it('fills nothing after close', async () => {
    const stream = crypto.aes256Ctr(new Uint8Array(32), new Uint8Array(16));
    await stream.fill(new Uint8Array(16));
    stream.close();
    await expect((async () => stream.fill(new Uint8Array(16)))()).rejects.toThrow();
  });

  it('fills as many random bytes as asked for', () => {
    const bytes = crypto.randomBytes(100_000);
    expect(bytes.length).toBe(100_000);
    expect(new Set(bytes).size).toBe(256);
  });
});

describe('verifyNoiseCrypto', () => {
  const good = createNodeCrypto();
  const broken: [string, Partial<NoiseCrypto>][] = [
    ['SHA-256', { sha256: () => new Uint8Array(32) }],
    ['HMAC-SHA-256', { hmacSha256: (_, data) => good.sha256(data) }],
    ['HKDF-SHA-256', { hkdfSha256: (key, _, info, length) => good.hkdfSha256(key, info, info, length) }],
    ['AES-256-CTR', { aes256Ctr: () => ({ fill() {}, close() {} }) }],
    // Each piece from the first counter on.
    [
      'AES-256-CTR',
      { aes256Ctr: (key, counter) => ({ fill: (out) => good.aes256Ctr(key, counter).fill(out), close() {} }) },
    ],
    [
      // A counter of one byte, which starts again after 256 blocks.
      'AES-256-CTR',
      {
        aes256Ctr(key, counterBlock) {
          const counter = counterBlock.slice();
          const fill = (out: Uint8Array) => {
            for (let at = 0; at < out.length; at += 16) {
              good.aes256Ctr(key, counter).fill(out.subarray(at, at + 16));
              counter[15] = (counter[15] as number) + 1;
            }
          };
          return { fill, close() {} };
        },
      },
    ],
    ['random bytes', { randomBytes: (length) => new Uint8Array(length).fill(4) }],
  ];
  it.each(broken)('refuses a provider whose %s is broken', async (what, override) => {
    const crypto = { ...good, ...override };
    await expect(verifyNoiseCrypto(crypto)).rejects.toMatchObject({
      code: 'NOISE_FAILED',
      message: expect.stringContaining(what),
    });
  });

  it('turns what a provider throws into NOISE_FAILED', async () => {
    const crypto: NoiseCrypto = {
      ...good,
      sha256: () => {
        throw new Error('no such digest');
      },
    };
    await expect(verifyNoiseCrypto(crypto)).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });
});

describe('hexadecimal', () => {
  it('round-trips', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(fromHex(toHex(bytes))).toEqual(bytes);
      }),
      { seed: 1 },
    );
  });
  it.each(['0', 'xy', '0x12'])('refuses %j', (text) => {
    expect(() => fromHex(text)).toThrow('hexadecimal');
  });
});
