/**
 * The kernel of the release with its memory: WebAssembly SIMD (assembly/release-kernel.ts) where there is, else the
 * plain twin. Both give the same bits.
 *
 * A kernel works on chunks: the caller fills `keystream` and `activation`, calls `gaussian`, then releases run by run,
 * and reads `grid`. One kernel serves one caller at a time. The way back, from grid values to float32, has a kernel and
 * memory of its own: whoever reads a release need not be who made it.
 */
import { gaussianInPlace, KEYSTREAM_BLOCK_BYTES, NORMALS_PER_BLOCK } from './gaussian.js';
import { RELEASE_KERNEL } from './gen/release-kernel.js';
import { type ChannelParameters, dequantise, releaseValue } from './grid.js';

/** Largest number of keystream blocks of a chunk: 64 KiB, so that a chunk stays in the second-level cache. */
export const CHUNK_BLOCKS = 2048;
/** Largest number of values of a chunk. */
export const CHUNK_VALUES: number = CHUNK_BLOCKS * NORMALS_PER_BLOCK;

/** Which kernel runs. */
export type KernelKind = 'wasm-simd' | 'plain';

/** Parameters for each element, in steps (see ChannelParameters); each channel is padded to a multiple of eight. */
export interface ElementParameters {
  readonly gain: Float32Array;
  readonly scale: Float32Array;
  readonly offset: Float32Array;
}

/** `count` values of one channel in the current chunk. */
export interface Run {
  /** Place of the channel among those that are sent. */
  readonly channel: number;
  readonly count: number;
  /** First keystream block. */
  readonly block: number;
  /** Where the values begin in `activation` and in `grid`. */
  readonly at: number;
  /** Where their parameters begin in {@link ElementParameters}; unused without. */
  readonly element: number;
}

/** Memory and operations of one chunk. */
export interface ReleaseKernel {
  readonly kind: KernelKind;
  readonly keystream: Uint8Array;
  readonly activation: Float32Array;
  readonly grid: Int16Array;
  /** Turns the first `blocks` blocks of keystream into standard normals. */
  gaussian(blocks: number): void;
  /** Releases a run. False if a value is NaN. */
  release(run: Run): boolean;
  /** Overwrites keystream, noise and activation. */
  wipe(): void;
}

/**
 * Makes a kernel.
 * @param channels parameters of the channels that are sent
 * @param elements gain, scale and offset by element, instead of those of the channels; copied
 * @param kind default: WebAssembly SIMD if this runtime has it
 */
export function createReleaseKernel(
  channels: readonly ChannelParameters[],
  elements?: ElementParameters,
  kind: KernelKind = hasSimd() ? 'wasm-simd' : 'plain',
): ReleaseKernel {
  return kind === 'plain' ? createPlain(channels, elements) : createSimd(channels, elements);
}

/** True if this runtime compiles the kernel. */
export function hasSimd(): boolean {
  return typeof WebAssembly === 'object' && WebAssembly.validate(decodeBase64(RELEASE_KERNEL));
}

function createPlain(channels: readonly ChannelParameters[], elements: ElementParameters | undefined): ReleaseKernel {
  const keystream = new Uint8Array(CHUNK_BLOCKS * KEYSTREAM_BLOCK_BYTES);
  const noise = new Float32Array(keystream.buffer);
  const activation = new Float32Array(CHUNK_VALUES);
  const grid = new Int16Array(CHUNK_VALUES);
  return {
    kind: 'plain',
    keystream,
    activation,
    grid,
    gaussian(blocks) {
      gaussianInPlace(keystream, blocks);
    },
    release({ channel: index, count, block, at, element }) {
      const channel = channels[index] as ChannelParameters;
      const first = block * NORMALS_PER_BLOCK;
      for (let i = 0; i < count; i++) {
        const gain = elements ? (elements.gain[element + i] as number) : channel.gain;
        const scale = elements ? (elements.scale[element + i] as number) : channel.scale;
        const offset = elements ? (elements.offset[element + i] as number) : channel.offset;
        const epsilon = noise[first + i] as number;
        const k = releaseValue(activation[at + i] as number, epsilon, gain, scale, offset, channel);
        if (Number.isNaN(k)) return false;
        grid[at + i] = k;
      }
      return true;
    },
    wipe() {
      keystream.fill(0);
      activation.fill(0);
    },
  };
}

/** Memory and operation of the way back from grid values to float32, for at most {@link CHUNK_VALUES} at a time. */
export interface ScaleKernel {
  readonly kind: KernelKind;
  readonly grid: Int16Array;
  readonly values: Float32Array;
  /** values[at…] = grid[at…]·step, `count` of them; what lies behind them in `values` may be overwritten. */
  scale(at: number, count: number, step: number): void;
}

/** Makes one. @param kind default: WebAssembly SIMD if this runtime has it */
export function createScaleKernel(kind: KernelKind = hasSimd() ? 'wasm-simd' : 'plain'): ScaleKernel {
  if (kind === 'plain') {
    const [grid, values] = [new Int16Array(CHUNK_VALUES), new Float32Array(CHUNK_VALUES)];
    return { kind, grid, values, scale: (at, count, step) => dequantise(grid, at, values, at, count, step) };
  }
  const { memory, reserve, kernel } = instantiate();
  const [stepAt, gridAt, valuesAt] = [reserve(4), reserve(CHUNK_VALUES * 2), reserve(CHUNK_VALUES * 4)];
  growTo(memory, reserve(0));
  const cell = new Float32Array(memory.buffer, stepAt, 1);
  return {
    kind,
    grid: new Int16Array(memory.buffer, gridAt, CHUNK_VALUES),
    values: new Float32Array(memory.buffer, valuesAt, CHUNK_VALUES),
    scale(at, count, step) {
      cell[0] = step;
      kernel.scaleGrid(count, gridAt + 2 * at, valuesAt + 4 * at, stepAt);
    },
  };
}

interface KernelExports {
  readonly memory: WebAssembly.Memory;
  heapBase(): number;
  scaleGrid(count: number, grid: number, values: number, step: number): void;
  gaussian(start: number, end: number): void;
  releaseChannel(count: number, noise: number, activation: number, grid: number, record: number): number;
  releaseElements(
    count: number,
    noise: number,
    activation: number,
    grid: number,
    record: number,
    gain: number,
    scale: number,
    offset: number,
  ): number;
}

/** Bytes of a channel's record: five float32, two int16. */
const RECORD_BYTES = 24;
/** Room behind each array for rounds of the kernel that go past the end. */
const SLACK_BYTES = 128;
const PAGE_BYTES = 65_536;

/** A new instance with memory of its own, and what hands that out. */
function instantiate(): {
  readonly memory: WebAssembly.Memory;
  readonly kernel: Omit<KernelExports, 'memory'>;
  readonly reserve: (bytes: number) => number;
} {
  const module = new WebAssembly.Module(decodeBase64(RELEASE_KERNEL));
  const { memory, ...kernel } = new WebAssembly.Instance(module).exports as unknown as KernelExports;
  let end = kernel.heapBase();
  const reserve = (bytes: number): number => {
    const start = Math.ceil(end / SLACK_BYTES) * SLACK_BYTES;
    end = start + bytes + SLACK_BYTES;
    return start;
  };
  return { memory, kernel, reserve };
}

/** Gives a memory room up to `end`. */
function growTo(memory: WebAssembly.Memory, end: number): void {
  memory.grow(Math.max(0, Math.ceil((end - memory.buffer.byteLength) / PAGE_BYTES)));
}

function createSimd(channels: readonly ChannelParameters[], elements: ElementParameters | undefined): ReleaseKernel {
  const { memory, reserve, kernel } = instantiate();
  const elementBytes = (elements?.gain.length ?? 0) * 4;
  const keystreamAt = reserve(CHUNK_BLOCKS * KEYSTREAM_BLOCK_BYTES);
  const activationAt = reserve(CHUNK_VALUES * 4);
  const gridAt = reserve(CHUNK_VALUES * 2);
  const recordsAt = reserve(channels.length * RECORD_BYTES);
  const gainAt = reserve(elementBytes);
  const scaleAt = reserve(elementBytes);
  const offsetAt = reserve(elementBytes);
  growTo(memory, reserve(0));

  const view = new DataView(memory.buffer);
  for (const [index, { clipLow, clipHigh, gain, scale, offset, gridLow, gridHigh }] of channels.entries()) {
    const at = recordsAt + index * RECORD_BYTES;
    for (const [i, value] of [clipLow, clipHigh, gain, scale, offset].entries())
      view.setFloat32(at + 4 * i, value, true);
    view.setInt16(at + 20, gridLow, true);
    view.setInt16(at + 22, gridHigh, true);
  }
  if (elements) {
    new Float32Array(memory.buffer, gainAt, elements.gain.length).set(elements.gain);
    new Float32Array(memory.buffer, scaleAt, elements.scale.length).set(elements.scale);
    new Float32Array(memory.buffer, offsetAt, elements.offset.length).set(elements.offset);
  }

  const keystream = new Uint8Array(memory.buffer, keystreamAt, CHUNK_BLOCKS * KEYSTREAM_BLOCK_BYTES);
  const activation = new Float32Array(memory.buffer, activationAt, CHUNK_VALUES);
  return {
    kind: 'wasm-simd',
    keystream,
    activation,
    grid: new Int16Array(memory.buffer, gridAt, CHUNK_VALUES),
    gaussian(blocks) {
      kernel.gaussian(keystreamAt, keystreamAt + blocks * KEYSTREAM_BLOCK_BYTES);
    },
    release({ channel, count, block, at, element }) {
      const noise = keystreamAt + block * KEYSTREAM_BLOCK_BYTES;
      const from = activationAt + at * 4;
      const to = gridAt + at * 2;
      const record = recordsAt + channel * RECORD_BYTES;
      if (elements === undefined) return kernel.releaseChannel(count, noise, from, to, record) === 0;
      const [gain, scale, offset] = [gainAt + element * 4, scaleAt + element * 4, offsetAt + element * 4];
      return kernel.releaseElements(count, noise, from, to, record, gain, scale, offset) === 0;
    },
    wipe() {
      keystream.fill(0);
      activation.fill(0);
    },
  };
}

function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
