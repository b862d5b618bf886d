/**
 * A model made more definite: inputs that always have the same value become constants, symbolic sizes become numbers, and
 * what follows from them is decided once instead of in every run.
 *
 * Branches (If) whose condition is then known are replaced by the nodes of the one that is taken, and small integer
 * tensors that are known become constants. A model that picks a network by its sampling rate, say, turns into that
 * network, which can be cut and differentiated. Conditions are known where shape inference follows them.
 */
import { clone, create } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import { int64, type Tensor, tensor } from '../tensor.js';
import { findAttribute } from './attributes.js';
import { type GraphProto, ModelProtoSchema, type NodeProto, NodeProtoSchema } from './gen/onnx_pb.js';
import { Graph } from './graph.js';
import { bodiesOf } from './node-scope.js';
import { inferShapes, inferValues } from './shape-inference.js';
import { tensorToProto } from './tensor-proto.js';
import { type Dimension, valueInfo } from './value-info.js';

/** What {@link bindInputs} fixes. */
export interface BindOptions {
  /** Inputs that become constants of the model. */
  readonly values?: Readonly<Record<string, Tensor>>;
  /** Sizes of inputs that stay; a name keeps a dimension symbolic. */
  readonly shapes?: Readonly<Record<string, readonly Dimension[]>>;
}

/**
 * Returns a copy of `graph` with inputs and sizes bound; weights are copied too.
 * @throws ScrimError INVALID_ARGUMENT if a name is no input, or a value or shape contradicts what the model declares;
 * INVALID_MODEL if the model can't run with these sizes.
 */
export function bindInputs(graph: Graph, options: BindOptions): Graph {
  const { values = {}, shapes = {} } = options;
  let bound = graph.clone();
  for (const [name, value] of Object.entries(values)) bindValue(bound, name, value);
  bindShapes(bound, shapes);
  bound = new Graph(bound.model);
  for (;;) {
    const known = inferValues(bound);
    const taken = new Map<NodeProto, GraphProto>();
    for (const node of bound.nodes()) {
      if (node.opType !== 'If' || (node.domain !== '' && node.domain !== 'ai.onnx')) continue;
      const condition = known.get(node.input[0] ?? '')?.elements[0];
      if (condition === undefined) continue;
      const body = findAttribute(node, condition === 0 ? 'else_branch' : 'then_branch')?.g;
      if (body) taken.set(node, body);
    }
    if (taken.size === 0) break;
    bound = inline(bound, taken);
  }
  return settle(bound);
}

function expectInput(graph: Graph, name: string): void {
  if (graph.isInput(name)) return;
  throw new ScrimError('INVALID_ARGUMENT', `'${name}' is no input; inputs are ${graph.inputNames.join(', ')}`);
}

function bindValue(graph: Graph, name: string, value: Tensor): void {
  expectInput(graph, name);
  const declared = graph.declaredType(name);
  const fits =
    !declared ||
    (declared.dtype === value.dtype &&
      (!declared.shape ||
        (declared.shape.length === value.shape.length &&
          declared.shape.every((size, i) => typeof size === 'string' || size === value.shape[i]))));
  if (!fits) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `input '${name}' is ${declared.dtype} [${declared.shape?.join(', ') ?? '?'}], the value given is ${value.dtype} ` +
        `[${value.shape.join(', ')}]`,
    );
  }
  const { proto } = graph;
  proto.input = proto.input.filter((input) => input.name !== name);
  proto.initializer.push(tensorToProto(value, name));
}

function bindShapes(graph: Graph, shapes: NonNullable<BindOptions['shapes']>): void {
  const fixed: Record<string, readonly number[]> = {};
  for (const [name, shape] of Object.entries(shapes)) {
    expectInput(graph, name);
    const declared = graph.declaredType(name)?.shape;
    if (
      declared &&
      (declared.length !== shape.length ||
        declared.some((size, i) => typeof size === 'number' && typeof shape[i] === 'number' && size !== shape[i]))
    ) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `input '${name}' is [${declared.join(', ')}], the shape given is [${shape.join(', ')}]`,
      );
    }
    if (shape.every((size) => typeof size === 'number')) fixed[name] = shape as readonly number[];
  }
  // Sizes of one input decide those of another that shares their names.
  const types = inferShapes(new Graph(graph.model), { inputShapes: fixed });
  graph.proto.input = graph.proto.input.map((info) => {
    const type = types.get(info.name);
    if (!graph.isInput(info.name) || !type) return info;
    return valueInfo(info.name, { dtype: type.dtype, shape: shapes[info.name] ?? type.shape });
  });
}

/** Puts the nodes of the taken branches in the place of their If nodes. */
function inline(graph: Graph, taken: ReadonlyMap<NodeProto, GraphProto>): Graph {
  const model = clone(ModelProtoSchema, { ...graph.model, graph: { ...graph.proto, node: [] } });
  const proto = model.graph as GraphProto;
  const names = new Map<string, number>();
  countNames(graph.proto, names);
  const titles = new Set(graph.nodes().map(({ name }) => name));
  for (const node of graph.nodes()) {
    const body = taken.get(node);
    if (!body) {
      proto.node.push(clone(NodeProtoSchema, node));
      continue;
    }
    const renamed = new Map<string, string>();
    const made = new Set(body.node.flatMap(({ output }) => output));
    body.output.forEach(({ name }, i) => {
      const outer = node.output[i] ?? '';
      if (outer !== '' && made.has(name) && !renamed.has(name)) renamed.set(name, outer);
    });
    for (const name of definedIn(body)) if (!renamed.has(name)) renamed.set(name, freeName(name, names));
    for (const weight of body.initializer) {
      proto.initializer.push(Object.assign(weight, { name: renamed.get(weight.name) ?? weight.name }));
    }
    for (const weight of body.sparseInitializer) {
      if (weight.values) weight.values.name = renamed.get(weight.values.name) ?? weight.values.name;
      proto.sparseInitializer.push(weight);
    }
    for (const inner of body.node) {
      const copy = rename(clone(NodeProtoSchema, inner), renamed);
      // The runtime wants node names that are unique in their graph; both branches may have used one.
      if (copy.name !== '' && titles.has(copy.name)) copy.name = `${copy.name}_${titles.size}`;
      titles.add(copy.name);
      proto.node.push(copy);
    }
    body.output.forEach(({ name }, i) => {
      const outer = node.output[i] ?? '';
      const source = renamed.get(name) ?? name;
      if (outer === '' || source === outer) return;
      proto.node.push(create(NodeProtoSchema, { opType: 'Identity', name: outer, input: [source], output: [outer] }));
    });
  }
  return new Graph(model);
}

/** Every name that a graph or its subgraphs define, and how often. */
function countNames(graph: GraphProto, names: Map<string, number>): void {
  for (const name of [...graph.input.map((input) => input.name), ...definedIn(graph)]) {
    names.set(name, (names.get(name) ?? 0) + 1);
  }
  for (const node of graph.node) for (const body of bodiesOf(node)) countNames(body, names);
}

function definedIn(graph: GraphProto): string[] {
  return [
    ...graph.initializer.map(({ name }) => name),
    ...graph.sparseInitializer.flatMap(({ values }) => (values ? [values.name] : [])),
    ...graph.node.flatMap(({ output }) => output.filter((name) => name !== '')),
  ];
}

/** The name itself where nothing else in the model has it. */
function freeName(name: string, names: Map<string, number>): string {
  if ((names.get(name) ?? 0) <= 1) return name;
  let count = 1;
  while (names.has(`${name}_${count}`)) count++;
  names.set(`${name}_${count}`, 1);
  return `${name}_${count}`;
}

/** Renames what a node reads and makes, in its subgraphs too. */
function rename(node: NodeProto, names: ReadonlyMap<string, string>): NodeProto {
  const swap = (name: string): string => names.get(name) ?? name;
  node.input = node.input.map(swap);
  node.output = node.output.map(swap);
  for (const body of bodiesOf(node)) {
    const own = new Set([...body.input.map(({ name }) => name), ...definedIn(body)]);
    const outer = new Map([...names].filter(([name]) => !own.has(name)));
    for (const each of body.node) rename(each, outer);
    for (const output of body.output) output.name = outer.get(output.name) ?? output.name;
  }
  return node;
}

/** Makes constants of what is known, drops what nothing needs any more, and declares the outputs' shapes. */
function settle(graph: Graph): Graph {
  const known = inferValues(graph);
  const { proto } = graph;
  const outputs = new Set(graph.outputNames);
  proto.node = graph.nodes().filter((node) => {
    const made = node.output.filter((name) => name !== '');
    const decided = made.every((name) => known.has(name) && !outputs.has(name));
    if (node.opType === 'Constant' || !decided || made.length === 0) return true;
    for (const name of made) {
      const { dtype, shape, elements } = known.get(name) as NonNullable<ReturnType<typeof known.get>>;
      const dims = shape as readonly number[];
      const value =
        dtype === 'int64'
          ? int64(elements, dims)
          : dtype === 'int32'
            ? tensor('int32', dims, Int32Array.from(elements))
            : tensor('bool', dims, Uint8Array.from(elements));
      proto.initializer.push(tensorToProto(value, name));
    }
    return false;
  });
  const settled = new Graph(graph.model);
  const types = inferShapes(settled);
  settled.proto.output = settled.proto.output.map((info) => {
    const type = types.get(info.name);
    return type ? valueInfo(info.name, type) : info;
  });
  settled.prune();
  return settled;
}
