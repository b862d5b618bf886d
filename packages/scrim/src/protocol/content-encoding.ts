/**
 * Content-Encoding gzip and deflate (which HTTP defines as the zlib format, RFC 9110 section 8.4.1), both ways.
 *
 * Done by the platform's CompressionStream: it is native, runs beside the event loop, checks the checksum and gives
 * its output in pieces, so that a small body that grows without end is stopped at the limit. (A JavaScript
 * implementation was measured at 2 to 5 times the time, on the event loop, and does not verify the checksum.)
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { checkLimit, DEFAULT_LIMITS, type Limits } from './limits.js';

/** Encodings this project reads and writes. */
export type ContentEncoding = 'identity' | 'gzip' | 'deflate';

/**
 * Reads the value of Content-Encoding; a missing or empty one is `identity`.
 * @throws ScrimError UNSUPPORTED for any other encoding or more than one.
 */
export function parseContentEncoding(value: string | null | undefined): ContentEncoding {
  const name = (value ?? '').trim().toLowerCase();
  switch (name) {
    case '':
    case 'identity':
      return 'identity';
    case 'gzip':
    case 'x-gzip':
      return 'gzip';
    case 'deflate':
      return 'deflate';
    default:
      throw new ScrimError('UNSUPPORTED', 'the Content-Encoding is not supported, expected gzip, deflate or identity');
  }
}

/**
 * The encoding to answer with for the value of Accept-Encoding: the one of highest weight, gzip before deflate.
 * `identity` where neither is named, as `*` does not ask for compression.
 */
export function chooseContentEncoding(accept: string | null | undefined): ContentEncoding {
  if (!accept || accept === 'identity') return 'identity';
  let best: ContentEncoding = 'identity';
  let bestWeight = 0;
  for (const entry of accept.toLowerCase().split(',').slice(0, 32)) {
    const [name, ...attributes] = entry.split(';').map((part) => part.trim());
    if (name !== 'gzip' && name !== 'deflate' && name !== 'identity') continue;
    const quality = attributes.find((attribute) => attribute.startsWith('q='));
    const weight = quality === undefined ? 1 : Number(quality.slice(2));
    if (!(weight > 0 && weight <= 1)) continue;
    if (weight > bestWeight || (weight === bestWeight && rank(name) > rank(best))) {
      best = name;
      bestWeight = weight;
    }
  }
  return best;
}

function rank(encoding: ContentEncoding): number {
  return encoding === 'gzip' ? 2 : encoding === 'deflate' ? 1 : 0;
}

/** Compresses a body given in parts; `identity` joins them. */
export async function encodeContent(
  parts: readonly Uint8Array[],
  encoding: ContentEncoding,
): Promise<Uint8Array<ArrayBuffer>> {
  if (encoding === 'identity') return join(parts);
  return pump(parts, new CompressionStream(encoding), Number.POSITIVE_INFINITY);
}

/**
 * Decompresses a body. `identity` gives `body` itself.
 * @param what names the body in errors
 * @throws ScrimError LIMIT_EXCEEDED as soon as the output passes `maxBytes`; `code` if the bytes are not what the
 * encoding says, cut off, or fail the checksum.
 */
export async function decodeContent(
  body: Uint8Array,
  encoding: ContentEncoding,
  options: { readonly limits?: Limits; readonly what?: string; readonly code?: ScrimErrorCode } = {},
): Promise<Uint8Array> {
  const { limits = DEFAULT_LIMITS, what = 'the body', code = 'INVALID_ARGUMENT' } = options;
  checkLimit(limits, 'maxBytes', body.length, what, 'bytes');
  if (encoding === 'identity') return body;
  try {
    return await pump([body], new DecompressionStream(encoding), limits.maxBytes);
  } catch (cause) {
    if (cause === OVERFLOW) {
      throw new ScrimError('LIMIT_EXCEEDED', `${what} has more than ${limits.maxBytes} bytes when decompressed`, {
        details: { maximum: limits.maxBytes },
      });
    }
    throw new ScrimError(code, `${what} is not valid ${encoding}`, { cause });
  }
}

const OVERFLOW = Symbol('output above the limit');
/** Input handed over at a time: bounds how far the output can run ahead of the check. */
const SLICE = 2 ** 16;

interface ByteStream {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array<ArrayBuffer>>;
}

async function pump(
  parts: readonly Uint8Array[],
  stream: ByteStream,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const writer = stream.writable.getWriter();
  const writing = (async () => {
    for (const part of parts) {
      for (let start = 0; start < part.length; start += SLICE) {
        await writer.ready;
        await writer.write(part.subarray(start, start + SLICE) as Uint8Array<ArrayBuffer>);
      }
    }
    await writer.close();
  })();
  // The reader reports faults; this only keeps a failed write from counting as unhandled.
  writing.catch(() => {});
  const reader = stream.readable.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > maxBytes) {
      await reader.cancel(OVERFLOW).catch(() => {});
      throw OVERFLOW;
    }
    chunks.push(value);
  }
  await writing;
  return join(chunks);
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}
