/**
 * Reads one answer of HTTP/1.1 (RFC 9112) as its bytes come, for a client.
 *
 * The body is read into one piece of memory of its own, which a connection can have filled by the system itself
 * ({@link AnswerReader.space}), so that a tensor is copied once on its way from the network and never again.
 */
import { expectBodyWithin } from '../client/http-transport.js';
import { ScrimError } from '../errors.js';

/** As node:http's: heads, lines of chunks and trailers beyond it are refused. */
const MAX_HEAD_BYTES = 2 ** 14;
/** How many times what has come of a body its memory may be: where its length was announced, and where it was not. */
const ANNOUNCED_FACTOR = 16;
const UNKNOWN_FACTOR = 2;
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: |$)/;
const HEADER_LINE = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*(.*?)[ \t]*$/;
const CHUNK_LINE = /^([\da-f]{1,8})[ \t]*(?:;|$)/i;

/** What of the answer is to come next. */
type Part = 'head' | 'body' | 'chunk-size' | 'chunk' | 'chunk-end' | 'trailers' | 'rest' | 'nothing';

/** One answer. */
export class AnswerReader {
  status = 0;
  /** False if the connection can take no further request. */
  keepsAlive = false;
  readonly #headers = new Map<string, string>();
  readonly #maxBytes: number;
  #part: Part = 'head';
  /** Of a head or line that has not come to its end. */
  #text: Buffer = Buffer.alloc(0);
  /** Memory of the body, and what is filled of it. */
  #body = new Uint8Array(0);
  #size = 0;
  /** Bytes of the body; undefined where only its end tells. */
  #length: number | undefined;
  /** Bytes of the chunk that are still to come. */
  #chunk = 0;

  /** @param maxBytes Most bytes of the body as sent */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** A header by its name in lower case; values of repeated ones are joined. */
  header(name: string): string | undefined {
    return this.#headers.get(name);
  }

  /** True when nothing of the answer is to come. */
  get isWhole(): boolean {
    return this.#part === 'nothing';
  }

  /** True once the status has come. */
  get hasBegun(): boolean {
    return this.status !== 0;
  }

  /** The body, once it is whole. */
  get body(): Uint8Array {
    return this.#size === this.#body.length ? this.#body : this.#body.slice(0, this.#size);
  }

  /** Memory of the body that the next bytes may be read into before they are pushed; undefined where there is none. */
  get space(): Uint8Array | undefined {
    return this.#part === 'body' && this.#size < this.#body.length ? this.#body.subarray(this.#size) : undefined;
  }

  /**
   * Takes the next bytes, which are not kept.
   * @returns how many of them belong to this answer
   * @throws ScrimError INVALID_DATA for what is no HTTP; LIMIT_EXCEEDED for a body that is too long
   */
  push(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length && this.#part !== 'nothing') at += this.#take(at === 0 ? bytes : bytes.subarray(at));
    return at;
  }

  /** Says that the connection has ended, which ends a body without a length. */
  end(): void {
    if (this.#part === 'rest') this.#part = 'nothing';
  }

  #take(bytes: Uint8Array): number {
    switch (this.#part) {
      case 'body': {
        const length = this.#length as number;
        const taken = this.#fill(bytes, length - this.#size);
        if (this.#size === length) this.#part = 'nothing';
        // Else there is no space to read into.
        else if (this.#size === this.#body.length) this.#grow(this.#size);
        return taken;
      }
      case 'chunk': {
        const taken = this.#fill(bytes, this.#chunk);
        this.#chunk -= taken;
        if (this.#chunk === 0) this.#part = 'chunk-end';
        return taken;
      }
      case 'rest':
        return this.#fill(bytes, bytes.length);
      default:
        return this.#takeText(bytes, this.#part === 'head' ? '\r\n\r\n' : '\r\n');
    }
  }

  /** Heads and lines: what has come is kept until the end has. */
  #takeText(bytes: Uint8Array, end: string): number {
    const before = this.#text.length;
    const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    const text = before === 0 ? view : Buffer.concat([this.#text, view.subarray(0, MAX_HEAD_BYTES)]);
    const found = text.indexOf(end, 0, 'latin1');
    if (found > MAX_HEAD_BYTES || (found === -1 && text.length > MAX_HEAD_BYTES)) {
      throw notHttp(`has a head or line of more than ${MAX_HEAD_BYTES} bytes`);
    }
    if (found === -1) {
      this.#text = Buffer.from(text);
      return bytes.length;
    }
    this.#text = Buffer.alloc(0);
    this.#read(text.toString('latin1', 0, found));
    return found + end.length - before;
  }

  #read(text: string): void {
    switch (this.#part) {
      case 'head':
        this.#readHead(text.split('\r\n'));
        break;
      case 'chunk-size': {
        const match = CHUNK_LINE.exec(text);
        if (!match) throw notHttp('has a chunk without a size');
        this.#chunk = Number.parseInt(match[1] as string, 16);
        expectBodyWithin(this.#size + this.#chunk, this.#maxBytes);
        this.#part = this.#chunk === 0 ? 'trailers' : 'chunk';
        break;
      }
      case 'chunk-end':
        if (text !== '') throw notHttp('has a chunk of a wrong size');
        this.#part = 'chunk-size';
        break;
      default:
        if (text === '') this.#part = 'nothing';
    }
  }

  #readHead([first = '', ...lines]: readonly string[]): void {
    const line = STATUS_LINE.exec(first);
    if (!line) throw notHttp('has no status');
    const status = Number(line[2]);
    if (status === 101) throw notHttp('changes the protocol');
    // What comes before the answer (RFC 9110, 15.2) says nothing here.
    if (status < 200) return;
    for (const text of lines) {
      const match = HEADER_LINE.exec(text);
      if (!match || /[\0\r\n]/.test(text)) throw notHttp('has a header that is none');
      const name = (match[1] as string).toLowerCase();
      const before = this.#headers.get(name);
      this.#headers.set(name, before === undefined ? (match[2] as string) : `${before}, ${match[2]}`);
    }
    this.status = status;
    const options = (this.#headers.get('connection') ?? '').toLowerCase().split(/[ \t]*,[ \t]*/);
    this.keepsAlive = !options.includes('close') && (line[1] === '1' || options.includes('keep-alive'));
    this.#part = this.#framing();
  }

  /** How the end of the body shows (RFC 9112, 6.3). What says two things about it is refused. */
  #framing(): Part {
    const coding = this.#headers.get('transfer-encoding');
    const length = this.#headers.get('content-length');
    if (this.status === 204 || this.status === 304) return 'nothing';
    if (coding !== undefined) {
      if (length !== undefined || coding.toLowerCase() !== 'chunked') throw notHttp('is framed in no known way');
      return 'chunk-size';
    }
    if (length === undefined) {
      this.keepsAlive = false;
      return 'rest';
    }
    if (!/^\d{1,15}$/.test(length)) throw notHttp('has a length that is no number');
    this.#length = Number(length);
    expectBodyWithin(this.#length, this.#maxBytes);
    return this.#length === 0 ? 'nothing' : 'body';
  }

  /** Puts at most `most` of `bytes` into the body, unless they were read into it. */
  #fill(bytes: Uint8Array, most: number): number {
    const taken = Math.min(most, bytes.length);
    const size = this.#size + taken;
    expectBodyWithin(size, this.#maxBytes);
    if (bytes.buffer !== this.#body.buffer) {
      if (size > this.#body.length) this.#grow(size);
      this.#body.set(bytes.subarray(0, taken), this.#size);
    }
    this.#size = size;
    return taken;
  }

  /** Memory is taken as bytes come, not as they are announced. Nobody sees more of it than was written. */
  #grow(size: number): void {
    const bytes =
      this.#length === undefined
        ? Math.min(this.#maxBytes, UNKNOWN_FACTOR * size)
        : Math.min(this.#length, ANNOUNCED_FACTOR * size);
    const grown = new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);
    grown.set(this.#body.subarray(0, this.#size));
    this.#body = grown;
  }
}

function notHttp(fault: string): ScrimError {
  return new ScrimError('INVALID_DATA', `the answer ${fault}: it is not valid HTTP`);
}
