import { describe, expect, it } from 'vitest';
import { MAX_FLOAT32_TEXT, shortestFloat32, writeFloat32 } from './float32-text.js';

function text(value: number): string {
  const out = new Uint8Array(MAX_FLOAT32_TEXT);
  return new TextDecoder().decode(out.subarray(0, writeFloat32(value, out, 0)));
}

/** Bit patterns spread over all float32 numbers by a full-period linear congruential generator. */
function* patterns(count: number): Generator<number> {
  let state = 1;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield new Float32Array(Uint32Array.of(state).buffer)[0]!;
  }
}

describe('writeFloat32', () => {
  it.each([
    [0.1, '0.1'],
    [0.3, '0.3'],
    [-1.5, '-1.5'],
    [123_456.79, '123456.79'],
    [16_777_216, '16777216'],
    [999_999_936, '999999940'],
    [1e-6, '0.000001'],
    [0.000_012_345_678, '0.000012345678'],
    [0, '0'],
    [-0, '-0.0'],
    [1e9, '1000000000'],
    [1e-7, '1e-7'],
    [Number.NaN, 'NaN'],
    [Number.NEGATIVE_INFINITY, '-Infinity'],
  ])('%d', (value, expected) => {
    expect(text(Math.fround(value))).toBe(expected);
  });

  it('reads back the same for any bit pattern, as JSON', () => {
    let longest = 0;
    for (const value of patterns(50_000)) {
      const written = text(value);
      if (!Number.isFinite(value)) continue;
      if (!Object.is(Math.fround(JSON.parse(written)), value)) expect(written).toBe(String(value));
      longest = Math.max(longest, written.length);
    }
    expect(longest).toBeLessThanOrEqual(MAX_FLOAT32_TEXT);
  });

  it('reads back the same in the range of activations, with at most nine digits', () => {
    for (const pattern of patterns(50_000)) {
      const value = Math.fround((pattern % 1) * 8);
      if (!Number.isFinite(value)) continue;
      const written = text(value);
      if (Math.fround(JSON.parse(written)) !== value) expect(written).toBe(String(value));
      if (Math.abs(value) < 1e-6) continue;
      expect(written.replace(/^-?0?\.?0*|\./g, '').length).toBeLessThanOrEqual(9);
    }
  });
});

describe('shortestFloat32', () => {
  it('rounds back to the same number', () => {
    for (const value of patterns(50_000)) {
      if (!Object.is(Math.fround(shortestFloat32(value)), value)) expect(shortestFloat32(value)).toBe(value);
    }
    expect(shortestFloat32(Math.fround(0.15))).toBe(0.15);
    expect(shortestFloat32(-0)).toBe(-0);
  });
});
