/**
 * The body of a v2 HTTP message: JSON, then the binary tensors one after another.
 *
 * Triton's binary tensor data extension: the header Inference-Header-Content-Length says where the JSON ends, counted
 * in the uncompressed body. Writers here end the JSON with up to 7 spaces, so that the first tensor starts at a
 * multiple of 8 bytes and a reader can use it in place.
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';

/** Name of the header that holds the length of the JSON part. */
export const HEADER_LENGTH = 'inference-header-content-length';

const ALIGNMENT = 8;

/** An encoded body. The parts are to be sent one after another; tensors among them are views, not copies. */
export interface EncodedBody {
  /** Content-Type and, with binary tensors, Inference-Header-Content-Length. Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly parts: readonly Uint8Array[];
  /** Bytes of all parts together. */
  readonly byteLength: number;
  /** Bytes of the JSON part; missing where there is nothing else. */
  readonly headerLength?: number;
}

/** The whole body in one array. */
export function joinBody(body: EncodedBody): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(body.byteLength);
  let offset = 0;
  for (const part of body.parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

/**
 * Reads the value of Inference-Header-Content-Length; undefined where the header is missing.
 * @throws ScrimError `code` unless it is an integer ≥ 0 in decimal digits.
 */
export function parseHeaderLength(
  value: string | null | undefined,
  code: ScrimErrorCode = 'INVALID_ARGUMENT',
): number | undefined {
  if (value === null || value === undefined) return undefined;
  if (!/^\d{1,15}$/.test(value)) {
    throw new ScrimError(code, 'Inference-Header-Content-Length is no integer ≥ 0 in decimal digits');
  }
  return Number(value);
}

/** Splits a body into its JSON and its binary part. @throws ScrimError `code` if the JSON would be longer than the body. */
export function splitBody(
  body: Uint8Array,
  headerLength: number | undefined,
  code: ScrimErrorCode,
): { readonly json: Uint8Array; readonly binary: Uint8Array } {
  const length = headerLength ?? body.length;
  if (length > body.length) {
    throw new ScrimError(code, `Inference-Header-Content-Length is ${length}, but the body has ${body.length} bytes`);
  }
  return { json: body.subarray(0, length), binary: body.subarray(length) };
}

/** Hands out the binary part piece by piece. */
export class BinaryPart {
  readonly #bytes: Uint8Array;
  readonly #code: ScrimErrorCode;
  #offset = 0;

  constructor(bytes: Uint8Array, code: ScrimErrorCode) {
    this.#bytes = bytes;
    this.#code = code;
  }

  /** The next `size` bytes, which belong to `what`. */
  take(size: number, what: string): Uint8Array {
    const left = this.#bytes.length - this.#offset;
    if (size > left) {
      throw new ScrimError(
        this.#code,
        `${what} has binary_data_size ${size}, but ${left} bytes of binary data are left after the JSON ` +
          '(Inference-Header-Content-Length says where it ends)',
      );
    }
    this.#offset += size;
    return this.#bytes.subarray(this.#offset - size, this.#offset);
  }

  /** Throws unless everything has been handed out. */
  end(): void {
    const left = this.#bytes.length - this.#offset;
    if (left > 0) throw new ScrimError(this.#code, `${left} bytes of binary data belong to no tensor`);
  }
}

/** Collects the JSON and the binary tensors of a body. */
export class BodyWriter {
  readonly #encoder = new TextEncoder();
  readonly #json: Uint8Array[] = [];
  readonly #binary: Uint8Array[] = [];
  #text = '';
  #hasBinary = false;

  /** Adds to the JSON. */
  text(text: string): void {
    this.#text += text;
  }

  /** Adds pieces that are UTF-8 already to the JSON. */
  bytes(parts: readonly Uint8Array[]): void {
    this.#flush();
    this.#json.push(...parts);
  }

  /** Adds a binary tensor; empty ones count too. */
  binary(bytes: Uint8Array): void {
    this.#hasBinary = true;
    if (bytes.length > 0) this.#binary.push(bytes);
  }

  finish(): EncodedBody {
    let length = this.#json.reduce((sum, part) => sum + part.length, 0);
    const last = this.#encoder.encode(this.#text);
    length += last.length;
    this.#json.push(last);
    if (!this.#hasBinary) {
      return { headers: { 'content-type': 'application/json' }, parts: this.#json, byteLength: length };
    }
    const padding = (ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT;
    this.#json.push(new Uint8Array(padding).fill(0x20));
    const headerLength = length + padding;
    return {
      headers: { 'content-type': 'application/octet-stream', [HEADER_LENGTH]: String(headerLength) },
      parts: [...this.#json, ...this.#binary],
      byteLength: this.#binary.reduce((sum, part) => sum + part.length, headerLength),
      headerLength,
    };
  }

  #flush(): void {
    if (this.#text === '') return;
    this.#json.push(this.#encoder.encode(this.#text));
    this.#text = '';
  }
}
