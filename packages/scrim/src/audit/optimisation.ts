/**
 * Attack 2 of the audit: search for the picture that best explains a release, without training anything.
 *
 * Maximum a posteriori with a total-variation prior, as in Mahendran & Vedaldi (2015):
 *   minimise over p   Σᵢ ((releaseᵢ − E[transform(head(p))ᵢ]) / σᵢ)² + w·TV(p)
 * Pixels are a sigmoid of what Adam moves. Of several starts the one that explains the
 * release best is kept; the attacker, who does not see the photo, chooses w on photos of its own.
 */
import { cosineDecay } from '../autodiff/index.js';
import type { Engine } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom, type FitRandom } from '../noise/fit/fit-random.js';
import { createNetworkTrainer, type NetworkTrainer } from '../noise/fit/network-trainer.js';
import type { Graph } from '../onnx/index.js';
import { float32, scalar, type Tensor } from '../tensor.js';
import type { Preprocessing } from '../vision/index.js';
import type { AttackData, AttackHooks, PixelEncoding } from './attack.js';
import {
  buildSearchGraph,
  SEARCH_LOSS,
  SEARCH_OBJECTIVES,
  SEARCH_RELEASE,
  SEARCH_SMOOTHNESS,
  SEARCH_UNKNOWN,
} from './optimisation-graph.js';

/** How a picture is searched for. */
export interface OptimisationSettings {
  /** How pixels become the head's input. */
  readonly encoding: PixelEncoding;
  /** Weight w of total variation; of several, the attacker takes the best on photos of its own. Default 10, 30, 100. */
  readonly smoothness?: readonly number[];
  /** Default 2,000. */
  readonly steps?: number;
  /** Of Adam, with cosine decay to 0; default 0.1. */
  readonly learningRate?: number;
  /** Starts for each release; default 3. */
  readonly restarts?: number;
  /** Searches that run side by side; default 4. 1 for a head whose file fixes the batch. */
  readonly batchSize?: number;
}

/** A picture that was found. */
export interface FoundPicture {
  /** [3, H, W] in [0, 1]. */
  readonly picture: Float32Array;
  /** What it costs: misfit and prior. */
  readonly objective: number;
  /** By how much the objective fell in the last quarter of the steps, as a share of where it ended. */
  readonly lateFall: number;
}

/** Searches for pictures behind releases of one size. */
export interface PictureSearch {
  /** Finds a picture for each release, [C, H, W]. @throws ScrimError CANCELLED if the signal fires, DIVERGED */
  find(releases: readonly Float32Array[], smoothness: number, hooks?: AttackHooks): Promise<FoundPicture[]>;
  close(): Promise<void>;
}

/** What {@link createPictureSearch} needs to know. */
export interface PictureSearchOptions {
  readonly engine: Engine;
  readonly head: Graph;
  readonly parameters: DiagonalParameters;
  /** Sizes of activation, input and picture. */
  readonly data: Pick<AttackData, 'shape' | 'inputShape' | 'picture'>;
  /** Where the search begins: [3, H, W] in [0, 1], such as the mean photo. */
  readonly start: Float32Array;
  readonly settings: OptimisationSettings;
  readonly seed: string;
}

/** How far the starts after the first are from the given one, before the sigmoid. */
const START_SPREAD = 0.5;

/** The encoding of a detector's preprocessing. */
export function pixelEncoding({ order, mean, scale }: Pick<Preprocessing, 'order' | 'mean' | 'scale'>): PixelEncoding {
  return {
    rgb: order === 'rgb' ? [0, 1, 2] : [2, 1, 0],
    black: mean.map((value) => -value * scale),
    white: mean.map((value) => (255 - value) * scale),
  };
}

/**
 * Builds and loads the search: the head, the expectation of its release, the misfit and the prior with their gradients.
 * @throws ScrimError UNSUPPORTED if an operator of the head has no gradient; INVALID_ARGUMENT for wrong settings
 */
export async function createPictureSearch(options: PictureSearchOptions): Promise<PictureSearch> {
  const { engine, data, start, seed } = options;
  const { steps = 2000, learningRate = 0.1, restarts = 3, batchSize = 4 } = options.settings;
  for (const [name, value] of Object.entries({ steps, restarts, batchSize })) {
    assertArgument(Number.isInteger(value) && value > 0, `${name} is ${value}, expected an integer > 0`);
  }
  const pixels = 3 * data.picture.width * data.picture.height;
  assertArgument(start.length === pixels, `the start has ${start.length} values, expected ${pixels}`);
  const graph = buildSearchGraph(options, batchSize);
  const trainer = await createNetworkTrainer({
    engine,
    graph,
    loss: SEARCH_LOSS,
    weights: [{ name: SEARCH_UNKNOWN }],
    reports: [SEARCH_OBJECTIVES],
    learningRate: cosineDecay(learningRate, steps),
    beta2: 0.999,
    clipNorm: Number.MAX_SAFE_INTEGER,
    average: 0,
  });
  const beginning = trainer.state();
  const random = createFitRandom(`optimisation ${seed}`);
  const logits = start.map((value) => {
    const inside = Math.min(0.98, Math.max(0.02, value));
    return Math.log(inside / (1 - inside));
  });
  return {
    async find(releases, smoothness, hooks = {}) {
      const tasks = releases.flatMap((_, index) =>
        Array.from({ length: restarts }, (__, restart) => ({ index, restart })),
      );
      const best: FoundPicture[] = [];
      for (let from = 0; from < tasks.length; from += batchSize) {
        // A last batch that is not full repeats its last task.
        const batch = Array.from({ length: batchSize }, (_, i) => tasks[Math.min(from + i, tasks.length - 1)] as Task);
        const weights = beginning.weights.slice();
        batch.forEach(({ restart }, i) => {
          weights.set(restart === 0 ? logits : spread(logits, random), i * pixels);
        });
        const zeros = new Float32Array(weights.length);
        trainer.restore({ step: 0, weights, first: zeros, second: zeros.slice(), average: weights.slice() });
        const release = new Float32Array(batchSize * (releases[0] as Float32Array).length);
        batch.forEach(({ index }, i) => {
          release.set(releases[index] as Float32Array, i * (release.length / batchSize));
        });
        const found = await search(
          trainer,
          steps,
          {
            [SEARCH_RELEASE]: float32([batchSize, ...data.shape], release),
            [SEARCH_SMOOTHNESS]: scalar(smoothness),
          },
          hooks,
        );
        batch.forEach(({ index }, i) => {
          const objective = found.last[i] as number;
          if (best[index] !== undefined && best[index].objective <= objective) return;
          best[index] = {
            picture: found.unknown.subarray(i * pixels, (i + 1) * pixels).map((value) => 1 / (1 + Math.exp(-value))),
            objective,
            lateFall: ((found.late[i] as number) - objective) / Math.max(Math.abs(objective), 1e-12),
          };
        });
        hooks.onProgress?.({
          attack: 'optimisation',
          done: Math.min(from + batchSize, tasks.length),
          of: tasks.length,
        });
      }
      return best;
    },
    close: () => trainer.close(),
  };
}

interface Task {
  readonly index: number;
  readonly restart: number;
}

async function search(
  trainer: NetworkTrainer,
  steps: number,
  feeds: Parameters<NetworkTrainer['step']>[0],
  hooks: AttackHooks,
): Promise<{ first: Float32Array; late: Float32Array; last: Float32Array; unknown: Float32Array }> {
  const late = Math.floor(steps * 0.75);
  const kept: Float32Array[] = [];
  for (let step = 0; step < steps; step++) {
    if (hooks.signal?.aborted) throw new ScrimError('CANCELLED', 'the search for pictures was interrupted');
    const { reports } = await trainer.step(feeds, step === steps - 1);
    if (step === 0 || step === late || step === steps - 1)
      kept.push(Float32Array.from((reports[SEARCH_OBJECTIVES] as Tensor<'float32'>).data));
  }
  const [first, middle, last] = [kept[0], kept.at(-2) ?? kept[0], kept.at(-1)] as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  return { first, late: middle, last, unknown: trainer.weights().get(SEARCH_UNKNOWN)?.data as Float32Array };
}

function spread(logits: Float32Array, random: FitRandom): Float32Array {
  const noise = new Float32Array(logits.length);
  random.normal(noise);
  return logits.map((value, i) => value + START_SPREAD * (noise[i] as number));
}
