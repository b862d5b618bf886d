/**
 * A bottleneck transform in a bundle: its weights as files, and the two halves of a model with the networks attached.
 *
 *   trusted/encoder.safetensors    encoder, moments of the activation, architecture
 *   weights/remote.safetensors     expansion and the tail's trained weights
 *
 * Weights are stored in 16 bits, and head and remote model are always made from what is stored, so that a complete bundle
 * and one that is completed later from its model compute the same. The head then ends in h₀ and the remote model begins
 * with h; what happens in between, the release of h₀, is that of any diagonal transform.
 */
import { ScrimError } from '../errors.js';
import {
  addEncoder,
  addExpansion,
  BOTTLENECK_BOUND,
  type BottleneckArchitecture,
  type BottleneckWeights,
  ENCODER_KINDS,
} from '../noise/fit/bottleneck-model.js';
import { toHalf } from '../noise/release.js';
import type { Dimension, Graph, ValueType } from '../onnx/index.js';
import { float32, halfToNumber, sizeOf, type Tensor, tensor } from '../tensor.js';
import { decodeSafetensors, encodeSafetensors } from './safetensors.js';

/** Path of the encoder. */
export const ENCODER_PATH = 'trusted/encoder.safetensors';
/** Path of the weights of the remote half. */
export const REMOTE_WEIGHTS_PATH = 'weights/remote.safetensors';
/** Name of h₀: output of the head, input of the tail. */
export const BOTTLENECK_VALUE = 'bottleneck';

/** Everything a fit learned but the noise. */
export interface BottleneckParts {
  readonly architecture: BottleneckArchitecture;
  /** Of encoder and expansion. */
  readonly weights: BottleneckWeights;
  /** The tail's trained weights, by the name of the initializer. */
  readonly tailWeights: ReadonlyMap<string, Tensor<'float32'>>;
}

/** The two files by path. Weights are rounded to float16. */
export function encodeBottleneck(parts: BottleneckParts): Map<string, Uint8Array> {
  const { architecture, weights, tailWeights } = parts;
  const { encoder, channels, inputChannels, spatialRank, mean, deviation } = architecture;
  const trusted = new Map<string, Tensor>([
    ['mean', float32([inputChannels], mean)],
    ['deviation', float32([inputChannels], deviation)],
  ]);
  const remote = new Map<string, Tensor>();
  for (const [name, value] of weights) (name.startsWith('encoder.') ? trusted : remote).set(name, toFloat16(value));
  for (const [name, value] of tailWeights) remote.set(`tail.${name}`, toFloat16(value));
  const metadata = {
    format: 'scrim-bottleneck',
    encoder,
    channels: String(channels),
    spatialRank: String(spatialRank),
    bound: String(BOTTLENECK_BOUND),
  };
  return new Map([
    [ENCODER_PATH, encodeSafetensors({ tensors: trusted, metadata })],
    [REMOTE_WEIGHTS_PATH, encodeSafetensors({ tensors: remote, metadata: { format: 'scrim-bottleneck-remote' } })],
  ]);
}

/** The parts that two files hold. @throws ScrimError INVALID_BUNDLE for files of another kind. */
export function decodeBottleneck(encoderBytes: Uint8Array, remoteBytes: Uint8Array): BottleneckParts {
  const trusted = decodeSafetensors(encoderBytes);
  const remote = decodeSafetensors(remoteBytes);
  const { format, encoder, channels, spatialRank, bound } = trusted.metadata;
  const kind = ENCODER_KINDS.find((known) => known === encoder);
  if (format !== 'scrim-bottleneck' || remote.metadata.format !== 'scrim-bottleneck-remote' || !kind) {
    throw new ScrimError(
      'INVALID_BUNDLE',
      `'${ENCODER_PATH}' or '${REMOTE_WEIGHTS_PATH}' holds no bottleneck transform`,
    );
  }
  if (Number(bound) !== BOTTLENECK_BOUND) {
    throw new ScrimError('INVALID_BUNDLE', `the encoder is bounded by ${bound}, expected ${BOTTLENECK_BOUND}`);
  }
  const weights = new Map<string, Tensor<'float32'>>();
  const tailWeights = new Map<string, Tensor<'float32'>>();
  for (const [name, value] of [...trusted.tensors, ...remote.tensors]) {
    if (name.startsWith('tail.')) tailWeights.set(name.slice('tail.'.length), fromFloat16(name, value));
    else if (/^(encoder|expansion)\./.test(name)) weights.set(name, fromFloat16(name, value));
  }
  const moments = ['mean', 'deviation'].map((name) => trusted.tensors.get(name));
  const [mean, deviation] = moments;
  if (mean?.dtype !== 'float32' || deviation?.dtype !== 'float32') {
    throw new ScrimError('INVALID_BUNDLE', `'${ENCODER_PATH}' has no moments of the activation`);
  }
  const architecture: BottleneckArchitecture = {
    encoder: kind,
    channels: Number(channels),
    inputChannels: mean.data.length,
    spatialRank: Number(spatialRank),
    mean: mean.data as Float32Array,
    deviation: deviation.data as Float32Array,
  };
  return { architecture, weights, tailWeights };
}

/** A copy of `head` that goes on to make {@link BOTTLENECK_VALUE}, of `shape`, from its output `cut`. */
export function attachEncoder(
  head: Graph,
  cut: string,
  { architecture, weights }: BottleneckParts,
  shape: readonly Dimension[],
): Graph {
  const graph = head.clone();
  addEncoder(graph, cut, architecture, weights, BOTTLENECK_VALUE);
  graph.setOutputs(graph.outputNames.filter((name) => name !== cut));
  graph.addOutput(BOTTLENECK_VALUE, 'float32', shape);
  graph.prune();
  return graph;
}

/**
 * A copy of `tail` with the trained weights and the expansion in front: it takes {@link BOTTLENECK_VALUE} instead of `cut`.
 * @throws ScrimError INVALID_BUNDLE if the weights do not fit the tail
 */
export function attachExpansion(
  tail: Graph,
  cut: string,
  { architecture, weights, tailWeights }: BottleneckParts,
): Graph {
  const type = tail.declaredType(cut);
  if (type?.shape?.length !== architecture.spatialRank + 2 || !tail.isInput(cut)) {
    throw new ScrimError(
      'INVALID_BUNDLE',
      `the bottleneck reads activations of rank ${architecture.spatialRank + 2}, '${cut}' has rank ${type?.shape?.length}`,
    );
  }
  const graph = tail.clone();
  for (const [name, value] of tailWeights) {
    const current = graph.initializer(name);
    if (current === undefined || String(current.shape) !== String(value.shape)) {
      throw new ScrimError('INVALID_BUNDLE', `'${REMOTE_WEIGHTS_PATH}' has a weight '${name}' that the tail has not`);
    }
    graph.setInitializer(name, value);
  }
  const [batch = '', , ...spatial] = type.shape;
  const shape = [batch, architecture.channels, ...spatial];
  const others = graph.inputNames.filter((name) => name !== cut);
  const types = others.map((name) => ({ name, type: graph.declaredType(name) as ValueType }));
  graph.addInput(BOTTLENECK_VALUE, 'float32', shape);
  graph.replaceUses(cut, addExpansion(graph, BOTTLENECK_VALUE, architecture, weights).output);
  graph.setInputs([{ name: BOTTLENECK_VALUE, type: { dtype: 'float32', shape } }, ...types]);
  return graph;
}

function toFloat16({ shape, data }: Tensor<'float32'>): Tensor<'float16'> {
  const bits = new Uint32Array(Float32Array.from(data).buffer);
  return tensor(
    'float16',
    shape,
    Uint16Array.from(bits, (value) => toHalf(value)),
  );
}

function fromFloat16(name: string, value: Tensor): Tensor<'float32'> {
  if (value.dtype !== 'float16' || value.data.length !== sizeOf(value.shape)) {
    throw new ScrimError('INVALID_BUNDLE', `'${name}' is ${value.dtype}, expected float16`);
  }
  return float32(
    value.shape,
    Float32Array.from(value.data as Uint16Array, (bits) => halfToNumber(bits)),
  );
}
