/**
 * The decoder that is shipped with a bundle: an attacker's, small enough for a browser tab, so that people see on their
 * own photos what an attacker with a trained network gets. It sees the release alone and has a quarter of the widths of
 * attack T, which is stronger; what it rebuilds is the least to expect of an attacker, never the most.
 */
import type { Engine, MeasuredFigure } from 'scrim';
import {
  type AttackData,
  type AttackHooks,
  type AttackTarget,
  createReleaseSource,
  createTrainingNoise,
  releaseMechanism,
  scorePictures,
  summarizeValue,
  type TrainedDecoder,
  trainDecoder,
} from 'scrim/audit';
import { recordResults } from 'scrim/node';
import { createFitRandom, type NoiseCrypto } from 'scrim/noise';
import { Graph } from 'scrim/onnx';

/** Where the decoder lies in a bundle: release in, picture [1, 3, height, width] in [0, 1] out. */
export const DECODER_PATH = 'audit/decoder.onnx';
/** Metadata of the model: how long it was trained on what, for people. */
export const TRAINING_KEY = 'scrim.training';
/** What its figure is called. */
export const SHIPPED_SSIM = 'shipped decoder: SSIM';
/** The same decoder on the activation without noise. */
export const SHIPPED_CLEAN_SSIM = 'shipped decoder, no noise: SSIM';

const CAPACITY = 0.25;
const BATCH = 8;

/** What a decoder is trained and tried with. */
export interface ShippedDecoderInput {
  /** Directory of the bundle; its manifest gets the decoder's hash and figures, and the bundle a new hash with them. */
  readonly folder: string;
  readonly target: AttackTarget;
  readonly engine: Engine;
  readonly train: AttackData;
  readonly test: AttackData;
  readonly crypto: NoiseCrypto;
  readonly steps: number;
  readonly seed: string;
  readonly conditions: Pick<MeasuredFigure, 'machine' | 'command'>;
}

/**
 * Trains the decoder, tries it on photos it was not trained on, and puts both into the bundle.
 * @returns its size in bytes and its likeness, for people
 * @throws ScrimError as `trainDecoder`; nothing is written then
 */
export async function shipDecoder(
  input: ShippedDecoderInput,
  hooks: AttackHooks,
): Promise<{ readonly bytes: number; readonly ssim: number }> {
  const { folder, target, engine, train, test, crypto, steps, seed, conditions } = input;
  const mechanism = releaseMechanism(target, train.shape, crypto);
  const settings = { sees: 'release', capacity: CAPACITY, batchSize: BATCH, steps } as const;
  const decoder = await trainDecoder({ engine, mechanism }, train, settings, `${seed} shipped`, hooks);
  try {
    const noisy = summarize(test, await decoder.rebuild(await draw(input)), seed);
    const clean = summarize(test, await decoder.rebuild(withoutNoise(target, test)), seed);
    const { width, height } = test.picture;
    const figure = (name: string, { mean, interval }: typeof noisy): MeasuredFigure => ({
      kind: 'measured',
      name,
      value: mean,
      data:
        `${test.records.length} photos at ${width}×${height}, 95% interval ${interval.low.toFixed(3)} to ` +
        `${interval.high.toFixed(3)}; ${describe(decoder, steps)}`,
      sampleSize: test.records.length,
      ...conditions,
    });
    const graph = Graph.decode(decoder.encode());
    graph.setMetadata(TRAINING_KEY, training(decoder, steps));
    const model = graph.encode();
    await recordResults(
      folder,
      [figure(SHIPPED_SSIM, noisy), figure(SHIPPED_CLEAN_SSIM, clean)],
      new Map([[DECODER_PATH, model]]),
    );
    return { bytes: model.length, ssim: noisy.mean };
  } finally {
    await decoder.close();
  }
}

function training({ trainedOn }: TrainedDecoder, steps: number): string {
  return `a small decoder of ${steps} steps on ${trainedOn} photos`;
}

function describe(decoder: TrainedDecoder, steps: number): string {
  const { trusted, trustedReason } = decoder;
  return `${training(decoder, steps)}${trusted ? '' : `; at least this much: ${trustedReason}`}`;
}

function summarize(
  test: AttackData,
  rebuilt: readonly Float32Array[],
  seed: string,
): ReturnType<typeof summarizeValue> {
  const { ssim } = scorePictures(test, rebuilt);
  return summarizeValue({ name: 'SSIM', unit: '', better: 'higher' }, [ssim], seed);
}

/** One real release of each photo. */
async function draw({ target, test, crypto, seed }: ShippedDecoderInput): Promise<Float32Array[]> {
  const source = await createReleaseSource(target, test.shape, { mode: 'replay', seed: `${seed} shipped` }, crypto);
  const releases: Float32Array[] = [];
  try {
    for (const { activation } of test.records) releases.push(await source.draw(activation));
  } finally {
    source.close();
  }
  return releases;
}

function withoutNoise({ parameters }: AttackTarget, test: AttackData): Float32Array[] {
  const noise = createTrainingNoise(parameters, test.shape, createFitRandom('clean'));
  return test.records.map(({ activation }) => {
    const out = new Float32Array(activation.length);
    noise.apply(activation, out, 0, 0);
    return out;
  });
}
