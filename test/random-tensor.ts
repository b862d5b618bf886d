/** Tensors of normal numbers for tests, the same for the same seed. */
import { createFitRandom } from '../packages/scrim/src/noise/fit/fit-random.js';
import { float32, type Tensor } from '../packages/scrim/src/tensor.js';

/** Independent normal numbers of standard deviation `scale`. */
export function randomTensor(shape: readonly number[], seed: string, scale = 1): Tensor<'float32'> {
  const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
  createFitRandom(seed).normal(data);
  return float32(
    shape,
    data.map((value) => value * scale),
  );
}
