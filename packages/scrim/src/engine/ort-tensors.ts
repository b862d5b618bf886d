/**
 * Tensors and metadata between tensor.ts and onnxruntime-common 1.30 (types only; the classes are passed in).
 *
 * Arrays are shared, never copied. onnxruntime hands float16 out as a Float16Array where the platform has one and as
 * a Uint16Array elsewhere; here it is always the 16-bit patterns. Not in its JavaScript API: bfloat16, complex, 4-bit
 * and 8-bit floats, sequences, maps, optionals.
 */
import type { InferenceSession, Tensor as OrtTensor, TensorConstructor } from 'onnxruntime-common';
import { ScrimError } from '../errors.js';
import { BYTES_PER_ELEMENT, type DataType, type Tensor, type TensorArrays, tensor } from '../tensor.js';
import type { ValueInfo } from './engine.js';

/** An onnxruntime tensor over the array of `value`. */
export function toOrt(Constructor: TensorConstructor, value: Tensor): OrtTensor {
  // The constructor's overloads pair each name with its array; checkFeeds has made sure of the pair.
  const make = Constructor as new (type: string, data: Tensor['data'], dims: readonly number[]) => OrtTensor;
  return new make(value.dtype, value.data, value.shape);
}

/**
 * A tensor over the array of `value`.
 * @throws ScrimError UNSUPPORTED for an element type that tensor.ts lacks.
 */
export function fromOrt(name: string, value: OrtTensor): Tensor {
  const dtype = toDataType(`output "${name}"`, value.type);
  return tensor(
    dtype,
    [...value.dims],
    (dtype === 'float16' ? toPatterns(value.data) : value.data) as TensorArrays[DataType],
  );
}

/**
 * onnxruntime's metadata of one graph input or output. A rank-0 shape stands for a scalar and for an unknown rank.
 * @throws ScrimError UNSUPPORTED for a value that is no tensor of a supported element type.
 */
export function toValueInfo(kind: 'input' | 'output', value: InferenceSession.ValueMetadata): ValueInfo {
  const what = `${kind} "${value.name}"`;
  if (!value.isTensor) {
    throw new ScrimError(
      'UNSUPPORTED',
      `${what} of the graph is a sequence, map or optional; only tensors are supported`,
    );
  }
  // onnxruntime-web reports an unnamed unknown dimension as 2^32 - 1.
  const shape = value.shape.map((dimension) =>
    typeof dimension === 'number' && (dimension < 0 || dimension >= 2 ** 32 - 1) ? '' : dimension,
  );
  return { name: value.name, dtype: toDataType(what, value.type), shape };
}

function toDataType(what: string, type: string): DataType {
  if (!Object.hasOwn(BYTES_PER_ELEMENT, type)) {
    throw new ScrimError('UNSUPPORTED', `${what} has element type ${type}, which is not supported`);
  }
  return type as DataType;
}

function toPatterns(data: unknown): Uint16Array {
  if (data instanceof Uint16Array) return data;
  const view = data as ArrayBufferView;
  return new Uint16Array(view.buffer, view.byteOffset, view.byteLength / 2);
}
