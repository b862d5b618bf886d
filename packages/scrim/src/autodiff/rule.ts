/**
 * What a gradient rule is and what it is given.
 *
 * A rule belongs to one operator. From the gradients of the node's outputs it writes the gradients of those inputs that
 * are wanted, each in the shape and element type of its input. It never sees the rest of the graph.
 */
import { ScrimError } from '../errors.js';
import type { NodeProto } from '../onnx/gen/onnx_pb.js';
import type { Tensor } from '../tensor.js';
import type { Emitter } from './emitter.js';

/** One application of a rule: a node, the gradients of its outputs, and which inputs want one. */
export class RuleContext {
  readonly node: NodeProto;
  readonly emit: Emitter;
  readonly #gradients: readonly (string | undefined)[];
  readonly #wanted: (value: string) => boolean;
  readonly #variables: readonly string[];

  constructor(
    node: NodeProto,
    emit: Emitter,
    gradients: readonly (string | undefined)[],
    wanted: (value: string) => boolean,
    variables: readonly string[],
  ) {
    this.node = node;
    this.emit = emit;
    this.#gradients = gradients;
    this.#wanted = wanted;
    this.#variables = variables;
  }

  /** Name of input `i`; '' if it is left out. */
  input(i: number): string {
    return this.node.input[i] ?? '';
  }

  /** Name of output `i`; '' if it is left out. */
  output(i: number): string {
    return this.node.output[i] ?? '';
  }

  /** True if input `i` lies on a path from what the caller differentiates by. */
  wants(i: number): boolean {
    const name = this.input(i);
    return name !== '' && this.#wanted(name);
  }

  /** True if the caller differentiates by input `i` itself, so that its gradient is not for rules alone. */
  isVariable(i: number): boolean {
    return this.#variables.includes(this.input(i));
  }

  /** Gradient of output `i`, undefined if that output does not reach the loss. */
  gradient(i: number): string | undefined {
    return this.#gradients[i];
  }

  /** Gradient of the only output. */
  get dy(): string {
    return this.#gradients[0] as string;
  }

  /** Input 0. */
  get x(): string {
    return this.input(0);
  }

  /** Output 0. */
  get y(): string {
    return this.output(0);
  }

  /** The constant input `i` is, undefined if it is none or left out. */
  constant(i: number): Tensor | undefined {
    const name = this.input(i);
    return name === '' ? undefined : this.emit.graph.constant(name);
  }

  /** The integers of input `i`, which is a constant or follows from constants and known sizes. */
  constantInts(i: number): readonly number[] | undefined {
    const value = this.constant(i);
    return value ? Array.from(value.data as ArrayLike<number | bigint>, Number) : this.emit.integers(this.input(i));
  }

  /** The error for a form of the operator that the rule does not cover. */
  unsupported(reason: string): ScrimError {
    return unsupportedOperator(this.node, reason);
  }
}

/** Gradients of the inputs by position; undefined (or a shorter list) where an input gets none. */
export type GradientRule = (context: RuleContext) => readonly (string | undefined)[];

/** A rule that some forms of the operator have none of: `refuse` says why, from the node alone. */
export interface GuardedRule {
  readonly gradient: GradientRule;
  readonly refuse: (node: NodeProto) => string | undefined;
}

/** Rules by operator of the default domain. */
export type RuleTable = Readonly<Record<string, GradientRule | GuardedRule>>;

/** The error for an operator, or a form of one, that has no gradient rule. */
export function unsupportedOperator(node: NodeProto, reason: string): ScrimError {
  const value = node.output.find((output) => output !== '') ?? '';
  const operator = node.domain === '' ? node.opType : `${node.domain}.${node.opType}`;
  return new ScrimError(
    'UNSUPPORTED',
    `can't differentiate through operator ${operator} (node '${node.name}', value '${value}'): ${reason}`,
    { details: { operator, node: node.name, value } },
  );
}
