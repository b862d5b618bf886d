/**
 * Trains weights of an ONNX graph: forward, backward, clipping, Adam and the moving average are one graph on one engine.
 *
 * The trained initializers lie one after the other in a single vector θ; the graph cuts them out, autodiff/ adds their
 * gradients, and the step is written beside them (Kingma & Ba 2015, no decay; g scaled to a joint norm of at most c):
 *   g ← g·min(1, c/‖g‖);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η·r ⊙ m̂/(√v̂ + ε);  θ̄ ← dθ̄ + (1−d)θ
 * with r a factor per weight. θ, m, v and θ̄ are resident: on WebGPU a step moves only its batch, and what it says is written
 * down there until several steps are read at once, so that none is waited for. Where a run hands the state back to the
 * processor (CUDA), several steps make one run; see {@link stepsPerRun} and loop-graph.ts.
 * What the loss is, which examples a batch holds and when to stop are the caller's.
 */
import { addGradients, constantSchedule, type Schedule } from '../../autodiff/index.js';
import { type Engine, isGpu, type NamedTensors, type Session } from '../../engine/engine.js';
import { assertArgument, ScrimError } from '../../errors.js';
import { type Graph, raiseOpset, type ValueType } from '../../onnx/index.js';
import { allocate, float32, int64, scalar, type Tensor, tensor } from '../../tensor.js';
import { BLOCK, JoinedVector, layOut, type Slot } from './joined-vector.js';
import { LOOP_COUNT, loopGraph } from './loop-graph.js';

/** A weight that is trained. */
export interface TrainedWeight {
  /** Name of a float32 initializer of the graph. */
  readonly name: string;
  /** Factor on the learning rate; default 1. */
  readonly rate?: number;
  /** The scalar that this weight is to make small, where it is not the trainer's loss (an adversary's weights). */
  readonly loss?: string;
}

/** What {@link createNetworkTrainer} trains, and how. */
export interface NetworkTrainerOptions {
  readonly engine: Engine;
  /** Changed by the call: give it a clone. Shapes of inputs must be fixed, here or in `inputShapes`. */
  readonly graph: Graph;
  /** The scalar to make small. */
  readonly loss: string;
  readonly weights: readonly TrainedWeight[];
  /** Further values that each step returns under their names. */
  readonly reports?: readonly string[];
  readonly inputShapes?: Readonly<Record<string, readonly number[]>>;
  /** Of Adam; a number or a schedule over the steps of this trainer. Default 0.001. */
  readonly learningRate?: number | Schedule;
  /** Defaults 0.9 and 0.99. */
  readonly beta1?: number;
  readonly beta2?: number;
  readonly epsilon?: number;
  /** Joint Euclidean norm gradients are scaled down to; default 5. */
  readonly clipNorm?: number;
  /** Decay d of the moving average, in [0, 1); default 0.998. */
  readonly average?: number;
  /**
   * True where {@link NetworkTrainer.steps} is to take several steps before anything is heard of them: in a loop of the
   * graph or, on WebGPU, in runs that leave loss, norm and `reports` there, of one element each. Default false.
   */
  readonly loop?: boolean;
}

/** What a step says. */
export interface TrainingStep {
  /** Steps taken, this one included. */
  readonly step: number;
  readonly loss: number;
  /** ‖g‖ before clipping. */
  readonly gradientNorm: number;
  readonly reports: Readonly<Record<string, Tensor>>;
}

/** Everything a trainer remembers: plain arrays, each of the values of all weights, one after the other. */
export interface TrainerState {
  readonly step: number;
  readonly weights: Float32Array;
  readonly first: Float32Array;
  readonly second: Float32Array;
  readonly average: Float32Array;
}

/** A training graph on an engine. Steps must not overlap. */
export interface NetworkTrainer {
  /** Number of trained values. */
  readonly size: number;
  /**
   * Takes one step on a batch: `feeds` are the graph's own inputs. With `keep` the state is brought to the processor too
   * (some milliseconds), so that {@link weights} and {@link state} can be read after it.
   * @throws ScrimError DIVERGED if the loss or the gradient is no finite number; the state is lost then.
   */
  step(feeds: NamedTensors, keep?: boolean): Promise<TrainingStep>;
  /** Takes a step on each batch; with `keep` the state after the last one is kept. @throws as {@link step} does. */
  steps(batches: readonly NamedTensors[], keep?: boolean): Promise<TrainingStep[]>;
  /**
   * The trained weights by name: as they are, or their moving average.
   * @throws ScrimError INVALID_ARGUMENT unless the last step was kept, or none was taken.
   */
  weights(which?: 'current' | 'average'): Map<string, Tensor<'float32'>>;
  /** The state, to go on from later, bit for bit. @throws ScrimError INVALID_ARGUMENT as {@link weights} does. */
  state(): TrainerState;
  /** Goes on from a state. @throws ScrimError INVALID_DATA if it is of another size. */
  restore(state: TrainerState): void;
  close(): Promise<void>;
}

/** How many steps are worth asking for at once where `engine` computes; 1 where that gains nothing. */
export function stepsPerRun(engine: Pick<Engine, 'executionProvider'>): number {
  return isGpu(engine) ? GPU_STEPS : 1;
}

/** The state's way is then a small part of a run, and the batches of one run still a small part of a GPU's memory. */
const GPU_STEPS = 8;

const STATE = ['weights', 'first', 'second', 'average'] as const;
type StateName = (typeof STATE)[number];

/** Vectors are joined and cut this many at a time: WebGPU promises a kernel eight buffers, one of them the whole. */
const WIDTH = { webgpu: 7, others: 32 };

/**
 * Builds and loads the training graph.
 * @throws ScrimError INVALID_ARGUMENT for a weight that is no float32 initializer; UNSUPPORTED if an operator between
 * a weight and the loss has no gradient.
 */
export async function createNetworkTrainer(options: NetworkTrainerOptions): Promise<NetworkTrainer> {
  const {
    engine,
    learningRate = 0.001,
    beta1 = 0.9,
    beta2 = 0.99,
    epsilon = 1e-8,
    reports = [],
    loop = false,
  } = options;
  const schedule = typeof learningRate === 'number' ? constantSchedule(learningRate) : learningRate;
  const built = buildTrainingGraph(options, beta1, beta2);
  const resident = Object.fromEntries(STATE.map((name) => [`train_${name}`, `train_next_${name}`]));
  const collected = ['train_loss', 'train_norm', ...reports];
  const mode = !loop ? 'single' : engine.executionProvider === 'webgpu' ? 'log' : 'loop';
  if (mode === 'log') {
    addLog(built.graph, collected);
    resident.train_log = 'train_next_log';
  }
  built.graph.setOutputs([...(mode === 'log' ? [] : collected), ...Object.values(resident)]);
  built.graph.prune({ inputs: true });
  const graph =
    mode === 'loop'
      ? loopGraph(built.graph, { carried: resident, collected, inputs: stepInputs(built.graph, options) })
      : built.graph;
  const session = await engine.load(graph.encode(), { resident });
  return new GraphTrainer(session, built.slots, built.initial, { schedule, beta1, beta2, epsilon, collected, mode });
}

/** Adds a log of the last {@link GPU_STEPS} steps, the latest last: a row for each, of the values of `names`. */
function addLog(graph: Graph, names: readonly string[]): void {
  const numbers = (list: readonly number[]): string => graph.addInitializer('train_log_numbers', int64(list));
  graph.addInput('train_log', 'float32', [GPU_STEPS, names.length]);
  const one = numbers([1, 1]);
  const row = graph.add(
    'Concat',
    names.map((name) => graph.add('Reshape', [name, one])),
    { axis: 1 },
  );
  const later = graph.add('Slice', ['train_log', numbers([1]), numbers([GPU_STEPS]), numbers([0])]);
  graph.add('Concat', [later, row], { axis: 0 }, { outputs: ['train_next_log'] });
}

/** Element type and shape of what a step is fed. */
function stepInputs(graph: Graph, { inputShapes = {} }: NetworkTrainerOptions): Record<string, ValueType> {
  const state = new Set<string>(STATE.map((name) => `train_${name}`));
  const names = graph.inputNames.filter((name) => !state.has(name) && graph.initializer(name) === undefined);
  return Object.fromEntries(
    names.map((name) => {
      const { dtype, shape } = graph.declaredType(name) ?? { dtype: 'float32', shape: undefined };
      return [name, { dtype, shape: inputShapes[name] ?? shape }];
    }),
  );
}

interface TrainingGraph {
  readonly graph: Graph;
  readonly slots: readonly Slot[];
  readonly initial: Float32Array;
}

function buildTrainingGraph(options: NetworkTrainerOptions, beta1: number, beta2: number): TrainingGraph {
  const { engine, graph, loss, weights, inputShapes = {}, clipNorm = 5, average = 0.998 } = options;
  raiseOpset(graph);
  assertArgument(weights.length > 0, 'weights is empty, expected at least one weight to train');
  assertArgument(clipNorm > 0, `clipNorm is ${clipNorm}, expected a number > 0`);
  for (const [name, value] of Object.entries({ beta1, beta2, average })) {
    assertArgument(value >= 0 && value < 1, `${name} is ${value}, expected a number in [0, 1)`);
  }
  const values = weights.map(({ name }) => {
    const value = graph.initializer(name);
    if (value?.dtype !== 'float32') {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `weight '${name}' is ${value ? value.dtype : 'no initializer of the graph'}, expected a float32 initializer`,
      );
    }
    return value as Tensor<'float32'>;
  });
  const { slots, size } = layOut(weights.map(({ name }, i) => ({ name, shape: values[i]?.shape ?? [] })));
  const initial = new Float32Array(size);
  const rates = new Float32Array(size);
  slots.forEach((slot, i) => {
    initial.set((values[i] as Tensor<'float32'>).data, slot.offset);
    rates.fill(weights[i]?.rate ?? 1, slot.offset, slot.offset + slot.size);
  });

  for (const name of STATE) graph.addInput(`train_${name}`, 'float32', [size]);
  for (const name of ['train_rate', 'train_epsilon']) graph.addInput(name, 'float32', []);
  const constant = (name: string, value: number): string => graph.addInitializer(name, scalar(value));
  const numbers = (name: string, list: readonly number[]): string => graph.addInitializer(name, int64(list));
  const vector = new JoinedVector(
    graph,
    slots,
    size,
    engine.executionProvider === 'webgpu' ? WIDTH.webgpu : WIDTH.others,
  );
  const separate = vector.cut('train_weights');
  const cut = slots.map(({ name, shape }, i) => {
    const weight = graph.add('Reshape', [separate[i] as string, numbers('train_shape', shape)]);
    graph.replaceUses(name, weight);
    return weight;
  });
  const gradients = new Map<string, string>();
  const losses = weights.map((weight) => weight.loss ?? loss);
  for (const objective of new Set(losses)) {
    const wrt = cut.filter((_, i) => losses[i] === objective);
    const target = isGpu(engine) ? engine.executionProvider : 'cpu';
    for (const [weight, gradient] of addGradients(graph, { loss: objective, wrt, inputShapes, target })) {
      gradients.set(weight, gradient);
    }
  }
  const raw = vector.join(cut.map((weight) => gradients.get(weight) as string));

  const rows = graph.add('Reshape', [graph.add('Mul', [raw, raw]), numbers('train_rows', [size / BLOCK, BLOCK])]);
  const squares = reduceSum(graph, reduceSum(graph, rows, 1), 0);
  const norm = graph.add('Sqrt', [squares], {}, { outputs: ['train_norm'] });
  const limit = constant('train_limit', clipNorm);
  const factor = graph.add('Div', [limit, graph.add('Clip', [norm, limit])]);
  const gradient = graph.add('Mul', [raw, factor]);

  // a + (1 − d)(b − a) = d·a + (1 − d)·b.
  const blend = (from: string, to: string, decay: number, output: string): string => {
    const step = graph.add('Mul', [graph.add('Sub', [to, from]), constant('train_share', 1 - decay)]);
    return graph.add('Add', [from, step], {}, { outputs: [output] });
  };
  const first = blend('train_first', gradient, beta1, 'train_next_first');
  const second = blend('train_second', graph.add('Mul', [gradient, gradient]), beta2, 'train_next_second');
  const scaled = graph.add('Div', [first, graph.add('Add', [graph.add('Sqrt', [second]), 'train_epsilon'])]);
  const rate = graph.add('Mul', [graph.addInitializer('train_rates', float32([size], rates)), 'train_rate']);
  const change = graph.add('Mul', [rate, scaled]);
  const next = graph.add('Sub', ['train_weights', change], {}, { outputs: ['train_next_weights'] });
  blend('train_average', next, average, 'train_next_average');
  graph.add('Identity', [loss], {}, { outputs: ['train_loss'] });
  return { graph, slots, initial };
}

/** Sum over one axis, which is dropped. */
function reduceSum(graph: Graph, value: string, axis: number): string {
  const axes = graph.addInitializer('train_axes', int64([axis]));
  return graph.add('ReduceSum', [value, axes], { keepdims: 0 });
}

interface StepSettings {
  readonly schedule: Schedule;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Loss, norm and reports. */
  readonly collected: readonly string[];
  /** How several steps are taken: run by run, in a loop of the graph, or in runs that write a log. */
  readonly mode: 'single' | 'loop' | 'log';
}

type StateArrays = Readonly<Record<StateName, Float32Array>>;

class GraphTrainer implements NetworkTrainer {
  readonly size: number;
  readonly #session: Session;
  readonly #slots: readonly Slot[];
  readonly #settings: StepSettings;
  readonly #length: number;
  /** Arrays that the batches of a run are joined in. */
  readonly #joined = new Map<string, Tensor['data']>();
  #step = 0;
  /** The state on this side, where it is the same as the engine's. */
  #kept: StateArrays | undefined;
  /** True if the engine has to be given the state: at the start, and after a restore. */
  #feed = true;

  constructor(session: Session, slots: readonly Slot[], initial: Float32Array, settings: StepSettings) {
    this.#session = session;
    this.#slots = slots;
    this.#settings = settings;
    this.#length = initial.length;
    this.size = slots.reduce((sum, slot) => sum + slot.size, 0);
    const zeros = new Float32Array(initial.length);
    this.#kept = { weights: initial, first: zeros, second: zeros, average: initial };
  }

  async step(feeds: NamedTensors, keep = false): Promise<TrainingStep> {
    return (await this.steps([feeds], keep))[0] as TrainingStep;
  }

  async steps(batches: readonly NamedTensors[], keep = false): Promise<TrainingStep[]> {
    const { mode } = this.#settings;
    if (mode === 'loop') {
      const joined = stack(
        batches.map((feeds, i) => this.#withScalars(feeds, i)),
        this.#joined,
      );
      return this.#taken(
        await this.#run({ ...joined, [LOOP_COUNT]: int64([batches.length], []) }, true, keep),
        batches,
      );
    }
    const taken: TrainingStep[] = [];
    // A log has room for so many.
    const most = mode === 'log' ? GPU_STEPS : 1;
    for (let from = 0; from < batches.length; from += most) {
      const part = batches.slice(from, from + most);
      let outputs: Record<string, Tensor> = {};
      for (const [i, feeds] of part.entries()) {
        const isLast = i === part.length - 1;
        outputs = await this.#run(this.#withScalars(feeds, i), isLast, keep && from + i === batches.length - 1);
      }
      taken.push(...this.#taken(outputs, part));
    }
    return taken;
  }

  /**
   * A batch with the scalars of the step `ahead` of the next one. With a = 1/(1−β₁ᵗ) and b = 1/√(1−β₂ᵗ), m̂/(√v̂ + ε) is
   * (a/b)·m/(√v + ε/b), so that m and v need no correction of their own.
   */
  #withScalars(feeds: NamedTensors, ahead: number): NamedTensors {
    const { schedule, beta1, beta2, epsilon } = this.#settings;
    const t = this.#step + ahead + 1;
    const root = Math.sqrt(1 - beta2 ** t);
    return {
      ...feeds,
      train_rate: scalar((schedule(t - 1) * root) / (1 - beta1 ** t)),
      train_epsilon: scalar(epsilon * root),
    };
  }

  /** One run; what it says is brought here only if it `tells`. */
  async #run(feeds: NamedTensors, tells: boolean, keep: boolean): Promise<Record<string, Tensor>> {
    const { collected, mode } = this.#settings;
    const given: Record<string, Tensor> = {};
    if (this.#feed) {
      for (const name of STATE) given[`train_${name}`] = float32([this.#length], this.#arrays()[name]);
      const room = [GPU_STEPS, collected.length];
      if (mode === 'log') given.train_log = float32(room, new Float32Array(GPU_STEPS * collected.length));
    }
    const told = mode === 'log' ? ['train_next_log'] : collected;
    const outputs = await this.#session.run(
      { ...feeds, ...given },
      { fetches: [...(tells ? told : []), ...(keep ? STATE.map((name) => `train_next_${name}`) : [])] },
    );
    this.#feed = false;
    this.#kept = keep
      ? (Object.fromEntries(STATE.map((name) => [name, outputs[`train_next_${name}`]?.data])) as StateArrays)
      : undefined;
    return outputs;
  }

  /** The steps on `batches`, from what their run, or the last of their runs, says. */
  #taken(outputs: Readonly<Record<string, Tensor>>, batches: readonly NamedTensors[]): TrainingStep[] {
    const { collected, mode } = this.#settings;
    const log = outputs.train_next_log?.data as Float32Array | undefined;
    return batches.map((_, i) => {
      const row = GPU_STEPS - batches.length + i;
      const [loss, norm, ...reports] = collected.map((name, column) => {
        if (log) return float32([], log.slice(row * collected.length + column, row * collected.length + column + 1));
        const value = outputs[name] as Tensor;
        return mode === 'loop' ? slice(value, i) : value;
      });
      const step = ++this.#step;
      const [lossValue, gradientNorm] = [Number(loss?.data[0]), Number(norm?.data[0])];
      if (!Number.isFinite(lossValue) || !Number.isFinite(gradientNorm)) {
        throw new ScrimError(
          'DIVERGED',
          `the training diverged at step ${step}: loss ${lossValue}, gradient norm ${gradientNorm}`,
        );
      }
      const wanted = reports.map((value, k) => [collected[k + 2] as string, value] as const);
      return { step, loss: lossValue, gradientNorm, reports: Object.fromEntries(wanted) };
    });
  }

  weights(which: 'current' | 'average' = 'current'): Map<string, Tensor<'float32'>> {
    const values = this.#arrays()[which === 'current' ? 'weights' : 'average'];
    return new Map(
      this.#slots.map(({ name, shape, offset, size }) => [name, float32(shape, values.slice(offset, offset + size))]),
    );
  }

  state(): TrainerState {
    const arrays = this.#arrays();
    const inOrder = (name: StateName): Float32Array => {
      const values = new Float32Array(this.size);
      let end = 0;
      for (const { offset, size } of this.#slots) {
        values.set(arrays[name].subarray(offset, offset + size), end);
        end += size;
      }
      return values;
    };
    return {
      step: this.#step,
      weights: inOrder('weights'),
      first: inOrder('first'),
      second: inOrder('second'),
      average: inOrder('average'),
    };
  }

  restore(state: TrainerState): void {
    const laidOut = (name: StateName): Float32Array => {
      if (state[name].length !== this.size) {
        throw new ScrimError(
          'INVALID_DATA',
          `the state has ${state[name].length} values of '${name}', this trainer has ${this.size}`,
        );
      }
      const values = new Float32Array(this.#length);
      let from = 0;
      for (const { offset, size } of this.#slots) {
        values.set(state[name].subarray(from, from + size), offset);
        from += size;
      }
      return values;
    };
    this.#kept = {
      weights: laidOut('weights'),
      first: laidOut('first'),
      second: laidOut('second'),
      average: laidOut('average'),
    };
    this.#feed = true;
    this.#step = state.step;
  }

  close(): Promise<void> {
    return this.#session.close();
  }

  #arrays(): StateArrays {
    if (!this.#kept) {
      throw new ScrimError('INVALID_ARGUMENT', 'the last step was taken without keep, so its state is not at hand');
    }
    return this.#kept;
  }
}

/**
 * Tensors of the same names and shapes, joined along a new first dimension.
 * @param kept arrays of earlier calls by name, which are filled again where they are as long
 */
function stack(batches: readonly NamedTensors[], kept: Map<string, Tensor['data']>): NamedTensors {
  const [like = {}] = batches;
  return Object.fromEntries(
    Object.entries(like).map(([name, { dtype, shape, data }]) => {
      if (batches.length === 1) return [name, tensor(dtype, [1, ...shape], data)];
      const length = batches.length * data.length;
      const found = kept.get(name);
      const joined = found?.length === length ? found : allocate(dtype, length);
      kept.set(name, joined);
      for (const [i, feeds] of batches.entries()) {
        const part = feeds[name]?.data;
        if (part?.length !== data.length) {
          throw new ScrimError(
            'INVALID_ARGUMENT',
            `batch ${i} of a run has ${part?.length ?? 'no'} values of '${name}', the first one has ${data.length}`,
          );
        }
        // No operator with a gradient takes strings.
        (joined as Float32Array).set(part as Float32Array, i * data.length);
      }
      return [name, tensor(dtype, [batches.length, ...shape], joined)];
    }),
  );
}

/** The `i`th part along the first dimension. */
function slice({ dtype, shape, data }: Tensor, i: number): Tensor {
  const size = data.length / (shape[0] ?? 1);
  return tensor(dtype, shape.slice(1), data.slice(i * size, (i + 1) * size) as Tensor['data']);
}
