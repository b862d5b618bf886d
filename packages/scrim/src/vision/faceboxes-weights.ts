/**
 * FaceBoxes weights from two public trainings, brought to one form: batch norm folded into the convolutions, kernels as
 * [out, in, k, k], and the heads' channels in one order (y outside, x inside within a densified size; offsets as
 * centre x, centre y, width, height).
 *
 * Names, strides and fusions of the TensorFlow graph are checked against its nodes before its weights are believed.
 */
import { ScrimError } from '../errors.js';
import { expectType, float32, type Tensor } from '../tensor.js';
import { FACEBOXES_LEVELS } from './anchors.js';
import { type ConvLayer, type ConvWeights, FACEBOXES_LAYERS, type FaceBoxesWeights } from './faceboxes-graph.js';
import type { TfjsModel, TfjsNode } from './tfjs.js';

const BATCH_NORM_EPSILON = 1e-5;

const fail = (message: string): ScrimError => new ScrimError('INVALID_DATA', `FaceBoxes weights: ${message}`);

/** Branch layers of an inception block, in the PyTorch training's names and in the TensorFlow one's. */
const BRANCHES: Readonly<Record<string, readonly [pytorch: string, tensorflow: string]>> = {
  branch1: ['branch1x1', 'conv_1x1_path1'],
  branch2: ['branch1x1_2', 'conv_1x1_path2'],
  branch3_reduce: ['branch3x3_reduce', 'conv_1x1_path3'],
  branch3: ['branch3x3', 'conv_3x3_path3'],
  branch4_reduce: ['branch3x3_reduce_2', 'conv_1x1_path4'],
  branch4_middle: ['branch3x3_2', 'conv_3x3_path4'],
  branch4: ['branch3x3_3', 'conv_3x3_second_path4'],
};

/**
 * Weights of a PyTorch state dict such as FaceBoxesProd.pth (`conv1.conv.weight`, `conv1.bn.running_var`, …); a common
 * prefix, as DataParallel or a training checkpoint adds, is found and dropped.
 * @throws ScrimError INVALID_DATA if a tensor is missing or has another shape.
 */
export function weightsFromStateDict(tensors: ReadonlyMap<string, Tensor>): FaceBoxesWeights {
  const marker = 'conv1.conv.weight';
  const anchors = [...tensors.keys()].filter((name) => name === marker || name.endsWith(`.${marker}`));
  if (anchors.length !== 1) throw fail(`${anchors.length} tensors are named ${marker}, expected 1`);
  const prefix = anchors[0]!.slice(0, -marker.length);
  const get = (name: string, shape: readonly number[]): Float32Array => {
    const found = tensors.get(prefix + name);
    if (found === undefined) throw fail(`${prefix}${name} is missing`);
    if (found.shape.join() !== shape.join()) {
      throw fail(`${prefix}${name} is [${found.shape.join(', ')}], expected [${shape.join(', ')}]`);
    }
    return expectType(found, 'float32', `FaceBoxes weights: ${prefix}${name}`).data;
  };
  return new Map(
    FACEBOXES_LAYERS.map((layer) => {
      const name = stateDictName(layer);
      const shape = [layer.outputs, layer.inputs, layer.kernel, layer.kernel];
      const out = [layer.outputs];
      if (layer.activation === 'none') {
        return [
          layer.name,
          { weight: float32(shape, get(`${name}.weight`, shape)), bias: float32(out, get(`${name}.bias`, out)) },
        ];
      }
      const norm = {
        gamma: get(`${name}.bn.weight`, out),
        beta: get(`${name}.bn.bias`, out),
        mean: get(`${name}.bn.running_mean`, out),
        variance: get(`${name}.bn.running_var`, out),
      };
      return [layer.name, foldBatchNorm(shape, get(`${name}.conv.weight`, shape), norm)];
    }),
  );
}

/** A layer's name in the state dict, without `.conv.weight` and the like. */
function stateDictName({ name }: ConvLayer): string {
  const head = /^(loc|conf)(\d)$/.exec(name);
  if (head) return `${head[1]}.${head[2]}`;
  const branch = /^(inception\d)_(.+)$/.exec(name);
  return branch ? `${branch[1]}.${BRANCHES[branch[2]!]![0]}` : name;
}

/** γ·(w∗x − mean)/√(variance + ε) + β  =  (w·s)∗x + (β − mean·s)  with s = γ/√(variance + ε), per output channel. */
function foldBatchNorm(
  shape: readonly number[],
  kernel: Float32Array,
  norm: { gamma: Float32Array; beta: Float32Array; mean: Float32Array; variance: Float32Array },
): ConvWeights {
  const outputs = shape[0]!;
  const each = kernel.length / outputs;
  const weight = new Float32Array(kernel.length);
  const bias = new Float32Array(outputs);
  for (let o = 0; o < outputs; o++) {
    const scale = norm.gamma[o]! / Math.sqrt(norm.variance[o]! + BATCH_NORM_EPSILON);
    for (let i = o * each; i < (o + 1) * each; i++) weight[i] = kernel[i]! * scale;
    bias[o] = norm.beta[o]! - norm.mean[o]! * scale;
  }
  return { weight: float32(shape, weight), bias: float32([outputs], bias) };
}

/**
 * Weights of the TensorFlow.js graph model `faceboxes.json` of @vladmandic/human.
 * @throws ScrimError INVALID_DATA if a weight is missing, has another shape, or its node has another stride, padding or
 * fusion than FaceBoxes.
 */
export function weightsFromTfjs(model: TfjsModel): FaceBoxesWeights {
  const users = new Map<string, TfjsNode>();
  for (const node of model.nodes.values()) {
    const kernel = node.inputs[1];
    if (kernel !== undefined && /Conv2D$/.test(node.op)) users.set(kernel, node);
  }
  return new Map(
    FACEBOXES_LAYERS.map((layer) => {
      const name = tfjsName(layer);
      const node = users.get(name);
      if (node === undefined) throw fail(`no convolution uses ${name}`);
      checkNode(node, layer);
      const { kernel, inputs, outputs } = layer;
      const weight = floats(model, name, [kernel, kernel, inputs, outputs]);
      const bias = floats(model, node.inputs[2] ?? '', [outputs]);
      return [layer.name, reorder(weight, bias, layer, headOrder(layer))];
    }),
  );
}

/** Name of a layer's kernel in the TensorFlow graph. */
function tfjsName({ name }: ConvLayer): string {
  const head = /^(loc|conf)(\d)$/.exec(name);
  if (head) {
    return `prediction_layers/${head[1] === 'loc' ? 'box_encoding_predictor' : 'class_predictor'}_${head[2]}/weights`;
  }
  const branch = /^(inception\d)_(.+)$/.exec(name);
  return `${branch ? `${branch[1]}/${BRANCHES[branch[2]!]![1]}` : name}/Conv2D_weights`;
}

function checkNode(node: TfjsNode, layer: ConvLayer): void {
  const strides = `1,${layer.stride},${layer.stride},1`;
  const fusions = layer.activation === 'relu' ? 'BiasAdd,Relu' : 'BiasAdd';
  for (const [attribute, expected] of [
    ['strides', strides],
    ['padding', 'SAME'],
    ['data_format', 'NHWC'],
    ['dilations', '1,1,1,1'],
    ['fused_ops', fusions],
  ] as const) {
    const found = String(node.attributes.get(attribute) ?? '');
    if (found !== expected) throw fail(`${layer.name} has another ${attribute} than ${expected}`);
  }
}

function floats(model: TfjsModel, name: string, shape: readonly number[]): Float32Array {
  const found = model.weights.get(name);
  if (found === undefined) throw fail(`${name} is missing`);
  if (found.shape.join() !== shape.join()) {
    throw fail(`${name} is [${found.shape.join(', ')}], expected [${shape.join(', ')}]`);
  }
  return expectType(found, 'float32', `FaceBoxes weights: ${name}`).data;
}

/** Kernel [k, k, in, out] -> [out, in, k, k], with output channel o taken from `order[o]`. */
function reorder(kernel: Float32Array, bias: Float32Array, layer: ConvLayer, order: readonly number[]): ConvWeights {
  const { kernel: size, inputs, outputs } = layer;
  const area = size * size;
  const weight = new Float32Array(kernel.length);
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      for (let k = 0; k < area; k++) {
        weight[(o * inputs + i) * area + k] = kernel[(k * inputs + i) * outputs + order[o]!]!;
      }
    }
  }
  return {
    weight: float32([outputs, inputs, size, size], weight),
    bias: float32(
      [outputs],
      Float32Array.from(order, (from) => bias[from]!),
    ),
  };
}

/**
 * Which channel of the TensorFlow layer becomes each channel here. Its boxes run x outside and y inside within a
 * densified size, and its offsets are y, x, height, width.
 */
function headOrder(layer: ConvLayer): number[] {
  const head = /^(loc|conf)(\d)$/.exec(layer.name);
  if (!head) return Array.from({ length: layer.outputs }, (_, o) => o);
  const numbers = head[1] === 'loc' ? [1, 0, 3, 2] : [0, 1];
  const order: number[] = [];
  let first = 0;
  for (const { density } of FACEBOXES_LEVELS[Number(head[2])]!.squares) {
    for (let y = 0; y < density; y++) {
      for (let x = 0; x < density; x++) {
        const box = first + x * density + y;
        for (const number of numbers) order.push(box * numbers.length + number);
      }
    }
    first += density * density;
  }
  return order;
}
