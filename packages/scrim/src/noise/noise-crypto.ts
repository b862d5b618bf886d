/**
 * The cryptography that the noise stands on, as an interface: node/ and web/ provide it and it is passed in.
 *
 * SHA-256 (FIPS 180-4), HMAC-SHA-256 (RFC 2104), HKDF-SHA-256 (RFC 5869) and AES-256-CTR (NIST SP 800-38A). Every
 * method may answer at once or with a promise, so that node:crypto need not wait where WebCrypto must.
 * {@link verifyNoiseCrypto} holds a provider against published vectors before its first key is used.
 */
import { ScrimError } from '../errors.js';

/** A value, or the promise of one. */
export type Awaitable<T> = T | Promise<T>;

/** Random bytes, hashes and the keystream. Arguments are only read, except `out`. */
export interface NoiseCrypto {
  /** For people: 'node:crypto' or 'WebCrypto'. */
  readonly description: string;
  /** `length` bytes of the system's cryptographically secure random source. */
  randomBytes(length: number): Uint8Array;
  /** SHA-256 of `data`: 32 bytes. */
  sha256(data: Uint8Array): Awaitable<Uint8Array>;
  /** HMAC-SHA-256: 32 bytes. */
  hmacSha256(key: Uint8Array, data: Uint8Array): Awaitable<Uint8Array>;
  /** HKDF-SHA-256 (extract and expand): `length` bytes, at most 8160. */
  hkdfSha256(key: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Awaitable<Uint8Array>;
  /**
   * AES-256-CTR keystream, read front to back. The 16 bytes of `counterBlock` are the first counter, a big-endian number
   * which is counted up by one for every 16 bytes. Both arguments are read before this returns, never later.
   */
  aes256Ctr(key: Uint8Array, counterBlock: Uint8Array): CtrKeystream;
}

/** Keystream of one key, each byte of it given once. */
export interface CtrKeystream {
  /** Overwrites `out`, whose length is a multiple of 16, with the bytes that follow. One call at a time. */
  fill(out: Uint8Array): Awaitable<void>;
  /** Lets go of the key. Nothing is filled afterwards. */
  close(): void;
}

/**
 * Checks `crypto` against published vectors: SHA-256 of 'abc' (FIPS 180-4), HMAC test case 2 (RFC 4231), HKDF test case 1
 * (RFC 5869), AES-256-CTR F.5.5 (SP 800-38A, which carries from one byte of the counter into the next; in two pieces), and that two
 * draws of random bytes differ.
 * @throws ScrimError NOISE_FAILED naming what does not hold
 */
export async function verifyNoiseCrypto(crypto: NoiseCrypto): Promise<void> {
  const ascii = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));
  const expect = (what: string, found: Uint8Array, hex: string): void => {
    if (!sameBytes(found, fromHex(hex))) {
      throw new ScrimError('NOISE_FAILED', `${crypto.description}: ${what} gives another answer than its test vector`);
    }
  };
  try {
    const digest = await crypto.sha256(ascii('abc'));
    expect('SHA-256', digest, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');

    const mac = await crypto.hmacSha256(ascii('Jefe'), ascii('what do ya want for nothing?'));
    expect('HMAC-SHA-256', mac, '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843');

    const inputKey = new Uint8Array(22).fill(0x0b);
    const salt = fromHex('000102030405060708090a0b0c');
    const derived = await crypto.hkdfSha256(inputKey, salt, fromHex('f0f1f2f3f4f5f6f7f8f9'), 42);
    const okm = '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865';
    expect('HKDF-SHA-256', derived, okm);

    const key = fromHex('603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4');
    const counter = fromHex('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff');
    const keystream = new Uint8Array(64);
    const stream = crypto.aes256Ctr(key, counter);
    await stream.fill(keystream.subarray(0, 16));
    await stream.fill(keystream.subarray(16));
    stream.close();
    const blocks =
      '0bdf7df1591716335e9a8b15c860c502' +
      '5a6e699d536119065433863c8f657b94' +
      '1bc12c9c01610d5d0d8bd6a3378eca62' +
      '2956e1c8693536b1bee99c73a31576b6';
    expect('AES-256-CTR', keystream, blocks);

    const [first, second] = [crypto.randomBytes(32), crypto.randomBytes(32)];
    if (first.length !== 32 || second.length !== 32 || sameBytes(first, second)) {
      throw new ScrimError(
        'NOISE_FAILED',
        `${crypto.description}: two draws of random bytes are the same or too short`,
      );
    }
  } catch (error) {
    throw ScrimError.from(error, 'NOISE_FAILED', `${crypto.description} failed its self-test`);
  }
}

/** True if both arrays hold the same bytes. Takes time that depends on them: not for secrets. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Lower-case hexadecimal of `bytes`. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The bytes of a hexadecimal string. @throws ScrimError INVALID_ARGUMENT unless it is pairs of hexadecimal digits. */
export function fromHex(hex: string): Uint8Array {
  if (!/^([0-9a-fA-F]{2})*$/.test(hex)) {
    throw new ScrimError('INVALID_ARGUMENT', 'a hexadecimal string was expected', { details: { length: hex.length } });
  }
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}
