/**
 * Sums over everything but the batch, written so that a GPU computes them side by side.
 *
 * A reduction to one value is one thread's loop on WebGPU. Products with a column of ones, last axis first, are the same
 * sum in many short rows, in every operator set, and their gradient is a product too.
 */
import type { Graph } from '../onnx/index.js';
import { float32, int64 } from '../tensor.js';

/**
 * Adds the sum of `value` over all axes but the first, times `weight`.
 * @param shape of `value`: [N, …], at least two axes
 * @returns name of the sums, [N, 1]
 */
export function addSampleSums(graph: Graph, value: string, shape: readonly number[], weight = 1): string {
  const samples = shape[0] as number;
  const last = shape.at(-1) as number;
  const rows = shape.slice(1, -1).reduce((product, dimension) => product * dimension, 1);
  const product = (x: string, height: number, width: number, factor: number): string => {
    const flat = graph.addInitializer('sums_shape', int64([height, width]));
    const column = graph.addInitializer('sums_column', float32([width, 1], new Float32Array(width).fill(factor)));
    return graph.add('MatMul', [graph.add('Reshape', [x, flat]), column]);
  };
  return product(product(value, samples * rows, last, 1), samples, rows, weight);
}
