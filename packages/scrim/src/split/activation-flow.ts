/**
 * Which values of a graph carry what is fed, and how long each stays in use: the basis for finding cuts.
 *
 * A value is an activation if it depends on a fed input (or on a random draw) and some output depends on it. Everything
 * else is constant (weights and what is computed from them, which head and tail may both hold) or useless. Values that
 * subgraphs capture count as used by the node that holds the subgraph.
 */
import type { NodeProto } from '../onnx/index.js';
import { type Graph, usedBy } from '../onnx/index.js';
import { bodiesOf } from '../onnx/node-scope.js';

/** One value on its way from the inputs to the outputs. */
export interface Activation {
  readonly name: string;
  /** Position in {@link ActivationFlow.nodes} of the node that makes it, −1 for a fed input. */
  readonly from: number;
  /** Position of the last node that reads it; infinite for an output of the graph. */
  readonly until: number;
  /** The activations it is computed from; none for a fed input or a random draw. */
  readonly sources: readonly Activation[];
}

/** The part of a graph between its fed inputs and its outputs. */
export interface ActivationFlow {
  /** Nodes between inputs and outputs, in the graph's topological order. */
  readonly nodes: readonly NodeProto[];
  /** Activations by name, fed inputs included. */
  readonly activations: ReadonlyMap<string, Activation>;
}

const RANDOM: ReadonlySet<string> = new Set([
  'RandomNormal',
  'RandomUniform',
  'RandomNormalLike',
  'RandomUniformLike',
  'Bernoulli',
  'Multinomial',
]);

/** True for each node that draws random numbers, itself, in a subgraph or in a function of the model it calls. */
export function findRandomNodes(graph: Graph): (node: NodeProto) => boolean {
  const functions = new Set<string>();
  const isRandom = (node: NodeProto): boolean =>
    RANDOM.has(node.opType) ||
    functions.has(`${node.domain}:${node.opType}`) ||
    bodiesOf(node).some((body) => body.node.some(isRandom));
  for (let found = -1; found !== functions.size; ) {
    found = functions.size;
    for (const { domain, name, node } of graph.model.functions)
      if (node.some(isRandom)) functions.add(`${domain}:${name}`);
  }
  return isRandom;
}

/**
 * Finds the activations of `graph` in time proportional to its size. Values in `given` count as constants, whatever they
 * are computed from.
 */
export function findActivations(graph: Graph, given: ReadonlySet<string> = new Set()): ActivationFlow {
  const isRandom = findRandomNodes(graph);
  const all = graph.nodes();
  const uses = new Map(all.map((node) => [node, usedBy(node)]));
  const dependent = new Set<string>(graph.inputNames);
  for (const node of all) {
    if (isRandom(node) || uses.get(node)?.some((name) => dependent.has(name))) {
      for (const output of node.output) if (output !== '' && !given.has(output)) dependent.add(output);
    }
  }
  const needed = new Set<string>(graph.outputNames);
  const nodes: NodeProto[] = [];
  for (let i = all.length - 1; i >= 0; i--) {
    const node = all[i] as NodeProto;
    if (!node.output.some((output) => needed.has(output))) continue;
    for (const name of uses.get(node) ?? []) needed.add(name);
    if (node.output.some((output) => dependent.has(output))) nodes.push(node);
  }
  nodes.reverse();
  const activations = new Map<string, Activation & { until: number }>();
  const arrive = (name: string, from: number, sources: readonly Activation[]): void => {
    if (name === '' || !dependent.has(name) || !needed.has(name)) return;
    activations.set(name, { name, from, until: from, sources });
  };
  for (const name of graph.inputNames) arrive(name, -1, []);
  nodes.forEach((node, i) => {
    const sources: Activation[] = [];
    for (const name of uses.get(node) ?? []) {
      const activation = activations.get(name);
      if (!activation) continue;
      activation.until = i;
      sources.push(activation);
    }
    for (const output of node.output) arrive(output, i, sources);
  });
  for (const name of graph.outputNames) {
    const activation = activations.get(name);
    if (activation) activation.until = Number.POSITIVE_INFINITY;
  }
  return { nodes, activations };
}
