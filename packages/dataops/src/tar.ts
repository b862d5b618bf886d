/** Writes a tar archive (POSIX ustar): regular files with short paths, which is what a model repository consists of. */
import { assertArgument } from './argument.js';

const BLOCK = 512;
const LONGEST_NAME = 100;
const LONGEST_PREFIX = 155;
const LARGEST_FILE = 8 ** 11 - 1;

/** Parts of the archive of `files` in their order; `mode` of the files is 0644, of no owner in particular. */
export function* tarOf(files: ReadonlyMap<string, Uint8Array>): Generator<Uint8Array, void, undefined> {
  for (const [path, bytes] of files) {
    yield header(path, bytes.length);
    yield bytes;
    const rest = bytes.length % BLOCK;
    if (rest > 0) yield new Uint8Array(BLOCK - rest);
  }
  yield new Uint8Array(2 * BLOCK);
}

/** Length of the archive in bytes. */
export function tarLength(files: ReadonlyMap<string, Uint8Array>): number {
  let length = 2 * BLOCK;
  for (const bytes of files.values()) length += BLOCK + Math.ceil(bytes.length / BLOCK) * BLOCK;
  return length;
}

function header(path: string, size: number): Uint8Array {
  assertArgument(size <= LARGEST_FILE, `'${path}' has ${size} bytes, more than a tar archive takes`);
  const block = new Uint8Array(BLOCK);
  const write = (text: string, at: number): void => {
    block.set(new TextEncoder().encode(text), at);
  };
  const [prefix, name] = splitPath(path);
  write(name, 0);
  write('0000644\0', 100);
  write('0000000\0', 108);
  write('0000000\0', 116);
  write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  write('00000000000\0', 136);
  write('        ', 148); // the checksum counts as blanks while it is summed
  write('0', 156);
  write('ustar\0', 257);
  write('00', 263);
  write(prefix, 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function splitPath(path: string): [prefix: string, name: string] {
  const length = (text: string): number => new TextEncoder().encode(text).length;
  if (length(path) <= LONGEST_NAME) return ['', path];
  for (let at = path.lastIndexOf('/'); at > 0; at = path.lastIndexOf('/', at - 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (length(name) > LONGEST_NAME) break;
    if (length(prefix) <= LONGEST_PREFIX) return [prefix, name];
  }
  assertArgument(false, `'${path}' is too long a path for a tar archive`);
}
