/**
 * The face recognition network of `@vladmandic/face-api` (MIT) as an ONNX graph: D. E. King's dlib
 * face_recognition_resnet_model_v1, a residual network of 29 convolutions (after K. He et al., "Deep Residual Learning",
 * 2016) that maps a face of 150×150 to 128 numbers.
 *
 * Each convolution is followed by a scale and a shift per channel, which are folded into it. A block that halves the
 * picture adds the average-pooled input, with zeros for the new channels; where its own branch comes out one pixel
 * smaller, zeros are added at the right and at the bottom. Weights are checked for name and shape; pixels are left to
 * face-embedder.ts.
 */
import { ScrimError } from '../errors.js';
import { Graph } from '../onnx/graph.js';
import { expectType, float32, int64, type Tensor } from '../tensor.js';
import { readTfjsWeights, type TfjsLimits } from './tfjs.js';

/** Side of the network's input, in pixels. */
export const FACE_API_SIDE = 150;
/** Numbers in an embedding. */
export const FACE_API_DIMENSIONS = 128;

/** Residual blocks in order: name, channels, side of the input, and whether the block halves the picture. */
const BLOCKS: readonly (readonly [name: string, channels: number, side: number, down: boolean])[] = [
  ['conv32_1', 32, 35, false],
  ['conv32_2', 32, 35, false],
  ['conv32_3', 32, 35, false],
  ['conv64_down', 64, 35, true],
  ['conv64_1', 64, 17, false],
  ['conv64_2', 64, 17, false],
  ['conv64_3', 64, 17, false],
  ['conv128_down', 128, 17, true],
  ['conv128_1', 128, 8, false],
  ['conv128_2', 128, 8, false],
  ['conv256_down', 256, 8, true],
  ['conv256_1', 256, 4, false],
  ['conv256_2', 256, 4, false],
  ['conv256_down_out', 256, 4, true],
];

const fail = (message: string): ScrimError => new ScrimError('INVALID_DATA', `face-api weights: ${message}`);

/**
 * Builds the network from `model/face_recognition_model-weights_manifest.json` (its text) and
 * `model/face_recognition_model.bin` of `@vladmandic/face-api`, opset 17. Input `image` [N, 3, 150, 150] float32, RGB as
 * `FACE_API_SPEC` says; output `embedding` [N, 128], not of unit length. Two photos of one person lie about 0.6 or less
 * apart in Euclidean distance.
 * @throws ScrimError INVALID_DATA if a weight is missing or has another shape; as {@link readTfjsWeights} else.
 */
export function faceEmbedderFromFaceApi(manifest: string, bin: Uint8Array, limits?: Partial<TfjsLimits>): Graph {
  const builder = new Builder(readTfjsWeights(manifest, bin, limits));
  const { graph } = builder;
  graph.addInput('image', 'float32', ['N', 3, FACE_API_SIDE, FACE_API_SIDE]);
  let x = builder.relu(builder.conv('conv32_down', 'image', [3, 32, 7, 2]));
  x = graph.add('MaxPool', [x], { kernel_shape: [3, 3], strides: [2, 2] });
  let channels = 32;
  for (const [name, outputs, side, down] of BLOCKS) {
    x = builder.block(name, x, { inputs: channels, outputs, side, down });
    channels = outputs;
  }
  const pooled = graph.add('Flatten', [graph.add('GlobalAveragePool', [x])], { axis: 1 });
  const fc = graph.addInitializer('fc', builder.weight('fc', [channels, FACE_API_DIMENSIONS]));
  graph.add('MatMul', [pooled, fc], {}, { outputs: ['embedding'] });
  graph.addOutput('embedding', 'float32', ['N', FACE_API_DIMENSIONS]);
  return graph;
}

class Builder {
  readonly graph: Graph = Graph.create({ name: 'face-api-recognition', opset: 17 });

  constructor(private readonly weights: ReadonlyMap<string, Tensor>) {}

  weight(name: string, shape: readonly number[]): Tensor<'float32'> {
    const found = this.weights.get(name);
    if (!found) throw fail(`${name} is missing`);
    if (found.shape.join() !== shape.join()) {
      throw fail(`${name} is [${found.shape.join(', ')}], expected [${shape.join(', ')}]`);
    }
    return expectType(found, 'float32', `face-api weights: ${name}`);
  }

  /** (w∗x + b)·s + t  =  (w·s)∗x + (b·s + t). Kernels come as [k, k, in, out]; no padding where the stride is 2. */
  conv(name: string, input: string, [inputs, outputs, size, stride]: [number, number, number, number]): string {
    const kernel = this.weight(`${name}/conv/filters`, [size, size, inputs, outputs]).data;
    const bias = this.weight(`${name}/conv/bias`, [outputs]).data;
    const scale = this.weight(`${name}/scale/weights`, [outputs]).data;
    const shift = this.weight(`${name}/scale/biases`, [outputs]).data;
    const area = size * size;
    const weight = new Float32Array(kernel.length);
    for (let o = 0; o < outputs; o++) {
      for (let i = 0; i < inputs; i++) {
        for (let k = 0; k < area; k++) {
          weight[(o * inputs + i) * area + k] = kernel[(k * inputs + i) * outputs + o]! * scale[o]!;
        }
      }
    }
    const pad = stride === 1 ? (size - 1) / 2 : 0;
    return this.graph.add(
      'Conv',
      [
        input,
        this.graph.addInitializer(`${name}.weight`, float32([outputs, inputs, size, size], weight)),
        this.graph.addInitializer(
          `${name}.bias`,
          float32(
            [outputs],
            Float32Array.from(bias, (b, o) => b * scale[o]! + shift[o]!),
          ),
        ),
      ],
      { kernel_shape: [size, size], strides: [stride, stride], pads: [pad, pad, pad, pad] },
      { name },
    );
  }

  relu(input: string): string {
    return this.graph.add('Relu', [input]);
  }

  block(
    name: string,
    input: string,
    { inputs, outputs, side, down }: { inputs: number; outputs: number; side: number; down: boolean },
  ): string {
    const first = this.relu(this.conv(`${name}/conv1`, input, [inputs, outputs, 3, down ? 2 : 1]));
    let branch = this.conv(`${name}/conv2`, first, [outputs, outputs, 3, 1]);
    let shortcut = input;
    if (down) {
      shortcut = this.graph.add('AveragePool', [input], { kernel_shape: [2, 2], strides: [2, 2] });
      if (outputs > inputs) shortcut = this.pad(shortcut, [outputs - inputs, 0, 0]);
      const missing = Math.floor(side / 2) - Math.floor((side - 1) / 2);
      if (missing > 0) branch = this.pad(branch, [0, missing, missing]);
    }
    return this.relu(this.graph.add('Add', [branch, shortcut]));
  }

  /** Zeros after the last channel, row and column. */
  private pad(input: string, [channels, rows, columns]: [number, number, number]): string {
    const pads = this.graph.addInitializer('pads', int64([0, 0, 0, 0, 0, channels, rows, columns]));
    return this.graph.add('Pad', [input, pads], { mode: 'constant' });
  }
}
