/**
 * Attack 1 of the audit: train decoders, try them on real releases of photos not trained on, and judge the outcome.
 *
 * Each seed is another decoder: other weights, batches and noise. Floors are the mean photo and, for detectors, the
 * average object at the detected boxes; the ceiling is the same attacker trained on clean activations. An attack counts
 * only if it beats every floor and its ceiling shows that it can work at all.
 */
import { assertArgument } from '../errors.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import {
  type AttackBaseline,
  type AttackData,
  type AttackHooks,
  type AttackPicture,
  type AttackResult,
  type AttackTarget,
  planesToImage,
  selectEvenly,
} from './attack.js';
import { type ReleaseMechanism, releaseMechanism } from './attack-releases.js';
import {
  averageOverSeeds,
  judgeLiveness,
  type PictureScores,
  pictureBaseline,
  summarizePictures,
} from './attack-result.js';
import { type FloorGuesses, pictureFloors, scorePictures } from './baselines.js';
import {
  type CompleteDecoderSettings,
  type DecoderSettings,
  type DecoderTarget,
  type TrainedDecoder,
  trainDecoder,
} from './decoder.js';

/** What every attack that rebuilds pictures is run on. */
export interface PictureAttackInput {
  readonly target: AttackTarget;
  /** Photos the attacker owns. */
  readonly train: AttackData;
  /** Photos it is tried on. None may be in `train`. */
  readonly test: AttackData;
  readonly crypto: NoiseCrypto;
  /** How releases come about; default: as the target's service makes them. */
  readonly mechanism?: ReleaseMechanism;
  /** Of attackers and of the releases they are tried on. Default 'audit'. */
  readonly seed?: string;
}

/** Settings of {@link runDecoderAttack}. */
export interface DecoderAttackSettings extends DecoderSettings {
  /** How many decoders are trained. Default 1. */
  readonly seeds?: number;
  /** Releases of each photo a decoder is tried on; scores are averaged. Default 1. */
  readonly draws?: number;
  /** Photos whose pictures are kept for a report. Default 6. */
  readonly pictures?: number;
  /** A ceiling measured before, such as that of another loss or α. Default: one is trained with the same settings. */
  readonly ceiling?: PictureCeiling;
}

/** What the same attacker gets without noise, by test sample. */
export interface PictureCeiling {
  readonly name: string;
  readonly scores: PictureScores;
}

/** Outcome of {@link runDecoderAttack}. */
export interface DecoderAttack {
  readonly result: AttackResult;
  /** Of the first seed, for averaging, re-identification and export; close it. */
  readonly decoder: TrainedDecoder;
  readonly ceiling: PictureCeiling;
  /** What the first decoder made of one release of each test photo: [3, H, W] each. */
  readonly rebuilt: readonly Float32Array[];
}

/**
 * Runs the decoder attack.
 * @throws ScrimError INVALID_ARGUMENT if a photo is in both sets or they differ in size; else as `trainDecoder`
 */
export async function runDecoderAttack(
  input: PictureAttackInput,
  settings: DecoderAttackSettings = {},
  hooks: AttackHooks = {},
): Promise<DecoderAttack> {
  const { train, test, seed = 'audit' } = input;
  const { seeds = 1, draws = 1, pictures = 6, ceiling: given, ...own } = settings;
  assertDisjoint(train, test);
  const floors = pictureFloors(train, test);
  const ceiling = given ?? (await trainCeiling(input, own, hooks));
  const perSeed: PictureScores[] = [];
  const trust: { trusted: boolean; trustedReason: string }[] = [];
  assertArgument(Number.isInteger(seeds) && seeds > 0, `seeds is ${seeds}, expected an integer > 0`);
  let first: { decoder: TrainedDecoder; rebuilt: Float32Array[] } | undefined;
  try {
    for (let s = 0; s < seeds; s++) {
      const decoder = await trainDecoder(
        decoderTarget(input),
        train,
        own,
        `${seed} ${s}`,
        named(hooks, `decoder, seed ${s + 1}`),
      );
      trust.push(decoder);
      const tried = await tryDecoder(decoder, input, { draws, seed: `${seed} releases ${s}` });
      perSeed.push(tried.scores);
      if (first === undefined) first = { decoder, rebuilt: tried.rebuilt };
      else await decoder.close();
    }
  } catch (error) {
    await first?.decoder.close();
    throw error;
  }
  const { decoder, rebuilt } = first as { decoder: TrainedDecoder; rebuilt: Float32Array[] };
  const distrusted = trust.find(({ trusted }) => !trusted) ?? trust[0];
  const { live, reason } = judgeLiveness({
    name: 'the decoder',
    attack: perSeed.map(({ centred }) => centred),
    floors: floors.map(({ name, scores }) => ({ name, values: scores.centred })),
    ceiling: { name: ceiling.name, values: ceiling.scores.centred },
  });
  const result: AttackResult = {
    name: decoder.settings.sees === 'remote' ? 'decoder T' : 'plain decoder',
    description:
      'A network trained to turn releases back into photos, with fresh noise in every step' +
      `${decoder.plan.features.length > 0 ? '; it also sees what the remote half computes from the release' : ''}.`,
    values: summarizePictures(perSeed),
    baselines: pictureBaselines(floors, ceiling),
    samples: test.records.length,
    trainedOn: decoder.trainedOn,
    live,
    liveReason: reason,
    trusted: distrusted?.trusted ?? false,
    trustedReason: distrusted?.trustedReason ?? '',
    settings: { ...describeSettings(decoder.settings), seeds, draws },
    pictures: reportPictures(test, rebuilt, pictures, 'rebuilt').concat(
      reportPictures(test, floors.at(-1)?.guesses ?? [], pictures, floors.at(-1)?.name ?? ''),
    ),
    curves: decoder.curves,
  };
  return { result, decoder, ceiling, rebuilt };
}

/** Trains the same attacker on clean activations and tries it. @throws ScrimError as `trainDecoder` */
export async function trainCeiling(
  input: PictureAttackInput,
  settings: DecoderSettings,
  hooks: AttackHooks,
): Promise<PictureCeiling> {
  const { train, seed = 'audit' } = input;
  const decoder = await trainDecoder(
    decoderTarget(input),
    train,
    { ...settings, clean: true, releases: [1] },
    `${seed} clean`,
    named(hooks, 'decoder on clean activations'),
  );
  try {
    return { name: 'clean activation', scores: (await tryDecoder(decoder, input, { draws: 1, seed })).scores };
  } finally {
    await decoder.close();
  }
}

/** How {@link tryDecoder} draws releases. */
export interface TrialSettings {
  readonly draws: number;
  readonly seed: string;
}

/**
 * Tries a decoder on real releases of the test photos: scores averaged over draws, pictures of the first draw. A decoder
 * for clean activations gets those.
 */
export async function tryDecoder(
  decoder: TrainedDecoder,
  input: Omit<PictureAttackInput, 'train'>,
  { draws, seed }: TrialSettings,
): Promise<{ readonly scores: PictureScores; readonly rebuilt: Float32Array[] }> {
  const { target, test, crypto } = input;
  const { mechanism = releaseMechanism(target, test.shape, crypto) } = input;
  // One for clean activations needs no releases, and may be tried on those of another cut.
  const source = decoder.settings.clean ? undefined : await mechanism.open({ mode: 'replay', seed });
  const all: PictureScores[] = [];
  let kept: Float32Array[] = [];
  try {
    for (let draw = 0; draw < (source ? draws : 1); draw++) {
      const releases: Float32Array[] = [];
      for (const { activation } of test.records) {
        releases.push(source ? await source.draw(activation) : activation);
      }
      const rebuilt = await decoder.rebuild(releases);
      if (draw === 0) kept = rebuilt;
      all.push(scorePictures(test, rebuilt));
    }
  } finally {
    source?.close();
  }
  return {
    scores: {
      centred: averageOverSeeds(all.map(({ centred }) => centred)),
      ssim: averageOverSeeds(all.map(({ ssim }) => ssim)),
      psnr: averageOverSeeds(all.map(({ psnr }) => psnr)),
    },
    rebuilt: kept,
  };
}

/** What the decoders of an attack are trained against. */
export function decoderTarget({ target, train, crypto, mechanism }: PictureAttackInput): DecoderTarget {
  const { engine, remote } = target;
  return { engine, remote, mechanism: mechanism ?? releaseMechanism(target, train.shape, crypto) };
}

/** What a sweep varies: one run for each. */
export interface DecoderVariant {
  /** Appended to the name of the attack: 'capacity ×2', 'half the photos', 'MSE loss'. */
  readonly name: string;
  readonly settings: DecoderSettings;
  /** Share of the training photos, in (0, 1]; default 1. */
  readonly dataShare?: number;
}

/** Capacity, data, loss and view, each varied around attack T. */
export const DECODER_SWEEP: readonly DecoderVariant[] = [
  { name: 'release alone', settings: { sees: 'release' } },
  { name: 'half the width', settings: { capacity: 0.5 } },
  { name: 'twice the width', settings: { capacity: 2 } },
  { name: 'half the photos', settings: {}, dataShare: 0.5 },
  { name: 'a quarter of the photos', settings: {}, dataShare: 0.25 },
  { name: 'MSE loss', settings: { loss: 'mse' } },
  { name: 'SSIM loss', settings: { loss: 'ssim' } },
];

/**
 * Runs variants of the decoder attack. They share the ceiling of `attack`, which judges them.
 * @returns a result for each variant, in their order
 */
export async function runDecoderSweep(
  input: PictureAttackInput,
  attack: Pick<DecoderAttack, 'ceiling'>,
  settings: DecoderAttackSettings = {},
  variants: readonly DecoderVariant[] = DECODER_SWEEP,
  hooks: AttackHooks = {},
): Promise<AttackResult[]> {
  const results: AttackResult[] = [];
  for (const { name, settings: changes, dataShare = 1 } of variants) {
    const count = Math.max(1, Math.round(input.train.records.length * dataShare));
    const records = selectEvenly(input.train.records, count);
    const { result, decoder } = await runDecoderAttack(
      { ...input, train: { ...input.train, records }, seed: `${input.seed ?? 'audit'} ${name}` },
      { ...settings, ...changes, ceiling: attack.ceiling },
      named(hooks, name),
    );
    await decoder.close();
    results.push({ ...result, name: `decoder, ${name}` });
  }
  return results;
}

/** Floors and ceiling as a report shows them. */
export function pictureBaselines(
  floors: readonly FloorGuesses[],
  ceiling: PictureCeiling | undefined,
): readonly AttackBaseline[] {
  return [
    ...floors.map(({ name, scores }) => pictureBaseline(name, 'floor', scores)),
    ...(ceiling === undefined ? [] : [pictureBaseline(ceiling.name, 'ceiling', ceiling.scores)]),
  ];
}

/** Originals and guesses of the first `count` test photos. */
export function reportPictures(
  test: AttackData,
  guesses: readonly Float32Array[],
  count: number,
  label: string,
): AttackPicture[] {
  const { width, height } = test.picture;
  return test.records.slice(0, count).flatMap(({ id, picture }, i): AttackPicture[] => {
    const guess = guesses[i];
    if (guess === undefined) return [];
    const original = { id, label: 'original', image: { width, height, data: picture } };
    const rebuilt = { id, label, image: planesToImage(guess, width, height) };
    return label === 'rebuilt' ? [original, rebuilt] : [rebuilt];
  });
}

/** @throws ScrimError INVALID_ARGUMENT if the sets share a photo, by name or by activation, or differ in size */
export function assertDisjoint(train: AttackData, test: AttackData): void {
  assertArgument(
    String(train.shape) === String(test.shape) && train.picture.width === test.picture.width,
    `training samples have activations of [${train.shape.join(', ')}], those to attack [${test.shape.join(', ')}]`,
  );
  const ids = new Set(train.records.map(({ id }) => id));
  const shared = test.records.find(({ id }) => ids.has(id));
  assertArgument(shared === undefined, `sample '${shared?.id}' is trained on and attacked; the sets must be apart`);
}

function named(hooks: AttackHooks, attack: string): AttackHooks {
  const { onProgress } = hooks;
  return onProgress ? { ...hooks, onProgress: (progress) => onProgress({ ...progress, attack }) } : hooks;
}

function describeSettings(settings: CompleteDecoderSettings): AttackResult['settings'] {
  return Object.fromEntries(
    Object.entries(settings).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(', ') : (value as string | number | boolean),
    ]),
  );
}
