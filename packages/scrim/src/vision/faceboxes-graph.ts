/**
 * FaceBoxes as an ONNX graph (Zhang et al., "FaceBoxes: A CPU Real-time Face Detector with High Accuracy", 2017):
 * rapidly digested layers with C.ReLU, three inception blocks, two strided stages, detection heads on three scales.
 * Batch norm is folded into the convolutions before, by faceboxes-weights.ts.
 *
 * Two trainings differ in padding and in the pooling of the inception blocks. Padding is explicit in both: k − 1 zeros
 * along an axis, so that a stage of stride s makes ⌈size / s⌉ of any size. TensorFlow's SAME padding puts
 * ⌊(k − s)/2⌋ of them in front, which is exact for inputs whose sides are multiples of 128, as its training had.
 */
import { ScrimError } from '../errors.js';
import { Graph } from '../onnx/graph.js';
import { int64, type Tensor } from '../tensor.js';

/** How a training of FaceBoxes differs from the other. */
export interface FaceBoxesVariant {
  /** Where the k − 1 zeros of a padded axis go: half on each side, or as TensorFlow's SAME. */
  readonly padding: 'symmetric' | 'same';
  /** The pooling in the second branch of the inception blocks. */
  readonly inceptionPool: 'average' | 'max';
}

/** One convolution: weight [out, in, k, k] and bias [out]. */
export interface ConvWeights {
  readonly weight: Tensor<'float32'>;
  readonly bias: Tensor<'float32'>;
}

/** Weights by layer; the layers are those of {@link FACEBOXES_LAYERS}. */
export type FaceBoxesWeights = ReadonlyMap<string, ConvWeights>;

/** Shape of one convolution layer. */
export interface ConvLayer {
  readonly name: string;
  readonly inputs: number;
  readonly outputs: number;
  readonly kernel: number;
  readonly stride: number;
  /** What follows the convolution. */
  readonly activation: 'relu' | 'crelu' | 'none';
}

/** The tensor after the second pooling, [N, 128, H/32, W/32]: where the network is naturally cut. */
export const FACEBOXES_CUT = 'head_activation';

const BLOCKS = ['inception1', 'inception2', 'inception3'] as const;
const DEFAULT_BOXES = [21, 1, 1] as const;
const LEVEL_CHANNELS = [128, 256, 256] as const;

function layer(
  name: string,
  inputs: number,
  outputs: number,
  kernel: number,
  stride = 1,
  activation: ConvLayer['activation'] = 'relu',
): ConvLayer {
  return { name, inputs, outputs, kernel, stride, activation };
}

/** Every convolution of FaceBoxes, in the order in which the graph uses them. */
export const FACEBOXES_LAYERS: readonly ConvLayer[] = [
  layer('conv1', 3, 24, 7, 4, 'crelu'),
  layer('conv2', 48, 64, 5, 2, 'crelu'),
  ...BLOCKS.flatMap((block) => [
    layer(`${block}_branch1`, 128, 32, 1),
    layer(`${block}_branch2`, 128, 32, 1),
    layer(`${block}_branch3_reduce`, 128, 24, 1),
    layer(`${block}_branch3`, 24, 32, 3),
    layer(`${block}_branch4_reduce`, 128, 24, 1),
    layer(`${block}_branch4_middle`, 24, 32, 3),
    layer(`${block}_branch4`, 32, 32, 3),
  ]),
  layer('conv3_1', 128, 128, 1),
  layer('conv3_2', 128, 256, 3, 2),
  layer('conv4_1', 256, 128, 1),
  layer('conv4_2', 128, 256, 3, 2),
  ...DEFAULT_BOXES.flatMap((boxes, level) => [
    layer(`loc${level}`, LEVEL_CHANNELS[level]!, 4 * boxes, 3, 1, 'none'),
    layer(`conf${level}`, LEVEL_CHANNELS[level]!, 2 * boxes, 3, 1, 'none'),
  ]),
];

const LAYERS: ReadonlyMap<string, ConvLayer> = new Map(FACEBOXES_LAYERS.map((item) => [item.name, item]));

/**
 * Builds the network, opset 17. Input `image` [N, 3, H, W] float32; outputs `loc` [N, P, 4] (offsets of centre x,
 * centre y, width, height) and `conf` [N, P, 2] (probabilities of background and face); `conf_logits` before the softmax
 * and {@link FACEBOXES_CUT} are inner values. P is what `countAnchors` says for H and W.
 * @throws ScrimError INVALID_ARGUMENT if a layer's weights are missing or have another shape.
 */
export function buildFaceBoxesGraph(weights: FaceBoxesWeights, variant: FaceBoxesVariant): Graph {
  const builder = new Builder(weights, variant);
  const { graph } = builder;
  graph.addInput('image', 'float32', ['N', 3, 'H', 'W']);

  const digested = builder.creluPool('conv1', 'image', 'pool1');
  let x = builder.creluPool('conv2', digested, FACEBOXES_CUT);
  for (const block of BLOCKS) x = builder.inception(block, x);
  const levels = [x];
  for (const stage of ['conv3', 'conv4']) {
    x = builder.conv(`${stage}_2`, builder.conv(`${stage}_1`, x));
    levels.push(x);
  }

  builder.heads('loc', levels, 4, 'loc');
  const logits = builder.heads('conf', levels, 2, 'conf_logits');
  graph.add('Softmax', [logits], { axis: 2 }, { name: 'conf/Softmax', outputs: ['conf'] });
  graph.addOutput('loc', 'float32', ['N', 'P', 4]);
  graph.addOutput('conf', 'float32', ['N', 'P', 2]);
  return graph;
}

/** Adds layers to a graph; a node is named after what it makes and its operator. */
class Builder {
  readonly graph: Graph = Graph.create({ name: 'faceboxes', opset: 17 });

  constructor(
    private readonly weights: FaceBoxesWeights,
    private readonly variant: FaceBoxesVariant,
  ) {}

  /** A convolution, followed by a ReLU if its layer has one; makes the value `name`. */
  conv(name: string, input: string): string {
    const { activation } = layerNamed(name);
    if (activation !== 'relu') return this.linear(name, input, name);
    return this.node('Relu', [this.linear(name, input, `${name}_linear`)], {}, name);
  }

  /**
   * C.ReLU, relu([x, −x]), then the 3×3 maximum over steps of 2. Maximum, concatenation and ReLU commute; in this order
   * all but the first see a quarter of the values, which takes a fifth off the head's time.
   */
  creluPool(name: string, input: string, output: string): string {
    const positive = this.linear(name, input, `${name}_positive`);
    const negative = this.node('Neg', [positive], {}, `${name}_negative`);
    const pool = { kernel_shape: [3, 3], strides: [2, 2], pads: this.pads(3, 2) };
    const pooled = [positive, negative].map((value) => this.node('MaxPool', [value], pool, `${value}_pool`));
    return this.node('Relu', [this.node('Concat', pooled, { axis: 1 }, `${output}_linear`)], {}, output);
  }

  /** Four branches of 32 channels each, side by side. */
  inception(block: string, input: string): string {
    const pool = { kernel_shape: [3, 3], strides: [1, 1], pads: this.pads(3, 1) };
    const pooled =
      this.variant.inceptionPool === 'max'
        ? this.node('MaxPool', [input], pool, `${block}_pool`)
        : this.node('AveragePool', [input], { ...pool, count_include_pad: 1 }, `${block}_pool`);
    const branches = [
      this.conv(`${block}_branch1`, input),
      this.conv(`${block}_branch2`, pooled),
      this.conv(`${block}_branch3`, this.conv(`${block}_branch3_reduce`, input)),
      this.conv(`${block}_branch4`, this.conv(`${block}_branch4_middle`, this.conv(`${block}_branch4_reduce`, input))),
    ];
    return this.node('Concat', branches, { axis: 1 }, block);
  }

  /** One head on each level, its cells in rows, `numbers` for each box: [N, P, numbers]. */
  heads(kind: string, levels: readonly string[], numbers: number, output: string): string {
    const shape = this.graph.addInitializer(`${kind}_shape`, int64([0, -1, numbers]));
    const flat = levels.map((level, i) => {
      const head = `${kind}${i}`;
      const rows = this.node('Transpose', [this.conv(head, level)], { perm: [0, 2, 3, 1] }, `${head}_rows`);
      return this.node('Reshape', [rows, shape], {}, `${head}_flat`);
    });
    return this.node('Concat', flat, { axis: 1 }, output);
  }

  private linear(name: string, input: string, output: string): string {
    const { inputs, outputs, kernel, stride } = layerNamed(name);
    const found = this.weights.get(name);
    const shape = found?.weight.shape ?? [];
    const expected = [outputs, inputs, kernel, kernel];
    if (!found || shape.join() !== expected.join() || found.bias.shape.join() !== `${outputs}`) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `weights of ${name}: ${found ? `[${shape.join(', ')}]` : 'missing'}, expected [${expected.join(', ')}]`,
      );
    }
    const weight = this.graph.addInitializer(`${name}.weight`, found.weight);
    const bias = this.graph.addInitializer(`${name}.bias`, found.bias);
    const attributes = { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: this.pads(kernel, stride) };
    return this.node('Conv', [input, weight, bias], attributes, output);
  }

  /** ONNX order: begin of each axis, then end of each. */
  private pads(kernel: number, stride: number): number[] {
    const begin = this.variant.padding === 'same' ? Math.floor((kernel - stride) / 2) : (kernel - 1) / 2;
    const clipped = Math.max(begin, 0);
    const end = kernel - 1 - clipped;
    return [clipped, clipped, end, end];
  }

  private node(op: string, inputs: string[], attributes: Record<string, number | number[]>, output: string): string {
    return this.graph.add(op, inputs, attributes, { name: `${output}/${op}`, outputs: [output] });
  }
}

function layerNamed(name: string): ConvLayer {
  const found = LAYERS.get(name);
  if (!found) throw new ScrimError('INTERNAL', `FaceBoxes has no layer ${name}`);
  return found;
}
