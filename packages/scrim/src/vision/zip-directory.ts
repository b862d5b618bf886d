/**
 * Reads the entries of a zip file that is held in memory: end record, zip64 end record, central directory, local
 * headers (PKWARE APPNOTE 4.3), stored and deflated entries. Sizes come from the central directory and are checked
 * against limits before anything is allocated; entries that overlap, lie outside the file or carry a name that could
 * leave a folder are refused. Checksums are not verified: PyTorch lets them be switched off.
 */
import { inflateSync } from 'fflate';
import { ScrimError } from '../errors.js';

/** Limits of one zip file. */
export interface ZipLimits {
  readonly maxEntries: number;
  /** Largest size of one entry after inflation. */
  readonly maxEntryBytes: number;
  /** Largest sum of the sizes of all entries after inflation. */
  readonly maxTotalBytes: number;
}

/** One file of a zip: its size, and how to read it. */
export interface ZipEntry {
  readonly name: string;
  readonly bytes: number;
  /**
   * The content: a view of the zip where the entry is stored, else a fresh array.
   * @throws ScrimError INVALID_DATA if the entry is damaged.
   */
  readonly read: () => Uint8Array;
}

const DEFAULT_LIMITS: ZipLimits = { maxEntries: 65_536, maxEntryBytes: 2 ** 30, maxTotalBytes: 2 ** 31 };

const END_SIGNATURE = 0x06054b50;
const END64_LOCATOR_SIGNATURE = 0x07064b50;
const END64_SIGNATURE = 0x06064b50;
const CENTRAL_SIGNATURE = 0x02014b50;
const LOCAL_SIGNATURE = 0x04034b50;
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
/** No deflate stream expands further than this (RFC 1951: 258 bytes from 2 bits). */
const MAX_DEFLATE_RATIO = 1032;

const fail = (message: string): ScrimError => new ScrimError('INVALID_DATA', `zip: ${message}`);

/** True if `bytes` start like a zip file that has entries. */
export function isZip(bytes: Uint8Array): boolean {
  return (
    bytes.length >= END_BYTES && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === LOCAL_SIGNATURE
  );
}

/**
 * Lists a zip's entries by name.
 * @throws ScrimError INVALID_DATA for a damaged or contradictory directory, UNSUPPORTED for encrypted entries and other
 * compression methods, LIMIT_EXCEEDED above the limits.
 */
export function readZipDirectory(bytes: Uint8Array, limits: Partial<ZipLimits> = {}): Map<string, ZipEntry> {
  const { maxEntries, maxEntryBytes, maxTotalBytes } = { ...DEFAULT_LIMITS, ...limits };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = findEnd(view);
  if (end.count > maxEntries) {
    throw new ScrimError('LIMIT_EXCEEDED', `zip: ${end.count} entries, at most ${maxEntries} are read`);
  }

  const entries = new Map<string, ZipEntry>();
  const spans: [number, number][] = [];
  let at = end.offset;
  let total = 0;
  for (let i = 0; i < end.count; i++) {
    if (at + CENTRAL_BYTES > end.limit || view.getUint32(at, true) !== CENTRAL_SIGNATURE) {
      throw fail(`directory entry ${i} of ${end.count} is missing`);
    }
    const flags = view.getUint16(at + 8, true);
    const method = view.getUint16(at + 10, true);
    const nameBytes = view.getUint16(at + 28, true);
    const extraBytes = view.getUint16(at + 30, true);
    const next = at + CENTRAL_BYTES + nameBytes + extraBytes + view.getUint16(at + 32, true);
    if (next > end.limit) throw fail(`directory entry ${i} of ${end.count} is cut off`);
    const name = entryName(bytes.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes), i);
    const wide = wideFields(view, at, at + CENTRAL_BYTES + nameBytes, extraBytes, name);
    at = next;

    if ((flags & 1) !== 0) throw new ScrimError('UNSUPPORTED', `zip: entry ${name} is encrypted`);
    if (method !== 0 && method !== 8) {
      throw new ScrimError('UNSUPPORTED', `zip: entry ${name} has compression method ${method}, expected 0 or 8`);
    }
    if (entries.has(name)) throw fail(`entry ${name} is there twice`);
    total += wide.size;
    if (wide.size > maxEntryBytes || total > maxTotalBytes) {
      throw new ScrimError(
        'LIMIT_EXCEEDED',
        `zip: entry ${name} has ${wide.size} bytes, ${total} with those before it`,
      );
    }
    const stored = method === 0;
    if (stored ? wide.size !== wide.packed : wide.size > wide.packed * MAX_DEFLATE_RATIO) {
      throw fail(`entry ${name} states ${wide.size} bytes in ${wide.packed}, which can't be`);
    }
    const data = dataOffset(view, wide.offset, name);
    if (data + wide.packed > end.offset) throw fail(`entry ${name} reaches into the directory`);
    spans.push([wide.offset, data + wide.packed]);

    const packed = bytes.subarray(data, data + wide.packed);
    entries.set(name, { name, bytes: wide.size, read: () => (stored ? packed : inflate(packed, wide.size, name)) });
  }

  spans.sort((a, b) => a[0] - b[0]);
  for (let i = 1; i < spans.length; i++) {
    if (spans[i]![0] < spans[i - 1]![1]) throw fail('two entries overlap');
  }
  return entries;
}

/** Where the directory starts, where it must have ended, and how many entries it states. */
function findEnd(view: DataView): { offset: number; limit: number; count: number } {
  const lowest = Math.max(0, view.byteLength - END_BYTES - MAX_COMMENT_BYTES);
  for (let at = view.byteLength - END_BYTES; at >= lowest; at--) {
    if (view.getUint32(at, true) !== END_SIGNATURE) continue;
    let count: number = view.getUint16(at + 10, true);
    let size: number = view.getUint32(at + 12, true);
    let offset: number = view.getUint32(at + 16, true);
    const locator = at - 20;
    if (locator >= 0 && view.getUint32(locator, true) === END64_LOCATOR_SIGNATURE) {
      const end64 = wideNumber(view, locator + 8);
      if (end64 + 56 > locator || view.getUint32(end64, true) !== END64_SIGNATURE) {
        throw fail('the zip64 end record is not where its locator points');
      }
      count = wideNumber(view, end64 + 32);
      size = wideNumber(view, end64 + 40);
      offset = wideNumber(view, end64 + 48);
    }
    if (offset + size > at) throw fail('the directory does not lie before the end record');
    return { offset, limit: offset + size, count };
  }
  throw fail('it has no end record: not a zip file, or cut off');
}

/** Sizes and offset of a directory entry, from its zip64 extra field where the 32-bit fields say so. */
function wideFields(
  view: DataView,
  entry: number,
  extra: number,
  extraBytes: number,
  name: string,
): { size: number; packed: number; offset: number } {
  let packed: number = view.getUint32(entry + 20, true);
  let size: number = view.getUint32(entry + 24, true);
  let offset: number = view.getUint32(entry + 42, true);
  if (packed !== 0xffffffff && size !== 0xffffffff && offset !== 0xffffffff) return { size, packed, offset };
  for (let at = extra; at + 4 <= extra + extraBytes; ) {
    const next = at + 4 + view.getUint16(at + 2, true);
    if (next > extra + extraBytes) break;
    if (view.getUint16(at, true) === 1) {
      let field = at + 4;
      const take = (): number => {
        if (field + 8 > next) throw fail(`entry ${name} has a zip64 field that is too short`);
        field += 8;
        return wideNumber(view, field - 8);
      };
      if (size === 0xffffffff) size = take();
      if (packed === 0xffffffff) packed = take();
      if (offset === 0xffffffff) offset = take();
      return { size, packed, offset };
    }
    at = next;
  }
  throw fail(`entry ${name} lacks its zip64 field`);
}

/** A 64-bit number; those above 2⁵³ become infinite, which every later bound refuses. */
function wideNumber(view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.POSITIVE_INFINITY : Number(value);
}

function entryName(raw: Uint8Array, index: number): string {
  let name = '';
  for (const byte of raw) {
    if (byte < 0x20 || byte > 0x7e) throw fail(`entry ${index} has a name that is not printable ASCII`);
    name += String.fromCharCode(byte);
  }
  const parts = name.replace(/\/$/, '').split('/');
  if (name.includes('\\') || name.includes(':') || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw fail(`entry ${index} has a name that is no plain relative path`);
  }
  return name;
}

function dataOffset(view: DataView, local: number, name: string): number {
  if (local + LOCAL_BYTES > view.byteLength || view.getUint32(local, true) !== LOCAL_SIGNATURE) {
    throw fail(`entry ${name} is not where the directory says`);
  }
  return local + LOCAL_BYTES + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
}

function inflate(packed: Uint8Array, size: number, name: string): Uint8Array {
  let out: Uint8Array;
  try {
    // One byte more than stated, so that a longer stream shows.
    out = inflateSync(packed, { out: new Uint8Array(size + 1) });
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_DATA', `zip: entry ${name} can't be inflated`);
  }
  if (out.length !== size) throw fail(`entry ${name} inflates to ${out.length} bytes or more, ${size} were stated`);
  return out;
}
