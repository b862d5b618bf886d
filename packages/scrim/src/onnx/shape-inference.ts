/**
 * Element types and shapes of every value of a graph.
 *
 * One pass over the nodes in topological order; each operator has a rule in shapes/, by family. Dimensions stay symbolic
 * where the inputs are: a name stays that name, a computed size becomes an expression in normal form such as
 * 'floor((H+1)/2)' (see shapes/dimension.ts) or '' where nothing is known. Small integer tensors are followed through
 * shape arithmetic. Subgraphs and model-local functions are inferred in place. What the file declares fills what the
 * rules leave open; where both speak and disagree, the rules win, as in the runtime.
 */
import { clone } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import {
  AttributeProtoSchema,
  type FunctionProto,
  type GraphProto,
  type NodeProto,
  NodeProtoSchema,
  type ValueInfoProto,
} from './gen/onnx_pb.js';
import type { Graph } from './graph.js';
import { isStandard } from './node-scope.js';
import { CONTROL_FLOW, type SubgraphInference } from './shapes/control-flow.js';
import { DimensionAlgebra } from './shapes/dimension.js';
import { ELEMENTWISE } from './shapes/elementwise.js';
import { INDEXING } from './shapes/indexing.js';
import { LAYOUT } from './shapes/layout.js';
import { MATRIX, MICROSOFT_MATRIX } from './shapes/matrix.js';
import { REDUCTION } from './shapes/reduction.js';
import {
  type InferredType,
  isStatic,
  MAX_RANK,
  type Shape,
  ShapeNode,
  type ShapeRule,
  UNKNOWN,
} from './shapes/rule.js';
import { SOURCE, storedType } from './shapes/source.js';
import { TABLES } from './shapes/tables.js';
import { WINDOW } from './shapes/window.js';
import { dataTypeFromCode } from './tensor-proto.js';
import { type Dimension, readValueInfo, type ValueType } from './value-info.js';

/** How {@link inferShapes} is told more than the file says. */
export interface InferShapesOptions {
  /** Sizes of graph inputs by name; symbols of the declared shapes take these values throughout the graph. */
  readonly inputShapes?: Readonly<Record<string, readonly number[]>>;
}

const RULES: ReadonlyMap<string, ShapeRule> = new Map(
  [ELEMENTWISE, WINDOW, MATRIX, LAYOUT, INDEXING, REDUCTION, SOURCE].flatMap((family) => Object.entries(family)),
);

const MICROSOFT_RULES: ReadonlyMap<string, ShapeRule> = new Map(
  Object.entries({
    ...MICROSOFT_MATRIX,
    ...Object.fromEntries(
      ['Gelu', 'FastGelu', 'QuickGelu', 'BiasGelu'].map((name) => [name, ELEMENTWISE.Relu as ShapeRule]),
    ),
    FusedConv: WINDOW.Conv as ShapeRule,
    FusedGemm: MATRIX.Gemm as ShapeRule,
  }),
);

const TABLE_RULES: ReadonlyMap<string, ShapeRule> = new Map(Object.entries(TABLES));

/** Nesting of functions and subgraphs that is followed; deeper bodies are left unknown. */
const MAX_NESTING = 24;

/** Nodes looked at inside bodies, so that functions that call functions can't multiply without end. */
const MAX_INNER_NODES = 200_000;

/** True if the operator of `node` has a shape rule here. */
export function hasShapeRule(node: NodeProto): boolean {
  return ruleOf(node) !== undefined || (isStandard(node) && CONTROL_FLOW[node.opType] !== undefined);
}

/**
 * Infers the element type and shape of every value of the main graph: inputs, initializers and node outputs. Values of
 * which not even the element type is known (or that are no tensors) are missing from the result; a known element type
 * with an unknown rank has `shape: undefined`. Operators without a rule keep what the file declares.
 * @throws ScrimError INVALID_MODEL naming the node whose inputs contradict each other; INVALID_ARGUMENT for an input
 * shape that names no input, has another rank or contradicts a declared size.
 */
export function inferShapes(graph: Graph, options: InferShapesOptions = {}): Map<string, ValueType> {
  return new Inference(graph).run(options.inputShapes ?? {});
}

/**
 * Elements of the small integer and bool tensors of the main graph that follow from the file and the input sizes alone,
 * by value, in row-major order: shapes, indices, conditions.
 * @throws ScrimError as {@link inferShapes}
 */
export function inferValues(
  graph: Graph,
  options: InferShapesOptions = {},
): Map<string, ValueType & { readonly elements: readonly number[] }> {
  const found = new Map<string, ValueType & { readonly elements: readonly number[] }>();
  for (const [name, { dtype, shape, elements }] of inferSizes(graph, options)) {
    if (!elements.every((element) => typeof element === 'number')) continue;
    found.set(name, { dtype, shape, elements: elements as readonly number[] });
  }
  return found;
}

/**
 * The same with elements that follow from the inputs' sizes, whatever those are: a symbol or an expression, as in a shape.
 * @throws ScrimError as {@link inferShapes}
 */
export function inferSizes(
  graph: Graph,
  options: InferShapesOptions = {},
): Map<string, ValueType & { readonly elements: readonly Dimension[] }> {
  const found = new Map<string, ValueType & { readonly elements: readonly Dimension[] }>();
  for (const [name, { dtype, shape, value }] of new Inference(graph).infer(options.inputShapes ?? {})) {
    if (dtype !== 'int64' && dtype !== 'int32' && dtype !== 'bool') continue;
    if (!shape || !isStatic(shape) || !value?.every((element) => element !== '')) continue;
    found.set(name, { dtype, shape, elements: value });
  }
  return found;
}

/** What is known of each value, by name; a body sees the values around it. */
class Scope {
  readonly own = new Map<string, InferredType>();
  constructor(readonly outer?: Scope) {}

  get(name: string): InferredType | undefined {
    return this.own.get(name) ?? this.outer?.get(name);
  }

  set(name: string, type: InferredType): void {
    this.own.set(name, type);
  }
}

class Inference {
  readonly #graph: Graph;
  readonly #dims: DimensionAlgebra = new DimensionAlgebra();
  readonly #bindings = new Map<string, number>();
  readonly #functions: ReadonlyMap<string, FunctionProto>;
  #budget = MAX_INNER_NODES;

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#functions = new Map(
      graph.model.functions.map((body) => [`${body.domain}:${body.name}:${body.overload}`, body]),
    );
  }

  run(inputShapes: Readonly<Record<string, readonly number[]>>): Map<string, ValueType> {
    const result = new Map<string, ValueType>();
    for (const [name, { dtype, shape }] of this.infer(inputShapes)) {
      if (dtype !== undefined) result.set(name, { dtype, shape });
    }
    return result;
  }

  infer(inputShapes: Readonly<Record<string, readonly number[]>>): ReadonlyMap<string, InferredType> {
    const { proto } = this.#graph;
    this.#bind(inputShapes);
    const scope = new Scope();
    this.#note(proto);
    this.#enter(proto, scope);
    for (const [name, shape] of Object.entries(inputShapes)) {
      scope.set(name, { dtype: scope.get(name)?.dtype, shape });
    }
    this.#walk(this.#graph.nodes(), declaredTypes(proto), this.#graph.opset, scope, 0);
    return scope.own;
  }

  /** Learns what the given input sizes say about declared symbols. */
  #bind(inputShapes: Readonly<Record<string, readonly number[]>>): void {
    for (const [name, shape] of Object.entries(inputShapes)) {
      const refuse = (reason: string): never => {
        throw new ScrimError('INVALID_ARGUMENT', `inputShapes: '${name}' [${shape.join(', ')}] ${reason}`);
      };
      if (!this.#graph.isInput(name)) refuse(`is no input; inputs are ${this.#graph.inputNames.join(', ')}`);
      const declared = this.#graph.declaredType(name)?.shape;
      if (declared && declared.length !== shape.length) {
        refuse(`has ${shape.length} dimensions, the model declares [${declared.join(', ')}]`);
      }
      for (const [i, size] of shape.entries()) {
        if (!Number.isSafeInteger(size) || size < 0) refuse('has a dimension that is no integer ≥ 0');
        const symbol = this.#dims.declare(declared?.[i] ?? '');
        if (symbol === '') continue;
        const known = typeof symbol === 'number' ? symbol : this.#bindings.get(symbol);
        if (known !== undefined && known !== size) refuse(`has ${size} where the model has ${symbol} = ${known}`);
        if (typeof symbol === 'string') this.#bindings.set(symbol, size);
      }
    }
  }

  /** Notes the dimension names a graph and its subgraphs declare, so that no computed size can take one. */
  #note(graph: GraphProto): void {
    for (const info of [...graph.input, ...graph.output, ...graph.valueInfo]) {
      for (const dimension of readValueInfo(info)?.shape ?? []) this.#dims.declare(dimension);
    }
    for (const { attribute } of graph.node) {
      for (const { g, graphs } of attribute) {
        if (g) this.#note(g);
        for (const inner of graphs) this.#note(inner);
      }
    }
  }

  /** Inputs and initializers of a graph. */
  #enter(graph: GraphProto, scope: Scope): void {
    for (const info of graph.input) scope.set(info.name, this.#declared(info));
    for (const tensor of graph.initializer) scope.set(tensor.name, storedType(tensor));
    for (const { values, dims } of graph.sparseInitializer) {
      if (values) scope.set(values.name, { dtype: dataTypeFromCode(values.dataType), shape: dims.map(Number) });
    }
  }

  #declared(info: ValueInfoProto | undefined): InferredType {
    const type = info && readValueInfo(info);
    if (!type) return UNKNOWN;
    if (type.shape && type.shape.length > MAX_RANK) return { dtype: type.dtype, shape: undefined };
    return { dtype: type.dtype, shape: type.shape?.map((dimension) => this.#resolve(dimension)) };
  }

  #resolve(dimension: Dimension): Dimension {
    const declared = this.#dims.declare(dimension);
    return typeof declared === 'string' ? (this.#bindings.get(declared) ?? declared) : declared;
  }

  #walk(
    nodes: readonly NodeProto[],
    declared: ReadonlyMap<string, ValueInfoProto>,
    opset: number,
    scope: Scope,
    depth: number,
  ): void {
    for (const node of nodes) {
      const inputs = node.input.map((name) => (name === '' ? undefined : (scope.get(name) ?? UNKNOWN)));
      const apply = depth === 0 || --this.#budget > 0;
      const types = apply ? this.#apply(new ShapeNode(node, opset, this.#dims, inputs), scope, depth) : [];
      node.output.forEach((name, i) => {
        if (name === '') return;
        scope.set(name, this.#merge(plausible(types[i] ?? UNKNOWN), this.#declared(declared.get(name))));
      });
    }
  }

  #apply(node: ShapeNode, scope: Scope, depth: number): readonly InferredType[] {
    const { proto } = node;
    const body = this.#functions.get(`${proto.domain}:${proto.opType}:${proto.overload}`);
    if (body) return depth < MAX_NESTING ? this.#call(node, body, depth) : [];
    const rule = ruleOf(proto);
    if (rule) return rule(node);
    const control = isStandard(proto) ? CONTROL_FLOW[proto.opType] : undefined;
    if (!control || depth >= MAX_NESTING) return [];
    const infer: SubgraphInference = (graph, inputs) => {
      if (this.#budget <= 0) return [];
      this.#budget -= graph.initializer.length + graph.input.length;
      const inner = new Scope(scope);
      this.#enter(graph, inner);
      graph.input.forEach(({ name }, i) => {
        const given = inputs[i];
        if (given) inner.set(name, this.#merge(given, inner.get(name) ?? UNKNOWN));
      });
      this.#walk(graph.node, declaredTypes(graph), node.opset, inner, depth + 1);
      return graph.output.map((info) => this.#merge(inner.get(info.name) ?? UNKNOWN, this.#declared(info)));
    };
    return control(node, infer);
  }

  /** Infers the body of a model-local function with the caller's types and attributes. */
  #call(node: ShapeNode, body: FunctionProto, depth: number): InferredType[] {
    const given = new Map([...body.attributeProto, ...node.proto.attribute].map((each) => [each.name, each]));
    const scope = new Scope();
    body.input.forEach((name, i) => {
      const input = node.inputs[i];
      if (input) scope.set(name, input);
    });
    const nodes = body.node.map((inner): NodeProto => {
      if (!inner.attribute.some(({ refAttrName }) => refAttrName !== '')) return inner;
      const attribute = inner.attribute.flatMap((each) => {
        if (each.refAttrName === '') return [each];
        const value = given.get(each.refAttrName);
        return value ? [Object.assign(clone(AttributeProtoSchema, value), { name: each.name })] : [];
      });
      return Object.assign(clone(NodeProtoSchema, inner), { attribute });
    });
    const opset = body.opsetImport.find(({ domain }) => domain === '' || domain === 'ai.onnx')?.version;
    this.#walk(nodes, new Map(), opset === undefined ? node.opset : Number(opset), scope, depth + 1);
    return body.output.map((name) => scope.get(name) ?? UNKNOWN);
  }

  /** Fills what the rule left open from the declaration, unless they contradict each other. */
  #merge(inferred: InferredType, declared: InferredType): InferredType {
    const dtype = inferred.dtype ?? declared.dtype;
    const shape = this.#mergeShapes(inferred.shape, declared.shape);
    return { dtype, shape, value: inferred.value };
  }

  #mergeShapes(inferred: Shape | undefined, declared: Shape | undefined): Shape | undefined {
    if (!inferred) return declared;
    if (declared?.length !== inferred.length) return inferred;
    const merged: Dimension[] = [];
    for (const [i, dimension] of inferred.entries()) {
      const one = this.#dims.unify(dimension, declared[i] ?? '');
      if (one === undefined) return inferred;
      merged.push(one);
    }
    return merged;
  }
}

/** Sizes that come from values in the file can be anything; what is no size is unknown. */
function plausible(type: InferredType): InferredType {
  const { shape } = type;
  if (!shape) return type;
  if (shape.length > MAX_RANK) return { dtype: type.dtype, shape: undefined };
  const isSize = (dimension: Dimension): boolean =>
    typeof dimension === 'string' || (Number.isSafeInteger(dimension) && dimension >= 0);
  if (shape.every(isSize)) return type;
  return { dtype: type.dtype, shape: shape.map((dimension) => (isSize(dimension) ? dimension : '')) };
}

function ruleOf(node: NodeProto): ShapeRule | undefined {
  if (isStandard(node)) return RULES.get(node.opType);
  if (node.domain === 'ai.onnx.ml') return TABLE_RULES.get(node.opType);
  return node.domain === 'com.microsoft' ? MICROSOFT_RULES.get(node.opType) : undefined;
}

function declaredTypes(graph: GraphProto): ReadonlyMap<string, ValueInfoProto> {
  return new Map([...graph.output, ...graph.valueInfo].map((info) => [info.name, info]));
}
