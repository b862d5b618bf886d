/**
 * The decoder that attackers train: release -> picture, as an ONNX graph with named weights, and its loss.
 *
 *   [release, features of the remote half, each channel normalised]
 *   -> 3 × (conv3×3 128, GELU)
 *   -> per stage: conv3×3 -> 4c, pixel shuffle ×2, GELU, conv3×3 -> c, GELU       c = 96, 64, 32, 32, …
 *   -> conv3×3 -> 3
 *
 * Loss: MSE of pixels in units of 128 grey levels − 0.2·SSIM of the same, centred (Wang et al. 2004, 11×11 Gaussian of σ 1.5, as a separable
 * convolution). Everything is written in operators that the WebGPU provider has kernels for, forward and backward.
 */
import { ScrimError } from '../errors.js';
import { CENTRED_UNIT, PHOTO_COLOUR } from '../metrics/index.js';
import type { FitRandom } from '../noise/fit/fit-random.js';
import type { Graph } from '../onnx/index.js';
import { float32, scalar } from '../tensor.js';
import type { AttackData } from './attack.js';
import type { RemoteFeature } from './decoder-features.js';
import { addSampleSums } from './sample-sums.js';

/** Names of what a decoder's graph is fed. */
export const DECODER_RELEASE = 'release';
/** 1/√n for the mean of n releases, one value a sample: [N, 1, 1, 1]. */
export const DECODER_LEVEL = 'level';
/** The decoder's answer: [N, 3, H, W], 0 to 1, not clamped. */
export const DECODER_PICTURE = 'picture';

/** Layers and widths of a decoder. */
export interface DecoderPlan {
  /** [C, H, W] of the release. */
  readonly shape: AttackData['shape'];
  readonly features: readonly RemoteFeature[];
  readonly trunkLayers: number;
  readonly trunkWidth: number;
  /** Width after each doubling of the size. */
  readonly stageWidths: readonly number[];
  /** True if the decoder is told how many releases were averaged. */
  readonly conditioned: boolean;
}

/** How large a decoder is made. */
export interface DecoderSize {
  /** Default 3. */
  readonly trunkLayers?: number;
  /** Default 128. */
  readonly trunkWidth?: number;
  /** By stage; the last one serves the stages beyond. Default 96, 64, 32. */
  readonly stageWidths?: readonly number[];
  /** Multiplies every width, for capacity sweeps. Default 1. */
  readonly capacity?: number;
}

/** Plans a decoder for `data`. @throws ScrimError UNSUPPORTED if the pictures are no power of two times the release */
export function planDecoder(
  data: Pick<AttackData, 'shape' | 'picture'>,
  features: readonly RemoteFeature[],
  size: DecoderSize = {},
  conditioned = false,
): DecoderPlan {
  const { trunkLayers = 3, trunkWidth = 128, stageWidths = [96, 64, 32], capacity = 1 } = size;
  const [, height, width] = data.shape;
  const stages = Math.log2(data.picture.width / width);
  if (!Number.isInteger(stages) || stages < 0 || data.picture.height !== height * 2 ** stages) {
    throw new ScrimError(
      'UNSUPPORTED',
      `pictures of ${data.picture.width}×${data.picture.height} are no power of two times a release of ${width}×${height}`,
    );
  }
  const scaled = (channels: number): number => Math.max(1, Math.round(channels * capacity));
  return {
    shape: data.shape,
    features,
    trunkLayers,
    trunkWidth: scaled(trunkWidth),
    stageWidths: Array.from({ length: stages }, (_, i) => scaled(stageWidths[i] ?? stageWidths.at(-1) ?? 32)),
    conditioned,
  };
}

/** Channels that the decoder sees: release, features, level. */
export function decoderInputChannels(plan: DecoderPlan): number {
  return plan.shape[0] + plan.features.reduce((sum, { channels }) => sum + channels, 0);
}

/** A weight of a decoder by name, with its shape. */
type Layer = readonly [name: string, inputs: number, outputs: number];

function layers(plan: DecoderPlan): Layer[] {
  const list: Layer[] = [];
  let width = decoderInputChannels(plan) + (plan.conditioned ? 1 : 0);
  for (let i = 0; i < plan.trunkLayers; i++) {
    list.push([`decoder/trunk${i}`, width, plan.trunkWidth]);
    width = plan.trunkWidth;
  }
  for (const [i, c] of plan.stageWidths.entries()) {
    list.push([`decoder/up${i}`, width, 4 * c], [`decoder/stage${i}`, c, c]);
    width = c;
  }
  list.push(['decoder/picture', width, 3]);
  return list;
}

/** Weights by initializer name. */
export type DecoderWeights = Readonly<Record<string, Float32Array>>;

/** Fresh weights: normal with variance 2/fan-in (He et al. 2015), biases 0; the last layer a tenth of that. */
export function initialDecoderWeights(plan: DecoderPlan, random: FitRandom): Record<string, Float32Array> {
  const weights: Record<string, Float32Array> = {};
  for (const [name, inputs, outputs] of layers(plan)) {
    const values = new Float32Array(outputs * inputs * 9);
    random.normal(values);
    const sd = Math.sqrt(2 / (inputs * 9)) * (name === 'decoder/picture' ? 0.1 : 1);
    for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * sd;
    weights[`${name}/weight`] = values;
    weights[`${name}/bias`] = new Float32Array(outputs);
  }
  return weights;
}

/** What release and features are centred and scaled by, and the mean colour of the pictures. */
export interface DecoderNormalization {
  /** By element: [channels, H, W]. */
  readonly mean: Float32Array;
  /** By channel, > 0. */
  readonly deviation: Float32Array;
  /** Red, green, blue in [0, 1]. */
  readonly colour: readonly [number, number, number];
}

/**
 * A copy of the remote half that takes releases of `shape` under the name {@link DECODER_RELEASE}; its other
 * computations are pruned once outputs are set.
 * @param batch a number, or the name of a symbolic dimension
 */
export function attackerGraph(remote: Graph, shape: AttackData['shape'], batch: number | string): Graph {
  const graph = remote.clone();
  const [input = ''] = graph.inputNames;
  if (input !== DECODER_RELEASE) graph.renameValue(input, DECODER_RELEASE);
  // Declared types inside the graph may name another batch.
  graph.proto.valueInfo = [];
  graph.setInputs([{ name: DECODER_RELEASE, type: { dtype: 'float32', shape: [batch, ...shape] } }]);
  return graph;
}

/** Adds a decoder to a graph of {@link attackerGraph}; returns the name of the picture, [N, 3, H, W] in 0 to 1. */
export function addDecoder(
  graph: Graph,
  plan: DecoderPlan,
  weights: DecoderWeights,
  normalization: DecoderNormalization,
  batch: number | string,
): string {
  const constant = (name: string, value: number): string => graph.addInitializer(name, scalar(value));
  const vector = (name: string, values: ArrayLike<number>): string =>
    graph.addInitializer(name, float32([1, values.length, 1, 1], Float32Array.from(values)));
  const [half, one, root] = [constant('half', 0.5), constant('one', 1), constant('sqrt_half', Math.SQRT1_2)];
  const gelu = (x: string): string => {
    const twice = graph.add('Add', [graph.add('Erf', [graph.add('Mul', [x, root])]), one]);
    return graph.add('Mul', [graph.add('Mul', [x, half]), twice]);
  };
  const shapes = new Map(layers(plan).map(([name, inputs, outputs]) => [name, [outputs, inputs, 3, 3]]));
  const conv = (x: string, name: string): string => {
    const shape = shapes.get(name) as number[];
    const weight = graph.addInitializer(`${name}/weight`, float32(shape, weights[`${name}/weight`] as Float32Array));
    const bias = graph.addInitializer(
      `${name}/bias`,
      float32([shape[0] as number], weights[`${name}/bias`] as Float32Array),
    );
    return graph.add('Conv', [x, weight, bias], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
  };

  const seen = [DECODER_RELEASE, ...plan.features.map(({ name }) => name)];
  const joined = seen.length === 1 ? DECODER_RELEASE : graph.add('Concat', seen, { axis: 1 });
  const [, height, width] = plan.shape;
  const mean = graph.addInitializer(
    'decoder_mean',
    float32([1, decoderInputChannels(plan), height, width], normalization.mean),
  );
  const centred = graph.add('Sub', [joined, mean]);
  let value = graph.add('Mul', [
    centred,
    vector(
      'decoder_scale',
      normalization.deviation.map((sd) => 1 / sd),
    ),
  ]);
  if (plan.conditioned) {
    graph.addInput(DECODER_LEVEL, 'float32', [batch, 1, 1, 1]);
    const plane = graph.addInitializer(
      'decoder_plane',
      float32([1, 1, height, width], new Float32Array(height * width).fill(1)),
    );
    value = graph.add('Concat', [value, graph.add('Mul', [DECODER_LEVEL, plane])], { axis: 1 });
  }
  for (let i = 0; i < plan.trunkLayers; i++) value = gelu(conv(value, `decoder/trunk${i}`));
  for (let i = 0; i < plan.stageWidths.length; i++) {
    value = gelu(graph.add('DepthToSpace', [conv(value, `decoder/up${i}`)], { blocksize: 2, mode: 'CRD' }));
    value = gelu(conv(value, `decoder/stage${i}`));
  }
  const raw = conv(value, 'decoder/picture');
  // Pixels are learned as (x − mean)/128; 0 to 1 here.
  const scaled = graph.add('Mul', [raw, constant('decoder_range', 128 / 255)]);
  return graph.add('Add', [scaled, vector('decoder_colour', normalization.colour)], {}, { outputs: [DECODER_PICTURE] });
}

/** What a decoder is trained to lower. */
export type DecoderLoss = 'mse-ssim' | 'mse' | 'ssim';

/** Weight of SSIM in 'mse-ssim'. */
export const SSIM_WEIGHT = 0.2;
/** Side of the smallest picture that has an SSIM. */
const WINDOW = 11;

/**
 * Adds the loss of `picture` against the input 'target' ([batch, 3, H, W], 0 to 1), which is added too. Pictures smaller
 * than the window of SSIM are trained on squared error.
 * @returns name of the loss, a scalar
 */
export function addDecoderLoss(
  graph: Graph,
  picture: string,
  size: { readonly width: number; readonly height: number },
  batch: number,
  kind: DecoderLoss,
): string {
  graph.addInput('target', 'float32', [batch, 3, size.height, size.width]);
  const difference = graph.add('Sub', [picture, 'target']);
  const mse = addMean(graph, graph.add('Mul', [difference, difference]), [batch, 3, size.height, size.width]);
  const weighted = (value: string, weight: number): string =>
    graph.add('Mul', [value, graph.addInitializer('decoder_weight', scalar(weight))]);
  const grey = weighted(mse, (255 / 128) ** 2);
  if (kind === 'mse' || Math.min(size.width, size.height) < WINDOW) {
    return grey;
  }
  const colour = graph.addInitializer(
    'decoder_photo_colour',
    float32(
      [1, 3, 1, 1],
      Float32Array.from(PHOTO_COLOUR, (level) => level / 255),
    ),
  );
  const unit = graph.addInitializer('decoder_unit', scalar(255 / CENTRED_UNIT));
  const centre = (value: string): string => graph.add('Mul', [graph.add('Sub', [value, colour]), unit]);
  const ssim = addSsim(graph, centre(picture), centre('target'), size, batch);
  return kind === 'ssim' ? weighted(ssim, -1) : graph.add('Sub', [grey, weighted(ssim, SSIM_WEIGHT)]);
}

/** Mean SSIM of two batches [batch, 3, H, W] of values of range 1, over the places where the window fits. */
function addSsim(
  graph: Graph,
  a: string,
  b: string,
  size: { readonly width: number; readonly height: number },
  batch: number,
): string {
  const density = Array.from({ length: WINDOW }, (_, i) => Math.exp(-((i - 5) ** 2) / (2 * 1.5 ** 2)));
  const total = density.reduce((sum, value) => sum + value, 0);
  const kernel = Float32Array.from(density, (value) => value / total);
  const across = graph.addInitializer('ssim_across', float32([1, 1, 1, WINDOW], kernel));
  const down = graph.addInitializer('ssim_down', float32([1, 1, WINDOW, 1], kernel));
  // Colour channels are compared one by one: they become samples of one channel.
  const planes = graph.addInitializer('ssim_planes', {
    dtype: 'int64',
    shape: [4],
    data: BigInt64Array.from([batch * 3, 1, size.height, size.width], BigInt),
  });
  const [x, y] = [graph.add('Reshape', [a, planes]), graph.add('Reshape', [b, planes])];
  const filter = (value: string): string =>
    graph.add('Conv', [graph.add('Conv', [value, across], { kernel_shape: [1, WINDOW] }), down], {
      kernel_shape: [WINDOW, 1],
    });
  const multiply = (p: string, q: string): string => graph.add('Mul', [p, q]);
  const add = (p: string, q: string): string => graph.add('Add', [p, q]);
  const subtract = (p: string, q: string): string => graph.add('Sub', [p, q]);
  const [meanX, meanY] = [filter(x), filter(y)];
  const squares = add(multiply(meanX, meanX), multiply(meanY, meanY));
  const product = multiply(meanX, meanY);
  // σx² and σy² occur as a sum only.
  const variances = subtract(filter(add(multiply(x, x), multiply(y, y))), squares);
  const covariance = subtract(filter(multiply(x, y)), product);
  const two = graph.addInitializer('ssim_two', scalar(2));
  const c1 = graph.addInitializer('ssim_c1', scalar(0.01 ** 2));
  const c2 = graph.addInitializer('ssim_c2', scalar(0.03 ** 2));
  const numerator = multiply(add(multiply(product, two), c1), add(multiply(covariance, two), c2));
  const denominator = multiply(add(squares, c1), add(variances, c2));
  const inner = [batch * 3, size.height - WINDOW + 1, size.width - WINDOW + 1];
  return addMean(graph, graph.add('Div', [numerator, denominator]), inner);
}

/** The mean of `value`, of `shape`: a scalar. */
function addMean(graph: Graph, value: string, shape: readonly number[]): string {
  const size = shape.slice(1).reduce((product, dimension) => product * dimension, 1);
  return graph.add('ReduceMean', [addSampleSums(graph, value, shape, 1 / size)], { keepdims: 0 });
}
