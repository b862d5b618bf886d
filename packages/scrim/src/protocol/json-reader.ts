/**
 * A strict JSON reader over bytes that goes forward once and builds nothing it is not asked for.
 *
 * Why not JSON.parse: the protocol carries 64-bit integers, which must stay exact; Triton and its clients write NaN,
 * Infinity and -Infinity bare; a BYTES element may hold bytes that are no UTF-8; and limits must hold before memory is
 * taken. Grammar: RFC 8259 plus those three words, duplicate keys refused. Errors give byte, line and column and name
 * kinds of tokens, never their values. Floating point numbers are correctly rounded: short ones by one exact
 * operation (Clinger, "How to read floating point numbers accurately", 1990), the others by the platform.
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { DEFAULT_LIMITS, type Limits } from './limits.js';

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const END = -1;

/** 10⁰ to 10⁶⁰, each correctly rounded; those up to 10²² are exact. */
const POWERS = Float64Array.from({ length: 61 }, (_, i) => Number(`1e${i}`));
const EXACT_POWER = 22;
/** Digits kept of a number. Beyond them the mantissa would not fit what is known about its error. */
const MAX_DIGITS = 19;
/** Relative bound on the error of the quick estimate in {@link JsonReader.float32}: 32 units in the last place. */
const ESTIMATE_ERROR = 2 ** -48;
const SHORT_TEXT = 64;

/** What kind of value comes next. */
export type JsonKind = 'object' | 'array' | 'string' | 'number' | 'boolean' | 'null';

/** How a {@link JsonReader} names its input and reports faults. */
export interface JsonReaderOptions {
  /** Names the text in errors, such as 'the request'. Default 'the JSON'. */
  readonly what?: string;
  /** Code of errors in the text. Default INVALID_ARGUMENT. */
  readonly code?: ScrimErrorCode;
  readonly limits?: Limits;
}

/** Reads JSON from front to back. Each method that reads a value throws `code` if another kind is there. */
export class JsonReader {
  readonly what: string;
  readonly code: ScrimErrorCode;
  readonly limits: Limits;
  /** Offset of the next byte to read; may be set back to an offset taken before a value. */
  position = 0;
  readonly #bytes: Uint8Array;
  #depth = 0;
  // The number read last: sign, up to 19 digits as an integer, and the power of ten that belongs to them.
  #negative = false;
  #mantissa = 0;
  #digits = 0;
  #exponent = 0;
  #integer = false;
  #special: number | undefined;
  #start = 0;

  constructor(bytes: Uint8Array, options: JsonReaderOptions = {}) {
    this.#bytes = bytes;
    this.what = options.what ?? 'the JSON';
    this.code = options.code ?? 'INVALID_ARGUMENT';
    this.limits = options.limits ?? DEFAULT_LIMITS;
  }

  /** Bytes not read yet. */
  get remaining(): number {
    return this.#bytes.length - this.position;
  }

  /** Throws `code` with `message` and the place of byte `offset` (default: the next one). */
  fail(message: string, offset: number = this.position): never {
    let line = 1;
    let lineStart = 0;
    for (let i = 0; i < offset && i < this.#bytes.length; i++) {
      if (this.#bytes[i] === 0x0a) {
        line++;
        lineStart = i + 1;
      }
    }
    const column = offset - lineStart + 1;
    throw new ScrimError(this.code, `${this.what}: ${message} at byte ${offset} (line ${line}, column ${column})`, {
      details: { offset, line, column },
    });
  }

  /** Throws unless only white space is left. */
  end(): void {
    if (this.#peek() !== END) this.fail('expected the end of the text');
  }

  /** Kind of the next value; throws if none can start here. */
  kind(): JsonKind {
    const byte = this.#peek();
    switch (byte) {
      case OPEN_OBJECT:
        return 'object';
      case OPEN_ARRAY:
        return 'array';
      case QUOTE:
        return 'string';
      case 0x74: // t
      case 0x66: // f
        return 'boolean';
      case 0x6e: // n
        return 'null';
      default:
        // Digits, the minus sign, and the first letters of Infinity and NaN.
        if ((byte >= ZERO && byte <= NINE) || byte === MINUS || byte === 0x49 || byte === 0x4e) return 'number';
        return this.fail(byte === END ? 'the text ends where a value should be' : 'expected a value');
    }
  }

  /**
   * Reads an object and calls `member` with each key while the reader stands before its value, which it must read.
   * Keys must differ.
   */
  object(member: (key: string) => void): void {
    if (this.#peek() !== OPEN_OBJECT) this.#expected('an object');
    this.#enter();
    const seen = new Set<string>();
    if (this.#peek() === CLOSE_OBJECT) {
      this.#leave();
      return;
    }
    for (;;) {
      const at = this.position;
      if (this.#peek() !== QUOTE) this.fail('expected a key in quotes');
      const key = this.string();
      if (seen.has(key)) this.fail('the same key stands twice in an object', at);
      seen.add(key);
      if (seen.size > this.limits.maxValues) this.#tooMany('keys in one object', this.limits.maxValues);
      if (this.#peek() !== COLON) this.fail("expected ':' after a key");
      this.position++;
      member(key);
      const next = this.#peek();
      if (next === CLOSE_OBJECT) break;
      if (next !== COMMA) this.fail("expected ',' or '}'");
      this.position++;
    }
    this.#leave();
  }

  /** Reads an array and calls `element` with each index while the reader stands before the value, which it must read. */
  array(element: (index: number) => void): void {
    if (this.#peek() !== OPEN_ARRAY) this.#expected('an array');
    this.#enter();
    if (this.#peek() === CLOSE_ARRAY) {
      this.#leave();
      return;
    }
    for (let index = 0; ; index++) {
      element(index);
      const next = this.#peek();
      if (next === CLOSE_ARRAY) break;
      if (next !== COMMA) this.fail("expected ',' or ']'");
      this.position++;
    }
    this.#leave();
  }

  /**
   * Reads an array that is flat or nested in any way and calls `element` for each value that is no array, in order.
   * Returns how many there were. No recursion, so that it runs at the speed of the elements.
   */
  flatArray(element: (index: number) => void): number {
    if (this.#peek() !== OPEN_ARRAY) this.#expected('an array');
    const outside = this.#depth;
    this.#enter();
    let index = 0;
    let fresh = true;
    for (;;) {
      let next = this.#peek();
      if (next === OPEN_ARRAY) {
        this.#enter();
        fresh = true;
        continue;
      }
      if (!fresh || next !== CLOSE_ARRAY) {
        element(index++);
        next = this.#peek();
      }
      while (next === CLOSE_ARRAY) {
        this.#leave();
        if (this.#depth === outside) return index;
        next = this.#peek();
      }
      if (next !== COMMA) this.fail("expected ',' or ']'");
      this.position++;
      fresh = false;
    }
  }

  /** Reads a string as text. Its bytes must be valid UTF-8 and its \u escapes whole characters. */
  string(): string {
    if (this.#peek() === QUOTE) {
      // Names and keys, nearly always: short, without escapes, ASCII.
      const bytes = this.#bytes;
      const end = Math.min(bytes.length, this.position + SHORT_TEXT);
      let text = '';
      for (let i = this.position + 1; i < end; i++) {
        const byte = bytes[i]!;
        if (byte === QUOTE) {
          this.position = i + 1;
          return text;
        }
        if (byte < 0x20 || byte >= 0x80 || byte === BACKSLASH) break;
        text += String.fromCharCode(byte);
      }
    }
    const at = this.position;
    const bytes = this.stringBytes();
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return this.fail('a string is not valid UTF-8', at);
    }
  }

  /** Reads a string as bytes, whatever they are; a view of the text where it has no escapes. */
  stringBytes(): Uint8Array {
    if (this.#peek() !== QUOTE) this.#expected('a string');
    const bytes = this.#bytes;
    const start = ++this.position;
    let at = start;
    for (;;) {
      const byte = bytes[at];
      if (byte === QUOTE) {
        this.position = at + 1;
        return bytes.subarray(start, at);
      }
      if (byte === BACKSLASH) return this.#escapedString(start, at);
      if (byte === undefined) this.fail('a string does not end', start - 1);
      if (byte < 0x20) this.fail('a control character stands bare in a string', at);
      at++;
    }
  }

  boolean(): boolean {
    const byte = this.#peek();
    if (byte === 0x74) {
      this.#word('true');
      return true;
    }
    if (byte !== 0x66) this.#expected('true or false');
    this.#word('false');
    return false;
  }

  null(): null {
    if (this.#peek() !== 0x6e) this.#expected('null');
    this.#word('null');
    return null;
  }

  /** Reads a number as the nearest double. A finite one too large for a double is refused. */
  float64(): number {
    this.#number();
    return this.#double();
  }

  /**
   * Reads a number as the nearest double, then as the nearest float32 of that, which is what a C++ or NumPy reader
   * makes of it. A finite one too large for a float32 is refused.
   */
  float32(): number {
    this.#number();
    const exponent = this.#exponent;
    if (this.#special === undefined && exponent <= 60 && exponent >= -60) {
      // The estimate is off by a few units in the last place. Where the whole interval around it rounds to one
      // float32, so does the exact double in it.
      const mantissa = this.#mantissa;
      const estimate = exponent < 0 ? mantissa / POWERS[-exponent]! : mantissa * POWERS[exponent]!;
      const low = Math.fround(estimate * (1 - ESTIMATE_ERROR));
      if (low === Math.fround(estimate * (1 + ESTIMATE_ERROR)) && low !== Number.POSITIVE_INFINITY) {
        return this.#negative ? -low : low;
      }
    }
    const value = this.#double();
    const rounded = Math.fround(value);
    if (!Number.isFinite(rounded) && Number.isFinite(value)) this.fail('a number is out of the range', this.#start);
    return rounded;
  }

  /** Reads an integer from `low` to `high` (safe integers). A fraction or exponent is refused, even a whole one. */
  integer(low: number, high: number): number {
    this.#number();
    if (!this.#integer) this.fail('expected an integer', this.#start);
    const value = this.#negative ? 0 - this.#mantissa : this.#mantissa;
    if (this.#digits > 16 || value < low || value > high) this.fail('an integer is out of the range', this.#start);
    return value;
  }

  /** Reads an integer from `low` to `high` exactly. */
  bigint(low: bigint, high: bigint): bigint {
    this.#number();
    if (!this.#integer) this.fail('expected an integer', this.#start);
    if (this.#digits > 20) this.fail('an integer is out of the range', this.#start);
    const value = this.#wholeNumber();
    if (value < low || value > high) this.fail('an integer is out of the range', this.#start);
    return value;
  }

  /**
   * Reads any number: an integer as number, or as bigint beyond ±(2⁵³ − 1) up to 64 bits; anything else as the
   * nearest double. `whole` tells an integer from a double that happens to be whole, such as 1.0.
   */
  number(): { readonly value: number | bigint; readonly whole: boolean } {
    this.#number();
    if (this.#integer && this.#digits <= 20) {
      if (this.#digits <= 15) return { value: this.#negative ? 0 - this.#mantissa : this.#mantissa, whole: true };
      const value = this.#wholeNumber();
      if (value >= -(2n ** 63n) && value < 2n ** 64n) {
        const safe = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
        return { value: safe ? Number(value) : value, whole: true };
      }
    }
    return { value: this.#double(), whole: false };
  }

  /** Reads and drops a value, whatever it is. It is checked like any other. */
  skip(): void {
    switch (this.kind()) {
      case 'object':
        this.object(() => this.skip());
        break;
      case 'array':
        this.array(() => this.skip());
        break;
      case 'string':
        this.stringBytes();
        break;
      case 'number':
        this.#number();
        break;
      case 'boolean':
        this.boolean();
        break;
      case 'null':
        this.null();
    }
  }

  /** Next byte that is no white space, not yet read; END at the end. */
  #peek(): number {
    const bytes = this.#bytes;
    let at = this.position;
    for (;;) {
      const byte = bytes[at];
      if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) {
        at++;
        continue;
      }
      this.position = at;
      return byte === undefined ? END : byte;
    }
  }

  #expected(what: string): never {
    return this.fail(`expected ${what}, found ${this.#peek() === END ? 'the end' : `a value of kind ${this.kind()}`}`);
  }

  #tooMany(what: string, maximum: number): never {
    throw new ScrimError('LIMIT_EXCEEDED', `${this.what} has more than ${maximum} ${what}`, { details: { maximum } });
  }

  #enter(): void {
    if (++this.#depth > this.limits.maxDepth) this.#tooMany('levels of nesting', this.limits.maxDepth);
    this.position++;
  }

  #leave(): void {
    this.#depth--;
    this.position++;
  }

  #word(word: string): void {
    for (let i = 0; i < word.length; i++) {
      if (this.#bytes[this.position + i] !== word.charCodeAt(i)) this.fail('expected a value');
    }
    this.position += word.length;
  }

  /** Scans one number and leaves its parts in the fields. */
  #number(): void {
    let byte = this.#peek();
    const bytes = this.#bytes;
    let at = this.position;
    this.#start = at;
    this.#special = undefined;
    this.#negative = byte === MINUS;
    if (byte === MINUS) byte = bytes[++at] ?? END;
    let mantissa = 0;
    let digits = 0;
    let exponent = 0;
    let integer = true;
    if (byte === ZERO) {
      byte = bytes[++at] ?? END;
      if (byte >= ZERO && byte <= NINE) this.fail('a number starts with a needless zero');
    } else if (byte > ZERO && byte <= NINE) {
      do {
        if (digits < MAX_DIGITS) mantissa = mantissa * 10 + (byte - ZERO);
        else exponent++;
        digits++;
        byte = bytes[++at] ?? END;
      } while (byte >= ZERO && byte <= NINE);
    } else if (byte === 0x49 || (byte === 0x4e && !this.#negative)) {
      this.position = at;
      this.#word(byte === 0x49 ? 'Infinity' : 'NaN');
      this.#special = byte === 0x4e ? Number.NaN : this.#negative ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
      this.#integer = false;
      return;
    } else {
      if (this.#negative) this.fail('expected a digit after the minus sign', at);
      this.#expected('a number');
    }
    if (byte === POINT) {
      integer = false;
      byte = bytes[++at] ?? END;
      if (byte < ZERO || byte > NINE) this.fail('expected a digit after the decimal point', at);
      do {
        if (digits < MAX_DIGITS) {
          mantissa = mantissa * 10 + (byte - ZERO);
          exponent--;
        }
        if (mantissa !== 0) digits++;
        byte = bytes[++at] ?? END;
      } while (byte >= ZERO && byte <= NINE);
    }
    if (byte === 0x65 || byte === 0x45) {
      integer = false;
      byte = bytes[++at] ?? END;
      const sign = byte === MINUS ? -1 : 1;
      if (byte === MINUS || byte === 0x2b) byte = bytes[++at] ?? END;
      if (byte < ZERO || byte > NINE) this.fail('expected a digit in the exponent', at);
      let power = 0;
      do {
        if (power < 1e8) power = power * 10 + (byte - ZERO);
        byte = bytes[++at] ?? END;
      } while (byte >= ZERO && byte <= NINE);
      exponent += sign * power;
    }
    this.#mantissa = mantissa;
    this.#digits = digits;
    this.#exponent = exponent;
    this.#integer = integer;
    this.position = at;
  }

  /** The number scanned last as the nearest double. */
  #double(): number {
    if (this.#special !== undefined) return this.#special;
    const mantissa = this.#mantissa;
    const exponent = this.#exponent;
    if (mantissa < 2 ** 53 && this.#digits <= MAX_DIGITS && exponent >= -EXACT_POWER && exponent <= EXACT_POWER) {
      // Both numbers are exact doubles, so the one operation rounds once, correctly.
      const value = exponent < 0 ? mantissa / POWERS[-exponent]! : mantissa * POWERS[exponent]!;
      return this.#negative ? -value : value;
    }
    const value = Number(this.#text());
    if (!Number.isFinite(value)) this.fail('a number is out of the range', this.#start);
    return value;
  }

  #wholeNumber(): bigint {
    if (this.#digits <= 15) return BigInt(this.#negative ? 0 - this.#mantissa : this.#mantissa);
    return BigInt(this.#text());
  }

  #text(): string {
    const bytes = this.#bytes.subarray(this.#start, this.position);
    return bytes.length <= SHORT_TEXT ? String.fromCharCode(...bytes) : new TextDecoder().decode(bytes);
  }

  /** The rest of a string whose first escape is at `firstEscape`; `start` is the byte after its opening quote. */
  #escapedString(start: number, firstEscape: number): Uint8Array {
    const bytes = this.#bytes;
    let close = firstEscape;
    for (; bytes[close] !== QUOTE; close += bytes[close] === BACKSLASH ? 2 : 1) {
      if (close >= bytes.length) this.fail('a string does not end', start - 1);
    }
    // An escape is never shorter than the UTF-8 of what it stands for.
    const out = new Uint8Array(close - start);
    out.set(bytes.subarray(start, firstEscape));
    let length = firstEscape - start;
    for (let at = firstEscape; at < close; ) {
      const byte = bytes[at] ?? 0;
      if (byte < 0x20) this.fail('a control character stands bare in a string', at);
      if (byte !== BACKSLASH) {
        out[length++] = byte;
        at++;
        continue;
      }
      const letter = bytes[at + 1] ?? 0;
      if (letter !== 0x75) {
        const simple = SIMPLE_ESCAPES.get(letter);
        if (simple === undefined) this.fail('a string has an unknown escape', at);
        out[length++] = simple;
        at += 2;
        continue;
      }
      let code = this.#hex4(at + 2, close);
      let next = at + 6;
      if (code >= 0xd800 && code < 0xdc00 && bytes[next] === BACKSLASH && bytes[next + 1] === 0x75) {
        const low = this.#hex4(next + 2, close);
        if (low >= 0xdc00 && low < 0xe000) {
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
          next += 6;
        }
      }
      if (code >= 0xd800 && code < 0xe000) this.fail('a string has half of a surrogate pair', at);
      length = writeUtf8(code, out, length);
      at = next;
    }
    this.position = close + 1;
    return out.subarray(0, length);
  }

  #hex4(at: number, close: number): number {
    let value = 0;
    for (let i = at; i < at + 4; i++) {
      const byte = i < close ? (this.#bytes[i] ?? 0) : 0;
      const lower = byte | 0x20;
      let digit = -1;
      if (byte >= ZERO && byte <= NINE) digit = byte - ZERO;
      else if (lower >= 0x61 && lower <= 0x66) digit = lower - 0x61 + 10;
      if (digit < 0) this.fail('a string has a \\u escape without four hexadecimal digits', at - 2);
      value = value * 16 + digit;
    }
    return value;
  }
}

const SIMPLE_ESCAPES: ReadonlyMap<number, number> = new Map([
  [QUOTE, QUOTE],
  [BACKSLASH, BACKSLASH],
  [0x2f, 0x2f],
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
]);

/** Writes `code` as UTF-8 at `at` and returns the offset after it. */
function writeUtf8(code: number, out: Uint8Array, at: number): number {
  if (code < 0x80) {
    out[at] = code;
    return at + 1;
  }
  const tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  out[at] = (tail === 1 ? 0xc0 : tail === 2 ? 0xe0 : 0xf0) | (code >> (6 * tail));
  for (let i = 1; i <= tail; i++) out[at + i] = 0x80 | ((code >> (6 * (tail - i))) & 0x3f);
  return at + tail + 1;
}
