/**
 * Structural similarity of two images.
 *
 * Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
 * Similarity" (IEEE TIP 2004), section III-B: Gaussian window 11×11 with σ 1.5, K₁ = 0.01, K₂ = 0.03, averaged over
 * all places where the window fits wholly into the image. Colour channels are compared one by one and averaged. The
 * paper's downsampling of large images is not done, as in scikit-image and most of the privacy literature.
 */
import { ScrimError } from '../errors.js';
import { assertComparable, assertDataRange, type DataRangeOptions, type PixelTensor } from './squared-error.js';

const WINDOW = 11;
const SIGMA = 1.5;
const K1 = 0.01;
const K2 = 0.03;

/** The window's factor along one axis, with sum 1; the window is its outer product with itself. */
const KERNEL: Float64Array = gaussianKernel();

/**
 * Mean structural similarity of two images, in [−1, 1]; 1 for equal images.
 *
 * Images have shape [H, W] or [C, H, W], after any leading dimensions of 1, with H and W ≥ 11.
 *
 * SSIM = (2·μa·μb + C₁)(2·σab + C₂) / ((μa² + μb² + C₁)(σa² + σb² + C₂)), C₁ = (K₁·range)², C₂ = (K₂·range)².
 * @throws ScrimError INVALID_ARGUMENT if the shapes differ or are no image's, or dataRange isn't above 0.
 */
export function ssim(a: PixelTensor, b: PixelTensor, options: DataRangeOptions): number {
  assertComparable(a, b);
  assertDataRange(options.dataRange);
  const [channels, height, width] = imageShape(a.shape);
  let sum = 0;
  for (let c = 0; c < channels; c++) {
    sum += planeSsim(a.data, b.data, c * height * width, height, width, options.dataRange);
  }
  return sum / channels;
}

function imageShape(shape: readonly number[]): [channels: number, height: number, width: number] {
  let dims = shape;
  while (dims.length > 3 && dims[0] === 1) dims = dims.slice(1);
  const [channels, height, width] = dims.length === 2 ? [1, ...dims] : dims;
  if (dims.length < 2 || dims.length > 3 || height! < WINDOW || width! < WINDOW) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `a and b have shape [${shape.join(', ')}], expected [H, W] or [C, H, W] with H and W ≥ ${WINDOW}`,
    );
  }
  return [channels!, height!, width!];
}

/**
 * SSIM of one plane that starts at `offset`. Rows are filtered along x as they are met and kept in a ring of eleven;
 * each row of the map is then one filtering along y, so that memory grows with the width alone.
 */
function planeSsim(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  offset: number,
  height: number,
  width: number,
  dataRange: number,
): number {
  const c1 = (K1 * dataRange) ** 2;
  const c2 = (K2 * dataRange) ** 2;
  const outWidth = width - WINDOW + 1;
  // σa² and σb² only occur as a sum, so four moments are enough: a, b, a² + b², ab.
  const ring = Array.from({ length: WINDOW }, () => new Float64Array(4 * outWidth));
  const square = new Float64Array(width);
  const product = new Float64Array(width);
  const column = new Float64Array(4 * outWidth);
  let sum = 0;
  for (let y = 0; y < height; y++) {
    const start = offset + y * width;
    for (let x = 0; x < width; x++) {
      const p = a[start + x]!;
      const q = b[start + x]!;
      square[x] = p * p + q * q;
      product[x] = p * q;
    }
    const row = ring[y % WINDOW]!;
    filterRow(a, start, row, 0, outWidth);
    filterRow(b, start, row, outWidth, outWidth);
    filterRow(square, 0, row, 2 * outWidth, outWidth);
    filterRow(product, 0, row, 3 * outWidth, outWidth);
    if (y < WINDOW - 1) continue;

    column.fill(0);
    for (let k = 0; k < WINDOW; k++) {
      const source = ring[(y - WINDOW + 1 + k) % WINDOW]!;
      const weight = KERNEL[k]!;
      for (let i = 0; i < column.length; i++) column[i]! += weight * source[i]!;
    }
    for (let x = 0; x < outWidth; x++) {
      const meanA = column[x]!;
      const meanB = column[outWidth + x]!;
      const squares = meanA * meanA + meanB * meanB;
      const variances = column[2 * outWidth + x]! - squares;
      const covariance = column[3 * outWidth + x]! - meanA * meanB;
      sum += ((2 * meanA * meanB + c1) * (2 * covariance + c2)) / ((squares + c1) * (variances + c2));
    }
  }
  return sum / (outWidth * (height - WINDOW + 1));
}

function filterRow(source: ArrayLike<number>, start: number, target: Float64Array, at: number, length: number): void {
  for (let x = 0; x < length; x++) {
    let sum = 0;
    for (let k = 0; k < WINDOW; k++) sum += KERNEL[k]! * source[start + x + k]!;
    target[at + x] = sum;
  }
}

function gaussianKernel(): Float64Array {
  const radius = (WINDOW - 1) / 2;
  const weights = Float64Array.from({ length: WINDOW }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * SIGMA ** 2)));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
