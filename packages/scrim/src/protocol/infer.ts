/**
 * Inference requests and responses as the rest of the project sees them, the same over HTTP and gRPC.
 *
 * The parameters Triton gives a meaning (sequence, priority, timeout, classification, binary data) are members of
 * their own; `parameters` holds what is left. Names beginning with `triton_` belong to the server and are refused, and
 * so is shared memory, which this project does not support.
 */
import { ScrimError } from '../errors.js';
import type { WireTensor } from './bytes-tensor.js';
import { type Parameters, type ParameterValue, parametersWithout } from './parameters.js';

/** One input of a request. */
export interface InferInput {
  readonly name: string;
  readonly tensor: WireTensor;
  /** HTTP only: false sends the tensor as JSON. Default true. Decoders say how it came. */
  readonly binary?: boolean;
  readonly parameters?: Parameters;
}

/** One output the caller asks for. */
export interface RequestedOutput {
  readonly name: string;
  /** HTTP only: false asks for JSON. Default: the request's `binaryOutputs`. */
  readonly binary?: boolean;
  /** Asks for the best `classification` classes as `value:index[:label]` instead of the tensor. */
  readonly classification?: number;
  readonly parameters?: Parameters;
}

/** A request to run a model. */
export interface InferRequest {
  readonly modelName: string;
  /** A number in digits; missing or '' lets the server choose. */
  readonly modelVersion?: string;
  /** Comes back in the response. */
  readonly id?: string;
  readonly inputs: readonly InferInput[];
  /** Missing or empty asks for all outputs. */
  readonly outputs?: readonly RequestedOutput[];
  /** HTTP only: how outputs come that `outputs` does not name or that name no form. Encoders default to true. */
  readonly binaryOutputs?: boolean;
  /** Sequence the request belongs to: an integer from 0 to 2⁶⁴ − 1 or a string. */
  readonly sequenceId?: number | bigint | string;
  readonly sequenceStart?: boolean;
  readonly sequenceEnd?: boolean;
  /** 0 is the model's default, 1 the highest. */
  readonly priority?: number | bigint;
  /** Microseconds the request may wait in the queue. */
  readonly timeoutUs?: number | bigint;
  /** gRPC streams only: asks for an empty last response of a decoupled model. */
  readonly emptyFinalResponse?: boolean;
  readonly parameters?: Parameters;
}

/** One output of a response. */
export interface InferOutput {
  readonly name: string;
  readonly tensor: WireTensor;
  readonly parameters?: Parameters;
}

/** What a model answered. */
export interface InferResponse {
  readonly modelName: string;
  readonly modelVersion?: string;
  readonly id?: string;
  readonly outputs: readonly InferOutput[];
  readonly parameters?: Parameters;
}

/** Whether an HTTP response carries each output as binary data; `request` as a decoder gave it. */
export function outputsAsBinary(request: InferRequest): (name: string) => boolean {
  const chosen = new Map(request.outputs?.map((output) => [output.name, output.binary]));
  return (name) => chosen.get(name) ?? request.binaryOutputs ?? false;
}

export type RequestSettings = Pick<
  InferRequest,
  | 'binaryOutputs'
  | 'sequenceId'
  | 'sequenceStart'
  | 'sequenceEnd'
  | 'priority'
  | 'timeoutUs'
  | 'emptyFinalResponse'
  | 'parameters'
>;

const RESERVED_PREFIX = 'triton_';
const EMPTY_FINAL_RESPONSE = 'triton_enable_empty_final_response';
const SETTING_NAMES: ReadonlySet<string> = new Set([
  'sequence_id',
  'sequence_start',
  'sequence_end',
  'priority',
  'timeout',
  'binary_data_output',
]);
const SHARED_MEMORY = 'shared_memory_';

/**
 * Sorts the parameters of a request into those with a meaning and the rest.
 * @throws ScrimError INVALID_ARGUMENT for a value of the wrong kind or a name kept for the server.
 */
export function settingsFromParameters(parameters: Parameters): RequestSettings {
  const settings: { -readonly [K in keyof RequestSettings]: RequestSettings[K] } = {};
  const rest: Record<string, ParameterValue> = Object.create(null);
  for (const [name, value] of Object.entries(parameters)) {
    switch (name) {
      case 'sequence_id':
        settings.sequenceId = typeof value === 'string' ? value : expectCount(name, value, 'a string or ');
        break;
      case 'sequence_start':
        settings.sequenceStart = expectBoolean(name, value);
        break;
      case 'sequence_end':
        settings.sequenceEnd = expectBoolean(name, value);
        break;
      case 'priority':
        settings.priority = expectCount(name, value);
        break;
      case 'timeout':
        settings.timeoutUs = expectCount(name, value);
        break;
      case 'binary_data_output':
        settings.binaryOutputs = expectBoolean(name, value);
        break;
      case EMPTY_FINAL_RESPONSE:
        settings.emptyFinalResponse = expectBoolean(name, value);
        break;
      default:
        if (name.startsWith(RESERVED_PREFIX)) {
          throw new ScrimError(
            'INVALID_ARGUMENT',
            `parameters whose names begin with '${RESERVED_PREFIX}' are reserved for the server`,
          );
        }
        rest[name] = value;
    }
  }
  if (Object.keys(rest).length > 0) settings.parameters = rest;
  return settings;
}

/**
 * The parameters of `request` with its settings among them; `binaryOutputs` is left to the HTTP encoder.
 * @throws ScrimError INVALID_ARGUMENT for a name that has a member of its own or is kept for the server.
 */
export function parametersFromSettings(request: InferRequest): Record<string, ParameterValue> {
  const parameters: Record<string, ParameterValue> = Object.create(null);
  if (request.sequenceId !== undefined) {
    parameters.sequence_id = request.sequenceId;
    parameters.sequence_start = request.sequenceStart ?? false;
    parameters.sequence_end = request.sequenceEnd ?? false;
  }
  if (request.priority !== undefined) parameters.priority = expectCount('priority', request.priority);
  if (request.timeoutUs !== undefined) parameters.timeout = expectCount('timeout', request.timeoutUs);
  if (request.emptyFinalResponse !== undefined) parameters[EMPTY_FINAL_RESPONSE] = request.emptyFinalResponse;
  for (const [name, value] of Object.entries(request.parameters ?? {})) {
    if (SETTING_NAMES.has(name) || name.startsWith(RESERVED_PREFIX)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `request.parameters has '${name}', which is reserved: use the member of the request`,
      );
    }
    parameters[name] = value;
  }
  return parameters;
}

/** Sorts the parameters of a requested output. @throws ScrimError INVALID_ARGUMENT; UNSUPPORTED for shared memory. */
export function outputFromParameters(name: string, parameters: Parameters): RequestedOutput {
  refuseSharedMemory(parameters, `output '${clip(name)}'`);
  const binary = parameters.binary_data;
  const classification = parameters.classification;
  const rest = parametersWithout(parameters, ['binary_data', 'classification']);
  return {
    name,
    ...(binary === undefined ? {} : { binary: expectBoolean('binary_data', binary) }),
    ...(classification === undefined ? {} : { classification: expectClasses(classification) }),
    ...(rest === undefined ? {} : { parameters: rest }),
  };
}

/** The parameters of a requested output with its classification among them; `binary` is left to the HTTP encoder. */
export function parametersFromOutput(output: RequestedOutput): Record<string, ParameterValue> {
  return {
    ...(output.classification === undefined ? {} : { classification: expectClasses(output.classification) }),
    ...output.parameters,
  };
}

/** @throws ScrimError UNSUPPORTED if a tensor of `what` lies in shared memory. */
export function refuseSharedMemory(parameters: Parameters, what: string): void {
  if (Object.keys(parameters).some((name) => name.startsWith(SHARED_MEMORY))) {
    throw new ScrimError('UNSUPPORTED', `${what} refers to shared memory, which is not supported: send the data`);
  }
}

/** @throws ScrimError INVALID_ARGUMENT if two of `names` are the same. */
export function expectDistinct(names: readonly string[], kind: 'input' | 'output'): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw new ScrimError('INVALID_ARGUMENT', `${kind} '${clip(name)}' is given twice`);
    seen.add(name);
  }
}

/** `name` short enough for a message. */
export function clip(name: string): string {
  return name.length > 64 ? `${name.slice(0, 64)}…` : name;
}

function expectBoolean(name: string, value: ParameterValue): boolean {
  if (typeof value === 'boolean') return value;
  throw new ScrimError('INVALID_ARGUMENT', `parameter '${name}' is no boolean`);
}

function expectCount(name: string, value: ParameterValue, alternative = ''): number | bigint {
  const whole =
    typeof value === 'bigint' ? value < 2n ** 64n : typeof value === 'number' && Number.isSafeInteger(value);
  if (whole && (value as number | bigint) >= 0) return value as number | bigint;
  throw new ScrimError('INVALID_ARGUMENT', `parameter '${name}' is not ${alternative}an integer from 0 to 2⁶⁴ − 1`);
}

function expectClasses(value: ParameterValue): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new ScrimError('INVALID_ARGUMENT', `parameter 'classification' is no integer ≥ 0`);
}
