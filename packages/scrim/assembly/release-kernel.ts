/**
 * WebAssembly SIMD kernel of the release: keystream bytes and an activation in, Int16 grid values out; and of its reader,
 * grid values in, float32 out.
 *
 * Compiled by AssemblyScript (compile-release-kernel.mjs) into src/noise/gen/release-kernel.ts. src/noise/gaussian.ts and
 * src/noise/grid.ts are its plain twins and say the formulas and the error bounds; here stand the same operations in
 * the same order, without fused multiply-add, so that both give the same bits. What lies where in memory is the
 * business of src/noise/release-kernel.ts.
 *
 * Three things are for speed alone. Constants are loaded from memory before each loop: as literals or parameters V8
 * would build them anew in every round. The formula of the normals is cut into four loops that hand over through a
 * scratch area: one long chain of dependent operations would leave the processor waiting (a quarter slower). And a
 * round does two blocks, so an odd number of blocks reads and writes one block past its end.
 */

const BITS: usize = memory.data<u32>([
  0xfff, 0x45000000, 0xff800000, 0x4f000000, 0x10000000, 0x80000000, 0x3ffff000, 0x3f800010, 0x20000000,
]);

const NUMBERS: usize = memory.data<f32>([
  2047.9998779296875, 1.0, 2.0, -0.6845210113210151, -0.7917892254931447, -1.3335200576197228, -3.9999993417270088,
  -1.6525916589735634e-7, 0.5, 1.5, -0.0032542305629506313, 0.05634242959293945, -0.456765156146417, 1.1107207311256166,
  12582912.0,
]);

/** Bytes of keystream in a block, which gives eight values. */
const BLOCK: usize = 32;
/** Blocks that go through all four loops at a time, so that they stay in the first-level cache. */
const TILE: usize = 256 * BLOCK;
/** One vector for each block of a tile. */
const SCRATCH: usize = memory.data(256 * 16 + 16, 16);

function bits(index: usize): v128 {
  return v128.load32_splat(BITS + (index << 2));
}

function number(index: usize): v128 {
  return v128.load32_splat(NUMBERS + (index << 2));
}

/** First address that the caller may use. */
export function heapBase(): usize {
  return __heap_base;
}

/** Turns blocks of keystream from `start` to `end` into eight standard normals each, in place. */
export function gaussian(start: usize, end: usize): void {
  for (let tile = start; tile < end; tile += TILE) {
    const last = min(tile + TILE, end);
    logarithms(tile, last);
    radii(tile, last);
    sines(tile, last);
    turns(tile, last);
  }
}

/** Replaces the words `a` by f, and writes the part of the logarithm that the exponent makes to the scratch area. */
function logarithms(start: usize, end: usize): void {
  const lowBits = bits(0);
  const lowBase = bits(1);
  const exponentField = bits(2);
  const topExponent = bits(3);
  const exponentShift = bits(4);
  const lowOffset = number(0);
  const one = number(1);
  const logStep = number(7);
  let whole = SCRATCH;
  for (let at = start; at < end; at += 2 * BLOCK) {
    const low0 = f32x4.sub(v128.or(v128.and(v128.load(at, 16), lowBits), lowBase), lowOffset);
    const t0 = f32x4.add(f32x4.convert_i32x4_s(v128.load(at, 0)), low0);
    const exponent0 = i32x4.sub(i32x4.min_u(v128.and(t0, exponentField), topExponent), topExponent);
    const scaled0 = i32x4.sub(i32x4.sub(t0, exponentShift), exponent0);
    v128.store(at, f32x4.sub(scaled0, v128.andnot(one, i32x4.shr_s(t0, 31))), 0);
    v128.store(whole, f32x4.mul(f32x4.convert_i32x4_s(exponent0), logStep), 0);

    const low1 = f32x4.sub(v128.or(v128.and(v128.load(at, 48), lowBits), lowBase), lowOffset);
    const t1 = f32x4.add(f32x4.convert_i32x4_s(v128.load(at, 32)), low1);
    const exponent1 = i32x4.sub(i32x4.min_u(v128.and(t1, exponentField), topExponent), topExponent);
    const scaled1 = i32x4.sub(i32x4.sub(t1, exponentShift), exponent1);
    v128.store(at, f32x4.sub(scaled1, v128.andnot(one, i32x4.shr_s(t1, 31))), 32);
    v128.store(whole, f32x4.mul(f32x4.convert_i32x4_s(exponent1), logStep), 16);
    whole += 32;
  }
}

/** Replaces f by r = √(−2 ln u). */
function radii(start: usize, end: usize): void {
  const two = number(2);
  const p3 = number(3);
  const p2 = number(4);
  const p1 = number(5);
  const p0 = number(6);
  let whole = SCRATCH;
  for (let at = start; at < end; at += 2 * BLOCK) {
    const f0 = v128.load(at, 0);
    const s0 = f32x4.div(f0, f32x4.add(f0, two));
    const z0 = f32x4.mul(s0, s0);
    let q0 = f32x4.add(f32x4.mul(z0, p3), p2);
    q0 = f32x4.add(f32x4.mul(z0, q0), p1);
    q0 = f32x4.add(f32x4.mul(z0, q0), p0);
    v128.store(at, f32x4.sqrt(f32x4.add(f32x4.mul(s0, q0), v128.load(whole, 0))), 0);

    const f1 = v128.load(at, 32);
    const s1 = f32x4.div(f1, f32x4.add(f1, two));
    const z1 = f32x4.mul(s1, s1);
    let q1 = f32x4.add(f32x4.mul(z1, p3), p2);
    q1 = f32x4.add(f32x4.mul(z1, q1), p1);
    q1 = f32x4.add(f32x4.mul(z1, q1), p0);
    v128.store(at, f32x4.sqrt(f32x4.add(f32x4.mul(s1, q1), v128.load(whole, 16))), 32);
    whole += 32;
  }
}

/** Writes S = sin(xπ/2)/√2 to the scratch area, x from bits 12 to 29 of the words `b`. */
function sines(start: usize, end: usize): void {
  const angleBits = bits(6);
  const angleBase = bits(7);
  const middle = number(9);
  const p3 = number(10);
  const p2 = number(11);
  const p1 = number(12);
  const p0 = number(13);
  let sine = SCRATCH;
  for (let at = start; at < end; at += 2 * BLOCK) {
    const bits0 = i32x4.shr_u(v128.and(v128.load(at, 16), angleBits), 7);
    const x0 = f32x4.sub(v128.or(bits0, angleBase), middle);
    const z0 = f32x4.mul(x0, x0);
    let q0 = f32x4.add(f32x4.mul(z0, p3), p2);
    q0 = f32x4.add(f32x4.mul(z0, q0), p1);
    q0 = f32x4.add(f32x4.mul(z0, q0), p0);
    v128.store(sine, f32x4.mul(x0, q0), 0);

    const bits1 = i32x4.shr_u(v128.and(v128.load(at, 48), angleBits), 7);
    const x1 = f32x4.sub(v128.or(bits1, angleBase), middle);
    const z1 = f32x4.mul(x1, x1);
    let q1 = f32x4.add(f32x4.mul(z1, p3), p2);
    q1 = f32x4.add(f32x4.mul(z1, q1), p1);
    q1 = f32x4.add(f32x4.mul(z1, q1), p0);
    v128.store(sine, f32x4.mul(x1, q1), 16);
    sine += 32;
  }
}

/** Replaces r and the words `b` by r·cos θ and r·sin θ. */
function turns(start: usize, end: usize): void {
  const sign = bits(5);
  const half = number(8);
  let sine = SCRATCH;
  for (let at = start; at < end; at += 2 * BLOCK) {
    const s0 = v128.load(sine, 0);
    const c0 = f32x4.sqrt(f32x4.sub(half, f32x4.mul(s0, s0)));
    const r0 = v128.load(at, 0);
    const b0 = v128.load(at, 16);
    v128.store(at, v128.xor(f32x4.mul(r0, f32x4.sub(c0, s0)), v128.and(b0, sign)), 0);
    v128.store(at, v128.xor(f32x4.mul(r0, f32x4.add(c0, s0)), v128.and(i32x4.shl(b0, 1), sign)), 16);

    const s1 = v128.load(sine, 16);
    const c1 = f32x4.sqrt(f32x4.sub(half, f32x4.mul(s1, s1)));
    const r1 = v128.load(at, 32);
    const b1 = v128.load(at, 48);
    v128.store(at, v128.xor(f32x4.mul(r1, f32x4.sub(c1, s1)), v128.and(b1, sign)), 32);
    v128.store(at, v128.xor(f32x4.mul(r1, f32x4.add(c1, s1)), v128.and(i32x4.shl(b1, 1), sign)), 48);
    sine += 32;
  }
}

/** −round(μ/step + ε·σ/step) + 1.5·2²³. */
function minusNoise(epsilon: v128, scale: v128, offset: v128, integers: v128): v128 {
  return f32x4.add(f32x4.add(f32x4.mul(epsilon, scale), offset), integers);
}

/** round(clip(z)·m/step) + 1.5·2²³; NaN stays NaN. */
function quantised(z: v128, low: v128, high: v128, gain: v128, integers: v128): v128 {
  return f32x4.add(f32x4.mul(f32x4.pmax(f32x4.pmin(z, high), low), gain), integers);
}

/** Eight grid values from the quantised activation and the noise, whose difference as integers is exact. */
function gridValues(q0: v128, q1: v128, n0: v128, n1: v128, low: v128, high: v128): v128 {
  const k = i16x8.narrow_i32x4_s(i32x4.sub(q0, n0), i32x4.sub(q1, n1));
  return i16x8.min_s(i16x8.max_s(k, low), high);
}

/**
 * Releases `count` values of one channel. The record of its parameters is five float32 (low and high of the clip range,
 * gain = m/step, scale = −σ/step, offset = −μ/step) and two int16 (lowest and highest grid value). Reads and
 * writes up to fifteen values past the end. Returns 1 if a value read is NaN, else 0.
 */
export function releaseChannel(count: i32, noise: usize, activation: usize, grid: usize, record: usize): i32 {
  const low = v128.load32_splat(record);
  const high = v128.load32_splat(record, 4);
  const gain = v128.load32_splat(record, 8);
  const scale = v128.load32_splat(record, 12);
  const offset = v128.load32_splat(record, 16);
  const gridLow = v128.load16_splat(record, 20);
  const gridHigh = v128.load16_splat(record, 22);
  const integers = number(14);
  let seen = i32x4.splat(0);
  const end = grid + ((<usize>count) << 1);
  while (grid < end) {
    const q0 = quantised(v128.load(activation, 0), low, high, gain, integers);
    const q1 = quantised(v128.load(activation, 16), low, high, gain, integers);
    seen = v128.or(seen, v128.or(q0, q1));
    const n0 = minusNoise(v128.load(noise, 0), scale, offset, integers);
    const n1 = minusNoise(v128.load(noise, 16), scale, offset, integers);
    v128.store(grid, gridValues(q0, q1, n0, n1, gridLow, gridHigh), 0);

    const q2 = quantised(v128.load(activation, 32), low, high, gain, integers);
    const q3 = quantised(v128.load(activation, 48), low, high, gain, integers);
    seen = v128.or(seen, v128.or(q2, q3));
    const n2 = minusNoise(v128.load(noise, 32), scale, offset, integers);
    const n3 = minusNoise(v128.load(noise, 48), scale, offset, integers);
    v128.store(grid, gridValues(q2, q3, n2, n3, gridLow, gridHigh), 16);
    noise += 64;
    activation += 64;
    grid += 32;
  }
  return i32(v128.any_true(v128.and(seen, bits(8))));
}

/** As {@link releaseChannel}, with gain, scale and offset from arrays that have a value for each element. */
export function releaseElements(
  count: i32,
  noise: usize,
  activation: usize,
  grid: usize,
  record: usize,
  gain: usize,
  scale: usize,
  offset: usize,
): i32 {
  const low = v128.load32_splat(record);
  const high = v128.load32_splat(record, 4);
  const gridLow = v128.load16_splat(record, 20);
  const gridHigh = v128.load16_splat(record, 22);
  const integers = number(14);
  let seen = i32x4.splat(0);
  const end = grid + ((<usize>count) << 1);
  while (grid < end) {
    const q0 = quantised(v128.load(activation), low, high, v128.load(gain), integers);
    const q1 = quantised(v128.load(activation, 16), low, high, v128.load(gain, 16), integers);
    seen = v128.or(seen, v128.or(q0, q1));
    const n0 = minusNoise(v128.load(noise), v128.load(scale), v128.load(offset), integers);
    const n1 = minusNoise(v128.load(noise, 16), v128.load(scale, 16), v128.load(offset, 16), integers);
    v128.store(grid, gridValues(q0, q1, n0, n1, gridLow, gridHigh));
    noise += 32;
    activation += 32;
    gain += 32;
    scale += 32;
    offset += 32;
    grid += 16;
  }
  return i32(v128.any_true(v128.and(seen, bits(8))));
}

/**
 * Grid values times `step`, one float32 in memory, as float32. Reads and writes up to fifteen values past the end.
 */
export function scaleGrid(count: i32, grid: usize, values: usize, step: usize): void {
  const scale = v128.load32_splat(step);
  const end = grid + ((<usize>count) << 1);
  while (grid < end) {
    const k0 = v128.load(grid, 0);
    const k1 = v128.load(grid, 16);
    v128.store(values, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(k0)), scale), 0);
    v128.store(values, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(k0)), scale), 16);
    v128.store(values, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(k1)), scale), 32);
    v128.store(values, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(k1)), scale), 48);
    grid += 32;
    values += 64;
  }
}
