/**
 * Tensors to and from the protocol's raw bytes: row-major elements, little-endian, without padding.
 *
 * Nothing is copied where the machine is little-endian and the bytes lie aligned to the element size: encoding gives
 * a view of the tensor's memory, decoding a view of the message. Otherwise decoding copies. A decoded tensor
 * therefore keeps the whole message alive, and changing one changes the other; copy `data` to part them.
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { sizeOf, type Tensor, type TensorArrays } from '../tensor.js';
import { byteStringsOf, decodeByteStrings, encodeByteStrings, type WireTensor } from './bytes-tensor.js';
import { bytesPerElement, type Datatype, DTYPE_OF } from './datatype.js';
import { checkLimit, type Limits } from './limits.js';

/** True where typed arrays store their least significant byte first, as the wire does. */
export const LITTLE_ENDIAN: boolean = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

type NumericArray = Exclude<TensorArrays[keyof TensorArrays], string[]>;

const views: Readonly<
  Record<Exclude<Datatype, 'BYTES'>, new (buffer: ArrayBufferLike, byteOffset: number, length: number) => NumericArray>
> = {
  BOOL: Uint8Array,
  UINT8: Uint8Array,
  UINT16: Uint16Array,
  UINT32: Uint32Array,
  UINT64: BigUint64Array,
  INT8: Int8Array,
  INT16: Int16Array,
  INT32: Int32Array,
  INT64: BigInt64Array,
  FP16: Uint16Array,
  BF16: Uint16Array,
  FP32: Float32Array,
  FP64: Float64Array,
};

/**
 * Checks a shape off the wire and returns its number of elements.
 * @param what names the tensor in errors
 * @throws ScrimError `code` for a dimension that is no integer ≥ 0; LIMIT_EXCEEDED for too many dimensions or elements.
 */
export function checkShape(
  shape: readonly number[],
  datatype: Datatype,
  what: string,
  limits: Limits,
  code: ScrimErrorCode = 'INVALID_ARGUMENT',
): number {
  checkLimit(limits, 'maxRank', shape.length, what, 'dimensions');
  let size = 1;
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) {
      throw new ScrimError(code, `${what} has shape [${shape.join(', ')}], expected integers ≥ 0`);
    }
    size *= dimension;
  }
  // A zero may hide an overflow (Infinity · 0 is NaN): such a tensor is empty.
  if (shape.includes(0)) return 0;
  checkLimit(limits, datatype === 'BYTES' ? 'maxStrings' : 'maxElements', size, what, 'elements');
  return size;
}

/** Copies `bytes` with the bytes of each group of `width` in reverse order. */
export function swapBytes(bytes: Uint8Array, width: number): Uint8Array<ArrayBuffer> {
  const swapped = new Uint8Array(bytes.length);
  for (let start = 0; start < bytes.length; start += width) {
    for (let i = 0; i < width; i++) swapped[start + i] = bytes[start + width - 1 - i] ?? 0;
  }
  return swapped;
}

/** @throws ScrimError INVALID_ARGUMENT if `data` does not have as many elements as `shape` says. */
export function expectWhole(tensor: WireTensor, what: string): void {
  const { data, shape } = tensor;
  const size = sizeOf(shape);
  if (data.length === size) return;
  throw new ScrimError(
    'INVALID_ARGUMENT',
    `${what} has ${data.length} elements, but its shape [${shape.join(', ')}] says ${size}`,
  );
}

/** The bytes of a whole tensor as they go on the wire; a view of its memory except for BYTES. */
export function encodeTensorBytes(tensor: WireTensor): Uint8Array {
  const strings = byteStringsOf(tensor);
  if (strings !== undefined) return encodeByteStrings(strings);
  const array = (tensor as Tensor).data as NumericArray;
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return LITTLE_ENDIAN ? bytes : swapBytes(bytes, array.BYTES_PER_ELEMENT);
}

/**
 * Reads a tensor from the bytes that hold exactly it. Booleans other than 0 and 1 become 1 (in a copy).
 * @param what names the tensor in errors
 * @throws ScrimError `code` if the number of bytes is not what shape and datatype ask for; LIMIT_EXCEEDED.
 */
export function decodeTensorBytes(
  datatype: Datatype,
  shape: readonly number[],
  bytes: Uint8Array,
  what: string,
  limits: Limits,
  code: ScrimErrorCode = 'INVALID_ARGUMENT',
): WireTensor {
  const size = checkShape(shape, datatype, what, limits, code);
  if (datatype === 'BYTES') {
    return { dtype: 'bytes', shape, data: decodeByteStrings(bytes, size, what, limits, code) };
  }
  const width = bytesPerElement(datatype);
  if (bytes.length !== size * width) {
    throw new ScrimError(
      code,
      `${what} has ${bytes.length} bytes, expected ${size * width} for ${datatype} of shape [${shape.join(', ')}]`,
    );
  }
  let source = bytes;
  if (!LITTLE_ENDIAN && width > 1) source = swapBytes(bytes, width);
  // Not slice(): that of a Buffer, which sockets hand out, copies nothing.
  else if (bytes.byteOffset % width !== 0) source = new Uint8Array(bytes);
  if (datatype === 'BOOL' && source.some((value) => value > 1)) source = source.map((value) => (value === 0 ? 0 : 1));
  const data = new views[datatype](source.buffer, source.byteOffset, size);
  return { dtype: DTYPE_OF[datatype], shape, data } as Tensor;
}
