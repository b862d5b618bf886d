/**
 * What a shape rule sees of its node and what it returns.
 *
 * A rule gets the types of the node's inputs, the values of small integer inputs where they are known, and dimension
 * arithmetic; it returns one {@link InferredType} per output. Rules never look outside their node.
 */
import { ScrimError } from '../../errors.js';
import type { DataType } from '../../tensor.js';
import { findAttribute, intAttribute, intsAttribute } from '../attributes.js';
import type { NodeProto } from '../gen/onnx_pb.js';
import type { Dimension } from '../value-info.js';
import type { DimensionAlgebra } from './dimension.js';

/** Dimensions of a value. */
export type Shape = readonly Dimension[];

/** What is known of a value; every part may be unknown. */
export interface InferredType {
  readonly dtype: DataType | undefined;
  readonly shape: Shape | undefined;
  /** Elements of a small tensor in row-major order: numbers, symbolic sizes, or '' for an unknown element. */
  readonly value?: readonly Dimension[] | undefined;
}

/** Computes what is known of the outputs of a node. Missing outputs are unknown. */
export type ShapeRule = (node: ShapeNode) => readonly InferredType[];

/** Nothing is known. */
export const UNKNOWN: InferredType = { dtype: undefined, shape: undefined };

/** Largest rank that is followed; a file can declare any. */
export const MAX_RANK = 64;

/** Largest number of elements whose values are followed. */
export const MAX_VALUES = 1024;

/** One node as its shape rule sees it. */
export class ShapeNode {
  constructor(
    readonly proto: NodeProto,
    /** Version of the default operator set. */
    readonly opset: number,
    readonly dims: DimensionAlgebra,
    readonly inputs: readonly (InferredType | undefined)[],
  ) {}

  /** True if optional input `i` is there. */
  has(i: number): boolean {
    return this.inputs[i] !== undefined;
  }

  dtype(i: number): DataType | undefined {
    return this.inputs[i]?.dtype;
  }

  shape(i: number): Shape | undefined {
    return this.inputs[i]?.shape;
  }

  /** Elements of input `i` where they are followed. */
  value(i: number): readonly Dimension[] | undefined {
    return this.inputs[i]?.value;
  }

  /** Elements of input `i` if every one is a known number. */
  numbers(i: number): readonly number[] | undefined {
    const value = this.value(i);
    return value?.every((element) => typeof element === 'number') ? (value as readonly number[]) : undefined;
  }

  /** Dimensions of input `i` if every one is a known number. */
  sizes(i: number): readonly number[] | undefined {
    const shape = this.shape(i);
    return shape && isStatic(shape) ? shape : undefined;
  }

  /**
   * Integers that older operator sets keep in attribute `name` and newer ones in input `i`.
   * @returns 'absent' if neither is there, undefined if the input's value is not known.
   */
  setting(name: string, i: number): readonly number[] | 'absent' | undefined {
    if (findAttribute(this.proto, name)) return intsAttribute(this.proto, name);
    return this.has(i) ? this.numbers(i) : 'absent';
  }

  /** Elements that older operator sets keep in attribute `name` and newer ones in input `i`; undefined if not known. */
  elements(name: string, i: number): readonly Dimension[] | undefined {
    return findAttribute(this.proto, name) ? intsAttribute(this.proto, name) : this.value(i);
  }

  /** Attribute `axis` (or another name) brought to 0 ≤ axis < rank (≤ rank if `inclusive`). */
  axis(rank: number, fallback: number, name = 'axis', inclusive = false): number {
    return this.normalize(intAttribute(this.proto, name, fallback), rank, inclusive);
  }

  /** Brings an axis to 0 ≤ axis < rank. @throws ScrimError INVALID_MODEL if it is out of range. */
  normalize(axis: number, rank: number, inclusive = false): number {
    const normal = axis < 0 ? axis + rank : axis;
    if (!Number.isInteger(normal) || normal < 0 || normal > rank || (normal === rank && !inclusive)) {
      this.fail(`axis ${axis} is out of range for rank ${rank}`);
    }
    return normal;
  }

  /** The shape several inputs broadcast to. */
  broadcast(...shapes: readonly (Shape | undefined)[]): Shape | undefined {
    let result: Shape = [];
    for (const shape of shapes) {
      if (!shape) return undefined;
      const [long, short]: [Shape, Shape] = shape.length >= result.length ? [shape, result] : [result, shape];
      const offset: number = long.length - short.length;
      result = long.map((dimension: Dimension, i: number): Dimension => {
        if (i < offset) return dimension;
        return (
          this.dims.broadcast(dimension, short[i - offset] ?? 1) ??
          this.fail(`shapes ${shapes.map(show).join(' and ')} do not broadcast`)
        );
      });
    }
    return result;
  }

  /** One description of a size that is given twice. @throws ScrimError INVALID_MODEL if they contradict each other. */
  same(a: Dimension, b: Dimension, what: string): Dimension {
    return this.dims.unify(a, b) ?? this.fail(`${what}: ${a} and ${b} should be equal`);
  }

  /** Refuses the model because of this node. @throws ScrimError INVALID_MODEL always. */
  fail(reason: string): never {
    throw new ScrimError('INVALID_MODEL', `${describeNode(this.proto)}: ${reason}`, {
      details: { node: this.proto.name, operator: this.proto.opType },
    });
  }
}

/** How messages call a node: its name and operator, or what it makes if it has no name. */
export function describeNode(node: NodeProto): string {
  return node.name === ''
    ? `node making '${node.output[0] ?? ''}' (${node.opType})`
    : `node '${node.name}' (${node.opType})`;
}

/** True if every dimension is a number. */
export function isStatic(shape: Shape): shape is readonly number[] {
  return shape.every((dimension) => typeof dimension === 'number');
}

/** A shape of `rank` unknown dimensions. */
export function unknownShape(rank: number): Dimension[] {
  return Array.from({ length: rank }, () => '');
}

/** As {@link unknownShape} where the rank itself was inferred; undefined if it is no sensible number. */
export function shapeOfRank(rank: Dimension | undefined): Dimension[] | undefined {
  return typeof rank === 'number' && rank >= 0 && rank <= MAX_RANK ? unknownShape(rank) : undefined;
}

/** A shape for messages. */
export function show(shape: Shape | undefined): string {
  return shape ? `[${shape.map((dimension) => (dimension === '' ? '?' : dimension)).join(', ')}]` : '(unknown)';
}

/** The rule of operators whose first output has the type of input 0. */
export const sameAsInput: ShapeRule = (node) => [{ dtype: node.dtype(0), shape: node.shape(0) }];
