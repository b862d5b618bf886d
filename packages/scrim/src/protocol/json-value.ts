/**
 * JSON as values: what {@link decodeJson} reads and {@link encodeJson} writes.
 *
 * Integers stay exact: up to 2⁵³ − 1 as number, beyond that as bigint. NaN and the infinities are written bare, as
 * Triton does. Objects have no prototype, so a key such as `__proto__` is a key like any other. Tensor contents never
 * pass through here; json-tensor.ts reads and writes them.
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { JsonReader, type JsonReaderOptions } from './json-reader.js';
import { checkLimit, DEFAULT_LIMITS } from './limits.js';

/** Any JSON value. */
export type JsonValue = null | boolean | number | bigint | string | readonly JsonValue[] | JsonObject;

/** A JSON object. */
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

/** Reads the value the reader stands before; `budget` counts down the values one message may have. */
function readValue(reader: JsonReader, budget: { left: number }): JsonValue {
  if (--budget.left < 0) {
    const maximum = reader.limits.maxValues;
    throw new ScrimError('LIMIT_EXCEEDED', `${reader.what} has more than ${maximum} JSON values`, {
      details: { maximum },
    });
  }
  switch (reader.kind()) {
    case 'object': {
      const object: Record<string, JsonValue> = Object.create(null);
      reader.object((key) => {
        object[key] = readValue(reader, budget);
      });
      return object;
    }
    case 'array': {
      const array: JsonValue[] = [];
      reader.array(() => {
        array.push(readValue(reader, budget));
      });
      return array;
    }
    case 'string':
      return reader.string();
    case 'number':
      return reader.number().value;
    case 'boolean':
      return reader.boolean();
    case 'null':
      return reader.null();
  }
}

/**
 * Reads one JSON text.
 * @throws ScrimError `options.code` with the place of the fault; LIMIT_EXCEEDED for too many bytes, values or levels.
 */
export function decodeJson(bytes: Uint8Array, options: JsonReaderOptions = {}): JsonValue {
  const limits = options.limits ?? DEFAULT_LIMITS;
  const reader = new JsonReader(bytes, options);
  checkLimit(limits, 'maxBytes', bytes.length, reader.what, 'bytes');
  const value = readValue(reader, { left: limits.maxValues });
  reader.end();
  return value;
}

/** A number as JSON text: shortest that reads back the same, the sign of zero kept, NaN and Infinity bare. */
export function jsonNumber(value: number | bigint): string {
  return Object.is(value, -0) ? '-0.0' : String(value);
}

/** A number as JSON text that every reader takes for a double, also where it is whole: 1.0, not 1. */
export function jsonDouble(value: number): string {
  const text = jsonNumber(value);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

/** `value` as JSON text without white space. */
export function jsonText(value: JsonValue): string {
  if (value === null) return 'null';
  switch (typeof value) {
    case 'boolean':
      return value ? 'true' : 'false';
    case 'number':
    case 'bigint':
      return jsonNumber(value);
    case 'string':
      return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map(jsonText).join(',')}]`;
  const members = Object.entries(value as JsonObject).map(
    ([key, member]) => `${JSON.stringify(key)}:${jsonText(member)}`,
  );
  return `{${members.join(',')}}`;
}

/** `value` as JSON in UTF-8. */
export function encodeJson(value: JsonValue): Uint8Array {
  return new TextEncoder().encode(jsonText(value));
}

/** Reads members of a decoded JSON object with one style of error; used for answers of servers no one here wrote. */
export class JsonFields {
  readonly #object: JsonObject;
  readonly #what: string;
  readonly #code: ScrimErrorCode;

  /** @throws ScrimError `code` unless `value` is an object. Members no one asks for are ignored. */
  constructor(value: JsonValue, what: string, code: ScrimErrorCode = 'INVALID_DATA') {
    this.#what = what;
    this.#code = code;
    if (value === null || typeof value !== 'object' || Array.isArray(value)) this.#wrong('', value, 'an object');
    this.#object = value as JsonObject;
  }

  get keys(): readonly string[] {
    return Object.keys(this.#object);
  }

  /** The member, or undefined where it is missing or null. */
  raw(key: string): JsonValue | undefined {
    const value = Object.hasOwn(this.#object, key) ? this.#object[key] : undefined;
    return value === null ? undefined : value;
  }

  string(key: string): string {
    const value = this.raw(key);
    return typeof value === 'string' ? value : this.#wrong(key, value, 'a string');
  }

  optionalString(key: string): string | undefined {
    return this.raw(key) === undefined ? undefined : this.string(key);
  }

  optionalBoolean(key: string): boolean | undefined {
    const value = this.raw(key);
    return value === undefined || typeof value === 'boolean' ? value : this.#wrong(key, value, 'true or false');
  }

  /** An integer from 0 to 2⁶⁴ − 1, also where it comes as a string of digits; `missing` where there is none. */
  count(key: string, missing?: bigint): bigint {
    const value = this.raw(key);
    if (value === undefined && missing !== undefined) return missing;
    const whole =
      typeof value === 'bigint' ||
      (typeof value === 'number' && Number.isInteger(value)) ||
      (typeof value === 'string' && /^\d{1,20}$/.test(value));
    if (whole) {
      const count = BigInt(value);
      if (count >= 0n && count < 2n ** 64n) return count;
    }
    return this.#wrong(key, value, 'an integer from 0 to 2⁶⁴ − 1');
  }

  /** Safe integers; a missing member gives none. */
  integers(key: string): number[] {
    return this.list(key, (value, what) => {
      const number = typeof value === 'string' && /^-?\d{1,16}$/.test(value) ? Number(value) : value;
      if (typeof number === 'number' && Number.isSafeInteger(number)) return number;
      throw new ScrimError(this.#code, `${what} is ${kindOf(value)}, expected an integer up to 2⁵³ − 1`);
    });
  }

  strings(key: string): string[] {
    return this.list(key, (value, what) => {
      if (typeof value === 'string') return value;
      throw new ScrimError(this.#code, `${what} is ${kindOf(value)}, expected a string`);
    });
  }

  /** `read` of each element of an array; a missing member gives none. */
  list<T>(key: string, read: (value: JsonValue, what: string) => T): T[] {
    const value = this.raw(key);
    if (value === undefined) return [];
    if (!Array.isArray(value)) this.#wrong(key, value, 'an array');
    return (value as readonly JsonValue[]).map((element, i) => read(element, `${this.#what}.${key}[${i}]`));
  }

  /** The member as an object; a missing member gives an empty one. */
  object(key: string): JsonFields {
    return new JsonFields(this.raw(key) ?? {}, `${this.#what}.${key}`, this.#code);
  }

  #wrong(key: string, value: JsonValue | undefined, expected: string): never {
    const where = key === '' ? this.#what : `${this.#what}.${key}`;
    throw new ScrimError(this.#code, `${where} is ${kindOf(value)}, expected ${expected}`);
  }
}

function kindOf(value: JsonValue | undefined): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  switch (typeof value) {
    case 'number':
    case 'bigint':
      return 'a number';
    case 'object':
      return 'an object';
    default:
      return `a ${typeof value}`;
  }
}
