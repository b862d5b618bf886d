/**
 * The model repository: index, load and unload. JSON and gRPC forms.
 *
 * Triton's model repository extension. Loading may bring a configuration (JSON text) and files (base64 in JSON, bytes
 * in gRPC) that replace those of the repository.
 */
import { create } from '@bufbuild/protobuf';
import { base64Decode, base64Encode } from '@bufbuild/protobuf/wire';
import { ScrimError } from '../errors.js';
import {
  ModelRepositoryParameterSchema,
  type RepositoryIndexResponse,
  RepositoryIndexResponseSchema,
  type RepositoryModelLoadRequest,
  RepositoryModelLoadRequestSchema,
  type RepositoryModelUnloadRequest,
  RepositoryModelUnloadRequestSchema,
} from './gen/grpc_service_pb.js';
import { clip } from './infer.js';
import { decodeJson, JsonFields, type JsonObject, type JsonValue } from './json-value.js';
import { DEFAULT_LIMITS, type Limits } from './limits.js';

/** One version of a model in the repository. */
export interface RepositoryEntry {
  readonly name: string;
  /** '' where no version was ever loaded. */
  readonly version: string;
  /** UNKNOWN, READY, UNAVAILABLE, LOADING or UNLOADING; '' where nothing is known. */
  readonly state: string;
  /** Why the model is in that state; '' for no reason given. */
  readonly reason: string;
}

/** What a request to load a model may bring. */
export interface LoadRequest {
  /** The configuration as JSON text. */
  readonly config?: string;
  /** Files by their path within the model's folder, such as '1/model.onnx'. */
  readonly files?: Readonly<Record<string, Uint8Array>>;
}

const CODE = 'INVALID_ARGUMENT';
const FILE_PREFIX = 'file:';

/** Body of the answer to `POST /v2/repository/index`. */
export function repositoryIndexToJson(entries: readonly RepositoryEntry[]): JsonValue {
  return entries.map(({ name, version, state, reason }) => ({
    name,
    ...(version === '' ? {} : { version }),
    ...(state === '' ? {} : { state }),
    ...(reason === '' ? {} : { reason }),
  }));
}

/** @throws ScrimError INVALID_DATA naming the member that is wrong. */
export function repositoryIndexFromJson(value: JsonValue): RepositoryEntry[] {
  return new JsonFields({ index: value }, 'the repository').list('index', (entry, what) => {
    const fields = new JsonFields(entry, what);
    return {
      name: fields.string('name'),
      version: fields.optionalString('version') ?? '',
      state: fields.optionalString('state') ?? '',
      reason: fields.optionalString('reason') ?? '',
    };
  });
}

/** Message of RepositoryIndex. */
export function repositoryIndexToMessage(entries: readonly RepositoryEntry[]): RepositoryIndexResponse {
  return create(RepositoryIndexResponseSchema, { models: [...entries] });
}

/** The entries in a message. */
export function repositoryIndexFromMessage(message: RepositoryIndexResponse): RepositoryEntry[] {
  return message.models.map(({ name, version, state, reason }) => ({ name, version, state, reason }));
}

/** Reads the body of `POST /v2/repository/index`, which may be empty. @throws ScrimError INVALID_ARGUMENT */
export function decodeIndexRequest(body: Uint8Array, limits: Limits = DEFAULT_LIMITS): { readonly ready: boolean } {
  const fields = optionalBody(body, 'the index request', limits);
  return { ready: fields.optionalBoolean('ready') ?? false };
}

/** Body of a request to load a model; {} loads it as it is in the repository. */
export function loadRequestToJson(request: LoadRequest): JsonObject {
  const parameters: Record<string, string> = {};
  if (request.config !== undefined) parameters.config = request.config;
  for (const [path, bytes] of Object.entries(request.files ?? {})) {
    parameters[`${FILE_PREFIX}${path}`] = base64Encode(bytes);
  }
  return Object.keys(parameters).length === 0 ? {} : { parameters };
}

/** Reads the body of a request to load a model, which may be empty. @throws ScrimError INVALID_ARGUMENT */
export function decodeLoadRequest(body: Uint8Array, limits: Limits = DEFAULT_LIMITS): LoadRequest {
  const parameters = optionalBody(body, 'the load request', limits).object('parameters');
  const files: Record<string, Uint8Array> = Object.create(null);
  let config: string | undefined;
  for (const name of parameters.keys) {
    const value = parameters.string(name);
    if (name === 'config') config = value;
    else files[filePath(name)] = decodeBase64(value, name);
  }
  return loadRequest(config, files);
}

/** Message of a request to load a model. */
export function loadRequestToMessage(modelName: string, request: LoadRequest): RepositoryModelLoadRequest {
  const message = create(RepositoryModelLoadRequestSchema, { modelName });
  if (request.config !== undefined) {
    message.parameters.config = parameter({ case: 'stringParam', value: request.config });
  }
  for (const [path, value] of Object.entries(request.files ?? {})) {
    message.parameters[`${FILE_PREFIX}${path}`] = parameter({ case: 'bytesParam', value });
  }
  return message;
}

/** The request in a message. @throws ScrimError INVALID_ARGUMENT for parameters of another name or kind. */
export function loadRequestFromMessage(message: RepositoryModelLoadRequest): LoadRequest {
  const files: Record<string, Uint8Array> = Object.create(null);
  let config: string | undefined;
  for (const [name, { parameterChoice }] of Object.entries(message.parameters)) {
    if (name === 'config' && parameterChoice.case === 'stringParam') config = parameterChoice.value;
    else if (name !== 'config' && parameterChoice.case === 'bytesParam') files[filePath(name)] = parameterChoice.value;
    else throw new ScrimError(CODE, `load parameter '${clip(name)}' is of the wrong kind`);
  }
  return loadRequest(config, files);
}

/** Body of a request to unload a model. */
export function unloadRequestToJson(unloadDependents: boolean): JsonObject {
  return { parameters: { unload_dependents: unloadDependents } };
}

/** Reads the body of a request to unload a model, which may be empty. @throws ScrimError INVALID_ARGUMENT */
export function decodeUnloadRequest(
  body: Uint8Array,
  limits: Limits = DEFAULT_LIMITS,
): { readonly unloadDependents: boolean } {
  const parameters = optionalBody(body, 'the unload request', limits).object('parameters');
  return { unloadDependents: parameters.optionalBoolean('unload_dependents') ?? false };
}

/** Message of a request to unload a model. */
export function unloadRequestToMessage(modelName: string, unloadDependents: boolean): RepositoryModelUnloadRequest {
  const message = create(RepositoryModelUnloadRequestSchema, { modelName });
  message.parameters.unload_dependents = parameter({ case: 'boolParam', value: unloadDependents });
  return message;
}

/** The request in a message. @throws ScrimError INVALID_ARGUMENT */
export function unloadRequestFromMessage(message: RepositoryModelUnloadRequest): {
  readonly unloadDependents: boolean;
} {
  const choice = message.parameters.unload_dependents?.parameterChoice;
  if (choice === undefined) return { unloadDependents: false };
  if (choice.case !== 'boolParam') throw new ScrimError(CODE, "unload parameter 'unload_dependents' is no boolean");
  return { unloadDependents: choice.value };
}

type Parameter = RepositoryModelLoadRequest['parameters'][string];

function parameter(choice: Parameter['parameterChoice']): Parameter {
  return create(ModelRepositoryParameterSchema, { parameterChoice: choice });
}

function optionalBody(body: Uint8Array, what: string, limits: Limits): JsonFields {
  const value = body.length === 0 ? {} : decodeJson(body, { what, limits });
  return new JsonFields(value, what, CODE);
}

function loadRequest(config: string | undefined, files: Record<string, Uint8Array>): LoadRequest {
  return {
    ...(config === undefined ? {} : { config }),
    ...(Object.keys(files).length === 0 ? {} : { files }),
  };
}

function filePath(name: string): string {
  if (name.startsWith(FILE_PREFIX) && name.length > FILE_PREFIX.length) return name.slice(FILE_PREFIX.length);
  throw new ScrimError(CODE, `load parameter '${clip(name)}' is unknown, expected 'config' or 'file:<path>'`);
}

function decodeBase64(text: string, name: string): Uint8Array {
  try {
    return base64Decode(text);
  } catch (cause) {
    throw new ScrimError(CODE, `load parameter '${clip(name)}' is not valid base64`, { cause });
  }
}
