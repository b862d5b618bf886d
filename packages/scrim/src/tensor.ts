/**
 * A tensor: element type, shape and a typed array in row-major order.
 *
 * Element types carry ONNX's names. float16 and bfloat16 are stored as their 16-bit patterns in a Uint16Array,
 * bool as 0 or 1 in a Uint8Array, string as an array of strings. What a tensor means (layout, colour order, units)
 * is said where it is used.
 */
import { ScrimError } from './errors.js';

/** Which array holds the elements of each element type. */
export interface TensorArrays {
  float32: Float32Array;
  float64: Float64Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  int32: Int32Array;
  uint32: Uint32Array;
  int64: BigInt64Array;
  uint64: BigUint64Array;
  bool: Uint8Array;
  string: string[];
}

/** Element type of a tensor, by its ONNX name in lower case. */
export type DataType = keyof TensorArrays;

/** A tensor whose element type is `T`. `data.length` equals the product of `shape`; a scalar has shape `[]`. */
export interface Tensor<T extends DataType = DataType> {
  readonly dtype: T;
  readonly shape: readonly number[];
  readonly data: TensorArrays[T];
}

/** Bytes of one element; 0 for strings, whose length varies. */
export const BYTES_PER_ELEMENT: Readonly<Record<DataType, number>> = {
  float32: 4,
  float64: 8,
  float16: 2,
  bfloat16: 2,
  int8: 1,
  uint8: 1,
  int16: 2,
  uint16: 2,
  int32: 4,
  uint32: 4,
  int64: 8,
  uint64: 8,
  bool: 1,
  string: 0,
};

/** Largest number of elements a tensor may have: what one typed array can index. */
export const MAX_ELEMENTS: number = 2 ** 32 - 1;

/**
 * Number of elements of `shape`.
 * @throws ScrimError INVALID_ARGUMENT for a dimension that is no integer ≥ 0, LIMIT_EXCEEDED above {@link MAX_ELEMENTS}.
 */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) {
      throw new ScrimError('INVALID_ARGUMENT', `shape [${shape.join(', ')}] has a dimension that is no integer ≥ 0`);
    }
    size *= dimension;
  }
  if (size > MAX_ELEMENTS) {
    throw new ScrimError('LIMIT_EXCEEDED', `shape [${shape.join(', ')}] has ${size} elements, above ${MAX_ELEMENTS}`);
  }
  return size;
}

/** Allocates the array for `length` elements of `dtype`, filled with zeros (or empty strings). */
export function allocate<T extends DataType>(dtype: T, length: number): TensorArrays[T] {
  return allocators[dtype](length) as TensorArrays[T];
}

const allocators: { [T in DataType]: (length: number) => TensorArrays[T] } = {
  float32: (n) => new Float32Array(n),
  float64: (n) => new Float64Array(n),
  float16: (n) => new Uint16Array(n),
  bfloat16: (n) => new Uint16Array(n),
  int8: (n) => new Int8Array(n),
  uint8: (n) => new Uint8Array(n),
  int16: (n) => new Int16Array(n),
  uint16: (n) => new Uint16Array(n),
  int32: (n) => new Int32Array(n),
  uint32: (n) => new Uint32Array(n),
  int64: (n) => new BigInt64Array(n),
  uint64: (n) => new BigUint64Array(n),
  bool: (n) => new Uint8Array(n),
  string: (n) => new Array<string>(n).fill(''),
};

/**
 * Makes a tensor over `data`, which is kept, not copied.
 * @throws ScrimError INVALID_ARGUMENT if `data` has another length than `shape` asks for.
 */
export function tensor<T extends DataType>(dtype: T, shape: readonly number[], data?: TensorArrays[T]): Tensor<T> {
  const size = sizeOf(shape);
  const array = data ?? allocate(dtype, size);
  if (array.length !== size) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `shape [${shape.join(', ')}] needs ${size} elements, but the data has ${array.length}`,
    );
  }
  return { dtype, shape, data: array };
}

/** A float32 tensor from an array of numbers or a Float32Array (kept, not copied). */
export function float32(shape: readonly number[], data: Float32Array | readonly number[]): Tensor<'float32'> {
  return tensor('float32', shape, data instanceof Float32Array ? data : Float32Array.from(data));
}

/** An int64 tensor from integers; without `shape` it is a vector. */
export function int64(data: readonly (number | bigint)[], shape: readonly number[] = [data.length]): Tensor<'int64'> {
  return tensor(
    'int64',
    shape,
    BigInt64Array.from(data, (value) => BigInt(value)),
  );
}

/** A float32 scalar of shape `[]`. */
export function scalar(value: number): Tensor<'float32'> {
  return float32([], [value]);
}

/**
 * Narrows `value` to a tensor of `dtype`.
 * @throws ScrimError INVALID_ARGUMENT naming `what` and the element type that arrived.
 */
export function expectType<T extends DataType>(value: Tensor, dtype: T, what: string): Tensor<T> {
  if (value.dtype !== dtype) {
    throw new ScrimError('INVALID_ARGUMENT', `${what} is ${value.dtype}, expected ${dtype}`);
  }
  return value as Tensor as Tensor<T>;
}

/** True if both shapes have the same dimensions. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dimension, i) => dimension === b[i]);
}

/** The number whose IEEE 754 binary16 pattern is `bits`. */
export function halfToNumber(bits: number): number {
  const sign = (bits & 0x8000) === 0 ? 1 : -1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
