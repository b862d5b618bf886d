/**
 * Runs attack 2, the search against the head, on real releases and judges it.
 *
 * It needs no training, so photos of the attacker's own serve to choose the weight of the prior and as floor. The ceiling
 * is the same search on clean activations, searched as if a tenth of the channel's deviation were noise.
 */
import { ScrimError } from '../errors.js';
import { mean } from '../metrics/index.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import type { AttackData, AttackHooks, AttackResult } from './attack.js';
import { releaseMechanism } from './attack-releases.js';
import { judgeLiveness, summarizePictures } from './attack-result.js';
import { meanPhoto, pictureFloors, scorePictures } from './baselines.js';
import {
  assertDisjoint,
  type PictureAttackInput,
  type PictureCeiling,
  pictureBaselines,
  reportPictures,
} from './decoder-attack.js';
import { createPictureSearch, type FoundPicture, type OptimisationSettings } from './optimisation.js';

/** Settings of {@link runOptimisationAttack}. */
export interface OptimisationAttackSettings extends OptimisationSettings {
  /** Test photos it is tried on; each costs as many runs of the head as there are steps. Default 16. */
  readonly samples?: number;
  /** Photos of the attacker's own on which w is chosen. Default 4. */
  readonly tuning?: number;
  /** Photos whose pictures are kept for a report. Default 6. */
  readonly pictures?: number;
  /** A ceiling measured before, on the same photos. */
  readonly ceiling?: PictureCeiling;
}

/** A search whose objective fell by more than this share in the last quarter of the steps was not done. */
const STILL_FALLING = 0.02;
/** Noise assumed on clean activations, as a share of the channel's deviation: with less, a search gets stuck. */
const CLEAN_NOISE = 0.1;

/**
 * Searches for the pictures behind releases of the first test photos.
 * @throws ScrimError UNSUPPORTED if an operator of the head has no gradient; CANCELLED, DIVERGED
 */
export async function runOptimisationAttack(
  input: PictureAttackInput,
  settings: OptimisationAttackSettings,
  hooks: AttackHooks = {},
): Promise<AttackResult> {
  const { target, train, crypto, seed = 'audit', mechanism } = input;
  const { samples = 16, tuning = 4, pictures = 6, smoothness = [10, 30, 100] } = settings;
  assertDisjoint(train, input.test);
  const test = { ...input.test, records: input.test.records.slice(0, samples) };
  const own = { ...train, records: train.records.slice(0, tuning) };
  const releases = mechanism ?? releaseMechanism(target, test.shape, crypto);
  const draw = async (data: AttackData, name: string): Promise<Float32Array[]> => {
    const source = await releases.open({ mode: 'replay', seed: `${seed} ${name}` });
    try {
      const drawn: Float32Array[] = [];
      for (const { activation } of data.records) drawn.push(await source.draw(activation));
      return drawn;
    } finally {
      source.close();
    }
  };
  const attack = async (
    parameters: DiagonalParameters,
    on: (data: AttackData, name: string) => Promise<Float32Array[]>,
  ) => {
    const { engine, head } = target;
    const start = meanPhoto(train);
    const search = await createPictureSearch({ engine, head, parameters, data: test, start, settings, seed });
    try {
      const weight = await chooseSmoothness(smoothness, async (w) => {
        const found = await search.find(await on(own, 'tuning'), w, hooks);
        return mean(scorePictures(own, guesses(found)).ssim);
      });
      const found = await search.find(await on(test, 'optimisation'), weight, hooks);
      return { found, weight, scores: scorePictures(test, guesses(found)) };
    } finally {
      await search.close();
    }
  };
  const clean = async (data: AttackData): Promise<Float32Array[]> => data.records.map(({ activation }) => activation);
  const ceiling: PictureCeiling = settings.ceiling ?? {
    name: 'clean activation',
    scores: (await attack(cleanParameters(train), clean)).scores,
  };
  const { found, weight, scores } = await attack(target.parameters, draw);
  const floors = pictureFloors(train, test);
  const { live, reason } = judgeLiveness({
    name: 'the search',
    attack: [scores.centred],
    floors: floors.map((floor) => ({ name: floor.name, values: floor.scores.centred })),
    ceiling: { name: ceiling.name, values: ceiling.scores.centred },
  });
  const { encoding: _, smoothness: __, ceiling: ___, ...plain } = settings;
  return {
    name: 'optimisation against the head',
    description:
      'No training: the picture whose activation explains the release best, with a preference for smooth pictures.',
    values: summarizePictures([scores]),
    baselines: pictureBaselines(floors, ceiling),
    samples: test.records.length,
    trainedOn: 0,
    live,
    liveReason: reason,
    ...judgeSearch(found),
    settings: { ...plain, smoothness: weight },
    pictures: reportPictures(test, guesses(found), pictures, 'rebuilt'),
    curves: [],
  };
}

function guesses(found: readonly FoundPicture[]): Float32Array[] {
  return found.map(({ picture }) => picture);
}

async function chooseSmoothness(
  weights: readonly number[],
  score: (weight: number) => Promise<number>,
): Promise<number> {
  const [first, ...others] = weights;
  if (first === undefined)
    throw new ScrimError('INVALID_ARGUMENT', 'smoothness is empty, expected at least one weight');
  if (others.length === 0) return first;
  let best = { weight: first, score: Number.NEGATIVE_INFINITY };
  for (const weight of weights) {
    const found = await score(weight);
    if (found > best.score) best = { weight, score: found };
  }
  return best.weight;
}

function judgeSearch(found: readonly FoundPicture[]): { trusted: boolean; trustedReason: string } {
  const late = mean(found.map(({ lateFall }) => lateFall));
  const share = `${(100 * late).toFixed(1)}% of the objective was lost in the last quarter of the steps`;
  return late > STILL_FALLING
    ? { trusted: false, trustedReason: `${share}; ran too short to be trusted` }
    : { trusted: true, trustedReason: share };
}

/** A transform that adds next to no noise and clips nothing. */
function cleanParameters(data: AttackData): DiagonalParameters {
  const [channels] = data.shape;
  const plane = data.shape[1] * data.shape[2];
  const sigma = new Float32Array(channels);
  const variance = new Float32Array(channels);
  const [low, high] = [new Float32Array(channels), new Float32Array(channels)];
  const records = data.records.slice(0, 64);
  for (let c = 0; c < channels; c++) {
    let [sum, squares, largest] = [0, 0, 0];
    for (const { activation } of records) {
      for (let i = c * plane; i < (c + 1) * plane; i++) {
        const value = activation[i] as number;
        sum += value;
        squares += value * value;
        largest = Math.max(largest, Math.abs(value));
      }
    }
    const count = records.length * plane;
    variance[c] = Math.max(0, squares / count - (sum / count) ** 2);
    sigma[c] = Math.max(1e-4, CLEAN_NOISE * Math.sqrt(variance[c] as number));
    // Twice what was seen: far enough to clip nothing, near enough to keep the sums exact.
    low[c] = -2 * largest - 1;
    high[c] = 2 * largest + 1;
  }
  const ones = new Float32Array(channels).fill(1);
  const mean = new Float32Array(channels);
  return { kind: 'per-channel', shape: [channels], gain: ones, mean, sigma, clipLow: low, clipHigh: high, variance };
}
