/**
 * A model's main graph with an index and safe edits.
 *
 * `Graph` owns a `ModelProto` and keeps three questions cheap: who makes a value, who uses it, what constant it is.
 * Edits go through its methods, which keep single assignment (each name made once), unique names and the index.
 * Values used inside subgraphs (If, Loop, Scan) count as used by the node that holds the subgraph.
 */
import { clone, create } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import type { DataType, Tensor } from '../tensor.js';
import { type Attributes, attribute, tensorAttribute } from './attributes.js';
import { decodeModel, encodeModel, type ModelLimits } from './codec.js';
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  type SparseTensorProto,
  StringStringEntryProtoSchema,
  type TensorProto,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from './gen/onnx_pb.js';
import { bodiesOf, capturedBy, innerNames, usedBy } from './node-scope.js';
import { dataTypeFromCode, dataTypeOf, tensorFromProto, tensorToProto } from './tensor-proto.js';
import { type Dimension, readValueInfo, type ValueType, valueInfo } from './value-info.js';

/** How {@link Graph.add} names what it makes. */
export interface AddOptions {
  /** Name of the node; default: made from the operator. */
  readonly name?: string;
  /** Names of the outputs, or how many to name; default 1. */
  readonly outputs?: number | readonly string[];
  /** Operator domain; default '' (ai.onnx). */
  readonly domain?: string;
}

/** Operator sets that {@link Graph.create} writes; older ones are read, and raised by raiseOpset where that is needed. */
export const OPSET_RANGE: { readonly min: number; readonly max: number } = { min: 11, max: 22 };

/** IR version written with each operator set, from the release table of the ONNX project. */
export function irVersionFor(opset: number): number {
  if (opset <= 11) return 6;
  if (opset <= 14) return 7;
  if (opset <= 18) return 8;
  if (opset <= 20) return 9;
  return 10;
}

/** The main graph of an ONNX model: index, queries and edits. */
export class Graph {
  readonly model: ModelProto;
  readonly #producers = new Map<string, NodeProto>();
  readonly #consumers = new Map<string, Set<NodeProto>>();
  readonly #initializers = new Map<string, TensorProto>();
  readonly #sparse = new Map<string, SparseTensorProto>();
  readonly #tensors = new WeakMap<TensorProto, Tensor>();
  /** Names of values, those inside subgraphs included; a node may be called like a value. */
  readonly #values = new Set<string>();
  /** The same and names of nodes: what a new name keeps clear of. */
  readonly #names = new Set<string>();
  #counter = 0;
  #order: NodeProto[] | undefined;

  /**
   * Indexes `model`, which is kept and edited in place.
   * @throws ScrimError INVALID_MODEL if a value is made twice, used without being made, or the graph has a cycle.
   */
  constructor(model: ModelProto) {
    this.model = model;
    if (!model.graph) throw new ScrimError('INVALID_MODEL', 'the model has no graph');
    this.#index();
    this.nodes();
  }

  /** Decodes bytes and indexes the model. @throws as {@link decodeModel} and the constructor. */
  static decode(bytes: Uint8Array, limits?: ModelLimits): Graph {
    return new Graph(decodeModel(bytes, limits));
  }

  /** An empty graph to build in. `opset` is the version of ai.onnx, 11 to 22; default 17. */
  static create(options: { readonly name?: string; readonly opset?: number } = {}): Graph {
    const opset = options.opset ?? 17;
    if (!Number.isInteger(opset) || opset < OPSET_RANGE.min || opset > OPSET_RANGE.max) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `opset is ${opset}, expected an integer from ${OPSET_RANGE.min} to ${OPSET_RANGE.max}`,
      );
    }
    return new Graph(
      create(ModelProtoSchema, {
        irVersion: BigInt(irVersionFor(opset)),
        producerName: 'scrim',
        opsetImport: [create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(opset) })],
        graph: create(GraphProtoSchema, { name: options.name ?? 'graph' }),
      }),
    );
  }

  /** Encodes the model with its nodes in topological order. */
  encode(): Uint8Array {
    this.proto.node = [...this.nodes()];
    return encodeModel(this.model);
  }

  /** A deep copy that can be edited on its own. */
  clone(): Graph {
    this.proto.node = [...this.nodes()];
    return new Graph(clone(ModelProtoSchema, this.model));
  }

  /** The message this graph indexes. Edit through the methods, else the index goes stale. */
  get proto(): GraphProto {
    return this.model.graph as GraphProto;
  }

  /** Version of the default operator set. */
  get opset(): number {
    const found = this.model.opsetImport.find(({ domain }) => domain === '' || domain === 'ai.onnx');
    return Number(found?.version ?? 1n);
  }

  /** The model's metadata properties by key. */
  get metadata(): ReadonlyMap<string, string> {
    return new Map(this.model.metadataProps.map(({ key, value }) => [key, value]));
  }

  /** Sets a metadata property of the model. */
  setMetadata(key: string, value: string): void {
    this.model.metadataProps = [
      ...this.model.metadataProps.filter((entry) => entry.key !== key),
      create(StringStringEntryProtoSchema, { key, value }),
    ];
  }

  /** Names of the graph inputs that are fed (initializers that are also listed as inputs are left out). */
  get inputNames(): string[] {
    return this.proto.input.map(({ name }) => name).filter((name) => !this.#isStored(name));
  }

  /** Names of the graph outputs. */
  get outputNames(): string[] {
    return this.proto.output.map(({ name }) => name);
  }

  /** The nodes in topological order: the order of the file where that is one, as the format asks. */
  nodes(): readonly NodeProto[] {
    this.#order ??= this.#sort();
    return this.#order;
  }

  /** The node that makes `value`; undefined for inputs and initializers. */
  producer(value: string): NodeProto | undefined {
    return this.#producers.get(value);
  }

  /** The nodes that use `value`, subgraphs included. */
  consumers(value: string): readonly NodeProto[] {
    return [...(this.#consumers.get(value) ?? [])];
  }

  /** True if `value` is fed from outside. */
  isInput(value: string): boolean {
    return !this.#isStored(value) && this.proto.input.some(({ name }) => name === value);
  }

  /** True if `value` is a graph output. */
  isOutput(value: string): boolean {
    return this.proto.output.some(({ name }) => name === value);
  }

  /** True if some input, initializer or node makes `value`. */
  has(value: string): boolean {
    return this.#producers.has(value) || this.#isStored(value) || this.isInput(value);
  }

  /** Names of all dense initializers. */
  get initializerNames(): string[] {
    return [...this.#initializers.keys()];
  }

  /** The initializer of that name. Treat its data as read-only. */
  initializer(value: string): Tensor | undefined {
    const proto = this.#initializers.get(value);
    if (!proto) return undefined;
    let tensor = this.#tensors.get(proto);
    if (!tensor) {
      tensor = tensorFromProto(proto);
      this.#tensors.set(proto, tensor);
    }
    return tensor;
  }

  /** The constant `value` is: an initializer or the output of a Constant node; undefined if neither. */
  constant(value: string): Tensor | undefined {
    const initializer = this.initializer(value);
    if (initializer) return initializer;
    const node = this.#producers.get(value);
    if (node?.opType !== 'Constant') return undefined;
    const whole = tensorAttribute(node, 'value');
    if (whole) return whole;
    const [only] = node.attribute;
    if (only?.name === 'value_float') return { dtype: 'float32', shape: [], data: Float32Array.of(only.f) };
    if (only?.name === 'value_int') return { dtype: 'int64', shape: [], data: BigInt64Array.of(only.i) };
    if (only?.name === 'value_ints') {
      return { dtype: 'int64', shape: [only.ints.length], data: BigInt64Array.from(only.ints) };
    }
    if (only?.name === 'value_floats') {
      return { dtype: 'float32', shape: [only.floats.length], data: Float32Array.from(only.floats) };
    }
    return undefined;
  }

  /** Element type and shape the file declares for `value`, if it does. */
  declaredType(value: string): ValueType | undefined {
    const { input, output, valueInfo: inner } = this.proto;
    for (const list of [input, output, inner]) {
      const found = list.find(({ name }) => name === value);
      if (found) {
        const type = readValueInfo(found);
        if (type) return type;
      }
    }
    const initializer = this.#initializers.get(value);
    const sparse = this.#sparse.get(value);
    const dtype = dataTypeFromCode(initializer?.dataType ?? sparse?.values?.dataType ?? 0);
    return dtype && { dtype, shape: (initializer ?? sparse)?.dims.map(Number) };
  }

  /** A value or node name nobody uses yet, starting with `prefix`. */
  uniqueName(prefix: string): string {
    const name = this.#freeName(prefix);
    this.#reserve(name);
    return name;
  }

  #freeName(prefix: string): string {
    let name = prefix;
    while (name === '' || this.#names.has(name)) name = `${prefix}_${this.#counter++}`;
    return name;
  }

  /** Adds a graph input. `shape` holds numbers, names of symbolic dimensions, or '' for unknown. */
  addInput(name: string, dtype: DataType, shape: readonly Dimension[]): string {
    this.#claim(name);
    this.proto.input.push(valueInfo(name, { dtype, shape }));
    return name;
  }

  /** Makes an existing value a graph output with the given type. */
  addOutput(name: string, dtype: DataType, shape: readonly Dimension[] | undefined): string {
    if (!this.has(name)) throw new ScrimError('INVALID_ARGUMENT', `output '${name}' is made by no node`);
    if (this.isOutput(name)) throw new ScrimError('INVALID_ARGUMENT', `'${name}' is an output already`);
    this.proto.output.push(valueInfo(name, { dtype, shape }));
    return name;
  }

  /** Adds a constant and returns its name. The data is copied into the model. */
  addInitializer(name: string, value: Tensor): string {
    const unique = this.uniqueName(name);
    const proto = tensorToProto(value, unique);
    this.proto.initializer.push(proto);
    this.#initializers.set(unique, proto);
    return unique;
  }

  /** Replaces the value of an initializer. */
  setInitializer(name: string, value: Tensor): void {
    const index = this.proto.initializer.findIndex((proto) => proto.name === name);
    if (index < 0) throw new ScrimError('INVALID_ARGUMENT', `there is no initializer '${name}'`);
    const proto = tensorToProto(value, name);
    this.proto.initializer[index] = proto;
    this.#initializers.set(name, proto);
  }

  /** Turns an initializer into a graph input of the same name, element type and shape. */
  initializerToInput(name: string): void {
    const value = this.#initializers.get(name);
    if (!value) throw new ScrimError('INVALID_ARGUMENT', `there is no initializer '${name}'`);
    this.proto.initializer = this.proto.initializer.filter((proto) => proto.name !== name);
    this.#initializers.delete(name);
    if (!this.proto.input.some((proto) => proto.name === name)) {
      this.proto.input.push(valueInfo(name, { dtype: dataTypeOf(value), shape: value.dims.map(Number) }));
    }
  }

  /** Adds a node and returns its first output. An empty input name leaves an optional input out. */
  add(opType: string, inputs: readonly string[], attributes: Attributes = {}, options: AddOptions = {}): string {
    return this.addMany(opType, inputs, attributes, options)[0] as string;
  }

  /** Adds a node and returns all of its outputs. */
  addMany(opType: string, inputs: readonly string[], attributes: Attributes = {}, options: AddOptions = {}): string[] {
    for (const input of inputs) {
      if (input !== '' && !this.has(input)) {
        throw new ScrimError('INVALID_ARGUMENT', `input '${input}' of ${opType} is made by no node`);
      }
    }
    const name = this.#freeName(options.name ?? `${opType}_node`);
    this.#names.add(name);
    const { outputs = 1 } = options;
    const names =
      typeof outputs === 'number'
        ? Array.from({ length: outputs }, (_, i) =>
            this.uniqueName(outputs === 1 ? `${opType}_out` : `${opType}_out${i}`),
          )
        : outputs.map((output) => {
            if (output !== '') this.#claim(output);
            return output;
          });
    const node = create(NodeProtoSchema, {
      name,
      opType,
      domain: options.domain ?? '',
      input: [...inputs],
      output: names,
      attribute: Object.entries(attributes).flatMap(([key, value]) =>
        value === undefined ? [] : [attribute(key, value)],
      ),
    });
    this.proto.node.push(node);
    this.#indexNode(node);
    this.#order?.push(node);
    return names;
  }

  /** Replaces the list of nodes, in topological order or not. @throws ScrimError as the constructor */
  setNodes(nodes: readonly NodeProto[]): void {
    this.proto.node = [...nodes];
    this.#reindex();
    this.nodes();
  }

  /** Removes a node; its outputs must be unused. */
  removeNode(node: NodeProto): void {
    for (const output of node.output) {
      if (output !== '' && (this.#consumers.get(output)?.size || this.isOutput(output))) {
        throw new ScrimError('INVALID_ARGUMENT', `node '${node.name}' can't go: its output '${output}' is used`);
      }
    }
    this.proto.node = this.proto.node.filter((candidate) => candidate !== node);
    this.#reindex();
  }

  /** Makes every node that uses `from` use `to` instead. Subgraphs that capture `from` are refused. */
  replaceUses(from: string, to: string, except: readonly NodeProto[] = []): void {
    if (!this.has(to))
      throw new ScrimError('INVALID_ARGUMENT', `there is no value '${to}' to use instead of '${from}'`);
    const users = this.consumers(from).filter((node) => !except.includes(node));
    refuseCaptures(users, from);
    for (const node of users) node.input = node.input.map((name) => (name === from ? to : name));
    this.#reindex();
  }

  /** Makes one node read `to` as its input at `index`. */
  replaceInput(node: NodeProto, index: number, to: string): void {
    if (!this.has(to)) throw new ScrimError('INVALID_ARGUMENT', `there is no value '${to}' to read`);
    node.input = node.input.map((name, i) => (i === index ? to : name));
    this.#reindex();
  }

  /** Gives a value another name everywhere. Values captured by a subgraph are refused. */
  renameValue(from: string, to: string): void {
    if (from === to) return;
    if (!this.has(from)) throw new ScrimError('INVALID_ARGUMENT', `there is no value '${from}' to rename`);
    refuseCaptures(this.consumers(from), from);
    this.#claim(to);
    const swap = (name: string): string => (name === from ? to : name);
    const { proto } = this;
    for (const node of this.consumers(from)) node.input = node.input.map(swap);
    const producer = this.producer(from);
    if (producer) producer.output = producer.output.map(swap);
    for (const list of [proto.input, proto.output, proto.valueInfo, proto.initializer]) {
      for (const item of list) item.name = swap(item.name);
    }
    for (const { values } of proto.sparseInitializer) if (values) values.name = swap(values.name);
    for (const annotation of proto.quantizationAnnotation) {
      annotation.tensorName = swap(annotation.tensorName);
      for (const entry of annotation.quantParameterTensorNames) entry.value = swap(entry.value);
    }
    // The old name is free again, unless something inside a subgraph has it.
    this.#values.delete(from);
    this.#reindex();
  }

  /** Sets the outputs to the given values, in that order, keeping declared types where known. */
  setOutputs(names: readonly string[]): void {
    const outputs: ValueInfoProto[] = names.map((name) => {
      if (!this.has(name)) throw new ScrimError('INVALID_ARGUMENT', `output '${name}' is made by no node`);
      const known = [...this.proto.output, ...this.proto.valueInfo].find((value) => value.name === name);
      if (known) return known;
      const type = this.declaredType(name);
      // An output without a type is inferred by the runtime; a guessed one would be a contradiction.
      return type ? valueInfo(name, type) : create(ValueInfoProtoSchema, { name });
    });
    this.proto.output = outputs;
  }

  /** Sets the graph inputs to the given values, in that order. Values made by a node lose that node on `prune`. */
  setInputs(types: readonly { readonly name: string; readonly type: ValueType }[]): void {
    const names = new Set(types.map(({ name }) => name));
    this.proto.node = this.proto.node.map((node) => {
      if (!node.output.some((output) => names.has(output))) return node;
      // The node may still be needed for its other outputs: the ones that become inputs get a new name.
      const copy = clone(NodeProtoSchema, node);
      copy.output = node.output.map((output) => (names.has(output) ? this.uniqueName(`${output}_unused`) : output));
      return copy;
    });
    const { proto } = this;
    proto.initializer = proto.initializer.filter(({ name }) => !names.has(name));
    proto.sparseInitializer = proto.sparseInitializer.filter(({ values }) => !names.has(values?.name ?? ''));
    proto.input = types.map(({ name, type }) => valueInfo(name, type));
    this.#reindex();
  }

  /** Takes the graph input `name` away: it is a copy of `value` from now on, for all that read it. */
  bindInput(name: string, value: string): void {
    if (!this.isInput(name)) throw new ScrimError('INVALID_ARGUMENT', `'${name}' is no input`);
    if (!this.has(value)) throw new ScrimError('INVALID_ARGUMENT', `there is no value '${value}' to copy`);
    const { proto } = this;
    proto.input = proto.input.filter((input) => input.name !== name);
    const copy = { name: this.uniqueName(`${name}/bound`), opType: 'Identity', input: [value], output: [name] };
    this.setNodes([...proto.node, create(NodeProtoSchema, copy)]);
  }

  /** Removes nodes, initializers, declared types and inputs that no output needs (inputs only when asked). */
  prune(options: { readonly inputs?: boolean } = {}): void {
    // Not in the order of nodes(): after setInputs, what is to go may use values that nothing makes any more.
    const needed = new Set<string>(this.outputNames);
    const keep = new Set<NodeProto>();
    for (const value of needed) {
      const node = this.#producers.get(value);
      if (!node || keep.has(node)) continue;
      keep.add(node);
      for (const input of usedBy(node)) needed.add(input);
    }
    const { proto } = this;
    proto.quantizationAnnotation = proto.quantizationAnnotation.filter(({ tensorName }) => needed.has(tensorName));
    for (const { quantParameterTensorNames } of proto.quantizationAnnotation) {
      for (const { value } of quantParameterTensorNames) needed.add(value);
    }
    proto.node = proto.node.filter((node) => keep.has(node));
    proto.initializer = proto.initializer.filter(({ name }) => needed.has(name));
    proto.sparseInitializer = proto.sparseInitializer.filter(({ values }) => needed.has(values?.name ?? ''));
    const made = new Set(proto.node.flatMap(({ output }) => output));
    proto.valueInfo = proto.valueInfo.filter(({ name }) => made.has(name) && !this.isOutput(name));
    const constants = new Set(proto.initializer.map(({ name }) => name));
    proto.input = proto.input.filter(
      ({ name }) => needed.has(name) || (!options.inputs && !this.#isStored(name) && !constants.has(name)),
    );
    this.#reindex();
  }

  #claim(name: string): void {
    if (name === '' || this.#values.has(name)) {
      throw new ScrimError('INVALID_ARGUMENT', name === '' ? 'a value has no name' : `the name '${name}' is taken`);
    }
    this.#reserve(name);
  }

  #reindex(): void {
    this.#producers.clear();
    this.#consumers.clear();
    this.#initializers.clear();
    this.#sparse.clear();
    this.#order = undefined;
    this.#index();
  }

  #reserve(value: string): void {
    this.#values.add(value);
    this.#names.add(value);
  }

  #isStored(value: string): boolean {
    return this.#initializers.has(value) || this.#sparse.has(value);
  }

  #index(): void {
    const { proto } = this;
    const stored = (name: string): string => {
      if (this.#isStored(name)) throw new ScrimError('INVALID_MODEL', `the initializer '${name}' is there twice`);
      return name;
    };
    for (const tensor of proto.initializer) this.#initializers.set(stored(tensor.name), tensor);
    for (const tensor of proto.sparseInitializer) {
      if (tensor.values) this.#sparse.set(stored(tensor.values.name), tensor);
    }
    const inputs = new Set<string>();
    for (const { name } of proto.input) {
      if (inputs.has(name)) throw new ScrimError('INVALID_MODEL', `the input '${name}' is there twice`);
      inputs.add(name);
      this.#reserve(name);
    }
    for (const name of [...this.#initializers.keys(), ...this.#sparse.keys()]) this.#reserve(name);
    for (const node of proto.node) {
      this.#indexNode(node);
      for (const output of node.output) {
        if (inputs.has(output))
          throw new ScrimError('INVALID_MODEL', `'${output}' is an input and made by '${node.name}'`);
      }
    }
  }

  #indexNode(node: NodeProto): void {
    this.#names.add(node.name);
    for (const name of innerNames(node)) this.#reserve(name);
    for (const output of node.output) {
      if (output === '') continue;
      if (this.#producers.has(output) || this.#isStored(output)) {
        throw new ScrimError('INVALID_MODEL', `the value '${output}' is made twice (second by node '${node.name}')`);
      }
      this.#reserve(output);
      this.#producers.set(output, node);
    }
    for (const input of usedBy(node)) {
      let users = this.#consumers.get(input);
      if (!users) {
        users = new Set();
        this.#consumers.set(input, users);
      }
      users.add(node);
    }
  }

  /** Checks that everything used is made; Kahn's algorithm where the file is not in order already. */
  #sort(): NodeProto[] {
    const { node: nodes } = this.proto;
    const made = new Set<string>();
    let sorted = true;
    const waiting = new Map<NodeProto, number>();
    const ready: NodeProto[] = [];
    const order: NodeProto[] = [];
    const inputs = new Set(this.proto.input.map(({ name }) => name));
    for (const node of nodes) {
      const missing = new Set<NodeProto>();
      for (const input of usedBy(node)) {
        const producer = this.#producers.get(input);
        if (producer) {
          missing.add(producer);
          sorted &&= made.has(input);
        }
        if (!producer && !inputs.has(input) && !this.#isStored(input)) {
          throw new ScrimError(
            'INVALID_MODEL',
            `node '${node.name}' (${node.opType}) uses '${input}', which nothing makes`,
          );
        }
      }
      for (const output of node.output) made.add(output);
      if (missing.size === 0) ready.push(node);
      else waiting.set(node, missing.size);
    }
    for (const node of sorted ? [] : ready) {
      order.push(node);
      const users = new Set(node.output.flatMap((output) => [...(this.#consumers.get(output) ?? [])]));
      for (const user of users) {
        const left = (waiting.get(user) ?? 0) - 1;
        waiting.set(user, left);
        if (left === 0) ready.push(user);
      }
    }
    if (!sorted && order.length !== nodes.length) throw new ScrimError('INVALID_MODEL', 'the graph has a cycle');
    for (const { name } of this.proto.output) {
      if (!this.has(name)) throw new ScrimError('INVALID_MODEL', `the output '${name}' is made by no node`);
    }
    return sorted ? [...nodes] : order;
  }
}

/** Edits rewrite inputs of nodes, not the inside of their subgraphs. */
function refuseCaptures(nodes: readonly NodeProto[], value: string): void {
  for (const node of nodes) {
    if (bodiesOf(node).some((body) => capturedBy(body).includes(value))) {
      throw new ScrimError('UNSUPPORTED', `'${value}' is captured by a subgraph of node '${node.name}'`);
    }
  }
}
