/**
 * Types of If, Loop and Scan, whose bodies are graphs: the body is inferred with what is known outside, and its outputs
 * say what comes out. A dimension that two ways through a node disagree on is unknown.
 */
import { findAttribute, intAttribute, intsAttribute } from '../attributes.js';
import type { GraphProto } from '../gen/onnx_pb.js';
import type { Dimension } from '../value-info.js';
import { type InferredType, type Shape, type ShapeNode, UNKNOWN } from './rule.js';

/** Infers a body; `inputs[i]`, where defined, is what is known of the body's input i. Returns its outputs' types. */
export type SubgraphInference = (
  graph: GraphProto,
  inputs: readonly (InferredType | undefined)[],
) => readonly InferredType[];

type ControlFlowRule = (node: ShapeNode, infer: SubgraphInference) => readonly InferredType[];

/** What holds for both of two possible types. */
function either(a: InferredType, b: InferredType): InferredType {
  const dtype = a.dtype === b.dtype ? a.dtype : undefined;
  if (!a.shape || !b.shape || a.shape.length !== b.shape.length) return { dtype, shape: undefined };
  return { dtype, shape: a.shape.map((dimension, i): Dimension => (dimension === b.shape?.[i] ? dimension : '')) };
}

function body(node: ShapeNode, name: string): GraphProto {
  return findAttribute(node.proto, name)?.g ?? node.fail(`${name} is missing`);
}

const branch: ControlFlowRule = (node, infer) => {
  const condition = node.numbers(0)?.[0];
  const names = condition === undefined ? ['then_branch', 'else_branch'] : [condition ? 'then_branch' : 'else_branch'];
  const outcomes: (readonly InferredType[])[] = [];
  const failures: unknown[] = [];
  for (const name of names) {
    try {
      outcomes.push(infer(body(node, name), []));
    } catch (error) {
      // A branch that can't run with these shapes is the one not taken.
      failures.push(error);
    }
  }
  const [first, second] = outcomes;
  if (!first) throw failures[0];
  return second ? node.proto.output.map((_, i) => either(first[i] ?? UNKNOWN, second[i] ?? UNKNOWN)) : first;
};

/**
 * Outputs of a body whose first `states.length` outputs become its inputs in the next round. If the states keep the
 * shape they start with, that shape holds in every round; else nothing but the body's own declaration is assumed.
 */
function iterate(
  infer: (states: readonly InferredType[]) => readonly InferredType[],
  states: readonly InferredType[],
): readonly InferredType[] {
  try {
    const first = infer(states.map(({ dtype, shape }) => ({ dtype, shape })));
    const stable = states.every(({ shape }, i) => {
      const next = first[i]?.shape;
      return (
        shape?.length === next?.length && shape?.every((dimension, d) => dimension !== '' && dimension === next?.[d])
      );
    });
    if (stable) return first;
  } catch {
    // The first shape need not be the one later rounds see; what holds without it is what counts.
  }
  return infer(states.map(({ dtype }) => ({ dtype, shape: undefined })));
}

const loop: ControlFlowRule = (node, infer) => {
  const graph = body(node, 'body');
  const initial = node.inputs.slice(2).map((type) => type ?? UNKNOWN);
  const trips: InferredType = { dtype: 'int64', shape: [] };
  const outputs = iterate((states) => infer(graph, [trips, { dtype: 'bool', shape: [] }, ...states]).slice(1), initial);
  return outputs.map((type, i): InferredType => {
    if (i < initial.length) return either(initial[i] ?? UNKNOWN, type);
    return { dtype: type.dtype, shape: type.shape && ['', ...type.shape] };
  });
};

const scan: ControlFlowRule = (node, infer) => {
  const graph = body(node, 'body');
  const scanned = intAttribute(node.proto, 'num_scan_inputs', 0);
  const states = node.inputs.length - scanned;
  if (states < 0) node.fail(`num_scan_inputs is ${scanned}, the node has ${node.inputs.length} inputs`);
  const inputAxes = intsAttribute(node.proto, 'scan_input_axes', []);
  let length: Dimension = '';
  const initial = node.inputs.slice(0, states).map((type) => type ?? UNKNOWN);
  const elements = node.inputs.slice(states).map((type, i): InferredType => {
    const shape = type?.shape;
    if (!shape) return { dtype: type?.dtype, shape };
    const axis = node.normalize(inputAxes[i] ?? 0, shape.length);
    length = node.same(length, shape[axis] ?? '', 'lengths of the scanned inputs');
    return { dtype: type.dtype, shape: shape.filter((_, d) => d !== axis) };
  });
  const outputAxes = intsAttribute(node.proto, 'scan_output_axes', []);
  const outputs = iterate((carried) => infer(graph, [...carried, ...elements]), initial);
  return outputs.map((type, i): InferredType => {
    if (i < states) return either(initial[i] ?? UNKNOWN, type);
    if (!type.shape) return { dtype: type.dtype, shape: undefined };
    const axis = node.normalize(outputAxes[i - states] ?? 0, type.shape.length + 1);
    const shape: Shape = [...type.shape.slice(0, axis), length, ...type.shape.slice(axis)];
    return { dtype: type.dtype, shape };
  });
};

/** Rules by operator name. */
export const CONTROL_FLOW: Readonly<Record<string, ControlFlowRule>> = { If: branch, Loop: loop, Scan: scan };
