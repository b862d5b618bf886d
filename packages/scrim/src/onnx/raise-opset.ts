/**
 * A graph of an older operator set, written in a newer one: what gradients, written once for the newer one, need.
 *
 * Between the sets 7 and 17 some operators took their settings from attributes to inputs, some changed what a default
 * means, and three got other names. Each such change has an entry below, from the operators' version histories
 * (onnx.ai/onnx/operators); all others mean the same in both sets. Bodies of If, Loop and Scan are raised with their
 * graph. A node that has the newer form already stays as it is, whatever set its file names.
 */
import { create } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import { int64, type Tensor, tensor } from '../tensor.js';
import {
  type Attributes,
  attribute,
  findAttribute,
  floatAttribute,
  floatsAttribute,
  intAttribute,
  intsAttribute,
  stringAttribute,
} from './attributes.js';
import { type NodeProto, NodeProtoSchema } from './gen/onnx_pb.js';
import { type Graph, irVersionFor } from './graph.js';
import { bodiesOf, isStandard } from './node-scope.js';
import { inferShapes } from './shape-inference.js';
import type { ValueType } from './value-info.js';

/** The operator set that {@link raiseOpset} writes. */
export const RAISED_OPSET = 17;

/** The oldest operator set it reads, which is the oldest that onnxruntime promises to run. */
const OLDEST_OPSET = 7;

/** What a change sees of its node's surroundings. */
interface Place {
  readonly types: ReadonlyMap<string, ValueType>;
  /** The constant that a value is, undefined if it is none. */
  valueOf(name: string): Tensor | undefined;
  /** True unless a value that the graph itself makes is known to be of no use to anything. */
  isRead(name: string): boolean;
  /** Adds a constant in front of the node and returns its name. */
  constant(value: Tensor): string;
  /** Adds a node in front of the node and returns its output. */
  before(opType: string, inputs: readonly string[], attributes?: Attributes): string;
  /** Adds a node behind the node that makes its output from what the node makes, which gets a name of its own. */
  after(opType: string, inputs: (made: string) => readonly string[]): void;
  /** @throws ScrimError UNSUPPORTED naming the node */
  refuse(reason: string): never;
}

/** Brings a node, in place, from the form it had before a set to the form it has since. */
type Change = (node: NodeProto, place: Place) => void;

/** Attribute `name`, if it is there, becomes input `at`. */
const intsToInput =
  (name: string, at: number): Change =>
  (node, place) => {
    const values = intsAttribute(node, name);
    if (values) setInput(node, at, place.constant(int64(values)));
    drop(node, name);
  };

/** Softmax, LogSoftmax and Hardmax took the axes from `axis` on as one; since 13 they take `axis` alone. */
const normaliseOneAxis: Change = (node, place) => {
  const x = node.input[0] ?? '';
  const shape = place.types.get(x)?.shape;
  const given = intAttribute(node, 'axis', 1);
  const axis = shape && given < 0 ? given + shape.length : given;
  if (shape?.slice(axis + 1).every((size) => size === 1)) return set(node, { axis });
  setInput(node, 0, place.before('Flatten', [x], { axis: given }));
  set(node, { axis: -1 });
  const like = place.before('Shape', [x]);
  place.after('Reshape', (made) => [made, like]);
};

/**
 * Upsample, and Resize of set 10, measure from the corner of the image, and take the pixel before where they enlarge and
 * the one after where they shrink, as onnxruntime does.
 */
const toResize: Change = (node, place) => {
  const scales = floatsAttribute(node, 'scales');
  const given = scales ? place.constant(tensor('float32', [scales.length], Float32Array.from(scales))) : node.input[1];
  const mode = stringAttribute(node, 'mode', 'nearest');
  const factors = scales ?? Array.from((place.valueOf(given ?? '')?.data ?? []) as Float32Array);
  const shrinks = factors.some((factor) => factor < 1);
  if (mode === 'nearest' && (factors.length === 0 || (shrinks && factors.some((factor) => factor > 1)))) {
    place.refuse(
      `its scales are ${factors.length === 0 ? 'no constant' : `[${factors.join(', ')}], below and above 1`}`,
    );
  }
  node.opType = 'Resize';
  node.input = [node.input[0] ?? '', '', given ?? ''];
  drop(node, 'scales');
  set(node, {
    mode: mode === 'bilinear' ? 'linear' : mode,
    coordinate_transformation_mode: 'asymmetric',
    nearest_mode: shrinks ? 'ceil' : 'floor',
  });
};

const slice: Change = (node, place) => {
  const starts = intsAttribute(node, 'starts');
  const ends = intsAttribute(node, 'ends');
  if (!starts || !ends) return;
  const axes = intsAttribute(node, 'axes') ?? starts.map((_, i) => i);
  node.input = [node.input[0] ?? '', ...[starts, ends, axes].map((values) => place.constant(int64(values)))];
  drop(node, 'starts', 'ends', 'axes');
};

const topK: Change = (node, place) => {
  const count = intAttribute(node, 'k');
  if (count !== undefined) setInput(node, 1, place.constant(int64([count])));
  drop(node, 'k');
};

const clip: Change = (node, place) => {
  (['min', 'max'] as const).forEach((name, i) => {
    if (findAttribute(node, name)) setInput(node, 1 + i, scalarLike(node, place, floatAttribute(node, name, 0)));
  });
  drop(node, 'min', 'max');
};

const pad: Change = (node, place) => {
  const pads = intsAttribute(node, 'pads');
  if (!pads) return;
  setInput(node, 1, place.constant(int64(pads)));
  if (findAttribute(node, 'value')) setInput(node, 2, scalarLike(node, place, floatAttribute(node, 'value', 0)));
  drop(node, 'pads', 'value');
};

const batchNormalization: Change = (node, place) => {
  if (intAttribute(node, 'spatial', 1) !== 1) place.refuse('spatial is 0');
  drop(node, 'spatial');
};

/** The mask, which few read and many files declare, had the element type of the input, and has been bool since 10. */
const dropout: Change = (node, place) => {
  const [, mask = ''] = node.output;
  if (mask === '') return;
  if (place.isRead(mask)) place.refuse('its mask is read');
  node.output = node.output.slice(0, 1);
};

/** Since 14 an answer to each further output is made in training only. */
const oneOutput: Change = (node) => {
  node.output = node.output.slice(0, 1);
};

/** Changes by operator of the default domain; `since` is the set whose form a change writes. */
const CHANGES: Readonly<Record<string, readonly { readonly since: number; readonly change: Change }[]>> = {
  BatchNormalization: [
    { since: 9, change: batchNormalization },
    { since: 14, change: oneOutput },
  ],
  Clip: [{ since: 11, change: clip }],
  Dropout: [
    { since: 10, change: dropout },
    { since: 12, change: (node) => drop(node, 'ratio') },
  ],
  Hardmax: [{ since: 13, change: normaliseOneAxis }],
  LogSoftmax: [{ since: 13, change: normaliseOneAxis }],
  Pad: [{ since: 11, change: pad }],
  ReduceSum: [{ since: 13, change: intsToInput('axes', 1) }],
  Resize: [{ since: 11, change: toResize }],
  RoiAlign: [
    {
      since: 16,
      change: (node) => set(node, { coordinate_transformation_mode: 'output_half_pixel' }),
    },
  ],
  Scan: [{ since: 9, change: (_, place) => place.refuse('its form of operator set 8') }],
  Scatter: [
    {
      since: 11,
      change: (node) => {
        node.opType = 'ScatterElements';
      },
    },
  ],
  Slice: [{ since: 10, change: slice }],
  Softmax: [{ since: 13, change: normaliseOneAxis }],
  Split: [{ since: 13, change: intsToInput('split', 1) }],
  Squeeze: [{ since: 13, change: intsToInput('axes', 1) }],
  TopK: [{ since: 10, change: topK }],
  Unsqueeze: [{ since: 13, change: intsToInput('axes', 1) }],
  Upsample: [{ since: 10, change: toResize }],
};

/**
 * Rewrites `graph`, in place, in operator set {@link RAISED_OPSET}; one of that set or a newer one stays as it is. Values
 * keep their names, and what they are, up to rounding.
 * @throws ScrimError UNSUPPORTED for a set older than 7, and naming a node whose old form has no newer one
 */
export function raiseOpset(graph: Graph): void {
  const from = graph.opset;
  if (from >= RAISED_OPSET) return;
  if (from < OLDEST_OPSET) {
    throw new ScrimError(
      'UNSUPPORTED',
      `the model has operator set ${from}, expected ${OLDEST_OPSET} or newer: onnx.version_converter raises it`,
    );
  }
  const { model, proto } = graph;
  const types = inferShapes(graph);
  const raise = (nodes: readonly NodeProto[], known: ReadonlyMap<string, ValueType>): NodeProto[] =>
    nodes.flatMap((node) => {
      for (const body of bodiesOf(node)) body.node = raise(body.node, new Map());
      return raiseNode(graph, node, from, known);
    });
  const nodes = raise(graph.nodes(), types);
  // In files this old initializers are listed as inputs, which in newer ones lets a caller replace them.
  proto.input = proto.input.filter(({ name }) => graph.isInput(name));
  const version = model.opsetImport.find(({ domain }) => domain === '' || domain === 'ai.onnx');
  if (version) version.version = BigInt(RAISED_OPSET);
  model.irVersion = BigInt(Math.max(Number(model.irVersion), irVersionFor(RAISED_OPSET)));
  graph.setNodes(nodes);
}

/** The node in its newer form, with the nodes it needs in front of it and behind. */
function raiseNode(graph: Graph, node: NodeProto, from: number, types: ReadonlyMap<string, ValueType>): NodeProto[] {
  if (!isStandard(node)) return [node];
  const front: NodeProto[] = [];
  const behind: NodeProto[] = [];
  const make = (opType: string, input: readonly string[], output: string, attributes: Attributes = {}): NodeProto => {
    const made = create(NodeProtoSchema, { name: graph.uniqueName(`raised/${opType}`), opType, input: [...input] });
    made.output = [output];
    set(made, attributes);
    return made;
  };
  const place: Place = {
    types,
    valueOf: (name) => graph.constant(name),
    isRead: (name) => !graph.has(name) || graph.isOutput(name) || graph.consumers(name).length > 0,
    constant: (value) => place.before('Constant', [], { value }),
    before: (opType, inputs, attributes) => {
      const output = graph.uniqueName(`raised/${opType}_out`);
      front.push(make(opType, inputs, output, attributes));
      return output;
    },
    after: (opType, inputs) => {
      const inner = graph.uniqueName(`raised/${node.opType}_out`);
      behind.push(make(opType, inputs(inner), node.output[0] ?? ''));
      node.output = [inner, ...node.output.slice(1)];
    },
    refuse: (reason) => {
      throw new ScrimError(
        'UNSUPPORTED',
        `node '${node.name}' (${node.opType}) can't be brought from operator set ${from} to ${RAISED_OPSET}: ${reason}`,
      );
    },
  };
  // An operator that a change renames has its last form then.
  for (const { since, change } of CHANGES[node.opType] ?? []) if (from < since) change(node, place);
  return [...front, node, ...behind];
}

/** A scalar of the element type of the node's first input. */
function scalarLike(node: NodeProto, place: Place, value: number): string {
  // Not known in bodies.
  const dtype = place.types.get(node.input[0] ?? '')?.dtype;
  if (dtype === 'float64') return place.constant(tensor(dtype, [], Float64Array.of(value)));
  const scalar = place.constant(tensor('float32', [], Float32Array.of(value)));
  return dtype === 'float32' ? scalar : place.before('CastLike', [scalar, node.input[0] ?? '']);
}

function setInput(node: NodeProto, at: number, name: string): void {
  while (node.input.length < at) node.input.push('');
  node.input[at] = name;
}

function set(node: NodeProto, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined) continue;
    drop(node, name);
    node.attribute.push(attribute(name, value));
  }
}

function drop(node: NodeProto, ...names: readonly string[]): void {
  node.attribute = node.attribute.filter(({ name }) => !names.includes(name));
}
