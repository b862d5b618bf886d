/**
 * Attributes of a node: written from plain values, read with a default.
 *
 * An integer number is an INT and an array of them INTS, as most ONNX attributes are; floating point must be asked for
 * with `float` or `floats`, so that `alpha: 1` can't silently become an INT.
 */
import { create } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type GraphProto,
  type NodeProto,
} from './gen/onnx_pb.js';
import { tensorFromProto, tensorToProto } from './tensor-proto.js';

/** A FLOAT attribute. */
export interface FloatAttribute {
  readonly float: number;
}

/** A FLOATS attribute. */
export interface FloatsAttribute {
  readonly floats: readonly number[];
}

/** What an attribute can be written from. */
export type AttributeValue =
  | number
  | string
  | readonly number[]
  | readonly string[]
  | FloatAttribute
  | FloatsAttribute
  | Tensor
  | GraphProto;

/** Attributes by name; undefined ones are left out. */
export type Attributes = Readonly<Record<string, AttributeValue | undefined>>;

/** A FLOAT attribute of `value`. */
export function float(value: number): FloatAttribute {
  return { float: value };
}

/** A FLOATS attribute of `values`. */
export function floats(values: readonly number[]): FloatsAttribute {
  return { floats: values };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const Type: typeof AttributeProto_AttributeType = AttributeProto_AttributeType;

/** Makes one attribute. @throws ScrimError INVALID_ARGUMENT for a fractional number outside `float`. */
export function attribute(name: string, value: AttributeValue): AttributeProto {
  const integer = (number: number): bigint => {
    if (!Number.isSafeInteger(number)) {
      throw new ScrimError('INVALID_ARGUMENT', `attribute '${name}' is ${number}, expected an integer or float(…)`);
    }
    return BigInt(number);
  };
  if (typeof value === 'number') return create(AttributeProtoSchema, { name, type: Type.INT, i: integer(value) });
  if (typeof value === 'string') {
    return create(AttributeProtoSchema, { name, type: Type.STRING, s: encoder.encode(value) });
  }
  if (isArray(value)) {
    if (value.length > 0 && typeof value[0] === 'string') {
      const strings = (value as readonly string[]).map((text) => encoder.encode(text));
      return create(AttributeProtoSchema, { name, type: Type.STRINGS, strings });
    }
    return create(AttributeProtoSchema, { name, type: Type.INTS, ints: (value as readonly number[]).map(integer) });
  }
  if ('float' in value) return create(AttributeProtoSchema, { name, type: Type.FLOAT, f: value.float });
  if ('floats' in value) return create(AttributeProtoSchema, { name, type: Type.FLOATS, floats: [...value.floats] });
  if ('dtype' in value) return create(AttributeProtoSchema, { name, type: Type.TENSOR, t: tensorToProto(value) });
  return create(AttributeProtoSchema, { name, type: Type.GRAPH, g: value });
}

function isArray(value: AttributeValue): value is readonly number[] | readonly string[] {
  return Array.isArray(value);
}

/** The attribute `name` of `node`, undefined if absent. */
export function findAttribute(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((candidate) => candidate.name === name);
}

/** An INT attribute. */
export function intAttribute(node: NodeProto, name: string): number | undefined;
export function intAttribute(node: NodeProto, name: string, fallback: number): number;
export function intAttribute(node: NodeProto, name: string, fallback?: number): number | undefined {
  const found = findAttribute(node, name);
  return found ? Number(found.i) : fallback;
}

/** An INTS attribute. */
export function intsAttribute(node: NodeProto, name: string): number[] | undefined;
export function intsAttribute(node: NodeProto, name: string, fallback: readonly number[]): number[];
export function intsAttribute(node: NodeProto, name: string, fallback?: readonly number[]): number[] | undefined {
  const found = findAttribute(node, name);
  return found ? found.ints.map(Number) : fallback && [...fallback];
}

/** A FLOAT attribute. */
export function floatAttribute(node: NodeProto, name: string, fallback: number): number {
  return findAttribute(node, name)?.f ?? fallback;
}

/** A FLOATS attribute. */
export function floatsAttribute(node: NodeProto, name: string): number[] | undefined {
  const found = findAttribute(node, name);
  return found && [...found.floats];
}

/** A STRING attribute. */
export function stringAttribute(node: NodeProto, name: string, fallback: string): string {
  const found = findAttribute(node, name);
  return found ? decoder.decode(found.s) : fallback;
}

/** A TENSOR attribute. */
export function tensorAttribute(node: NodeProto, name: string): Tensor | undefined {
  const found = findAttribute(node, name)?.t;
  return found && tensorFromProto(found);
}
