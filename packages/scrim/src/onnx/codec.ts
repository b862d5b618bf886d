/**
 * ONNX files: bytes to `ModelProto` and back.
 *
 * The messages are protobuf-es classes generated from the ONNX schema (proto/onnx.proto, IR version 13), so unknown
 * fields, functions, training information and subgraphs survive a round trip. Before anything is allocated the bytes
 * are walked once against the schema with limits on size, nesting and counts (`scan`), which also turns every
 * malformed file into INVALID_MODEL. Tensors kept outside the file are brought in by `attachExternalData`.
 */
import { create, type DescMessage, fromBinary, toBinary } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import { BYTES_PER_ELEMENT, sizeOf } from '../tensor.js';
import {
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  type SparseTensorProto,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
} from './gen/onnx_pb.js';
import { dataTypeFromCode, dimsOf, tensorFromProto } from './tensor-proto.js';

/** Limits that hold before and while a model is decoded. */
export interface ModelLimits {
  /** Size of the file in bytes. Default 2 GiB − 1, protobuf's own limit. */
  readonly maxBytes?: number;
  /** Nesting of messages; each level of subgraph takes three. Default 64. */
  readonly maxDepth?: number;
  /** Messages in all: nodes, attributes, tensors, types and so on. Default 4,000,000. */
  readonly maxMessages?: number;
}

const DEFAULT_LIMITS: Required<ModelLimits> = { maxBytes: 2 ** 31 - 1, maxDepth: 64, maxMessages: 4_000_000 };

/**
 * Decodes an ONNX file. Byte fields of the result are views of `bytes`, which must not be changed afterwards.
 * @throws ScrimError INVALID_MODEL for anything that is not a well-formed model with a graph, LIMIT_EXCEEDED above a
 * limit.
 */
export function decodeModel(bytes: Uint8Array, limits: ModelLimits = {}): ModelProto {
  const { maxBytes, maxDepth, maxMessages } = { ...DEFAULT_LIMITS, ...limits };
  if (bytes.length > maxBytes) {
    throw new ScrimError('LIMIT_EXCEEDED', `the model has ${bytes.length} bytes, above the limit of ${maxBytes}`);
  }
  if (bytes.length === 0) throw new ScrimError('INVALID_MODEL', 'the model is empty (0 bytes)');
  const budget = { messages: maxMessages };
  scan(new Cursor(bytes), bytes.length, ModelProtoSchema, maxDepth, budget);
  let model: ModelProto;
  try {
    model = fromBinary(ModelProtoSchema, bytes);
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_MODEL', 'not an ONNX model');
  }
  if (!model.graph) throw new ScrimError('INVALID_MODEL', 'not an ONNX model: it has no graph');
  if (model.graph.node.length === 0 && model.graph.output.length === 0) {
    throw new ScrimError('INVALID_MODEL', 'not an ONNX model: its graph has neither nodes nor outputs');
  }
  return model;
}

/**
 * Encodes a model.
 * @throws ScrimError LIMIT_EXCEEDED if the file would pass protobuf's 2 GiB; use `detachExternalData` then.
 */
export function encodeModel(model: ModelProto): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = toBinary(ModelProtoSchema, model);
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_MODEL', 'the model can not be encoded');
  }
  if (bytes.length > DEFAULT_LIMITS.maxBytes) {
    throw new ScrimError('LIMIT_EXCEEDED', `the model has ${bytes.length} bytes, above protobuf's limit of 2 GiB`);
  }
  return bytes;
}

/** Gives the bytes of an external data file by its `location`, a path relative to the model's folder. */
export type ExternalDataReader = (location: string) => Uint8Array;

/**
 * Replaces every external tensor by its bytes, in place.
 * @throws ScrimError INVALID_MODEL for a location that leaves the model's folder or a range outside the file.
 */
export function attachExternalData(model: ModelProto, read: ExternalDataReader): void {
  const files = new Map<string, Uint8Array>();
  for (const tensor of tensorsOf(model)) {
    if (tensor.dataLocation !== TensorProto_DataLocation.EXTERNAL) continue;
    const entries = new Map(tensor.externalData.map((entry) => [entry.key, entry.value]));
    const location = entries.get('location') ?? '';
    assertLocation(location, tensor.name);
    let file = files.get(location);
    if (!file) {
      file = read(location);
      files.set(location, file);
    }
    const offset = Number(entries.get('offset') ?? 0);
    const dtype = dataTypeFromCode(tensor.dataType);
    const stated = Number(entries.get('length') ?? Number.NaN);
    // Element types without an array here (4 and 8 bits) pass through as the bytes the file states.
    const expected = dtype ? sizeOf(dimsOf(tensor)) * BYTES_PER_ELEMENT[dtype] : stated;
    const length = Number.isNaN(stated) ? expected : stated;
    const isRange = [offset, length].every((value) => Number.isSafeInteger(value) && value >= 0);
    if (!isRange || length !== expected || offset + length > file.length || dtype === 'string') {
      throw new ScrimError(
        'INVALID_MODEL',
        `external tensor '${tensor.name}' asks for ${length} bytes at ${offset} of '${location}' (${file.length} bytes), ` +
          `its shape for ${expected}`,
      );
    }
    tensor.rawData = file.subarray(offset, offset + length);
    tensor.externalData = [];
    tensor.dataLocation = TensorProto_DataLocation.DEFAULT;
  }
}

/**
 * Moves the bytes of every tensor of at least `minBytes` into one external file, in place, and returns that file.
 * Offsets are multiples of 4096 so that a runtime can map the file.
 */
export function detachExternalData(model: ModelProto, location: string, minBytes = 1024): Uint8Array {
  assertLocation(location, '(all)');
  const parts: { tensor: TensorProto; offset: number; bytes: Uint8Array }[] = [];
  let end = 0;
  for (const tensor of tensorsOf(model)) {
    const dtype = dataTypeFromCode(tensor.dataType);
    if (tensor.dataLocation === TensorProto_DataLocation.EXTERNAL || !dtype || dtype === 'string') continue;
    const { data } = tensorFromProto(tensor);
    if (Array.isArray(data) || data.byteLength < minBytes) continue;
    const offset = Math.ceil(end / 4096) * 4096;
    parts.push({ tensor, offset, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) });
    end = offset + data.byteLength;
  }
  const file = new Uint8Array(end);
  for (const { tensor, offset, bytes } of parts) {
    file.set(bytes, offset);
    tensor.rawData = new Uint8Array(0);
    tensor.floatData = [];
    tensor.int32Data = [];
    tensor.int64Data = [];
    tensor.doubleData = [];
    tensor.uint64Data = [];
    tensor.externalData = [
      ['location', location],
      ['offset', String(offset)],
      ['length', String(bytes.length)],
    ].map(([key, value]) => create(StringStringEntryProtoSchema, { key: key ?? '', value: value ?? '' }));
    tensor.dataLocation = TensorProto_DataLocation.EXTERNAL;
  }
  return file;
}

/** True if some tensor of the model is kept outside the file. */
export function hasExternalData(model: ModelProto): boolean {
  for (const tensor of tensorsOf(model)) {
    if (tensor.dataLocation === TensorProto_DataLocation.EXTERNAL) return true;
  }
  return false;
}

function assertLocation(location: string, tensor: string): void {
  const parts = location.split(/[\\/]/);
  if (location === '' || location.includes('\0') || /^([\\/]|[a-zA-Z]:)/.test(location) || parts.includes('..')) {
    throw new ScrimError(
      'INVALID_MODEL',
      `external tensor '${tensor}' has location '${location}', expected a path inside the model's folder`,
    );
  }
}

function* tensorsOf(model: ModelProto): Generator<TensorProto> {
  if (model.graph) yield* graphTensors(model.graph);
  for (const { node } of model.functions) yield* nodeTensors(node);
  for (const { initialization, algorithm } of model.trainingInfo) {
    if (initialization) yield* graphTensors(initialization);
    if (algorithm) yield* graphTensors(algorithm);
  }
}

function* graphTensors(graph: GraphProto): Generator<TensorProto> {
  yield* graph.initializer;
  for (const sparse of graph.sparseInitializer) yield* sparseTensors(sparse);
  yield* nodeTensors(graph.node);
}

function* nodeTensors(nodes: readonly NodeProto[]): Generator<TensorProto> {
  for (const node of nodes) {
    for (const attribute of node.attribute) {
      if (attribute.t) yield attribute.t;
      yield* attribute.tensors;
      if (attribute.sparseTensor) yield* sparseTensors(attribute.sparseTensor);
      for (const sparse of attribute.sparseTensors) yield* sparseTensors(sparse);
      if (attribute.g) yield* graphTensors(attribute.g);
      for (const subgraph of attribute.graphs) yield* graphTensors(subgraph);
    }
  }
}

function* sparseTensors({ values, indices }: SparseTensorProto): Generator<TensorProto> {
  if (values) yield values;
  if (indices) yield indices;
}

// --- the walk before decoding -------------------------------------------------------------------------------------

class Cursor {
  position = 0;
  constructor(readonly bytes: Uint8Array) {}

  /** Reads a varint of at most 64 bits as a number; values above 2^53 only ever stand for lengths that are refused. */
  varint(end: number): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      if (this.position >= end) throw malformed(this.position, 'a number is cut off');
      const byte = this.bytes[this.position++] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
    throw malformed(this.position, 'a number is longer than 10 bytes');
  }
}

function malformed(position: number, reason: string): ScrimError {
  return new ScrimError('INVALID_MODEL', `not an ONNX model: ${reason} at byte ${position}`, {
    details: { position },
  });
}

function scan(cursor: Cursor, end: number, schema: DescMessage, depth: number, budget: { messages: number }): void {
  if (depth <= 0) throw new ScrimError('LIMIT_EXCEEDED', 'the model is nested deeper than the limit allows');
  if (--budget.messages < 0)
    throw new ScrimError('LIMIT_EXCEEDED', 'the model has more messages than the limit allows');
  const fields = fieldsOf(schema);
  while (cursor.position < end) {
    const at = cursor.position;
    const tag = cursor.varint(end);
    const number = Math.floor(tag / 8);
    if (number < 1 || number > 536_870_911) throw malformed(at, `field number ${number}`);
    switch (tag % 8) {
      case 0:
        cursor.varint(end);
        break;
      case 1:
        cursor.position += 8;
        break;
      case 2: {
        const length = cursor.varint(end);
        const stop = cursor.position + length;
        if (stop > end) throw malformed(at, `a field of ${length} bytes runs past its message`);
        const child = fields.get(number);
        if (child) scan(cursor, stop, child, depth - 1, budget);
        cursor.position = stop;
        break;
      }
      case 5:
        cursor.position += 4;
        break;
      default:
        throw malformed(at, `wire type ${tag % 8}`);
    }
    if (cursor.position > end) throw malformed(at, 'a field is cut off');
  }
}

const messageFields = new WeakMap<DescMessage, Map<number, DescMessage>>();

function fieldsOf(schema: DescMessage): Map<number, DescMessage> {
  let fields = messageFields.get(schema);
  if (!fields) {
    fields = new Map();
    for (const field of schema.fields) if (field.message) fields.set(field.number, field.message);
    messageFields.set(schema, fields);
  }
  return fields;
}
