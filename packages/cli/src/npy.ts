/**
 * NumPy's .npy format, version 1 to 3, for arrays of numbers in C order (numpy.lib.format), read as float32. Integers that
 * float32 does not hold, other element types and Fortran order are refused with the line that turns them into what is read.
 */
import { ScrimError, sizeOf, type Tensor, tensor } from 'scrim';

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const MAX_HEADER = 65_536;

/** How the elements of each type lie in memory, little endian. */
const ELEMENTS: Readonly<Record<string, readonly [bytes: number, read: (view: DataView, at: number) => number]>> = {
  '<f4': [4, (view, at) => view.getFloat32(at, true)],
  '<f8': [8, (view, at) => view.getFloat64(at, true)],
  '|b1': [1, (view, at) => view.getUint8(at)],
  '|u1': [1, (view, at) => view.getUint8(at)],
  '|i1': [1, (view, at) => view.getInt8(at)],
  '<u2': [2, (view, at) => view.getUint16(at, true)],
  '<i2': [2, (view, at) => view.getInt16(at, true)],
  '<u4': [4, (view, at) => view.getUint32(at, true)],
  '<i4': [4, (view, at) => view.getInt32(at, true)],
  '<u8': [8, (view, at) => Number(view.getBigUint64(at, true))],
  '<i8': [8, (view, at) => Number(view.getBigInt64(at, true))],
};

/** Reads an array. @throws ScrimError INVALID_DATA naming what is wrong */
export function decodeNpy(bytes: Uint8Array): Tensor<'float32'> {
  const fail = (message: string): never => {
    throw new ScrimError('INVALID_DATA', `the .npy file ${message}`);
  };
  if (bytes.length < 12 || MAGIC.some((byte, i) => bytes[i] !== byte)) fail('does not begin as one');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = (bytes[6] ?? 0) > 1;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = (wide ? 12 : 10) + length;
  if (length > MAX_HEADER || start > bytes.length) fail('is cut off in its header');
  const header = new TextDecoder('latin1').decode(bytes.subarray(wide ? 12 : 10, start));
  const descr = /'descr':\s*'([^']*)'/.exec(header)?.[1];
  const dims = /'shape':\s*\(([\d,\sL]*)\)/.exec(header)?.[1];
  if (descr === undefined || dims === undefined) fail('has a header without descr and shape');
  const [width, read] = ELEMENTS[descr ?? ''] ?? [];
  if (!width || !read || /'fortran_order':\s*True/.test(header)) {
    return fail(`holds ${descr}, expected numbers in C order: numpy.ascontiguousarray(a, 'float32')`);
  }
  const shape = (dims?.match(/\d+/g) ?? []).map(Number);
  const size = sizeOf(shape);
  if (bytes.length - start !== size * width)
    fail(`has ${bytes.length - start} bytes of data, expected ${size * width}`);
  const data = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const value = read(view, start + i * width);
    data[i] = value;
    if (!descr?.includes('f') && data[i] !== value)
      fail(`holds the integer ${value}, which float32 can't: it ends at 2^24`);
  }
  return tensor('float32', shape, data);
}

/** Writes a float32 array, version 1. */
export function encodeNpy({ shape, data }: Tensor<'float32'>): Uint8Array {
  const dims = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${dims}), }`;
  const header = new TextEncoder().encode(`${text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11)}\n`);
  const bytes = new Uint8Array(10 + header.length + data.byteLength);
  bytes.set([...MAGIC, 1, 0, header.length & 0xff, header.length >> 8]);
  bytes.set(header, 10);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + header.length);
  return bytes;
}
