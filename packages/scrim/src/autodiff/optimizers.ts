/**
 * Optimizers over named Float32Arrays: `init` makes a state, `update` takes one step.
 *
 * Adam follows Kingma & Ba (2015) with bias correction, AdamW the decoupled weight decay of Loshchilov & Hutter (2019).
 * A state is a step count and flat arrays, so that saving both and loading them again continues a run bit for bit.
 * Parameters and moments are changed in place; nothing else is kept between calls.
 */
import { assertArgument, ScrimError } from '../errors.js';

/** Parameters, gradients or averages by name. */
export type NamedArrays = Readonly<Record<string, Float32Array>>;

/** Learning rate (or another factor) at a step; the first step is 0. */
export type Schedule = (step: number) => number;

/** What an optimizer remembers. Plain data: `step` and arrays as long as their parameters. */
export interface OptimizerState {
  /** Steps taken. */
  readonly step: number;
  /** Arrays named after their parameter, such as 'weight/first' and 'weight/second' for Adam's moments. */
  readonly moments: NamedArrays;
}

/** A way to change parameters along gradients. */
export interface Optimizer {
  /** A fresh state for these parameters. */
  init(parameters: NamedArrays): OptimizerState;
  /**
   * Takes one step: changes `parameters` and the arrays of `state` in place and returns the state to go on with.
   * Parameters without a gradient stay as they are.
   * @throws ScrimError INVALID_ARGUMENT if a gradient or moment is missing its parameter or has another length.
   */
  update(parameters: NamedArrays, gradients: NamedArrays, state: OptimizerState): OptimizerState;
}

/** Settings of {@link adam}. */
export interface AdamOptions {
  /** A number or a schedule; default 0.001. */
  readonly learningRate?: number | Schedule;
  /** Decay of the first moment, in [0, 1); default 0.9. */
  readonly beta1?: number;
  /** Decay of the second moment, in [0, 1); default 0.999. */
  readonly beta2?: number;
  /** Added to the root of the second moment; default 1e-8. */
  readonly epsilon?: number;
}

/** Settings of {@link adamW}. */
export interface AdamWOptions extends AdamOptions {
  /** Share of each parameter removed per step, times the learning rate; default 0.01. */
  readonly weightDecay?: number;
}

/** Settings of {@link sgd}. */
export interface SgdOptions {
  /** A number or a schedule; default 0.01. */
  readonly learningRate?: number | Schedule;
  /** Decay of the velocity, in [0, 1); default 0, which keeps none. */
  readonly momentum?: number;
}

/** Adam. m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − η·m̂/(√v̂ + ε). */
export function adam(options: AdamOptions = {}): Optimizer {
  return adamW({ ...options, weightDecay: 0 });
}

/** Adam with decoupled weight decay: additionally p ← p − η·λ·p. */
export function adamW(options: AdamWOptions = {}): Optimizer {
  const { learningRate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0.01 } = options;
  assertArgument(beta1 >= 0 && beta1 < 1, `beta1 is ${beta1}, expected a number in [0, 1)`);
  assertArgument(beta2 >= 0 && beta2 < 1, `beta2 is ${beta2}, expected a number in [0, 1)`);
  assertArgument(epsilon >= 0, `epsilon is ${epsilon}, expected a number ≥ 0`);
  assertArgument(weightDecay >= 0, `weightDecay is ${weightDecay}, expected a number ≥ 0`);
  const rate = scheduleOf(learningRate);
  return {
    init: (parameters) => ({ step: 0, moments: zeros(parameters, ['first', 'second']) }),
    update: (parameters, gradients, state) => {
      const eta = rate(state.step);
      const step = state.step + 1;
      const correction1 = 1 - beta1 ** step;
      const correction2 = 1 - beta2 ** step;
      for (const [name, gradient] of Object.entries(gradients)) {
        const parameter = matching(parameters, name, gradient, 'parameter');
        const first = matching(state.moments, `${name}/first`, gradient, 'moment');
        const second = matching(state.moments, `${name}/second`, gradient, 'moment');
        for (let i = 0; i < parameter.length; i++) {
          const g = gradient[i] as number;
          const m = beta1 * (first[i] as number) + (1 - beta1) * g;
          const v = beta2 * (second[i] as number) + (1 - beta2) * g * g;
          first[i] = m;
          second[i] = v;
          const p = parameter[i] as number;
          parameter[i] = p - eta * (m / correction1 / (Math.sqrt(v / correction2) + epsilon) + weightDecay * p);
        }
      }
      return { step, moments: state.moments };
    },
  };
}

/** Gradient descent, with heavy-ball momentum if asked: u ← μu + g, p ← p − η·u. */
export function sgd(options: SgdOptions = {}): Optimizer {
  const { learningRate = 0.01, momentum = 0 } = options;
  assertArgument(momentum >= 0 && momentum < 1, `momentum is ${momentum}, expected a number in [0, 1)`);
  const rate = scheduleOf(learningRate);
  return {
    init: (parameters) => ({ step: 0, moments: momentum === 0 ? {} : zeros(parameters, ['velocity']) }),
    update: (parameters, gradients, state) => {
      const eta = rate(state.step);
      for (const [name, gradient] of Object.entries(gradients)) {
        const parameter = matching(parameters, name, gradient, 'parameter');
        const velocity = momentum === 0 ? undefined : matching(state.moments, `${name}/velocity`, gradient, 'moment');
        for (let i = 0; i < parameter.length; i++) {
          let u = gradient[i] as number;
          if (velocity) {
            u += momentum * (velocity[i] as number);
            velocity[i] = u;
          }
          parameter[i] = (parameter[i] as number) - eta * u;
        }
      }
      return { step: state.step + 1, moments: state.moments };
    },
  };
}

/** The same value at every step. */
export function constantSchedule(value: number): Schedule {
  return () => value;
}

/**
 * Half a cosine from `initial` at step 0 to `final` (default 0) at step `steps`, and `final` from there on.
 * @throws ScrimError INVALID_ARGUMENT if `steps` is not above 0.
 */
export function cosineDecay(initial: number, steps: number, final = 0): Schedule {
  assertArgument(steps > 0, `steps is ${steps}, expected a number > 0`);
  return (step) => final + (initial - final) * 0.5 * (1 + Math.cos(Math.PI * Math.min(1, Math.max(0, step / steps))));
}

/** Settings of {@link warmupFlatCosine}; `warmup` and `flat` are shares of `steps`. */
export interface WarmupFlatCosineOptions {
  /** Steps in all. */
  readonly steps: number;
  /** Share of the steps over which the rate rises from near 0; default 0.04. */
  readonly warmup?: number;
  /** Share of the steps at which the cosine begins; default 0.7. */
  readonly flat?: number;
  /** Where the cosine ends, as a share of the rate; default 0. */
  readonly final?: number;
}

/**
 * Rises linearly to `rate` over the warm-up, stays there, then falls along half a cosine to `final`·`rate`.
 * @throws ScrimError INVALID_ARGUMENT unless steps > 0 and 0 ≤ warmup ≤ flat ≤ 1.
 */
export function warmupFlatCosine(rate: number, options: WarmupFlatCosineOptions): Schedule {
  const { steps, warmup = 0.04, flat = 0.7, final = 0 } = options;
  assertArgument(steps > 0, `steps is ${steps}, expected a number > 0`);
  assertArgument(
    warmup >= 0 && warmup <= flat && flat <= 1,
    `warmup is ${warmup} and flat ${flat}, expected 0 ≤ warmup ≤ flat ≤ 1`,
  );
  const warm = warmup * steps;
  const decay = flat < 1 ? cosineDecay(rate, (1 - flat) * steps, final * rate) : constantSchedule(rate);
  return (step) => {
    if (step + 1 < warm) return (rate * (step + 1)) / warm;
    return step <= flat * steps ? rate : decay(step - flat * steps);
  };
}

/**
 * Scales all gradients, in place, so that their joint Euclidean norm is at most `maxNorm`; returns the norm before.
 * A norm that is not finite leaves them as they are, for the caller to notice.
 */
export function clipByGlobalNorm(gradients: NamedArrays, maxNorm: number): number {
  assertArgument(maxNorm > 0, `maxNorm is ${maxNorm}, expected a number > 0`);
  let squares = 0;
  for (const gradient of Object.values(gradients)) for (const g of gradient) squares += g * g;
  const norm = Math.sqrt(squares);
  if (norm > maxNorm && Number.isFinite(norm)) {
    const factor = maxNorm / norm;
    for (const gradient of Object.values(gradients)) {
      for (let i = 0; i < gradient.length; i++) gradient[i] = (gradient[i] as number) * factor;
    }
  }
  return norm;
}

/** Averages parameters over the steps of a fit. */
export interface ExponentialAverage {
  /** A copy of the parameters to start from. */
  init(parameters: NamedArrays): Record<string, Float32Array>;
  /** average ← decay·average + (1 − decay)·parameters, in place. */
  update(average: NamedArrays, parameters: NamedArrays): void;
}

/** Exponential moving average with `decay` in [0, 1). */
export function exponentialAverage(decay: number): ExponentialAverage {
  assertArgument(decay >= 0 && decay < 1, `decay is ${decay}, expected a number in [0, 1)`);
  return {
    init: (parameters) =>
      Object.fromEntries(Object.entries(parameters).map(([name, values]) => [name, values.slice()])),
    update: (average, parameters) => {
      for (const [name, values] of Object.entries(parameters)) {
        const mean = matching(average, name, values, 'average');
        for (let i = 0; i < mean.length; i++) {
          mean[i] = decay * (mean[i] as number) + (1 - decay) * (values[i] as number);
        }
      }
    },
  };
}

function scheduleOf(rate: number | Schedule): Schedule {
  return typeof rate === 'number' ? constantSchedule(rate) : rate;
}

function zeros(parameters: NamedArrays, kinds: readonly string[]): Record<string, Float32Array> {
  return Object.fromEntries(
    Object.entries(parameters).flatMap(([name, values]) =>
      kinds.map((kind) => [`${name}/${kind}`, new Float32Array(values.length)] as const),
    ),
  );
}

function matching(arrays: NamedArrays, name: string, like: Float32Array, what: string): Float32Array {
  const found = arrays[name];
  if (found?.length !== like.length) {
    const length = found ? `has ${found.length} elements` : 'is missing';
    throw new ScrimError('INVALID_ARGUMENT', `${what} '${name}' ${length}, the gradient has ${like.length}`);
  }
  return found;
}
