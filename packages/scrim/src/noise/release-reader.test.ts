import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { float32 } from '../tensor.js';
import { createDiagonalTransform, type DiagonalParameters } from './diagonal.js';
import { createNoiser, type Release } from './release.js';
import { CHUNK_VALUES, createScaleKernel } from './release-kernel.js';
import { createReleaseReader, releaseToTensor } from './release-reader.js';

const crypto = createNodeCrypto();
const KINDS = ['wasm-simd', 'plain'] as const;

/** A release of noise on [1, C, H, W], and its parameters; channels whose gain is 0 are not sent. */
async function releaseOf(
  gains: readonly number[],
  height: number,
  width: number,
  kind: DiagonalParameters['kind'],
): Promise<{ readonly release: Release; readonly parameters: DiagonalParameters }> {
  const channels = gains.length;
  const each = kind === 'per-channel' ? 1 : height * width;
  const spread = (value: (c: number, i: number) => number): Float32Array =>
    Float32Array.from({ length: channels * each }, (_, i) => value(Math.floor(i / each), i));
  const parameters: DiagonalParameters = {
    kind,
    shape: kind === 'per-channel' ? [channels] : [channels, height, width],
    gain: spread((c) => gains[c] as number),
    mean: spread((c, i) => 0.01 * (i % 7) + c),
    sigma: spread((c) => 0.1 * 3 ** c),
    clipLow: new Float32Array(channels).fill(-5),
    clipHigh: new Float32Array(channels).fill(20),
    variance: new Float32Array(channels).fill(1),
  };
  const transform = createDiagonalTransform(parameters);
  const noiser = createNoiser({ transform, bundleHash: '12'.repeat(32), alpha: 0.4, crypto, mode: 'fresh' });
  const data = Float32Array.from({ length: channels * height * width }, (_, i) => Math.sin(i));
  return { release: await noiser.release(float32([1, channels, height, width], data)), parameters };
}

const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

describe('release readers', () => {
  it('give what releaseToTensor gives, bit for bit, for any channels sent, size and kind of parameters', async () => {
    const gains = fc.array(fc.constantFrom(0, 1, 0.5), { minLength: 1, maxLength: 6 }).map((list) => [...list, 1]);
    await fc.assert(
      fc.asyncProperty(
        gains,
        fc.integer({ min: 1, max: 90 }),
        fc.integer({ min: 1, max: 90 }),
        fc.constantFrom('per-channel', 'per-element'),
        async (sent, height, width, kind) => {
          const { release, parameters } = await releaseOf(sent, height, width, kind);
          const expected = releaseToTensor(release, parameters);
          for (const kernel of KINDS) {
            const found = createReleaseReader(parameters, { kernel }).read(release);
            expect(found.shape).toEqual(expected.shape);
            expect(bits(found.data)).toEqual(bits(expected.data));
          }
        },
      ),
      { numRuns: 60, seed: 4 },
    );
  });

  it.each(KINDS)('%s reads channels that are longer than its memory', async (kernel) => {
    const { release, parameters } = await releaseOf([1, 0, 1, 0.5], 3, CHUNK_VALUES - 5, 'per-channel');
    const found = createReleaseReader(parameters, { kernel }).read(release);
    expect(bits(found.data)).toEqual(bits(releaseToTensor(release, parameters).data));
  });

  it.each(KINDS)('%s fills an array again and again, all of it, and leaves the release as it is', async (kernel) => {
    const first = await releaseOf([1, 0, 1], 9, 11, 'per-channel');
    const { release: second } = await releaseOf([1, 0, 1], 9, 11, 'per-channel');
    const reader = createReleaseReader(first.parameters, { kernel });
    expect(reader.kernelKind).toBe(kernel);
    const out = new Float32Array(3 * 99).fill(Number.NaN);
    for (const release of [first.release, second, first.release]) {
      const before = release.payload.slice();
      const { data } = reader.read(release, out);
      expect(data).toBe(out);
      expect(bits(data)).toEqual(bits(releaseToTensor(release, first.parameters).data));
      expect(release.payload).toEqual(before);
    }
    expect(() => reader.read(second, new Float32Array(98))).toThrow('out has 98 elements, the tensor has 297');
    expect(() => createReleaseReader({ ...first.parameters, shape: [2] }).read(second)).toThrow('have shape [2]');
  });

  it('have a kernel that agrees with its twin on every grid value and step', () => {
    const [simd, plain] = KINDS.map((kind) => createScaleKernel(kind));
    for (const step of [1, 2 ** -100, 2 ** 14, 2 ** -7]) {
      for (let first = -32768; first < 32768; first += CHUNK_VALUES) {
        for (const kernel of [simd, plain]) {
          kernel?.grid.set(Int16Array.from({ length: CHUNK_VALUES }, (_, i) => first + i));
          kernel?.scale(0, CHUNK_VALUES, step);
        }
        expect(Buffer.compare(bytesOf(simd?.values), bytesOf(plain?.values))).toBe(0);
      }
    }
  });
});

function bytesOf(values: Float32Array | undefined): Uint8Array {
  return new Uint8Array(values?.buffer ?? new ArrayBuffer(0), values?.byteOffset, values?.byteLength);
}
