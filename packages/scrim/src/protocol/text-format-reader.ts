/**
 * Reads the protobuf text format into any message, driven by its descriptor.
 *
 * Protocol Buffers Text Format Language Specification (protobuf.dev). As in the C++ reader: a field without repetition
 * may be set once, and of a oneof one member; unknown fields are errors. Extensions and Any, which the specification
 * writes in brackets, need a registry of types and are refused.
 */
import { create, type DescField, type DescMessage, type MessageShape, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { checkLimit, DEFAULT_LIMITS, type Limits } from './limits.js';
import { TextFormatLexer, type Token } from './text-format-lexer.js';

/** How a text is read. */
export interface TextFormatOptions {
  /** Names the text in errors, such as its file. Default: the type of the message. */
  readonly what?: string;
  readonly limits?: Limits;
}

/**
 * Reads a message.
 * @throws ScrimError INVALID_DATA with line and column; LIMIT_EXCEEDED for too many characters, fields or levels.
 */
export function parseTextFormat<D extends DescMessage>(
  schema: D,
  text: string,
  options: TextFormatOptions = {},
): MessageShape<D> {
  const { what = schema.typeName, limits = DEFAULT_LIMITS } = options;
  checkLimit(limits, 'maxBytes', text.length, what, 'characters');
  const message = create(schema);
  new TextFormatReader(text, what, limits).message(reflect(schema, message, false), undefined, 1);
  return message;
}

type MapKey = string | number | bigint | boolean;

const INTEGER_BITS: Readonly<Partial<Record<ScalarType, readonly [low: bigint, high: bigint]>>> = {
  [ScalarType.INT32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.SINT32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.SFIXED32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.UINT32]: [0n, 2n ** 32n - 1n],
  [ScalarType.FIXED32]: [0n, 2n ** 32n - 1n],
  [ScalarType.INT64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.SINT64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.SFIXED64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.UINT64]: [0n, 2n ** 64n - 1n],
  [ScalarType.FIXED64]: [0n, 2n ** 64n - 1n],
};
const TRUE = new Set(['true', 'True', 't', '1']);
const FALSE = new Set(['false', 'False', 'f', '0']);
/** Digits an integer literal may have; 64 bits need 22 in octal. */
const MAX_DIGITS = 64;

class TextFormatReader {
  readonly #lexer: TextFormatLexer;
  readonly #what: string;
  readonly #limits: Limits;
  readonly #set = new WeakMap<ReflectMessage, Set<DescField>>();
  #values = 0;

  constructor(text: string, what: string, limits: Limits) {
    this.#lexer = new TextFormatLexer(text, what);
    this.#what = what;
    this.#limits = limits;
  }

  /** Reads fields up to `close`, or to the end of the text where there is none. */
  message(message: ReflectMessage, close: string | undefined, depth: number): void {
    checkLimit(this.#limits, 'maxDepth', depth, this.#what, 'levels of nesting');
    const lexer: TextFormatLexer = this.#lexer;
    for (;;) {
      if (close !== undefined && lexer.accept(close)) return;
      const token = lexer.peek();
      if (token.kind === 'end') {
        if (close === undefined) return;
        lexer.fail(`the text ends where '${close}' should be`);
      }
      this.#field(message, depth);
      if (!lexer.accept(',')) lexer.accept(';');
    }
  }

  #field(message: ReflectMessage, depth: number): void {
    const lexer: TextFormatLexer = this.#lexer;
    const token = lexer.take();
    if (token.kind === 'symbol' && token.text === '[') {
      lexer.fail('extensions and google.protobuf.Any are not supported', token);
    }
    if (token.kind !== 'name') lexer.fail('expected the name of a field', token);
    const field = message.desc.fields.find((candidate) => candidate.name === token.text);
    if (field === undefined) {
      lexer.fail(`${message.desc.typeName} has no field '${token.text.slice(0, 64)}'`, token);
    }
    const isMessage = field.message !== undefined || field.fieldKind === 'map';
    if (!lexer.accept(':') && !isMessage) lexer.fail(`expected ':' after '${field.name}'`);

    if (field.fieldKind === 'list' || field.fieldKind === 'map') {
      this.#repeated(message, field, depth);
      return;
    }
    if (this.#seen(message, field)) lexer.fail(`'${field.name}' is given twice`, token);
    const other = field.oneof === undefined ? undefined : message.oneofCase(field.oneof);
    if (other !== undefined) lexer.fail(`'${field.name}' and '${other.name}' exclude each other`, token);
    message.set(field, this.#element(field, depth));
  }

  /** Whether `field` of `message` was read before; a field without presence may have been set to its default. */
  #seen(message: ReflectMessage, field: DescField): boolean {
    let fields = this.#set.get(message);
    if (fields === undefined) {
      fields = new Set();
      this.#set.set(message, fields);
    }
    if (fields.has(field)) return true;
    fields.add(field);
    return false;
  }

  /** One value, or several in brackets. */
  #repeated(message: ReflectMessage, field: DescField & { fieldKind: 'list' | 'map' }, depth: number): void {
    const lexer: TextFormatLexer = this.#lexer;
    if (!lexer.accept('[')) {
      this.#add(message, field, depth);
      return;
    }
    if (lexer.accept(']')) return;
    do this.#add(message, field, depth);
    while (lexer.accept(','));
    if (!lexer.accept(']')) lexer.fail("expected ',' or ']'");
  }

  #add(message: ReflectMessage, field: DescField & { fieldKind: 'list' | 'map' }, depth: number): void {
    if (field.fieldKind === 'list') {
      message.get(field).add(this.#element(field, depth));
      return;
    }
    const place = this.#lexer.peek();
    const { key, value } = this.#mapEntry(field, depth + 1);
    const map = message.get(field);
    if (map.has(key)) this.#lexer.fail(`'${field.name}' has the same key twice`, place);
    map.set(key, value);
  }

  /** One value of `field`: a message, enum or scalar. */
  #element(field: DescField, depth: number): unknown {
    checkLimit(this.#limits, 'maxValues', ++this.#values, this.#what, 'values or more');
    if (field.message !== undefined) {
      const message = reflect(field.message, undefined, false);
      this.message(message, this.#open(field), depth + 1);
      return message;
    }
    if (field.enum !== undefined) return this.#enum(field);
    return this.#scalar(field, field.scalar as ScalarType);
  }

  #open(field: DescField): string {
    if (this.#lexer.accept('{')) return '}';
    if (this.#lexer.accept('<')) return '>';
    return this.#lexer.fail(`expected '{' after '${field.name}'`);
  }

  #mapEntry(field: DescField & { fieldKind: 'map' }, depth: number): { key: MapKey; value: unknown } {
    checkLimit(this.#limits, 'maxDepth', depth, this.#what, 'levels of nesting');
    checkLimit(this.#limits, 'maxValues', ++this.#values, this.#what, 'values or more');
    const lexer: TextFormatLexer = this.#lexer;
    const close = this.#open(field);
    let key: MapKey | undefined;
    let value: unknown;
    while (!lexer.accept(close)) {
      const token = lexer.take();
      if (token.kind !== 'name' || (token.text !== 'key' && token.text !== 'value')) {
        lexer.fail(`expected 'key', 'value' or '${close}' in an entry of '${field.name}'`, token);
      }
      const colon = lexer.accept(':');
      if ((token.text === 'key' ? key : value) !== undefined) lexer.fail(`'${token.text}' is given twice`, token);
      if (!colon && (token.text === 'key' || field.message === undefined)) {
        lexer.fail(`expected ':' after '${token.text}'`);
      }
      if (token.text === 'key') key = this.#scalar(field, field.mapKey) as MapKey;
      else value = this.#element(field, depth);
      if (!lexer.accept(',')) lexer.accept(';');
    }
    return { key: key ?? (defaultOf(field.mapKey) as MapKey), value: value ?? this.#defaultValue(field) };
  }

  #defaultValue(field: DescField & { fieldKind: 'map' }): unknown {
    if (field.message !== undefined) return reflect(field.message, undefined, false);
    return field.enum !== undefined ? (field.enum.values[0]?.number ?? 0) : defaultOf(field.scalar as ScalarType);
  }

  #enum(field: DescField): number {
    const lexer: TextFormatLexer = this.#lexer;
    const descriptor = field.enum;
    const negative = lexer.accept('-');
    const token = lexer.take();
    if (token.kind === 'name' && !negative) {
      const value = descriptor?.values.find((candidate) => candidate.name === token.text);
      if (value !== undefined) return value.number;
      lexer.fail(`'${field.name}' has no value '${token.text.slice(0, 64)}'`, token);
    }
    if (token.kind !== 'integer') lexer.fail(`'${field.name}' needs the name or number of an enum value`, token);
    const number = Number(this.#integer(token, negative, ScalarType.INT32, field));
    if (descriptor?.value[number] === undefined) lexer.fail(`'${field.name}' has no value with that number`, token);
    return number;
  }

  #scalar(field: DescField, type: ScalarType): unknown {
    const lexer: TextFormatLexer = this.#lexer;
    if (type === ScalarType.STRING || type === ScalarType.BYTES) return this.#string(field, type);
    const negative = lexer.accept('-');
    const token = lexer.take();
    switch (type) {
      case ScalarType.BOOL: {
        // An integer may be written in any base, so 0x1 is true as well.
        const text =
          token.kind === 'integer' && token.text.length < MAX_DIGITS ? String(toBigInt(token.text)) : token.text;
        if (negative || token.kind === 'string' || !(TRUE.has(text) || FALSE.has(text))) {
          lexer.fail(`'${field.name}' needs true or false`, token);
        }
        return TRUE.has(text);
      }
      case ScalarType.FLOAT:
      case ScalarType.DOUBLE:
        return this.#float(token, negative, type, field);
      default: {
        const value = this.#integer(token, negative, type, field);
        return INTEGER_BITS[type]?.[1] === undefined || INTEGER_BITS[type][1] < 2n ** 32n ? Number(value) : value;
      }
    }
  }

  #integer(token: Token, negative: boolean, type: ScalarType, field: DescField): bigint {
    const lexer: TextFormatLexer = this.#lexer;
    if (token.kind !== 'integer') lexer.fail(`'${field.name}' needs an integer`, token);
    const [low, high] = INTEGER_BITS[type] ?? [0n, 0n];
    if (token.text.length <= MAX_DIGITS) {
      const size = toBigInt(token.text);
      const value = negative ? -size : size;
      if (value >= low && value <= high) return value;
    }
    return lexer.fail(`'${field.name}' is out of range, expected ${low} to ${high}`, token);
  }

  #float(token: Token, negative: boolean, type: ScalarType, field: DescField): number {
    let value: number | undefined;
    if (token.kind === 'name') {
      const word = token.text.toLowerCase();
      if (word === 'inf' || word === 'infinity') value = Number.POSITIVE_INFINITY;
      if (word === 'nan') value = Number.NaN;
    } else if (token.kind === 'float' || (token.kind === 'integer' && !/^0[0-9xX]/.test(token.text))) {
      value = Number(token.text.replace(/f$/i, ''));
    }
    if (value === undefined) this.#lexer.fail(`'${field.name}' needs a number in decimal digits, inf or nan`, token);
    if (negative) value = -value;
    return type === ScalarType.FLOAT ? Math.fround(value) : value;
  }

  /** Strings that stand next to each other are one. */
  #string(field: DescField, type: ScalarType): string | Uint8Array {
    const lexer: TextFormatLexer = this.#lexer;
    const first = lexer.peek();
    const parts: Uint8Array[] = [];
    for (let token = lexer.peek(); token.kind === 'string'; token = lexer.peek()) {
      checkLimit(this.#limits, 'maxValues', ++this.#values, this.#what, 'values or more');
      parts.push(token.bytes ?? new Uint8Array(0));
      lexer.take();
    }
    if (parts.length === 0) lexer.fail(`'${field.name}' needs a string in quotes`, first);
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let offset = 0;
    for (const part of parts) {
      bytes.set(part, offset);
      offset += part.length;
    }
    if (type === ScalarType.BYTES) return bytes;
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return lexer.fail(`'${field.name}' is not valid UTF-8`, first);
    }
  }
}

/** An integer literal in decimal, octal or hexadecimal. */
function toBigInt(text: string): bigint {
  return BigInt(/^0[0-7]+$/.test(text) ? `0o${text.slice(1)}` : text.toLowerCase());
}

function defaultOf(type: ScalarType): string | number | bigint | boolean | Uint8Array {
  if (type === ScalarType.STRING) return '';
  if (type === ScalarType.BYTES) return new Uint8Array(0);
  if (type === ScalarType.BOOL) return false;
  const range = INTEGER_BITS[type];
  return range !== undefined && range[1] >= 2n ** 32n ? 0n : 0;
}
