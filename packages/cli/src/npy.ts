/**
 * NumPy's .npy format, version 1 to 3, for float32 arrays in C order (numpy.lib.format). Other element types and Fortran
 * order are refused with the line that turns them into what is read.
 */
import { ScrimError, sizeOf, type Tensor, tensor } from 'scrim';

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const MAX_HEADER = 65_536;

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
  if (descr !== '<f4' || /'fortran_order':\s*True/.test(header)) {
    fail(`holds ${descr}, expected <f4 in C order: numpy.ascontiguousarray(a, 'float32')`);
  }
  const shape = (dims?.match(/\d+/g) ?? []).map(Number);
  const size = sizeOf(shape);
  if (bytes.length - start !== size * 4) fail(`has ${bytes.length - start} bytes of data, expected ${size * 4}`);
  // A copy: a Buffer's own slice() is a view that starts anywhere in its memory.
  return tensor('float32', shape, new Float32Array(new Uint8Array(bytes.subarray(start)).buffer, 0, size));
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
