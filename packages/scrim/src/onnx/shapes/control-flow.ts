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

function body(node: ShapeNode, name: string): GraphProto | undefined {
  return findAttribute(node.proto, name)?.g;
}

const branch: ControlFlowRule = (node, infer) => {
  const [yes, no] = [body(node, 'then_branch'), body(node, 'else_branch')];
  const outcomes = [yes, no].flatMap((graph) => (graph ? [infer(graph, [])] : []));
  const [first = [], second = first] = outcomes;
  const condition = node.numbers(0)?.[0];
  if (condition !== undefined && outcomes.length === 2) return condition !== 0 ? first : second;
  return node.proto.output.map((_, i) => either(first[i] ?? UNKNOWN, second[i] ?? UNKNOWN));
};

/** What stays true of a carried value in every round: its element type; its shape only where the body declares it. */
function carried(type: InferredType | undefined): InferredType {
  return { dtype: type?.dtype, shape: undefined };
}

const loop: ControlFlowRule = (node, infer) => {
  const graph = body(node, 'body');
  if (!graph) return [];
  const initial = node.inputs.slice(2);
  const trips: InferredType = { dtype: 'int64', shape: [] };
  const outputs = infer(graph, [trips, { dtype: 'bool', shape: [] }, ...initial.map(carried)]).slice(1);
  return outputs.map((type, i): InferredType => {
    if (i < initial.length) return either(initial[i] ?? UNKNOWN, type);
    return { dtype: type.dtype, shape: type.shape && ['', ...type.shape] };
  });
};

const scan: ControlFlowRule = (node, infer) => {
  const graph = body(node, 'body');
  if (!graph) return [];
  const scanned = intAttribute(node.proto, 'num_scan_inputs', 0);
  const states = node.inputs.length - scanned;
  if (states < 0) node.fail(`num_scan_inputs is ${scanned}, the node has ${node.inputs.length} inputs`);
  const inputAxes = intsAttribute(node.proto, 'scan_input_axes', []);
  let length: Dimension = '';
  const inputs = node.inputs.map((type, i): InferredType => {
    if (i < states) return carried(type);
    const shape = type?.shape;
    if (!shape) return { dtype: type?.dtype, shape };
    const axis = node.normalize(inputAxes[i - states] ?? 0, shape.length);
    length = node.same(length, shape[axis] ?? '', 'lengths of the scanned inputs');
    return { dtype: type.dtype, shape: shape.filter((_, d) => d !== axis) };
  });
  const outputAxes = intsAttribute(node.proto, 'scan_output_axes', []);
  return infer(graph, inputs).map((type, i): InferredType => {
    if (i < states) return either(node.inputs[i] ?? UNKNOWN, type);
    if (!type.shape) return { dtype: type.dtype, shape: undefined };
    const axis = node.normalize(outputAxes[i - states] ?? 0, type.shape.length + 1);
    const shape: Shape = [...type.shape.slice(0, axis), length, ...type.shape.slice(axis)];
    return { dtype: type.dtype, shape };
  });
};

/** Rules by operator name. */
export const CONTROL_FLOW: Readonly<Record<string, ControlFlowRule>> = { If: branch, Loop: loop, Scan: scan };
