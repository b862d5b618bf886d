/**
 * Runs a model on onnxruntime-node directly, past our own engine: the oracle that shape inference, splitting and
 * gradients are checked against.
 */
import { InferenceSession, Tensor as RuntimeTensor } from 'onnxruntime-node';
import { allocate, type DataType, sizeOf, type Tensor } from '../packages/scrim/src/tensor.js';

/** 'none' runs node by node, as written; 'all' lets the runtime rewrite the graph. */
export type Optimize = 'none' | 'all';

/** Outputs of one run of `model` with one thread. Rejects with the runtime's own error. */
export async function runOnnx(
  model: Uint8Array,
  feeds: Readonly<Record<string, Tensor>>,
  optimize: Optimize = 'none',
): Promise<Record<string, Tensor>> {
  const session = await InferenceSession.create(model, {
    graphOptimizationLevel: optimize === 'none' ? 'disabled' : 'all',
    logSeverityLevel: 4,
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
  });
  try {
    const inputs = Object.fromEntries(
      Object.entries(feeds).map(([name, { dtype, data, shape }]) => [
        name,
        new RuntimeTensor(dtype as 'float32', data as Float32Array, shape),
      ]),
    );
    const outputs = await session.run(inputs);
    return Object.fromEntries(
      Object.entries(outputs).map(([name, value]) => [
        name,
        { dtype: value.type as DataType, shape: [...value.dims], data: value.data as Float32Array },
      ]),
    );
  } finally {
    await session.release();
  }
}

/** A tensor of reproducible values: multiples of 1/64 in (-2, 2) for floats, zeros for everything else. */
export function sampleTensor(dtype: DataType, shape: readonly number[], seed = 1): Tensor {
  const data = allocate(dtype, sizeOf(shape));
  if (dtype !== 'float32' && dtype !== 'float64') return { dtype, shape, data };
  let state = (seed * 2654435761) >>> 0;
  const floats = data as Float32Array;
  for (let i = 0; i < floats.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    floats[i] = ((state >>> 24) - 127.5) / 64;
  }
  return { dtype, shape, data };
}
