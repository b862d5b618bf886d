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

  it('gives the keystream of OpenSSL for any key, counter and length, whatever was in memory', async () => {
    const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    await fc.assert(
      fc.asyncProperty(bytes(32), bytes(16), fc.integer({ min: 0, max: 300_000 }), async (key, counter, length) => {
        const memory = new Uint8Array(length + 32).fill(0xaa);
        await crypto.aes256CtrKeystream(key, counter, memory.subarray(16, 16 + length));
        const expected = createCipheriv('aes-256-ctr', key, counter).update(new Uint8Array(length));
        expect(Buffer.compare(memory.subarray(16, 16 + length), expected)).toBe(0);
        expect(memory.subarray(0, 16).every((byte) => byte === 0xaa)).toBe(true);
        expect(memory.subarray(16 + length).every((byte) => byte === 0xaa)).toBe(true);
      }),
      { numRuns: 20, seed: 1 },
    );
  });

  it('counts on across calls: two halves are the whole', async () => {
    const key = new Uint8Array(32).fill(7);
    const whole = new Uint8Array(64);
    await crypto.aes256CtrKeystream(key, fromHex('00000000000000000000000000000000'), whole);
    const half = new Uint8Array(32);
    await crypto.aes256CtrKeystream(key, fromHex('00000000000000000000000000000002'), half);
    expect(toHex(half)).toBe(toHex(whole.subarray(32)));
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
    ['AES-256-CTR', { aes256CtrKeystream: () => undefined }],
    [
      // A counter of one byte, which starts again after 256 blocks.
      'AES-256-CTR',
      {
        aes256CtrKeystream(key, counterBlock, out) {
          for (let at = 0; at < out.length; at += 16) {
            const counter = counterBlock.slice();
            counter[15] = (counter[15] as number) + at / 16;
            good.aes256CtrKeystream(key, counter, out.subarray(at, at + 16));
          }
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
