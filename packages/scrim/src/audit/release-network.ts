/**
 * A network that answers a question about an input straight from its release: a class, or numbers.
 *
 *   images:  [C, H, W], each channel normalised -> conv3×3 w, ReLU -> conv3×3/2 2w, ReLU until at most 4×4 are left
 *            -> conv3×3 2w, ReLU -> flat -> 128, ReLU -> answer
 *   vectors: [D, 1, 1] -> 128, ReLU -> 128, ReLU -> answer
 *
 * Every training step draws fresh noise, which is what the attacker can do who knows the transform. Loss: cross entropy
 * of classes, squared error of numbers in units of their deviation. Trained by noise/fit/network-trainer.ts.
 */
import { warmupFlatCosine } from '../autodiff/index.js';
import type { Engine } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom, type FitRandom } from '../noise/fit/fit-random.js';
import { createNetworkTrainer } from '../noise/fit/network-trainer.js';
import { Graph } from '../onnx/index.js';
import { float32, int64, scalar } from '../tensor.js';
import type { AttackCurve, AttackData, AttackHooks } from './attack.js';
import { createTrainingNoise, type TrainingNoise } from './attack-releases.js';

/** How a network is trained. */
export interface ReleaseNetworkSettings {
  /** Default 2,000. */
  readonly steps?: number;
  /** Default 32. */
  readonly batchSize?: number;
  /** Peak; default 0.001. */
  readonly learningRate?: number;
  /** w above; default 32. */
  readonly width?: number;
  /** A run of fewer steps is not trusted. Default 1,500. */
  readonly minSteps?: number;
  /** A run on fewer samples is not trusted. Default 200. */
  readonly minSamples?: number;
}

/** What the network is asked for: one of some classes, or numbers. One entry a record. */
export type ReleaseQuestion =
  | { readonly kind: 'class'; readonly classes: number; readonly answers: readonly number[] }
  | { readonly kind: 'numbers'; readonly answers: readonly Float32Array[] };

/** What {@link trainReleaseNetwork} trains on. */
export interface ReleaseNetworkInput {
  readonly engine: Engine;
  readonly parameters: DiagonalParameters;
  /** [C, H, W] of the activation; vectors are [D, 1, 1]. */
  readonly shape: AttackData['shape'];
  /** Clean activations. */
  readonly activations: readonly Float32Array[];
  readonly question: ReleaseQuestion;
  /** True trains on activations without noise: what the attacker gets where there is none. */
  readonly clean?: boolean;
  readonly seed: string;
  /** Name of the attack in progress reports. */
  readonly attack: string;
}

/** A trained network. */
export interface ReleaseNetwork {
  /** Training loss over the steps. */
  readonly curve: AttackCurve;
  readonly trusted: boolean;
  readonly trustedReason: string;
  /** Probabilities of the classes, or the numbers, for each release [C, H, W] (or [D, 1, 1]). */
  predict(releases: readonly Float32Array[]): Promise<Float32Array[]>;
  close(): Promise<void>;
}

const HIDDEN = 128;
/** Largest side of what is made flat. */
const FLAT_SIDE = 4;
/** Places that the loss is averaged over for the curve. */
const CURVE_POINTS = 20;
const STATISTIC_SAMPLES = 64;
const PREDICT_BATCH = 32;

/** Settings with nothing left out. */
export function completeNetworkSettings(settings: ReleaseNetworkSettings): Required<ReleaseNetworkSettings> {
  const complete = {
    steps: 2000,
    batchSize: 32,
    learningRate: 1e-3,
    width: 32,
    minSteps: 1500,
    minSamples: 200,
    ...settings,
  };
  for (const name of ['steps', 'batchSize', 'width'] as const) {
    assertArgument(
      Number.isInteger(complete[name]) && complete[name] > 0,
      `${name} is ${complete[name]}, expected an integer > 0`,
    );
  }
  return complete;
}

/**
 * Trains a network.
 * @throws ScrimError DIVERGED, CANCELLED; INVALID_ARGUMENT where answers and activations don't fit
 */
export async function trainReleaseNetwork(
  input: ReleaseNetworkInput,
  settings: ReleaseNetworkSettings = {},
  hooks: AttackHooks = {},
): Promise<ReleaseNetwork> {
  const { engine, shape, activations, question, clean = false, attack } = input;
  const { steps, batchSize, learningRate, width, minSteps, minSamples } = completeNetworkSettings(settings);
  const count = activations.length;
  assertArgument(
    count > 0 && question.answers.length === count,
    `there are ${question.answers.length} answers for ${count} samples, expected one each and at least one`,
  );
  const random = createFitRandom(`network ${input.seed}`);
  const noise = createTrainingNoise(input.parameters, shape, random);
  const factor = clean ? 0 : 1;
  const size = shape[0] * shape[1] * shape[2];
  const channels = measure(activations, shape, noise, factor);
  const scaling = question.kind === 'numbers' ? measureNumbers(question.answers) : undefined;
  const outputs = question.kind === 'class' ? question.classes : question.answers[0]!.length;
  const plan = { shape, width, outputs, channels };
  const graph = buildNetwork(plan, batchSize, random);
  const weights = graph.initializerNames.filter((name) => name.startsWith('network/')).map((name) => ({ name }));
  addLoss(graph, question.kind, batchSize, outputs);
  const trainer = await createNetworkTrainer({
    engine,
    graph,
    loss: 'loss',
    weights,
    learningRate: warmupFlatCosine(learningRate, { steps, warmup: 0.04, flat: 0.5, final: 0 }),
    average: 0.99,
  });
  const release = float32([batchSize, ...shape], new Float32Array(batchSize * size));
  const target = float32([batchSize, outputs], new Float32Array(batchSize * outputs));
  const points: { x: number; y: number }[] = [];
  const every = Math.max(1, Math.floor(steps / CURVE_POINTS));
  const trained = buildNetwork(plan, 'N', random);
  try {
    let [sum, since] = [0, 0];
    for (let step = 0; step < steps; step++) {
      if (hooks.signal?.aborted) {
        throw new ScrimError('CANCELLED', `${attack} was interrupted after ${step} of ${steps} steps`);
      }
      target.data.fill(0);
      for (let n = 0; n < batchSize; n++) {
        const at = random.integer(count);
        noise.apply(activations[at]!, release.data, n * size, factor);
        if (question.kind === 'class') target.data[n * outputs + question.answers[at]!] = 1;
        else {
          const { mean, deviation } = scaling!;
          question.answers[at]!.forEach((value, i) => {
            target.data[n * outputs + i] = (value - mean[i]!) / deviation[i]!;
          });
        }
      }
      const { loss } = await trainer.step({ release, target }, step + 1 === steps);
      sum += loss;
      since++;
      if ((step + 1) % every === 0 || step + 1 === steps) {
        points.push({ x: step + 1, y: sum / since });
        [sum, since] = [0, 0];
      }
      hooks.onProgress?.({ attack, done: step + 1, of: steps, loss });
    }
    for (const [name, value] of trainer.weights('average')) trained.setInitializer(name, value);
  } finally {
    await trainer.close();
  }
  if (question.kind === 'class') trained.add('Softmax', ['answer'], { axis: 1 }, { outputs: ['prediction'] });
  else {
    const deviation = trained.addInitializer('deviation', float32([outputs], scaling!.deviation));
    const mean = trained.addInitializer('mean', float32([outputs], scaling!.mean));
    trained.add('Add', [trained.add('Mul', ['answer', deviation]), mean], {}, { outputs: ['prediction'] });
  }
  trained.addOutput('prediction', 'float32', ['N', outputs]);
  const session = await engine.load(trained.encode());
  return {
    curve: { name: `training loss${clean ? ' on clean activations' : ''}`, xLabel: 'step', yLabel: 'loss', points },
    ...judgeNetwork(steps, minSteps, count, minSamples),
    predict: async (releases) => {
      const predictions: Float32Array[] = [];
      for (let start = 0; start < releases.length; start += PREDICT_BATCH) {
        const part = releases.slice(start, start + PREDICT_BATCH);
        const batch = new Float32Array(part.length * size);
        part.forEach((values, n) => {
          assertArgument(values.length === size, `a release has ${values.length} values, expected ${size}`);
          batch.set(values, n * size);
        });
        const { prediction } = await session.run({ release: float32([part.length, ...shape], batch) });
        const values = prediction!.data as Float32Array;
        part.forEach((_, n) => {
          predictions.push(values.slice(n * outputs, (n + 1) * outputs));
        });
      }
      return predictions;
    },
    close: () => session.close(),
  };
}

function judgeNetwork(
  steps: number,
  minSteps: number,
  samples: number,
  minSamples: number,
): { trusted: boolean; trustedReason: string } {
  if (steps < minSteps) {
    return { trusted: false, trustedReason: `${steps} steps, below ${minSteps}; ran too short to be trusted` };
  }
  if (samples < minSamples) {
    return { trusted: false, trustedReason: `trained on ${samples} samples, below ${minSamples}` };
  }
  return { trusted: true, trustedReason: `${steps} steps on ${samples} samples` };
}

interface NetworkPlan {
  readonly shape: AttackData['shape'];
  readonly width: number;
  readonly outputs: number;
  readonly channels: { readonly mean: Float32Array; readonly scale: Float32Array };
}

/** Builds the network up to `answer`, [batch, outputs]. Weights are normal with variance 2/fan-in (He et al. 2015). */
function buildNetwork(plan: NetworkPlan, batch: number | string, random: FitRandom): Graph {
  const { shape, width, outputs, channels } = plan;
  const graph = Graph.create({ name: 'release network', opset: 17 });
  graph.addInput('release', 'float32', [batch, ...shape]);
  const perChannel = (name: string, values: Float32Array): string =>
    graph.addInitializer(name, float32([1, values.length, 1, 1], values));
  const centred = graph.add('Sub', ['release', perChannel('channel_mean', channels.mean)]);
  let value = graph.add('Mul', [centred, perChannel('channel_scale', channels.scale)]);
  const weight = (name: string, dims: number[], fanIn: number): string => {
    const values = new Float32Array(dims.reduce((a, b) => a * b, 1));
    random.normal(values);
    return graph.addInitializer(
      `network/${name}`,
      float32(
        dims,
        values.map((v) => v * Math.sqrt(2 / fanIn)),
      ),
    );
  };
  const zeros = (name: string, length: number): string =>
    graph.addInitializer(`network/${name}`, float32([length], new Float32Array(length)));
  let layers = 0;
  let [depth, height, columns] = shape;
  const conv = (to: number, stride: number): void => {
    const name = `conv${layers++}`;
    const inputs = [value, weight(`${name}.weight`, [to, depth, 3, 3], depth * 9), zeros(`${name}.bias`, to)];
    const attributes = { kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [stride, stride] };
    value = graph.add('Relu', [graph.add('Conv', inputs, attributes)]);
    depth = to;
    [height, columns] = [Math.ceil(height / stride), Math.ceil(columns / stride)];
  };
  if (height * columns > 1) {
    conv(width, 1);
    while (Math.max(height, columns) > FLAT_SIDE) conv(2 * width, 2);
    conv(2 * width, 1);
  }
  let features = depth * height * columns;
  value = graph.add('Reshape', [value, graph.addInitializer('flat', int64([-1, features]))]);
  const dense = (to: number): string => {
    const name = `dense${layers++}`;
    const product = graph.add('MatMul', [value, weight(`${name}.weight`, [features, to], features)]);
    features = to;
    return graph.add('Add', [product, zeros(`${name}.bias`, to)]);
  };
  for (let i = 0; i < (shape[1] * shape[2] > 1 ? 1 : 2); i++) value = graph.add('Relu', [dense(HIDDEN)]);
  graph.add('Identity', [dense(outputs)], {}, { outputs: ['answer'] });
  return graph;
}

/** Cross entropy of the answer and a one-hot target, or the mean squared error. */
function addLoss(graph: Graph, kind: ReleaseQuestion['kind'], batch: number, outputs: number): void {
  graph.addInput('target', 'float32', [batch, outputs]);
  if (kind === 'class') {
    const logits = graph.add('LogSoftmax', ['answer'], { axis: 1 });
    const sum = graph.add('ReduceSum', [graph.add('Mul', [logits, 'target'])], { keepdims: 0 });
    graph.add('Mul', [sum, graph.addInitializer('share', scalar(-1 / batch))], {}, { outputs: ['loss'] });
  } else {
    const error = graph.add('Sub', ['answer', 'target']);
    graph.add('ReduceMean', [graph.add('Mul', [error, error])], { keepdims: 0 }, { outputs: ['loss'] });
  }
}

/** Mean and inverse deviation by channel, over noisy releases of some samples. */
function measure(
  activations: readonly Float32Array[],
  [channels, height, width]: AttackData['shape'],
  noise: TrainingNoise,
  factor: number,
): NetworkPlan['channels'] {
  const plane = height * width;
  const [sums, squares] = [new Float64Array(channels), new Float64Array(channels)];
  const count = Math.min(STATISTIC_SAMPLES, activations.length);
  const release = new Float32Array(channels * plane);
  for (let n = 0; n < count; n++) {
    noise.apply(activations[Math.floor((n * activations.length) / count)]!, release, 0, factor);
    for (let i = 0; i < release.length; i++) {
      const c = Math.floor(i / plane);
      sums[c]! += release[i]!;
      squares[c]! += release[i]! ** 2;
    }
  }
  const total = count * plane;
  const mean = Float32Array.from(sums, (sum) => sum / total);
  // A channel that never changes tells nothing.
  const scale = Float32Array.from(squares, (square, c) => {
    const deviation = Math.sqrt(Math.max(0, square / total - mean[c]! ** 2));
    return deviation < 1e-5 ? 1 : 1 / deviation;
  });
  return { mean, scale };
}

function measureNumbers(answers: readonly Float32Array[]): { mean: Float32Array; deviation: Float32Array } {
  const length = answers[0]!.length;
  const [sums, squares] = [new Float64Array(length), new Float64Array(length)];
  for (const answer of answers) {
    assertArgument(answer.length === length, `an answer has ${answer.length} numbers, the first has ${length}`);
    answer.forEach((value, i) => {
      sums[i]! += value;
      squares[i]! += value * value;
    });
  }
  const mean = Float32Array.from(sums, (sum) => sum / answers.length);
  const deviation = Float32Array.from(squares, (square, i) => {
    const sd = Math.sqrt(Math.max(0, square / answers.length - mean[i]! ** 2));
    return sd < 1e-8 ? 1 : sd;
  });
  return { mean, deviation };
}
