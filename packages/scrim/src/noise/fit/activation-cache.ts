/**
 * Clean activations and clean outputs of the fitting inputs, computed once and kept in memory.
 *
 * Head and tail are frozen while a diagonal transform is fitted, so neither has to run again on the clean side: a step
 * takes a batch of cached activations and the answers the clean model gave to them (the teacher). Statistics by
 * channel are gathered on the way.
 */
import type { Session } from '../../engine/engine.js';
import { ScrimError } from '../../errors.js';
import { expectType, type Tensor } from '../../tensor.js';

/** Mean, variance and range of one channel over all cached activations and positions. */
export interface ChannelStatistics {
  readonly mean: Float32Array;
  readonly variance: Float32Array;
  readonly low: Float32Array;
  readonly high: Float32Array;
}

/** Cached examples. All arrays have one entry per example. */
export interface ActivationCache {
  /** Shape of one activation, without the batch dimension: [C, H, W], or [C] for vectors. */
  readonly shape: readonly number[];
  readonly activations: readonly Float32Array[];
  /** Clean float32 outputs by the tail's output name; shapes without the batch dimension. */
  readonly outputs: ReadonlyMap<
    string,
    { readonly shape: readonly number[]; readonly values: readonly Float32Array[] }
  >;
  readonly statistics: ChannelStatistics;
}

/** What {@link cacheActivations} runs. */
export interface CacheOptions {
  readonly head: Session;
  readonly tail: Session;
  /** Name of the head's input. */
  readonly input: string;
  /** Name of the cut tensor: output of the head and input of the tail. */
  readonly cut: string;
  readonly onProgress?: (done: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Runs head and tail over `inputs` (float32, batch dimension first) and keeps what the fit needs.
 * @throws ScrimError INVALID_DATA if there is no input or their sizes differ; CANCELLED if the signal fires.
 */
export async function cacheActivations(inputs: AsyncIterable<Tensor>, options: CacheOptions): Promise<ActivationCache> {
  const { head, tail, input, cut } = options;
  const activations: Float32Array[] = [];
  const outputs = new Map<string, { shape: readonly number[]; values: Float32Array[] }>();
  let shape: readonly number[] | undefined;
  for await (const example of inputs) {
    options.signal?.throwIfAborted();
    const { [cut]: activation } = await head.run({ [input]: example });
    if (!activation) throw new ScrimError('INVALID_ARGUMENT', `the head has no output '${cut}'`);
    shape ??= activation.shape.slice(1);
    if (String(activation.shape.slice(1)) !== String(shape)) {
      throw new ScrimError(
        'INVALID_DATA',
        `an activation has shape [${activation.shape.slice(1).join(', ')}], the ones before it [${shape.join(', ')}]: ` +
          'fit on inputs of one size',
      );
    }
    const clean = await tail.run({ [cut]: activation });
    activations.push(...rows(expectType(activation, 'float32', `the activation '${cut}'`)));
    for (const [name, value] of Object.entries(clean)) {
      // Labels and counts beside the probabilities teach nothing.
      if (value.dtype !== 'float32') continue;
      if (value.shape[0] !== activation.shape[0]) {
        throw new ScrimError(
          'UNSUPPORTED',
          `the output '${name}' is [${value.shape.join(', ')}] for a batch of ${activation.shape[0]}: its first axis is not the batch`,
        );
      }
      const kept = outputs.get(name) ?? { shape: value.shape.slice(1), values: [] };
      kept.values.push(...rows(expectType(value, 'float32', name)));
      outputs.set(name, kept);
    }
    options.onProgress?.(activations.length);
  }
  if (!shape || activations.length === 0) throw new ScrimError('INVALID_DATA', 'there is no input to fit on');
  return createActivationCache(shape, activations, outputs);
}

/** A cache of activations and outputs that are at hand. @throws ScrimError INVALID_DATA for none, or other counts. */
export function createActivationCache(
  shape: ActivationCache['shape'],
  activations: ActivationCache['activations'],
  outputs: ActivationCache['outputs'],
): ActivationCache {
  if (activations.length === 0) throw new ScrimError('INVALID_DATA', 'there is no input to fit on');
  for (const [name, { values }] of outputs) {
    if (values.length !== activations.length) {
      throw new ScrimError(
        'INVALID_DATA',
        `there are ${activations.length} activations and ${values.length} answers '${name}'`,
      );
    }
  }
  return { shape, activations, outputs, statistics: channelStatistics(activations, shape[0] ?? 1) };
}

function rows(value: Tensor<'float32'>): Float32Array[] {
  const batch = value.shape[0] ?? 1;
  const size = value.data.length / batch;
  return Array.from({ length: batch }, (_, i) => value.data.slice(i * size, (i + 1) * size));
}

/** Two passes in double precision: mean first, then squared deviations. */
function channelStatistics(activations: readonly Float32Array[], channels: number): ChannelStatistics {
  const plane = (activations[0]?.length ?? 0) / channels;
  const count = activations.length * plane;
  const statistics = {
    mean: new Float32Array(channels),
    variance: new Float32Array(channels),
    low: new Float32Array(channels).fill(Number.POSITIVE_INFINITY),
    high: new Float32Array(channels).fill(Number.NEGATIVE_INFINITY),
  };
  for (let c = 0; c < channels; c++) {
    let sum = 0;
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    for (const activation of activations) {
      for (let i = c * plane; i < (c + 1) * plane; i++) {
        const value = activation[i] as number;
        sum += value;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    const mean = sum / count;
    let squares = 0;
    for (const activation of activations) {
      for (let i = c * plane; i < (c + 1) * plane; i++) squares += ((activation[i] as number) - mean) ** 2;
    }
    statistics.mean[c] = mean;
    statistics.variance[c] = squares / Math.max(1, count - 1);
    statistics.low[c] = low;
    statistics.high[c] = high;
  }
  return statistics;
}
