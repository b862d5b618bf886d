import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createReconstructionFitter, reconstruct } from '../audit/linear-reconstruction.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { createDiagonalTransform, type DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { createReplayNoiser } from '../noise/release.js';
import { releaseToTensor } from '../noise/release-reader.js';
import { Graph } from '../onnx/graph.js';
import { float32, type Tensor } from '../tensor.js';
import { createFisherProbe } from './fisher-probe.js';
import { regionIndices } from './input-region.js';
import { reconstructionLimit } from './reconstruction-limit.js';

let engine: Engine;
beforeAll(async () => {
  engine = await createNodeEngine({ thread: 'inline', threads: 1 });
});
afterAll(() => engine.close());

function parametersOf(gain: readonly number[], sigma: readonly number[], reach: number): DiagonalParameters {
  const channels = gain.length;
  const fill = (value: number): Float32Array => new Float32Array(channels).fill(value);
  return {
    kind: 'per-channel',
    shape: [channels],
    gain: Float32Array.from(gain),
    mean: fill(0),
    sigma: Float32Array.from(sigma),
    clipLow: fill(-reach),
    clipHigh: fill(reach),
    variance: fill(1),
  };
}

/** A head that is one convolution of `patch`×`patch` with that stride: a linear map of every patch of 3 channels. */
function patchHead(weights: Float32Array, channels: number, patch: number, side: number): Graph {
  const graph = Graph.create();
  graph.addInput('x', 'float32', [1, 3, side, side]);
  const kernel = graph.addInitializer('w', float32([channels, 3, patch, patch], weights));
  const z = graph.add('Conv', ['x', kernel], { strides: [patch, patch] });
  graph.addOutput(z, 'float32', [1, channels, side / patch, side / patch]);
  return graph;
}

function normals(seed: string, length: number, scale = 1): Float32Array {
  const data = new Float32Array(length);
  createFitRandom(seed).normal(data);
  return data.map((value) => value * scale);
}

async function meanTrace(
  head: Graph,
  parameters: DiagonalParameters,
  input: Tensor,
  probes: number,
  regions: Uint32Array[] = [],
): Promise<{ whole: number; regions: number[] }> {
  const cut = head.outputNames[0] as string;
  const probe = await createFisherProbe({ engine, head, input: 'x', cut, parameters, inputShape: input.shape });
  const random = createFitRandom('probes');
  const sum = { whole: 0, regions: regions.map(() => 0) };
  for (let k = 0; k < probes; k++) {
    const { whole, regions: parts } = await probe.estimate(input, random, regions);
    sum.whole += whole / probes;
    sum.regions = sum.regions.map((value, i) => value + (parts[i] as number) / probes);
  }
  await probe.close();
  return sum;
}

describe('Fisher information of a linear head', () => {
  const [channels, patch, side] = [5, 4, 16];
  const weights = normals('weights', channels * 3 * patch * patch, 0.3);
  const gain = [1, 0.5, 2, 0, 1];
  const sigma = [0.5, 1, 2, 1, 0.25];
  const positions = (side / patch) ** 2;
  const head = patchHead(weights, channels, patch, side);
  /** ‖M Σ^(−½) A‖², the exact trace: every weight once for every position. */
  const exact = weights.reduce((sum, w, i) => {
    const c = Math.floor(i / (3 * patch * patch));
    return sum + positions * (((gain[c] as number) * w) / (sigma[c] as number)) ** 2;
  }, 0);

  it('is found by probes', async () => {
    const input = float32([1, 3, side, side], normals('input', 3 * side * side));
    const region = { x: 4, y: 8, width: 4, height: 4 };
    const found = await meanTrace(head, parametersOf(gain, sigma, 100), input, 400, [
      regionIndices({ x: 0, y: 0, width: side, height: side }, input.shape),
      regionIndices(region, input.shape),
    ]);
    // One probe's relative deviation is below √(2/outputs of a patch) = 0.7; over 16 patches and 400 probes 0.01.
    expect(found.whole / exact).toBeCloseTo(1, 1);
    expect(found.regions[0]).toBeCloseTo(found.whole, 3);
    expect((found.regions[1] as number) / (exact / positions)).toBeGreaterThan(0.85);
    expect((found.regions[1] as number) / (exact / positions)).toBeLessThan(1.15);
  });

  it('is zero where the activation is clipped', async () => {
    const input = float32([1, 3, side, side], normals('input', 3 * side * side));
    const found = await meanTrace(head, parametersOf(gain, sigma, 0), input, 2);
    expect(found.whole).toBe(0);
  });

  it('bounds the exact least error for Gaussian inputs, with equality for a scaled rotation', async () => {
    // x ~ N(0, s²): the best estimate errs by Tr((AᵀM²Σ⁻¹A + I/s²)⁻¹)/d, which is the bound if AᵀA is a multiple of I.
    const [s, scale, noise] = [0.7, 1.3, 0.5];
    const identity = new Float32Array(12 * 12);
    // A reflection scaled by 1.3: orthogonal, and every output depends on every input.
    const u = normals('axis', 12);
    const length = u.reduce((sum, value) => sum + value * value, 0);
    for (let i = 0; i < 144; i++) {
      const [row, column] = [Math.floor(i / 12), i % 12];
      const reflection = (row === column ? 1 : 0) - (2 * (u[row] as number) * (u[column] as number)) / length;
      identity[i] = scale * reflection;
    }
    const rotation = patchHead(identity, 12, 2, 8);
    const parameters = parametersOf(new Array<number>(12).fill(1), new Array<number>(12).fill(noise), 100);
    const input = float32([1, 3, 8, 8], normals('x', 192, s));
    for (const releases of [1, 7]) {
      const { whole } = await meanTrace(rotation, parameters, input, 60);
      const best = 1 / (releases * (scale / noise) ** 2 + 1 / s ** 2);
      expect(reconstructionLimit(whole / 192, s, releases) / best).toBeCloseTo(1, 3);
    }
    // Without equality: one output per patch of 48 values. The best estimate errs by s² in the other 47 directions.
    const single = patchHead(weights.subarray(0, 48), 1, 4, 16);
    const one = parametersOf([1], [noise], 100);
    const energy = weights.subarray(0, 48).reduce((sum, w) => sum + w * w, 0);
    const best = (47 * s ** 2 + 1 / (energy / noise ** 2 + 1 / s ** 2)) / 48;
    const { whole } = await meanTrace(single, one, float32([1, 3, 16, 16], normals('x', 768, s)), 60);
    const limit = reconstructionLimit(whole / 768, s);
    expect(limit).toBeLessThan(best);
    expect(limit).toBeGreaterThan(0.5 * best);
  });
});

describe('attackers and the bound', () => {
  it('no linear reconstruction of released pictures errs less, with 1 release or the mean of 16', async () => {
    const [patch, side, channels] = [4, 32, 8];
    const positions = (side / patch) ** 2;
    const s = 24 / 255;
    const head = patchHead(normals('head', channels * 48, 0.3), channels, patch, side);
    const cut = head.outputNames[0] as string;
    const parameters = parametersOf(new Array<number>(channels).fill(1), new Array<number>(channels).fill(0.1), 8);
    const session = await engine.load(head.encode());
    const noiser = createReplayNoiser({
      transform: createDiagonalTransform(parameters),
      bundleHash: '0'.repeat(64),
      alpha: 0.5,
      crypto: createNodeCrypto(),
      seedKey: new Uint8Array(32).fill(3),
    });
    const random = createFitRandom('pictures');
    const grain = new Float32Array(3 * side * side);
    /** Smooth pictures with independent noise of s on every value: the prior of the bound. */
    const picture = (): Float32Array => {
      const [a, b, c] = [random.uniform(), random.uniform(), random.uniform()];
      random.normal(grain);
      return grain.map((e, i) => {
        const [x, y] = [(i % side) / side, (Math.floor(i / side) % side) / side];
        return 0.5 + 0.2 * Math.sin(6 * (a * x + b * y + c)) + s * e;
      });
    };
    const released = async (pixels: Float32Array, releases: number): Promise<Tensor<'float32'>> => {
      const activation = (await session.run({ x: float32([1, 3, side, side], pixels) }))[cut] as Tensor;
      const sum = new Float32Array(channels * positions);
      for (let k = 0; k < releases; k++) {
        const { data } = releaseToTensor(await noiser.release(activation), parameters);
        for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (data[i] as number) / releases;
      }
      return float32([1, channels, side / patch, side / patch], sum);
    };
    const toBytes = (pixels: Float32Array): Uint8Array => {
      const bytes = new Uint8Array(3 * side * side);
      for (let i = 0; i < side * side; i++) {
        for (let c = 0; c < 3; c++) {
          bytes[3 * i + c] = Math.max(0, Math.min(255, Math.round(255 * (pixels[c * side * side + i] as number))));
        }
      }
      return bytes;
    };
    for (const releases of [1, 16]) {
      const fitter = createReconstructionFitter(channels, patch);
      for (let k = 0; k < 40; k++) {
        const pixels = picture();
        fitter.add(await released(pixels, releases), { width: side, height: side, data: toBytes(pixels) });
      }
      const attack = fitter.solve();
      let error = 0;
      const tests = 20;
      for (let k = 0; k < tests; k++) {
        const pixels = picture();
        const guess = reconstruct(attack, await released(pixels, releases));
        const truth = toBytes(pixels);
        truth.forEach((value, i) => {
          error += (((guess.data[i] as number) - value) / 255) ** 2 / truth.length / tests;
        });
      }
      const { whole } = await meanTrace(head, parameters, float32([1, 3, side, side], picture()), 100);
      const limit = reconstructionLimit(whole / grain.length, s, releases);
      expect(limit).toBeGreaterThan(0.05 * s * s);
      expect(error).toBeGreaterThan(limit);
      // The attack is alive: it beats guessing the mean.
      expect(error).toBeLessThan(0.2 ** 2 / 2 + s * s);
    }
    noiser.close();
    await session.close();
  });
});

describe('reconstructionLimit', () => {
  it('is s² without information, 1/I without a prior, and falls with releases', () => {
    expect(reconstructionLimit(0, 8)).toBe(64);
    expect(reconstructionLimit(0.25, Number.POSITIVE_INFINITY)).toBe(4);
    expect(reconstructionLimit(0.25, Number.POSITIVE_INFINITY, 4)).toBe(1);
    expect(() => reconstructionLimit(1, 0)).toThrow(/smoothing is 0/);
    expect(() => reconstructionLimit(Number.NaN, 1)).toThrow(/no number/);
  });
  it('takes regions inside the input alone', () => {
    const shape = [1, 2, 3, 4];
    expect([...regionIndices({ x: 1, y: 2, width: 2, height: 1 }, shape)]).toEqual([9, 10, 21, 22]);
    expect(() => regionIndices({ x: 3, y: 0, width: 2, height: 1 }, shape)).toThrow(/not inside an input/);
    expect(() => regionIndices({ x: 0, y: 0, width: 0, height: 1 }, shape)).toThrow(/not inside/);
    expect(() => regionIndices({ x: 0, y: 0, width: 1, height: 1 }, [1, 5])).toThrow(/not inside/);
  });
});
