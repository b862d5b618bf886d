/**
 * Attack 3 of the audit: many releases of one photo.
 *
 * Independent noise averages away: the mean of n releases has 1/n of the variance. One decoder is trained for all n: in
 * each step each sample is the mean of a number of releases drawn from the list, and the decoder is told 1/√n. One
 * network for all levels costs one training instead of five, sees every level, and is attack T otherwise. Tried on
 * fresh keys, on repeatable keys (where n releases are one), on copies that repeatable keys take for other inputs, and on
 * releases of the same photo through several bundles at once.
 */
import { assertArgument } from '../errors.js';
import type { AttackData, AttackHooks, AttackRecord, AttackResult, AttackTarget, AttackValue } from './attack.js';
import {
  type ReleaseKeys,
  type ReleaseMechanism,
  type ReleaseSource,
  releaseMechanism,
  type TrainingNoise,
} from './attack-releases.js';
import { judgeLiveness, type PictureScores, summarizePictures } from './attack-result.js';
import type { AttackCopies } from './averaging-copies.js';
import { type FloorGuesses, pictureFloors, scorePictures } from './baselines.js';
import { type DecoderSettings, type TrainedDecoder, trainDecoder } from './decoder.js';
import {
  assertDisjoint,
  type DecoderAttack,
  type DecoderAttackSettings,
  decoderTarget,
  type PictureAttackInput,
  type PictureCeiling,
  pictureBaselines,
  reportPictures,
  runDecoderAttack,
  trainCeiling,
} from './decoder-attack.js';

/** Settings of {@link runAveragingAttack}. */
export interface AveragingSettings extends Omit<DecoderSettings, 'releases' | 'clean'> {
  /** Numbers of releases, ascending; default 1, 4, 16, 64, 256. */
  readonly counts?: readonly number[];
  /** Copies of the test photos, in the order of the test data; each kind is tried with repeatable keys. */
  readonly copies?: readonly AttackCopies[];
  /** Photos whose pictures are kept for a report. Default 4. */
  readonly pictures?: number;
  /** What the same attacker gets without noise; default: a decoder is trained to see. */
  readonly ceiling?: PictureCeiling;
}

/** Outcome of {@link runAveragingAttack}. */
export interface AveragingAttack {
  /** Fresh keys, repeatable keys, then each kind of copies. */
  readonly results: readonly AttackResult[];
  /** The decoder for all numbers of releases; close it. */
  readonly decoder: TrainedDecoder;
}

/** Releases of 256 fit the key space and patience; beyond, noise is all but gone. */
const COUNTS = [1, 4, 16, 64, 256] as const;

/**
 * Runs the averaging attack.
 * @throws ScrimError INVALID_ARGUMENT for counts that are not ascending or copies of other photos; else as `trainDecoder`
 */
export async function runAveragingAttack(
  input: PictureAttackInput,
  settings: AveragingSettings = {},
  hooks: AttackHooks = {},
): Promise<AveragingAttack> {
  const { train, test, seed = 'audit' } = input;
  const { counts = COUNTS, copies = [], pictures = 4, ceiling: given, ...own } = settings;
  assertDisjoint(train, test);
  assertArgument(
    counts.length > 1 && counts.every((n, i) => Number.isInteger(n) && n > (counts[i - 1] ?? 0)),
    `counts is [${counts.join(', ')}], expected at least two ascending integers > 0`,
  );
  for (const { name, activations } of copies) {
    assertArgument(
      activations.length === test.records.length,
      `${name} are of ${activations.length} photos, the attack is tried on ${test.records.length}`,
    );
  }
  const floors = pictureFloors(train, test);
  const ceiling = given ?? (await trainCeiling(input, own, hooks));
  const decoder = await trainDecoder(
    decoderTarget(input),
    train,
    { ...own, releases: counts },
    `${seed} averaging`,
    hooks,
  );
  try {
    const context: Context = { input, decoder, counts, floors, ceiling, pictures, hooks };
    const results = [
      await average(context, {
        name: 'averaging, fresh keys',
        description: 'The mean of many releases of one photo, each with fresh noise.',
        keys: { mode: 'replay', seed: `${seed} averaging` },
        activation: (record) => record.activation,
      }),
      await average(context, {
        name: 'averaging, repeatable keys',
        description: 'The mean of many releases of one photo where equal inputs get equal noise.',
        keys: repeatable(input),
        activation: (record) => record.activation,
      }),
    ];
    for (const { name, copies: available, activations } of copies) {
      results.push(
        await average(
          { ...context, counts: counts.filter((n) => n <= available) },
          {
            name: `averaging, ${name}`,
            description: `The mean of releases of ${name} of one photo, with repeatable keys, which take each for another input.`,
            keys: repeatable(input),
            activation: (_, sample, release) => activations[sample]?.[release] as Float32Array,
          },
        ),
      );
    }
    return { results, decoder };
  } catch (error) {
    await decoder.close();
    throw error;
  }
}

interface Context {
  readonly input: PictureAttackInput;
  readonly decoder: TrainedDecoder;
  readonly counts: readonly number[];
  readonly floors: readonly FloorGuesses[];
  readonly ceiling: PictureCeiling;
  readonly pictures: number;
  readonly hooks: AttackHooks;
}

interface Way {
  readonly name: string;
  readonly description: string;
  readonly keys: ReleaseKeys;
  readonly activation: (record: AttackRecord, sample: number, release: number) => Float32Array;
}

/** The secret of the audited service. The attacker does not use it. */
function repeatable({ crypto }: PictureAttackInput): ReleaseKeys {
  return { mode: 'repeatable', secret: crypto.randomBytes(32) };
}

/** Draws releases, rebuilds from their mean at each count, and sums up. */
async function average(context: Context, way: Way): Promise<AttackResult> {
  const { input, decoder, counts, floors, ceiling, pictures, hooks } = context;
  const { test, target, crypto } = input;
  const { mechanism = releaseMechanism(target, test.shape, crypto) } = input;
  const source = await mechanism.open(way.keys);
  let means: MeanRelease[][] = [];
  try {
    const drawn: MeanRelease[][] = [];
    for (const [sample, record] of test.records.entries()) {
      hooks.signal?.throwIfAborted();
      drawn.push(await meanReleases(source, counts, (release) => way.activation(record, sample, release)));
      hooks.onProgress?.({ attack: way.name, done: sample + 1, of: test.records.length });
    }
    means = counts.map((_, i) => drawn.map((row) => row[i] as MeanRelease));
  } finally {
    source.close();
  }
  const scores: PictureScores[] = [];
  const images = [];
  for (const [i, count] of counts.entries()) {
    const row = means[i] as MeanRelease[];
    // Whoever sees that all releases are one and the same knows that there is nothing to average.
    const level = row.every(({ distinct }) => distinct === 1) ? 1 : count;
    const rebuilt = await decoder.rebuild(
      row.map(({ values }) => values),
      level,
    );
    scores.push(scorePictures(test, rebuilt));
    images.push(...reportPictures(test, rebuilt, pictures, `rebuilt from ${count}`));
  }
  const last = scores.at(-1) as PictureScores;
  const { live, reason } = judgeLiveness({
    name: 'the decoder',
    attack: [last.centred],
    floors: floors.map((floor) => ({ name: floor.name, values: floor.scores.centred })),
    ceiling: { name: ceiling.name, values: ceiling.scores.centred },
  });
  const points = scores.map(({ ssim }, i) => ({ x: counts[i] as number, y: meanOf(ssim) }));
  return {
    name: way.name,
    description: way.description,
    values: scores.flatMap((score, i) => at(counts[i] as number, score)).reverse(),
    baselines: pictureBaselines(floors, ceiling),
    samples: test.records.length,
    trainedOn: decoder.trainedOn,
    live,
    liveReason: reason,
    trusted: decoder.trusted,
    trustedReason: decoder.trustedReason,
    settings: {
      counts: counts.join(', '),
      steps: decoder.settings.steps,
      keys: way.keys.mode === 'repeatable' ? 'repeatable' : 'fresh',
      distinctReleases: Math.max(...(means.at(-1) ?? []).map(({ distinct }) => distinct)),
    },
    pictures: images,
    curves: [{ name: way.name, xLabel: 'releases', yLabel: 'SSIM', points }],
  };
}

/** Values at one count, last first: the caller reverses the list, so that the largest count's SSIM leads. */
function at(count: number, scores: PictureScores): AttackValue[] {
  return summarizePictures([scores])
    .map((value) => ({ ...value, name: `${value.name} ×${count}` }))
    .reverse();
}

/** The mean of some releases. */
interface MeanRelease {
  readonly values: Float32Array;
  /** How many of them differ from the first one, and that one. */
  readonly distinct: number;
}

/** The mean of the first n releases, for each n of `counts`. */
async function meanReleases(
  source: ReleaseSource,
  counts: readonly number[],
  activation: (release: number) => Float32Array,
): Promise<MeanRelease[]> {
  const means: MeanRelease[] = [];
  let sum: Float64Array | undefined;
  let first: Float32Array | undefined;
  let distinct = 1;
  for (let n = 0; n < (counts.at(-1) ?? 0); n++) {
    const release = await source.draw(activation(n));
    sum ??= new Float64Array(release.length);
    first ??= release;
    const reference = first;
    if (n > 0 && release.some((value, i) => value !== reference[i])) distinct++;
    for (let i = 0; i < release.length; i++) sum[i] = (sum[i] as number) + (release[i] as number);
    const total = n + 1;
    if (counts.includes(total)) {
      means.push({ values: Float32Array.from(sum, (value) => value / total), distinct });
    }
  }
  return means;
}

/** One bundle of several that released the same photos. */
export interface BundleOfSeveral {
  readonly target: AttackTarget;
  /** The same photos in the same order for every bundle. */
  readonly train: AttackData;
  readonly test: AttackData;
}

/**
 * Attacks releases of the same photos through several bundles (alphas) at once: the plain decoder on all of them side by
 * side. They must have the same height and width.
 * @param mechanism of all bundles together; default: each bundle's own, with keys of its own, as in service
 * @throws ScrimError INVALID_ARGUMENT unless the bundles hold the same photos at the same size
 */
export async function runSeveralAlphas(
  bundles: readonly BundleOfSeveral[],
  input: Pick<PictureAttackInput, 'crypto' | 'seed' | 'mechanism'>,
  settings: DecoderAttackSettings = {},
  hooks: AttackHooks = {},
): Promise<DecoderAttack> {
  const [first] = bundles;
  assertArgument(
    first !== undefined && bundles.length > 1,
    `there are ${bundles.length} bundles, expected at least two`,
  );
  const { target } = first as BundleOfSeveral;
  const attack = await runDecoderAttack(
    {
      target,
      train: joinData(bundles.map(({ train }) => train)),
      test: joinData(bundles.map(({ test }) => test)),
      mechanism: joinMechanisms(
        bundles.map((bundle) => ({
          mechanism: releaseMechanism(bundle.target, bundle.train.shape, input.crypto),
          size: bundle.train.shape.reduce((a, b) => a * b, 1),
        })),
      ),
      ...input,
    },
    { ...settings, sees: 'release' },
    hooks,
  );
  const alphas = bundles.map((bundle) => bundle.target.alpha).join(', ');
  return {
    ...attack,
    result: {
      ...attack.result,
      name: 'several alphas at once',
      description: `A decoder trained on releases of the same photo through bundles of alpha ${alphas}, side by side.`,
      settings: { ...attack.result.settings, alphas },
    },
  };
}

function joinData(parts: readonly AttackData[]): AttackData {
  const [first, ...others] = parts as [AttackData, ...AttackData[]];
  const [, height, width] = first.shape;
  for (const other of others) {
    assertArgument(
      other.shape[1] === height &&
        other.shape[2] === width &&
        other.records.length === first.records.length &&
        other.records.every(({ id }, i) => id === first.records[i]?.id),
      `bundles differ: ${other.records.length} samples of ${other.shape[1]}×${other.shape[2]} beside ` +
        `${first.records.length} of ${height}×${width}; expected the same photos in the same order and size`,
    );
  }
  const channels = parts.reduce((sum, { shape }) => sum + shape[0], 0);
  return {
    ...first,
    shape: [channels, height, width],
    records: first.records.map((record, i) => ({
      ...record,
      activation: concatenate(parts.map(({ records }) => (records[i] as AttackRecord).activation)),
    })),
  };
}

interface Part {
  readonly mechanism: ReleaseMechanism;
  /** Values of a release. */
  readonly size: number;
}

function joinMechanisms(parts: readonly Part[]): ReleaseMechanism {
  const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, { size }) => sum + size, 0));
  const slice = (values: Float32Array, i: number): Float32Array => {
    const start = starts[i] as number;
    return values.subarray(start, start + (parts[i] as Part).size);
  };
  return {
    trainingNoise: (random) => {
      const noises = parts.map(({ mechanism }): TrainingNoise => mechanism.trainingNoise(random));
      return {
        apply: (clean, out, at, factor, releases) => {
          for (const [i, noise] of noises.entries()) {
            noise.apply(slice(clean, i), out, at + (starts[i] as number), factor, releases);
          }
        },
      };
    },
    open: async (keys) => {
      const sources: ReleaseSource[] = [];
      for (const { mechanism } of parts) sources.push(await mechanism.open(keys));
      return {
        mode: keys.mode,
        draw: async (activation) => {
          const drawn: Float32Array[] = [];
          for (const [i, source] of sources.entries()) drawn.push(await source.draw(slice(activation, i)));
          return concatenate(drawn);
        },
        close: () => {
          for (const source of sources) source.close();
        },
      };
    },
  };
}

function concatenate(parts: readonly Float32Array[]): Float32Array {
  const joined = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
