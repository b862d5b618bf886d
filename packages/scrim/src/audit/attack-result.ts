/**
 * How measured values are summed up: mean, worst decile, spread over seeds, 95% interval, and whether an attack counts.
 *
 * Photos and seeds are both samples. The interval is a bootstrap that draws photos with replacement and, for each photo
 * drawn, a seed: it covers new photos and new trainings of the same attacker, as far as a few seeds can show them.
 */
import { assertArgument } from '../errors.js';
import { bootstrapInterval, mean, quantile, standardDeviation } from '../metrics/index.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import type { AttackBaseline, AttackValue } from './attack.js';

/** What a value is called and which way is up. */
export interface ValueKind {
  readonly name: string;
  readonly unit: '' | 'dB';
  readonly better: 'higher' | 'lower';
}

/** Structural similarity of what was rebuilt and the photo. */
export const SSIM_VALUE: ValueKind = { name: 'SSIM', unit: '', better: 'higher' };
/** The same of pixels less the mean colour of photos: a mean photo has little of it. */
export const CENTRED_VALUE: ValueKind = { name: 'centred SSIM', unit: '', better: 'higher' };
/** Peak signal-to-noise ratio of the same. */
export const PSNR_VALUE: ValueKind = { name: 'PSNR', unit: 'dB', better: 'higher' };

/**
 * Sums up one value per sample and seed.
 * @param bySeed one row a seed, all as long; a sample has the same place in each
 * @param seed of the bootstrap
 * @throws ScrimError INVALID_ARGUMENT for no samples or rows of unequal length
 */
export function summarizeValue(
  kind: ValueKind,
  bySeed: readonly (readonly number[])[],
  seed = 'bootstrap',
): AttackValue {
  const samples = bySeed[0]?.length ?? 0;
  assertArgument(
    samples > 0 && bySeed.every((row) => row.length === samples),
    `${kind.name} has rows of ${bySeed.map((row) => row.length).join(', ')} values, expected equally many, at least one`,
  );
  const perSample = Array.from({ length: samples }, (_, i) => mean(bySeed.map((row) => row[i] as number)));
  const successFirst = [...perSample].sort((a, b) => (kind.better === 'higher' ? b - a : a - b));
  const random = createFitRandom(`${seed} ${kind.name}`);
  const places = perSample.map((_, i) => i);
  const interval = bootstrapInterval(
    places,
    (drawn) => mean(drawn.map((i) => (bySeed[random.integer(bySeed.length)] as readonly number[])[i] as number)),
    { random: () => random.uniform(), resamples: 1000 },
  );
  const estimate = mean(perSample);
  const means = bySeed.map((row) => mean(row));
  return {
    ...kind,
    mean: estimate,
    worstDecile: mean(successFirst.slice(0, Math.ceil(samples / 10))),
    worstDecileEdge: quantile(perSample, kind.better === 'higher' ? 0.9 : 0.1),
    ...(means.length > 1 ? { sdOverSeeds: standardDeviation(means) } : {}),
    interval: { ...interval, estimate },
    samples,
    seeds: bySeed.length,
  };
}

/** What one attacker got on each sample and seed, and what its floors and ceiling got on the same samples. */
export interface LivenessInput {
  readonly name: string;
  /** By seed and sample, higher is better for the attacker. */
  readonly attack: readonly (readonly number[])[];
  /** One value a sample for each floor. */
  readonly floors: readonly { readonly name: string; readonly values: readonly number[] }[];
  /** The same attacker on clean activations; undefined if that was not tried. */
  readonly ceiling?: { readonly name: string; readonly values: readonly number[] };
  /** By how much the ceiling must be above the best floor to call it a success. Default 0.1. */
  readonly margin?: number;
}

/** Whether an attack counts. */
export interface Liveness {
  readonly live: boolean;
  readonly reason: string;
}

/**
 * Judges liveness: the attack must beat each floor, photo by photo, with a 95% interval that leaves 0 out, and must
 * succeed on clean activations. An attack that does not has failed; that it rebuilt nothing is no sign of privacy.
 */
export function judgeLiveness(input: LivenessInput): Liveness {
  const { name, attack, floors, ceiling, margin = 0.1 } = input;
  const reached = averageOverSeeds(attack);
  if (ceiling === undefined) {
    return { live: false, reason: `${name} was not tried on clean activations, so nothing shows that it works at all` };
  }
  for (const floor of floors) {
    const clean = pairedGain(ceiling.values, floor.values);
    if (!(clean.low > 0 && clean.mean >= margin)) {
      return {
        live: false,
        reason:
          `${name} fails on clean activations too: ${signed(clean.mean)} against '${floor.name}', expected at least ` +
          `+${margin}. It says nothing about privacy`,
      };
    }
  }
  for (const floor of floors) {
    const gain = pairedGain(reached, floor.values);
    if (!(gain.low > 0)) {
      return {
        live: false,
        reason:
          `${name} does not beat its floor '${floor.name}': ${signed(gain.mean)}, 95% interval from ` +
          `${signed(gain.low)}. The attack failed; that is no proof of privacy`,
      };
    }
  }
  return {
    live: true,
    reason: `${name} beats ${floors.map((floor) => `'${floor.name}'`).join(' and ')} and succeeds on clean activations`,
  };
}

/** The mean over seeds of each sample. */
export function averageOverSeeds(bySeed: readonly (readonly number[])[]): number[] {
  return (bySeed[0] ?? []).map((_, i) => mean(bySeed.map((row) => row[i] as number)));
}

/** Mean of a − b over samples and the lower end of its 95% bootstrap interval. */
export function pairedGain(a: readonly number[], b: readonly number[]): { mean: number; low: number } {
  assertArgument(a.length === b.length, `${a.length} values against ${b.length} of the baseline`);
  const random = createFitRandom('paired');
  const gains = a.map((value, i) => value - (b[i] as number));
  const { estimate, low } = bootstrapInterval(gains, (drawn) => mean(drawn), {
    random: () => random.uniform(),
    resamples: 1000,
  });
  return { mean: estimate, low };
}

/** How alike pictures are to the photos: centred SSIM, by which attacks are judged, SSIM and PSNR over samples and seeds. */
export function summarizePictures(perSeed: readonly PictureScores[]): AttackValue[] {
  return [
    summarizeValue(
      CENTRED_VALUE,
      perSeed.map(({ centred }) => centred),
    ),
    summarizeValue(
      SSIM_VALUE,
      perSeed.map(({ ssim }) => ssim),
    ),
    summarizeValue(
      PSNR_VALUE,
      perSeed.map(({ psnr }) => psnr),
    ),
  ];
}

/** The same of a baseline. */
export function pictureBaseline(name: string, kind: AttackBaseline['kind'], scores: PictureScores): AttackBaseline {
  return { name, kind, values: summarizePictures([scores]) };
}

/** By sample. Attacks are judged by centred SSIM, whose floors are low. */
export interface PictureScores {
  readonly centred: readonly number[];
  readonly ssim: readonly number[];
  readonly psnr: readonly number[];
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`;
}
