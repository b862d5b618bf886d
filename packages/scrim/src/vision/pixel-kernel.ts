/**
 * The kernel of the pixels with its memory: WebAssembly SIMD (assembly/pixel-kernel.ts) where there is, else the plain
 * twin below. Both give the same bits: sums run over the taps in order and are rounded to float32 at every step.
 *
 * A kernel works on one picture at a time: `begin` says how, `read` turns a row of bytes into a slot, `combine` makes
 * an output row of a band from slots. Which row is needed when is the business of pixels.ts.
 */
import { PIXEL_KERNEL } from './gen/pixel-kernel.js';
import type { Taps } from './resample.js';

/** Which kernel runs. */
export type PixelKernelKind = 'wasm-simd' | 'plain';

/** One picture's way through a kernel. */
export interface PixelJob {
  /** Pixels and bytes of a source row. */
  readonly sourceWidth: number;
  readonly channels: 3 | 4;
  /** Width of the output; taps along x. */
  readonly width: number;
  readonly taps: Taps;
  /** Multiplies every pixel; then `start` is added to red, green and blue. */
  readonly scale: number;
  readonly start: readonly [number, number, number];
  /** How many resampled rows are kept, and how many output rows a band has. */
  readonly slots: number;
  readonly bandRows: number;
}

/** Operations on one picture. */
export interface PixelKernel {
  readonly kind: PixelKernelKind;
  /** Elements from one row of the band to the next: the width, rounded up to a multiple of 4. */
  readonly pitch: number;
  begin(job: PixelJob): void;
  /** Resamples the row that starts at byte `at` of `data` into a slot. */
  read(data: Uint8Array | Uint8ClampedArray, at: number, slot: number): void;
  /** Row `row` of the band = Σₜ weights[from + t] · slot slots[t]. */
  combine(slots: readonly number[], weights: Float32Array, from: number, row: number): void;
  /** The first `rows` rows of a plane (0 red, 1 green, 2 blue) of the band; valid until the next `begin`. */
  band(plane: number, rows: number): Float32Array;
}

/** Makes a kernel; default: WebAssembly SIMD if this runtime has it. */
export function createPixelKernel(kind?: PixelKernelKind): PixelKernel {
  if (kind === 'plain') return createPlain();
  if (kind === 'wasm-simd') return createSimd();
  try {
    return createSimd();
  } catch {
    return createPlain();
  }
}

const pitchOf = (width: number): number => Math.ceil(width / 4) * 4;

interface KernelExports {
  readonly memory: WebAssembly.Memory;
  heapBase(): number;
  horizontal(
    source: number,
    channels: number,
    offsets: number,
    weights: number,
    taps: number,
    width: number,
    start: number,
    target: number,
    plane: number,
  ): void;
  vertical(rows: number, weights: number, taps: number, bytes: number, target: number, plane: number): void;
}

let compiled: WebAssembly.Module | undefined;

function createSimd(): PixelKernel {
  compiled ??= new WebAssembly.Module(Uint8Array.from(atob(PIXEL_KERNEL), (character) => character.charCodeAt(0)));
  const kernel = new WebAssembly.Instance(compiled).exports as unknown as KernelExports;
  const base = Math.ceil(kernel.heapBase() / 16) * 16;
  let layout = layoutOf(0, 1, 0, 1, 0, 0);
  let pitch = 0;
  let bandRows = 0;
  let channels = 3;
  let taps = 1;
  let rowBytes = 0;
  let bytes = new Uint8Array(kernel.memory.buffer);
  let floats = new Float32Array(kernel.memory.buffer);
  let words = new Uint32Array(kernel.memory.buffer);

  /** Addresses of what a job needs, one after the other, each on a multiple of 16. */
  function layoutOf(
    source: number,
    tapCount: number,
    width: number,
    verticalTaps: number,
    slots: number,
    rows: number,
  ) {
    let next = base;
    const take = (size: number): number => {
      const at = next;
      next += Math.ceil(size / 16) * 16;
      return at;
    };
    const plane = 4 * width;
    return {
      start: take(16),
      offsets: take(plane),
      weights: take(plane * tapCount),
      rowAddresses: take(4 * verticalTaps),
      rowWeights: take(4 * verticalTaps),
      // Four bytes more: the last pixel is read as a word.
      source: take(source + 4),
      slots: take(3 * plane * slots),
      band: take(3 * plane * rows),
      end: next,
    };
  }

  return {
    kind: 'wasm-simd',
    get pitch() {
      return pitch;
    },
    begin(job) {
      ({ channels, bandRows } = job);
      taps = job.taps.count;
      pitch = pitchOf(job.width);
      rowBytes = job.sourceWidth * channels;
      layout = layoutOf(rowBytes, taps, pitch, job.slots, job.slots, bandRows);
      const missing = layout.end - kernel.memory.buffer.byteLength;
      if (missing > 0) kernel.memory.grow(Math.ceil(missing / 65_536));
      bytes = new Uint8Array(kernel.memory.buffer);
      floats = new Float32Array(kernel.memory.buffer);
      words = new Uint32Array(kernel.memory.buffer);
      floats.set([...job.start, 0], layout.start / 4);
      words.fill(0, layout.offsets / 4, layout.offsets / 4 + pitch);
      floats.fill(0, layout.weights / 4, layout.weights / 4 + pitch * taps);
      for (let x = 0; x < job.width; x++) words[layout.offsets / 4 + x] = job.taps.starts[x]! * channels;
      floats.set(scaled(job), layout.weights / 4);
    },
    read(data, at, slot) {
      bytes.set(data.subarray(at, at + rowBytes), layout.source);
      const target = layout.slots + 12 * pitch * slot;
      const { source, offsets, weights, start } = layout;
      kernel.horizontal(source, channels, offsets, weights, taps, pitch, start, target, 4 * pitch);
    },
    combine(slots, weights, from, row) {
      for (let t = 0; t < slots.length; t++) {
        floats[layout.rowWeights / 4 + t] = weights[from + t]!;
        words[layout.rowAddresses / 4 + t] = layout.slots + 12 * pitch * slots[t]!;
      }
      const target = layout.band + 4 * pitch * row;
      const { rowAddresses, rowWeights } = layout;
      kernel.vertical(rowAddresses, rowWeights, slots.length, 4 * pitch, target, 4 * pitch * bandRows);
    },
    band(plane, rows) {
      const at = layout.band / 4 + pitch * bandRows * plane;
      return floats.subarray(at, at + pitch * rows);
    },
  };
}

/** The taps' weights times the job's scale, rounded once. */
function scaled({ taps, scale }: PixelJob): Float32Array<ArrayBuffer> {
  return Float32Array.from(taps.weights, (weight) => weight * scale);
}

function createPlain(): PixelKernel {
  const { fround } = Math;
  let job: PixelJob | undefined;
  let pitch = 0;
  let weights = new Float32Array();
  let start = new Float32Array(3);
  let kept: Float32Array[][] = [];
  let bands: Float32Array[] = [];
  return {
    kind: 'plain',
    get pitch() {
      return pitch;
    },
    begin(next) {
      job = next;
      pitch = pitchOf(next.width);
      weights = scaled(next);
      start = Float32Array.from(next.start);
      const planes = (size: number): Float32Array[] => [0, 1, 2].map(() => new Float32Array(size));
      kept = Array.from({ length: next.slots }, () => planes(pitch));
      bands = planes(pitch * next.bandRows);
    },
    read(data, at, slot) {
      const { taps, channels, width } = job!;
      for (let colour = 0; colour < 3; colour++) {
        const target = kept[slot]![colour]!;
        for (let x = 0; x < width; x++) {
          let sum = start[colour]!;
          let from = at + taps.starts[x]! * channels + colour;
          for (let t = x * taps.count; t < (x + 1) * taps.count; t++, from += channels) {
            sum = fround(sum + fround(data[from]! * weights[t]!));
          }
          target[x] = sum;
        }
      }
    },
    combine(slots, factors, from, row) {
      for (let plane = 0; plane < 3; plane++) {
        const target = bands[plane]!;
        for (let x = 0; x < pitch; x++) {
          let sum = 0;
          for (let t = 0; t < slots.length; t++) {
            const product = fround(kept[slots[t]!]![plane]![x]! * factors[from + t]!);
            sum = t === 0 ? product : fround(sum + product);
          }
          target[row * pitch + x] = sum;
        }
      }
    },
    band(plane, rows) {
      return bands[plane]!.subarray(0, pitch * rows);
    },
  };
}
