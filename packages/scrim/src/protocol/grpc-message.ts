/**
 * Protobuf bytes to and from messages, with the limits checked on the bytes first.
 *
 * protobuf-es turns every field it meets into an object, and two bytes can ask for a message, so the bytes are walked
 * once before (protobuf.dev, "Encoding"): lengths, wire types, nesting, number of fields and of list elements. Byte
 * fields of a decoded message are views of the bytes it came from.
 */
import {
  create,
  type DescField,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  ScalarType,
  toBinary,
} from '@bufbuild/protobuf';
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { checkLimit, DEFAULT_LIMITS, type Limits } from './limits.js';

/** How a message is read. */
export interface DecodeMessageOptions {
  /** Names the message in errors. Default: its type name. */
  readonly what?: string;
  /** Code of errors in the bytes. Default INVALID_ARGUMENT; a client that reads answers takes INVALID_DATA. */
  readonly code?: ScrimErrorCode;
  readonly limits?: Limits;
}

/**
 * Reads a message. Fields no one knows are dropped.
 * @throws ScrimError `code` for malformed bytes; LIMIT_EXCEEDED for too many bytes, fields, list elements or levels.
 */
export function decodeMessage<D extends DescMessage>(
  schema: D,
  bytes: Uint8Array,
  options: DecodeMessageOptions = {},
): MessageShape<D> {
  const { what = schema.typeName, code = 'INVALID_ARGUMENT', limits = DEFAULT_LIMITS } = options;
  checkLimit(limits, 'maxBytes', bytes.length, what, 'bytes');
  new WireCheck(bytes, what, code, limits).message(schema);
  try {
    return fromBinary(schema, bytes, { readUnknownFields: false });
  } catch (error) {
    throw ScrimError.from(error, code, `${what} can't be read`);
  }
}

/** Writes a message, which may be given by its fields alone. @throws ScrimError INVALID_ARGUMENT for a value out of range. */
export function encodeMessage<D extends DescMessage>(schema: D, message: MessageInitShape<D>): Uint8Array {
  try {
    return toBinary(schema, create(schema, message));
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_ARGUMENT', `${schema.typeName} can't be written`);
  }
}

/**
 * A message and values of one of its fields of bytes, as parts to be sent one after another. The values are not copied.
 * @param field number of the field, which `message` leaves empty
 */
export function encodeWithBytes<D extends DescMessage>(
  schema: D,
  message: MessageInitShape<D>,
  field: number,
  values: readonly Uint8Array[],
): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let head = encodeMessage(schema, message);
  for (const value of values) {
    const prefix = lengthPrefix(field, value.length);
    parts.push(head.length === 0 ? prefix : join(head, prefix), value);
    head = EMPTY;
  }
  return parts.length === 0 ? [head] : parts;
}

/** Parts of a message as a field of another message. */
export function nestParts(field: number, parts: readonly Uint8Array[]): Uint8Array[] {
  const [first = EMPTY, ...rest] = parts;
  return [
    join(
      lengthPrefix(
        field,
        parts.reduce((sum, part) => sum + part.length, 0),
      ),
      first,
    ),
    ...rest,
  ];
}

/**
 * Where in a message the contents of its first field `field` of bytes begin, as far as `head`, its first bytes, tells;
 * undefined if it does not.
 */
export function rawContentsAt(head: Uint8Array, field: number): number | undefined {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; at < head.length && shift < 35; shift += 7) {
      const byte = head[at++] as number;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return Number.NaN;
  };
  while (at < head.length) {
    const tag = varint();
    if ((tag & 7) !== LENGTH_DELIMITED) return undefined;
    const length = varint();
    if (Number.isNaN(length)) return undefined;
    if (tag >>> 3 === field) return at;
    at += length;
  }
  return undefined;
}

const EMPTY = new Uint8Array(0);

/** Tag and length in front of `length` bytes that are the value of `field`. */
function lengthPrefix(field: number, length: number): Uint8Array {
  const bytes: number[] = [];
  for (let value of [field * 8 + LENGTH_DELIMITED, length]) {
    for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) + 0x80);
    bytes.push(value);
  }
  return Uint8Array.from(bytes);
}

function join(one: Uint8Array, other: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(one.length + other.length);
  bytes.set(one);
  bytes.set(other, one.length);
  return bytes;
}

const VARINT = 0;
const BIT64 = 1;
const LENGTH_DELIMITED = 2;
const START_GROUP = 3;
const END_GROUP = 4;
const BIT32 = 5;

const fieldsByNumber = new WeakMap<DescMessage, ReadonlyMap<number, DescField>>();

function fieldsOf(schema: DescMessage): ReadonlyMap<number, DescField> {
  let fields = fieldsByNumber.get(schema);
  if (fields === undefined) {
    fields = new Map(schema.fields.map((field) => [field.number, field]));
    fieldsByNumber.set(schema, fields);
  }
  return fields;
}

/** Wire type of one value of `type`. */
function wireTypeOf(type: ScalarType): number {
  switch (type) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return LENGTH_DELIMITED;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return BIT64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return BIT32;
    default:
      return VARINT;
  }
}

/** Walks the bytes of one message and counts what decoding it would make. */
class WireCheck {
  readonly #bytes: Uint8Array;
  readonly #what: string;
  readonly #code: ScrimErrorCode;
  readonly #limits: Limits;
  #position = 0;
  #fields = 0;
  #elements = 0;

  constructor(bytes: Uint8Array, what: string, code: ScrimErrorCode, limits: Limits) {
    this.#bytes = bytes;
    this.#what = what;
    this.#code = code;
    this.#limits = limits;
  }

  message(schema: DescMessage): void {
    this.#body(schema, this.#bytes.length, 1);
  }

  #fail(message: string): never {
    throw new ScrimError(this.#code, `${this.#what}: ${message} at byte ${this.#position}`, {
      details: { offset: this.#position },
    });
  }

  #body(schema: DescMessage, end: number, depth: number): void {
    checkLimit(this.#limits, 'maxDepth', depth, this.#what, 'levels of nesting');
    const fields = fieldsOf(schema);
    while (this.#position < end) {
      const [number, wireType] = this.#tag(end);
      const field = fields.get(number);
      if (field === undefined) this.#skip(number, wireType, end, depth);
      else this.#field(field, wireType, end, depth);
    }
  }

  #field(field: DescField, wireType: number, end: number, depth: number): void {
    let expected = LENGTH_DELIMITED;
    if (field.fieldKind === 'scalar') expected = wireTypeOf(field.scalar);
    else if (field.fieldKind === 'enum') expected = VARINT;
    else if (field.fieldKind === 'list' && field.listKind !== 'message') {
      expected = field.listKind === 'enum' ? VARINT : wireTypeOf(field.scalar);
      if (expected !== LENGTH_DELIMITED) {
        if (wireType === LENGTH_DELIMITED) {
          this.#packed(expected, this.#length(end));
          return;
        }
        this.#fields--;
        this.#count(1);
      }
    }
    if (wireType !== expected) this.#fail(`field ${field.name} has wire type ${wireType}, expected ${expected}`);
    if (field.fieldKind === 'map') {
      this.#mapEntry(field, this.#length(end), depth);
    } else if (field.message !== undefined) {
      this.#body(field.message, this.#length(end), depth + 1);
    } else {
      this.#value(wireType, end);
    }
  }

  #mapEntry(field: DescField & { fieldKind: 'map' }, end: number, depth: number): void {
    while (this.#position < end) {
      const [number, wireType] = this.#tag(end);
      if (number !== 1 && number !== 2) this.#fail(`an entry of ${field.name} has a field ${number}`);
      let expected = wireTypeOf(field.mapKey);
      if (number === 2) {
        expected = LENGTH_DELIMITED;
        if (field.mapKind === 'scalar') expected = wireTypeOf(field.scalar);
        else if (field.mapKind === 'enum') expected = VARINT;
      }
      if (wireType !== expected) this.#fail(`an entry of ${field.name} has wire type ${wireType}`);
      if (number === 2 && field.mapKind === 'message') this.#body(field.message, this.#length(end), depth + 1);
      else this.#value(wireType, end);
    }
  }

  /** Elements of a packed list that ends at `end`. */
  #packed(wireType: number, end: number): void {
    const start = this.#position;
    if (wireType !== VARINT) {
      const width = wireType === BIT64 ? 8 : 4;
      if ((end - start) % width !== 0) this.#fail('a packed list does not hold whole elements');
      this.#count((end - start) / width);
      this.#position = end;
      return;
    }
    let elements = 0;
    let run = 0;
    for (; this.#position < end; this.#position++) {
      if ((this.#bytes[this.#position] ?? 0) < 0x80) {
        elements++;
        run = 0;
      } else if (++run >= 10) this.#fail('a varint has more than 10 bytes');
    }
    if (run > 0) this.#fail('a varint does not end');
    this.#count(elements);
  }

  #count(elements: number): void {
    this.#elements += elements;
    checkLimit(this.#limits, 'maxTypedElements', this.#elements, this.#what, 'typed elements');
  }

  #tag(end: number): readonly [number: number, wireType: number] {
    checkLimit(this.#limits, 'maxValues', ++this.#fields, this.#what, 'fields or more');
    const tag = this.#varint32(end);
    if (tag >>> 3 === 0) this.#fail('a field has number 0');
    return [tag >>> 3, tag & 7];
  }

  /** Skips a field no one knows. */
  #skip(number: number, wireType: number, end: number, depth: number): void {
    if (wireType !== START_GROUP) {
      this.#value(wireType, end);
      return;
    }
    checkLimit(this.#limits, 'maxDepth', depth + 1, this.#what, 'levels of nesting');
    for (;;) {
      if (this.#position >= end) this.#fail('a group does not end');
      const [inner, innerType] = this.#tag(end);
      if (innerType === END_GROUP) {
        if (inner !== number) this.#fail('a group ends as another');
        return;
      }
      this.#skip(inner, innerType, end, depth + 1);
    }
  }

  #value(wireType: number, end: number): void {
    switch (wireType) {
      case VARINT: {
        const start = this.#position;
        while (this.#position < end && (this.#bytes[this.#position] ?? 0) >= 0x80) this.#position++;
        if (this.#position - start >= 10 || this.#position >= end) this.#fail('a varint does not end');
        this.#position++;
        return;
      }
      case BIT64:
        this.#advance(8, end);
        return;
      case BIT32:
        this.#advance(4, end);
        return;
      case LENGTH_DELIMITED:
        this.#position = this.#length(end);
        return;
      default:
        this.#fail(`wire type ${wireType} is unknown or out of place`);
    }
  }

  #advance(bytes: number, end: number): void {
    if (this.#position + bytes > end) this.#fail('a field reaches past the end');
    this.#position += bytes;
  }

  /** Reads a length and returns where what it measures ends. */
  #length(end: number): number {
    const length = this.#varint32(end);
    if (this.#position + length > end) this.#fail('a length reaches past the end');
    return this.#position + length;
  }

  #varint32(end: number): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      if (this.#position >= end) this.#fail('a varint does not end');
      const byte = this.#bytes[this.#position++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value >= 2 ** 32) break;
        return value;
      }
    }
    return this.#fail('a tag or length does not fit 32 bits');
  }
}
