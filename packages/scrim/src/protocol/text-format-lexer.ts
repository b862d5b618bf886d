/**
 * Tokens of the protobuf text format.
 *
 * Protocol Buffers Text Format Language Specification (protobuf.dev), "Characters", "Identifiers", "String literals",
 * "Numeric literals". Comments run from # to the end of the line. Every token knows its line and column.
 */
import { ScrimError } from '../errors.js';

/** Kinds of tokens. A number is `integer` if it has neither point nor exponent nor the suffix f. */
export type TokenKind = 'name' | 'integer' | 'float' | 'string' | 'symbol' | 'end';

/** One token. */
export interface Token {
  readonly kind: TokenKind;
  /** The text as it stands; for strings, with quotes. */
  readonly text: string;
  readonly line: number;
  readonly column: number;
  /** The bytes a string stands for. */
  readonly bytes?: Uint8Array;
}

const NAME = /[A-Za-z_][A-Za-z0-9_]*/y;
const HEX = /0[xX][0-9A-Fa-f]+/y;
const OCTAL = /0[0-7]+/y;
const FLOAT = /(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?/y;
const SPACE = ' \n\t\v\f\r';
const SYMBOLS = '{}<>[]:,;-/.';
const ESCAPES: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
  '?': 63,
  '\\': 92,
  "'": 39,
  '"': 34,
};

/** Gives the tokens of a text one after another. */
export class TextFormatLexer {
  readonly #text: string;
  readonly #what: string;
  readonly #encoder = new TextEncoder();
  #position = 0;
  #line = 1;
  #lineStart = 0;
  #next: Token | undefined;

  /** @param what names the text in errors */
  constructor(text: string, what: string) {
    this.#text = text;
    this.#what = what;
  }

  /** The next token, which stays the next. */
  peek(): Token {
    this.#next ??= this.#scan();
    return this.#next;
  }

  /** The next token, which is then used up. */
  take(): Token {
    const token = this.peek();
    this.#next = undefined;
    return token;
  }

  /** True, and the token used up, if the next one is the symbol `text`. */
  accept(text: string): boolean {
    const token = this.peek();
    if (token.kind !== 'symbol' || token.text !== text) return false;
    this.#next = undefined;
    return true;
  }

  /** @throws ScrimError INVALID_DATA with `message` and the place of `token` (default: the next one). */
  fail(message: string, token: Pick<Token, 'line' | 'column'> = this.peek()): never {
    const { line, column } = token;
    throw new ScrimError('INVALID_DATA', `${this.#what}:${line}:${column}: ${message}`, { details: { line, column } });
  }

  #scan(): Token {
    this.#skipSpace();
    const place = { line: this.#line, column: this.#position - this.#lineStart + 1 };
    const character = this.#text[this.#position];
    if (character === undefined) return { kind: 'end', text: '', ...place };
    if (character === '"' || character === "'") return this.#string(character, place);
    const name = this.#match(NAME);
    if (name !== undefined) return { kind: 'name', text: name, ...place };
    const number = this.#number(place);
    if (number !== undefined) return number;
    if (!SYMBOLS.includes(character)) this.fail('a character that has no meaning here', place);
    this.#position++;
    return { kind: 'symbol', text: character, ...place };
  }

  /** Passes white space and comments. By hand, as a pattern over both takes stack for each round. */
  #skipSpace(): void {
    for (;;) {
      const character = this.#text[this.#position];
      if (character === undefined) return;
      if (character === '#') {
        const end = this.#text.indexOf('\n', this.#position);
        this.#position = end < 0 ? this.#text.length : end;
        continue;
      }
      if (!SPACE.includes(character)) return;
      this.#position++;
      if (character === '\n') {
        this.#line++;
        this.#lineStart = this.#position;
      }
    }
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#position;
    const match = pattern.exec(this.#text)?.[0];
    if (match === undefined) return undefined;
    this.#position += match.length;
    return match;
  }

  #number(place: { line: number; column: number }): Token | undefined {
    const digits = this.#match(HEX) ?? this.#match(OCTAL);
    const text = digits ?? this.#match(FLOAT);
    if (text === undefined) return undefined;
    if (/[A-Za-z0-9_.]/.test(this.#text[this.#position] ?? '')) this.fail('a number that does not end', place);
    const kind = digits !== undefined || /^[0-9]+$/.test(text) ? 'integer' : 'float';
    return { kind, text, ...place };
  }

  #string(quote: string, place: { line: number; column: number }): Token {
    const start = this.#position++;
    const parts: Uint8Array[] = [];
    for (;;) {
      const from = this.#position;
      while (!this.#isStop(this.#text[this.#position], quote)) this.#position++;
      if (this.#position > from) parts.push(this.#encoder.encode(this.#text.slice(from, this.#position)));
      const stop = this.#text[this.#position];
      if (stop === undefined || stop === '\n') this.fail('a string that does not end on its line', place);
      this.#position++;
      if (stop === quote) break;
      parts.push(this.#escape(place));
    }
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let offset = 0;
    for (const part of parts) {
      bytes.set(part, offset);
      offset += part.length;
    }
    return { kind: 'string', text: this.#text.slice(start, this.#position), bytes, ...place };
  }

  #isStop(character: string | undefined, quote: string): boolean {
    return character === undefined || character === quote || character === '\\' || character === '\n';
  }

  /** The bytes of an escape whose backslash has been read. */
  #escape(place: { line: number; column: number }): Uint8Array {
    const octal = this.#match(/[0-7]{1,3}/y);
    if (octal !== undefined) {
      const value = Number.parseInt(octal, 8);
      if (value > 255) this.fail('an octal escape above \\377', place);
      return Uint8Array.of(value);
    }
    const hex = this.#match(/[xX][0-9A-Fa-f]{1,2}/y);
    if (hex !== undefined) return Uint8Array.of(Number.parseInt(hex.slice(1), 16));
    const unicode = this.#match(/u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}/y);
    if (unicode !== undefined) {
      const code = Number.parseInt(unicode.slice(1), 16);
      if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) this.fail('a \\u escape that is no character', place);
      return this.#encoder.encode(String.fromCodePoint(code));
    }
    const byte = ESCAPES[this.#text[this.#position] ?? ''];
    if (byte === undefined) this.fail('a string with an unknown escape', place);
    this.#position++;
    return Uint8Array.of(byte);
  }
}
