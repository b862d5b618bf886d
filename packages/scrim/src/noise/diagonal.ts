/**
 * The diagonal transform z′ = m ⊙ z + μ + σ ⊙ ε (Cloak, WWW 2021), on the public grid of grid.ts.
 *
 * Parameters are given per channel, for any height and width, or per element, for one. m is a gain; where it is 0 the
 * feature is suppressed: it is replaced by the constant μ. A channel suppressed as a whole is not sent and draws no
 * noise. This file checks parameters, plans grids and walks through an activation in chunks; keys and the
 * value that may leave are the business of release.ts.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { sameShape, sizeOf } from '../tensor.js';
import { KEYSTREAM_BLOCK_BYTES, NORMALS_PER_BLOCK } from './gaussian.js';
import { type ChannelParameters, planGrid } from './grid.js';
import type { Keystream } from './keystream.js';
import type { Awaitable } from './noise-crypto.js';
import {
  CHUNK_BLOCKS,
  createReleaseKernel,
  type ElementParameters,
  type KernelKind,
  type ReleaseKernel,
  type Run,
} from './release-kernel.js';

/** What a fit learns. All numbers finite. */
export interface DiagonalParameters {
  readonly kind: 'per-channel' | 'per-element';
  /** [C] per channel, [C, H, W] per element: the shape of gain, mean and sigma. */
  readonly shape: readonly number[];
  /** m in [0, 4]; 0 suppresses. */
  readonly gain: Float32Array;
  /** μ, in units of the activation. */
  readonly mean: Float32Array;
  /** σ ≥ {@link MIN_SIGMA} wherever the gain is not 0, in units of the activation. */
  readonly sigma: Float32Array;
  /** [C]: public range of the clean activation. The input is clipped to it, and so is what is released. */
  readonly clipLow: Float32Array;
  readonly clipHigh: Float32Array;
  /** [C]: variance λ of the clean activation over the fitting photos; for the bound, not used by the transform. */
  readonly variance: Float32Array;
}

/** Smallest σ of a feature that is sent. */
export const MIN_SIGMA = 1e-6;
/** Largest gain. */
export const MAX_GAIN = 4;

/**
 * Checks parameters.
 * @throws ScrimError INVALID_ARGUMENT naming the first array and element that is wrong (its place, not its value)
 */
export function validateDiagonalParameters(parameters: DiagonalParameters): void {
  const { kind, shape, gain, sigma, clipLow, clipHigh } = parameters;
  const rank = kind === 'per-channel' ? 1 : kind === 'per-element' ? 3 : undefined;
  assertArgument(rank !== undefined, `kind is '${kind}', expected 'per-channel' or 'per-element'`);
  const size = sizeOf(shape);
  const [channels = 0] = shape;
  assertArgument(
    shape.length === rank && size > 0,
    `${kind} parameters have shape [${shape.join(', ')}], expected ${rank === 1 ? '[C]' : '[C, H, W]'}, none 0`,
  );
  for (const name of ['gain', 'mean', 'sigma', 'clipLow', 'clipHigh', 'variance'] as const) {
    const array = parameters[name];
    const length = name === 'gain' || name === 'mean' || name === 'sigma' ? size : channels;
    assertArgument(array instanceof Float32Array, `${name} is no Float32Array`);
    assertArgument(array.length === length, `${name} has ${array.length} elements, expected ${length}`);
    const wrong = array.findIndex((value) => !Number.isFinite(value) || (name === 'variance' && value < 0));
    assertArgument(wrong < 0, `${name}[${wrong}] is not finite, or negative`);
  }
  for (let i = 0; i < size; i++) {
    const m = gain[i] as number;
    assertArgument(m >= 0 && m <= MAX_GAIN, `gain[${i}] is outside [0, ${MAX_GAIN}]`);
    assertArgument(m === 0 || (sigma[i] as number) >= MIN_SIGMA, `sigma[${i}] is below ${MIN_SIGMA}`);
  }
  for (let c = 0; c < channels; c++) {
    assertArgument((clipLow[c] as number) <= (clipHigh[c] as number), `clipLow[${c}] is above clipHigh[${c}]`);
  }
  assertArgument(
    gain.some((m) => m > 0),
    'every gain is 0: nothing would be sent',
  );
}

/** The normals of one sample, drawn before its activation was there. They can be taken once. */
export class DrawnNoise {
  /** H·W of the sample. */
  readonly plane: number;
  readonly #wipe: (memory: Uint8Array) => void;
  #memory: Uint8Array | undefined;

  /** @param wipe overwrites the memory, which is the caller's again */
  constructor(plane: number, memory: Uint8Array, wipe: (memory: Uint8Array) => void) {
    this.plane = plane;
    this.#memory = memory;
    this.#wipe = wipe;
  }

  /** Lets `use` have the normals, and overwrites them. @throws ScrimError NOISE_FAILED if they are gone */
  async take<T>(use: (memory: Uint8Array) => Promise<T>): Promise<T> {
    const memory = this.#memory;
    if (memory === undefined) throw new ScrimError('NOISE_FAILED', 'the noise of this release is used up');
    this.#memory = undefined;
    return use(memory).finally(() => this.#wipe(memory));
  }

  /** Overwrites what was not taken. */
  close(): void {
    if (this.#memory) this.#wipe(this.#memory);
    this.#memory = undefined;
  }
}

/** Buffers for noise drawn ahead that a transform keeps. */
const KEPT_BUFFERS = 2;

// Assigned by the static block of DiagonalTransform, which alone reaches its constructor.
let createTransform: (parameters: DiagonalParameters, kind: KernelKind | undefined) => DiagonalTransform;

/** A transform ready to run. Made by {@link createDiagonalTransform} only. */
export class DiagonalTransform {
  /** A copy of the parameters it was made from. */
  readonly parameters: DiagonalParameters;
  /** Channels of the activation. */
  readonly channels: number;
  /** Channels that are sent, in order; undefined if all are. */
  readonly sentChannels: Int32Array | undefined;
  /** Distance of grid values by sent channel: powers of two. */
  readonly steps: Float32Array;
  /** Smallest and largest released value by sent channel, in steps. */
  readonly gridLow: Int16Array;
  readonly gridHigh: Int16Array;
  /** Which kernel runs. */
  readonly kernelKind: KernelKind;
  readonly #kernel: ReleaseKernel;
  readonly #sent: Int32Array;
  #plan: Plan = { plane: -1, chunks: [] };
  #turn: Promise<unknown> = Promise.resolve();
  /** Memory for noise drawn ahead, all zeros. */
  readonly #spare: Uint8Array[] = [];

  private constructor(parameters: DiagonalParameters, kind: KernelKind | undefined) {
    validateDiagonalParameters(parameters);
    this.parameters = copyParameters(parameters);
    const { shape, gain } = this.parameters;
    this.channels = shape[0] as number;
    const perChannel = gain.length / this.channels;
    const sent: number[] = [];
    for (let c = 0; c < this.channels; c++) {
      if (gain.subarray(c * perChannel, (c + 1) * perChannel).some((m) => m > 0)) sent.push(c);
    }
    this.#sent = Int32Array.from(sent);
    this.sentChannels = sent.length === this.channels ? undefined : this.#sent.slice();
    const grids = sent.map((c) => planChannel(this.parameters, c));
    const records = grids.map(({ channel }) => channel);
    this.steps = Float32Array.from(grids, ({ step }) => step);
    this.gridLow = Int16Array.from(records, ({ gridLow }) => gridLow);
    this.gridHigh = Int16Array.from(records, ({ gridHigh }) => gridHigh);
    const elements = shape.length === 3 ? elementParameters(this.parameters, this.#sent, this.steps) : undefined;
    this.#kernel = createReleaseKernel(records, elements, kind);
    this.kernelKind = this.#kernel.kind;
  }

  static {
    createTransform = (parameters, kind) => new DiagonalTransform(parameters, kind);
  }

  /**
   * Checks that an activation of `shape` fits.
   * @param shape [N, C, H, W]
   * @throws ScrimError INVALID_ARGUMENT with both shapes
   */
  expectShape(shape: readonly number[]): void {
    const { kind, shape: own } = this.parameters;
    const expected = kind === 'per-channel' ? `[N, ${own[0]}, H, W]` : `[N, ${own.join(', ')}]`;
    const fits =
      shape.length === 4 &&
      shape.every((dimension) => dimension > 0) &&
      (kind === 'per-channel' ? shape[1] === own[0] : sameShape(shape.slice(1), own));
    assertArgument(fits, `activation has shape [${shape.join(', ')}], expected ${expected}`);
  }

  /**
   * Transforms one sample with noise from `keystream` into grid values. Calls wait for each other.
   * @param sample [C, H, W], must not change meanwhile
   * @param plane H·W
   * @param noise keystream, or what {@link draw} made of it: the grid values are the same
   * @returns [sent channels, H, W] in steps
   * @throws ScrimError INVALID_ARGUMENT if a value is NaN, NOISE_FAILED if the noise fails; nothing is returned then
   */
  run(sample: Float32Array, plane: number, noise: Keystream | DrawnNoise): Promise<Int16Array> {
    return this.#inTurn(async () => {
      if (!(noise instanceof DrawnNoise)) return this.#run(sample, plane, ({ blocks }) => this.#normals(blocks, noise));
      if (noise.plane !== plane) throw new ScrimError('NOISE_FAILED', 'the noise was drawn for another size');
      return noise.take((memory) =>
        this.#run(sample, plane, ({ blocks, firstBlock }) => {
          this.#kernel.keystream.set(memory.subarray(...bytesOf(firstBlock, blocks)));
        }),
      );
    });
  }

  /**
   * Draws the noise of one sample ahead of it. Calls wait for each other and for `run`.
   * @param plane H·W of the sample
   * @throws ScrimError NOISE_FAILED if the keystream fails
   */
  draw(plane: number, keystream: Keystream): Promise<DrawnNoise> {
    return this.#inTurn(async () => {
      const { chunks } = this.#planFor(plane);
      const size = chunks.reduce((sum, { blocks }) => sum + blocks, 0) * KEYSTREAM_BLOCK_BYTES;
      const spare = this.#spare.pop();
      const memory = spare?.length === size ? spare : new Uint8Array(size);
      const drawn = new DrawnNoise(plane, memory, (used) => {
        used.fill(0);
        if (this.#spare.length < KEPT_BUFFERS) this.#spare.push(used);
      });
      try {
        for (const { blocks, firstBlock } of chunks) {
          const pending = this.#normals(blocks, keystream);
          if (pending instanceof Promise) await pending;
          memory.set(this.#kernel.keystream.subarray(...bytesOf(0, blocks)), firstBlock * KEYSTREAM_BLOCK_BYTES);
        }
        return drawn;
      } catch (error) {
        drawn.close();
        throw error;
      } finally {
        this.#kernel.wipe();
      }
    });
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(task);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #planFor(plane: number): Plan {
    if (this.#plan.plane !== plane) this.#plan = planChunks(this.#sent, plane);
    return this.#plan;
  }

  /** Makes the normals of one chunk in the kernel's memory. */
  #normals(blocks: number, keystream: Keystream): Awaitable<void> {
    const kernel = this.#kernel;
    const pending = keystream.fill(kernel.keystream.subarray(...bytesOf(0, blocks)));
    if (pending instanceof Promise) return pending.then(() => kernel.gaussian(blocks));
    kernel.gaussian(blocks);
  }

  /** `normals` puts those of a chunk into the kernel's memory. */
  async #run(sample: Float32Array, plane: number, normals: (chunk: Chunk) => Awaitable<void>): Promise<Int16Array> {
    const kernel = this.#kernel;
    const payload = new Int16Array(this.#sent.length * plane);
    let written = 0;
    try {
      for (const chunk of this.#planFor(plane).chunks) {
        const { values, copies, runs } = chunk;
        const pending = normals(chunk);
        if (pending instanceof Promise) await pending;
        for (const { from, to, length } of copies) kernel.activation.set(sample.subarray(from, from + length), to);
        kernel.activation.fill(0, values, values + 2 * NORMALS_PER_BLOCK);
        for (const run of runs) {
          if (!kernel.release(run)) {
            throw new ScrimError('INVALID_ARGUMENT', 'the activation holds a value that is not a number');
          }
        }
        payload.set(kernel.grid.subarray(0, values), written);
        written += values;
      }
    } finally {
      kernel.wipe();
    }
    return payload;
  }
}

/** Where blocks of keystream, or the normals made of them, begin and end. */
function bytesOf(first: number, blocks: number): [begin: number, end: number] {
  return [first * KEYSTREAM_BLOCK_BYTES, (first + blocks) * KEYSTREAM_BLOCK_BYTES];
}

/**
 * Makes a transform from learned parameters.
 * @param options.kernel 'plain' or 'wasm-simd'; default: the faster one that this runtime has. Both give the same bits.
 * @throws ScrimError INVALID_ARGUMENT for parameters that are wrong or fit no grid of Int16
 */
export function createDiagonalTransform(
  parameters: DiagonalParameters,
  options: { readonly kernel?: KernelKind } = {},
): DiagonalTransform {
  return createTransform(parameters, options.kernel);
}

/** Part of an activation that is released in one go. */
interface Chunk {
  readonly blocks: number;
  /** Blocks of the chunks before. */
  readonly firstBlock: number;
  readonly values: number;
  readonly copies: readonly { readonly from: number; readonly to: number; readonly length: number }[];
  readonly runs: readonly Run[];
}

interface Plan {
  readonly plane: number;
  readonly chunks: readonly Chunk[];
}

/**
 * Cuts the sent channels of an activation with `plane` values each into chunks. Every channel begins a new keystream
 * block; a channel too long for a chunk is cut at a multiple of eight.
 */
function planChunks(sent: Int32Array, plane: number): Plan {
  const chunks: Chunk[] = [];
  const stride = Math.ceil(plane / NORMALS_PER_BLOCK) * NORMALS_PER_BLOCK;
  const begin = (firstBlock: number) => ({
    blocks: 0,
    firstBlock,
    values: 0,
    copies: [] as { from: number; to: number; length: number }[],
    runs: [] as Run[],
  });
  let open = begin(0);
  for (const [index, channel] of sent.entries()) {
    for (let start = 0; start < plane; ) {
      let room = (CHUNK_BLOCKS - open.blocks) * NORMALS_PER_BLOCK;
      if (room < Math.min(plane, CHUNK_BLOCKS * NORMALS_PER_BLOCK)) {
        chunks.push(open);
        open = begin(open.firstBlock + open.blocks);
        room = CHUNK_BLOCKS * NORMALS_PER_BLOCK;
      }
      const count = Math.min(room, plane - start);
      const from = channel * plane + start;
      const last = open.copies.at(-1);
      if (last !== undefined && last.from + last.length === from) last.length += count;
      else open.copies.push({ from, to: open.values, length: count });
      open.runs.push({ channel: index, count, block: open.blocks, at: open.values, element: index * stride + start });
      open.blocks += Math.ceil(count / NORMALS_PER_BLOCK);
      open.values += count;
      start += count;
    }
  }
  chunks.push(open);
  return { plane, chunks };
}

function planChannel(
  { gain, mean, sigma, clipLow, clipHigh, shape }: DiagonalParameters,
  c: number,
): { step: number; channel: ChannelParameters } {
  const perChannel = gain.length / (shape[0] as number);
  let [largestGain, smallestSigma, largestSigma, largestMean] = [0, Number.POSITIVE_INFINITY, 0, 0];
  for (let i = c * perChannel; i < (c + 1) * perChannel; i++) {
    largestMean = Math.max(largestMean, Math.abs(mean[i] as number));
    if (gain[i] === 0) continue;
    largestGain = Math.max(largestGain, gain[i] as number);
    smallestSigma = Math.min(smallestSigma, sigma[i] as number);
    largestSigma = Math.max(largestSigma, sigma[i] as number);
  }
  const range = { clipLow: clipLow[c] as number, clipHigh: clipHigh[c] as number };
  const { step, low, high } = planGrid({
    channel: c,
    ...range,
    largestGain,
    smallestSigma,
    largestSigma,
    largestMean,
  });
  return {
    step,
    channel: {
      // Per element these three are not used; the first element's stand in.
      gain: Math.fround((gain[c * perChannel] as number) / step),
      scale: Math.fround(-(sigma[c * perChannel] as number) / step),
      offset: Math.fround(-(mean[c * perChannel] as number) / step),
      ...range,
      gridLow: low,
      gridHigh: high,
    },
  };
}

/** Gain, scale and offset in steps, sent channels only, each padded to a multiple of eight. No noise where m is 0. */
function elementParameters(parameters: DiagonalParameters, sent: Int32Array, steps: Float32Array): ElementParameters {
  const { gain, mean, sigma, shape } = parameters;
  const plane = gain.length / (shape[0] as number);
  const stride = Math.ceil(plane / NORMALS_PER_BLOCK) * NORMALS_PER_BLOCK;
  const length = sent.length * stride;
  const result = { gain: new Float32Array(length), scale: new Float32Array(length), offset: new Float32Array(length) };
  for (const [index, channel] of sent.entries()) {
    const step = steps[index] as number;
    for (let i = 0; i < plane; i++) {
      const [from, to] = [channel * plane + i, index * stride + i];
      const m = gain[from] as number;
      result.gain[to] = m / step;
      result.scale[to] = m === 0 ? -0 : -(sigma[from] as number) / step;
      result.offset[to] = -(mean[from] as number) / step;
    }
  }
  return result;
}

function copyParameters(parameters: DiagonalParameters): DiagonalParameters {
  const { kind, shape, gain, mean, sigma, clipLow, clipHigh, variance } = parameters;
  return {
    kind,
    shape: [...shape],
    gain: gain.slice(),
    mean: mean.slice(),
    sigma: sigma.slice(),
    clipLow: clipLow.slice(),
    clipHigh: clipHigh.slice(),
    variance: variance.slice(),
  };
}
