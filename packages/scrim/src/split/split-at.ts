/**
 * Cuts a model in two standalone models: the head makes the cut tensors, the tail makes the outputs from them.
 *
 * Both sides keep the operator sets, the metadata, the functions they call, and the weights and constant nodes they
 * need; what both need (an epsilon, a shape) is in both, and nothing else is, so the tail holds no weight of the head.
 * Nodes keep their names, values too: the tail's inputs are called like the head's outputs. The head takes all inputs of
 * the model, even unused ones, so that it can be fed what the model was fed.
 *
 * Law: running the tail on what the head returns gives the model's outputs.
 */
import { ScrimError } from '../errors.js';
import {
  extractGraph,
  type Graph,
  inferShapes,
  type NodeProto,
  usedBy,
  type ValueInfoProto,
  type ValueType,
  valueInfo,
} from '../onnx/index.js';
import { findActivations, findRandomNodes } from './activation-flow.js';
import { findSizes, readableSizes, readSizes } from './carried-sizes.js';

/** The two halves of a model. */
export interface SplitModel {
  /** Inputs of the model -> cut tensors, in the order asked for. */
  readonly head: Graph;
  /** Cut tensors, in the order asked for -> outputs of the model. */
  readonly tail: Graph;
}

/**
 * Splits `graph`, which stays as it is, at the values called `names`. Weights are shared with `graph`, not copied: treat
 * them as read-only and replace them with `setInitializer`.
 *
 * Any set of activations through which every path from the inputs passes is accepted, whether `listCuts` met it or not;
 * nodes between two of them may then be computed on both sides. Sizes may go past it where they can be read off what crosses
 * (carried-sizes.ts). A cut can't hold an output of the model, or leave one
 * that the head alone computes: there would be no way back for it but around the noise.
 * @throws ScrimError INVALID_ARGUMENT if a name is no activation, is an output, or isn't read by the tail, and if some
 * path goes past the cut (the message spells one out); UNSUPPORTED if a tensor's element type can't be told or a random
 * draw would be made on both sides.
 */
export function splitAt(graph: Graph, names: readonly string[]): SplitModel {
  checkNames(graph, names);
  const cut = new Set(names);
  const types = inferShapes(graph);
  const bypass = findBypass(graph, cut);
  const sizes = bypass === undefined ? undefined : findSizes(graph);
  const carried = sizes ? readableSizes(sizes, names, types) : new Set<string>();
  // One that is named crosses as it is.
  for (const name of names) carried.delete(name);
  const stop = new Set([...cut, ...carried]);
  if (bypass !== undefined && findBypass(graph, stop) !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', `${quote(names)} is no cut: ${bypass} goes past it`);
  }
  const tailNodes = collect(graph, graph.outputNames, stop);
  const read = new Set([...tailNodes].flatMap(usedBy));
  for (const name of names) {
    if (!read.has(name)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `'${name}' can't be cut: with ${quote(names)} cut, the tail does not read it`,
      );
    }
  }
  const headNodes = collect(graph, names, new Set());
  const isRandom = findRandomNodes(graph);
  for (const node of headNodes) {
    if (tailNodes.has(node) && isRandom(node)) {
      throw new ScrimError(
        'UNSUPPORTED',
        `${quote(names)} can't be cut: node '${node.name}' (${node.opType}) draws random numbers and both sides need them`,
      );
    }
  }
  const crossing = names.map((name): ValueInfoProto => {
    const type: ValueType | undefined = types.get(name) ?? graph.declaredType(name);
    if (!type) {
      throw new ScrimError(
        'UNSUPPORTED',
        `'${name}' can't be cut: its element type is not known; declare it in value_info`,
      );
    }
    return valueInfo(name, type);
  });
  const outputs = graph.proto.output.map((info) => {
    const type = info.type ? undefined : types.get(info.name);
    return type ? valueInfo(info.name, type) : info;
  });
  const inputs = graph.proto.input.filter(({ name }) => graph.isInput(name));
  const past = [...carried].filter((name) => read.has(name));
  const tail = extractGraph(graph, {
    name: `${graph.proto.name}_tail`,
    nodes: tailNodes,
    inputs: [...crossing, ...past.map((name) => valueInfo(name, types.get(name) as ValueType))],
    outputs,
  });
  if (sizes) readSizes(tail, past, sizes, names, types);
  return {
    head: extractGraph(graph, { name: `${graph.proto.name}_head`, nodes: headNodes, inputs, outputs: crossing }),
    tail,
  };
}

function quote(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(' + ');
}

function checkNames(graph: Graph, names: readonly string[]): void {
  const refuse = (reason: string): never => {
    throw new ScrimError('INVALID_ARGUMENT', `can't cut at ${quote(names)}: ${reason}`);
  };
  if (names.length === 0) throw new ScrimError('INVALID_ARGUMENT', 'the cut names no tensor');
  if (new Set(names).size !== names.length) refuse('a name stands there twice');
  const { activations } = findActivations(graph);
  for (const name of names) {
    if (graph.isInput(name)) refuse(`'${name}' is an input of the model, so the input itself would cross`);
    if (graph.isOutput(name)) refuse(`'${name}' is an output of the model, so nothing would be left for the tail`);
    if (!graph.has(name)) refuse(`the graph has no value '${name}'`);
    if (!activations.has(name)) refuse(`'${name}' does not lie between the inputs and the outputs`);
  }
}

/** The nodes that `wanted` values need, not looking behind the values in `stop`. */
function collect(graph: Graph, wanted: readonly string[], stop: ReadonlySet<string>): Set<NodeProto> {
  const nodes = new Set<NodeProto>();
  const values = new Set(wanted);
  for (const value of values) {
    const node = stop.has(value) ? undefined : graph.producer(value);
    if (!node) continue;
    nodes.add(node);
    for (const used of usedBy(node)) values.add(used);
  }
  return nodes;
}

/** A path from a fed input to one of `ends` that avoids the values in `cut`, in words; undefined if there is none. */
export function findBypass(
  graph: Graph,
  cut: { has(name: string): boolean },
  ends: Iterable<string> = graph.outputNames,
): string | undefined {
  const next = new Map<string, string | undefined>();
  for (const name of ends) next.set(name, undefined);
  for (const [value] of next) {
    if (cut.has(value)) continue;
    if (graph.isInput(value)) return describePath(graph, value, next);
    const node = graph.producer(value);
    for (const used of node ? usedBy(node) : []) if (!next.has(used)) next.set(used, value);
  }
  return undefined;
}

function describePath(graph: Graph, from: string, next: ReadonlyMap<string, string | undefined>): string {
  const steps = [`'${from}'`];
  for (let value = next.get(from); value !== undefined; value = next.get(value)) {
    const node = graph.producer(value);
    steps.push(`${node?.opType}${node?.name ? ` '${node.name}'` : ''}`, `'${value}'`);
  }
  const shown = steps.length <= 15 ? steps : [...steps.slice(0, 8), `(${steps.length - 14} more)`, ...steps.slice(-6)];
  return `the path ${shown.join(' -> ')}`;
}
