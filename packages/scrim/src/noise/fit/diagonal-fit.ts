/**
 * Fitting a diagonal transform: gradient-based perturbation maximisation after the model is trained (Cloak, WWW 2021;
 * TR-4928), with three changes that were measured to help.
 *
 *   z' = clamp(m ⊙ z + μ + σ ⊙ ε),  m = e^γ,  μ = (1 − m)·c + δ·s,  σ = s·e^ρ
 *
 * c and s are mean and standard deviation of the channel over the fitting inputs; γ, δ, ρ are learned, per channel or
 * per element. The privacy term is the diagonal Gaussian bound itself, mean ½ ln(1 + m²λ/σ²) = mean ½ softplus(2γ − 2ρ),
 * so what is trained is what is certified. The gain m (Cloak's mask, made continuous) and the clamp to the public range of
 * the clean activation come after or beside the noise and let the unchanged tail see less of it for the same bound.
 *
 *   loss = task + w·(α/(1 − α))^p · privacy
 *
 * α in [0, 1) as in TR-4928; w and p are constants. One artefact per α; σ is never rescaled afterwards. Head and tail are
 * frozen, each sample of a batch has its own ε, gradients come from autodiff/ and run on the engine.
 */
import { adam, addGradients, cosineDecay, type OptimizerState } from '../../autodiff/index.js';
import type { Engine, Session } from '../../engine/engine.js';
import { assertArgument, ScrimError } from '../../errors.js';
import { type Graph, raiseOpset } from '../../onnx/index.js';
import { float32, scalar, type Tensor } from '../../tensor.js';
import { type DiagonalParameters, MIN_SIGMA } from '../diagonal.js';
import { natsPerPosition } from '../information-bound.js';
import type { ActivationCache } from './activation-cache.js';
import type { FitRandom, FitRandomState } from './fit-random.js';
import { addTaskLoss, type FitTask } from './task-loss.js';

/** Weight of the privacy term at α = ½. */
export const PRIVACY_WEIGHT = 2.4;

/** How steeply the privacy weight follows the odds α/(1 − α). */
export const PRIVACY_EXPONENT = 0.5;

/** Smallest σ over the channel's clean standard deviation. */
const MIN_RELATIVE_SIGMA = 1e-3;

/** What a transform takes, and a little more, since σ is kept in single precision. A channel that hardly varies ends here. */
const LEAST_SIGMA = 1.001 * MIN_SIGMA;

/** Channels that tell less than this many nats per element are suppressed: sent as a constant, or not at all. */
export const SUPPRESSION_NATS = 0.02;

/** Weight of the privacy term for an α in [0, 1). Monotone; 0 at 0. @throws ScrimError INVALID_ARGUMENT outside. */
export function privacyWeight(alpha: number): number {
  assertArgument(alpha >= 0 && alpha < 1, `alpha is ${alpha}, expected a number from 0 up to, but not including, 1`);
  return PRIVACY_WEIGHT * (alpha / (1 - alpha)) ** PRIVACY_EXPONENT;
}

/** Settings of a fit; the defaults are those of the shipped artefacts. */
export interface DiagonalFitSettings {
  /** Training weight of privacy against accuracy, in [0, 1). */
  readonly alpha: number;
  /** One parameter per channel (works at any H×W, the default) or per element (fixed shape). */
  readonly granularity?: 'per-channel' | 'per-element';
  /** Default 600. */
  readonly steps?: number;
  /** Default 8. */
  readonly batchSize?: number;
  /** Of Adam, with cosine decay to 0. Default 0.05. */
  readonly learningRate?: number;
  /** Send channels that tell next to nothing as constants. Default true. */
  readonly suppress?: boolean;
}

/** What a step reports. */
export interface FitProgress {
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly task: number;
  /** Bound in nats per input (all positions). */
  readonly nats: number;
}

/** Everything needed to go on with an interrupted fit and get the same result. */
export interface DiagonalFitCheckpoint {
  readonly step: number;
  readonly settings: Required<DiagonalFitSettings>;
  readonly shape: readonly number[];
  /** Parameters and optimizer moments by name. */
  readonly arrays: Readonly<Record<string, Float32Array>>;
  readonly random: FitRandomState;
  readonly task: number;
  /** Seconds spent so far. */
  readonly seconds?: number;
}

/** Result of a fit. */
export interface DiagonalFit {
  readonly parameters: DiagonalParameters;
  readonly settings: Required<DiagonalFitSettings>;
  /** Task loss, averaged over the last 5% of the steps. */
  readonly finalTask: number;
  /** Bound in nats per fitting input. */
  readonly nats: number;
  readonly seconds: number;
}

/** Hooks of a running fit. */
export interface FitHooks {
  readonly onProgress?: (progress: FitProgress) => void;
  /** Stops the fit; `onCheckpoint` is called first. */
  readonly signal?: AbortSignal;
  /** Called every `checkpointEvery` steps and on interruption. */
  readonly onCheckpoint?: (checkpoint: DiagonalFitCheckpoint) => void | Promise<void>;
  readonly checkpointEvery?: number;
  /** Goes on from here. Settings and data must be the same. */
  readonly resume?: DiagonalFitCheckpoint;
  /** Milliseconds from a monotonic clock, to report how long the fit took. */
  readonly now?: () => number;
}

/** A training graph loaded for one tail and one cache; fits several alphas one after the other. */
export interface DiagonalFitter {
  fit(settings: DiagonalFitSettings, random: FitRandom, hooks?: FitHooks): Promise<DiagonalFit>;
  close(): Promise<void>;
}

/** What is fitted on. */
export interface DiagonalFitterOptions {
  readonly engine: Engine;
  readonly tail: Graph;
  readonly task: FitTask;
  readonly cache: ActivationCache;
  readonly granularity?: 'per-channel' | 'per-element';
  readonly batchSize?: number;
}

const PARAMETERS = ['gamma', 'delta', 'rho'] as const;
type ParameterName = (typeof PARAMETERS)[number];
type ParameterArrays = Record<ParameterName, Float32Array>;

/** Builds and loads the training graph. @throws ScrimError UNSUPPORTED if an operator of the tail has no gradient. */
export async function createDiagonalFitter(options: DiagonalFitterOptions): Promise<DiagonalFitter> {
  const { engine, tail, task, cache, granularity = 'per-channel', batchSize = 8 } = options;
  const training = buildTrainingGraph(tail, task, cache, granularity, batchSize);
  const session = await engine.load(training.graph.encode());
  return {
    fit: (settings, random, hooks = {}) => {
      const complete: Required<DiagonalFitSettings> = {
        alpha: settings.alpha,
        granularity: settings.granularity ?? granularity,
        steps: settings.steps ?? 600,
        batchSize: settings.batchSize ?? batchSize,
        learningRate: settings.learningRate ?? 0.05,
        suppress: settings.suppress ?? true,
      };
      assertArgument(
        complete.granularity === granularity && complete.batchSize === batchSize,
        `this fitter was made for ${granularity} parameters and batches of ${batchSize}, asked for ` +
          `${complete.granularity} and ${complete.batchSize}`,
      );
      assertArgument(
        Number.isInteger(complete.steps) && complete.steps > 0,
        `steps is ${complete.steps}, expected an integer > 0`,
      );
      assertArgument(complete.learningRate > 0, `learningRate is ${complete.learningRate}, expected a number > 0`);
      return runFit(session, training, cache, complete, random, hooks);
    },
    close: () => session.close(),
  };
}

interface TrainingGraph {
  readonly graph: Graph;
  readonly gradients: ReadonlyMap<string, string>;
  readonly teacherFeeds: (indices: readonly number[]) => Record<string, Tensor>;
  readonly parameterShape: readonly number[];
  readonly scale: Float32Array;
}

function buildTrainingGraph(
  tail: Graph,
  task: FitTask,
  cache: ActivationCache,
  granularity: 'per-channel' | 'per-element',
  batchSize: number,
): TrainingGraph {
  const graph = tail.clone();
  raiseOpset(graph);
  const [cut, ...more] = graph.inputNames;
  if (cut === undefined || more.length > 0) {
    throw new ScrimError('UNSUPPORTED', `the tail has ${graph.inputNames.length} inputs, expected one`);
  }
  const { shape, statistics } = cache;
  const [channels = 1] = shape;
  const channelShape = [1, channels, ...shape.slice(1).map(() => 1)];
  const parameterShape = granularity === 'per-channel' ? channelShape : [1, ...shape];
  const scale = Float32Array.from(statistics.variance, (variance) => Math.max(Math.sqrt(variance), 1e-6));
  const constant = (name: string, values: Float32Array): string =>
    graph.addInitializer(name, float32(channelShape, values));
  const centre = constant('fit_centre', statistics.mean);
  const deviation = constant('fit_deviation', scale);
  graph.addInput('fit_clean', 'float32', [batchSize, ...shape]);
  graph.addInput('fit_epsilon', 'float32', [batchSize, ...shape]);
  graph.addInput('fit_weight', 'float32', []);
  for (const name of PARAMETERS) graph.addInput(`fit_${name}`, 'float32', parameterShape);

  const gain = graph.add('Exp', ['fit_gamma']);
  const centred = graph.add('Sub', ['fit_clean', centre]);
  const shift = graph.add('Add', [graph.add('Mul', ['fit_delta', deviation]), centre]);
  const sigma = graph.add('Mul', [graph.add('Exp', ['fit_rho']), deviation]);
  const signal = graph.add('Add', [graph.add('Mul', [gain, centred]), shift]);
  const noisy = graph.add('Add', [signal, graph.add('Mul', [sigma, 'fit_epsilon'])]);
  const floored = graph.add('Max', [noisy, constant('fit_low', statistics.low)]);
  const released = graph.add('Min', [floored, constant('fit_high', statistics.high)]);
  graph.replaceUses(cut, released);

  // ½ softplus(2γ − 2ρ), by element, averaged.
  const difference = graph.add('Sub', ['fit_gamma', 'fit_rho']);
  const logSnr = graph.add('Mul', [difference, graph.addInitializer('fit_two', scalar(2))]);
  const nats = graph.add('Mul', [graph.add('Softplus', [logSnr]), graph.addInitializer('fit_half_nat', scalar(0.5))]);
  const privacy = graph.add('ReduceMean', [nats], { keepdims: 0 }, { outputs: ['fit_privacy'] });
  const { loss: taskLoss, feeds } = addTaskLoss(graph, task, cache, batchSize);
  const loss = graph.add('Add', [taskLoss, graph.add('Mul', [privacy, 'fit_weight'])]);

  const gradients = addGradients(graph, {
    loss,
    wrt: PARAMETERS.map((name) => `fit_${name}`),
    inputShapes: { fit_clean: [batchSize, ...shape] },
  });
  const taskOutput = graph.add('Identity', [taskLoss], {}, { outputs: ['fit_task'] });
  graph.setOutputs([taskOutput, privacy, ...gradients.values()]);
  graph.prune({ inputs: true });
  return { graph, gradients, teacherFeeds: feeds, parameterShape, scale };
}

async function runFit(
  session: Session,
  training: TrainingGraph,
  cache: ActivationCache,
  settings: Required<DiagonalFitSettings>,
  random: FitRandom,
  hooks: FitHooks,
): Promise<DiagonalFit> {
  const { steps, batchSize, learningRate } = settings;
  const weight = privacyWeight(settings.alpha);
  const { shape } = cache;
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  const parameterSize = training.parameterShape.reduce((product, dimension) => product * dimension, 1);
  const { now = () => 0 } = hooks;
  const started = now() - 1000 * (hooks.resume?.seconds ?? 0);

  const parameters: ParameterArrays = {
    gamma: new Float32Array(parameterSize),
    delta: new Float32Array(parameterSize),
    rho: new Float32Array(parameterSize).fill(-2),
  };
  const optimizer = adam({ learningRate: cosineDecay(learningRate, steps) });
  let state = optimizer.init(parameters);
  let step = 0;
  let recentTask = 0;
  if (hooks.resume) {
    state = restore(hooks.resume, settings, shape, parameters, state);
    step = state.step;
    recentTask = hooks.resume.task;
    random.restore(hooks.resume.random);
  }
  const checkpoint = (): DiagonalFitCheckpoint => ({
    step,
    settings,
    shape,
    arrays: copyArrays({ ...parameters, ...state.moments }),
    random: random.state(),
    task: recentTask,
    ...(hooks.now ? { seconds: (now() - started) / 1000 } : {}),
  });

  const clean = new Float32Array(batchSize * size);
  const epsilon = new Float32Array(batchSize * size);
  const floor = Math.log(MIN_RELATIVE_SIGMA);
  while (step < steps) {
    if (hooks.signal?.aborted) {
      await hooks.onCheckpoint?.(checkpoint());
      throw new ScrimError('CANCELLED', `the fit was interrupted after ${step} of ${steps} steps`);
    }
    const indices = Array.from({ length: batchSize }, () => random.integer(cache.activations.length));
    indices.forEach((index, i) => {
      clean.set(cache.activations[index] as Float32Array, i * size);
    });
    random.normal(epsilon);
    const outputs = await session.run({
      fit_clean: float32([batchSize, ...shape], clean),
      fit_epsilon: float32([batchSize, ...shape], epsilon),
      fit_weight: scalar(weight),
      ...Object.fromEntries(
        PARAMETERS.map((name) => [`fit_${name}`, float32(training.parameterShape, parameters[name])]),
      ),
      ...training.teacherFeeds(indices),
    });
    const task = Number(outputs.fit_task?.data[0]);
    const privacy = Number(outputs.fit_privacy?.data[0]);
    if (!Number.isFinite(task) || !Number.isFinite(privacy)) {
      throw new ScrimError('DIVERGED', `the fit diverged at step ${step + 1} of ${steps}: task loss ${task}`);
    }
    const gradients = Object.fromEntries(
      PARAMETERS.map((name) => [name, outputs[training.gradients.get(`fit_${name}`) as string]?.data]),
    ) as ParameterArrays;
    state = optimizer.update(parameters, gradients, state);
    const { rho } = parameters;
    for (let i = 0; i < rho.length; i++) if ((rho[i] as number) < floor) rho[i] = floor;
    step++;
    recentTask = step === 1 ? task : recentTask + (task - recentTask) / Math.min(step, Math.max(1, steps / 20));
    hooks.onProgress?.({ step, steps, loss: task + weight * privacy, task, nats: privacy * size });
    if (hooks.onCheckpoint && hooks.checkpointEvery && (step % hooks.checkpointEvery === 0 || step === steps)) {
      await hooks.onCheckpoint(checkpoint());
    }
  }
  const fitted = toDiagonalParameters(parameters, training, cache, settings);
  const positions = size / (shape[0] ?? 1);
  return {
    parameters: fitted,
    settings,
    finalTask: recentTask,
    nats: natsPerPosition(fitted) * positions,
    seconds: (now() - started) / 1000,
  };
}

function copyArrays(arrays: Readonly<Record<string, Float32Array>>): Record<string, Float32Array> {
  return Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, array.slice()]));
}

/** Copies a checkpoint into `parameters` and the moments of `state`. */
function restore(
  checkpoint: DiagonalFitCheckpoint,
  settings: Required<DiagonalFitSettings>,
  shape: readonly number[],
  parameters: ParameterArrays,
  state: OptimizerState,
): OptimizerState {
  for (const [name, wanted] of Object.entries(settings)) {
    const found = checkpoint.settings[name as keyof DiagonalFitSettings];
    assertArgument(found === wanted, `the checkpoint was made with ${name} ${found}, this fit asks for ${wanted}`);
  }
  assertArgument(
    String(checkpoint.shape) === String(shape),
    `the checkpoint is for activations of [${checkpoint.shape.join(', ')}], these have [${shape.join(', ')}]`,
  );
  for (const [name, array] of Object.entries({ ...parameters, ...state.moments })) {
    const saved = checkpoint.arrays[name];
    if (saved?.length !== array.length)
      throw new ScrimError('INVALID_DATA', `the checkpoint lacks the array '${name}'`);
    array.set(saved);
  }
  return { ...state, step: checkpoint.step };
}

function toDiagonalParameters(
  { gamma, delta, rho }: ParameterArrays,
  training: TrainingGraph,
  cache: ActivationCache,
  settings: Required<DiagonalFitSettings>,
): DiagonalParameters {
  const { statistics } = cache;
  const [channels = 1] = cache.shape;
  const perChannel = gamma.length / channels;
  const gain = gamma.map((value) => Math.exp(value));
  const sigma = new Float32Array(gamma.length);
  const mean = new Float32Array(gamma.length);
  for (let i = 0; i < gamma.length; i++) {
    const c = Math.floor(i / perChannel);
    const scale = training.scale[c] as number;
    const centre = statistics.mean[c] as number;
    sigma[i] = Math.max(scale * Math.exp(rho[i] as number), LEAST_SIGMA);
    mean[i] = (1 - (gain[i] as number)) * centre + (delta[i] as number) * scale;
  }
  for (let c = 0; settings.suppress && c < channels; c++) {
    let nats = 0;
    for (let i = c * perChannel; i < (c + 1) * perChannel; i++) {
      nats +=
        0.5 * Math.log1p(((gain[i] as number) ** 2 * (statistics.variance[c] as number)) / (sigma[i] as number) ** 2);
    }
    if (nats / perChannel >= SUPPRESSION_NATS) continue;
    // What the tail saw of such a channel was clamp(μ + m·z̄ + σε): its expectation takes the channel's place.
    for (let i = c * perChannel; i < (c + 1) * perChannel; i++) {
      const location = (mean[i] as number) + (gain[i] as number) * (statistics.mean[c] as number);
      mean[i] = clampedNormalMean(
        location,
        sigma[i] as number,
        statistics.low[c] as number,
        statistics.high[c] as number,
      );
      gain[i] = 0;
    }
  }
  return {
    kind: settings.granularity,
    shape: settings.granularity === 'per-channel' ? [channels] : [...cache.shape],
    gain,
    mean,
    sigma,
    clipLow: statistics.low.slice(),
    clipHigh: statistics.high.slice(),
    variance: statistics.variance.slice(),
  };
}

/** E[min(max(X, low), high)] for X ~ N(μ, σ²), by the midpoint rule over ±8σ (relative error below 1e-4). */
function clampedNormalMean(mu: number, sigma: number, low: number, high: number): number {
  const count = 4000;
  let sum = 0;
  let mass = 0;
  for (let i = 0; i < count; i++) {
    const x = -8 + (16 * (i + 0.5)) / count;
    const density = Math.exp(-0.5 * x * x);
    sum += density * Math.min(Math.max(mu + sigma * x, low), high);
    mass += density;
  }
  return sum / mass;
}
