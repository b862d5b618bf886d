import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { runOnnx } from '../../../../test/run-onnx.js';
import { ScrimError } from '../errors.js';
import { Graph } from '../onnx/graph.js';
import { inferShapes } from '../onnx/shape-inference.js';
import { float32, type Tensor } from '../tensor.js';
import { countAnchors, makeAnchors } from './anchors.js';
import { decodeBoxes } from './boxes.js';
import {
  FACEBOXES_PYTORCH_SPEC,
  FACEBOXES_TFJS_SPEC,
  faceBoxesFromCheckpoint,
  faceBoxesFromTfjs,
} from './faceboxes.js';
import { buildFaceBoxesGraph, FACEBOXES_CUT, FACEBOXES_LAYERS } from './faceboxes-graph.js';
import { weightsFromStateDict } from './faceboxes-weights.js';
import { imageToTensor } from './pixels.js';

const models = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'models');
const json = readFileSync(join(models, 'faceboxes.json'), 'utf8');
const bin = readFileSync(join(models, 'faceboxes.bin'));

/** Numbers in [0, 1) from a name: the same ones that the script behind the vectors drew. */
function drawn(name: string, count: number): Float64Array {
  let state = 2166136261;
  for (const character of name) state = Math.imul(state ^ character.charCodeAt(0), 16777619) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  });
}

/** A state dict with the PyTorch training's names and shapes, and drawn values. */
function drawnStateDict(): Map<string, Tensor> {
  const dict = new Map<string, Tensor>();
  const put = (name: string, shape: number[], value: (u: number) => number): void => {
    const size = shape.reduce((a, b) => a * b, 1);
    dict.set(name, float32(shape, Float32Array.from(drawn(name, size), value)));
  };
  const branches = [
    'branch1x1',
    'branch1x1_2',
    'branch3x3_reduce',
    'branch3x3',
    'branch3x3_reduce_2',
    'branch3x3_2',
    'branch3x3_3',
  ];
  let branch = 0;
  for (const { name, inputs, outputs, kernel } of FACEBOXES_LAYERS) {
    const spread = Math.sqrt(12 / (inputs * kernel * kernel));
    const weight = (u: number): number => (u - 0.5) * spread;
    const head = /^(loc|conf)(\d)$/.exec(name);
    if (head) {
      put(`${head[1]}.${head[2]}.weight`, [outputs, inputs, kernel, kernel], weight);
      put(`${head[1]}.${head[2]}.bias`, [outputs], (u) => u - 0.5);
      continue;
    }
    const inception = /^(inception\d)_/.exec(name);
    const layer = inception ? `${inception[1]}.${branches[branch++ % 7]}` : name;
    put(`${layer}.conv.weight`, [outputs, inputs, kernel, kernel], weight);
    put(`${layer}.bn.weight`, [outputs], (u) => 0.5 + u);
    put(`${layer}.bn.bias`, [outputs], (u) => u - 0.5);
    put(`${layer}.bn.running_mean`, [outputs], (u) => u - 0.5);
    put(`${layer}.bn.running_var`, [outputs], (u) => 0.5 + u);
  }
  return dict;
}

const STATE_DICT = drawnStateDict();
const PYTORCH = { padding: 'symmetric', inceptionPool: 'average' } as const;

describe('FaceBoxes from a PyTorch state dict', () => {
  // Offsets and face probability of some boxes of two pictures, as PyTorch 2.11 gives them for the drawn weights:
  // [picture, box, [offsets, probability]].
  const vectors: [number, number, number[]][] = [
    [0, 0, [-0.166337, 0.312097, 0.416003, 0.585, 0.496636]],
    [0, 1, [-0.236731, 0.609174, 1.038506, 0.864709, 0.572241]],
    [0, 17, [0.649778, 0.06323, 0.008592, -0.427827, 0.469377]],
    [0, 20, [0.117719, 0.417096, 1.253842, 0.099602, 0.229792]],
    [0, 314, [-0.150416, 1.035764, 0.358967, -0.130708, 0.382662]],
    [0, 317, [-0.254586, -0.414814, 0.463859, 0.098821, 0.72628]],
    [0, 320, [0.321442, -0.189574, 0.238327, 0.731486, 0.74957]],
    [1, 5, [0.754464, -0.415108, 0.561203, 0.216522, 0.432731]],
    [1, 100, [-0.062762, 0.275872, 0.231349, -0.333626, 0.442199]],
    [1, 319, [0.146076, -0.098061, 0.244359, 0.681669, 0.724607]],
    [1, 322, [-0.553282, 0.022499, -0.008676, -0.011063, 0.732209]],
  ];
  const image = float32(
    [2, 3, 96, 160],
    Float32Array.from(drawn('image', 2 * 3 * 96 * 160), (u) => 2 * u - 1),
  );

  it.each(['none', 'all'] as const)('gives what PyTorch gives (optimisation: %s)', async (optimize) => {
    const graph = buildFaceBoxesGraph(weightsFromStateDict(STATE_DICT), PYTORCH);
    const { loc, conf } = await runOnnx(graph.encode(), { image }, optimize);
    const boxes = countAnchors(FACEBOXES_PYTORCH_SPEC.anchors, { width: 160, height: 96 });
    expect(loc!.shape).toEqual([2, boxes, 4]);
    expect(conf!.shape).toEqual([2, boxes, 2]);
    for (const [n, i, expected] of vectors) {
      const at = n * boxes + i;
      const got = [
        ...(loc!.data as Float32Array).subarray(4 * at, 4 * at + 4),
        (conf!.data as Float32Array)[2 * at + 1]!,
      ];
      for (let k = 0; k < 5; k++) expect(Math.abs(got[k]! - expected[k]!)).toBeLessThan(2e-5);
    }
  });

  it('finds a prefix that a training left, and names what is missing or of another shape', () => {
    const prefixed = new Map([...STATE_DICT].map(([name, value]) => [`state_dict.module.${name}`, value]));
    expect(weightsFromStateDict(prefixed).size).toBe(FACEBOXES_LAYERS.length);
    const lacking = new Map(STATE_DICT);
    lacking.delete('conv3_2.bn.running_mean');
    expect(() => weightsFromStateDict(lacking)).toThrow('conv3_2.bn.running_mean is missing');
    const misshapen = new Map(STATE_DICT);
    misshapen.set('loc.1.weight', float32([4, 256, 1, 1], new Float32Array(1024)));
    expect(() => weightsFromStateDict(misshapen)).toThrow('loc.1.weight is [4, 256, 1, 1], expected [4, 256, 3, 3]');
    expect(() => weightsFromStateDict(new Map())).toThrow(ScrimError);
    expect(() => faceBoxesFromCheckpoint(bin)).toThrow(ScrimError);
  });

  it('runs at any size, with as many boxes as anchors', async () => {
    const bytes = buildFaceBoxesGraph(weightsFromStateDict(STATE_DICT), PYTORCH).encode();
    for (const [height, width] of [
      [64, 64],
      [70, 131],
      [129, 65],
    ] as const) {
      const { conf } = await runOnnx(bytes, {
        image: float32([1, 3, height, width], new Float32Array(3 * height * width)),
      });
      expect(conf!.shape).toEqual([1, countAnchors(FACEBOXES_PYTORCH_SPEC.anchors, { width, height }), 2]);
    }
  });
});

describe('FaceBoxes from @vladmandic/human', () => {
  const { graph, spec } = faceBoxesFromTfjs(json, bin);
  const size = { width: 256, height: 128 };
  const picture = { ...size, data: new Uint8Array(size.width * size.height * 3) };
  for (let y = 0; y < size.height; y++) {
    for (let x = 0; x < size.width; x++) {
      for (let c = 0; c < 3; c++) {
        const wave = 127.5 + 80 * Math.sin((x + 3 * c) / 9) * Math.cos(y / (7 + c));
        picture.data[3 * (y * size.width + x) + c] = Math.floor(wave + (((x * 7 + y * 13 + c * 5) % 31) - 15) * 2);
      }
    }
  }
  // [box in the TensorFlow graph's order, face probability, offsets y x h w, corners y x y x in pixels], as
  // TensorFlow.js 4.22 gives them for this picture.
  const vectors: [number, number, number[], number[]][] = [
    [0, 0.126991, [0.69564, -0.26391, -0.30991, -1.2604], [1.992, 1.7, 20.79, 17.245]],
    [3, 0.134, [0.32633, -0.33279, -1.07716, -1.37616], [16.144, 1.74, 41.944, 16.929]],
    [12, 0.134911, [0.05615, 0.68366, -0.32588, -1.9865], [0.743, 19.432, 19.481, 40.942]],
    [16, 0.114475, [-0.02431, -0.25263, -0.02889, -1.07621], [0.014, 2.29, 31.83, 28.094]],
    [17, 0.121331, [0.26143, -0.66682, -0.9497, -0.39115], [7.207, 0, 60.138, 28.663]],
    [20, 0.121842, [0.41386, -0.93626, 0.76198, -0.60574], [0, 0, 89.893, 67.949]],
    [291, 0.112217, [0.08369, -0.56077, -0.65831, -1.42522], [4.482, 164.347, 60.589, 212.477]],
    [671, 0.117785, [0.06438, -0.1344, 1.07635, -0.07925], [38.91, 175.554, 128, 254.296]],
    [672, 0.109621, [0.82391, 0.01932, 0.59574, -0.66269], [2.447, 10.237, 128, 150.381]],
    [679, 0.107947, [1.09911, -0.44727, 0.52854, 0.01693], [6.931, 88.574, 128, 249.117]],
    [681, 0.06744, [0.84208, -0.173, 0.55961, -1.19825], [3.199, 22.843, 128, 224.302]],
  ];
  /** Where a box of the TensorFlow graph stands here: it repeats squares x outside, y inside. */
  const ours = (box: number): number => {
    if (box >= 32 * 21) return box;
    const inCell = box % 21;
    const [first, density] = inCell < 16 ? [0, 4] : inCell < 20 ? [16, 2] : [20, 1];
    const repetition = inCell - first;
    return box - inCell + first + (repetition % density) * density + Math.floor(repetition / density);
  };
  let outputs: Record<string, Tensor>;

  beforeAll(async () => {
    graph.addOutput(FACEBOXES_CUT, 'float32', ['N', 128, 'h', 'w']);
    outputs = await runOnnx(graph.encode(), { image: imageToTensor(picture, spec.preprocessing) });
  });

  it('gives what TensorFlow.js gives: activations, probabilities, offsets', () => {
    const cut = outputs[FACEBOXES_CUT]!;
    expect(cut.shape).toEqual([1, 128, 4, 8]);
    expect((cut.data as Float32Array).reduce((a, b) => a + b, 0) / 6161.3517).toBeCloseTo(1, 4);
    for (const [box, probability, [y, x, h, w]] of vectors) {
      const at = ours(box);
      expect((outputs.conf!.data as Float32Array)[2 * at + 1]!).toBeCloseTo(probability, 4);
      const offsets = (outputs.loc!.data as Float32Array).subarray(4 * at, 4 * at + 4);
      [x!, y!, w!, h!].forEach((expected, i) => {
        expect(offsets[i]!).toBeCloseTo(expected, 3);
      });
    }
  });

  it('puts its boxes where TensorFlow.js puts them', () => {
    const anchors = makeAnchors(spec.anchors, size);
    const indices = Uint32Array.from(vectors, ([box]) => ours(box));
    const boxes = decodeBoxes(outputs.loc!.data as Float32Array, anchors, spec.variances, indices);
    vectors.forEach(([, , , [top, left, bottom, right]], k) => {
      const clip = (value: number, side: number): number => Math.min(Math.max(value, 0), side);
      expect(clip(boxes[4 * k]!, 256)).toBeCloseTo(left!, 1);
      expect(clip(boxes[4 * k + 1]!, 128)).toBeCloseTo(top!, 1);
      expect(clip(boxes[4 * k + 2]!, 256)).toBeCloseTo(right!, 1);
      expect(clip(boxes[4 * k + 3]!, 128)).toBeCloseTo(bottom!, 1);
    });
  });

  it('is a graph with symbolic sizes that can be cut after the second pooling', () => {
    const model = Graph.decode(faceBoxesFromTfjs(json, bin).graph.encode());
    expect(model.inputNames).toEqual([spec.input]);
    expect(model.outputNames).toEqual([spec.outputs.offsets, spec.outputs.scores]);
    expect(model.declaredType('image')).toEqual({ dtype: 'float32', shape: ['N', 3, 'H', 'W'] });
    expect(model.producer(spec.cut)?.opType).toBe('Relu');
    const shapes = inferShapes(model);
    expect(shapes.get(spec.cut)?.shape?.slice(0, 2)).toEqual(['N', 128]);
    expect(shapes.get('loc')?.shape).toEqual(['N', expect.anything(), 4]);
  });

  it('refuses a graph that only looks like it', () => {
    for (const [from, to] of [
      ['conv2/Conv2D_weights', 'conv9/Conv2D_weights'],
      [btoa('SAME'), btoa('VALID')],
      ['"4","4","1"', '"2","2","1"'],
    ] as const) {
      const changed = json.replaceAll(from, to);
      expect(changed).not.toBe(json);
      expect(() => faceBoxesFromTfjs(changed, bin)).toThrow(/^FaceBoxes weights: /);
    }
    expect(() => faceBoxesFromTfjs(json, bin.subarray(1))).toThrow(ScrimError);
  });

  it('has a specification that survives JSON', () => {
    for (const item of [FACEBOXES_TFJS_SPEC, FACEBOXES_PYTORCH_SPEC]) {
      expect(JSON.parse(JSON.stringify(item))).toEqual(item);
    }
  });
});
