/**
 * Releases for attackers: the real ones, and a fast equivalent to train on.
 *
 * What an attack is judged by comes out of noise/release.ts, key derivation, keystream and grid included. Training draws
 * millions of releases and keeps none, so it uses the same formula with a fast generator: z′ = clamp(m·clip(z) + μ + σε).
 * The two differ by the grid's rounding alone (a step of σ/64 or finer). The mean of many releases is drawn from the
 * exact mean and variance of a clamped normal (Johnson, Kotz & Balakrishnan, Continuous Univariate Distributions 1,
 * section 13.10), the sum being normal to good accuracy.
 */
import { assertArgument } from '../errors.js';
import { createDiagonalTransform, type DiagonalParameters } from '../noise/diagonal.js';
import type { FitRandom } from '../noise/fit/fit-random.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import { normalCdf } from '../noise/normal-distribution.js';
import { createNoiser, createReplayNoiser } from '../noise/release.js';
import { releaseToTensor } from '../noise/release-reader.js';
import { float32 } from '../tensor.js';
import type { AttackData } from './attack.js';

/** What a source of releases is made of; an AttackTarget is enough. */
export interface ReleaseSourceTarget {
  readonly parameters: DiagonalParameters;
  readonly bundleHash: string;
  readonly alpha: number;
}

/** Which keys: fresh ones, the repeatable ones of a secret, or those of a seed, the same in every run of the audit. */
export type ReleaseKeys =
  | { readonly mode: 'fresh' }
  | { readonly mode: 'repeatable'; readonly secret: Uint8Array }
  | { readonly mode: 'replay'; readonly seed: string };

/** Draws real releases. */
export interface ReleaseSource {
  readonly mode: ReleaseKeys['mode'];
  /**
   * Releases a clean activation once.
   * @param activation [C, H, W]
   * @param canonicalInput what repeatable keys depend on; default: the bytes of the activation, which are the same
   * where the input is
   * @returns all channels as the remote half sees them, [C, H, W]
   * @throws ScrimError as `Noiser.release`
   */
  draw(activation: Float32Array, canonicalInput?: Uint8Array): Promise<Float32Array>;
  close(): void;
}

/** Makes a source of releases of `shape`, through the code that makes them in service. */
export async function createReleaseSource(
  target: ReleaseSourceTarget,
  shape: AttackData['shape'],
  keys: ReleaseKeys,
  crypto: NoiseCrypto,
): Promise<ReleaseSource> {
  const { parameters, bundleHash, alpha } = target;
  const options = { transform: createDiagonalTransform(parameters), bundleHash, alpha, crypto };
  const noiser =
    keys.mode === 'replay'
      ? createReplayNoiser({ ...options, seedKey: await crypto.sha256(new TextEncoder().encode(keys.seed)) })
      : createNoiser({ ...options, ...keys });
  return {
    mode: keys.mode,
    async draw(activation, canonicalInput) {
      const bytes = new Uint8Array(activation.buffer, activation.byteOffset, activation.byteLength);
      const release = await noiser.release(float32([1, ...shape], activation), canonicalInput ?? bytes);
      return releaseToTensor(release, parameters).data;
    },
    close: () => noiser.close(),
  };
}

/** How releases come about: to train on, and as they are in service. */
export interface ReleaseMechanism {
  /** Noise to train on, from a seeded generator. */
  trainingNoise(random: FitRandom): TrainingNoise;
  /** Real releases. */
  open(keys: ReleaseKeys): Promise<ReleaseSource>;
}

/** The mechanism of a service, for activations of `shape`. Tests put broken ones in its place. */
export function releaseMechanism(
  target: ReleaseSourceTarget,
  shape: AttackData['shape'],
  crypto: NoiseCrypto,
): ReleaseMechanism {
  return {
    trainingNoise: (random) => createTrainingNoise(target.parameters, shape, random),
    open: (keys) => createReleaseSource(target, shape, keys, crypto),
  };
}

/** Noise to train on. */
export interface TrainingNoise {
  /**
   * Writes the mean of `releases` releases of `clean` to `out` from `at` on.
   * @param factor multiplies σ; 0 gives the clean activation through gain and clip
   * @param releases default 1
   */
  apply(clean: Float32Array, out: Float32Array, at: number, factor?: number, releases?: number): void;
}

/** Up to here the mean of several releases is drawn one by one; above, from its mean and variance. */
const EXACT_RELEASES = 4;

/**
 * Makes training noise for activations of `shape`. Suppressed elements become their constant, as in a release.
 * @throws ScrimError INVALID_ARGUMENT if the parameters are for another shape
 */
export function createTrainingNoise(
  parameters: DiagonalParameters,
  shape: AttackData['shape'],
  random: FitRandom,
): TrainingNoise {
  const [channels, height, width] = shape;
  const plane = height * width;
  const { gain, mean, sigma, clipLow, clipHigh } = parameters;
  const perChannel = gain.length / channels;
  assertArgument(
    perChannel === 1 || perChannel === plane,
    `parameters of [${parameters.shape.join(', ')}] do not fit activations of [${shape.join(', ')}]`,
  );
  const normals = new Float32Array(plane);
  /** Calls `visit` with what element i of channel c needs. */
  const walk = (visit: (i: number, m: number, mu: number, s: number, low: number, high: number, j: number) => void) => {
    for (let c = 0; c < channels; c++) {
      random.normal(normals);
      const low = clipLow[c] as number;
      const high = clipHigh[c] as number;
      for (let j = 0; j < plane; j++) {
        const p = perChannel === 1 ? c : c * plane + j;
        visit(c * plane + j, gain[p] as number, mean[p] as number, sigma[p] as number, low, high, j);
      }
    }
  };
  const single = (clean: Float32Array, out: Float32Array, at: number, factor: number, add: number): void => {
    walk((i, m, mu, s, low, high, j) => {
      let value = mu;
      if (m !== 0) {
        value = m * clamp(clean[i] as number, low, high) + mu + factor * s * (normals[j] as number);
        value = clamp(value, low, high);
      }
      out[at + i] = add === 1 ? value : (out[at + i] as number) + add * value;
    });
  };
  return {
    apply(clean, out, at, factor = 1, releases = 1) {
      if (releases === 1 || factor === 0) {
        single(clean, out, at, factor, 1);
      } else if (releases <= EXACT_RELEASES) {
        out.fill(0, at, at + channels * plane);
        for (let n = 0; n < releases; n++) single(clean, out, at, factor, 1 / releases);
      } else {
        walk((i, m, mu, s, low, high, j) => {
          if (m === 0) {
            out[at + i] = mu;
            return;
          }
          const centre = m * clamp(clean[i] as number, low, high) + mu;
          const [location, sd] = clampedNormal(centre, factor * s, low, high);
          out[at + i] = location + (sd / Math.sqrt(releases)) * (normals[j] as number);
        });
      }
    },
  };
}

/** Mean and standard deviation of min(max(X, low), high) for X ~ N(centre, sigma²). */
export function clampedNormal(
  centre: number,
  sigma: number,
  low: number,
  high: number,
): [location: number, deviation: number] {
  const a = (low - centre) / sigma;
  const b = (high - centre) / sigma;
  if (a < -6 && b > 6) return [centre, sigma];
  const below = normalCdf(a);
  const above = normalCdf(-b);
  const inside = Math.max(0, 1 - below - above);
  const [densityA, densityB] = [density(a), density(b)];
  // In units of σ around the centre: E[X], then E[X²].
  const first = a * below + b * above + densityA - densityB;
  const second = a * a * below + b * b * above + inside + a * densityA - b * densityB;
  return [centre + sigma * first, sigma * Math.sqrt(Math.max(0, second - first * first))];
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

function density(x: number): number {
  return Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}
