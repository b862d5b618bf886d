/**
 * The only value that may leave the trusted side, and the noisers that make it.
 *
 * A {@link Release} has no public constructor: it comes out of a noiser, with noise on it, or not at all. A noiser
 * gives each sample a key of its own; if anything about key, keystream or noise fails, it throws and nothing is
 * released. Memory of the payload belongs to whoever holds the release.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { allocate, expectType, float32, sameShape, type Tensor, tensor } from '../tensor.js';
import type { DiagonalTransform, DrawnNoise } from './diagonal.js';
import { dequantise } from './grid.js';
import {
  createFreshKeys,
  createRepeatableKeys,
  createReplayKeys,
  type KeyMode,
  type KeySource,
  type ReleaseKey,
} from './keystream.js';
import type { NoiseCrypto } from './noise-crypto.js';

/** What a release is made of. */
interface ReleaseFields {
  readonly shape: readonly number[];
  readonly payload: Int16Array;
  readonly steps: Float32Array;
  readonly channels: number;
  readonly sentChannels: Int32Array | undefined;
  readonly bundleHash: string;
  readonly alpha: number;
  readonly keyId: string;
  readonly mode: KeyMode;
}

// Assigned by the static block of Release, which alone reaches its constructor; not exported.
let mintRelease: (fields: ReleaseFields) => Release;

/** A noisy activation on its public grid. The value of an element is payload·step of its channel. */
export class Release {
  /** [1, sent channels, H, W]. */
  readonly shape: readonly number[];
  /** Grid values in steps, row-major. */
  readonly payload: Int16Array;
  /** Step by sent channel: powers of two, public. */
  readonly steps: Float32Array;
  /** Channels of the activation, sent or not. */
  readonly channels: number;
  /** Which channels were sent, in order; undefined if all. */
  readonly sentChannels: Int32Array | undefined;
  /** SHA-256 of the bundle whose noise this is, in hexadecimal. */
  readonly bundleHash: string;
  /** Training weight of privacy of that bundle. */
  readonly alpha: number;
  /** Public name of the key; the same id means the same noise. */
  readonly keyId: string;
  /** How the key was made. A 'replay' is reproducible by design and must not be sent anywhere. */
  readonly mode: KeyMode;
  readonly #minted = true;

  private constructor(fields: ReleaseFields) {
    this.shape = fields.shape;
    this.payload = fields.payload;
    this.steps = fields.steps;
    this.channels = fields.channels;
    this.sentChannels = fields.sentChannels;
    this.bundleHash = fields.bundleHash;
    this.alpha = fields.alpha;
    this.keyId = fields.keyId;
    this.mode = fields.mode;
    Object.freeze(this);
  }

  static {
    mintRelease = (fields) => new Release(fields);
  }

  /** True if a noiser made `value`; an object that only looks like a release is none. */
  static isRelease(value: unknown): value is Release {
    return typeof value === 'object' && value !== null && #minted in value && value.#minted;
  }
}

/** Makes releases with one transform. */
export interface Noiser {
  readonly mode: KeyMode;
  readonly transform: DiagonalTransform;
  readonly bundleHash: string;
  readonly alpha: number;
  /**
   * Releases one activation.
   * @param activation float32 [1, C, H, W]; must not change until the promise settles
   * @param canonicalInput bytes that are the same exactly if the input is the same, such as the decoded pixels;
   * required in repeatable mode, unused in the others
   * @throws ScrimError INVALID_ARGUMENT if the activation does not fit or holds NaN, NOISE_FAILED if the noise fails
   */
  release(activation: Tensor, canonicalInput?: Uint8Array): Promise<Release>;
  /**
   * Releases a batch, each sample with a key, and so with noise, of its own.
   * @param activation float32 [N, C, H, W]
   * @param canonicalInputs one for each sample, as for `release`
   * @throws ScrimError as `release`; then none of the batch is released
   */
  releaseBatch(activation: Tensor, canonicalInputs?: readonly Uint8Array[]): Promise<Release[]>;
  /**
   * Draws the noise of a release before its activation is there, while the head runs, say. The noise is the one that
   * `release` would have drawn in its place.
   * @param shape [1, C, H, W] of the activation to come
   * @param canonicalInput as for `release`
   * @throws ScrimError as `release`
   */
  prepare(shape: readonly number[], canonicalInput?: Uint8Array): Promise<PreparedRelease>;
  /** Overwrites the keys, and noise that was prepared. Later releases throw NOISE_FAILED. */
  close(): void;
}

/** Noise of one release that waits for its activation. */
export interface PreparedRelease {
  /** [1, C, H, W]. */
  readonly shape: readonly number[];
  /**
   * Releases `activation` with this noise, which is gone afterwards, whatever comes of it.
   * @throws ScrimError INVALID_ARGUMENT for another shape, which leaves the noise, and for NaN; NOISE_FAILED the second time
   */
  release(activation: Tensor): Promise<Release>;
  /** Overwrites noise that is not to be used. */
  close(): void;
}

/** What every noiser is made of. */
export interface NoiserOptions {
  readonly transform: DiagonalTransform;
  /** SHA-256 of the bundle in lower-case hexadecimal; part of every key. */
  readonly bundleHash: string;
  /** Training weight of privacy of the bundle, in [0, 1]. */
  readonly alpha: number;
  readonly crypto: NoiseCrypto;
}

/** Fresh noise for every release, or noise that depends on a secret and the input alone. */
export type NoiserMode =
  | { readonly mode: 'fresh' }
  | {
      readonly mode: 'repeatable';
      /** At least 32 bytes that only the trusted side knows; copied. */
      readonly secret: Uint8Array;
    };

/**
 * Makes a noiser.
 *
 * Fresh noise on the same photo n times divides the noise variance by n; repeatable noise gives the same bytes instead.
 * @throws ScrimError INVALID_ARGUMENT for a wrong hash, alpha or secret, NOISE_FAILED if there are no random bytes
 */
export function createNoiser(options: NoiserOptions & NoiserMode): Noiser {
  const { crypto, bundleHash } = options;
  if (options.mode === 'fresh') return assemble(options, createFreshKeys(crypto, bundleHash));
  assertArgument(
    options.mode === 'repeatable',
    `mode is '${String((options as NoiserMode).mode)}', expected fresh or repeatable`,
  );
  return assemble(options, createRepeatableKeys(crypto, bundleHash, options.secret));
}

/**
 * For tests, audits and replay only: a noiser whose keys follow from `seedKey`, so that whoever has it can subtract the
 * noise. Its n-th release is the same in every run; its releases say mode 'replay'.
 * @param options.seedKey 32 bytes; copied
 */
export function createReplayNoiser(options: NoiserOptions & { readonly seedKey: Uint8Array }): Noiser {
  return assemble(options, createReplayKeys(options.crypto, options.bundleHash, options.seedKey));
}

function assemble({ transform, bundleHash, alpha }: NoiserOptions, keys: KeySource): Noiser {
  assertArgument(alpha >= 0 && alpha <= 1, `alpha is ${alpha}, expected a number in [0, 1]`);

  const mint = async (
    data: Float32Array,
    shape: readonly number[],
    noise: ReleaseKey | DrawnNoise,
    keyId: string,
  ): Promise<Release> => {
    const [, channels = 0, height = 0, width = 0] = shape;
    try {
      const payload = await transform.run(data, height * width, noise);
      return mintRelease({
        shape: [1, transform.steps.length, height, width],
        payload,
        steps: transform.steps.slice(),
        channels,
        sentChannels: transform.sentChannels?.slice(),
        bundleHash,
        alpha,
        keyId,
        mode: keys.mode,
      });
    } catch (error) {
      throw ScrimError.from(error, 'NOISE_FAILED', 'nothing was released');
    } finally {
      noise.close();
    }
  };
  const waiting = new Set<DrawnNoise>();
  let isClosed = false;
  const closeWaiting = (): void => {
    for (const drawn of waiting) drawn.close();
    waiting.clear();
  };
  const releaseSample = async (data: Float32Array, shape: readonly number[], input?: Uint8Array): Promise<Release> => {
    const key = await keys.next(shape.slice(1), input);
    return mint(data, shape, key, key.id);
  };
  const expectSample = (shape: readonly number[]): void => {
    transform.expectShape(shape);
    assertArgument(shape[0] === 1, `activation holds ${shape[0]} samples, expected 1; releaseBatch takes more`);
  };

  return {
    mode: keys.mode,
    transform,
    bundleHash,
    alpha,
    async release(activation, canonicalInput) {
      const { data, shape } = expectType(activation, 'float32', 'activation');
      expectSample(shape);
      return releaseSample(data, shape, canonicalInput);
    },
    async prepare(shape, canonicalInput) {
      expectSample(shape);
      const expected = [...shape];
      const key = await keys.next(expected.slice(1), canonicalInput);
      let drawn: DrawnNoise;
      try {
        drawn = await transform.draw((expected[2] as number) * (expected[3] as number), key);
      } catch (error) {
        throw ScrimError.from(error, 'NOISE_FAILED', 'no noise was drawn');
      } finally {
        key.close();
      }
      waiting.add(drawn);
      if (isClosed) closeWaiting();
      return {
        shape: expected,
        async release(activation) {
          const { data, shape: found } = expectType(activation, 'float32', 'activation');
          assertArgument(
            sameShape(found, expected),
            `activation has shape [${found.join(', ')}], the noise was drawn for [${expected.join(', ')}]`,
          );
          waiting.delete(drawn);
          return mint(data, expected, drawn, key.id);
        },
        close() {
          waiting.delete(drawn);
          drawn.close();
        },
      };
    },
    async releaseBatch(activation, canonicalInputs) {
      const { data, shape } = expectType(activation, 'float32', 'activation');
      transform.expectShape(shape);
      const [samples = 0] = shape;
      assertArgument(
        canonicalInputs === undefined || canonicalInputs.length === samples,
        `canonicalInputs has ${canonicalInputs?.length} elements, expected ${samples}`,
      );
      const size = data.length / samples;
      const releases: Release[] = [];
      for (let n = 0; n < samples; n++) {
        releases.push(await releaseSample(data.subarray(n * size, (n + 1) * size), shape, canonicalInputs?.[n]));
      }
      return releases;
    },
    close() {
      isClosed = true;
      keys.close();
      closeWaiting();
    },
  };
}

/** Released values of the sent channels: float32 [1, sent channels, H, W], exact. */
export function releaseToFloat32(release: Release): Tensor<'float32'> {
  const values = new Float32Array(release.payload.length);
  const plane = values.length / release.steps.length;
  for (const [index, step] of release.steps.entries())
    dequantise(release.payload, index * plane, values, index * plane, plane, step);
  return float32(release.shape, values);
}

/**
 * Released values of the sent channels as float16 bit patterns [1, sent channels, H, W], rounded to nearest even.
 * @throws ScrimError INVALID_ARGUMENT if a channel's public range goes beyond ±65504
 */
export function releaseToFloat16(release: Release): Tensor<'float16'> {
  const { data, shape } = releaseToFloat32(release);
  const halves = allocate('float16', data.length);
  const bits = new Int32Array(data.buffer, data.byteOffset, data.length);
  for (let i = 0; i < halves.length; i++) halves[i] = toHalf(bits[i] as number);
  assertArgument(
    !halves.some((half) => (half & 0x7c00) === 0x7c00),
    'the release holds values that float16 has not; send float32 instead',
  );
  return tensor('float16', shape, halves);
}

/** Bits of a finite float32 to bits of the nearest float16, ties to even; infinity beyond 65519. */
export function toHalf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2⁻¹⁴ the float16 grid is 2⁻²⁴: count those steps.
    const exponent = magnitude >>> 23;
    if (exponent < 102) return sign;
    const mantissa = (magnitude & 0x7fffff) | 0x800000;
    const shift = 126 - exponent;
    const half = 2 ** (shift - 1);
    const rest = mantissa % 2 ** shift;
    const steps = Math.floor(mantissa / 2 ** shift);
    return sign | (rest > half || (rest === half && steps % 2 === 1) ? steps + 1 : steps);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}
