/**
 * A standalone model from a part of another: some of its nodes with other inputs and outputs.
 *
 * This is what cutting a model comes down to. Weights, functions, sparse tensors and annotations that the part does not
 * need are left out, so that nothing of the rest can be read from it.
 */
import { clone, create } from '@bufbuild/protobuf';
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  SparseTensorProtoSchema,
  TensorAnnotationSchema,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from './gen/onnx_pb.js';
import { Graph } from './graph.js';
import { bodiesOf, usedBy } from './node-scope.js';

/** Which part of a graph {@link extractGraph} takes. */
export interface GraphPart {
  /** Name of the new graph. */
  readonly name: string;
  /** The nodes; what they use must be made by them, fed, or stored. */
  readonly nodes: ReadonlySet<NodeProto>;
  /** What is fed, with its type; nodes that make it as well get another name for it. */
  readonly inputs: readonly ValueInfoProto[];
  readonly outputs: readonly ValueInfoProto[];
}

/**
 * A model of its own from some nodes of `graph`, which stays as it is: messages are copied, the bytes of weights shared.
 * It keeps operator sets and metadata, and of weights, functions and declared types what its nodes need.
 * @throws ScrimError INVALID_MODEL if the nodes use something that nothing makes.
 */
export function extractGraph(graph: Graph, part: GraphPart): Graph {
  const { nodes, inputs, outputs } = part;
  const { model, proto } = graph;
  const fed = new Set(inputs.map(({ name }) => name));
  const named = new Set(outputs.map(({ name }) => name));
  const ordered = graph.nodes().filter((node) => nodes.has(node));
  const used = new Set([...ordered.flatMap(usedBy), ...named]);
  const made = new Set(ordered.flatMap(({ output }) => output));
  const annotations = proto.quantizationAnnotation
    .filter(({ tensorName }) => used.has(tensorName) || made.has(tensorName))
    .map((annotation) => clone(TensorAnnotationSchema, annotation));
  for (const { quantParameterTensorNames } of annotations) {
    for (const { value } of quantParameterTensorNames) used.add(value);
  }
  const isWeight = (name: string): boolean => used.has(name) && !fed.has(name);
  const half: GraphProto = Object.assign(create(GraphProtoSchema), proto, {
    name: part.name,
    node: ordered.map((node) => copyNode(node, fed, graph)),
    initializer: proto.initializer
      .filter(({ name }) => isWeight(name))
      .map((tensor) => Object.assign(create(TensorProtoSchema), tensor)),
    sparseInitializer: proto.sparseInitializer
      .filter(({ values }) => values && isWeight(values.name))
      .map((tensor) =>
        Object.assign(create(SparseTensorProtoSchema), tensor, {
          values: Object.assign(create(TensorProtoSchema), tensor.values),
        }),
      ),
    // Files of IR version 3 list initializers as inputs, too.
    input: [...inputs, ...proto.input.filter(({ name }) => !graph.isInput(name) && isWeight(name))].map(copyType),
    output: outputs.map(copyType),
    valueInfo: proto.valueInfo.filter(({ name }) => made.has(name) && !fed.has(name) && !named.has(name)).map(copyType),
    quantizationAnnotation: annotations,
  });
  // Fields this schema doesn't know may hold anything, the other part's weights among it.
  delete half.$unknown;
  const whole: ModelProto = Object.assign(create(ModelProtoSchema), model, {
    graph: half,
    opsetImport: [...model.opsetImport],
    metadataProps: [...model.metadataProps],
    functions: calledFunctions(model, ordered),
    // It names values of the whole graph.
    trainingInfo: [],
  });
  delete whole.$unknown;
  return new Graph(whole);
}

function copyType(info: ValueInfoProto): ValueInfoProto {
  return clone(ValueInfoProtoSchema, info);
}

/** A node whose output is fed on this side keeps its other outputs and drops that one. */
function copyNode(node: NodeProto, fed: ReadonlySet<string>, graph: Graph): NodeProto {
  const copy = clone(NodeProtoSchema, node);
  copy.output = node.output.map((output) => (fed.has(output) ? graph.uniqueName(`${output}_recomputed`) : output));
  return copy;
}

/** The model's functions that `nodes` call, directly or through other functions. */
function calledFunctions(model: ModelProto, nodes: readonly NodeProto[]): ModelProto['functions'] {
  const called = new Set<string>();
  const visit = (list: readonly NodeProto[]): void => {
    for (const node of list) {
      const key = `${node.domain}:${node.opType}`;
      for (const body of bodiesOf(node)) visit(body.node);
      if (called.has(key)) continue;
      called.add(key);
      for (const body of model.functions) if (`${body.domain}:${body.name}` === key) visit(body.node);
    }
  };
  visit(nodes);
  return model.functions.filter(({ domain, name }) => called.has(`${domain}:${name}`));
}
