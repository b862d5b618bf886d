/**
 * The decoder attack: an attacker who trains a network that turns releases back into photos.
 *
 * Attack T of the project's design notes: the decoder sees the release and what the remote half makes of it, the noise is
 * a tenth of its size at first and whole after 40% of the steps, fresh in every step. Training has no early stop. A run
 * is trusted only if it was long enough, saw enough photos, and its loss on photos held out had stopped falling. The
 * plain decoder sees the release alone. Graphs are in decoder-graph.ts; judging is in decoder-attack.ts.
 */
import { cosineDecay, type Schedule } from '../autodiff/index.js';
import type { Engine, Session } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import { centredSsim } from '../metrics/index.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { createNetworkTrainer, type NetworkTrainer, stepsPerRun } from '../noise/fit/network-trainer.js';
import { Graph } from '../onnx/index.js';
import { float32, type Tensor, tensor } from '../tensor.js';
import {
  type AttackCurve,
  type AttackData,
  type AttackHooks,
  type AttackPoint,
  type AttackRecord,
  imageToPlanes,
  selectRecords,
} from './attack.js';
import type { ReleaseMechanism, TrainingNoise } from './attack-releases.js';
import { meanColour, meanPhoto } from './baselines.js';
import { findRemoteFeatures, type RemoteFeature } from './decoder-features.js';
import {
  addDecoder,
  addDecoderLoss,
  attackerGraph,
  DECODER_LEVEL,
  DECODER_PICTURE,
  DECODER_RELEASE,
  type DecoderLoss,
  type DecoderNormalization,
  type DecoderPlan,
  type DecoderSize,
  type DecoderWeights,
  decoderInputChannels,
  initialDecoderWeights,
  planDecoder,
  SSIM_WEIGHT,
} from './decoder-graph.js';
import { encodeDecoder } from './decoder-model.js';

/** How a decoder is trained. Defaults are attack T's. */
export interface DecoderSettings extends DecoderSize {
  /** 'remote': release and features of the remote half (attack T). 'release': the release alone (plain). */
  readonly sees?: 'remote' | 'release';
  /** Default 'mse-ssim'. */
  readonly loss?: DecoderLoss;
  /** Default 6,000. */
  readonly steps?: number;
  /** Default 12. */
  readonly batchSize?: number;
  /** Peak; default 0.001. */
  readonly learningRate?: number;
  /** True trains on clean activations: what the attacker gets where there is no noise. Default false. */
  readonly clean?: boolean;
  /** Share of σ at the first step and share of the steps after which it is whole. Default 0.1 and 0.4. */
  readonly noiseStart?: number;
  readonly noiseRamp?: number;
  /** How many releases the decoder may be given the mean of; one of them for each sample. Default [1]. */
  readonly releases?: readonly number[];
  /** Training samples held out to see whether training saturated. Default a twentieth, 4 to 32. */
  readonly heldOut?: number;
  /** How often the held-out loss is measured. Default 12. */
  readonly checkpoints?: number;
  /** A run of fewer steps is not trusted. Default 5,000. */
  readonly minSteps?: number;
  /** A run on fewer samples, or on samples composed of fewer photos, is not trusted. Default 2,000. */
  readonly minSamples?: number;
}

/** Settings with nothing left out. */
export type CompleteDecoderSettings = Required<DecoderSettings>;

/** What a decoder is trained against. */
export interface DecoderTarget {
  readonly engine: Engine;
  /** Left out, the decoder sees the release alone. */
  readonly remote?: Graph;
  readonly mechanism: Pick<ReleaseMechanism, 'trainingNoise'>;
}

/** A trained decoder. */
export interface TrainedDecoder {
  readonly plan: DecoderPlan;
  readonly settings: CompleteDecoderSettings;
  /** Samples trained on, without those held out. */
  readonly trainedOn: number;
  /** False if the run can't be trusted to show what such an attacker can do. */
  readonly trusted: boolean;
  readonly trustedReason: string;
  /** Loss of the training batches and of held-out samples. */
  readonly curves: readonly AttackCurve[];
  /**
   * Rebuilds pictures, [3, H, W] each, not clamped.
   * @param releases [C, H, W] each, as the remote half sees them
   * @param averaged of how many releases each is the mean; default 1
   */
  rebuild(releases: readonly Float32Array[], averaged?: number): Promise<Float32Array[]>;
  /** One standalone ONNX model, release -> picture in [0, 1], with weights in 16 bits. */
  encode(): Uint8Array;
  close(): Promise<void>;
}

/** For the attacker without noise. */
const NO_NOISE: TrainingNoise = { apply: (clean, out, at) => out.set(clean, at) };
/** Pictures rebuilt in one run. */
const REBUILD_BATCH = 8;
/** Joint norm that gradients are cut to. */
const CLIP_NORM = 5;
/** Decay of the moving average; in a short run less, else its start would weigh on it. */
const AVERAGE = 0.99;
/** Share of the steps over which the learning rate rises. */
const WARM_UP = 0.04;
/** Samples that channel statistics are measured on. */
const STATISTIC_SAMPLES = 256;
/** A held-out loss that fell by more than this share of its whole fall in the last third was still falling. */
const STILL_FALLING = 0.03;

/** Attack T with these changes. */
export function completeDecoderSettings(settings: DecoderSettings, samples: number): CompleteDecoderSettings {
  const complete: CompleteDecoderSettings = {
    sees: 'remote',
    loss: 'mse-ssim',
    steps: 6000,
    batchSize: 12,
    learningRate: 1e-3,
    clean: false,
    noiseStart: 0.1,
    noiseRamp: 0.4,
    releases: [1],
    heldOut: Math.max(4, Math.min(32, Math.floor(samples / 20))),
    checkpoints: 12,
    minSteps: 5000,
    minSamples: 2000,
    trunkLayers: 3,
    trunkWidth: 128,
    stageWidths: [96, 64, 32],
    capacity: 1,
    ...settings,
  };
  const { steps, batchSize, heldOut, releases } = complete;
  for (const [name, value] of Object.entries({ steps, batchSize, heldOut, checkpoints: complete.checkpoints })) {
    assertArgument(Number.isInteger(value) && value > 0, `${name} is ${value}, expected an integer > 0`);
  }
  assertArgument(
    releases.length > 0 && releases.every((n) => Number.isInteger(n) && n > 0),
    `releases is [${releases.join(', ')}], expected integers > 0`,
  );
  assertArgument(
    samples > heldOut,
    `there are ${samples} samples to train a decoder on and ${heldOut} are held out, expected more`,
  );
  return complete;
}

/**
 * Trains a decoder on clean activations and pictures, with noise of its own.
 * @param data no sample of which the attack will be tried on
 * @param seed of weights, batches and training noise; the name of its checkpoint, where the hooks keep some
 * @throws ScrimError DIVERGED, CANCELLED, INVALID_ARGUMENT; UNSUPPORTED where an operator has no gradient or kernel
 */
export async function trainDecoder(
  target: DecoderTarget,
  data: AttackData,
  settings: DecoderSettings,
  seed: string,
  hooks: AttackHooks = {},
): Promise<TrainedDecoder> {
  const complete = completeDecoderSettings(settings, data.records.length);
  const { steps, batchSize, releases } = complete;
  const random = createFitRandom(`decoder ${seed}`);
  // Held-out samples are spread over the set: photos of one folder often come in a row.
  const stride = data.records.length / complete.heldOut;
  const isHeldOut = new Set(Array.from({ length: complete.heldOut }, (_, i) => Math.floor((i + 0.5) * stride)));
  const heldOut = { ...data, records: data.records.filter((_, i) => isHeldOut.has(i)) };
  const training = { ...data, records: data.records.filter((_, i) => !isHeldOut.has(i)) };

  const base = target.remote === undefined || complete.sees === 'release' ? bareGraph() : target.remote;
  const features = base === target.remote ? findRemoteFeatures(base, data.shape) : [];
  const plan = planDecoder(data, features, complete, releases.length > 1);
  const noise = complete.clean ? NO_NOISE : target.mechanism.trainingNoise(random);
  const factorAt = (step: number): number => {
    const ramp = complete.noiseRamp * steps;
    return ramp > 0 && step < ramp ? complete.noiseStart + ((1 - complete.noiseStart) * step) / ramp : 1;
  };
  const normalization = await measureChannels(target.engine, base, plan, training, noise);
  const initial = initialDecoderWeights(plan, random);

  const graph = attackerGraph(base, data.shape, batchSize);
  const picture = addDecoder(graph, plan, initial, normalization, batchSize);
  const loss = addDecoderLoss(graph, picture, data.picture, batchSize, complete.loss);
  const perRun = stepsPerRun(target.engine);
  const trainer = await createNetworkTrainer({
    engine: target.engine,
    graph,
    loss,
    loop: perRun > 1,
    weights: Object.keys(initial).map((name) => ({ name })),
    learningRate: learningRates(complete),
    beta2: 0.999,
    clipNorm: CLIP_NORM,
    average: Math.max(0, Math.min(AVERAGE, 1 - 10 / steps)),
  });
  const fill = createBatch(training, batchSize, plan.conditioned, noise, 2 * perRun);
  const build = (weights: DecoderWeights): Graph => {
    const whole = attackerGraph(base, data.shape, 'N');
    addDecoder(whole, plan, weights, normalization, 'N');
    return whole;
  };
  const resume = await hooks.checkpoints?.load(seed);
  const trainCurve: AttackPoint[] = [...(resume?.trained ?? [])];
  const heldOutCurve: AttackPoint[] = [...(resume?.heldOut ?? [])];
  let weights: DecoderWeights = initial;
  try {
    const check = async (step: number): Promise<void> => {
      weights = averages(trainer);
      const rebuilder = await createRebuilder(target.engine, build(weights), data, plan.conditioned);
      // The same noise at every checkpoint, so that only the decoder changes from one to the next.
      const same = complete.clean ? NO_NOISE : target.mechanism.trainingNoise(createFitRandom(`held out ${seed}`));
      try {
        const y = await heldOutLoss(rebuilder, heldOut, same, complete);
        heldOutCurve.push({ x: step, y });
      } finally {
        await rebuilder.close();
      }
    };
    if (resume) {
      trainer.restore(resume.trainer);
      random.restore(resume.random);
      weights = averages(trainer);
    } else await check(0);
    const every = Math.max(1, Math.floor(steps / complete.checkpoints));
    let { sum: recent, count: counted } = resume?.recent ?? { sum: 0, count: 0 };
    /** The batches of one run, which ends where a checkpoint is due. */
    const nextRun = (step: number): Record<string, Tensor>[] => {
      const until = Math.min(step + perRun, steps, (Math.floor(step / every) + 1) * every);
      return Array.from({ length: until - step }, (_, i) => {
        const indices = Array.from({ length: batchSize }, () => random.integer(training.records.length));
        const counts = indices.map(() => releases[random.integer(releases.length)] as number);
        return fill(indices, counts, factorAt(step + i));
      });
    };
    const from = resume?.trainer.step ?? 0;
    const interrupted = (taken: number): ScrimError =>
      new ScrimError('CANCELLED', `the decoder's training was interrupted after ${taken} of ${steps} steps`);
    let batches = nextRun(from);
    for (let step = from; step < steps; ) {
      // One more run is made after an interruption, so that there is a state to keep.
      const stop = hooks.signal?.aborted ?? false;
      if (stop && step === from) throw interrupted(step);
      const until = step + batches.length;
      const isCheckpoint = until % every === 0 || until === steps;
      const running = trainer.steps(batches, isCheckpoint || stop);
      const before = random.state();
      // The next batches are assembled while the engine works; an engine in a thread of its own makes both at once.
      batches = nextRun(until);
      for (const { loss } of await running) {
        recent += loss;
        counted++;
        step++;
        hooks.onProgress?.({ attack: 'decoder', done: step, of: steps, loss });
      }
      if (isCheckpoint) {
        trainCurve.push({ x: step, y: recent / counted });
        [recent, counted] = [0, 0];
        await check(step);
      }
      if (isCheckpoint || stop) {
        await hooks.checkpoints?.save(seed, {
          trainer: trainer.state(),
          random: before,
          trained: [...trainCurve],
          heldOut: [...heldOutCurve],
          recent: { sum: recent, count: counted },
        });
      }
      if (stop && step < steps) throw interrupted(step);
    }
  } finally {
    await trainer.close();
  }
  const whole = build(weights);
  const rebuilder = await createRebuilder(target.engine, whole, data, plan.conditioned);
  return {
    plan,
    settings: complete,
    trainedOn: training.records.length,
    ...judgeTraining(
      complete,
      Math.min(training.records.length, data.sources ?? Number.POSITIVE_INFINITY),
      heldOutCurve,
    ),
    curves: [
      { name: 'training loss', xLabel: 'step', yLabel: complete.loss, points: trainCurve },
      { name: 'loss on held-out photos', xLabel: 'step', yLabel: complete.loss, points: heldOutCurve },
    ],
    rebuild: rebuilder.rebuild,
    encode: () => encodeDecoder(whole),
    close: rebuilder.close,
  };
}

/** A rise over the warm-up, then half a cosine to 0. */
function learningRates({ learningRate, steps }: CompleteDecoderSettings): Schedule {
  const cosine = cosineDecay(learningRate, steps);
  const warm = Math.max(1, WARM_UP * steps);
  return (step) => cosine(step) * Math.min(1, (step + 1) / warm);
}

function averages(trainer: NetworkTrainer): DecoderWeights {
  return Object.fromEntries([...trainer.weights('average')].map(([name, { data }]) => [name, data]));
}

/** A graph that only names its input, for a decoder that sees the release alone. */
function bareGraph(): Graph {
  const graph = Graph.create({ name: 'decoder' });
  graph.addInput(DECODER_RELEASE, 'float32', ['N', 'C', 'H', 'W']);
  return graph;
}

/** Makes a function that assembles feeds in `sets` sets of arrays by turns: the others may still be read meanwhile. */
function createBatch(
  data: AttackData,
  batchSize: number,
  conditioned: boolean,
  noise: TrainingNoise,
  sets: number,
): (indices: readonly number[], counts: readonly number[], factor: number) => Record<string, Tensor> {
  const size = data.shape[0] * data.shape[1] * data.shape[2];
  const { width, height } = data.picture;
  const plane = width * height;
  const makeArrays = () => ({
    release: float32([batchSize, ...data.shape], new Float32Array(batchSize * size)),
    target: float32([batchSize, 3, height, width], new Float32Array(batchSize * 3 * plane)),
    level: float32([batchSize, 1, 1, 1], new Float32Array(batchSize)),
  });
  const arrays = Array.from({ length: sets }, makeArrays);
  let turn = 0;
  return (indices, counts, factor) => {
    const { release, target, level } = arrays[turn] as (typeof arrays)[number];
    turn = (turn + 1) % sets;
    for (const [n, index] of indices.entries()) {
      const record = data.records[index] as AttackRecord;
      noise.apply(record.activation, release.data, n * size, factor, counts[n]);
      level.data[n] = 1 / Math.sqrt(counts[n] as number);
      const { picture } = record;
      for (let c = 0; c < 3; c++) {
        const to = (n * 3 + c) * plane;
        for (let i = 0; i < plane; i++) target.data[to + i] = (picture[i * 3 + c] as number) / 255;
      }
    }
    const feeds = { [DECODER_RELEASE]: release, target };
    return conditioned ? { ...feeds, [DECODER_LEVEL]: level } : feeds;
  };
}

/**
 * What the decoder's input is centred and scaled by, from noisy releases of some training samples: mean of each element,
 * which would also give away noise that is always the same, and standard deviation of each channel around it.
 */
async function measureChannels(
  engine: Engine,
  base: Graph,
  plan: DecoderPlan,
  data: AttackData,
  noise: TrainingNoise,
): Promise<DecoderNormalization> {
  const session = plan.features.length > 0 ? await loadFeatures(engine, base, plan.features, data.shape) : undefined;
  const channels = decoderInputChannels(plan);
  const plane = data.shape[1] * data.shape[2];
  const [sums, squares] = [new Float64Array(channels * plane), new Float64Array(channels)];
  const count = Math.min(STATISTIC_SAMPLES, data.records.length);
  try {
    for (let n = 0; n < count; n++) {
      const at = Math.floor((n * data.records.length) / count);
      const release = new Float32Array(data.shape[0] * plane);
      noise.apply((data.records[at] as AttackRecord).activation, release, 0);
      const found = await session?.run({ [DECODER_RELEASE]: float32([1, ...data.shape], release) });
      let element = 0;
      for (const part of [release, ...plan.features.map(({ name }) => found?.[name]?.data as Float32Array)]) {
        for (const value of part) {
          const c = Math.floor(element / plane);
          sums[element] = (sums[element] as number) + value;
          squares[c] = (squares[c] as number) + value * value;
          element++;
        }
      }
    }
  } finally {
    await session?.close();
  }
  const mean = Float32Array.from(sums, (sum) => sum / count);
  const deviation = Float32Array.from(squares, (square, c) => {
    const centre = mean.subarray(c * plane, (c + 1) * plane).reduce((total, value) => total + value * value, 0);
    const sd = Math.sqrt(Math.max(0, square / count - centre) / plane);
    // A channel that never changes tells nothing; dividing by next to nothing would only blow up rounding errors.
    return sd < 1e-5 ? 1 : sd;
  });
  return { mean, deviation, colour: meanColour(meanPhoto(selectRecords(data, 0, 500))) };
}

async function loadFeatures(
  engine: Engine,
  base: Graph,
  features: readonly RemoteFeature[],
  shape: AttackData['shape'],
): Promise<Session> {
  const graph = attackerGraph(base, shape, 1);
  graph.setOutputs(features.map(({ name }) => name));
  graph.prune();
  return engine.load(graph.encode());
}

/** Runs a decoder on releases. */
interface Rebuilder {
  rebuild(releases: readonly Float32Array[], averaged?: number): Promise<Float32Array[]>;
  close(): Promise<void>;
}

async function createRebuilder(
  engine: Engine,
  graph: Graph,
  { shape, picture }: AttackData,
  conditioned: boolean,
): Promise<Rebuilder> {
  const whole = graph.clone();
  whole.setOutputs([DECODER_PICTURE]);
  whole.prune({ inputs: true });
  const session = await engine.load(whole.encode());
  const size = shape[0] * shape[1] * shape[2];
  const pixels = 3 * picture.width * picture.height;
  return {
    async rebuild(releases, averaged = 1) {
      const rebuilt: Float32Array[] = [];
      for (let start = 0; start < releases.length; start += REBUILD_BATCH) {
        const part = releases.slice(start, start + REBUILD_BATCH);
        const batch = new Float32Array(part.length * size);
        for (const [n, release] of part.entries()) {
          assertArgument(release.length === size, `a release has ${release.length} values, expected ${size}`);
          batch.set(release, n * size);
        }
        const level = tensor('float32', [part.length, 1, 1, 1]);
        level.data.fill(1 / Math.sqrt(averaged));
        const outputs = await session.run({
          [DECODER_RELEASE]: float32([part.length, ...shape], batch),
          ...(conditioned ? { [DECODER_LEVEL]: level } : {}),
        });
        const values = outputs[DECODER_PICTURE]?.data as Float32Array;
        for (let n = 0; n < part.length; n++) rebuilt.push(values.slice(n * pixels, (n + 1) * pixels));
      }
      return rebuilt;
    },
    close: () => session.close(),
  };
}

/** The training loss on samples that are not trained on, with whole noise and one release. */
async function heldOutLoss(
  rebuilder: Rebuilder,
  data: AttackData,
  noise: TrainingNoise,
  settings: CompleteDecoderSettings,
): Promise<number> {
  const size = data.shape[0] * data.shape[1] * data.shape[2];
  const { width, height } = data.picture;
  const small = Math.min(width, height) < 11;
  const releases = data.records.map(({ activation }) => {
    const release = new Float32Array(size);
    noise.apply(activation, release, 0);
    return release;
  });
  const rebuilt = await rebuilder.rebuild(releases);
  let sum = 0;
  for (const [n, { picture }] of data.records.entries()) {
    const original = imageToPlanes(picture, width, height);
    const guess = float32([3, height, width], rebuilt[n] as Float32Array);
    let squares = 0;
    for (let i = 0; i < guess.data.length; i++) {
      squares += ((guess.data[i] as number) - (original.data[i] as number)) ** 2;
    }
    const mse = (squares / guess.data.length) * (255 / 128) ** 2;
    if (settings.loss === 'mse' || small) sum += mse;
    else {
      const similarity = centredSsim(original, guess);
      sum += settings.loss === 'ssim' ? -similarity : mse - SSIM_WEIGHT * similarity;
    }
  }
  return sum / data.records.length;
}

/** Whether a run says what such an attacker can do. */
function judgeTraining(
  settings: CompleteDecoderSettings,
  samples: number,
  heldOut: readonly { x: number; y: number }[],
): { trusted: boolean; trustedReason: string } {
  const first = heldOut[0]?.y ?? 0;
  const last = heldOut.at(-1)?.y ?? 0;
  const before = heldOut.findLast(({ x }) => x <= (settings.steps * 2) / 3)?.y ?? first;
  const lowest = Math.min(...heldOut.map(({ y }) => y));
  const fall = first - lowest;
  const distrust = (trustedReason: string): { trusted: boolean; trustedReason: string } => ({
    trusted: false,
    trustedReason: `${trustedReason}; ran too short to be trusted`,
  });
  if (settings.steps < settings.minSteps) {
    return distrust(`${settings.steps} steps, below ${settings.minSteps}`);
  }
  if (samples < settings.minSamples) return distrust(`trained on ${samples} photos, below ${settings.minSamples}`);
  if (!(fall > 0)) return distrust('the loss on held-out photos never fell');
  if (before - last > STILL_FALLING * fall) {
    const share = Math.round((100 * (before - last)) / fall);
    return distrust(
      `the loss on held-out photos still fell: ${share}% of its fall lies in the last third of the steps`,
    );
  }
  if (last - lowest > STILL_FALLING * fall) {
    const share = Math.round((100 * (last - lowest)) / fall);
    return {
      trusted: false,
      trustedReason: `the decoder overfits: the loss on held-out photos rose by ${share}% of its fall; it needs more photos`,
    };
  }
  return {
    trusted: true,
    trustedReason: `${settings.steps} steps on ${samples} photos; the loss on held-out photos had stopped falling`,
  };
}
