/**
 * Linkage: which of N photos does a release belong to?
 *
 * The attacker holds N candidate photos (somebody's album, a public feed) and one release. It runs the head on every
 * candidate and asks which would most likely have given the release: the noise is Gaussian with known σ, so the
 * likelihood is a weighted distance. Three readings: the likelihood itself; the same on high-pass features (each value
 * minus the mean of its 3×3 neighbourhood), which forget brightness; and a learned embedding, a linear map by channel
 * fitted so that releases lie near their own photo (Fisher's criterion: between-photo over noise variance). Candidates
 * may be other copies of the photos (re-encoded, shifted, brighter), as an attacker seldom has the very pixels.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { rankOneRate } from '../metrics/index.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import type { AttackData, AttackHooks, AttackResult, AttackValue } from './attack.js';
import { createReleaseSource, createTrainingNoise } from './attack-releases.js';
import { judgeLiveness } from './attack-result.js';
import { type NetworkTarget, withoutNoise } from './attribute.js';
import { rankValue } from './re-identification-scores.js';

/** What {@link runLinkageAttack} is run on. */
export interface LinkageAttackInput {
  readonly target: NetworkTarget;
  /** Photos that are released. */
  readonly data: Pick<AttackData, 'shape' | 'records'>;
  /**
   * What the attacker has of them, in the same order: other copies of the photos. Default: the very photos.
   */
  readonly candidates?: { readonly name: string; readonly data: Pick<AttackData, 'shape' | 'records'> };
  /** Further photos, with a copy each, to fit the learned embedding on; without them it is left out. */
  readonly fit?: { readonly photos: readonly Float32Array[]; readonly copies: readonly Float32Array[] };
  readonly crypto: NoiseCrypto;
  /** Default 'audit'. */
  readonly seed?: string;
}

/** Below so many photos a rate is not trusted. */
const LEAST_PHOTOS = 50;

/**
 * Runs the attack; it needs no training but the fit of a scale for each channel.
 * @throws ScrimError INVALID_DATA for fewer than two photos; INVALID_ARGUMENT if candidates and photos don't match
 */
export async function runLinkageAttack(input: LinkageAttackInput, hooks: AttackHooks = {}): Promise<AttackResult> {
  const { target, data, candidates, crypto, seed = 'audit' } = input;
  const { shape, records } = data;
  if (records.length < 2) {
    throw new ScrimError(
      'INVALID_DATA',
      `there are ${records.length} photos to link releases to, expected at least two`,
    );
  }
  const known = candidates?.data ?? data;
  assertArgument(
    known.records.length === records.length && String(known.shape) === String(shape),
    `there are ${known.records.length} candidates of [${known.shape.join(', ')}] for ${records.length} photos of ` +
      `[${shape.join(', ')}], expected one each of the same shape`,
  );
  const quiet = createTrainingNoise(target.parameters, shape, createFitRandom('clean'));
  const expected = known.records.map(({ activation }) => withoutNoise(quiet, activation));
  const source = await createReleaseSource(target, shape, { mode: 'replay', seed: `${seed} linkage` }, crypto);
  const weights = precision(target.parameters, shape);
  const readings: Reading[] = [
    { name: 'likelihood', features: (values) => values, weights },
    { name: 'high-pass likelihood', features: (values) => highPass(values, shape), weights },
  ];
  if (input.fit) {
    readings.push({
      name: 'learned embedding',
      features: (values) => values,
      weights: learnWeights(input.fit, target.parameters, shape, seed),
    });
  }
  const hits = new Map(readings.map(({ name }) => [name, [] as number[]]));
  const cleanHits = new Map(readings.map(({ name }) => [name, [] as number[]]));
  const gallery = readings.map(({ features }) => expected.map(features));
  try {
    for (const [i, { activation }] of records.entries()) {
      if (hooks.signal?.aborted) throw new ScrimError('CANCELLED', 'linkage was interrupted');
      const release = await source.draw(activation);
      const clean = withoutNoise(quiet, activation);
      readings.forEach((reading, r) => {
        hits.get(reading.name)!.push(rightPhoto(reading, gallery[r]!, release, i));
        cleanHits.get(reading.name)!.push(rightPhoto(reading, gallery[r]!, clean, i));
      });
      hooks.onProgress?.({ attack: 'linkage', done: i + 1, of: records.length });
    }
  } finally {
    source.close();
  }
  const ids = records.map(({ id }) => id);
  const chance = ids.map(() => 1 / records.length);
  const value = (name: string, list: readonly number[]): AttackValue =>
    rankValue(`right photo among ${records.length}, ${name}`, list, ids, name);
  // The best reading is the headline.
  const names = readings.map(({ name }) => name).sort((a, b) => sum(hits.get(b)!) - sum(hits.get(a)!));
  const best = names[0]!;
  const { live, reason } = judgeLiveness({
    name: 'linkage',
    attack: [hits.get(best)!],
    floors: [{ name: 'chance', values: chance }],
    ceiling: { name: 'clean activation', values: cleanHits.get(best)! },
  });
  const name = candidates ? `linkage, ${candidates.name}` : 'linkage, the very photos';
  return {
    name,
    description:
      `The attacker has ${candidates ? `${candidates.name} of the photos` : 'the photos themselves'} and says which of ` +
      'them a release belongs to. Layout and edges link a release to its photo even where no face can be recognised.',
    values: names.map((reading) => value(reading, hits.get(reading)!)),
    baselines: [
      { name: 'chance', kind: 'floor', values: names.map((reading) => value(reading, chance)) },
      {
        name: 'clean activation',
        kind: 'ceiling',
        values: names.map((reading) => value(reading, cleanHits.get(reading)!)),
      },
    ],
    samples: records.length,
    trainedOn: input.fit?.photos.length ?? 0,
    live,
    liveReason: reason,
    trusted: records.length >= LEAST_PHOTOS,
    trustedReason:
      records.length >= LEAST_PHOTOS
        ? 'the likelihood is known exactly; there is nothing to train'
        : `${records.length} photos, below ${LEAST_PHOTOS}`,
    settings: { photos: records.length, candidates: candidates?.name ?? 'the very photos' },
    pictures: [],
    curves: [],
  };
}

interface Reading {
  readonly name: string;
  readonly features: (values: Float32Array) => Float32Array;
  /** Weight of each element's squared difference. */
  readonly weights: Float32Array;
}

/** 1 if the photo at `place` is the nearest, shared among ties. */
function rightPhoto(
  { features, weights }: Reading,
  gallery: readonly Float32Array[],
  release: Float32Array,
  place: number,
): number {
  const seen = features(release);
  const scores = gallery.map((candidate) => {
    let distance = 0;
    for (let i = 0; i < seen.length; i++) distance += weights[i]! * (seen[i]! - candidate[i]!) ** 2;
    return -distance;
  });
  return rankOneRate({ scores, queryLabels: [place], galleryLabels: gallery.map((_, g) => g) });
}

/** 1/σ² of each element, 0 where nothing is sent. */
function precision(parameters: DiagonalParameters, [channels, height, width]: AttackData['shape']): Float32Array {
  const plane = height * width;
  const { gain, sigma } = parameters;
  const perChannel = gain.length === channels;
  return Float32Array.from({ length: channels * plane }, (_, i) => {
    const p = perChannel ? Math.floor(i / plane) : i;
    return gain[p] === 0 ? 0 : 1 / sigma[p]! ** 2;
  });
}

/** Each value minus the mean of its 3×3 neighbourhood, which is smaller at the edges. */
function highPass(values: Float32Array, [channels, height, width]: AttackData['shape']): Float32Array {
  const out = new Float32Array(values.length);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        let [total, count] = [0, 0];
        for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
          for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
            total += values[(c * height + v) * width + u]!;
            count++;
          }
        }
        const at = (c * height + y) * width + x;
        out[at] = values[at]! - total / count;
      }
    }
  }
  return out;
}

/**
 * One weight a channel: 1 over the variance of what separates a release from the attacker's copy of its photo (noise
 * and the change of the copy together), measured on photos of the attacker's own.
 */
function learnWeights(
  { photos, copies }: NonNullable<LinkageAttackInput['fit']>,
  parameters: DiagonalParameters,
  shape: AttackData['shape'],
  seed: string,
): Float32Array {
  assertArgument(
    photos.length === copies.length && photos.length > 0,
    `there are ${photos.length} photos and ${copies.length} copies to fit on, expected one each`,
  );
  const [channels, height, width] = shape;
  const plane = height * width;
  const noise = createTrainingNoise(parameters, shape, createFitRandom(`linkage ${seed}`));
  const within = new Float64Array(channels);
  const between = new Float64Array(channels);
  const release = new Float32Array(channels * plane);
  photos.forEach((photo, n) => {
    noise.apply(photo, release, 0);
    const own = withoutNoise(noise, copies[n]!);
    const other = withoutNoise(noise, copies[(n + 1) % copies.length]!);
    for (let i = 0; i < release.length; i++) {
      const c = Math.floor(i / plane);
      within[c]! += (release[i]! - own[i]!) ** 2;
      between[c]! += (release[i]! - other[i]!) ** 2;
    }
  });
  // A channel whose own photo is no nearer than another one's tells nothing.
  return Float32Array.from({ length: channels * plane }, (_, i) => {
    const c = Math.floor(i / plane);
    const gain = between[c]! - within[c]!;
    return gain > 0 && within[c]! > 0 ? gain / within[c]! ** 2 : 0;
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
