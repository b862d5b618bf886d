/**
 * {@link NoiseCrypto} over node:crypto. Everything answers at once, without a promise.
 *
 * The keystream is AES-256-CTR of zeros. A Cipher returns new memory for each update; left to the garbage collector
 * it piles up and every release works on cold pages, so it is given back at once, which makes the keystream
 * about a third faster (bench/obfuscation.mjs).
 */
import { createCipheriv, createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { MessageChannel } from 'node:worker_threads';
import type { NoiseCrypto } from '../noise/noise-crypto.js';

/** Bytes encrypted at a time: small enough to stay in the second-level cache, large enough to hide the calls. */
const PIECE_BYTES = 65_536;

/** Below this, giving memory back costs more than it saves. */
const MIN_DISCARDED_BYTES = 4096;

/** The cryptography of this Node process. */
export function createNodeCrypto(): NoiseCrypto {
  const zeros = new Uint8Array(PIECE_BYTES);
  const discard = createDiscard();
  return {
    description: 'node:crypto',
    randomBytes(length) {
      return new Uint8Array(randomBytes(length));
    },
    sha256(data) {
      return new Uint8Array(createHash('sha256').update(data).digest());
    },
    hmacSha256(key, data) {
      return new Uint8Array(createHmac('sha256', key).update(data).digest());
    },
    hkdfSha256(key, salt, info, length) {
      return new Uint8Array(hkdfSync('sha256', key, salt, info, length));
    },
    aes256Ctr(key, counterBlock) {
      const cipher = createCipheriv('aes-256-ctr', key, counterBlock);
      return {
        fill(out) {
          for (let at = 0; at < out.length; at += PIECE_BYTES) {
            const rest = out.length - at;
            const piece = cipher.update(rest < PIECE_BYTES ? zeros.subarray(0, rest) : zeros);
            out.set(piece, at);
            if (piece.length >= MIN_DISCARDED_BYTES) discard(piece);
          }
        },
        close() {
          // Overwrites the key schedule; left to the collector it would stay in memory for long.
          cipher.final();
        },
      };
    },
  };
}

/**
 * Returns a function that frees the memory behind `piece`, which must not be used afterwards: with
 * ArrayBuffer.transfer where it exists (Node 22), else by sending it to a port that nobody can read any more.
 */
function createDiscard(): (piece: Uint8Array) => void {
  if ('transfer' in ArrayBuffer.prototype) {
    return ({ buffer }) => {
      (buffer as ArrayBuffer & { transfer(length: number): ArrayBuffer }).transfer(0);
    };
  }
  const { port1 } = new MessageChannel();
  port1.close();
  return (piece) => {
    const buffer = piece.buffer as ArrayBuffer;
    if (piece.byteLength === buffer.byteLength && piece.byteLength > 0) port1.postMessage(0, [buffer]);
  };
}
