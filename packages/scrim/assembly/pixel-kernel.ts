/**
 * WebAssembly SIMD kernel of the pixels: rows of RGB or RGBA bytes in, resampled and normalised planes of float32 out.
 *
 * Compiled by AssemblyScript (compile-pixel-kernel.mjs) into src/vision/gen/pixel-kernel.ts. The plain twin in
 * src/vision/pixel-kernel.ts does the same operations in the same order, so that both give the same bits; what lies where
 * in memory is decided there too.
 */

/** First address that the caller may use. */
export function heapBase(): usize {
  return __heap_base;
}

/**
 * One row along x. Output pixel i is start + Σₜ weights[i·taps + t] · pixel(offsets[i] + t·channels); reads up to a byte
 * past the last pixel. `width` is a multiple of 4; red, green and blue go to three planes, `plane` bytes apart. One,
 * two and four taps, which copying, linear and cubic enlarging have, are written out.
 */
export function horizontal(
  source: usize,
  channels: usize,
  offsets: usize,
  weights: usize,
  taps: usize,
  width: usize,
  start: usize,
  target: usize,
  plane: usize,
): void {
  const from = v128.load(start);
  const step = taps << 2;
  const end = target + (width << 2);
  if (taps == 1) {
    for (; target < end; target += 16, offsets += 16, weights += 16) {
      store4(
        tap(from, source + load<u32>(offsets), weights),
        tap(from, source + load<u32>(offsets, 4), weights + 4),
        tap(from, source + load<u32>(offsets, 8), weights + 8),
        tap(from, source + load<u32>(offsets, 12), weights + 12),
        target,
        plane,
      );
    }
  } else if (taps == 2) {
    for (; target < end; target += 16, offsets += 16, weights += 32) {
      store4(
        tap2(from, source + load<u32>(offsets), channels, weights),
        tap2(from, source + load<u32>(offsets, 4), channels, weights + 8),
        tap2(from, source + load<u32>(offsets, 8), channels, weights + 16),
        tap2(from, source + load<u32>(offsets, 12), channels, weights + 24),
        target,
        plane,
      );
    }
  } else if (taps == 4) {
    for (; target < end; target += 16, offsets += 16, weights += 64) {
      store4(
        tap4(from, source + load<u32>(offsets), channels, weights),
        tap4(from, source + load<u32>(offsets, 4), channels, weights + 16),
        tap4(from, source + load<u32>(offsets, 8), channels, weights + 32),
        tap4(from, source + load<u32>(offsets, 12), channels, weights + 48),
        target,
        plane,
      );
    }
  } else {
    for (; target < end; target += 16, offsets += 16, weights += 4 * step) {
      store4(
        pixel(from, source + load<u32>(offsets), channels, weights, step),
        pixel(from, source + load<u32>(offsets, 4), channels, weights + step, step),
        pixel(from, source + load<u32>(offsets, 8), channels, weights + 2 * step, step),
        pixel(from, source + load<u32>(offsets, 12), channels, weights + 3 * step, step),
        target,
        plane,
      );
    }
  }
}

/** sum + weight · the pixel at `at`, as four floats of which three count. */
// @ts-expect-error: a decorator of AssemblyScript
@inline
function tap(sum: v128, at: usize, weight: usize): v128 {
  const bytes = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(at)));
  // The bytes are far below 2³¹, and the signed conversion is one instruction.
  return f32x4.add(sum, f32x4.mul(f32x4.convert_i32x4_s(bytes), v128.load32_splat(weight)));
}

// @ts-expect-error: a decorator of AssemblyScript
@inline
function tap2(sum: v128, at: usize, channels: usize, weights: usize): v128 {
  return tap(tap(sum, at, weights), at + channels, weights + 4);
}

// @ts-expect-error: a decorator of AssemblyScript
@inline
function tap4(sum: v128, at: usize, channels: usize, weights: usize): v128 {
  return tap2(tap2(sum, at, channels, weights), at + 2 * channels, channels, weights + 8);
}

// @ts-expect-error: a decorator of AssemblyScript
@inline
function pixel(sum: v128, at: usize, channels: usize, weights: usize, step: usize): v128 {
  for (const end = weights + step; weights < end; weights += 4, at += channels) sum = tap(sum, at, weights);
  return sum;
}

/** Stores four pixels as four reds, four greens and four blues. */
// @ts-expect-error: a decorator of AssemblyScript
@inline
function store4(a: v128, b: v128, c: v128, d: v128, target: usize, plane: usize): void {
  const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
  const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
  v128.store(target, v128.shuffle<f32>(ab, cd, 0, 1, 4, 5));
  v128.store(target + plane, v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
  const blueAb = v128.shuffle<f32>(a, b, 2, 6, 2, 6);
  const blueCd = v128.shuffle<f32>(c, d, 2, 6, 2, 6);
  v128.store(target + 2 * plane, v128.shuffle<f32>(blueAb, blueCd, 0, 1, 4, 5));
}

/**
 * One row along y, plane by plane: target[i] = Σₜ weights[t] · rows[t][i]. `rows` holds the addresses of rows whose
 * three planes of `bytes` bytes, a multiple of 16, lie one after the other; those of the target lie `plane` apart.
 */
export function vertical(
  rows: usize,
  weights: usize,
  taps: usize,
  bytes: usize,
  target: usize,
  plane: usize,
): void {
  for (let from: usize = 0; from < 3 * bytes; from += bytes, target += plane) {
    const row0 = load<u32>(rows) + from;
    const weight0 = v128.load32_splat(weights);
    if (taps == 1) {
      for (let x: usize = 0; x < bytes; x += 16) v128.store(target + x, f32x4.mul(v128.load(row0 + x), weight0));
      continue;
    }
    const row1 = load<u32>(rows, 4) + from;
    const weight1 = v128.load32_splat(weights, 4);
    if (taps == 2) {
      for (let x: usize = 0; x < bytes; x += 16) v128.store(target + x, pair(row0 + x, weight0, row1 + x, weight1));
      continue;
    }
    if (taps == 4) {
      const row2 = load<u32>(rows, 8) + from;
      const row3 = load<u32>(rows, 12) + from;
      const weight2 = v128.load32_splat(weights, 8);
      const weight3 = v128.load32_splat(weights, 12);
      for (let x: usize = 0; x < bytes; x += 16) {
        const three = f32x4.add(pair(row0 + x, weight0, row1 + x, weight1), f32x4.mul(v128.load(row2 + x), weight2));
        v128.store(target + x, f32x4.add(three, f32x4.mul(v128.load(row3 + x), weight3)));
      }
      continue;
    }
    for (let x: usize = 0; x < bytes; x += 16) {
      let sum = pair(row0 + x, weight0, row1 + x, weight1);
      for (let t: usize = 8; t < taps << 2; t += 4) {
        const row = load<u32>(rows + t) + from;
        sum = f32x4.add(sum, f32x4.mul(v128.load(row + x), v128.load32_splat(weights + t)));
      }
      v128.store(target + x, sum);
    }
  }
}

// @ts-expect-error: a decorator of AssemblyScript
@inline
function pair(at0: usize, weight0: v128, at1: usize, weight1: v128): v128 {
  return f32x4.add(f32x4.mul(v128.load(at0), weight0), f32x4.mul(v128.load(at1), weight1));
}
