/**
 * Fitting a bottleneck transform: which few directions of the activation the task needs, and how much noise they bear.
 *
 *   h₀ = encoder(z),  h = h₀ + σ ⊙ ε,  answer = tail(D(h))        (networks: bottleneck-model.ts)
 *   loss = task + β·MI/1000 (+ γ·E‖r − x̄‖²/E‖x − x̄‖²),  MI = H·W·Σ_c ½ ln(1 + Var(h₀_c)/σ_c²)
 *
 * MI is the Gaussian-channel bound in nats per input: what is trained is what is certified. β follows α by
 * {@link bottleneckWeight}. Two phases: in the push encoder, ρ = ln σ, D and the tail's weights learn together; then encoder
 * and ρ stay as their moving average left them and D and the tail learn the task alone. The averages are the result. With
 * γ > 0 a decoder r learns beside it to rebuild the picture, and the encoder learns to leave it with the mean picture x̄; such
 * fits can mask what is still there (noise.md), so the information term is the part to trust. Batches and noise come from a
 * seed; gradients from autodiff/, on the engine. Settings, both phases and checkpoints stand in one long file because all
 * of them name the same weights.
 */
import { cosineDecay, warmupFlatCosine } from '../../autodiff/index.js';
import type { Engine } from '../../engine/engine.js';
import { assertArgument, ScrimError } from '../../errors.js';
import { Graph, raiseOpset } from '../../onnx/index.js';
import { float32, int64, scalar, type Tensor } from '../../tensor.js';
import type { DiagonalParameters } from '../diagonal.js';
import { natsPerPosition } from '../information-bound.js';
import type { ActivationCache } from './activation-cache.js';
import { addPictureDecoder } from './bottleneck-adversary.js';
import {
  addEncoder,
  addExpansion,
  BOTTLENECK_BOUND,
  type BottleneckArchitecture,
  type BottleneckWeights,
  type EncoderKind,
  initialBottleneckWeights,
  LAST_LAYER,
} from './bottleneck-model.js';
import { createFitRandom, type FitRandom, type FitRandomState } from './fit-random.js';
import {
  createNetworkTrainer,
  type NetworkTrainer,
  stepsPerRun,
  type TrainedWeight,
  type TrainerState,
} from './network-trainer.js';
import { addTaskLoss, type FitTask } from './task-loss.js';

/** β at α = ½. */
export const BOTTLENECK_WEIGHT = 0.025;

/**
 * β, the weight of a thousand nats, for an α in [0, 1): 0.025·α/(1 − α). Monotone; 0 at 0, 0.1 at 0.8, 0.475 at 0.95.
 * @throws ScrimError INVALID_ARGUMENT outside.
 */
export function bottleneckWeight(alpha: number): number {
  assertArgument(alpha >= 0 && alpha < 1, `alpha is ${alpha}, expected a number from 0 up to, but not including, 1`);
  return BOTTLENECK_WEIGHT * (alpha / (1 - alpha));
}

/** Settings of a fit; the defaults are those of the shipped artefacts. */
export interface BottleneckFitSettings {
  /** Training weight of privacy against accuracy, in [0, 1). */
  readonly alpha: number;
  /** Default 'deep'. */
  readonly encoder?: EncoderKind;
  /** Channels that are released; default 8. */
  readonly channels?: number;
  /** Steps of the push; default 2200. */
  readonly pushSteps?: number;
  /** Steps of the recovery; default 1000. */
  readonly recoverSteps?: number;
  /** Default 16. */
  readonly batchSize?: number;
  /** Of encoder, ρ and expansion; default 0.002. */
  readonly learningRate?: number;
  /** Of the tail; default 0.0005. */
  readonly tailLearningRate?: number;
  /** γ, the weight of the adversary; default 0, which trains none. */
  readonly adversary?: number;
}

/** What a step reports. */
export interface BottleneckProgress {
  readonly phase: 'push' | 'recover';
  /** Over both phases. */
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly task: number;
  /** Bound in nats per input, over the batch at hand. */
  readonly nats: number;
}

/** Everything needed to go on with an interrupted fit and get the same result. */
export interface BottleneckCheckpoint {
  readonly settings: Required<BottleneckFitSettings>;
  readonly shape: readonly number[];
  readonly phase: 'push' | 'recover';
  readonly trainer: TrainerState;
  /** Weights that the phase started from, by name. */
  readonly start: Readonly<Record<string, Float32Array>>;
  readonly random: FitRandomState;
  readonly task: number;
  /** Seconds spent so far. */
  readonly seconds?: number;
}

/** Result of a fit. */
export interface BottleneckFit {
  readonly architecture: BottleneckArchitecture;
  /** Of encoder and expansion. */
  readonly weights: BottleneckWeights;
  /** The tail's trained weights, by the name of the initializer. */
  readonly tailWeights: ReadonlyMap<string, Tensor<'float32'>>;
  /** The release of h₀: gain 1, shift 0, σ per channel. */
  readonly parameters: DiagonalParameters;
  readonly settings: Required<BottleneckFitSettings>;
  /** h₀ of the first cached examples, as many as were asked for. */
  readonly encoded: readonly Float32Array[];
  /** Task loss, averaged over the last 5% of the recovery. */
  readonly finalTask: number;
  /** Bound in nats per fitting input. */
  readonly nats: number;
  readonly seconds: number;
}

/** Hooks of a running fit. */
export interface BottleneckHooks {
  readonly onProgress?: (progress: BottleneckProgress) => void;
  /** Stops the fit; `onCheckpoint` is called first. */
  readonly signal?: AbortSignal;
  readonly onCheckpoint?: (checkpoint: BottleneckCheckpoint) => void | Promise<void>;
  readonly checkpointEvery?: number;
  /** Goes on from here. Settings and data must be the same. */
  readonly resume?: BottleneckCheckpoint;
  /** Milliseconds from a monotonic clock, to report how long the fit took. */
  readonly now?: () => number;
}

/** What is fitted on. */
export interface BottleneckFitOptions {
  readonly engine: Engine;
  readonly tail: Graph;
  readonly task: FitTask;
  readonly cache: ActivationCache;
  /** Pictures of the cached examples, [3, size, size] in [0, 1] each: what an adversary learns to rebuild. */
  readonly pictures?: { readonly size: number; readonly values: readonly Float32Array[] };
  readonly settings: BottleneckFitSettings;
  readonly seed: string;
  /** Examples whose h₀ is part of the result; default 0. */
  readonly encodedExamples?: number;
  readonly hooks?: BottleneckHooks;
}

/** ρ = ln σ at the start: ln ½. */
const INITIAL_RHO = Math.log(0.5);
/** Examples that the encoder's last layer is set by. */
const SCALING_EXAMPLES = 256;
const AVERAGE = 0.998;
const RECOVER_RATE = 0.6;
/** A task loss, averaged over some fifty steps, this many times its least since the first twentieth ends the fit. */
const DIVERGENCE_FACTOR = 40;
const DIVERGENCE_MEMORY = 0.98;
const DIVERGENCE_FROM = 0.05;
/** Weights of these operators' inputs are trained in the tail; moments of batch normalisation are not. */
const TRAINED_INPUTS: Readonly<Record<string, readonly number[]>> = {
  Conv: [1, 2],
  ConvTranspose: [1, 2],
  Gemm: [1, 2],
  MatMul: [1],
  BatchNormalization: [1, 2],
  LayerNormalization: [1, 2],
  InstanceNormalization: [1, 2],
  PRelu: [1],
};

/** Fills in the defaults. @throws ScrimError INVALID_ARGUMENT for a setting out of range. */
export function completeBottleneckSettings(settings: BottleneckFitSettings): Required<BottleneckFitSettings> {
  const complete: Required<BottleneckFitSettings> = {
    alpha: settings.alpha,
    encoder: settings.encoder ?? 'deep',
    channels: settings.channels ?? 8,
    pushSteps: settings.pushSteps ?? 2200,
    recoverSteps: settings.recoverSteps ?? 1000,
    batchSize: settings.batchSize ?? 16,
    learningRate: settings.learningRate ?? 2e-3,
    tailLearningRate: settings.tailLearningRate ?? 5e-4,
    adversary: settings.adversary ?? 0,
  };
  bottleneckWeight(complete.alpha);
  for (const name of ['channels', 'pushSteps', 'recoverSteps', 'batchSize'] as const) {
    const value = complete[name];
    assertArgument(Number.isInteger(value) && value > 0, `${name} is ${value}, expected an integer > 0`);
  }
  for (const name of ['learningRate', 'tailLearningRate'] as const) {
    assertArgument(complete[name] > 0, `${name} is ${complete[name]}, expected a number > 0`);
  }
  assertArgument(complete.adversary >= 0, `adversary is ${complete.adversary}, expected a number ≥ 0`);
  return complete;
}

/** Names of the tail's initializers that a fit trains. */
export function trainableWeights(tail: Graph): string[] {
  const names = new Set<string>();
  for (const node of tail.nodes()) {
    for (const i of TRAINED_INPUTS[node.opType] ?? []) {
      const name = node.input[i];
      if (name !== undefined && tail.initializer(name)?.dtype === 'float32') names.add(name);
    }
  }
  return [...names];
}

/**
 * Fits encoder, noise, expansion and tail.
 * @throws ScrimError UNSUPPORTED if an operator of the tail has no gradient or the tail has several inputs; DIVERGED with
 * the step; CANCELLED when interrupted; INVALID_ARGUMENT for settings or a checkpoint that do not fit.
 */
export async function fitBottleneck(options: BottleneckFitOptions): Promise<BottleneckFit> {
  const { engine, tail, task, cache, pictures, seed, hooks = {} } = options;
  const settings = completeBottleneckSettings(options.settings);
  assertArgument(
    settings.adversary === 0 || pictures?.values.length === cache.activations.length,
    'an adversary needs a picture for every cached example',
  );
  const { now = () => 0, resume } = hooks;
  const started = now() - 1000 * (resume?.seconds ?? 0);
  const architecture = architectureOf(cache, settings);
  if (resume) checkResume(resume, settings, cache);
  const random = createFitRandom(`${seed}/batches`);
  if (resume) random.restore(resume.random);

  let weights = new Map<string, Tensor<'float32'>>();
  if (resume) {
    for (const [name, like] of startingWeights(tail, architecture, seed)) {
      const saved = resume.start[name];
      if (saved?.length !== like.data.length) throw new ScrimError('INVALID_DATA', `the checkpoint lacks '${name}'`);
      weights.set(name, float32(like.shape, saved));
    }
  } else {
    weights = startingWeights(tail, architecture, seed);
    await scaleLastLayer(engine, architecture, weights, cache);
  }
  let finalTask = resume?.task ?? 0;
  for (const phase of ['push', 'recover'] as const) {
    if (resume?.phase === 'recover' && phase === 'push') continue;
    const loop = await preparePhase(phase, {
      engine,
      tail,
      task,
      cache,
      architecture,
      settings,
      weights,
      pictures,
      seed,
    });
    try {
      const from = resume?.phase === phase ? resume : undefined;
      if (from) loop.trainer.restore(from.trainer);
      finalTask = await runPhase(phase, loop, {
        cache,
        settings,
        random,
        hooks,
        weights,
        task: from?.task ?? 0,
        started,
      });
      for (const [name, value] of loop.trainer.weights('average')) weights.set(loop.names.get(name) ?? name, value);
    } finally {
      await loop.trainer.close();
    }
  }

  const networks = new Map([...weights].filter(([name]) => /^(encoder|expansion)\./.test(name)));
  const tailWeights = new Map(trainableWeights(tail).map((name) => [name, weights.get(name) as Tensor<'float32'>]));
  const encoded: Float32Array[] = [];
  const parameters = await releaseParameters(engine, architecture, weights, cache, (h0, i) => {
    if (i < (options.encodedExamples ?? 0)) encoded.push(h0);
  });
  return {
    architecture,
    weights: networks,
    tailWeights,
    parameters,
    settings,
    encoded,
    finalTask,
    nats: natsPerPosition(parameters) * positionsOf(cache.shape),
    seconds: (now() - started) / 1000,
  };
}

function positionsOf(shape: readonly number[]): number {
  return shape.slice(1).reduce((product, size) => product * size, 1);
}

function architectureOf(cache: ActivationCache, settings: Required<BottleneckFitSettings>): BottleneckArchitecture {
  const { shape, statistics } = cache;
  assertArgument(
    shape.length >= 1 && shape.length <= 4,
    `the activation has shape [${shape.join(', ')}], expected [C] or [C, …] with up to three dimensions more`,
  );
  return {
    encoder: settings.encoder,
    channels: settings.channels,
    inputChannels: shape[0] ?? 1,
    spatialRank: shape.length - 1,
    mean: statistics.mean,
    deviation: statistics.variance.map((variance) => Math.max(Math.sqrt(variance), 1e-4)),
  };
}

/** Weights of both networks, ρ, and those of the tail. */
function startingWeights(
  tail: Graph,
  architecture: BottleneckArchitecture,
  seed: string,
): Map<string, Tensor<'float32'>> {
  const weights = new Map(initialBottleneckWeights(architecture, createFitRandom(`${seed}/weights`)));
  const { channels, spatialRank } = architecture;
  const shape = [1, channels, ...Array.from({ length: spatialRank }, () => 1)];
  weights.set(RHO, float32(shape, new Float32Array(channels).fill(INITIAL_RHO)));
  for (const name of trainableWeights(tail)) weights.set(name, tail.initializer(name) as Tensor<'float32'>);
  return weights;
}

const RHO = 'noise.rho';

/** Sets the last layer so that each channel of f has mean 0 and standard deviation 1 over some examples. */
async function scaleLastLayer(
  engine: Engine,
  architecture: BottleneckArchitecture,
  weights: Map<string, Tensor<'float32'>>,
  cache: ActivationCache,
): Promise<void> {
  const moments = await encoderMoments(engine, architecture, weights, cache, 'raw', SCALING_EXAMPLES);
  const [weight, bias] = ['weight', 'bias'].map((part) => weights.get(`${LAST_LAYER}.${part}`) as Tensor<'float32'>);
  if (!weight || !bias) return;
  const { channels, spatialRank } = architecture;
  const data = weight.data.slice();
  for (let i = 0; i < data.length; i++) {
    const channel = spatialRank === 0 ? i % channels : Math.floor(i / (data.length / channels));
    data[i] = (data[i] as number) / (moments.deviation[channel] as number);
  }
  weights.set(`${LAST_LAYER}.weight`, float32(weight.shape, data));
  const shifted = bias.data.map((b, c) => (b - (moments.mean[c] as number)) / (moments.deviation[c] as number));
  weights.set(`${LAST_LAYER}.bias`, float32(bias.shape, shifted));
}

/** Mean and standard deviation by channel of f or h₀ over the first `count` cached examples. */
async function encoderMoments(
  engine: Engine,
  architecture: BottleneckArchitecture,
  weights: BottleneckWeights,
  cache: ActivationCache,
  which: 'raw' | 'bounded',
  count: number,
  onExample: (values: Float32Array, index: number) => void = () => {},
): Promise<{ mean: Float64Array; deviation: Float64Array }> {
  const graph = Graph.create({ name: 'encoder' });
  graph.addInput('z', 'float32', [1, ...cache.shape]);
  const { output, raw } = addEncoder(graph, 'z', architecture, weights);
  const value = which === 'raw' ? raw : output;
  graph.setOutputs([value]);
  graph.prune();
  const session = await engine.load(graph.encode());
  const { channels } = architecture;
  const sums = new Float64Array(channels);
  const squares = new Float64Array(channels);
  const examples = cache.activations.slice(0, count);
  const plane = positionsOf(cache.shape);
  for (const [index, example] of examples.entries()) {
    const outputs = await session.run({ z: float32([1, ...cache.shape], example) });
    const data = outputs[value]?.data as Float32Array;
    onExample(data, index);
    for (let c = 0; c < channels; c++) {
      for (let i = c * plane; i < (c + 1) * plane; i++) {
        sums[c] = (sums[c] as number) + (data[i] as number);
        squares[c] = (squares[c] as number) + (data[i] as number) ** 2;
      }
    }
  }
  await session.close();
  const n = examples.length * plane;
  const mean = sums.map((sum) => sum / n);
  const deviation = squares.map((square, c) =>
    Math.max(Math.sqrt(Math.max(square / n - (mean[c] as number) ** 2, 0)), 1e-6),
  );
  return { mean, deviation };
}

/** The diagonal release of h₀; what is released reaches 4σ beyond the bound of h₀. */
async function releaseParameters(
  engine: Engine,
  architecture: BottleneckArchitecture,
  weights: BottleneckWeights,
  cache: ActivationCache,
  onExample: (h0: Float32Array, index: number) => void,
): Promise<DiagonalParameters> {
  const { channels } = architecture;
  const { deviation } = await encoderMoments(
    engine,
    architecture,
    weights,
    cache,
    'bounded',
    cache.activations.length,
    onExample,
  );
  const sigma = (weights.get(RHO) as Tensor<'float32'>).data.map((rho) => Math.exp(rho));
  const reach = sigma.map((s) => BOTTLENECK_BOUND + 4 * s);
  return {
    kind: 'per-channel',
    shape: [channels],
    gain: new Float32Array(channels).fill(1),
    mean: new Float32Array(channels),
    sigma,
    clipLow: reach.map((value) => -value),
    clipHigh: reach,
    variance: Float32Array.from(deviation, (d) => d * d),
  };
}

interface PhaseContext {
  readonly engine: Engine;
  readonly tail: Graph;
  readonly task: FitTask;
  readonly cache: ActivationCache;
  readonly architecture: BottleneckArchitecture;
  readonly settings: Required<BottleneckFitSettings>;
  readonly weights: ReadonlyMap<string, Tensor<'float32'>>;
  readonly pictures: BottleneckFitOptions['pictures'];
  readonly seed: string;
}

interface Phase {
  readonly trainer: NetworkTrainer;
  /** Steps that one run of the engine takes, at most. */
  readonly perRun: number;
  /** Initializer of the training graph -> name of the weight. */
  readonly names: ReadonlyMap<string, string>;
  readonly feeds: (indices: readonly number[], step: number) => Record<string, Tensor>;
}

async function preparePhase(phase: 'push' | 'recover', context: PhaseContext): Promise<Phase> {
  const { engine, tail, task, cache, architecture, settings, weights, pictures, seed } = context;
  const { batchSize, learningRate, tailLearningRate, pushSteps, recoverSteps, adversary } = settings;
  const graph = tail.clone();
  raiseOpset(graph);
  const [cut, ...more] = graph.inputNames;
  if (cut === undefined || more.length > 0) {
    throw new ScrimError('UNSUPPORTED', `the tail has ${graph.inputNames.length} inputs, expected one`);
  }
  const trainable = trainableWeights(tail);
  for (const name of trainable) graph.setInitializer(name, weights.get(name) as Tensor);
  const { channels } = architecture;
  const released = [batchSize, channels, ...cache.shape.slice(1)];
  graph.addInput('fit_clean', 'float32', [batchSize, ...cache.shape]);
  graph.addInput('fit_epsilon', 'float32', released);
  const encoder = addEncoder(graph, 'fit_clean', architecture, weights);
  const rho = graph.addInitializer(RHO, weights.get(RHO) as Tensor);
  const sigma = graph.add('Exp', [rho]);
  const h = graph.add('Add', [encoder.output, graph.add('Mul', [sigma, 'fit_epsilon'])]);
  const expansion = addExpansion(graph, h, architecture, weights);
  graph.replaceUses(cut, expansion.output);
  const { loss: taskLoss, feeds } = addTaskLoss(graph, task, cache, batchSize, engine.executionProvider !== 'cpu');
  graph.add('Identity', [taskLoss], {}, { outputs: ['fit_task'] });
  const nats = addInformation(graph, encoder.output, sigma, released);
  const names = new Map<string, string>();
  const ratio = tailLearningRate / learningRate;
  const trained: TrainedWeight[] = trainable.map((name) => ({ name, rate: ratio }));
  for (const [name, initializer] of expansion.initializers) {
    names.set(initializer, name);
    trained.push({ name: initializer });
  }
  let loss = 'fit_task';
  let adversaryFeeds = (_indices: readonly number[], _step: number): Record<string, Tensor> => ({});
  if (phase === 'push') {
    for (const [name, initializer] of [...encoder.initializers, [RHO, rho] as const]) {
      names.set(initializer, name);
      trained.push({ name: initializer });
    }
    const information = graph.add('Mul', [
      nats,
      graph.addInitializer('fit_beta', scalar(bottleneckWeight(settings.alpha) / 1000)),
    ]);
    loss = graph.add('Add', ['fit_task', information]);
    if (adversary > 0 && pictures) {
      const opponent = addPictureDecoder(graph, h, released, pictures, createFitRandom(`${seed}/adversary`));
      graph.addInput('fit_adversary', 'float32', []);
      loss = graph.add('Add', [loss, graph.add('Mul', [opponent.gain, 'fit_adversary'])]);
      trained.push(...opponent.weights.map((name) => ({ name, loss: opponent.loss })));
      adversaryFeeds = (indices, step) => ({
        ...opponent.feeds(indices),
        // Ramped in from 8% to 38% of the push.
        fit_adversary: scalar(adversary * Math.min(1, Math.max(0, (step / pushSteps - 0.08) / 0.3))),
      });
    }
  }
  const trainer = await createNetworkTrainer({
    engine,
    graph,
    loss,
    weights: trained,
    reports: ['fit_task', 'fit_nats'],
    inputShapes: { fit_clean: [batchSize, ...cache.shape] },
    learningRate:
      phase === 'push'
        ? warmupFlatCosine(learningRate, { steps: pushSteps, warmup: 0.04, flat: 0.7, final: 0.3 })
        : cosineDecay(RECOVER_RATE * learningRate, recoverSteps),
    average: AVERAGE,
    loop: stepsPerRun(engine) > 1,
  });
  return {
    trainer,
    names,
    perRun: stepsPerRun(engine),
    feeds: (indices, step) => ({ ...feeds(indices), ...adversaryFeeds(indices, step) }),
  };
}

/** MI in nats per input: H·W·Σ_c ½ ln(1 + Var(h₀_c)/σ_c²), the variance over the batch and all positions. */
function addInformation(graph: Graph, h0: string, sigma: string, released: readonly number[]): string {
  const axes = released.map((_, axis) => axis).filter((axis) => axis !== 1);
  // The axes of ReduceMean are an attribute before opset 18 and an input from there on.
  const mean = (value: string): string =>
    graph.opset < 18
      ? graph.add('ReduceMean', [value], { axes, keepdims: 1 })
      : graph.add('ReduceMean', [value, graph.addInitializer('fit_axes', int64(axes))], { keepdims: 1 });
  const deviation = graph.add('Sub', [h0, mean(h0)]);
  const variance = mean(graph.add('Mul', [deviation, deviation]));
  const ratio = graph.add('Div', [variance, graph.add('Mul', [sigma, sigma])]);
  const logarithm = graph.add('Log', [graph.add('Add', [ratio, graph.addInitializer('fit_unit', scalar(1))])]);
  const sum = graph.add('ReduceSum', [logarithm], { keepdims: 0 });
  const scale = graph.addInitializer('fit_positions', scalar(0.5 * positionsOf(released.slice(1))));
  return graph.add('Mul', [sum, scale], {}, { outputs: ['fit_nats'] });
}

interface LoopContext {
  readonly cache: ActivationCache;
  readonly settings: Required<BottleneckFitSettings>;
  readonly random: FitRandom;
  readonly hooks: BottleneckHooks;
  readonly weights: ReadonlyMap<string, Tensor<'float32'>>;
  readonly task: number;
  /** When the fit began, by the hooks' clock, less what earlier runs of it took. */
  readonly started: number;
}

async function runPhase(phase: 'push' | 'recover', loop: Phase, context: LoopContext): Promise<number> {
  const { cache, settings, random, hooks, weights } = context;
  const { batchSize, channels, pushSteps, recoverSteps } = settings;
  const { trainer, perRun } = loop;
  const steps = phase === 'push' ? pushSteps : recoverSteps;
  const before = phase === 'push' ? 0 : pushSteps;
  const size = cache.activations[0]?.length ?? 0;
  const released = [batchSize, channels, ...cache.shape.slice(1)];
  // The batches of one run may still be read while those of the next one are filled.
  const arrays = Array.from({ length: 2 * perRun }, () => ({
    clean: new Float32Array(batchSize * size),
    epsilon: new Float32Array(batchSize * channels * positionsOf(cache.shape)),
  }));
  let turn = 0;
  const nextBatch = (at: number): Record<string, Tensor> => {
    const { clean, epsilon } = arrays[turn] as (typeof arrays)[number];
    turn = (turn + 1) % arrays.length;
    const indices = Array.from({ length: batchSize }, () => random.integer(cache.activations.length));
    indices.forEach((index, i) => {
      clean.set(cache.activations[index] as Float32Array, i * size);
    });
    random.normal(epsilon);
    return {
      fit_clean: float32([batchSize, ...cache.shape], clean),
      fit_epsilon: float32(released, epsilon),
      ...loop.feeds(indices, at),
    };
  };
  let step = trainer.state().step;
  let recentTask = context.task;
  let smooth = context.task;
  let calmest = Number.POSITIVE_INFINITY;
  const checkpoint = async (drawn: FitRandomState): Promise<void> => {
    const start = Object.fromEntries([...weights].map(([name, value]) => [name, value.data]));
    const state = trainer.state();
    await hooks.onCheckpoint?.({
      settings,
      shape: cache.shape,
      phase,
      trainer: state,
      start,
      random: drawn,
      task: recentTask,
      ...(hooks.now ? { seconds: (hooks.now() - context.started) / 1000 } : {}),
    });
  };
  const every = hooks.checkpointEvery ?? Number.POSITIVE_INFINITY;
  /** The batches of one run, which ends where a checkpoint is due. */
  const nextRun = (from: number): Record<string, Tensor>[] => {
    const until = Math.min(from + perRun, steps, (Math.floor(from / every) + 1) * every);
    return Array.from({ length: until - from }, (_, i) => nextBatch(from + i));
  };
  let batches = nextRun(step);
  while (step < steps) {
    // One more run is made after an interruption, so that there is a state to keep.
    const stop = hooks.signal?.aborted ?? false;
    const until = step + batches.length;
    const due = until % every === 0;
    const running = trainer.steps(batches, stop || due || until === steps);
    const drawn = random.state();
    // The next batches are assembled while the engine works; an engine in a thread of its own makes both at once.
    batches = nextRun(until);
    for (const { loss, reports } of await running) {
      step++;
      const task = Number(reports.fit_task?.data[0]);
      recentTask = step === 1 ? task : recentTask + (task - recentTask) / Math.min(step, Math.max(1, steps / 20));
      smooth += (task - smooth) * (step === 1 ? 1 : 1 - DIVERGENCE_MEMORY);
      if (step > steps * DIVERGENCE_FROM) {
        calmest = Math.min(calmest, smooth);
        if (smooth > DIVERGENCE_FACTOR * Math.max(calmest, 1)) {
          throw new ScrimError(
            'DIVERGED',
            `the fit diverged in its ${phase} at step ${step} of ${steps}: the task loss rose from ${calmest.toFixed(2)} to ` +
              `${smooth.toFixed(2)}; a smaller learning rate than ${settings.learningRate} may help`,
          );
        }
      }
      const nats = Number(reports.fit_nats?.data[0]);
      hooks.onProgress?.({ phase, step: before + step, steps: pushSteps + recoverSteps, loss, task, nats });
    }
    if (stop || due) await checkpoint(drawn);
    if (stop) {
      throw new ScrimError(
        'CANCELLED',
        `the fit was interrupted after ${before + step} of ${pushSteps + recoverSteps} steps`,
      );
    }
  }
  return recentTask;
}

function checkResume(
  { settings: saved, shape }: BottleneckCheckpoint,
  settings: Required<BottleneckFitSettings>,
  cache: ActivationCache,
): void {
  for (const [name, wanted] of Object.entries(settings)) {
    const found = saved[name as keyof BottleneckFitSettings];
    assertArgument(found === wanted, `the checkpoint was made with ${name} ${found}, this fit asks for ${wanted}`);
  }
  assertArgument(
    String(shape) === String(cache.shape),
    `the checkpoint is for activations of [${shape.join(', ')}], these have [${cache.shape.join(', ')}]`,
  );
}
