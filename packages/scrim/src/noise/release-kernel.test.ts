import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KEYSTREAM_BLOCK_BYTES, NORMALS_PER_BLOCK } from './gaussian.js';
import type { ChannelParameters } from './grid.js';
import {
  CHUNK_BLOCKS,
  createReleaseKernel,
  type ElementParameters,
  hasSimd,
  type ReleaseKernel,
} from './release-kernel.js';

const float = (min: number, max: number) => fc.float({ min: Math.fround(min), max: Math.fround(max), noNaN: true });

/** Parameters as planGrid would let them pass: at most 2²¹ steps. */
const channel: fc.Arbitrary<ChannelParameters> = fc.record({
  gain: float(0, 512),
  scale: float(-512, 0),
  offset: float(-1e5, 1e5),
  clipLow: float(-4000, 0),
  clipHigh: float(0, 4000),
  gridLow: fc.integer({ min: -32768, max: 0 }),
  gridHigh: fc.integer({ min: 0, max: 32767 }),
});

/** Every bit pattern but NaN: zeros of both signs, subnormals and infinities are in. */
const activation = (length: number): fc.Arbitrary<Float32Array> =>
  fc.float32Array({ minLength: length, maxLength: length, noNaN: true });

function fillKernel(kernel: ReleaseKernel, keystream: Uint8Array, values: Float32Array): void {
  kernel.keystream.set(keystream);
  kernel.activation.set(values);
}

describe('release kernel', () => {
  it('runs as WebAssembly SIMD here', () => {
    expect(hasSimd()).toBe(true);
    expect(createReleaseKernel([]).kind).toBe('wasm-simd');
    expect(createReleaseKernel([], undefined, 'plain').kind).toBe('plain');
  });

  it('was compiled from the source in assembly/', async () => {
    const { compileReleaseKernel, embedReleaseKernel } = await import('../../assembly/compile-release-kernel.mjs');
    const committed = readFileSync(new URL('gen/release-kernel.ts', import.meta.url), 'utf8');
    expect(committed).toBe(embedReleaseKernel(await compileReleaseKernel()));
  });

  it('makes the same normals as the plain twin, bit for bit, for any keystream and number of blocks', () => {
    const [simd, plain] = [
      createReleaseKernel([], undefined, 'wasm-simd'),
      createReleaseKernel([], undefined, 'plain'),
    ];
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 700 }), fc.integer(), (blocks, seed) => {
        const bytes = pseudoRandomBytes(blocks * KEYSTREAM_BLOCK_BYTES, seed);
        for (const kernel of [simd, plain]) {
          kernel.keystream.set(bytes);
          kernel.gaussian(blocks);
        }
        const length = blocks * KEYSTREAM_BLOCK_BYTES;
        expect(Buffer.compare(simd.keystream.subarray(0, length), plain.keystream.subarray(0, length))).toBe(0);
      }),
      { numRuns: 80, seed: 1 },
    );
  });

  it('agrees with the twin where bits carry: words of zeros, ones, single bits and their neighbours', () => {
    const edges = [0, -1, 1, -2, 2, 0xfff, 0x1000, 0x7fffffff, -0x80000000, -0x7fffffff];
    for (let bit = 0; bit < 32; bit++) edges.push(1 << bit, (1 << bit) - 1, ~(1 << bit));
    const pairs = edges.flatMap((a) => edges.map((b): [number, number] => [a, b]));
    const words = new Int32Array(Math.ceil(pairs.length / 4) * 8);
    for (const [i, [a, b]] of pairs.entries()) {
      words[Math.floor(i / 4) * 8 + (i % 4)] = a;
      words[Math.floor(i / 4) * 8 + 4 + (i % 4)] = b;
    }
    const bytes = new Uint8Array(words.buffer);
    const [simd, plain] = [
      createReleaseKernel([], undefined, 'wasm-simd'),
      createReleaseKernel([], undefined, 'plain'),
    ];
    for (let at = 0; at < bytes.length; at += 1000 * KEYSTREAM_BLOCK_BYTES) {
      const part = bytes.subarray(at, at + 1000 * KEYSTREAM_BLOCK_BYTES);
      for (const kernel of [simd, plain]) {
        kernel.keystream.set(part);
        kernel.gaussian(part.length / KEYSTREAM_BLOCK_BYTES);
      }
      const [one, other] = [simd.keystream.subarray(0, part.length), plain.keystream.subarray(0, part.length)];
      expect(Buffer.compare(one, other)).toBe(0);
    }
  });

  it('releases the same grid values as the twin for any activation, parameters, length and place', () => {
    fc.assert(
      fc.property(
        channel,
        fc.integer({ min: 1, max: 100 }).chain((count) => fc.tuple(fc.constant(count), activation(count))),
        fc.nat(9),
        fc.integer(),
        (parameters, [count, values], at, seed) => {
          const blocks = Math.ceil(count / NORMALS_PER_BLOCK);
          const results = (['wasm-simd', 'plain'] as const).map((kind) => {
            const kernel = createReleaseKernel([parameters], undefined, kind);
            fillKernel(kernel, pseudoRandomBytes((blocks + 1) * KEYSTREAM_BLOCK_BYTES, seed), new Float32Array(0));
            kernel.activation.set(values, at);
            kernel.gaussian(blocks + 1);
            expect(kernel.release({ channel: 0, count, block: 1, at, element: 0 })).toBe(true);
            return [...kernel.grid.subarray(at, at + count)];
          });
          expect(results[0]).toEqual(results[1]);
        },
      ),
      { numRuns: 300, seed: 2 },
    );
  });

  it('does so with parameters by element', () => {
    const arrays = (length: number, array: (v: Float32Array) => Float32Array) =>
      fc.float32Array({ minLength: length, maxLength: length, min: 0, max: 512, noNaN: true }).map(array);
    fc.assert(
      fc.property(
        channel,
        fc.integer({ min: 1, max: 60 }).chain((count) => {
          const padded = Math.ceil(count / 8) * 8;
          return fc.record({
            count: fc.constant(count),
            values: activation(count),
            gain: arrays(2 * padded, (v) => v),
            scale: arrays(2 * padded, (v) => v.map((x) => -x)),
            offset: arrays(2 * padded, (v) => v.map((x) => 256 - x)),
          });
        }),
        fc.integer(),
        (parameters, { count, values, ...elements }, seed) => {
          const padded = elements.gain.length / 2;
          elements.gain.fill(0, padded + count);
          const results = (['wasm-simd', 'plain'] as const).map((kind) => {
            const kernel = createReleaseKernel([parameters], elements satisfies ElementParameters, kind);
            fillKernel(kernel, pseudoRandomBytes(padded * 4, seed), values);
            kernel.gaussian(padded / NORMALS_PER_BLOCK);
            expect(kernel.release({ channel: 0, count, block: 0, at: 0, element: padded })).toBe(true);
            return [...kernel.grid.subarray(0, count)];
          });
          expect(results[0]).toEqual(results[1]);
        },
      ),
      { numRuns: 200, seed: 3 },
    );
  });

  it.each(['wasm-simd', 'plain'] as const)('%s says where a value is not a number, of either sign', (kind) => {
    const parameters: ChannelParameters = {
      gain: 1,
      scale: -1,
      offset: 0,
      clipLow: -4,
      clipHigh: 4,
      gridLow: -9,
      gridHigh: 9,
    };
    const kernel = createReleaseKernel([parameters], undefined, kind);
    const run = { channel: 0, count: 17, block: 0, at: 0, element: 0 };
    const bits = new Int32Array(1);
    for (const pattern of [0x7fc00000, -0x400000, 0x7f800001, -1]) {
      for (let place = 0; place < 17; place++) {
        bits[0] = pattern;
        kernel.activation.fill(0);
        new Uint8Array(kernel.activation.buffer, kernel.activation.byteOffset + 4 * place, 4).set(
          new Uint8Array(bits.buffer),
        );
        expect(kernel.release(run)).toBe(false);
      }
    }
    kernel.activation.fill(Number.POSITIVE_INFINITY, 0, 32);
    expect(kernel.release(run)).toBe(true);
  });

  it.each(['wasm-simd', 'plain'] as const)('%s fills a whole chunk, and wipes it', (kind) => {
    const kernel = createReleaseKernel([], undefined, kind);
    kernel.keystream.set(pseudoRandomBytes(CHUNK_BLOCKS * KEYSTREAM_BLOCK_BYTES, 5));
    kernel.activation.fill(1);
    kernel.gaussian(CHUNK_BLOCKS);
    kernel.wipe();
    expect(kernel.keystream.every((byte) => byte === 0)).toBe(true);
    expect(kernel.activation.every((value) => value === 0)).toBe(true);
  });
});

function pseudoRandomBytes(length: number, seed: number): Uint8Array {
  let state = seed | 0;
  return Uint8Array.from({ length }, () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return Math.imul(state ^ (state >>> 12), 0x297a2d39) >>> 24;
  });
}
