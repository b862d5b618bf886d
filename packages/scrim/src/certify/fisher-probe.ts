/**
 * Hutchinson's estimate of the Fisher information that one release carries about the head's input.
 *
 * The noise is Gaussian with diagonal Σ, so I(x) = JᵀMΣ⁻¹MJ with J the Jacobian of the clipped activation and M the
 * gain, and Tr I = E_u ‖Jᵀ M Σ^(−½) u‖² over random signs u (M. F. Hutchinson, 1990). Each probe is one vector-Jacobian
 * product: our autodiff writes the backward nodes into the head, the engine runs them. For a region only the gradient's
 * values inside it are summed, which is the trace of that block of I. Rounding to the grid in front of the noise is not
 * differentiated.
 */
import { addGradients } from '../autodiff/gradients.js';
import type { Engine } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import type { FitRandom } from '../noise/fit/fit-random.js';
import type { Graph } from '../onnx/graph.js';
import { inferShapes } from '../onnx/shape-inference.js';
import { expectType, float32, type Tensor } from '../tensor.js';

/** What {@link createFisherProbe} needs. */
export interface FisherProbeOptions {
  readonly engine: Engine;
  /** Head of the bundle; not changed. */
  readonly head: Graph;
  readonly input: string;
  readonly cut: string;
  readonly parameters: DiagonalParameters;
  /** [1, …] of the inputs that will be probed. */
  readonly inputShape: readonly number[];
}

/** Estimates Tr I at one input after another. */
export interface FisherProbe {
  /**
   * One unbiased estimate of Tr I(x), and of the trace of its block for each region.
   * @param input float32 of the probe's input shape
   * @param random gives the signs
   * @param regions indices of values of the input
   * @throws ScrimError as the engine
   */
  estimate(input: Tensor, random: FitRandom, regions?: readonly Uint32Array[]): Promise<FisherEstimate>;
  close(): Promise<void>;
}

/** Traces in 1/unit², by value of the input. */
export interface FisherEstimate {
  readonly whole: number;
  readonly regions: readonly number[];
}

/** Writes the backward graph of the head and loads it. @throws ScrimError UNSUPPORTED for an operator without a rule */
export async function createFisherProbe(options: FisherProbeOptions): Promise<FisherProbe> {
  const { engine, input, cut, parameters, inputShape } = options;
  const graph = options.head.clone();
  const shape = inferShapes(graph, { inputShapes: { [input]: inputShape } }).get(cut)?.shape;
  if (!shape?.every((dimension) => typeof dimension === 'number') || shape.length < 2) {
    throw new ScrimError('UNSUPPORTED', `the shape of '${cut}' does not follow from the input's`);
  }
  const cutShape = shape as readonly number[];
  const [, channels = 0] = cutShape;
  assertArgument(
    channels === parameters.shape[0],
    `'${cut}' has ${channels} channels, the transform ${parameters.shape[0]}`,
  );
  const bounds = [1, channels, ...cutShape.slice(2).map(() => 1)];
  const low = graph.addInitializer('certify/clip_low', float32(bounds, parameters.clipLow));
  const high = graph.addInitializer('certify/clip_high', float32(bounds, parameters.clipHigh));
  const weights = graph.addInput('certify/probe', 'float32', cutShape);
  const clipped = graph.add('Min', [graph.add('Max', [cut, low]), high]);
  const loss = graph.add('ReduceSum', [graph.add('Mul', [clipped, weights])], { keepdims: 0 });
  const gradient = addGradients(graph, { loss, wrt: [input], inputShapes: { [input]: inputShape } }).get(
    input,
  ) as string;
  graph.setOutputs([gradient]);
  const session = await engine.load(graph.encode());
  const scale = probeScale(parameters, cutShape);
  return {
    close: () => session.close(),
    estimate: async (value, random, regions = []) => {
      const probe = scale.map((s) => (random.integer(2) === 0 ? s : -s));
      const outputs = await session.run({ [input]: value, [weights]: float32(cutShape, probe) });
      const { data } = expectType(outputs[gradient] as Tensor, 'float32', 'the gradient');
      let whole = 0;
      for (let i = 0; i < data.length; i++) whole += (data[i] as number) ** 2;
      if (!Number.isFinite(whole)) throw new ScrimError('ENGINE_FAILED', 'a gradient of the head is not finite');
      return {
        whole,
        regions: regions.map((indices) => {
          let sum = 0;
          for (const i of indices) sum += (data[i] as number) ** 2;
          return sum;
        }),
      };
    },
  };
}

/** m/σ of every element of one activation; 0 where suppressed. */
function probeScale({ kind, gain, sigma }: DiagonalParameters, shape: readonly number[]): Float32Array {
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  const plane = size / (shape[1] as number);
  return Float32Array.from({ length: size }, (_, at) => {
    const i = kind === 'per-channel' ? Math.floor(at / plane) : at;
    return gain[i] === 0 ? 0 : (gain[i] as number) / (sigma[i] as number);
  });
}
