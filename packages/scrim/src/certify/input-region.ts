/** A rectangle of an input [1, C, H, W] and the values it covers, in all channels. */
import { assertArgument } from '../errors.js';

/** Pixels of the model's input: left and top corner, width and height. */
export interface InputRegion {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/**
 * Indices of the values of `region` in an input of `shape`.
 * @throws ScrimError INVALID_ARGUMENT if the input is no [1, C, H, W] or the region lies outside it or is empty
 */
export function regionIndices(region: InputRegion, shape: readonly number[]): Uint32Array {
  const { x, y, width, height } = region;
  const [, channels = 0, rows = 0, columns = 0] = shape;
  const whole = [x, y, width, height].every((value) => Number.isSafeInteger(value) && value >= 0);
  assertArgument(
    shape.length === 4 && whole && width > 0 && height > 0 && x + width <= columns && y + height <= rows,
    `region ${x},${y},${width},${height} is not inside an input of [${shape.join(', ')}], whose last are height and width`,
  );
  const indices = new Uint32Array(channels * width * height);
  let at = 0;
  for (let c = 0; c < channels; c++) {
    for (let row = y; row < y + height; row++) {
      for (let column = x; column < x + width; column++) indices[at++] = (c * rows + row) * columns + column;
    }
  }
  return indices;
}
