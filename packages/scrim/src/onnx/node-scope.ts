/** What a node stands for and what it holds: its domain, the graphs inside it (If, Loop, Scan), the names they use and make. */
import type { GraphProto, NodeProto } from './gen/onnx_pb.js';

/** True for operators of the default domain, under either of its names. */
export function isStandard({ domain }: NodeProto): boolean {
  return domain === '' || domain === 'ai.onnx';
}

/** The graphs inside a node: branches, and bodies of loops. */
export function bodiesOf({ attribute }: NodeProto): GraphProto[] {
  return attribute.flatMap(({ g, graphs }) => (g ? [g, ...graphs] : graphs));
}

/** Every outer value a node uses: its inputs and what its subgraphs capture. */
export function usedBy(node: NodeProto): string[] {
  const used = new Set(node.input.filter((input) => input !== ''));
  for (const body of bodiesOf(node)) for (const name of capturedBy(body)) used.add(name);
  return [...used];
}

/** Every outer value that a subgraph uses. */
export function capturedBy(graph: GraphProto): string[] {
  const own = new Set<string>();
  for (const { name } of graph.input) own.add(name);
  for (const { name } of graph.initializer) own.add(name);
  for (const { values } of graph.sparseInitializer) if (values) own.add(values.name);
  for (const node of graph.node) for (const output of node.output) own.add(output);
  const outer = new Set<string>();
  for (const node of graph.node) for (const name of usedBy(node)) if (!own.has(name)) outer.add(name);
  for (const { name } of graph.output) if (!own.has(name)) outer.add(name);
  return [...outer];
}

/** Names made inside the subgraphs of a node; an outer value must not take one of them. */
export function* innerNames(node: NodeProto): Generator<string> {
  for (const body of bodiesOf(node)) {
    for (const { name } of body.input) yield name;
    for (const { name } of body.initializer) yield name;
    for (const { values } of body.sparseInitializer) if (values) yield values.name;
    for (const inner of body.node) {
      yield* inner.output;
      yield* innerNames(inner);
    }
  }
}
