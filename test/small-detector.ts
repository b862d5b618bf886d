/** A detector that tests can make in a moment: bundle, exported repositories, and the plain twin of its selection. */
import { type Bundle, encodeBundle, loadBundle } from '../packages/scrim/src/bundle/bundle.js';
import type { FitRandom } from '../packages/scrim/src/noise/fit/fit-random.js';
import type { NoiseCrypto } from '../packages/scrim/src/noise/noise-crypto.js';
import { Graph } from '../packages/scrim/src/onnx/index.js';
import { float32, int64, type Tensor } from '../packages/scrim/src/tensor.js';
import { testManifest } from './manifest.js';

const CHANNELS = 8;

/**
 * One anchor for every four pixels: a strided convolution as head; boxes `loc` [N, P, 4] and probabilities `conf` [N, P, 2]
 * as tail. With `side` the input's sides are fixed, and so is P.
 */
export async function smallDetector(crypto: NoiseCrypto, random: FitRandom, side?: number): Promise<Bundle> {
  const draw = (length: number, low: number, high: number): Float32Array =>
    Float32Array.from({ length }, () => low + (high - low) * random.uniform());
  const [height, width, count] = side === undefined ? ['h', 'w', 'P'] : [side / 2, side / 2, (side / 2) ** 2];
  const head = Graph.create();
  head.addInput('image', 'float32', ['N', 3, side ?? 'H', side ?? 'W']);
  const kernel = head.addInitializer('kernel', float32([CHANNELS, 3, 2, 2], draw(CHANNELS * 12, -1, 1)));
  const conv = head.add('Conv', ['image', kernel], { kernel_shape: [2, 2], strides: [2, 2] });
  head.add('Relu', [conv], {}, { outputs: ['cut'] });
  head.addOutput('cut', 'float32', ['N', CHANNELS, height, width]);
  const tail = Graph.create();
  tail.addInput('cut', 'float32', ['N', CHANNELS, height, width]);
  const rows = (columns: number): string => {
    const weights = tail.addInitializer('weights', float32([columns, CHANNELS, 1, 1], draw(columns * CHANNELS, -2, 2)));
    const planes = tail.add('Conv', ['cut', weights], { kernel_shape: [1, 1] });
    const flat = tail.add('Reshape', [planes, tail.addInitializer('shape', int64([0, columns, -1]))]);
    return tail.add('Transpose', [flat], { perm: [0, 2, 1] });
  };
  tail.add('Identity', [rows(4)], {}, { outputs: ['loc'] });
  tail.add('Softmax', [rows(2)], { axis: 2 }, { outputs: ['conf'] });
  tail.addOutput('loc', 'float32', ['N', count, 4]);
  tail.addOutput('conf', 'float32', ['N', count, 2]);
  const gain = draw(CHANNELS, 0.8, 1.2);
  gain[2] = 0;
  const files = await encodeBundle(
    {
      head,
      tail,
      parameters: {
        kind: 'per-channel',
        shape: [CHANNELS],
        gain,
        mean: draw(CHANNELS, 0.1, 0.4),
        sigma: draw(CHANNELS, 0.2, 0.4),
        clipLow: new Float32Array(CHANNELS),
        clipHigh: draw(CHANNELS, 3, 5),
        variance: draw(CHANNELS, 0.5, 1),
      },
      manifest: testManifest({
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', CHANNELS, height, width] }] },
        task: { kind: 'detection', scores: 'conf', boxes: 'loc' },
      }),
    },
    crypto,
  );
  return loadBundle(async (path) => files.get(path) as Uint8Array, crypto);
}

/** The files of a repository by model, as a MemoryRepository takes them. */
export function modelsOf(files: ReadonlyMap<string, Uint8Array>): Record<string, Record<string, Uint8Array>> {
  const models: Record<string, Record<string, Uint8Array>> = {};
  for (const [path, bytes] of files) {
    const [name = '', ...rest] = path.split('/');
    models[name] = { ...models[name], [rest.join('/')]: bytes };
  }
  return models;
}

/**
 * What is left of boxes [N, P, D] and scores [N, P, C] when all but the `candidates` strongest anchors of each sample read
 * offsets 0, background 1, objects 0; of equally strong ones that of the lower index stays.
 */
export function keepStrongest(
  boxes: Tensor<'float32'>,
  scores: Tensor<'float32'>,
  candidates: number,
): { readonly boxes: Tensor<'float32'>; readonly scores: Tensor<'float32'>; readonly kept: number[][] } {
  const [samples = 0, anchors = 0, classes = 0] = scores.shape;
  const sides = boxes.shape[2] ?? 0;
  const [left, rated] = [new Float32Array(boxes.data.length), new Float32Array(scores.data.length)];
  const kept = Array.from({ length: samples }, (_, n) => {
    const strength = (anchor: number): number =>
      Math.max(...scores.data.subarray((n * anchors + anchor) * classes + 1, (n * anchors + anchor + 1) * classes));
    const order = Array.from({ length: anchors }, (_, anchor) => anchor);
    return order.sort((a, b) => strength(b) - strength(a) || a - b).slice(0, candidates);
  });
  for (let n = 0; n < samples; n++) {
    for (let anchor = 0; anchor < anchors; anchor++) {
      const row = n * anchors + anchor;
      rated[row * classes] = 1;
      if (!kept[n]?.includes(anchor)) continue;
      left.set(boxes.data.subarray(row * sides, (row + 1) * sides), row * sides);
      rated.set(scores.data.subarray(row * classes, (row + 1) * classes), row * classes);
    }
  }
  return { boxes: float32(boxes.shape, left), scores: float32(scores.shape, rated), kept };
}
