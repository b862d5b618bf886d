/**
 * Keys of releases and the keystream they give (the "Secure sampling" part of the design).
 *
 * A release has a key of its own and reads AES-256-CTR keystream from counter 0 on; no counter is used twice.
 * - fresh: 32 random bytes per session; HKDF-SHA-256 with a version label, the bundle's hash and the number of the
 *   release gives the key. The same photo gets new noise each time.
 * - repeatable: HMAC-SHA-256(secret, SHA-256(canonical input) ‖ bundle hash ‖ shape) in place of session key and number.
 *   The same photo gets the same bytes, so repeating it teaches an attacker nothing. The bundle's hash keeps two
 *   alphas, the shape keeps two sizes of one photo from sharing noise.
 * - replay: as fresh, from a key that is given; for tests and audits only.
 * Keys that depend on a number alone are derived some ahead, in order; each is given out once.
 * The public id of a key is a further output of the same HKDF: it tells nothing about the key.
 */
import { assertArgument, ScrimError } from '../errors.js';
import {
  type Awaitable,
  type CtrKeystream,
  fromHex,
  type NoiseCrypto,
  sameBytes,
  toHex,
  verifyNoiseCrypto,
} from './noise-crypto.js';

/** Where the keys of a noiser come from. */
export type KeyMode = 'fresh' | 'repeatable' | 'replay';

/** Anything that fills memory with keystream, each byte of it once. */
export interface Keystream {
  /** Overwrites `out`, whose length is a multiple of 16, with the next bytes. */
  fill(out: Uint8Array): Awaitable<void>;
}

/** Gives each release its key. */
export interface KeySource {
  readonly mode: KeyMode;
  /**
   * The key of the next release.
   * @param shape [C, H, W] of the activation
   * @param canonicalInput what makes an input the same input; required in repeatable mode, unused in the others
   * @throws ScrimError NOISE_FAILED if it can't be made or the source is closed
   */
  next(shape: readonly number[], canonicalInput?: Uint8Array): Promise<ReleaseKey>;
  /** Overwrites the secrets; `next` throws afterwards. */
  close(): void;
}

const BLOCK_BYTES = 16;
const KEY_BYTES = 32;
const ID_BYTES = 16;
/** Largest number of blocks read from one key: 2³² (64 GiB), far below what CTR mode allows. */
const MAX_BLOCKS = 2 ** 32;
/** Largest number of releases of one session. */
const MAX_RELEASES = 2 ** 48;
/**
 * Most keys derived at a time. Between two releases the processor forgets HKDF: alone a derivation takes eight times as
 * long as in a row (0.16 against 0.02 ms in the middle of an evaluation).
 */
const KEYS_AHEAD = 16;
const LABEL = 'scrim release key v1';

/** The key of one release. Its keystream can be read once, front to back; `close` overwrites it. */
export class ReleaseKey implements Keystream {
  /** Public name of this key: 32 hexadecimal digits. */
  readonly id: string;
  readonly #crypto: NoiseCrypto;
  readonly #previous = new Uint8Array(BLOCK_BYTES);
  #key: Uint8Array | undefined;
  #stream: CtrKeystream | undefined;
  #blocks = 0;
  #filling = false;

  constructor(crypto: NoiseCrypto, key: Uint8Array, id: string) {
    if (key.length !== KEY_BYTES) {
      throw new ScrimError('NOISE_FAILED', `a release key has ${key.length} bytes, expected ${KEY_BYTES}`);
    }
    this.#crypto = crypto;
    this.#key = key;
    this.id = id;
  }

  /**
   * Overwrites `out` with the next bytes of the keystream. A fill that fails is the last one and closes the key.
   * @throws ScrimError NOISE_FAILED if the key is closed or used up, another fill is under way, or what came is no
   * keystream (nothing was written, or the same bytes as before)
   */
  fill(out: Uint8Array): Awaitable<void> {
    if (this.#key === undefined) throw new ScrimError('NOISE_FAILED', 'the key of this release is closed');
    if (this.#filling) throw new ScrimError('NOISE_FAILED', 'the keystream is read by two at the same time');
    if (out.length === 0 || out.length % BLOCK_BYTES !== 0) {
      throw new ScrimError('NOISE_FAILED', `${out.length} bytes of keystream asked for, expected a multiple of 16`);
    }
    this.#blocks += out.length / BLOCK_BYTES;
    if (this.#blocks > MAX_BLOCKS) throw new ScrimError('NOISE_FAILED', 'the keystream of this release is used up');

    // Stale bytes of an earlier release would be noise used twice: make sure that both ends were overwritten.
    out.fill(0, 0, BLOCK_BYTES);
    out.fill(0, out.length - BLOCK_BYTES);
    try {
      this.#stream ??= this.#crypto.aes256Ctr(this.#key, new Uint8Array(BLOCK_BYTES));
      const pending = this.#stream.fill(out);
      return pending instanceof Promise ? this.#finish(pending, out) : this.#check(out);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  async #finish(pending: Promise<void>, out: Uint8Array): Promise<void> {
    this.#filling = true;
    try {
      await pending;
      this.#check(out);
    } catch (error) {
      throw this.#failed(error);
    } finally {
      this.#filling = false;
    }
  }

  #failed(error: unknown): ScrimError {
    this.close();
    return ScrimError.from(error, 'NOISE_FAILED', 'no keystream');
  }

  #check(out: Uint8Array): void {
    const first = out.subarray(0, BLOCK_BYTES);
    const last = out.subarray(out.length - BLOCK_BYTES);
    if (isZero(first) || isZero(last)) throw new ScrimError('NOISE_FAILED', 'the keystream was not written');
    if (sameBytes(first, this.#previous)) throw new ScrimError('NOISE_FAILED', 'the keystream repeats itself');
    this.#previous.set(first);
  }

  /** Overwrites the key. */
  close(): void {
    this.#key?.fill(0);
    this.#key = undefined;
    this.#previous.fill(0);
    this.#stream?.close();
    this.#stream = undefined;
  }
}

/**
 * Keys for fresh noise, from 32 new bytes of the system's random source.
 * @param bundleHash 64 hexadecimal digits
 * @throws ScrimError NOISE_FAILED if the random source gives no random bytes
 */
export function createFreshKeys(crypto: NoiseCrypto, bundleHash: string): KeySource {
  let sessionKey: Uint8Array;
  try {
    sessionKey = crypto.randomBytes(KEY_BYTES);
  } catch (error) {
    throw ScrimError.from(error, 'NOISE_FAILED', 'no random bytes for the session key');
  }
  if (sessionKey.length !== KEY_BYTES || sessionKey.every((byte) => byte === sessionKey[0])) {
    throw new ScrimError('NOISE_FAILED', 'the random source gave too few bytes or the same byte over and over');
  }
  return createCountedKeys('fresh', crypto, bundleHash, sessionKey);
}

/** As {@link createFreshKeys}, from a `seedKey` of 32 bytes that is given: for tests and replay only. */
export function createReplayKeys(crypto: NoiseCrypto, bundleHash: string, seedKey: Uint8Array): KeySource {
  assertArgument(seedKey.length === KEY_BYTES, `seedKey has ${seedKey.length} bytes, expected ${KEY_BYTES}`);
  return createCountedKeys('replay', crypto, bundleHash, seedKey.slice());
}

/**
 * Keys that depend on the input alone, so that the same input gets the same noise.
 * @param secret at least 32 bytes, kept by the trusted side; copied
 */
export function createRepeatableKeys(crypto: NoiseCrypto, bundleHash: string, secret: Uint8Array): KeySource {
  assertArgument(secret.length >= KEY_BYTES, `secret has ${secret.length} bytes, expected at least ${KEY_BYTES}`);
  const bundle = decodeHash(bundleHash);
  const verified = verifiedOnce(crypto);
  let own: Uint8Array | undefined = secret.slice();
  return {
    mode: 'repeatable',
    async next(shape, canonicalInput) {
      assertArgument(canonicalInput !== undefined, 'canonicalInput is missing; repeatable noise depends on it');
      return derive(crypto, 'repeatable', bundle, new Uint8Array(0), async () => {
        await verified();
        if (own === undefined) throw new ScrimError('NOISE_FAILED', 'the noiser is closed');
        const digest = await crypto.sha256(canonicalInput);
        if (own === undefined) throw new ScrimError('NOISE_FAILED', 'the noiser is closed');
        return crypto.hmacSha256(own, concatenate(digest, bundle, integers(shape)));
      });
    },
    close() {
      own?.fill(0);
      own = undefined;
    },
  };
}

function createCountedKeys(mode: KeyMode, crypto: NoiseCrypto, bundleHash: string, sessionKey: Uint8Array): KeySource {
  const bundle = decodeHash(bundleHash);
  const verified = verifiedOnce(crypto);
  let own: Uint8Array | undefined = sessionKey;
  let releases = 0;
  let batch = 1;
  const ahead: Promise<ReleaseKey>[] = [];
  const deriveNext = async (): Promise<ReleaseKey> => {
    // Counted before anything can fail or wait: a number is never given out twice.
    const number = releases++;
    if (number >= MAX_RELEASES) throw new ScrimError('NOISE_FAILED', 'the keys of this session are used up');
    return derive(crypto, mode, bundle, integers([Math.floor(number / 2 ** 32), number % 2 ** 32]), async () => {
      await verified();
      if (own === undefined) throw new ScrimError('NOISE_FAILED', 'the noiser is closed');
      return own.slice();
    });
  };
  return {
    mode,
    async next() {
      if (own === undefined) throw new ScrimError('NOISE_FAILED', 'the noiser is closed');
      if (ahead.length === 0) {
        for (let i = 0; i < batch; i++) {
          const key = deriveNext();
          // Whoever gets it sees the failure.
          key.catch(() => {});
          ahead.push(key);
        }
        batch = Math.min(2 * batch, KEYS_AHEAD);
      }
      return ahead.shift() as Promise<ReleaseKey>;
    },
    close() {
      own?.fill(0);
      own = undefined;
      for (const key of ahead.splice(0)) {
        key.then(
          (unused) => unused.close(),
          () => {},
        );
      }
    },
  };
}

/** HKDF of what `inputKey` gives: 32 bytes of key, then 16 of id. */
async function derive(
  crypto: NoiseCrypto,
  mode: KeyMode,
  bundle: Uint8Array,
  context: Uint8Array,
  inputKey: () => Promise<Uint8Array>,
): Promise<ReleaseKey> {
  try {
    const own = await inputKey();
    if (own.length !== KEY_BYTES) throw new ScrimError('NOISE_FAILED', 'HMAC gave no key');
    // Replay shares the label of fresh: what it repeats is the fresh mode, noise for noise.
    const label = `${LABEL} ${mode === 'repeatable' ? 'repeatable' : 'counted'}`;
    const info = concatenate(ascii(label), bundle, context);
    const output = await crypto.hkdfSha256(own, new Uint8Array(0), info, KEY_BYTES + ID_BYTES);
    own.fill(0);
    if (output.length !== KEY_BYTES + ID_BYTES || isZero(output.subarray(0, KEY_BYTES))) {
      throw new ScrimError('NOISE_FAILED', 'HKDF gave no key');
    }
    const key = output.slice(0, KEY_BYTES);
    const id = toHex(output.subarray(KEY_BYTES));
    output.fill(0);
    return new ReleaseKey(crypto, key, id);
  } catch (error) {
    throw ScrimError.from(error, 'NOISE_FAILED', 'no key for this release');
  }
}

function verifiedOnce(crypto: NoiseCrypto): () => Promise<void> {
  let verification: Promise<void> | undefined;
  return () => {
    verification ??= verifyNoiseCrypto(crypto);
    return verification;
  };
}

function decodeHash(bundleHash: string): Uint8Array {
  assertArgument(/^[0-9a-f]{64}$/.test(bundleHash), `bundleHash is no SHA-256 in lower-case hexadecimal`);
  return fromHex(bundleHash);
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** Big-endian 32-bit integers, one after the other. */
function integers(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setUint32(4 * i, value);
  return bytes;
}

function concatenate(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
