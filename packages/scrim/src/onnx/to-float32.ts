/**
 * A model in float32 throughout: what gradients, and noise that learns by them, can work with.
 *
 * Half precision becomes single. Inputs of other element types become float32 and are cast back inside, so that arrays of
 * numbers feed any model. Quantised arithmetic becomes the arithmetic it stands for: integer levels are carried as float32
 * and no longer rounded, weights are what their levels mean. Answers differ from the original's by its rounding.
 *   QuantizeLinear         clip(x/s + z) to the range of the integers
 *   DynamicQuantizeLinear  x/s with s from x's own range, and 0 for the zero point
 *   DequantizeLinear       (q − z)·s
 *   MatMulInteger, ConvInteger  MatMul and Conv of what zero points were taken from
 *   DynamicQuantizeLSTM    LSTM with the weights that the levels mean
 * Operators that only move elements, and sums, carry levels on; any other that reads them is refused. Branches, loops and
 * functions become single precision, too, but keep quantised arithmetic that lies whole within them.
 */
import { create } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import { type DataType, float32, halfToNumber, sizeOf, type Tensor, tensor } from '../tensor.js';
import { type Attributes, attribute, intAttribute } from './attributes.js';
import {
  type GraphProto,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  type ValueInfoProto,
} from './gen/onnx_pb.js';
import { Graph } from './graph.js';
import { bodiesOf, isStandard, usedBy } from './node-scope.js';
import { inferShapes } from './shape-inference.js';
import { dataTypeCode, dataTypeFromCode, tensorFromProto, tensorToProto } from './tensor-proto.js';
import { readValueInfo, type ValueType, valueInfo } from './value-info.js';

const HALVES: ReadonlySet<DataType | undefined> = new Set(['float16', 'bfloat16']);
const FLOAT32 = dataTypeCode('float32');

/** Attributes that hold the element type of what a node makes. */
const TYPE_ATTRIBUTES: ReadonlySet<string> = new Set(['to', 'dtype', 'output_datatype', 'output_dtype']);

/** Least and largest level by element type. */
const LEVELS: Partial<Record<DataType, readonly [number, number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-32_768, 32_767],
  uint16: [0, 65_535],
};

/** Operators whose outputs hold elements of their first input, or of all of them (Concat). */
const MOVERS: ReadonlySet<string> = new Set(
  'Concat DepthToSpace Expand Flatten Gather Identity MaxPool Reshape Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze'.split(
    ' ',
  ),
);

/**
 * A copy of `graph` in float32.
 * @throws ScrimError UNSUPPORTED naming a node that computes with quantised values and has no form here
 */
export function toFloat32(graph: Graph): Graph {
  const copy = graph.clone();
  widen(copy.proto);
  for (const { node, valueInfo: infos } of copy.model.functions) {
    widenInfos(infos);
    widenNodes(node);
  }
  const opened = openInputs(new Graph(copy.model));
  const dequantizer = new Dequantizer(opened);
  opened.setNodes(dequantizer.nodes());
  // What is declared of levels is that they are integers.
  for (const info of [...opened.proto.output, ...opened.proto.valueInfo]) {
    if (dequantizer.isLevels(info.name)) declareFloat32(info);
  }
  opened.prune();
  return opened;
}

/** Half precision of weights, attributes and declared types, in bodies too, becomes float32. */
function widen(proto: GraphProto): void {
  proto.initializer = proto.initializer.map(widenTensor);
  widenInfos([...proto.input, ...proto.output, ...proto.valueInfo]);
  widenNodes(proto.node);
}

function widenInfos(infos: readonly ValueInfoProto[]): void {
  for (const info of infos) if (HALVES.has(readValueInfo(info)?.dtype)) declareFloat32(info);
}

function widenNodes(nodes: readonly NodeProto[]): void {
  for (const each of nodes) {
    for (const setting of each.attribute) {
      if (setting.t) setting.t = widenTensor(setting.t);
      const isType = TYPE_ATTRIBUTES.has(setting.name);
      if (isType && HALVES.has(dataTypeFromCode(Number(setting.i)))) setting.i = BigInt(FLOAT32);
    }
    for (const body of bodiesOf(each)) widen(body);
  }
}

function declareFloat32(info: ValueInfoProto): void {
  const type = readValueInfo(info);
  if (type) Object.assign(info, { type: valueInfo(info.name, { ...type, dtype: 'float32' }).type });
}

function widenTensor(proto: TensorProto): TensorProto {
  const dtype = dataTypeFromCode(proto.dataType);
  if (!HALVES.has(dtype)) return proto;
  const value = tensorFromProto(proto);
  const read = dtype === 'float16' ? halfToNumber : fromBrain;
  return tensorToProto(float32(value.shape, Float32Array.from(value.data as Uint16Array, read)), proto.name);
}

function fromBrain(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0] as number;
}

/** Fed inputs that are no float32 become so, with a Cast behind each. */
function openInputs(graph: Graph): Graph {
  const { proto } = graph;
  const casts: NodeProto[] = [];
  for (const name of graph.inputNames) {
    const type = graph.declaredType(name);
    if (!type || type.dtype === 'float32' || type.dtype === 'string') continue;
    const inner = graph.uniqueName(`${name}_${type.dtype}`);
    readInstead(proto, name, inner);
    proto.input = proto.input.map((info) =>
      info.name === name ? valueInfo(name, { ...type, dtype: 'float32' }) : info,
    );
    casts.push(node(graph, 'Cast', [name], [inner], { to: dataTypeCode(type.dtype) }));
  }
  proto.node.unshift(...casts);
  return new Graph(graph.model);
}

/** Makes the nodes of a graph, and of the bodies in it, read `to` in place of `from`. */
function readInstead(proto: GraphProto, from: string, to: string): void {
  for (const each of proto.node) {
    each.input = each.input.map((name) => (name === from ? to : name));
    for (const body of bodiesOf(each)) readInstead(body, from, to);
  }
}

function node(
  graph: Graph,
  opType: string,
  input: readonly string[],
  output: readonly string[],
  attributes: Attributes = {},
): NodeProto {
  return create(NodeProtoSchema, {
    name: graph.uniqueName(`float/${opType}`),
    opType,
    input: [...input],
    output: [...output],
    attribute: Object.entries(attributes).flatMap(([name, value]) =>
      value === undefined ? [] : [attribute(name, value)],
    ),
  });
}

/** Those of com.microsoft, which onnxruntime's tools write for 16 bits, mean the same. */
function isQuantiser({ domain, opType }: NodeProto): boolean {
  return domain === 'com.microsoft' && (opType === 'QuantizeLinear' || opType === 'DequantizeLinear');
}

/** Rewrites the nodes of a graph, in order, and keeps account of which values are levels. */
class Dequantizer {
  readonly #graph: Graph;
  readonly #types: ReadonlyMap<string, ValueType>;
  /** Values that were integers and are float32 now. */
  readonly #levels = new Set<string>();
  /** Weights in place of values that their levels made. */
  readonly #folded = new Map<string, string>();
  #made: NodeProto[] = [];

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#types = inferShapes(graph);
  }

  nodes(): NodeProto[] {
    for (const each of this.#graph.nodes()) this.#rewrite(each);
    return this.#made;
  }

  /** True if the value was integers and is float32 in what {@link nodes} made. */
  isLevels(value: string): boolean {
    return this.#levels.has(value);
  }

  #rewrite(each: NodeProto): void {
    each.input = each.input.map((name) => this.#folded.get(name) ?? name);
    const [first = '', second = ''] = each.input;
    const [output = ''] = each.output;
    switch (isQuantiser(each) || isStandard(each) ? each.opType : '') {
      case 'QuantizeLinear':
        this.#quantize(each);
        return;
      case 'DynamicQuantizeLinear': {
        const [, scale = '', zero = ''] = each.output;
        const none = this.#scalar(0);
        const most = this.#add('Max', [this.#add('ReduceMax', [first], undefined, { keepdims: 0 }), none]);
        const least = this.#add('Min', [this.#add('ReduceMin', [first], undefined, { keepdims: 0 }), none]);
        // Where all of x is 0, anything but 0 will do.
        const range = this.#add('Max', [this.#add('Sub', [most, least]), this.#scalar(1e-20)]);
        this.#add('Div', [range, this.#scalar(255)], scale);
        this.#add('Div', [first, scale], output);
        this.#add('Constant', [], zero, { value: tensor('uint8', [], Uint8Array.of(0)) });
        this.#levels.add(output);
        return;
      }
      case 'DequantizeLinear': {
        if (this.#foldWeight(each)) return;
        const scale = this.#alongAxis(second, each);
        this.#add('Mul', [this.#centred(first, each.input[2], each), scale], output);
        return;
      }
      case 'MatMulInteger':
      case 'ConvInteger': {
        const zero = this.#graph.constant(each.input[3] ?? '');
        this.#expect(each, each.opType === 'MatMulInteger' || zero === undefined || zero.data.length === 1);
        const inputs = [this.#centred(first, each.input[2]), this.#centred(second, each.input[3])];
        const made = node(this.#graph, each.opType === 'MatMulInteger' ? 'MatMul' : 'Conv', inputs, [output]);
        made.attribute = each.attribute;
        this.#made.push(made);
        this.#levels.add(output);
        return;
      }
      case 'Cast':
        if (!this.#levels.has(first)) break;
        this.#expect(each, intAttribute(each, 'to') === FLOAT32);
        this.#add('Identity', [first], output);
        return;
      case 'Add':
      case 'Sub':
        if (!each.input.some((name) => this.#levels.has(name))) break;
        each.input = each.input.map((name) => this.#asFloat(name));
        this.#made.push(each);
        this.#levels.add(output);
        return;
    }
    if (each.domain === 'com.microsoft' && each.opType === 'DynamicQuantizeLSTM') {
      this.#lstm(each);
      return;
    }
    // What branches and loops read of the graph around them is in no list of inputs.
    if (usedBy(each).some((name) => this.#levels.has(name))) {
      const isJoin = each.opType === 'Concat';
      this.#expect(each, isStandard(each) && MOVERS.has(each.opType) && (isJoin || this.#levels.has(first)));
      if (isJoin) each.input = each.input.map((name) => this.#asFloat(name));
      for (const name of each.output) this.#levels.add(name);
    }
    this.#expect(each, !/^QLinear|^QGemm|^DynamicQuantize|IntegerToFloat$|NBits$/.test(each.opType));
    this.#made.push(each);
  }

  #quantize(each: NodeProto): void {
    const [x = '', scale = '', zero = ''] = each.input;
    const [output = ''] = each.output;
    const dtype = dataTypeFromCode(intAttribute(each, 'output_dtype', 0)) ?? this.#types.get(zero)?.dtype ?? 'uint8';
    const levels = LEVELS[dtype];
    this.#expect(each, levels !== undefined);
    const [low, high] = levels as readonly [number, number];
    const divided = this.#add('Div', [x, this.#alongAxis(scale, each)]);
    const moved = zero === '' ? divided : this.#add('Add', [divided, this.#alongAxis(this.#asFloat(zero), each)]);
    this.#add('Min', [this.#add('Max', [moved, this.#scalar(low)]), this.#scalar(high)], output);
    this.#levels.add(output);
  }

  /** Its weights lie as [directions, inputs, 4·hidden], with a scale and a zero point for each of the last or for all. */
  #lstm(each: NodeProto): void {
    const weights = [1, 2].map((at) => {
      const parts = [at, 8 + 2 * (at - 1), 9 + 2 * (at - 1)].map((i) => this.#graph.constant(each.input[i] ?? ''));
      const [levels, scale, zero] = parts;
      this.#expect(each, levels !== undefined && scale !== undefined && levels.shape.length === 3);
      const [directions = 0, from = 0, to = 0] = levels?.shape ?? [];
      const data = new Float32Array(directions * from * to);
      const pick = (of: Tensor | undefined, d: number, o: number): number => {
        const length = of?.data.length ?? 0;
        return length === 0 ? 0 : Number(of?.data[length === directions * to ? d * to + o : length === 1 ? 0 : d]);
      };
      for (let i = 0; i < data.length; i++) {
        const [d, row, o] = [Math.floor(i / (from * to)), Math.floor(i / to) % from, i % to];
        data[(d * to + o) * from + row] = (Number(levels?.data[i]) - pick(zero, d, o)) * pick(scale, d, o);
      }
      return this.#graph.addInitializer(`${each.input[at]}/float`, float32([directions, to, from], data));
    });
    const [x = '', , , ...rest] = each.input;
    const made = node(this.#graph, 'LSTM', [x, ...weights, ...rest.slice(0, 5)], each.output);
    made.attribute = each.attribute;
    this.#made.push(made);
  }

  #scalar(value: number): string {
    return this.#add('Constant', [], undefined, { value: tensor('float32', [], Float32Array.of(value)) });
  }

  /** Levels less their zero point. */
  #centred(value: string, zero = '', at?: NodeProto): string {
    const weight = this.#graph.constant(value);
    const point = zero === '' ? undefined : this.#graph.constant(zero);
    // Weights are folded, so that they can be trained.
    if (weight && (zero === '' || (point && point.data.length === 1))) {
      const offset = Number(point?.data[0] ?? 0);
      const data = Float32Array.from(weight.data as ArrayLike<number>, (level) => Number(level) - offset);
      return this.#graph.addInitializer(`${value}/float`, float32(weight.shape, data));
    }
    const levels = this.#asFloat(value);
    if (zero === '') return levels;
    const float = this.#asFloat(zero);
    return this.#add('Sub', [levels, at ? this.#alongAxis(float, at) : float]);
  }

  /** Makes an initializer of a weight that the node only scales, so that it can be trained. */
  #foldWeight(each: NodeProto): boolean {
    const [levels, scale, zero] = each.input.map((name) => this.#graph.constant(name));
    const [output = ''] = each.output;
    const isRead = this.#graph.consumers(output).every(({ input }) => input.includes(output));
    const blocks = intAttribute(each, 'block_size', 0);
    if (!levels || !scale || (each.input[2] && !zero) || !isRead || this.#graph.isOutput(output) || blocks > 0)
      return false;
    const given = intAttribute(each, 'axis', 1);
    const axis = given < 0 ? given + levels.shape.length : given;
    const inner = sizeOf(levels.shape.slice(axis + 1));
    const size = levels.shape[axis] ?? 1;
    const at = (of: Tensor, i: number): number =>
      Number(of.data[of.data.length === 1 ? 0 : Math.floor(i / inner) % size]);
    const data = Float32Array.from({ length: levels.data.length }, (_, i) => {
      return (Number(levels.data[i]) - (zero ? at(zero, i) : 0)) * at(scale, i);
    });
    this.#folded.set(output, this.#graph.addInitializer(`${output}/float`, float32(levels.shape, data)));
    return true;
  }

  /** Levels as they are; integers cast, or, where nodes round to them, as they were before. */
  #asFloat(value: string): string {
    if (this.#levels.has(value)) return value;
    const cast = this.#graph.producer(value);
    const rounding = cast?.opType === 'Cast' ? this.#graph.producer(cast.input[0] ?? '') : undefined;
    if (rounding?.opType === 'Floor' || rounding?.opType === 'Round') return rounding.input[0] ?? '';
    return this.#add('Cast', [value], undefined, { to: FLOAT32 });
  }

  /** A scale or zero point of one axis, in a shape that broadcasts along it. */
  #alongAxis(value: string, at: NodeProto): string {
    const constant = this.#graph.constant(value);
    const shape = constant?.shape ?? this.#types.get(value)?.shape ?? this.#shapeOfCast(value);
    if (shape && sizeOfKnown(shape) === 1) return value;
    const rank = this.#types.get(at.input[0] ?? '')?.shape?.length;
    this.#expect(at, rank !== undefined && shape?.length === 1 && intAttribute(at, 'block_size', 0) === 0);
    const given = intAttribute(at, 'axis', 1);
    const axis = given < 0 ? given + (rank as number) : given;
    const sizes = Array.from({ length: rank as number }, (_, i) => (i === axis ? -1 : 1));
    const target = this.#add('Constant', [], undefined, {
      value: tensor('int64', [sizes.length], BigInt64Array.from(sizes, BigInt)),
    });
    return this.#add('Reshape', [value, target]);
  }

  #shapeOfCast(value: string): ValueType['shape'] {
    const cast = this.#made.findLast(({ output }) => output[0] === value);
    const source = cast?.input[0] ?? '';
    return this.#graph.constant(source)?.shape ?? this.#types.get(source)?.shape;
  }

  #add(opType: string, input: readonly string[], output?: string, attributes: Attributes = {}): string {
    const name = output ?? this.#graph.uniqueName(`float/${opType}_out`);
    this.#made.push(node(this.#graph, opType, input, [name], attributes));
    return name;
  }

  #expect(each: NodeProto, holds: boolean): void {
    if (holds) return;
    throw new ScrimError(
      'UNSUPPORTED',
      `node '${each.name}' (${each.domain === '' ? '' : `${each.domain}.`}${each.opType}) computes with quantised values in a ` +
        'form that has no float32 counterpart here: quantise the model as QDQ, or take the one it was quantised from',
    );
  }
}

function sizeOfKnown(shape: NonNullable<ValueType['shape']>): number | undefined {
  return shape.every((size) => typeof size === 'number') ? sizeOf(shape as readonly number[]) : undefined;
}
