/**
 * The two small networks of the bottleneck transform, as parts of ONNX graphs.
 *
 * Trusted side: z̃ = (z − μ_c)/s_c with moments of the fitting inputs, f = encoder(z̃), h₀ = B·tanh(f/B): k channels,
 * bounded by construction. h₀ is what the diagonal release adds noise to, with a σ of its own per channel.
 * Remote side: ẑ = D(h)·s_c + μ_c in front of the tail.
 *   linear  1×1 C→k
 *   mlp     3×3 C→64, ReLU, 1×1 64→k
 *   deep    3×3 C→48, ReLU, 3×3 48→48, ReLU, 1×1 48→k
 *   D       3×3 k→128, ReLU, 1×1 128→C
 * Activations of rank 4 take two-dimensional convolutions, of rank 3 one-dimensional ones, vectors matrix products.
 */
import type { Graph } from '../../onnx/index.js';
import { float32, scalar, type Tensor } from '../../tensor.js';
import type { FitRandom } from './fit-random.js';

/** How deep the encoder is. */
export type EncoderKind = 'linear' | 'mlp' | 'deep';

/** Every kind of encoder. */
export const ENCODER_KINDS: readonly EncoderKind[] = ['linear', 'mlp', 'deep'];

/** |h₀| never exceeds this. */
export const BOTTLENECK_BOUND = 3;

/** Shape of the two networks, and the moments of the activation they are normalised by. */
export interface BottleneckArchitecture {
  readonly encoder: EncoderKind;
  /** Channels k that are released. */
  readonly channels: number;
  /** Channels C of the cut activation. */
  readonly inputChannels: number;
  /** Dimensions of the activation after the channels: 2 for [C, H, W], 0 for [C]. */
  readonly spatialRank: number;
  /** [C]: mean and standard deviation by channel. */
  readonly mean: Float32Array;
  readonly deviation: Float32Array;
}

/** Weights by name; those of the encoder start with 'encoder.', those of the expansion with 'expansion.'. */
export type BottleneckWeights = ReadonlyMap<string, Tensor<'float32'>>;

interface Layer {
  readonly name: string;
  readonly from: number;
  readonly to: number;
  readonly kernel: number;
  readonly relu: boolean;
}

const MLP_WIDTH = 64;
const DEEP_WIDTH = 48;
const EXPANSION_WIDTH = 128;

function encoderLayers({ encoder, channels, inputChannels }: BottleneckArchitecture): Layer[] {
  const hidden = (name: string, from: number, to: number): Layer => ({ name, from, to, kernel: 3, relu: true });
  const last = (from: number): Layer => ({ name: LAST_LAYER, from, to: channels, kernel: 1, relu: false });
  switch (encoder) {
    case 'linear':
      return [last(inputChannels)];
    case 'mlp':
      return [hidden('encoder.first', inputChannels, MLP_WIDTH), last(MLP_WIDTH)];
    case 'deep':
      return [
        hidden('encoder.first', inputChannels, DEEP_WIDTH),
        hidden('encoder.second', DEEP_WIDTH, DEEP_WIDTH),
        last(DEEP_WIDTH),
      ];
  }
}

/** Name of the encoder's last layer, which a fit rescales before it starts. */
export const LAST_LAYER = 'encoder.last';

function expansionLayers({ channels, inputChannels }: BottleneckArchitecture): Layer[] {
  return [
    { name: 'expansion.first', from: channels, to: EXPANSION_WIDTH, kernel: 3, relu: true },
    { name: 'expansion.last', from: EXPANSION_WIDTH, to: inputChannels, kernel: 1, relu: false },
  ];
}

/** He-normal weights and zero biases. */
export function initialBottleneckWeights(architecture: BottleneckArchitecture, random: FitRandom): BottleneckWeights {
  const weights = new Map<string, Tensor<'float32'>>();
  for (const layer of [...encoderLayers(architecture), ...expansionLayers(architecture)]) {
    const { shape, taps } = weightShape(layer, architecture.spatialRank);
    const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
    random.normal(data);
    const scale = Math.sqrt((layer.relu ? 2 : 1) / (layer.from * taps));
    weights.set(
      `${layer.name}.weight`,
      float32(
        shape,
        data.map((value) => value * scale),
      ),
    );
    weights.set(`${layer.name}.bias`, float32([layer.to], new Float32Array(layer.to)));
  }
  return weights;
}

function weightShape({ from, to, kernel }: Layer, spatialRank: number): { shape: number[]; taps: number } {
  if (spatialRank === 0) return { shape: [from, to], taps: 1 };
  const window = Array.from({ length: spatialRank }, () => kernel);
  return { shape: [to, from, ...window], taps: kernel ** spatialRank };
}

/** A part that was added to a graph. */
export interface AddedNetwork {
  readonly output: string;
  /** Value before the bound is applied (encoder), or the output itself. */
  readonly raw: string;
  /** Initializer of each weight. */
  readonly initializers: ReadonlyMap<string, string>;
}

/** Adds the encoder behind the value `cut` [N, C, …]; its output h₀ is [N, k, …]. */
export function addEncoder(
  graph: Graph,
  cut: string,
  architecture: BottleneckArchitecture,
  weights: BottleneckWeights,
  output?: string,
): AddedNetwork {
  const { mean, deviation } = architecture;
  const centred = graph.add('Sub', [cut, channelConstant(graph, 'encoder.mean', mean, architecture)]);
  const inverse = deviation.map((value) => 1 / value);
  const normalised = graph.add('Mul', [centred, channelConstant(graph, 'encoder.scale', inverse, architecture)]);
  const { value, initializers } = addLayers(graph, normalised, encoderLayers(architecture), architecture, weights);
  const bound = graph.addInitializer('encoder.bound', scalar(BOTTLENECK_BOUND));
  const squashed = graph.add('Tanh', [graph.add('Div', [value, bound])]);
  const bounded = graph.add('Mul', [squashed, bound], {}, output === undefined ? {} : { outputs: [output] });
  return { output: bounded, raw: value, initializers };
}

/** Adds the expansion behind the value `released` [N, k, …]; its output is [N, C, …], in units of the activation. */
export function addExpansion(
  graph: Graph,
  released: string,
  architecture: BottleneckArchitecture,
  weights: BottleneckWeights,
): AddedNetwork {
  const { mean, deviation } = architecture;
  const { value, initializers } = addLayers(graph, released, expansionLayers(architecture), architecture, weights);
  const scaled = graph.add('Mul', [value, channelConstant(graph, 'expansion.scale', deviation, architecture)]);
  const output = graph.add('Add', [scaled, channelConstant(graph, 'expansion.mean', mean, architecture)]);
  return { output, raw: value, initializers };
}

function addLayers(
  graph: Graph,
  from: string,
  layers: readonly Layer[],
  { spatialRank }: BottleneckArchitecture,
  weights: BottleneckWeights,
): { value: string; initializers: Map<string, string> } {
  const initializers = new Map<string, string>();
  const constant = (name: string): string => {
    const added = graph.addInitializer(name, weights.get(name) as Tensor);
    initializers.set(name, added);
    return added;
  };
  let value = from;
  for (const { name, kernel, relu } of layers) {
    const [weight, bias] = [constant(`${name}.weight`), constant(`${name}.bias`)];
    if (spatialRank === 0) {
      value = graph.add('Add', [graph.add('MatMul', [value, weight]), bias]);
    } else {
      const kernel_shape = Array.from({ length: spatialRank }, () => kernel);
      const pads = Array.from({ length: 2 * spatialRank }, () => (kernel - 1) / 2);
      value = graph.add('Conv', [value, weight, bias], { kernel_shape, pads });
    }
    if (relu) value = graph.add('Relu', [value]);
  }
  return { value, initializers };
}

function channelConstant(
  graph: Graph,
  name: string,
  values: Float32Array,
  { spatialRank }: BottleneckArchitecture,
): string {
  const shape = [1, values.length, ...Array.from({ length: spatialRank }, () => 1)];
  return graph.addInitializer(name, float32(shape, values));
}
