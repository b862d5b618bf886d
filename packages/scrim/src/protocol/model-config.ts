/**
 * Triton's model configuration: text (config.pbtxt), JSON (`GET …/config`) and what follows from it.
 *
 * JSON follows Triton: names as in the proto, fields without presence written with their defaults, enums by name, and
 * 64-bit integers as numbers, exactly, where protobuf's own JSON has strings. NaN and Infinity are strings there too.
 */
import { create, type DescField, fromJson, type JsonValue as ProtoJson, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import type { Datatype } from './datatype.js';
import { shortestFloat32 } from './float32-text.js';
import { DataType, type ModelConfig, ModelConfigSchema, type ModelInput } from './gen/model_config_pb.js';
import type { JsonValue } from './json-value.js';
import { createLimits, type Limits } from './limits.js';
import type { ModelMetadata, TensorMetadata } from './metadata.js';
import { parseTextFormat } from './text-format-reader.js';
import { formatText } from './text-format-writer.js';

const DATATYPES: Readonly<Partial<Record<DataType, Datatype>>> = {
  [DataType.TYPE_BOOL]: 'BOOL',
  [DataType.TYPE_UINT8]: 'UINT8',
  [DataType.TYPE_UINT16]: 'UINT16',
  [DataType.TYPE_UINT32]: 'UINT32',
  [DataType.TYPE_UINT64]: 'UINT64',
  [DataType.TYPE_INT8]: 'INT8',
  [DataType.TYPE_INT16]: 'INT16',
  [DataType.TYPE_INT32]: 'INT32',
  [DataType.TYPE_INT64]: 'INT64',
  [DataType.TYPE_FP16]: 'FP16',
  [DataType.TYPE_FP32]: 'FP32',
  [DataType.TYPE_FP64]: 'FP64',
  [DataType.TYPE_STRING]: 'BYTES',
  [DataType.TYPE_BF16]: 'BF16',
};

const CONFIG_LIMITS: Limits = createLimits({ maxBytes: 2 ** 20 });

/** The protocol's element type for one of a configuration; undefined for TYPE_INVALID and numbers without a name. */
export function datatypeOfConfig(type: DataType): Datatype | undefined {
  return DATATYPES[type];
}

/** The configuration's element type for one of the protocol. */
export function configTypeOf(datatype: Datatype): DataType {
  return datatype === 'BYTES' ? DataType.TYPE_STRING : DataType[`TYPE_${datatype}`];
}

/**
 * Reads config.pbtxt.
 * @param options default: named 'config.pbtxt', at most 1 MiB and otherwise the default limits
 * @throws ScrimError INVALID_DATA with line and column; LIMIT_EXCEEDED.
 */
export function parseModelConfig(
  text: string,
  options: { readonly what?: string; readonly limits?: Limits } = {},
): ModelConfig {
  return parseTextFormat(ModelConfigSchema, text, { what: 'config.pbtxt', limits: CONFIG_LIMITS, ...options });
}

/** The canonical text of a configuration, which {@link parseModelConfig} reads back the same. */
export function formatModelConfig(config: ModelConfig): string {
  return formatText(ModelConfigSchema, config);
}

/** A configuration as JSON. */
export function modelConfigToJson(config: ModelConfig): JsonValue {
  return messageToJson(reflect(ModelConfigSchema, config));
}

/**
 * Reads a configuration from JSON; 64-bit integers may be numbers or strings.
 * @param ignoreUnknown drops fields this project does not know, as a client should
 * @throws ScrimError `code` naming the field that is wrong.
 */
export function modelConfigFromJson(
  value: JsonValue,
  options: { readonly ignoreUnknown?: boolean; readonly code?: ScrimErrorCode } = {},
): ModelConfig {
  const { ignoreUnknown = false, code = 'INVALID_DATA' } = options;
  try {
    return fromJson(ModelConfigSchema, toProtoJson(value), { ignoreUnknownFields: ignoreUnknown });
  } catch (error) {
    throw ScrimError.from(error, code, "the model configuration can't be read");
  }
}

/** What `GET /v2/models/M` says of a model with this configuration. The batch dimension, if any, is −1. */
export function metadataFromConfig(config: ModelConfig, versions: readonly string[]): ModelMetadata {
  const batch = config.maxBatchSize > 0 ? [-1] : [];
  const tensors = (list: readonly Pick<ModelInput, 'name' | 'dataType' | 'dims'>[]): TensorMetadata[] =>
    list.map(({ name, dataType, dims }) => ({
      name,
      datatype: datatypeOfConfig(dataType) ?? '<invalid>',
      shape: [...batch, ...dims.map(Number)],
    }));
  return {
    name: config.name,
    versions,
    platform: config.platform === '' ? config.backend : config.platform,
    inputs: tensors(config.input),
    outputs: tensors(config.output),
  };
}

/** An empty configuration, or one of the fields given. */
export function createModelConfig(fields: Parameters<typeof create<typeof ModelConfigSchema>>[1] = {}): ModelConfig {
  return create(ModelConfigSchema, fields);
}

/** Whether Triton's JSON has the field: those without presence always, the others where they are set. */
function isShown(message: ReflectMessage, field: DescField): boolean {
  const presence = field.fieldKind === 'message' || field.oneof !== undefined;
  return !presence || message.isSet(field);
}

function messageToJson(message: ReflectMessage): JsonValue {
  const object: Record<string, JsonValue> = {};
  for (const field of message.desc.fields) {
    if (!isShown(message, field)) continue;
    object[field.name] = fieldToJson(message, field);
  }
  return object;
}

function fieldToJson(message: ReflectMessage, field: DescField): JsonValue {
  switch (field.fieldKind) {
    case 'message':
      return messageToJson(message.get(field));
    case 'list':
      return Array.from(message.get(field), (value) => elementToJson(field, value));
    case 'map': {
      // Keys are those of the message, so that none can be mistaken for a member of every object.
      const object: Record<string, JsonValue> = Object.create(null);
      for (const [key, value] of message.get(field)) object[String(key)] = elementToJson(field, value);
      return object;
    }
    default:
      return elementToJson(field, message.get(field));
  }
}

function elementToJson(field: DescField, value: unknown): JsonValue {
  if (field.message !== undefined) return messageToJson(value as ReflectMessage);
  if (field.enum !== undefined) {
    const number = value as number;
    return field.enum.value[number]?.name ?? number;
  }
  if (typeof value === 'bigint' || (isWide(field) && typeof value === 'string')) return shortInteger(BigInt(value));
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  if (field.scalar === ScalarType.FLOAT) return shortestFloat32(value as number);
  return value as JsonValue;
}

function isWide(field: DescField): boolean {
  return field.scalar === ScalarType.INT64 || field.scalar === ScalarType.UINT64;
}

function shortInteger(value: bigint): JsonValue {
  const safe = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
  return safe ? Number(value) : value;
}

/** JSON as protobuf-es reads it: 64-bit integers and what is no finite number as strings. */
function toProtoJson(value: JsonValue): ProtoJson {
  if (typeof value === 'bigint' || (typeof value === 'number' && !Number.isFinite(value))) return String(value);
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(toProtoJson);
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, toProtoJson(member)]));
}
