/**
 * Tensor contents to and from JSON: the `data` member of an input or output.
 *
 * Arrays may be flat or nested, as the Open Inference Protocol allows; only the number of elements has to fit the
 * shape. 64-bit integers are exact, NaN and Infinity stand bare, BYTES elements are strings (read as the bytes they
 * are, written only where they are UTF-8). FP16 and BF16 have no JSON form. Elements go straight between bytes and
 * typed array; no JavaScript array of them is made.
 */
import { ScrimError } from '../errors.js';
import { allocate, type Tensor, type TensorArrays } from '../tensor.js';
import { byteStringsOf, type WireTensor } from './bytes-tensor.js';
import { DATATYPE_OF, type Datatype, DTYPE_OF, hasJsonForm } from './datatype.js';
import { MAX_FLOAT32_TEXT, writeFloat32 } from './float32-text.js';
import type { JsonReader } from './json-reader.js';
import { jsonNumber } from './json-value.js';
import { checkShape } from './tensor-bytes.js';

/** Elements turned into text at a time: bounds the length of one string. */
const CHUNK = 2 ** 15;
const MIN_INT64 = -(2n ** 63n);
const MAX_INT64 = 2n ** 63n - 1n;
const MAX_UINT64 = 2n ** 64n - 1n;

const INTEGER_RANGES: Partial<Record<Datatype, readonly [number, number]>> = {
  INT8: [-128, 127],
  UINT8: [0, 255],
  INT16: [-32_768, 32_767],
  UINT16: [0, 65_535],
  INT32: [-(2 ** 31), 2 ** 31 - 1],
  UINT32: [0, 2 ** 32 - 1],
};

/** Writes element after element of `data` as the reader gives them. */
function elementReader(
  reader: JsonReader,
  datatype: Datatype,
  data: TensorArrays[keyof TensorArrays],
): (index: number) => void {
  const range = INTEGER_RANGES[datatype];
  if (range !== undefined) {
    const [low, high] = range;
    const integers = data as Int32Array;
    return (index) => {
      integers[index] = reader.integer(low, high);
    };
  }
  switch (datatype) {
    case 'FP32': {
      const floats = data as Float32Array;
      return (index) => {
        floats[index] = reader.float32();
      };
    }
    case 'FP64': {
      const doubles = data as Float64Array;
      return (index) => {
        doubles[index] = reader.float64();
      };
    }
    case 'BOOL': {
      const booleans = data as Uint8Array;
      return (index) => {
        booleans[index] = reader.boolean() ? 1 : 0;
      };
    }
    default: {
      const signed = datatype === 'INT64';
      const integers = data as BigInt64Array;
      return (index) => {
        integers[index] = signed ? reader.bigint(MIN_INT64, MAX_INT64) : reader.bigint(0n, MAX_UINT64);
      };
    }
  }
}

/**
 * Reads the array the reader stands before as a tensor. BYTES elements are views of the text where it has no escapes.
 * @param what names the tensor in errors
 * @throws ScrimError `reader.code` for FP16 and BF16, elements of another kind or out of range, and a number of
 * elements that is not the shape's; LIMIT_EXCEEDED.
 */
export function readTensorJson(
  reader: JsonReader,
  datatype: Datatype,
  shape: readonly number[],
  what: string,
): WireTensor {
  if (!hasJsonForm(datatype)) {
    throw new ScrimError(reader.code, `${what} is ${datatype}, which has no JSON form: send it as binary data`);
  }
  const size = checkShape(shape, datatype, what, reader.limits, reader.code);
  // The shortest element is one digit, the shortest string two quotes, each with a comma or bracket behind it.
  const shortest = datatype === 'BYTES' ? 3 : 2;
  const miscounted = (count: string): never =>
    reader.fail(`${what} has ${count} elements than its shape [${shape.join(', ')}] says (${size})`);
  if (size * shortest > reader.remaining) miscounted('fewer');

  const strings: Uint8Array[] = [];
  const dtype = DTYPE_OF[datatype];
  const data = dtype === 'bytes' ? undefined : allocate(dtype, size);
  const read =
    data === undefined
      ? () => {
          strings.push(reader.stringBytes());
        }
      : elementReader(reader, datatype, data);
  const count = reader.flatArray((index) => {
    if (index >= size) miscounted('more');
    read(index);
  });
  if (count < size) miscounted('fewer');
  return data === undefined ? { dtype: 'bytes', shape, data: strings } : ({ dtype, shape, data } as Tensor);
}

/**
 * The contents of `tensor` as a flat JSON array, in pieces of UTF-8 to be joined.
 * @param what names the tensor in errors
 * @throws ScrimError INVALID_ARGUMENT for FP16 and BF16, and for BYTES elements that are not UTF-8.
 */
export function encodeTensorJson(tensor: WireTensor, what: string): Uint8Array[] {
  const datatype = DATATYPE_OF[tensor.dtype];
  if (!hasJsonForm(datatype)) {
    throw new ScrimError('INVALID_ARGUMENT', `${what} is ${datatype}, which has no JSON form: use binary data for it`);
  }
  const encoder = new TextEncoder();
  const parts: Uint8Array[] = [];
  const length = tensor.data.length;
  if (length === 0) return [encoder.encode('[]')];
  if (tensor.dtype === 'float32') return encodeFloats(tensor.data as Float32Array);
  const text = elementWriter(tensor, what);
  for (let start = 0; start < length; start += CHUNK) {
    const end = Math.min(start + CHUNK, length);
    parts.push(encoder.encode(`${start === 0 ? '[' : ','}${text(start, end)}${end === length ? ']' : ''}`));
  }
  return parts;
}

/** float32 straight to bytes: the form in which most images travel as JSON. */
function encodeFloats(floats: Float32Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const buffer = new Uint8Array(Math.min(CHUNK, floats.length) * (MAX_FLOAT32_TEXT + 1) + 1);
  for (let start = 0; start < floats.length; start += CHUNK) {
    const end = Math.min(start + CHUNK, floats.length);
    let at = 0;
    for (let i = start; i < end; i++) {
      buffer[at] = i === 0 ? 0x5b : 0x2c;
      at = writeFloat32(floats[i]!, buffer, at + 1);
    }
    if (end === floats.length) buffer[at++] = 0x5d;
    parts.push(buffer.slice(0, at));
  }
  return parts;
}

/** A function that gives elements `start` to `end` as JSON, separated by commas. */
function elementWriter(tensor: WireTensor, what: string): (start: number, end: number) => string {
  const strings = byteStringsOf(tensor);
  if (strings !== undefined) {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    return (start, end) => {
      const words: string[] = [];
      for (let i = start; i < end; i++) {
        try {
          words.push(JSON.stringify(decoder.decode(strings[i])));
        } catch (cause) {
          throw new ScrimError(
            'INVALID_ARGUMENT',
            `${what}: BYTES element ${i} is not UTF-8 and has no JSON form: use binary data for it`,
            { cause },
          );
        }
      }
      return words.join(',');
    };
  }
  const data = (tensor as Tensor).data;
  if (tensor.dtype === 'bool') {
    const booleans = data as Uint8Array;
    return (start, end) => Array.from(booleans.subarray(start, end), (value) => value !== 0).join(',');
  }
  if (tensor.dtype === 'float64') {
    const floats = data as Float64Array;
    return (start, end) => {
      const part = floats.subarray(start, end);
      // join writes NaN and Infinity bare, but drops the sign of a negative zero.
      return part.some((value) => Object.is(value, -0)) ? Array.from(part, jsonNumber).join(',') : part.join(',');
    };
  }
  const integers = data as Int32Array;
  return (start, end) => integers.subarray(start, end).join(',');
}
