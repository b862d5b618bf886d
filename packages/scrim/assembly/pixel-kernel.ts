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
 * past the last pixel. `width` is a multiple of 4; red, green and blue go to three planes, `plane` bytes apart.
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
  while (target < end) {
    const a = pixel(source + load<u32>(offsets), channels, weights, step, from);
    const b = pixel(source + load<u32>(offsets, 4), channels, weights + step, step, from);
    const c = pixel(source + load<u32>(offsets, 8), channels, weights + 2 * step, step, from);
    const d = pixel(source + load<u32>(offsets, 12), channels, weights + 3 * step, step, from);
    const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
    const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
    v128.store(target, v128.shuffle<f32>(ab, cd, 0, 1, 4, 5));
    v128.store(target + plane, v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
    const blueAb = v128.shuffle<f32>(a, b, 2, 6, 2, 6);
    const blueCd = v128.shuffle<f32>(c, d, 2, 6, 2, 6);
    v128.store(target + 2 * plane, v128.shuffle<f32>(blueAb, blueCd, 0, 1, 4, 5));
    target += 16;
    offsets += 16;
    weights += 4 * step;
  }
}

// @ts-expect-error: a decorator of AssemblyScript
@inline
function pixel(at: usize, channels: usize, weights: usize, step: usize, from: v128): v128 {
  let sum = from;
  const end = weights + step;
  while (weights < end) {
    const bytes = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(at)));
    sum = f32x4.add(sum, f32x4.mul(f32x4.convert_i32x4_u(bytes), v128.load32_splat(weights)));
    at += channels;
    weights += 4;
  }
  return sum;
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
  const row0 = load<u32>(rows);
  const row1 = load<u32>(taps > 1 ? rows + 4 : rows);
  const weight0 = v128.load32_splat(weights);
  const weight1 = taps > 1 ? v128.load32_splat(weights, 4) : f32x4.splat(0);
  for (let from: usize = 0; from < 3 * bytes; from += bytes, target += plane) {
    for (let x: usize = 0; x < bytes; x += 16) {
      let sum = f32x4.mul(v128.load(row0 + from + x), weight0);
      if (taps > 1) sum = f32x4.add(sum, f32x4.mul(v128.load(row1 + from + x), weight1));
      for (let t: usize = 2; t < taps; t++) {
        const row = load<u32>(rows + (t << 2)) + from;
        sum = f32x4.add(sum, f32x4.mul(v128.load(row + x), v128.load32_splat(weights + (t << 2))));
      }
      v128.store(target + x, sum);
    }
  }
}
