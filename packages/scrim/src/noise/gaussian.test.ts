import { createCipheriv } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { gaussianInPlace, KEYSTREAM_BLOCK_BYTES, NORMALS_PER_BLOCK } from './gaussian.js';

/** The formula of the header in double precision: normals i and i + 4 of a block. */
function reference(a: number, b: number): [number, number] {
  const low = (b & 0xfff) + 0.5;
  const u = (a >>> 0) * 2 ** -32 + low * 2 ** -44;
  // Above ½ from 1 − u, which is exact where u is not.
  const log = u < 0.5 ? Math.log(u) : Math.log1p(-((~a >>> 0) + (4096 - low) / 4096) * 2 ** -32);
  const r = Math.sqrt(-2 * log);
  const angle = (((b >>> 12) & 0x3ffff) + 0.5) * 2 ** -18 * (Math.PI / 2);
  return [(b < 0 ? -1 : 1) * r * Math.cos(angle), (b << 1 < 0 ? -1 : 1) * r * Math.sin(angle)];
}

function normals(words: Int32Array): Float32Array {
  const memory = new Uint8Array(words.slice().buffer);
  gaussianInPlace(memory, words.length / 8);
  return new Float32Array(memory.buffer);
}

function largestError(words: Int32Array): number {
  const values = normals(words);
  let largest = 0;
  for (let block = 0; block < words.length; block += 8) {
    for (let i = block; i < block + 4; i++) {
      const [first, second] = reference(words[i] as number, words[i + 4] as number);
      largest = Math.max(
        largest,
        Math.abs((values[i] as number) - first) / Math.max(1, Math.abs(first)),
        Math.abs((values[i + 4] as number) - second) / Math.max(1, Math.abs(second)),
      );
    }
  }
  return largest;
}

describe('gaussianInPlace', () => {
  it('is within 2e-6·max(1, |ε|) of the formula in double precision, on a million normals', () => {
    const cipher = createCipheriv('aes-256-ctr', new Uint8Array(32).fill(3), new Uint8Array(16));
    const bytes = new Uint8Array(cipher.update(new Uint8Array(4 * 2 ** 20)));
    expect(largestError(new Int32Array(bytes.buffer))).toBeLessThan(2e-6);
  });

  it('is as close where u is near 0, near ½ and near 1, for angles all over the circle', () => {
    const near = [
      0,
      1,
      2,
      3,
      100,
      4095,
      2 ** 24 - 1,
      2 ** 24,
      2 ** 24 + 1,
      2 ** 30 - 1,
      2 ** 30,
      2 ** 31 - 2,
      2 ** 31 - 1,
    ];
    const words: number[] = [];
    for (const place of near) {
      for (const a of [place, ~place, -place]) {
        for (let turn = 0; turn < 64; turn++) {
          for (const low of [0, 1, 2047, 2048, 4095])
            words.push(a, turn * 2 ** 26 + low, a, (turn + 1) * 2 ** 26 - 4096 + low);
        }
      }
    }
    // Pairs (a, b) into blocks of four a and four b.
    const blocks = new Int32Array(words.length);
    for (let pair = 0; pair < words.length / 2; pair++) {
      const block = Math.floor(pair / 4) * 8 + (pair % 4);
      blocks[block] = words[2 * pair] as number;
      blocks[block + 4] = words[2 * pair + 1] as number;
    }
    expect(largestError(blocks)).toBeLessThan(2e-6);
  });

  it('reaches 7.9 and no further: the smallest u is 2⁻⁴⁵', () => {
    const block = new Int32Array(8);
    const [first, , , , second] = normals(block);
    expect(Math.hypot(first as number, second as number)).toBeCloseTo(Math.sqrt(90 * Math.LN2), 5);
    expect(first).toBeLessThan(7.9);
  });

  it('covers the circle evenly: each quadrant has both signs and the angles are symmetric', () => {
    const block = Int32Array.of(1, 1, 1, 1, 0, 0x40000000, -0x80000000, -0x40000000);
    const values = normals(block);
    const [x, y] = [values[0] as number, values[4] as number];
    expect([...values]).toEqual([x, x, -x, -x, y, -y, y, -y]);
    const mirrored = normals(Int32Array.of(1, 1, 1, 1, 0x3ffff000, 0, 0, 0));
    expect(mirrored[0]).toBeCloseTo(y, 6);
    expect(mirrored[4]).toBeCloseTo(x, 6);
  });

  it('keeps to the blocks it was given', () => {
    const memory = new Uint8Array(3 * KEYSTREAM_BLOCK_BYTES).fill(0x11);
    gaussianInPlace(memory, 2);
    expect(memory.subarray(2 * KEYSTREAM_BLOCK_BYTES).every((byte) => byte === 0x11)).toBe(true);
    expect(NORMALS_PER_BLOCK * 4).toBe(KEYSTREAM_BLOCK_BYTES);
  });
});
