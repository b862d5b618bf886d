/**
 * A trained decoder as one standalone ONNX model for a demonstration: release -> picture in [0, 1].
 *
 * Weights are stored in 16 bits and cast when the model is loaded, which halves the download; arithmetic stays in
 * 32 bits, so that every runtime runs it. Small constants (scales, normalisation) keep their precision.
 */
import { assertArgument } from '../errors.js';
import { toHalf } from '../noise/release.js';
import type { Graph } from '../onnx/index.js';
import { scalar, type Tensor, tensor } from '../tensor.js';
import { DECODER_PICTURE } from './decoder-graph.js';

/** Name of the exported model's output: [N, 3, H, W], clamped. */
const OUTPUT = 'image';
/** Code of float32 in ONNX. */
const FLOAT = 1;
/** Initializers with fewer elements stay in 32 bits. */
const SMALL = 512;

/**
 * Encodes the decoder in `graph` (as decoder-graph.ts builds it) with a clamped output and 16-bit weights.
 * @throws ScrimError INVALID_ARGUMENT for a weight beyond ±65504
 */
export function encodeDecoder(graph: Graph): Uint8Array {
  const whole = graph.clone();
  const [low, high] = [0, 1].map((value) => whole.addInitializer('decoder_bound', scalar(value)));
  whole.add('Clip', [DECODER_PICTURE, low as string, high as string], {}, { outputs: [OUTPUT] });
  whole.proto.output = [];
  whole.addOutput(OUTPUT, 'float32', ['N', 3, '', '']);
  whole.prune({ inputs: true });
  for (const weight of whole.initializerNames) {
    const value = whole.initializer(weight) as Tensor;
    if (value.dtype !== 'float32' || value.data.length < SMALL) continue;
    const half = whole.addInitializer(`${weight}_half`, toFloat16(value as Tensor as Tensor<'float32'>, weight));
    whole.replaceUses(weight, whole.add('Cast', [half], { to: FLOAT }));
  }
  whole.prune();
  return whole.encode();
}

function toFloat16({ data, shape }: Tensor<'float32'>, name: string): Tensor<'float16'> {
  const bits = new Int32Array(data.slice().buffer);
  const halves = Uint16Array.from(bits, toHalf);
  assertArgument(!halves.some((half) => (half & 0x7c00) === 0x7c00), `weight '${name}' holds values beyond float16`);
  return tensor('float16', shape, halves);
}
