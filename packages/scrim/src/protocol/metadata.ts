/**
 * What a server says about itself and its models: JSON and gRPC forms of metadata and readiness.
 *
 * Open Inference Protocol, "Server Metadata", "Model Metadata", "Health". Reading is for answers of foreign servers:
 * members no one asks for are ignored, optional ones may be missing or null.
 */
import { create } from '@bufbuild/protobuf';
import {
  type ModelMetadataResponse,
  ModelMetadataResponseSchema,
  type ServerMetadataResponse,
  ServerMetadataResponseSchema,
} from './gen/grpc_service_pb.js';
import { decodeJson, JsonFields, type JsonObject, type JsonValue } from './json-value.js';

/** Name, version and extensions of a server. */
export interface ServerMetadata {
  readonly name: string;
  readonly version: string;
  readonly extensions: readonly string[];
}

/** Name, element type and shape of a model's input or output; −1 is a dimension of variable size. */
export interface TensorMetadata {
  readonly name: string;
  /** The protocol's name, such as 'FP32'. Not checked, as a model may be listed that can't be called. */
  readonly datatype: string;
  readonly shape: readonly number[];
}

/** What a model takes and gives. */
export interface ModelMetadata {
  readonly name: string;
  /** Versions that can be asked for; empty where the server has none. */
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly TensorMetadata[];
  readonly outputs: readonly TensorMetadata[];
}

/** Body of `GET /v2`. */
export function serverMetadataToJson(metadata: ServerMetadata): JsonObject {
  return { name: metadata.name, version: metadata.version, extensions: [...metadata.extensions] };
}

/** @throws ScrimError INVALID_DATA naming the member that is wrong. */
export function serverMetadataFromJson(value: JsonValue): ServerMetadata {
  const fields = new JsonFields(value, 'the server metadata');
  return {
    name: fields.optionalString('name') ?? '',
    version: fields.optionalString('version') ?? '',
    extensions: fields.strings('extensions'),
  };
}

/** Message of ServerMetadata. */
export function serverMetadataToMessage(metadata: ServerMetadata): ServerMetadataResponse {
  return create(ServerMetadataResponseSchema, { ...metadata, extensions: [...metadata.extensions] });
}

/** The metadata in a message. */
export function serverMetadataFromMessage(message: ServerMetadataResponse): ServerMetadata {
  return { name: message.name, version: message.version, extensions: message.extensions };
}

/** Body of `GET /v2/models/M`. */
export function modelMetadataToJson(metadata: ModelMetadata): JsonObject {
  const tensors = (list: readonly TensorMetadata[]): JsonValue =>
    list.map(({ name, datatype, shape }) => ({ name, datatype, shape: [...shape] }));
  return {
    name: metadata.name,
    versions: [...metadata.versions],
    platform: metadata.platform,
    inputs: tensors(metadata.inputs),
    outputs: tensors(metadata.outputs),
  };
}

/** @throws ScrimError INVALID_DATA naming the member that is wrong. */
export function modelMetadataFromJson(value: JsonValue): ModelMetadata {
  const fields = new JsonFields(value, 'the model metadata');
  const tensor = (entry: JsonValue, what: string): TensorMetadata => {
    const member = new JsonFields(entry, what);
    return { name: member.string('name'), datatype: member.string('datatype'), shape: member.integers('shape') };
  };
  return {
    name: fields.string('name'),
    versions: fields.strings('versions'),
    platform: fields.optionalString('platform') ?? '',
    inputs: fields.list('inputs', tensor),
    outputs: fields.list('outputs', tensor),
  };
}

/** Message of ModelMetadata. */
export function modelMetadataToMessage(metadata: ModelMetadata): ModelMetadataResponse {
  const tensors = (list: readonly TensorMetadata[]): Array<{ name: string; datatype: string; shape: bigint[] }> =>
    list.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) }));
  return create(ModelMetadataResponseSchema, {
    name: metadata.name,
    versions: [...metadata.versions],
    platform: metadata.platform,
    inputs: tensors(metadata.inputs),
    outputs: tensors(metadata.outputs),
  });
}

/** The metadata in a message. */
export function modelMetadataFromMessage(message: ModelMetadataResponse): ModelMetadata {
  const tensors = (list: ModelMetadataResponse['inputs']): TensorMetadata[] =>
    list.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(Number) }));
  return {
    name: message.name,
    versions: message.versions,
    platform: message.platform,
    inputs: tensors(message.inputs),
    outputs: tensors(message.outputs),
  };
}

/**
 * Whether an answer to `…/ready` or `…/live` says yes: status 200, and no body that says otherwise. Triton sends no
 * body; the Open Inference Protocol has `{"ready": …}` and `{"live": …}`.
 */
export function readinessFromHttp(status: number, body: Uint8Array): boolean {
  if (status !== 200) return false;
  let value: JsonValue;
  try {
    value = decodeJson(body);
  } catch {
    return true;
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value !== false;
  const { ready, live } = value as JsonObject;
  return ready !== false && live !== false;
}
