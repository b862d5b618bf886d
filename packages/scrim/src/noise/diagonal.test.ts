import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createDiagonalTransform, type DiagonalParameters, validateDiagonalParameters } from './diagonal.js';
import { gaussianInPlace } from './gaussian.js';
import { releaseValue } from './grid.js';
import { type Keystream, ReleaseKey } from './keystream.js';

const crypto = createNodeCrypto();
const keystream = (seed: number): Keystream => new ReleaseKey(crypto, new Uint8Array(32).fill(seed + 1), 'id');

/** Parameters that differ from channel to channel and from element to element; `suppressed` channels have gain 0. */
function parametersFor(shape: readonly number[], suppressed: readonly number[] = []): DiagonalParameters {
  const [channels = 0] = shape;
  const size = shape.reduce((a, b) => a * b, 1);
  const channelOf = (i: number): number => Math.floor(i / (size / channels));
  const fill = (length: number, value: (i: number) => number): Float32Array =>
    Float32Array.from({ length }, (_, i) => value(i));
  return {
    kind: shape.length === 1 ? 'per-channel' : 'per-element',
    shape,
    gain: fill(size, (i) => (suppressed.includes(channelOf(i)) ? 0 : 0.5 + 0.07 * (i % 11))),
    mean: fill(size, (i) => 0.3 * Math.sin(i)),
    sigma: fill(size, (i) => 0.2 + 0.05 * (i % 13)),
    clipLow: fill(channels, (c) => -3 - 0.1 * c),
    clipHigh: fill(channels, (c) => 3 + 0.2 * c),
    variance: fill(channels, () => 1),
  };
}

const activationOf = (length: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => 4 * Math.sin(0.7 * i + 1));

/** What the header of diagonal.ts says, value by value, without chunks. */
async function slowly(
  parameters: DiagonalParameters,
  sample: Float32Array,
  plane: number,
  keys: Keystream,
): Promise<number[]> {
  const { sentChannels, steps, gridLow, gridHigh } = createDiagonalTransform(parameters);
  const channels = parameters.shape[0] as number;
  const sent = sentChannels ?? Int32Array.from({ length: channels }, (_, c) => c);
  const stride = Math.ceil(plane / 8) * 8;
  const memory = new Uint8Array(sent.length * stride * 4);
  await keys.fill(memory);
  gaussianInPlace(memory, memory.length / 32);
  const normals = new Float32Array(memory.buffer);
  const values: number[] = [];
  for (const [index, c] of sent.entries()) {
    const step = steps[index] as number;
    for (let i = 0; i < plane; i++) {
      const at = parameters.kind === 'per-channel' ? c : c * plane + i;
      const m = parameters.gain[at] as number;
      const [gain, scale, offset] = [
        m,
        m === 0 ? 0 : -(parameters.sigma[at] as number),
        -(parameters.mean[at] as number),
      ].map((value) => Math.fround(value / step)) as [number, number, number];
      const range = {
        gain,
        scale,
        offset,
        clipLow: parameters.clipLow[c] as number,
        clipHigh: parameters.clipHigh[c] as number,
        gridLow: gridLow[index] as number,
        gridHigh: gridHigh[index] as number,
      };
      const epsilon = normals[index * stride + i] as number;
      values.push(releaseValue(sample[c * plane + i] as number, epsilon, gain, scale, offset, range) + 0);
    }
  }
  return values;
}

describe('validateDiagonalParameters', () => {
  it('takes parameters of both kinds', () => {
    validateDiagonalParameters(parametersFor([4]));
    validateDiagonalParameters(parametersFor([4, 3, 2], [1]));
  });

  const good = parametersFor([2]);
  const wrong: [string, Partial<DiagonalParameters>][] = [
    ['kind', { kind: 'per-pixel' as 'per-channel' }],
    ['shape', { shape: [2, 1] }],
    ['shape', { shape: [0], gain: new Float32Array(0), mean: new Float32Array(0), sigma: new Float32Array(0) }],
    ['gain has 3', { gain: new Float32Array(3) }],
    ['gain[1]', { gain: Float32Array.of(1, -0.1) }],
    ['gain[0]', { gain: Float32Array.of(4.5, 1) }],
    ['mean[1]', { mean: Float32Array.of(0, Number.NaN) }],
    ['sigma[0]', { sigma: Float32Array.of(0, 1) }],
    ['sigma[1]', { sigma: Float32Array.of(1, -1) }],
    ['sigma[1]', { sigma: Float32Array.of(1, Number.POSITIVE_INFINITY) }],
    ['clipLow[0]', { clipLow: Float32Array.of(5, -1), clipHigh: Float32Array.of(4, 1) }],
    ['clipHigh has 1', { clipHigh: Float32Array.of(4) }],
    ['variance[0]', { variance: Float32Array.of(-1, 1) }],
    ['every gain is 0', { gain: new Float32Array(2) }],
    ['no Float32Array', { mean: [0, 0] as unknown as Float32Array }],
  ];
  it.each(wrong)('refuses %s (%#)', (message, change) => {
    const parameters = { ...good, ...change };
    const error = expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) });
    expect(() => validateDiagonalParameters(parameters)).toThrow(error);
    expect(() => createDiagonalTransform(parameters)).toThrow(error);
  });

  it('lets a suppressed channel have any σ', () => {
    validateDiagonalParameters({ ...good, gain: Float32Array.of(1, 0), sigma: Float32Array.of(1, 0) });
  });
});

describe('createDiagonalTransform', () => {
  it('gives what the formulas say, for any shape, suppression and kernel', async () => {
    const shapes = fc.record({
      channels: fc.integer({ min: 1, max: 7 }),
      height: fc.integer({ min: 1, max: 9 }),
      width: fc.integer({ min: 1, max: 9 }),
      perElement: fc.boolean(),
      suppressed: fc.subarray([1, 2, 3, 4, 5, 6]),
      seed: fc.nat(200),
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ channels, height, width, perElement, suppressed, seed }) => {
        const parameters = parametersFor(perElement ? [channels, height, width] : [channels], suppressed);
        const sample = activationOf(channels * height * width);
        const expected = await slowly(parameters, sample, height * width, keystream(seed));
        for (const kernel of ['wasm-simd', 'plain'] as const) {
          const transform = createDiagonalTransform(parameters, { kernel });
          expect(transform.kernelKind).toBe(kernel);
          const payload = await transform.run(sample, height * width, keystream(seed));
          expect([...payload]).toEqual(expected);
        }
      }),
      { numRuns: 60, seed: 1 },
    );
  });

  it.each([
    ['many channels', [40], 40, 2041],
    ['one long plane', [2], 2, 70_001],
    ['a plane of exactly one chunk', [2], 2, 16_384],
  ])('works through chunks as through one: %s', async (_, shape, channels, plane) => {
    const parameters = parametersFor(shape, [1]);
    const sample = activationOf(channels * plane);
    const expected = await slowly(parameters, sample, plane, keystream(3));
    const [simd, plain] = (['wasm-simd', 'plain'] as const).map((kernel) =>
      createDiagonalTransform(parameters, { kernel }),
    );
    const payload = await simd?.run(sample, plane, keystream(3));
    expect(
      Buffer.compare(Buffer.from(Int16Array.from(expected).buffer), Buffer.from(payload?.buffer as ArrayBuffer)),
    ).toBe(0);
    expect(await plain?.run(sample, plane, keystream(3))).toEqual(payload);
  });

  it('gives the same bits per channel as per element with equal parameters', async () => {
    const [channels, plane] = [5, 12];
    const one = parametersFor([channels], [2]);
    const spread = (array: Float32Array): Float32Array =>
      Float32Array.from({ length: channels * plane }, (_, i) => array[Math.floor(i / plane)] as number);
    const many: DiagonalParameters = {
      ...one,
      kind: 'per-element',
      shape: [channels, 3, 4],
      gain: spread(one.gain),
      mean: spread(one.mean),
      sigma: spread(one.sigma),
    };
    const sample = activationOf(channels * plane);
    const payloads = await Promise.all(
      [one, many].map((parameters) => createDiagonalTransform(parameters).run(sample, plane, keystream(7))),
    );
    expect(payloads[0]).toEqual(payloads[1]);
  });

  it('draws no keystream for suppressed channels, and sends the constant μ for suppressed elements', async () => {
    let drawn = 0;
    const own = keystream(1);
    const counting: Keystream = {
      fill(out) {
        drawn += out.length;
        return own.fill(out);
      },
    };
    const transform = createDiagonalTransform(parametersFor([4], [0, 3]));
    expect([...(transform.sentChannels ?? [])]).toEqual([1, 2]);
    const payload = await transform.run(activationOf(4 * 16), 16, counting);
    expect([payload.length, drawn]).toEqual([32, 2 * 16 * 4]);

    const elements = parametersFor([1, 2, 4]);
    elements.gain.fill(0, 2, 5);
    const partly = createDiagonalTransform(elements);
    const step = partly.steps[0] as number;
    const released = await partly.run(activationOf(8), 8, keystream(2));
    for (let i = 2; i < 5; i++) expect(released[i]).toBe(Math.round((elements.mean[i] as number) / step));
  });

  it('releases only values of the public range, whatever the input', async () => {
    const parameters = { ...parametersFor([2]), sigma: Float32Array.of(2, 2) };
    const transform = createDiagonalTransform(parameters);
    const sample = Float32Array.from({ length: 2000 }, (_, i) =>
      i % 3 === 0 ? 1e30 : i % 3 === 1 ? Number.NEGATIVE_INFINITY : 0,
    );
    const payload = await transform.run(sample, 1000, keystream(4));
    for (const c of [0, 1]) {
      const channel = payload.subarray(c * 1000, (c + 1) * 1000);
      const step = transform.steps[c] as number;
      expect(Math.min(...channel)).toBe(Math.round((parameters.clipLow[c] as number) / step));
      expect(Math.max(...channel)).toBe(Math.round((parameters.clipHigh[c] as number) / step));
    }
  });

  it('refuses an activation that holds NaN, and works on afterwards', async () => {
    const transform = createDiagonalTransform(parametersFor([3]));
    const sample = activationOf(3 * 5);
    const expected = await transform.run(sample, 5, keystream(1));
    const broken = sample.slice();
    broken[14] = Number.NaN;
    await expect(transform.run(broken, 5, keystream(1))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await transform.run(sample, 5, keystream(1))).toEqual(expected);
  });

  it('keeps runs at the same time apart, also where the keystream comes late', async () => {
    const transform = createDiagonalTransform(parametersFor([6]));
    const late = (seed: number): Keystream => {
      const own = keystream(seed);
      return {
        async fill(out) {
          for (let i = 0; i < 5 - seed; i++) await Promise.resolve();
          await own.fill(out);
        },
      };
    };
    const samples = [0, 1, 2, 3].map((i) => activationOf(6 * 49).map((value) => value + 0.1 * i));
    const apart: Int16Array[] = [];
    for (const [i, sample] of samples.entries()) apart.push(await transform.run(sample, 49, keystream(i)));
    const together = await Promise.all(samples.map((sample, i) => transform.run(sample, 49, late(i))));
    expect(together).toEqual(apart);
  });

  it('does not follow later changes of the arrays it was made from', async () => {
    const parameters = parametersFor([2]);
    const transform = createDiagonalTransform(parameters);
    const before = await transform.run(activationOf(8), 4, keystream(1));
    parameters.sigma.fill(0);
    expect(await transform.run(activationOf(8), 4, keystream(1))).toEqual(before);
    expect(transform.parameters.sigma[0]).toBeGreaterThan(0);
  });

  it('checks the shape of activations', () => {
    const [channel, element] = [
      createDiagonalTransform(parametersFor([3])),
      createDiagonalTransform(parametersFor([3, 4, 5])),
    ];
    channel.expectShape([2, 3, 9, 1]);
    element.expectShape([2, 3, 4, 5]);
    for (const shape of [
      [3, 4, 5],
      [1, 4, 4, 5],
      [0, 3, 4, 5],
      [1, 3, 4, 0],
    ]) {
      expect(() => channel.expectShape(shape)).toThrow('expected [N, 3, H, W]');
      expect(() => element.expectShape(shape)).toThrow('expected [N, 3, 4, 5]');
    }
    expect(() => element.expectShape([1, 3, 5, 4])).toThrow('[1, 3, 5, 4]');
  });
});
