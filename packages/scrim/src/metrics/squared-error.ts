/**
 * Mean squared error and peak signal-to-noise ratio of two tensors, all elements weighing the same.
 *
 * Both are pixelwise: they don't say whether a person can recognise what is shown. `ssim.ts` looks at structure.
 */
import { ScrimError } from '../errors.js';
import { sameShape, type Tensor } from '../tensor.js';

/** A tensor of plain numbers, as pixels come: uint8, or floating point in any range. */
export type PixelTensor = Tensor<'float32'> | Tensor<'float64'> | Tensor<'uint8'>;

/** What the pixels of an image span. */
export interface DataRangeOptions {
  /** Largest minus smallest value a pixel can have: 255 for 8-bit pixels, 1 for [0, 1], 2 for [−1, 1]. */
  readonly dataRange: number;
}

/**
 * Mean of (a − b)² over all elements.
 * @throws ScrimError INVALID_ARGUMENT if the shapes differ or are empty.
 */
export function mse(a: PixelTensor, b: PixelTensor): number {
  assertComparable(a, b);
  const x: ArrayLike<number> = a.data;
  const y: ArrayLike<number> = b.data;
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    const difference = x[i]! - y[i]!;
    sum += difference * difference;
  }
  return sum / x.length;
}

/**
 * Peak signal-to-noise ratio in decibels, 10·log10(dataRange² / mse); Infinity for equal tensors.
 * @throws ScrimError INVALID_ARGUMENT if the shapes differ or are empty, or dataRange isn't above 0.
 */
export function psnr(a: PixelTensor, b: PixelTensor, options: DataRangeOptions): number {
  assertDataRange(options.dataRange);
  return 10 * Math.log10(options.dataRange ** 2 / mse(a, b));
}

/** @throws ScrimError INVALID_ARGUMENT unless `a` and `b` have the same shape and at least one element. */
export function assertComparable(a: PixelTensor, b: PixelTensor): void {
  if (!sameShape(a.shape, b.shape)) {
    throw new ScrimError('INVALID_ARGUMENT', `a has shape [${a.shape.join(', ')}], b has [${b.shape.join(', ')}]`);
  }
  if (a.data.length === 0) throw new ScrimError('INVALID_ARGUMENT', 'a and b have no elements');
}

/** @throws ScrimError INVALID_ARGUMENT unless `dataRange` is finite and above 0. */
export function assertDataRange(dataRange: number): void {
  if (!(dataRange > 0 && Number.isFinite(dataRange))) {
    throw new ScrimError('INVALID_ARGUMENT', `dataRange is ${dataRange}, expected a finite number above 0`);
  }
}
