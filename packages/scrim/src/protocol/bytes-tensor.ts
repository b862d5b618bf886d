/**
 * BYTES tensors: each element is a string of arbitrary bytes, so it is kept as bytes, never as text.
 *
 * On the wire an element is a 4-byte little-endian length and that many bytes, elements in row-major order (Open
 * Inference Protocol, "Tensor Data"; Triton's binary tensor data extension). Decoders of this room always give a
 * {@link BytesTensor} for BYTES; {@link toStrings} turns it into text where it is valid UTF-8.
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { type DataType, sizeOf, type Tensor } from '../tensor.js';
import { checkLimit, type Limits } from './limits.js';

/** A tensor of byte strings. `data.length` is the product of `shape`. */
export interface BytesTensor {
  readonly dtype: 'bytes';
  readonly shape: readonly number[];
  readonly data: readonly Uint8Array[];
}

/** What can be sent: any tensor of this project, or byte strings. Decoders never give dtype `string`. */
export type WireTensor = Tensor | BytesTensor;

const LENGTH_BYTES = 4;

/**
 * Makes a tensor over byte strings, which are kept, not copied.
 * @throws ScrimError INVALID_ARGUMENT if `data` has another length than `shape` asks for.
 */
export function bytesTensor(shape: readonly number[], data: readonly Uint8Array[]): BytesTensor {
  const size = sizeOf(shape);
  if (data.length !== size) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `shape [${shape.join(', ')}] needs ${size} elements, but the data has ${data.length}`,
    );
  }
  return { dtype: 'bytes', shape, data };
}

/** True for a tensor of byte strings. */
export function isBytesTensor(tensor: WireTensor): tensor is BytesTensor {
  return tensor.dtype === 'bytes';
}

/** Each string of `tensor` as UTF-8; a lone surrogate becomes U+FFFD, as in every text encoder. */
export function toBytes(tensor: Tensor<'string'>): BytesTensor {
  const encoder = new TextEncoder();
  return { dtype: 'bytes', shape: tensor.shape, data: tensor.data.map((text) => encoder.encode(text)) };
}

/**
 * Each element of `tensor` read as UTF-8.
 * @throws ScrimError INVALID_DATA naming the first element that is not valid UTF-8.
 */
export function toStrings(tensor: BytesTensor): Tensor<'string'> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const data = tensor.data.map((element, index) => {
    try {
      return decoder.decode(element);
    } catch (cause) {
      throw new ScrimError('INVALID_DATA', `element ${index} of the BYTES tensor is not valid UTF-8`, { cause });
    }
  });
  return { dtype: 'string', shape: tensor.shape, data };
}

/** The byte strings of a BYTES tensor; undefined for any other element type. */
export function byteStringsOf(tensor: WireTensor): readonly Uint8Array[] | undefined {
  if (isBytesTensor(tensor)) return tensor.data;
  if ((tensor.dtype as DataType) === 'string') return toBytes(tensor as Tensor as Tensor<'string'>).data;
  return undefined;
}

/** Byte strings one after another, each behind its length in 4 little-endian bytes. */
export function encodeByteStrings(elements: readonly Uint8Array[]): Uint8Array {
  let size = LENGTH_BYTES * elements.length;
  for (const element of elements) size += element.length;
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const element of elements) {
    view.setUint32(offset, element.length, true);
    bytes.set(element, offset + LENGTH_BYTES);
    offset += LENGTH_BYTES + element.length;
  }
  return bytes;
}

/**
 * Reads `count` byte strings that fill `bytes` exactly. The elements are views of `bytes`, not copies.
 * @param what names the tensor in errors
 * @throws ScrimError LIMIT_EXCEEDED above `maxStrings`; `code` where lengths and bytes do not agree.
 */
export function decodeByteStrings(
  bytes: Uint8Array,
  count: number,
  what: string,
  limits: Limits,
  code: ScrimErrorCode = 'INVALID_ARGUMENT',
): Uint8Array[] {
  checkLimit(limits, 'maxStrings', count, what, 'BYTES elements');
  if (count * LENGTH_BYTES > bytes.length) {
    throw new ScrimError(code, `${what} has ${bytes.length} bytes, too few for ${count} BYTES elements`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const elements = new Array<Uint8Array>(count);
  let offset = 0;
  for (let i = 0; i < count; i++) {
    const start = offset + LENGTH_BYTES;
    const end = start <= bytes.length ? start + view.getUint32(offset, true) : Number.POSITIVE_INFINITY;
    if (end > bytes.length) {
      throw new ScrimError(code, `${what}: BYTES element ${i} of ${count} reaches past the end of the data`);
    }
    elements[i] = bytes.subarray(start, end);
    offset = end;
  }
  if (offset !== bytes.length) {
    throw new ScrimError(code, `${what} has ${bytes.length - offset} bytes left after its ${count} BYTES elements`);
  }
  return elements;
}
