/**
 * What gRPC adds to HTTP/2, without any I/O: length-prefixed messages, timeouts and status messages (grpc/grpc,
 * doc/PROTOCOL-HTTP2.md).
 *
 * Messages are written as parts, tensors among them as views, so that nothing is joined before it is sent. They are read
 * into memory of their own that is taken as bytes come, and placed such that the first tensor of an inference lies
 * aligned in it.
 */
import { ScrimError } from '../errors.js';
import { rawContentsAt } from './grpc-message.js';

/** One message of a call. */
export interface GrpcFrame {
  readonly bytes: Uint8Array;
  /** True if it has to be decompressed by the call's `grpc-encoding`. */
  readonly compressed: boolean;
}

/** Bytes in front of a message. */
const PREFIX = 5;
/** A message gets its whole memory once one part in this many of it has come. */
const TRUSTED_SHARE = 16;
const ALIGNMENT = 8;
const COPIED_BYTES = 2 ** 14;

/** The parts of a message with its prefix in front. @throws ScrimError LIMIT_EXCEEDED beyond 4 GiB */
export function frameMessage(parts: readonly Uint8Array[], compressed = false): Uint8Array[] {
  // A small first part is copied rather than sent apart.
  const copies = parts[0] !== undefined && parts[0].length <= COPIED_BYTES;
  const first = copies ? (parts[0] as Uint8Array) : new Uint8Array(0);
  let length = 0;
  for (const part of parts) length += part.length;
  if (length >= 2 ** 32) throw new ScrimError('LIMIT_EXCEEDED', `the message has ${length} bytes, above 4 GiB`);
  const head = new Uint8Array(PREFIX + first.length);
  head[0] = compressed ? 1 : 0;
  new DataView(head.buffer).setUint32(1, length);
  head.set(first, PREFIX);
  return [head, ...(copies ? parts.slice(1) : parts)];
}

/** Takes the bytes of a call as they come and gives its messages. */
export class FrameReader {
  readonly #maxBytes: number;
  readonly #what: string;
  readonly #rawField: number | undefined;
  readonly #prefix = new Uint8Array(PREFIX);
  #prefixSize = 0;
  #length = 0;
  #size = 0;
  #early: Uint8Array[] = [];
  #body: Uint8Array | undefined;

  /**
   * @param maxBytes Most bytes of a message as sent
   * @param what names the message in errors
   * @param rawField number of the field that holds raw tensors, which then lie aligned where that is possible
   */
  constructor(maxBytes: number, what: string, rawField?: number) {
    this.#maxBytes = maxBytes;
    this.#what = what;
    this.#rawField = rawField;
  }

  /** True between messages. */
  get isEmpty(): boolean {
    return this.#prefixSize === 0;
  }

  /**
   * Takes the next bytes, which are not kept, and gives the messages they complete.
   * @throws ScrimError LIMIT_EXCEEDED for a message that is announced too long; INVALID_DATA for a wrong prefix.
   */
  push(chunk: Uint8Array): GrpcFrame[] {
    const frames: GrpcFrame[] = [];
    for (let at = 0; at < chunk.length || this.#isWhole(); ) {
      if (this.#prefixSize < PREFIX) {
        const taken = Math.min(PREFIX - this.#prefixSize, chunk.length - at);
        this.#prefix.set(chunk.subarray(at, at + taken), this.#prefixSize);
        this.#prefixSize += taken;
        at += taken;
        if (this.#prefixSize === PREFIX) this.#begin();
        continue;
      }
      const taken = Math.min(this.#length - this.#size, chunk.length - at);
      this.#take(chunk.subarray(at, at + taken));
      at += taken;
      if (this.#isWhole()) {
        frames.push({ bytes: this.#body ?? new Uint8Array(0), compressed: this.#prefix[0] === 1 });
        this.#prefixSize = 0;
        this.#size = 0;
        this.#body = undefined;
      }
    }
    return frames;
  }

  #isWhole(): boolean {
    return this.#prefixSize === PREFIX && this.#size === this.#length;
  }

  #begin(): void {
    if ((this.#prefix[0] as number) > 1) {
      throw new ScrimError('INVALID_DATA', `${this.#what} has a wrong prefix: it is no gRPC message`);
    }
    this.#length = new DataView(this.#prefix.buffer).getUint32(1);
    if (this.#length > this.#maxBytes) {
      throw new ScrimError(
        'LIMIT_EXCEEDED',
        `${this.#what} has ${this.#length} bytes, above the limit of ${this.#maxBytes}`,
        { details: { maximum: this.#maxBytes } },
      );
    }
  }

  #take(part: Uint8Array): void {
    if (this.#body) {
      this.#body.set(part, this.#size);
      this.#size += part.length;
      return;
    }
    const size = this.#size + part.length;
    if (size < this.#length && size * TRUSTED_SHARE < this.#length) {
      // Copied, as the caller may use its memory again.
      this.#early.push(new Uint8Array(part));
      this.#size = size;
      return;
    }
    const parts = [...this.#early, part];
    this.#early = [];
    const raw = this.#rawField === undefined ? undefined : rawContentsAt(parts[0] as Uint8Array, this.#rawField);
    const shift = raw === undefined ? 0 : (ALIGNMENT - (raw % ALIGNMENT)) % ALIGNMENT;
    this.#body = new Uint8Array(new ArrayBuffer(shift + this.#length), shift);
    let at = 0;
    for (const early of parts) {
      this.#body.set(early, at);
      at += early.length;
    }
    this.#size = size;
  }
}

const UNITS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** Value of `grpc-timeout` for a time in milliseconds: at most eight digits and a unit. */
export function formatGrpcTimeout(ms: number): string {
  const whole = Math.max(1, Math.ceil(ms));
  if (whole < 1e8) return `${whole}m`;
  return `${Math.min(99_999_999, Math.ceil(whole / 1000))}S`;
}

/** Milliseconds in a `grpc-timeout`; undefined where it is missing. @throws ScrimError INVALID_ARGUMENT */
export function parseGrpcTimeout(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const match = /^(\d{1,8})([HMSmun])$/.exec(value);
  if (!match) throw new ScrimError('INVALID_ARGUMENT', 'grpc-timeout is not at most eight digits and a unit');
  return Number(match[1]) * (UNITS[match[2] as string] as number);
}

/** A status message as it stands in `grpc-message`: everything but printable ASCII as %XX of its UTF-8. */
export function encodeGrpcStatusText(text: string): string {
  if (/^[ -$&-~]*$/.test(text)) return text;
  let encoded = '';
  for (const byte of new TextEncoder().encode(text)) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
    encoded += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return encoded;
}

/** The text in a `grpc-message`. What is no valid encoding stays as it is. */
export function decodeGrpcStatusText(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

/** The gRPC status that an HTTP status other than 200 stands for (doc/http-grpc-status-mapping.md). */
export function grpcStatusOfHttp(status: number): number {
  switch (status) {
    case 400:
      return 13;
    case 401:
      return 16;
    case 403:
      return 7;
    case 404:
      return 12;
    case 429:
    case 502:
    case 503:
    case 504:
      return 14;
    default:
      return 2;
  }
}
