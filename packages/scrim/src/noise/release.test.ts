import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { float32, type Tensor, tensor } from '../tensor.js';
import { createWebCrypto } from '../web/web-crypto.js';
import { createDiagonalTransform, type DiagonalParameters } from './diagonal.js';
import type { NoiseCrypto } from './noise-crypto.js';
import {
  createNoiser,
  createReplayNoiser,
  type Noiser,
  type NoiserOptions,
  Release,
  releaseToFloat16,
  releaseToFloat32,
} from './release.js';
import { releaseToTensor } from './release-reader.js';

const [C, H, W] = [4, 5, 7];
const crypto = createNodeCrypto();
const parameters: DiagonalParameters = {
  kind: 'per-channel',
  shape: [C],
  gain: Float32Array.of(1, 0, 0.8, 1),
  mean: Float32Array.of(0, 0.25, -0.1, 0.3),
  sigma: Float32Array.of(0.5, 0.5, 0.3, 0.7),
  clipLow: new Float32Array(C).fill(-6),
  clipHigh: new Float32Array(C).fill(6),
  variance: new Float32Array(C).fill(1),
};
const transform = createDiagonalTransform(parameters);
const options: NoiserOptions = { transform, bundleHash: '12'.repeat(32), alpha: 0.4, crypto };
const secret = new Uint8Array(32).fill(77);
const seedKey = new Uint8Array(32).fill(5);
const photo = new TextEncoder().encode('pixels of a photo');

const activation = (samples = 1): Tensor<'float32'> =>
  float32(
    [samples, C, H, W],
    Float32Array.from({ length: samples * C * H * W }, (_, i) => Math.sin(i)),
  );

describe('noisers', () => {
  const noisers: [string, () => Noiser][] = [
    ['fresh', () => createNoiser({ ...options, mode: 'fresh' })],
    ['repeatable', () => createNoiser({ ...options, mode: 'repeatable', secret })],
    ['replay', () => createReplayNoiser({ ...options, seedKey })],
  ];

  it.each(noisers)('%s: a release says what it is', async (mode, create) => {
    const noiser = create();
    const release = await noiser.release(activation(), photo);
    expect(release).toMatchObject({
      shape: [1, 3, H, W],
      channels: C,
      sentChannels: Int32Array.of(0, 2, 3),
      bundleHash: options.bundleHash,
      alpha: 0.4,
      mode,
    });
    expect(release.keyId).toMatch(/^[0-9a-f]{32}$/);
    expect(release.payload).toBeInstanceOf(Int16Array);
    expect(release.payload.length).toBe(3 * H * W);
    expect([...release.steps].every((step) => Math.log2(step) % 1 === 0)).toBe(true);
    expect(Release.isRelease(release)).toBe(true);
  });

  it('fresh: the same activation never gives the same release', async () => {
    const noiser = createNoiser({ ...options, mode: 'fresh' });
    const [a, b] = [await noiser.release(activation()), await noiser.release(activation(), photo)];
    expect(a.keyId).not.toBe(b.keyId);
    expect(a.payload).not.toEqual(b.payload);
  });

  it('repeatable: the same input gives the same bytes, another input others', async () => {
    const [one, two] = [1, 2].map(() => createNoiser({ ...options, mode: 'repeatable', secret })) as [Noiser, Noiser];
    const release = await one.release(activation(), photo);
    expect(await one.release(activation(), photo)).toEqual(release);
    expect(await two.release(activation(), photo)).toEqual(release);
    const other = await one.release(activation(), new Uint8Array([1]));
    expect(other.keyId).not.toBe(release.keyId);
    expect(other.payload).not.toEqual(release.payload);
    await expect(one.release(activation())).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('replay: the n-th release is the same each time, here and with WebCrypto', async () => {
    const three = async (noiser: Noiser): Promise<Release[]> => [
      await noiser.release(activation()),
      ...(await noiser.releaseBatch(activation(2))),
    ];
    const first = await three(createReplayNoiser({ ...options, seedKey }));
    expect(await three(createReplayNoiser({ ...options, seedKey }))).toEqual(first);
    expect(await three(createReplayNoiser({ ...options, seedKey, crypto: createWebCrypto() }))).toEqual(first);
    expect(new Set(first.map(({ keyId }) => keyId)).size).toBe(3);
  });

  it('a batch has a key for each sample', async () => {
    const noiser = createNoiser({ ...options, mode: 'fresh' });
    const same = float32([3, C, H, W], new Float32Array(3 * C * H * W));
    const releases = await noiser.releaseBatch(same);
    expect(new Set(releases.map(({ keyId }) => keyId)).size).toBe(3);
    expect(new Set(releases.map(({ payload }) => payload.join())).size).toBe(3);
    const repeatable = createNoiser({ ...options, mode: 'repeatable', secret });
    const [a, b] = await repeatable.releaseBatch(same.shape[0] === 3 ? activation(2) : same, [photo, secret]);
    expect(a).toEqual(await repeatable.release(activation(), photo));
    expect(b?.keyId).toBe((await repeatable.release(activation(), secret)).keyId);
    await expect(repeatable.releaseBatch(activation(2), [photo])).rejects.toThrow('canonicalInputs has 1');
  });

  it('many at the same time are what they are one after the other', async () => {
    const one = createReplayNoiser({ ...options, seedKey, crypto: createWebCrypto() });
    const together = await Promise.all(Array.from({ length: 8 }, () => one.release(activation())));
    const byId = (releases: Release[]): Release[] => releases.sort((a, b) => a.keyId.localeCompare(b.keyId));
    const two = createReplayNoiser({ ...options, seedKey });
    const apart: Release[] = [];
    for (let i = 0; i < 8; i++) apart.push(await two.release(activation()));
    expect(byId(together)).toEqual(byId(apart));
  });

  it('are refused a wrong alpha, hash, mode or secret', () => {
    const wrong: object[] = [
      { alpha: 1.5, mode: 'fresh' },
      { alpha: Number.NaN, mode: 'fresh' },
      { bundleHash: 'AB'.repeat(32), mode: 'fresh' },
      { mode: 'none' },
      { mode: 'repeatable', secret: new Uint8Array(8) },
    ];
    for (const change of wrong) {
      expect(() => createNoiser({ ...options, ...change } as NoiserOptions & { mode: 'fresh' })).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
      );
    }
  });

  it('refuse an activation that does not fit', async () => {
    const noiser = createNoiser({ ...options, mode: 'fresh' });
    const wrong: Tensor[] = [
      float32([1, 3, H, W], new Float32Array(3 * H * W)),
      activation(2),
      tensor('float64', [1, C, H, W]),
      float32([1, C, H, W], new Float32Array(C * H * W).fill(Number.NaN)),
    ];
    for (const value of wrong) {
      await expect(noiser.release(value)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });
});

describe('failing closed', () => {
  const broken: [string, Partial<NoiseCrypto>][] = [
    [
      'throws',
      {
        aes256Ctr: () => {
          throw new Error('hardware');
        },
      },
    ],
    ['rejects', { aes256Ctr: () => ({ fill: () => Promise.reject(new Error('hardware')), close() {} }) }],
    ['writes nothing', { aes256Ctr: () => ({ fill() {}, close() {} }) }],
    ['writes zeros', { aes256Ctr: () => ({ fill: (out) => void out.fill(0), close() {} }) }],
    ['derives short keys', { hkdfSha256: () => new Uint8Array(16) }],
  ];
  it.each(broken)('gives no release where the cryptography %s', async (_, change) => {
    const noiser = createNoiser({ ...options, crypto: { ...crypto, ...change }, mode: 'fresh' });
    await expect(noiser.release(activation())).rejects.toMatchObject({ code: 'NOISE_FAILED' });
    await expect(noiser.releaseBatch(activation(2))).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });

  it('gives no release where the keystream fails after the self-test, and a new key afterwards', async () => {
    let fails = false;
    const moody: NoiseCrypto = {
      ...crypto,
      aes256Ctr(key, counter) {
        if (fails) throw new Error('moody');
        return crypto.aes256Ctr(key, counter);
      },
    };
    const noiser = createReplayNoiser({ ...options, crypto: moody, seedKey });
    await noiser.release(activation());
    fails = true;
    await expect(noiser.release(activation())).rejects.toMatchObject({ code: 'NOISE_FAILED' });
    fails = false;
    const after = await noiser.release(activation());
    const whole = createReplayNoiser({ ...options, seedKey });
    for (let i = 0; i < 2; i++) await whole.release(activation());
    expect(after).toEqual(await whole.release(activation()));
  });

  it('gives nothing after close', async () => {
    const noiser = createNoiser({ ...options, mode: 'fresh' });
    await noiser.release(activation());
    noiser.close();
    await expect(noiser.release(activation())).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });

  it('tells nothing about keys or values in messages and details', async () => {
    const noiser = createNoiser({ ...options, crypto: { ...crypto, ...broken[0]?.[1] }, mode: 'repeatable', secret });
    const error = await noiser.release(activation(), photo).catch((reason: unknown) => reason);
    const text = JSON.stringify(error) + String(error);
    expect(text).not.toContain(Buffer.from(secret).toString('hex').slice(0, 16));
    expect(text).not.toMatch(/0\.84147|pixels of/);
  });
});

describe('Release', () => {
  it('can not be made by hand', async () => {
    const release = await createNoiser({ ...options, mode: 'fresh' }).release(activation());
    expect(Release.isRelease({ ...release })).toBe(false);
    expect(Release.isRelease(Object.create(Release.prototype))).toBe(false);
    expect(Release.isRelease(structuredClone({ ...release }))).toBe(false);
    expect(Release.isRelease(null)).toBe(false);
    expect(Object.isFrozen(release)).toBe(true);
  });
});

describe('releaseToTensor and its like', () => {
  it('puts values in the channels that were sent and μ in the others', async () => {
    const release = await createNoiser({ ...options, mode: 'fresh' }).release(activation());
    const { data, shape } = releaseToTensor(release, parameters);
    const plane = H * W;
    expect(shape).toEqual([1, C, H, W]);
    for (const [index, c] of [0, 2, 3].entries()) {
      for (let i = 0; i < plane; i++) {
        const expected = (release.payload[index * plane + i] as number) * (release.steps[index] as number);
        expect(data[c * plane + i]).toBe(expected);
      }
    }
    expect(data.subarray(plane, 2 * plane).every((value) => value === 0.25)).toBe(true);
    const sent = releaseToFloat32(release);
    expect(sent.shape).toEqual([1, 3, H, W]);
    expect([...sent.data]).toEqual([...data.subarray(0, plane), ...data.subarray(2 * plane)]);
    expect(() => releaseToTensor(release, { ...parameters, shape: [3] })).toThrow('parameters have shape [3]');
  });

  it('does so with μ by element', async () => {
    const size = C * H * W;
    const spread = (array: Float32Array): Float32Array =>
      Float32Array.from({ length: size }, (_, i) => array[Math.floor(i / (H * W))] as number);
    const elements: DiagonalParameters = {
      ...parameters,
      kind: 'per-element',
      shape: [C, H, W],
      gain: spread(parameters.gain),
      mean: Float32Array.from({ length: size }, (_, i) => i / size),
      sigma: spread(parameters.sigma),
    };
    const own = { ...options, transform: createDiagonalTransform(elements) };
    const { data } = releaseToTensor(await createNoiser({ ...own, mode: 'fresh' }).release(activation()), elements);
    expect([...data.subarray(H * W, 2 * H * W)]).toEqual([...elements.mean.subarray(H * W, 2 * H * W)]);
  });

  it('rounds to float16 as the nearest value, ties to even', async () => {
    const release = await createReplayNoiser({ ...options, seedKey }).release(activation());
    const { data } = releaseToFloat32(release);
    const halves = releaseToFloat16(release);
    expect([halves.dtype, halves.shape]).toEqual(['float16', [1, 3, H, W]]);
    for (let i = 0; i < data.length; i++) expect(halves.data[i]).toBe(nearestHalf(data[i] as number));
  });

  it('rounds every kind of value: across ranges down to float16 subnormals', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: -18, max: 9 }), async (exponent) => {
        const scale = 2 ** exponent;
        const scaled: DiagonalParameters = {
          ...parameters,
          mean: parameters.mean.map((value) => value * scale),
          sigma: parameters.sigma.map((value) => value * scale),
          clipLow: parameters.clipLow.map((value) => value * scale),
          clipHigh: parameters.clipHigh.map((value) => value * scale),
        };
        const own = { ...options, transform: createDiagonalTransform(scaled) };
        const input = float32(
          [1, C, H, W],
          activation().data.map((value) => value * scale),
        );
        const release = await createReplayNoiser({ ...own, seedKey }).release(input);
        const { data } = releaseToFloat32(release);
        expect([...releaseToFloat16(release).data]).toEqual([...data].map(nearestHalf));
      }),
      { numRuns: 28, seed: 1 },
    );
  });

  it('refuses float16 where the values do not fit', async () => {
    const wide: DiagonalParameters = {
      ...parameters,
      sigma: new Float32Array(C).fill(1e5),
      clipLow: new Float32Array(C).fill(-1e6),
      clipHigh: new Float32Array(C).fill(1e6),
    };
    const own = { ...options, transform: createDiagonalTransform(wide) };
    const release = await createReplayNoiser({ ...own, seedKey }).release(activation());
    expect(() => releaseToFloat16(release)).toThrow('float16');
  });
});

/** By search over all finite halves: the nearest, of two as near the even one. */
function nearestHalf(value: number): number {
  const magnitude = Math.abs(value);
  let [low, high] = [0, 0x7bff];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (halfToNumber(middle) <= magnitude) low = middle;
    else high = middle;
  }
  const [below, above] = [magnitude - halfToNumber(low), halfToNumber(high) - magnitude];
  const half = below < above || (below === above && low % 2 === 0) ? low : high;
  return half | (value < 0 || Object.is(value, -0) ? 0x8000 : 0);
}

function halfToNumber(half: number): number {
  const exponent = half >> 10;
  const mantissa = half & 0x3ff;
  return exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25);
}

describe('noise that is drawn ahead', () => {
  const shape = [1, C, H, W];

  it('is the noise that release would have drawn, and the next release has the next', async () => {
    const [ahead, plain] = [createReplayNoiser({ ...options, seedKey }), createReplayNoiser({ ...options, seedKey })];
    for (let i = 0; i < 3; i++) {
      const prepared = await ahead.prepare(shape);
      const [found, expected] = [await prepared.release(activation()), await plain.release(activation())];
      expect(found).toEqual(expected);
      expect(Release.isRelease(found)).toBe(true);
      expect(await ahead.release(activation())).toEqual(await plain.release(activation()));
    }
  });

  it('depends on the input in repeatable mode, and on it alone', async () => {
    const noiser = createNoiser({ ...options, mode: 'repeatable', secret });
    const prepared = await noiser.prepare(shape, photo);
    expect(await prepared.release(activation())).toEqual(await noiser.release(activation(), photo));
    await expect(noiser.prepare(shape)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('is used once, also when two want it at the same time or the activation is bad', async () => {
    const noiser = createNoiser({ ...options, mode: 'fresh' });
    const prepared = await noiser.prepare(shape);
    const results = await Promise.allSettled([prepared.release(activation()), prepared.release(activation())]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    await expect(prepared.release(activation())).rejects.toMatchObject({ code: 'NOISE_FAILED' });

    const other = await noiser.prepare(shape);
    const broken = activation();
    (broken.data as Float32Array)[3] = Number.NaN;
    await expect(other.release(broken)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(other.release(activation())).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });

  it('lies in memory of its own, which is used again but never by two', async () => {
    const [ahead, plain] = [createReplayNoiser({ ...options, seedKey }), createReplayNoiser({ ...options, seedKey })];
    for (let round = 0; round < 3; round++) {
      const prepared = [await ahead.prepare(shape), await ahead.prepare(shape), await ahead.prepare(shape)];
      const between = await ahead.release(activation());
      const found = [];
      for (const one of prepared.reverse()) found.unshift(await one.release(activation()));
      const expected = [];
      for (let i = 0; i < 4; i++) expected.push(await plain.release(activation()));
      expect([...found, between]).toEqual(expected);
    }
  });

  it('is gone when it is closed, or the noiser is, and is for one shape', async () => {
    const noiser = createNoiser({ ...options, mode: 'fresh' });
    const prepared = await noiser.prepare(shape);
    await expect(prepared.release(float32([1, C, W, H], new Float32Array(C * W * H)))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    prepared.close();
    await expect(prepared.release(activation())).rejects.toMatchObject({ code: 'NOISE_FAILED' });
    await expect(noiser.prepare([2, C, H, W])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });

    const waiting = await noiser.prepare(shape);
    noiser.close();
    await expect(waiting.release(activation())).rejects.toMatchObject({ code: 'NOISE_FAILED' });
    await expect(noiser.prepare(shape)).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });

  it('fails with the keystream, and nothing is released', async () => {
    const failing: NoiseCrypto = {
      ...crypto,
      aes256Ctr(key, counter) {
        const stream = crypto.aes256Ctr(key, counter);
        const fill = (out: Uint8Array) => {
          if (out.length > 64) throw new Error('no');
          return stream.fill(out);
        };
        return { ...stream, fill };
      },
    };
    const noiser = createNoiser({ ...options, crypto: failing, mode: 'fresh' });
    await expect(noiser.prepare(shape)).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });

  it('comes from WebCrypto, too', async () => {
    const web = createReplayNoiser({ ...options, crypto: createWebCrypto(), seedKey });
    const prepared = await web.prepare(shape);
    const expected = await createReplayNoiser({ ...options, seedKey }).release(activation());
    expect(await prepared.release(activation())).toEqual(expected);
  });
});
