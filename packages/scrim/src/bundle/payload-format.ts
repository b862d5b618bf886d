/**
 * How a release travels: the forms its values may take on the wire, and the constants the remote side needs to read them.
 *
 *   fp32    the document's form: all channels, μ filled in where a channel is suppressed
 *   fp16    sent channels only, rounded to float16
 *   int16   sent channels only, the grid values themselves; value = k·step
 *   uint8   sent channels only, on a coarser public grid; value = (q + zero)·scale, q = round(k/ratio) − zero
 *
 * Every form is a function of the release alone, hence post-processing: bounds on the release hold for it. The constants
 * (steps, ratios, zeros, μ of suppressed channels) follow from the parameters of the bundle, never from an input.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { createDiagonalTransform, type DiagonalParameters } from '../noise/diagonal.js';
import { Release, releaseToFloat16 } from '../noise/release.js';
import { releaseToTensor } from '../noise/release-reader.js';
import { type Tensor, tensor } from '../tensor.js';

/** A form in which a release is sent. */
export type PayloadFormat = 'fp32' | 'fp16' | 'int16' | 'uint8';

/** Every form, the document's first. */
export const PAYLOAD_FORMATS: readonly PayloadFormat[] = ['fp32', 'fp16', 'int16', 'uint8'];

/** Element type that each form has on the wire. */
export const PAYLOAD_DTYPES: Readonly<Record<PayloadFormat, 'float32' | 'float16' | 'int16' | 'uint8'>> = {
  fp32: 'float32',
  fp16: 'float16',
  int16: 'int16',
  uint8: 'uint8',
};

/** Levels of the uint8 form, less one that rounding may need. */
const COARSE_LEVELS = 254;

/** Constants of one bundle, by sent channel. All of them may be known to the remote side. */
export interface PayloadPlan {
  readonly channels: number;
  /** Channels that are sent, in order. */
  readonly sentChannels: readonly number[];
  /** Channels that are not. */
  readonly suppressedChannels: readonly number[];
  /** Value of one step of the release: powers of two. */
  readonly steps: Float32Array;
  /** uint8: steps of the release in one coarse step, at least 1. */
  readonly ratios: Int32Array;
  /** uint8: the coarse grid value that is sent as 0. */
  readonly zeros: Int32Array;
  /** uint8: value of one coarse step. */
  readonly scales: Float32Array;
}

/** Derives the constants from the parameters of a bundle. @throws ScrimError INVALID_ARGUMENT as createDiagonalTransform */
export function createPayloadPlan(parameters: DiagonalParameters): PayloadPlan {
  const { channels, sentChannels, steps, gridLow, gridHigh } = createDiagonalTransform(parameters);
  const sent = sentChannels === undefined ? Array.from({ length: channels }, (_, c) => c) : Array.from(sentChannels);
  const ratios = Int32Array.from(gridLow, (low, i) =>
    Math.max(1, Math.ceil(((gridHigh[i] ?? 0) - low) / COARSE_LEVELS)),
  );
  return {
    channels,
    sentChannels: sent,
    suppressedChannels: Array.from({ length: channels }, (_, c) => c).filter((c) => !sent.includes(c)),
    steps,
    ratios,
    zeros: Int32Array.from(gridLow, (low, i) => roundedRatio(low, ratios[i] ?? 1)),
    scales: Float32Array.from(steps, (step, i) => step * (ratios[i] ?? 1)),
  };
}

/** Bytes of the tensor that one release of `plane` positions (H·W) becomes. */
export function payloadBytes(plan: PayloadPlan, format: PayloadFormat, plane: number): number {
  const bytes = { fp32: 4, fp16: 2, int16: 2, uint8: 1 }[format];
  return bytes * plane * (format === 'fp32' ? plan.channels : plan.sentChannels.length);
}

/**
 * The tensor that carries `release`: [1, C, H, W] as fp32, [1, sent channels, H, W] else.
 * @throws ScrimError INVALID_ARGUMENT if `release` is none (an object that only looks like one included), was made in
 * replay mode, or by other parameters
 */
export function encodePayload(
  release: Release,
  format: PayloadFormat,
  plan: PayloadPlan,
  parameters: DiagonalParameters,
): Tensor {
  assertArgument(Release.isRelease(release), 'only a Release made by a noiser can be sent');
  assertArgument(release.mode !== 'replay', 'a release in replay mode can be undone and is never sent');
  assertArgument(
    release.channels === plan.channels && release.steps.length === plan.steps.length,
    `the release has ${release.steps.length} of ${release.channels} channels, expected ${plan.steps.length} of ${plan.channels}`,
  );
  switch (format) {
    case 'fp32':
      return releaseToTensor(release, parameters);
    case 'fp16':
      return releaseToFloat16(release);
    case 'int16':
      return tensor('int16', release.shape, release.payload);
    case 'uint8':
      return tensor('uint8', release.shape, coarsen(release, plan));
    default:
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `payload is '${String(format)}', expected one of ${PAYLOAD_FORMATS.join(', ')}`,
      );
  }
}

/** q = round(k/ratio) − zero, from 0 to 255, channel by channel. */
function coarsen({ payload, steps }: Release, { ratios, zeros }: PayloadPlan): Uint8Array {
  const out = new Uint8Array(payload.length);
  const plane = payload.length / steps.length;
  for (let c = 0; c < steps.length; c++) {
    const [ratio, zero] = [ratios[c] as number, zeros[c] as number];
    // Half a ratio beforehand makes floor round, for negative values too.
    const shift = Math.floor(ratio / 2) - zero * ratio;
    const end = (c + 1) * plane;
    for (let i = c * plane; i < end; i++) out[i] = Math.floor(((payload[i] as number) + shift) / ratio);
  }
  return out;
}

function roundedRatio(k: number, ratio: number): number {
  return Math.floor((k + Math.floor(ratio / 2)) / ratio);
}
