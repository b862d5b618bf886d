/**
 * Reads a TensorFlow.js graph model: the weights of its manifest (float16 and affine uint8/uint16 quantisation
 * undone) and its list of nodes. The format is that of tfjs-converter's `model.json` with binary shards, as its
 * `io/types.ts` describes it.
 *
 * Nothing is computed here: which node means what is left to the caller, such as faceboxes-import.ts.
 */
import { ScrimError } from '../errors.js';
import { halfToNumber, sizeOf, type Tensor, tensor } from '../tensor.js';

/** An attribute of a node: the wire's tagged union without the tags. */
export type TfjsAttribute = string | number | boolean | readonly number[] | readonly string[];

/** One node of the graph; control inputs (`^name`) and output numbers (`name:1`) are kept as they are written. */
export interface TfjsNode {
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly string[];
  /** Attributes that are numbers, text, booleans or lists of them; shapes, types and tensors are left out. */
  readonly attributes: ReadonlyMap<string, TfjsAttribute>;
}

/** A graph model: its nodes by name, in the file's order, and its weights by name. */
export interface TfjsModel {
  readonly nodes: ReadonlyMap<string, TfjsNode>;
  readonly weights: ReadonlyMap<string, Tensor<'float32' | 'int32' | 'bool'>>;
}

/** Limits of one model. */
export interface TfjsLimits {
  readonly maxJsonBytes: number;
  readonly maxNodes: number;
  readonly maxWeights: number;
  readonly maxWeightBytes: number;
}

const DEFAULT_LIMITS: TfjsLimits = {
  maxJsonBytes: 2 ** 26,
  maxNodes: 100_000,
  maxWeights: 100_000,
  maxWeightBytes: 2 ** 31,
};

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const fail = (message: string): ScrimError => new ScrimError('INVALID_DATA', `TensorFlow.js model: ${message}`);

/**
 * Reads `model.json` (its text) and its weights (all shards, joined in the manifest's order).
 * @throws ScrimError INVALID_DATA for malformed text or a manifest that the weights don't match; LIMIT_EXCEEDED above
 * the limits; UNSUPPORTED for layers models and element types without a meaning here.
 */
export function readTfjsModel(json: string, weights: Uint8Array, limits: Partial<TfjsLimits> = {}): TfjsModel {
  const bounds = { ...DEFAULT_LIMITS, ...limits };
  const root = record(parse(json, bounds), 'the file');
  const format = root.format;
  if (format !== undefined && format !== 'graph-model') {
    throw new ScrimError('UNSUPPORTED', 'TensorFlow.js model: its format is not graph-model');
  }
  return { nodes: readNodes(root, bounds), weights: readWeights(root.weightsManifest ?? null, weights, bounds) };
}

/**
 * Reads a weights manifest that stands alone (`*-weights_manifest.json`, its text) and its weights, as
 * {@link readTfjsModel} does for a whole model.
 * @throws ScrimError as {@link readTfjsModel}
 */
export function readTfjsWeights(
  json: string,
  weights: Uint8Array,
  limits: Partial<TfjsLimits> = {},
): TfjsModel['weights'] {
  const bounds = { ...DEFAULT_LIMITS, ...limits };
  return readWeights(parse(json, bounds), weights, bounds);
}

function parse(json: string, limits: TfjsLimits): Json {
  if (json.length > limits.maxJsonBytes) {
    throw new ScrimError('LIMIT_EXCEEDED', `TensorFlow.js model: its JSON is longer than ${limits.maxJsonBytes} bytes`);
  }
  try {
    return JSON.parse(json) as Json;
  } catch (error) {
    // The parser's own message may quote the file.
    throw new ScrimError('INVALID_DATA', 'TensorFlow.js model: its text is no JSON', { cause: error });
  }
}

function readNodes(root: { [key: string]: Json }, limits: TfjsLimits): Map<string, TfjsNode> {
  const list = array(record(root.modelTopology, 'modelTopology').node, 'modelTopology.node');
  if (list.length > limits.maxNodes) {
    throw new ScrimError('LIMIT_EXCEEDED', `TensorFlow.js model: ${list.length} nodes, at most ${limits.maxNodes}`);
  }
  const nodes = new Map<string, TfjsNode>();
  for (const item of list) {
    const node = record(item, 'a node');
    const name = text(node.name, 'the name of a node');
    if (nodes.has(name)) throw fail(`two nodes have the name ${shown(name)}`);
    const attributes = new Map<string, TfjsAttribute>();
    for (const [key, value] of Object.entries(record(node.attr ?? {}, `the attributes of ${shown(name)}`))) {
      const read = readAttribute(record(value, `an attribute of ${shown(name)}`));
      if (read !== undefined) attributes.set(key, read);
    }
    const inputs = array(node.input ?? [], `the inputs of ${shown(name)}`);
    nodes.set(name, {
      name,
      op: text(node.op, `the operator of ${shown(name)}`),
      inputs: inputs.map((input) => text(input, `an input of ${shown(name)}`)),
      attributes,
    });
  }
  return nodes;
}

/** Undoes the tagging `{ i: "3" }`, `{ s: base64 }`, `{ list: { i: [...] } }` of protobuf's JSON form. */
function readAttribute(value: { [key: string]: Json }): TfjsAttribute | undefined {
  if (value.i !== undefined) return number(value.i);
  if (value.f !== undefined) return number(value.f);
  if (value.b !== undefined) return value.b === true;
  if (value.s !== undefined) return base64Text(value.s);
  if (value.list !== undefined) {
    const list = record(value.list, 'a list attribute');
    if (list.i !== undefined) return array(list.i, 'a list attribute').map(number);
    if (list.f !== undefined) return array(list.f, 'a list attribute').map(number);
    if (list.s !== undefined) return array(list.s, 'a list attribute').map(base64Text);
    return [];
  }
  return undefined;
}

function readWeights(
  manifest: Json,
  bytes: Uint8Array,
  limits: TfjsLimits,
): Map<string, Tensor<'float32' | 'int32' | 'bool'>> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const weights = new Map<string, Tensor<'float32' | 'int32' | 'bool'>>();
  let at = 0;
  let total = 0;
  for (const group of array(manifest, 'weightsManifest')) {
    for (const item of array(record(group, 'a group of weights').weights, 'a group of weights')) {
      const entry = record(item, 'a weight');
      const name = text(entry.name, 'the name of a weight');
      if (weights.has(name)) throw fail(`two weights have the name ${shown(name)}`);
      if (weights.size >= limits.maxWeights) {
        throw new ScrimError('LIMIT_EXCEEDED', `TensorFlow.js model: more than ${limits.maxWeights} weights`);
      }
      const shape = array(entry.shape, `the shape of ${shown(name)}`).map(dimension);
      const size = sizeOf(shape);
      total += 4 * size;
      if (total > limits.maxWeightBytes) {
        throw new ScrimError('LIMIT_EXCEEDED', `TensorFlow.js model: weights above ${limits.maxWeightBytes} bytes`);
      }
      const decoder = decoderOf(entry, name);
      if (size * decoder.width > bytes.length - at) {
        throw fail(`the weights have ${bytes.length} bytes, which end within ${shown(name)}`);
      }
      weights.set(name, decoder.decode(view, at, shape, size));
      at += size * decoder.width;
    }
  }
  if (at !== bytes.length) throw fail(`the weights have ${bytes.length} bytes, the manifest describes ${at}`);
  return weights;
}

/** How a weight's bytes become numbers. */
interface Decoder {
  readonly width: number;
  readonly decode: (view: DataView, at: number, shape: number[], size: number) => Tensor<'float32' | 'int32' | 'bool'>;
}

function decoderOf(entry: { [key: string]: Json }, name: string): Decoder {
  const dtype = entry.dtype;
  if (entry.quantization !== undefined) {
    const quantization = record(entry.quantization, `the quantisation of ${shown(name)}`);
    const stored = quantization.dtype;
    if (dtype === 'float32' && stored === 'float16') {
      return floats(2, (view, at) => halfToNumber(view.getUint16(at, true)));
    }
    if ((dtype === 'float32' || dtype === 'int32') && (stored === 'uint8' || stored === 'uint16')) {
      const scale = number(quantization.scale ?? null);
      const min = number(quantization.min ?? null);
      const level = (view: DataView, at: number): number =>
        (stored === 'uint8' ? view.getUint8(at) : view.getUint16(at, true)) * scale + min;
      const width = stored === 'uint8' ? 1 : 2;
      return dtype === 'float32' ? floats(width, level) : integers(width, (view, at) => Math.round(level(view, at)));
    }
  } else {
    if (dtype === 'float32') return floats(4, (view, at) => view.getFloat32(at, true));
    if (dtype === 'int32') return integers(4, (view, at) => view.getInt32(at, true));
    if (dtype === 'bool') {
      return {
        width: 1,
        decode: (view, at, shape, size) => {
          const data = new Uint8Array(size);
          for (let i = 0; i < size; i++) data[i] = view.getUint8(at + i) === 0 ? 0 : 1;
          return tensor('bool', shape, data);
        },
      };
    }
  }
  throw new ScrimError('UNSUPPORTED', `TensorFlow.js model: the element type of ${shown(name)} is not read`);
}

function floats(width: number, read: (view: DataView, at: number) => number): Decoder {
  return {
    width,
    decode: (view, at, shape, size) => {
      const data = new Float32Array(size);
      for (let i = 0; i < size; i++) data[i] = read(view, at + i * width);
      return tensor('float32', shape, data);
    },
  };
}

function integers(width: number, read: (view: DataView, at: number) => number): Decoder {
  return {
    width,
    decode: (view, at, shape, size) => {
      const data = new Int32Array(size);
      for (let i = 0; i < size; i++) data[i] = read(view, at + i * width);
      return tensor('int32', shape, data);
    },
  };
}

function record(value: Json | undefined, what: string): { [key: string]: Json } {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fail(`${what} is no object`);
  return value;
}

function array(value: Json | undefined, what: string): Json[] {
  if (!Array.isArray(value)) throw fail(`${what} is no list`);
  return value;
}

function text(value: Json | undefined, what: string): string {
  if (typeof value !== 'string') throw fail(`${what} is no text`);
  return value;
}

/** Numbers come as numbers or, for 64-bit integers, as text. */
function number(value: Json): number {
  const result = typeof value === 'string' && value.length <= 32 && value.trim() !== '' ? Number(value) : value;
  if (typeof result !== 'number' || !Number.isFinite(result)) throw fail('a number is malformed');
  return result;
}

function dimension(value: Json): number {
  const result = number(value);
  if (!Number.isSafeInteger(result) || result < 0) throw fail('a dimension is no integer ≥ 0');
  return result;
}

function base64Text(value: Json): string {
  try {
    return atob(text(value, 'a text attribute'));
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_DATA', 'TensorFlow.js model: a text attribute is no base64');
  }
}

/** `name` as it may stand in a message. */
function shown(name: string): string {
  return `'${name.slice(0, 120).replace(/[^\x20-\x7e]/g, '?')}'`;
}
