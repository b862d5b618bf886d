/**
 * Structural similarity of two images.
 *
 * Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
 * Similarity" (IEEE TIP 2004), section III-B: Gaussian window 11×11 with σ 1.5, K₁ = 0.01, K₂ = 0.03, averaged over
 * all places where the window fits wholly into the image. Colour channels are compared one by one and averaged. The
 * paper's downsampling of large images is not done, as in scikit-image and most of the privacy literature.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { float32 } from '../tensor.js';
import { assertComparable, assertDataRange, type DataRangeOptions, type PixelTensor } from './squared-error.js';

const WINDOW = 11;
const SIGMA = 1.5;
const K1 = 0.01;
const K2 = 0.03;

/**
 * The window's factor along one axis, with sum 1; the window is its outer product with itself. It is symmetric, so
 * six weights, from the edge to the centre, stand for all eleven.
 */
const [K_0, K_1, K_2, K_3, K_4, K_5] = gaussianKernel();

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

/** Mean colour of photographs, red, green and blue in levels of 255, as networks for photos have long subtracted it. */
export const PHOTO_COLOUR: readonly [number, number, number] = [123, 117, 104];
/** Levels that are one unit of a centred pixel. */
export const CENTRED_UNIT = 128;

/**
 * SSIM of pixels less {@link PHOTO_COLOUR}, in units of 128 levels, with a range of 1.
 *
 * On plain pixels any two photos are alike to some degree, because both are bright: the mean photo has an SSIM of about
 * 0.35 with others. Centred, it has about 0.05, so that what an attacker learnt shows.
 * @param a [3, H, W], red, green and blue in [0, 1]
 * @throws ScrimError as {@link ssim}; INVALID_ARGUMENT unless there are three planes
 */
export function centredSsim(a: PixelTensor, b: PixelTensor): number {
  return ssim(centre(a), centre(b), { dataRange: 1 });
}

function centre({ shape, data }: PixelTensor): PixelTensor {
  const planes = PHOTO_COLOUR.length;
  assertArgument(shape.at(-3) === planes, `the picture has shape [${shape.join(', ')}], expected [3, H, W]`);
  const plane = data.length / planes;
  const centred = Float32Array.from(data, (value, i) => {
    const level = PHOTO_COLOUR[Math.floor(i / plane)] as number;
    return ((value as number) * 255 - level) / CENTRED_UNIT;
  });
  return float32(shape, centred);
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
  const rowA = new Float64Array(width);
  const rowB = new Float64Array(width);
  const square = new Float64Array(width);
  const product = new Float64Array(width);
  const column = new Float64Array(4 * outWidth);
  let sum = 0;
  for (let y = 0; y < height; y++) {
    const start = offset + y * width;
    for (let x = 0; x < width; x++) {
      const p = a[start + x]!;
      const q = b[start + x]!;
      rowA[x] = p;
      rowB[x] = q;
      square[x] = p * p + q * q;
      product[x] = p * q;
    }
    const row = ring[y % WINDOW]!;
    filterRow(rowA, row, 0);
    filterRow(rowB, row, outWidth);
    filterRow(square, row, 2 * outWidth);
    filterRow(product, row, 3 * outWidth);
    if (y < WINDOW - 1) continue;

    filterColumns(ring, y + 1, column);
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

/** Filters a row and writes it into `target` from `at` on. */
function filterRow(source: Float64Array, target: Float64Array, at: number): void {
  for (let x = 0; x + WINDOW <= source.length; x++) {
    target[at + x] =
      K_0 * (source[x]! + source[x + 10]!) +
      K_1 * (source[x + 1]! + source[x + 9]!) +
      K_2 * (source[x + 2]! + source[x + 8]!) +
      K_3 * (source[x + 3]! + source[x + 7]!) +
      K_4 * (source[x + 4]! + source[x + 6]!) +
      K_5 * source[x + 5]!;
  }
}

/** Filters eleven rows across; `oldest` is the place in the ring, modulo eleven, of the row that came first. */
function filterColumns(ring: readonly Float64Array[], oldest: number, target: Float64Array): void {
  const row = (k: number): Float64Array => ring[(oldest + k) % WINDOW]!;
  const [r0, r1, r2, r3, r4, r5] = [row(0), row(1), row(2), row(3), row(4), row(5)];
  const [r6, r7, r8, r9, r10] = [row(6), row(7), row(8), row(9), row(10)];
  for (let i = 0; i < target.length; i++) {
    target[i] =
      K_0 * (r0[i]! + r10[i]!) +
      K_1 * (r1[i]! + r9[i]!) +
      K_2 * (r2[i]! + r8[i]!) +
      K_3 * (r3[i]! + r7[i]!) +
      K_4 * (r4[i]! + r6[i]!) +
      K_5 * r5[i]!;
  }
}

function gaussianKernel(): readonly [number, number, number, number, number, number] {
  const weight = (distance: number): number => Math.exp(-(distance ** 2) / (2 * SIGMA ** 2));
  const total = weight(0) + 2 * (weight(1) + weight(2) + weight(3) + weight(4) + weight(5));
  const share = (distance: number): number => weight(distance) / total;
  return [share(5), share(4), share(3), share(2), share(1), share(0)];
}
