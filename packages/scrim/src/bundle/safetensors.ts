/**
 * The safetensors container: named tensors and string metadata in one file.
 *
 * Layout from the format's README (huggingface/safetensors): 8 bytes little-endian header length, a JSON header
 * `{name: {dtype, shape, data_offsets}}` with `__metadata__`, then the data without gaps. The reader refuses overlaps,
 * gaps, offsets outside the file and headers above 1 MiB before it touches any data.
 */
import { ScrimError } from '../errors.js';
import { allocate, BYTES_PER_ELEMENT, type DataType, sizeOf, type Tensor, tensor } from '../tensor.js';

const CODES: Readonly<Partial<Record<DataType, string>>> = {
  float32: 'F32',
  float64: 'F64',
  float16: 'F16',
  bfloat16: 'BF16',
  int8: 'I8',
  uint8: 'U8',
  int16: 'I16',
  uint16: 'U16',
  int32: 'I32',
  uint32: 'U32',
  int64: 'I64',
  uint64: 'U64',
  bool: 'BOOL',
};
const TYPES: ReadonlyMap<string, DataType> = new Map(
  Object.entries(CODES).map(([dtype, code]) => [code, dtype as DataType]),
);
const MAX_HEADER_BYTES = 1 << 20;

/** What a safetensors file holds. */
export interface SafetensorsFile {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Encodes tensors in the order given. @throws ScrimError UNSUPPORTED for string tensors. */
export function encodeSafetensors(file: SafetensorsFile): Uint8Array {
  const header: Record<string, unknown> = {};
  if (Object.keys(file.metadata).length > 0) header.__metadata__ = file.metadata;
  const parts: Uint8Array[] = [];
  let end = 0;
  for (const [name, { dtype, shape, data }] of file.tensors) {
    const code = CODES[dtype];
    if (!code || Array.isArray(data)) {
      throw new ScrimError('UNSUPPORTED', `tensor '${name}' is ${dtype}, which safetensors can't hold`);
    }
    header[name] = { dtype: code, shape, data_offsets: [end, end + data.byteLength] };
    parts.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    end += data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded + end).fill(0x20, 8, 8 + padded);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  let position = 8 + padded;
  for (const part of parts) {
    bytes.set(part, position);
    position += part.length;
  }
  return bytes;
}

/** Decodes a file; tensors are copies. @throws ScrimError INVALID_DATA naming what is wrong. */
export function decodeSafetensors(bytes: Uint8Array): SafetensorsFile {
  const bad = (reason: string): ScrimError => new ScrimError('INVALID_DATA', `not a safetensors file: ${reason}`);
  if (bytes.length < 8) throw bad(`${bytes.length} bytes, expected at least 8`);
  const headerLength = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
  if (headerLength > MAX_HEADER_BYTES || 8 + headerLength > bytes.length) {
    throw bad(`a header of ${headerLength} bytes in a file of ${bytes.length}`);
  }
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, 8 + headerLength)));
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_DATA', 'not a safetensors file: the header is no JSON');
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) throw bad('the header is no object');
  const data = bytes.subarray(8 + headerLength);
  const tensors = new Map<string, Tensor>();
  const ranges: [number, number][] = [];
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header as Record<string, unknown>)) {
    if (name === '__metadata__') {
      metadata = stringRecord(entry, bad);
      continue;
    }
    const { dtype: code, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
    const dtype = TYPES.get(String(code));
    if (!dtype) throw bad(`tensor '${name}' has element type ${String(code)}`);
    if (!isIntegers(shape) || !isIntegers(offsets) || offsets.length !== 2) throw bad(`entry '${name}'`);
    const [start, stop] = offsets as [number, number];
    const size = sizeOf(shape);
    if (start > stop || stop > data.length || stop - start !== size * BYTES_PER_ELEMENT[dtype]) {
      throw bad(`tensor '${name}' of shape [${shape.join(', ')}] lies at ${start} to ${stop} of ${data.length} bytes`);
    }
    ranges.push([start, stop]);
    const array = allocate(dtype, size) as Float32Array;
    new Uint8Array(array.buffer).set(data.subarray(start, stop));
    tensors.set(name, tensor(dtype, shape, array as never));
  }
  ranges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let position = 0;
  for (const [start, stop] of ranges) {
    if (start !== position) throw bad(`a gap or an overlap at byte ${position} of the data`);
    position = stop;
  }
  if (position !== data.length) throw bad(`${data.length - position} bytes after the last tensor`);
  return { tensors, metadata };
}

function isIntegers(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= 32 && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function stringRecord(value: unknown, bad: (reason: string) => ScrimError): Record<string, string> {
  if (typeof value !== 'object' || value === null) throw bad('__metadata__ is no object');
  const record: Record<string, string> = {};
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== 'string') throw bad(`metadata '${key}' is no string`);
    record[key] = item;
  }
  return record;
}
