/**
 * Parameters of requests, responses, inputs and outputs: names with a string, boolean, integer or double.
 *
 * Open Inference Protocol, "Parameters"; gRPC's InferParameter. JSON and gRPC both tell the integer 1 from the double
 * 1.0, and a backend may care, so a double that happens to be whole is kept as {@link DoubleParameter}.
 */
import { create } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import { type InferParameter, InferParameterSchema } from './gen/grpc_service_pb.js';
import type { JsonReader } from './json-reader.js';
import { jsonDouble, jsonNumber } from './json-value.js';

/** A double with a whole value, such as 1.0. */
export interface DoubleParameter {
  readonly double: number;
}

/**
 * Value of a parameter. A number that is whole is an integer, one with a fraction a double; a bigint is an integer
 * from −2⁶³ to 2⁶⁴ − 1.
 */
export type ParameterValue = string | boolean | number | bigint | DoubleParameter;

/** Parameters by name. Decoded ones have no prototype, so any name is safe to look up. */
export type Parameters = Readonly<Record<string, ParameterValue>>;

const MIN_INTEGER = -(2n ** 63n);
const MAX_INT64 = 2n ** 63n - 1n;
const MAX_INTEGER = 2n ** 64n - 1n;

function isDouble(value: ParameterValue): value is DoubleParameter {
  return typeof value === 'object';
}

/**
 * Reads the object the reader stands before. Values that can be no parameter are refused or, if lenient, dropped.
 * @param what names the owner in errors
 */
export function readParametersJson(reader: JsonReader, what: string, lenient: boolean): Parameters {
  const parameters: Record<string, ParameterValue> = Object.create(null);
  let count = 0;
  reader.object((name) => {
    if (++count > reader.limits.maxParameters) tooMany(what, reader.limits.maxParameters);
    switch (reader.kind()) {
      case 'string':
        parameters[name] = reader.string();
        break;
      case 'boolean':
        parameters[name] = reader.boolean();
        break;
      case 'number': {
        const { value, whole } = reader.number();
        parameters[name] = !whole && Number.isInteger(value) ? { double: Number(value) } : value;
        break;
      }
      default:
        if (!lenient) reader.fail(`${what} has a parameter that is no string, number or boolean`);
        reader.skip();
    }
  });
  return parameters;
}

/** `parameters` as JSON text. @throws ScrimError INVALID_ARGUMENT for an integer beyond 64 bits. */
export function parametersJson(parameters: Parameters, what: string): string {
  const members = Object.entries(parameters).map(([name, value]) => {
    const key = JSON.stringify(name);
    if (isDouble(value)) return `${key}:${jsonDouble(value.double)}`;
    if (typeof value === 'bigint') checkInteger(value, name, what);
    if (typeof value === 'string') return `${key}:${JSON.stringify(value)}`;
    if (typeof value === 'boolean') return `${key}:${value}`;
    const double = typeof value === 'number' && !Number.isSafeInteger(value);
    return `${key}:${double ? jsonDouble(value) : jsonNumber(value)}`;
  });
  return `{${members.join(',')}}`;
}

/** Parameters of a gRPC message. An empty choice is refused or, if lenient, dropped. */
export function parametersFromMessage(
  map: Readonly<Record<string, InferParameter>>,
  what: string,
  maximum: number,
  lenient: boolean,
): Parameters {
  const entries = Object.entries(map);
  if (entries.length > maximum) tooMany(what, maximum);
  const parameters: Record<string, ParameterValue> = Object.create(null);
  for (const [name, { parameterChoice }] of entries) {
    switch (parameterChoice.case) {
      case 'boolParam':
      case 'stringParam':
        parameters[name] = parameterChoice.value;
        break;
      case 'int64Param':
      case 'uint64Param':
        parameters[name] = shortest(parameterChoice.value);
        break;
      case 'doubleParam': {
        const { value } = parameterChoice;
        parameters[name] = Number.isInteger(value) ? { double: value } : value;
        break;
      }
      case undefined:
        if (!lenient) throw new ScrimError('INVALID_ARGUMENT', `${what} has a parameter without a value`);
    }
  }
  return parameters;
}

/** `parameters` as the map of a gRPC message. @throws ScrimError INVALID_ARGUMENT for an integer beyond 64 bits. */
export function parametersToMessage(parameters: Parameters, what: string): Record<string, InferParameter> {
  const map: Record<string, InferParameter> = Object.create(null);
  for (const [name, value] of Object.entries(parameters)) {
    map[name] = create(InferParameterSchema, { parameterChoice: choiceOf(value, name, what) });
  }
  return map;
}

function choiceOf(value: ParameterValue, name: string, what: string): InferParameter['parameterChoice'] {
  if (isDouble(value)) return { case: 'doubleParam', value: value.double };
  if (typeof value === 'string') return { case: 'stringParam', value };
  if (typeof value === 'boolean') return { case: 'boolParam', value };
  if (typeof value === 'number' && !Number.isSafeInteger(value)) return { case: 'doubleParam', value };
  const integer = BigInt(value);
  checkInteger(integer, name, what);
  return integer > MAX_INT64 ? { case: 'uint64Param', value: integer } : { case: 'int64Param', value: integer };
}

/** `parameters` but those in `names`; undefined where none is left. */
export function parametersWithout(parameters: Parameters, names: readonly string[]): Parameters | undefined {
  const rest: Record<string, ParameterValue> = Object.create(null);
  let empty = true;
  for (const [name, value] of Object.entries(parameters)) {
    if (names.includes(name)) continue;
    rest[name] = value;
    empty = false;
  }
  return empty ? undefined : rest;
}

/** `value` as a number where that is exact. */
export function shortest(value: bigint): number | bigint {
  const safe = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
  return safe ? Number(value) : value;
}

function checkInteger(value: bigint, name: string, what: string): void {
  if (value < MIN_INTEGER || value > MAX_INTEGER) {
    throw new ScrimError('INVALID_ARGUMENT', `${what}: parameter '${name}' is an integer beyond 64 bits`);
  }
}

function tooMany(what: string, maximum: number): never {
  throw new ScrimError('LIMIT_EXCEEDED', `${what} has more than ${maximum} parameters`, { details: { maximum } });
}
