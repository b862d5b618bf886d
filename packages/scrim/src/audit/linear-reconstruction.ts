/**
 * What a release shows to a person: the best linear guess at the picture behind it.
 *
 * Ridge regression from the channels at one position of the released activation (and a constant) to the patch of pixels
 * that lies there, fitted on pairs of releases and pictures: W = (XᵀX + κI)⁻¹ XᵀY. It is the weakest attacker worth the
 * name, quick to fit and honest to look at. A trained decoder sees more; do not take this picture for a guarantee.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { float32, type Tensor } from '../tensor.js';

/** A fitted linear reconstruction. */
export interface LinearReconstruction {
  /** Side of the square patch that one position stands for, in pixels of the reconstruction. */
  readonly patch: number;
  /** [channels + 1, patch·patch·3], the constant last; pixels in [0, 1], rows of R, G, B. */
  readonly weights: Tensor<'float32'>;
}

/** Gathers pairs, then solves. */
export interface ReconstructionFitter {
  /**
   * Adds one pair.
   * @param release [1, C, H, W] as the tail gets it
   * @param picture RGB bytes, patch·W wide and patch·H high
   */
  add(
    release: Tensor<'float32'>,
    picture: { readonly data: Uint8Array; readonly width: number; readonly height: number },
  ): void;
  /** Solves for the weights. @throws ScrimError INVALID_DATA if nothing was added. */
  solve(): LinearReconstruction;
}

/** Relative ridge: κ is this times the mean diagonal of XᵀX. */
const RIDGE = 1e-4;

/** Makes an empty fitter for releases of `channels` channels. */
export function createReconstructionFitter(channels: number, patch: number): ReconstructionFitter {
  assertArgument(Number.isInteger(patch) && patch > 0, `patch is ${patch}, expected an integer > 0`);
  const size = channels + 1;
  const outputs = patch * patch * 3;
  const gram = new Float64Array(size * size);
  const cross = new Float64Array(size * outputs);
  const features = new Float64Array(size);
  const target = new Float64Array(outputs);
  let count = 0;
  return {
    add(release, picture) {
      const [batch, found, height = 0, width = 0] = release.shape;
      assertArgument(
        batch === 1 && found === channels && picture.width === width * patch && picture.height === height * patch,
        `a release of [${release.shape.join(', ')}] with a picture of ${picture.width}×${picture.height}, expected ` +
          `[1, ${channels}, H, W] and ${patch}·W × ${patch}·H`,
      );
      const plane = height * width;
      for (let position = 0; position < plane; position++) {
        for (let c = 0; c < channels; c++) features[c] = release.data[c * plane + position] as number;
        features[channels] = 1;
        readPatch(picture, position % width, Math.floor(position / width), patch, target);
        for (let i = 0; i < size; i++) {
          const value = features[i] as number;
          if (value === 0) continue;
          for (let j = 0; j <= i; j++)
            gram[i * size + j] = (gram[i * size + j] as number) + value * (features[j] as number);
          const row = i * outputs;
          for (let j = 0; j < outputs; j++) cross[row + j] = (cross[row + j] as number) + value * (target[j] as number);
        }
        count++;
      }
    },
    solve() {
      if (count === 0) throw new ScrimError('INVALID_DATA', 'there is nothing to fit a reconstruction on');
      let trace = 0;
      for (let i = 0; i < size; i++) trace += gram[i * size + i] as number;
      for (let i = 0; i < channels; i++) gram[i * size + i] = (gram[i * size + i] as number) + (RIDGE * trace) / size;
      solveCholesky(gram, cross, size, outputs);
      return { patch, weights: float32([size, outputs], Float32Array.from(cross)) };
    },
  };
}

/** Applies a reconstruction to a release as the tail gets it. Returns an RGB picture, clamped to [0, 255]. */
export function reconstruct(
  reconstruction: LinearReconstruction,
  release: Tensor<'float32'>,
): { width: number; height: number; data: Uint8Array } {
  const { patch, weights } = reconstruction;
  const [size = 0, outputs = 0] = weights.shape;
  const [batch, channels = 0, height = 0, width = 0] = release.shape;
  assertArgument(
    batch === 1 && channels === size - 1,
    `the release is [${release.shape.join(', ')}], expected [1, ${size - 1}, H, W]`,
  );
  const plane = height * width;
  const picture = { width: width * patch, height: height * patch, data: new Uint8Array(plane * outputs) };
  const values = new Float64Array(outputs);
  for (let position = 0; position < plane; position++) {
    values.fill(0);
    for (let i = 0; i < size; i++) {
      const value = i < channels ? (release.data[i * plane + position] as number) : 1;
      const row = i * outputs;
      for (let j = 0; j < outputs; j++) values[j] = (values[j] as number) + value * (weights.data[row + j] as number);
    }
    const left = (position % width) * patch;
    const top = Math.floor(position / width) * patch;
    for (let j = 0; j < outputs; j++) {
      const pixel = Math.floor(j / 3);
      const at = ((top + Math.floor(pixel / patch)) * picture.width + left + (pixel % patch)) * 3 + (j % 3);
      picture.data[at] = Math.max(0, Math.min(255, Math.round((values[j] as number) * 255)));
    }
  }
  return picture;
}

function readPatch(
  picture: { readonly data: Uint8Array; readonly width: number },
  column: number,
  row: number,
  patch: number,
  out: Float64Array,
): void {
  for (let y = 0; y < patch; y++) {
    const start = ((row * patch + y) * picture.width + column * patch) * 3;
    for (let i = 0; i < patch * 3; i++) out[y * patch * 3 + i] = (picture.data[start + i] as number) / 255;
  }
}

/** Solves A X = B in place of B for symmetric positive definite A, of which the lower triangle is given. */
function solveCholesky(a: Float64Array, b: Float64Array, n: number, columns: number): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j] as number;
      for (let k = 0; k < j; k++) sum -= (a[i * n + k] as number) * (a[j * n + k] as number);
      if (i === j) {
        if (!(sum > 0)) throw new ScrimError('INVALID_DATA', 'the releases to fit a reconstruction on are degenerate');
        a[i * n + i] = Math.sqrt(sum);
      } else {
        a[i * n + j] = sum / (a[j * n + j] as number);
      }
    }
  }
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) subtractRow(b, i, k, a[i * n + k] as number, columns);
    divideRow(b, i, a[i * n + i] as number, columns);
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) subtractRow(b, i, k, a[k * n + i] as number, columns);
    divideRow(b, i, a[i * n + i] as number, columns);
  }
}

function subtractRow(b: Float64Array, i: number, k: number, factor: number, columns: number): void {
  for (let c = 0; c < columns; c++) {
    b[i * columns + c] = (b[i * columns + c] as number) - factor * (b[k * columns + c] as number);
  }
}

function divideRow(b: Float64Array, i: number, divisor: number, columns: number): void {
  for (let c = 0; c < columns; c++) b[i * columns + c] = (b[i * columns + c] as number) / divisor;
}
