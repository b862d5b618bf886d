/**
 * Weights of separable resampling along one axis. Pixels are points at i + ½; a kernel that spans one pixel (linear) or
 * two (cubic, Catmull-Rom) each way lies on the source's grid where a side grows and is widened by the ratio where it
 * shrinks, so that nothing aliases. Beyond the edge the edge repeats. Enlarging with 'linear' is what OpenCV's
 * bilinear resizing does, which FaceBoxes was trained with.
 */

/** How values between pixels are made. */
export type ResampleKernel = 'linear' | 'cubic';

/** For each of `to` outputs: `count` neighbouring inputs from `starts[i]` on, and their weights, which sum to 1. */
export interface Taps {
  readonly count: number;
  readonly starts: Uint32Array;
  /** `count` numbers an output. */
  readonly weights: Float32Array;
}

/** Taps that make `to` pixels out of `from`; both integers ≥ 1. The same number of pixels is copied. */
export function makeTaps(from: number, to: number, kernel: ResampleKernel): Taps {
  if (from === to) {
    return { count: 1, starts: Uint32Array.from({ length: to }, (_, i) => i), weights: new Float32Array(to).fill(1) };
  }
  const ratio = Math.max(1, from / to);
  const reach = (kernel === 'linear' ? 1 : 2) * ratio;
  const wanted = Math.ceil(2 * reach);
  const count = Math.min(from, wanted);
  const starts = new Uint32Array(to);
  const weights = new Float32Array(to * count);
  const sums = new Float64Array(count);
  for (let i = 0; i < to; i++) {
    const centre = ((i + 0.5) * from) / to - 0.5;
    const first = Math.floor(centre - reach) + 1;
    const start = Math.min(Math.max(first, 0), from - count);
    let total = 0;
    sums.fill(0);
    for (let j = first; j < first + wanted; j++) {
      const weight = kernelAt(kernel, (j - centre) / ratio);
      sums[Math.min(Math.max(j, 0), from - 1) - start]! += weight;
      total += weight;
    }
    starts[i] = start;
    for (let t = 0; t < count; t++) weights[i * count + t] = sums[t]! / total;
  }
  return { count, starts, weights };
}

/** linear: 1 − |x|; cubic: Keys' convolution with a = −½ (Keys, 1981, equation 15). */
function kernelAt(kernel: ResampleKernel, x: number): number {
  const d = Math.abs(x);
  if (kernel === 'linear') return d < 1 ? 1 - d : 0;
  if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
  return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
}
