/**
 * Several requests as one: inputs joined along the first dimension, outputs divided again.
 *
 * A request alone keeps its arrays; the parts of a joined output are views of it.
 */
import type { NamedTensors } from '../engine/engine.js';
import { ScrimError } from '../errors.js';
import { allocate, type Tensor, tensor } from '../tensor.js';

/** Joins the inputs of requests with the same names, types and further dimensions along the first dimension. */
export function joinFeeds(parts: readonly NamedTensors[]): Record<string, Tensor> {
  const joined: Record<string, Tensor> = Object.create(null);
  for (const [name, first] of Object.entries(parts[0]!)) {
    joined[name] = join(parts.map((part) => part[name] ?? first));
  }
  return joined;
}

function join(tensors: readonly Tensor[]): Tensor {
  const { dtype, shape } = tensors[0]!;
  const rows = tensors.reduce((sum, { shape: [batch = 0] }) => sum + batch, 0);
  const size = tensors.reduce((sum, { data }) => sum + data.length, 0);
  if (dtype === 'string') {
    return tensor(
      'string',
      [rows, ...shape.slice(1)],
      (tensors as Tensor<'string'>[]).flatMap(({ data }) => data),
    );
  }
  const data = allocate(dtype, size) as Exclude<Tensor['data'], string[]>;
  let offset = 0;
  for (const part of tensors) {
    data.set(part.data as never, offset);
    offset += part.data.length;
  }
  return { dtype, shape: [rows, ...shape.slice(1)], data } as Tensor;
}

/**
 * Divides outputs among requests of `sizes` rows each.
 * @throws ScrimError ENGINE_FAILED if an output does not have as many rows as the requests together.
 */
export function divideOutputs(
  outputs: Readonly<Record<string, Tensor>>,
  sizes: readonly number[],
): Record<string, Tensor>[] {
  const rows = sizes.reduce((sum, size) => sum + size, 0);
  const parts = sizes.map((): Record<string, Tensor> => Object.create(null));
  for (const [name, { dtype, shape, data }] of Object.entries(outputs)) {
    if (shape[0] !== rows) {
      throw new ScrimError(
        'ENGINE_FAILED',
        `output '${name}' has shape [${shape.join(', ')}] for a batch of ${rows}: the model does not batch`,
      );
    }
    const width = data.length / rows;
    let row = 0;
    for (const [i, size] of sizes.entries()) {
      const slice =
        dtype === 'string'
          ? (data as string[]).slice(row * width, (row + size) * width)
          : (data as Float32Array).subarray(row * width, (row + size) * width);
      parts[i]![name] = { dtype, shape: [size, ...shape.slice(1)], data: slice } as Tensor;
      row += size;
    }
  }
  return parts;
}
