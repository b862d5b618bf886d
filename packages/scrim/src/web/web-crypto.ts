/**
 * {@link NoiseCrypto} over the browser's WebCrypto (`crypto.subtle`), which exists in secure contexts: https and localhost.
 *
 * Also runs in workers. Imported keys can't be exported again.
 */
import { ScrimError } from '../errors.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';

/** Most bytes that one call of getRandomValues fills. */
const MAX_RANDOM_BYTES = 65_536;

/** Of AES. */
const BLOCK_BYTES = 16;

/**
 * The cryptography of this browser.
 * @param source where WebCrypto is, default `globalThis.crypto`
 * @throws ScrimError UNSUPPORTED where there is none
 */
export function createWebCrypto(source: Crypto = globalThis.crypto): NoiseCrypto {
  const subtle = source?.subtle;
  if (subtle === undefined) {
    throw new ScrimError('UNSUPPORTED', 'this page has no WebCrypto; it exists on https and on localhost only');
  }
  return {
    description: 'WebCrypto',
    randomBytes(length) {
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length; at += MAX_RANDOM_BYTES) {
        source.getRandomValues(bytes.subarray(at, at + MAX_RANDOM_BYTES));
      }
      return bytes;
    },
    async sha256(data) {
      return new Uint8Array(await subtle.digest('SHA-256', owned(data)));
    },
    async hmacSha256(key, data) {
      const imported = await subtle.importKey('raw', owned(key), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
      return new Uint8Array(await subtle.sign('HMAC', imported, owned(data)));
    },
    async hkdfSha256(key, salt, info, length) {
      const imported = await subtle.importKey('raw', owned(key), 'HKDF', false, ['deriveBits']);
      const parameters = { name: 'HKDF', hash: 'SHA-256', salt: owned(salt), info: owned(info) };
      return new Uint8Array(await subtle.deriveBits(parameters, imported, length * 8));
    },
    aes256Ctr(key, counterBlock) {
      let imported: Promise<CryptoKey> | undefined = subtle.importKey('raw', owned(key), 'AES-CTR', false, ['encrypt']);
      // Whoever fills sees the failure.
      imported.catch(() => {});
      const counter = owned(counterBlock);
      return {
        async fill(out) {
          if (imported === undefined) throw new ScrimError('NOISE_FAILED', 'the keystream is closed');
          const own = owned(counter);
          // Counted before anything can fail or wait: no counter is used twice.
          countUp(counter, out.length / BLOCK_BYTES);
          const parameters = { name: 'AES-CTR', counter: own, length: 128 };
          out.set(new Uint8Array(await subtle.encrypt(parameters, await imported, new Uint8Array(out.length))));
        },
        close() {
          imported = undefined;
        },
      };
    },
  };
}

/** Adds `blocks` to a big-endian number of 16 bytes. */
function countUp(counter: Uint8Array<ArrayBuffer>, blocks: number): void {
  const view = new DataView(counter.buffer);
  const low = view.getBigUint64(8) + BigInt(blocks);
  view.setBigUint64(8, low);
  view.setBigUint64(0, view.getBigUint64(0) + (low >> 64n));
}

/** A copy that WebCrypto's types accept: neither shared nor part of a larger memory that may change meanwhile. */
function owned(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}
