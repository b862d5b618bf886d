/**
 * From a release to the tensor that the tail takes: grid values times their step, and μ in channels that were not sent.
 *
 * {@link createReleaseReader} does many with a kernel, into arrays that may be used again; {@link releaseToTensor} does one
 * in plain TypeScript. Both give the same bits. Neither changes the release.
 */
import { assertArgument } from '../errors.js';
import { allocate, float32, type Tensor } from '../tensor.js';
import type { DiagonalParameters } from './diagonal.js';
import { dequantise } from './grid.js';
import type { Release } from './release.js';
import { CHUNK_VALUES, createScaleKernel, type KernelKind } from './release-kernel.js';

/** Reads releases of one transform. */
export interface ReleaseReader {
  /** Which kernel runs. */
  readonly kernelKind: KernelKind;
  /**
   * As {@link releaseToTensor}.
   * @param out array to write to, of exactly as many elements as the tensor has; default: a new one
   * @throws ScrimError INVALID_ARGUMENT also if `out` has another length
   */
  read(release: Release, out?: Float32Array): Tensor<'float32'>;
}

/**
 * Makes a reader with memory of its own.
 * @param parameters those of the transform that makes the releases; not copied
 * @param options.kernel 'plain' or 'wasm-simd'; default: the faster one that this runtime has. Both give the same bits.
 */
export function createReleaseReader(
  parameters: DiagonalParameters,
  options: { readonly kernel?: KernelKind } = {},
): ReleaseReader {
  const kernel = createScaleKernel(options.kernel);
  const { grid, values } = kernel;
  return {
    kernelKind: kernel.kind,
    read: (release, out) =>
      assemble(release, parameters, out, (payload, from, target, to, plane, steps) => {
        // Several channels that lie side by side on both sides go through the kernel at a time.
        const total = steps.length * plane;
        for (let done = 0; done < total; done += CHUNK_VALUES) {
          const count = Math.min(CHUNK_VALUES, total - done);
          grid.set(payload.subarray(from + done, from + done + count));
          for (let at = 0; at < count; ) {
            const channel = Math.floor((done + at) / plane);
            const length = Math.min((channel + 1) * plane - done, count) - at;
            kernel.scale(at, length, steps[channel] as number);
            at += length;
          }
          target.set(values.subarray(0, count), to + done);
        }
      }),
  };
}

/**
 * Released values of all channels: float32 [1, C, H, W], with μ in channels that were not sent.
 * @param parameters those of the transform that made the release
 * @throws ScrimError INVALID_ARGUMENT if `parameters` have another number of channels or another shape
 */
export function releaseToTensor(release: Release, parameters: DiagonalParameters): Tensor<'float32'> {
  return assemble(release, parameters, undefined, (payload, from, target, to, plane, steps) => {
    for (const [i, step] of steps.entries()) dequantise(payload, from + i * plane, target, to + i * plane, plane, step);
  });
}

/** Writes `steps.length` channels of `plane` values from payload to target. */
type WriteChannels = (
  payload: Int16Array,
  from: number,
  target: Float32Array,
  to: number,
  plane: number,
  steps: Float32Array,
) => void;

function assemble(
  release: Release,
  parameters: DiagonalParameters,
  out: Float32Array | undefined,
  write: WriteChannels,
): Tensor<'float32'> {
  const { payload, steps, sentChannels, channels } = release;
  const [, , height = 0, width = 0] = release.shape;
  const plane = height * width;
  const perChannel = parameters.mean.length / (parameters.shape[0] as number);
  assertArgument(
    parameters.shape[0] === channels && (perChannel === 1 || perChannel === plane),
    `parameters have shape [${parameters.shape.join(', ')}], the release [1, ${channels}, ${height}, ${width}]`,
  );
  const values = out ?? allocate('float32', channels * plane);
  assertArgument(
    values.length === channels * plane,
    `out has ${values.length} elements, the tensor has ${channels * plane}`,
  );
  let sent = 0;
  for (let c = 0; c < channels; ) {
    const first = c;
    const firstSent = sent;
    while (c < channels && (sentChannels === undefined || sentChannels[sent] === c)) {
      c++;
      sent++;
    }
    write(payload, firstSent * plane, values, first * plane, plane, steps.subarray(firstSent, sent));
    if (c === channels) break;
    if (perChannel === plane && parameters.kind === 'per-element') {
      values.set(parameters.mean.subarray(c * plane, (c + 1) * plane), c * plane);
    } else {
      values.fill(parameters.mean[c] as number, c * plane, (c + 1) * plane);
    }
    c++;
  }
  return float32([1, channels, height, width], values);
}
