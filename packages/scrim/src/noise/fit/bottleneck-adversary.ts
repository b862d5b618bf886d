/**
 * The opponent of an adversarial bottleneck fit: a decoder that learns to rebuild small pictures from the release.
 *
 *   r = decoder(h);  its own loss  E‖r − x‖² / E‖x − x̄‖²;  what the encoder makes small  E‖r − x̄‖² / E‖x − x̄‖²
 * with x̄ the mean picture. Three convolutions, then pixel shuffles up to the picture's side; two-dimensional only.
 */
import { ScrimError } from '../../errors.js';
import type { Graph } from '../../onnx/index.js';
import { float32, scalar, type Tensor } from '../../tensor.js';
import type { FitRandom } from './fit-random.js';

/** Pictures [3, size, size] in [0, 1]. */
export interface AdversaryPictures {
  readonly size: number;
  readonly values: readonly Float32Array[];
}

/** A decoder in a training graph. */
export interface PictureDecoder {
  /** Its own loss. */
  readonly loss: string;
  /** What the encoder adds to its loss. */
  readonly gain: string;
  /** Initializers that learn by {@link loss}. */
  readonly weights: readonly string[];
  feeds(indices: readonly number[]): Record<string, Tensor>;
}

const WIDTH = 64;

/**
 * Adds the decoder behind `released` of `shape` [N, k, H, W].
 * @throws ScrimError UNSUPPORTED unless the pictures are a power of two times as large as the release, both ways.
 */
export function addPictureDecoder(
  graph: Graph,
  released: string,
  shape: readonly number[],
  pictures: AdversaryPictures,
  random: FitRandom,
): PictureDecoder {
  const [batch = 1, channels = 1, height = 1, width = 1] = shape;
  const { size, values } = pictures;
  const doublings = Math.log2(size / height);
  if (shape.length !== 4 || height !== width || !Number.isInteger(doublings) || doublings < 0) {
    throw new ScrimError(
      'UNSUPPORTED',
      `an adversary rebuilds ${size}×${size} pictures from releases [${shape.slice(1).join(', ')}]: expected [k, H, H] ` +
        'with the size H times a power of two',
    );
  }
  const weights: string[] = [];
  const conv = (value: string, from: number, to: number): string => {
    const data = new Float32Array(to * from * 9);
    random.normal(data);
    const scale = Math.sqrt(2 / (from * 9));
    const weight = graph.addInitializer(
      'adversary.weight',
      float32(
        [to, from, 3, 3],
        data.map((w) => w * scale),
      ),
    );
    const bias = graph.addInitializer('adversary.bias', float32([to], new Float32Array(to)));
    weights.push(weight, bias);
    return graph.add('Conv', [value, weight, bias], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
  };
  let value = graph.add('Relu', [conv(released, channels, WIDTH)]);
  for (let i = 0; i < 2; i++) value = graph.add('Relu', [conv(value, WIDTH, WIDTH)]);
  for (let i = 0; i < doublings; i++) {
    const shuffled = graph.add('DepthToSpace', [conv(value, WIDTH, 4 * WIDTH)], { blocksize: 2, mode: 'CRD' });
    value = graph.add('Relu', [shuffled]);
  }
  const rebuilt = conv(value, WIDTH, 3);

  const mean = meanPicture(values);
  const variance = spread(values, mean);
  graph.addInput('fit_pictures', 'float32', [batch, 3, size, size]);
  const centre = graph.addInitializer('adversary.mean', float32([1, 3, size, size], mean));
  const target = graph.add('Sub', ['fit_pictures', centre]);
  const scaled = graph.addInitializer('adversary.scale', scalar(1 / variance));
  const meanSquare = (of: string): string =>
    graph.add('Mul', [graph.add('ReduceMean', [graph.add('Mul', [of, of])], { keepdims: 0 }), scaled]);
  // The decoder rebuilds x − x̄, so that ‖r − x̄‖² is the square of its output.
  const loss = meanSquare(graph.add('Sub', [rebuilt, target]));
  const gain = meanSquare(rebuilt);
  return {
    loss,
    gain,
    weights,
    feeds: (indices) => {
      const plane = 3 * size * size;
      const data = new Float32Array(indices.length * plane);
      indices.forEach((index, i) => {
        data.set(values[index] as Float32Array, i * plane);
      });
      return { fit_pictures: float32([indices.length, 3, size, size], data) };
    },
  };
}

function meanPicture(values: readonly Float32Array[]): Float32Array {
  const sum = new Float64Array(values[0]?.length ?? 0);
  for (const picture of values)
    for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (picture[i] as number);
  return Float32Array.from(sum, (total) => total / values.length);
}

function spread(values: readonly Float32Array[], mean: Float32Array): number {
  let squares = 0;
  for (const picture of values) {
    for (let i = 0; i < mean.length; i++) squares += ((picture[i] as number) - (mean[i] as number)) ** 2;
  }
  return Math.max(squares / (values.length * mean.length), 1e-6);
}
