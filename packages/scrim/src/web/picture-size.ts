/**
 * Width and height of a picture from the first bytes of its file, before any of it is decoded.
 *
 * A few kilobytes may claim billions of pixels; browsers tell the size only after they have taken the memory. Read here:
 * JPEG (ITU-T T.81, B.2.2), PNG (11.2.1), GIF, and WebP (RFC 9649, section 2). What else a browser knows is decoded
 * first and measured afterwards.
 */

/** Sizes as they are stored, before an EXIF orientation turns them. */
export interface StoredSize {
  readonly width: number;
  readonly height: number;
}

/** The size that the header of a picture claims; undefined for a format that is not read here or a header cut short. */
export function pictureSize(bytes: Uint8Array): StoredSize | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    if (startsWith(bytes, 0, [0x89, 0x50, 0x4e, 0x47])) return size(view.getUint32(16), view.getUint32(20));
    if (startsWith(bytes, 0, [0xff, 0xd8, 0xff])) return jpegSize(view);
    if (startsWith(bytes, 0, text('GIF8'))) return size(view.getUint16(6, true), view.getUint16(8, true));
    if (startsWith(bytes, 0, text('RIFF')) && startsWith(bytes, 8, text('WEBP'))) return webpSize(bytes, view);
  } catch (error) {
    // A read beyond the end: the header is longer than what was given.
    if (!(error instanceof RangeError)) throw error;
  }
  return undefined;
}

/** Start-of-frame markers are C0 to CF but for C4 (tables), C8 (reserved) and CC (conditioning). */
function jpegSize(view: DataView): StoredSize | undefined {
  let at = 2;
  for (;;) {
    if (view.getUint8(at) !== 0xff) return undefined;
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) {
      at++;
      continue;
    }
    const isFrame = marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
    if (isFrame) return size(view.getUint16(at + 7), view.getUint16(at + 5));
    const isAlone = marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    if (marker === 0xda || marker === 0xd9) return undefined;
    at += isAlone ? 2 : 2 + view.getUint16(at + 2);
  }
}

function webpSize(bytes: Uint8Array, view: DataView): StoredSize | undefined {
  if (startsWith(bytes, 12, text('VP8X'))) {
    const at24 = (at: number): number => view.getUint16(at, true) + view.getUint8(at + 2) * 65_536;
    return size(at24(24) + 1, at24(27) + 1);
  }
  if (startsWith(bytes, 12, text('VP8L'))) {
    const bits = view.getUint32(21, true);
    return size((bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1);
  }
  if (startsWith(bytes, 12, text('VP8 '))) {
    return size(view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff);
  }
  return undefined;
}

function size(width: number, height: number): StoredSize | undefined {
  return width > 0 && height > 0 ? { width, height } : undefined;
}

function text(letters: string): number[] {
  return Array.from(letters, (letter) => letter.charCodeAt(0));
}

function startsWith(bytes: Uint8Array, at: number, expected: readonly number[]): boolean {
  return expected.every((byte, i) => bytes[at + i] === byte);
}
