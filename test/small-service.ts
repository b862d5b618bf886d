/**
 * A small service for tests of the audit: generated pictures of 32×32, a striped disc on stripes, a head of one
 * strided convolution, a noise of chosen size and a remote half. Nothing in it was trained; it runs in milliseconds.
 */
import type { AttackSample, AttackTarget } from '../packages/scrim/src/audit/attack.js';
import { createAttackTarget } from '../packages/scrim/src/audit/attack.js';
import type { Engine } from '../packages/scrim/src/engine/engine.js';
import type { DiagonalParameters } from '../packages/scrim/src/noise/diagonal.js';
import { createFitRandom, type FitRandom } from '../packages/scrim/src/noise/fit/fit-random.js';
import { Graph } from '../packages/scrim/src/onnx/index.js';
import { float32 } from '../packages/scrim/src/tensor.js';

/** Side of a generated picture. */
export const SIDE = 32;
/** Channels of the cut tensor. */
export const CHANNELS = 12;

/** A service whose noise has standard deviation `sigma` in every channel of an activation within ±3. */
export function createSmallService(engine: Engine, sigma: number, hash = 'ab'): Promise<AttackTarget> {
  return createAttackTarget({
    name: `small σ ${sigma}`,
    engine,
    head: smallHead(),
    remote: smallRemote(),
    parameters: smallParameters(sigma),
    bundleHash: hash.repeat(32),
    alpha: 0.5,
  });
}

/** The noise parameters of {@link createSmallService}. */
export function smallParameters(sigma: number): DiagonalParameters {
  const fill = (value: number): Float32Array => new Float32Array(CHANNELS).fill(value);
  return {
    kind: 'per-channel',
    shape: [CHANNELS],
    gain: fill(1),
    mean: fill(0),
    sigma: fill(sigma),
    clipLow: fill(-3),
    clipHigh: fill(3),
    variance: fill(1),
  };
}

/** image [N, 3, H, W] in 0 to 1 -> cut [N, 12, H/2, W/2]: a fixed mixture of each 2×2 patch. */
function smallHead(): Graph {
  const random = createFitRandom('head');
  const graph = Graph.create({ name: 'head' });
  graph.addInput('image', 'float32', ['N', 3, 'H', 'W']);
  const weights = normals(random, CHANNELS * 3 * 4, 0.5);
  for (let c = 0; c < CHANNELS; c++) weights[c * 12 + c] = (weights[c * 12 + c] as number) + 1.5;
  const centred = graph.add('Sub', ['image', graph.addInitializer('half', float32([], [0.5]))]);
  const weight = graph.addInitializer('weight', float32([CHANNELS, 3, 2, 2], weights));
  graph.add('Conv', [centred, weight], { kernel_shape: [2, 2], strides: [2, 2] }, { outputs: ['cut'] });
  graph.addOutput('cut', 'float32', ['N', CHANNELS, '', '']);
  return graph;
}

/** cut -> two convolutions at its size, two branches, one vector of logits. */
function smallRemote(): Graph {
  const random = createFitRandom('remote');
  const graph = Graph.create({ name: 'remote' });
  graph.addInput('INPUT__0', 'float32', ['N', CHANNELS, 'H', 'W']);
  const conv = (x: string, inputs: number, outputs: number, output?: string): string => {
    const weight = graph.addInitializer(
      'weight',
      float32([outputs, inputs, 3, 3], normals(random, outputs * inputs * 9, Math.sqrt(2 / (inputs * 9)))),
    );
    const sum = graph.add('Conv', [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
    return graph.add('Relu', [sum], {}, output === undefined ? {} : { outputs: [output] });
  };
  const stem = conv('INPUT__0', CHANNELS, 16, 'stem');
  const block = graph.add('Concat', [conv(stem, 16, 8), conv(stem, 16, 8)], { axis: 1 }, { outputs: ['block'] });
  const pooled = graph.add('GlobalAveragePool', [conv(block, 16, 10)]);
  const other = graph.add('GlobalAveragePool', [conv(block, 16, 10)]);
  graph.add('Add', [pooled, other], {}, { outputs: ['OUTPUT__0'] });
  graph.addOutput('OUTPUT__0', 'float32', ['N', 10, 1, 1]);
  return graph;
}

/** `count` generated samples; the same for the same seed. */
export function smallSamples(count: number, seed: string): AttackSample[] {
  const random = createFitRandom(`samples ${seed}`);
  return Array.from({ length: count }, (_, n) => smallSample(random, `${seed}-${n}`));
}

function smallSample(random: FitRandom, id: string): AttackSample {
  const plane = SIDE * SIDE;
  const radius = 5 + random.uniform() * 5;
  const [cx, cy] = [radius + random.uniform() * (SIDE - 2 * radius), radius + random.uniform() * (SIDE - 2 * radius)];
  const stripes = (): ((x: number, y: number) => number) => {
    const [angle, period, phase] = [random.uniform() * Math.PI, 6 + random.uniform() * 8, random.uniform()];
    return (x, y) => Math.sin(2 * Math.PI * ((x * Math.cos(angle) + y * Math.sin(angle)) / period + phase));
  };
  const [outside, inside] = [stripes(), stripes()];
  const colours = Array.from({ length: 6 }, () => 0.25 + 0.5 * random.uniform());
  const data = new Uint8Array(plane * 3);
  const input = new Float32Array(3 * plane);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const within = (x - cx) ** 2 + (y - cy) ** 2 < radius ** 2;
      const wave = 0.25 * (within ? inside(x, y) : outside(x, y));
      for (let c = 0; c < 3; c++) {
        const byte = Math.round(255 * ((colours[within ? c : c + 3] as number) + wave));
        data[(y * SIDE + x) * 3 + c] = byte;
        input[c * plane + y * SIDE + x] = byte / 255;
      }
    }
  }
  return {
    id,
    input: float32([1, 3, SIDE, SIDE], input),
    picture: { width: SIDE, height: SIDE, data },
    boxes: [{ x: cx - radius, y: cy - radius, width: 2 * radius, height: 2 * radius }],
  };
}

function normals(random: FitRandom, count: number, sd: number): Float32Array {
  const values = new Float32Array(count);
  random.normal(values);
  return values.map((value) => value * sd);
}
