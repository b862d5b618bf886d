/**
 * Inference requests and responses to and from gRPC messages.
 *
 * Contents are written raw. They are read raw or typed: FP16 and BF16 exist raw only, INT8 and INT16 travel as int32,
 * UINT8 and UINT16 as uint32 (Open Inference Protocol, InferTensorContents). Raw contents are used in place where they
 * lie aligned. Streams, deadlines and status codes belong to the transport.
 */
import { create } from '@bufbuild/protobuf';
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { allocate, type Tensor } from '../tensor.js';
import type { WireTensor } from './bytes-tensor.js';
import { DATATYPE_OF, type Datatype, DTYPE_OF, expectDatatype } from './datatype.js';
import {
  type InferParameter,
  InferParameterSchema,
  type InferTensorContents,
  type ModelInferRequest,
  ModelInferRequest_InferInputTensorSchema,
  ModelInferRequest_InferRequestedOutputTensorSchema,
  ModelInferRequestSchema,
  type ModelInferResponse,
  ModelInferResponse_InferOutputTensorSchema,
  ModelInferResponseSchema,
  ModelStreamInferResponseSchema,
} from './gen/grpc_service_pb.js';
import { encodeMessage, encodeWithBytes, nestParts } from './grpc-message.js';
import {
  clip,
  expectDistinct,
  type InferInput,
  type InferOutput,
  type InferRequest,
  type InferResponse,
  outputFromParameters,
  parametersFromOutput,
  parametersFromSettings,
  refuseSharedMemory,
  settingsFromParameters,
} from './infer.js';
import { checkLimit, DEFAULT_LIMITS, type Limits } from './limits.js';
import { parametersFromMessage, parametersToMessage } from './parameters.js';
import { checkShape, decodeTensorBytes, encodeTensorBytes, expectWhole } from './tensor-bytes.js';

/**
 * The message of a request. Raw contents are views of the tensors.
 * @throws ScrimError INVALID_ARGUMENT for tensors that do not fit their shape, repeated names, reserved parameters.
 */
export function inferRequestToMessage(request: InferRequest): ModelInferRequest {
  const { inputs, outputs = [] } = request;
  expectDistinct(
    inputs.map((input) => input.name),
    'input',
  );
  expectDistinct(
    outputs.map((output) => output.name),
    'output',
  );
  return create(ModelInferRequestSchema, {
    modelName: request.modelName,
    modelVersion: request.modelVersion ?? '',
    id: request.id ?? '',
    parameters: parametersToMessage(parametersFromSettings(request), 'the request'),
    inputs: inputs.map(({ name, tensor, parameters = {} }) =>
      create(ModelInferRequest_InferInputTensorSchema, {
        ...tensorHead(name, tensor),
        parameters: parametersToMessage(parameters, `input '${clip(name)}'`),
      }),
    ),
    outputs: outputs.map((output) =>
      create(ModelInferRequest_InferRequestedOutputTensorSchema, {
        name: output.name,
        parameters: parametersToMessage(parametersFromOutput(output), `output '${clip(output.name)}'`),
      }),
    ),
    rawInputContents: inputs.map(({ name, tensor }) => {
      expectWhole(tensor, `input '${clip(name)}'`);
      return encodeTensorBytes(tensor);
    }),
  });
}

/**
 * The request in a message. Contents may be raw or typed, not both.
 * @throws ScrimError INVALID_ARGUMENT naming what is wrong; UNSUPPORTED for shared memory; LIMIT_EXCEEDED.
 */
export function inferRequestFromMessage(message: ModelInferRequest, limits: Limits = DEFAULT_LIMITS): InferRequest {
  const { modelName, modelVersion, id } = message;
  checkLimit(limits, 'maxTensors', message.inputs.length, 'the request', 'inputs');
  checkLimit(limits, 'maxTensors', message.outputs.length, 'the request', 'outputs');
  const { maxParameters } = limits;
  const heads = message.inputs.map((input) => readHead(input, 'input', maxParameters));
  const tensors = tensorsFromMessage(message.inputs, message.rawInputContents, 'input', limits, 'INVALID_ARGUMENT');
  const inputs = heads.map((head, i): InferInput => ({ ...head, tensor: tensors[i]!, binary: true }));
  const outputs = message.outputs.map(({ name, parameters }) =>
    outputFromParameters(name, parametersFromMessage(parameters, `output '${clip(name)}'`, maxParameters, false)),
  );
  expectDistinct(
    inputs.map((input) => input.name),
    'input',
  );
  expectDistinct(
    outputs.map((output) => output.name),
    'output',
  );
  return {
    modelName,
    ...(modelVersion === '' ? {} : { modelVersion }),
    ...(id === '' ? {} : { id }),
    inputs,
    ...settingsFromParameters(parametersFromMessage(message.parameters, 'the request', maxParameters, false)),
    ...(outputs.length === 0 ? {} : { outputs }),
  };
}

/** The message of a request as parts to be sent one after another; its tensors are not copied. */
export function encodeGrpcRequest(request: InferRequest): Uint8Array[] {
  const message = inferRequestToMessage(request);
  const { rawInputContents } = message;
  message.rawInputContents = [];
  return encodeWithBytes(ModelInferRequestSchema, message, REQUEST_RAW_FIELD, rawInputContents);
}

/**
 * The message of a response as parts to be sent one after another; its tensors are not copied.
 * @param isFinal with it the parameter that Triton gives the last response to a request of a stream
 */
export function encodeGrpcResponse(response: InferResponse, isFinal = false): Uint8Array[] {
  const message = inferResponseToMessage(response);
  const { rawOutputContents } = message;
  message.rawOutputContents = [];
  if (isFinal) message.parameters.triton_final_response = FINAL_RESPONSE;
  return encodeWithBytes(ModelInferResponseSchema, message, RESPONSE_RAW_FIELD, rawOutputContents);
}

/** The message of a stream's answer as parts. */
export function encodeGrpcStreamResponse(response: InferResponse): Uint8Array[] {
  return nestParts(STREAM_RESPONSE_FIELD, encodeGrpcResponse(response, true));
}

/** The message of a stream that says that the request `id` failed. */
export function encodeGrpcStreamError(message: string, id: string): Uint8Array {
  return encodeMessage(ModelStreamInferResponseSchema, {
    errorMessage: message,
    inferResponse: { id, parameters: { triton_final_response: FINAL_RESPONSE } },
  });
}

/** Numbers of the fields that hold raw tensors. */
export const REQUEST_RAW_FIELD: number = ModelInferRequestSchema.field.rawInputContents.number;
export const RESPONSE_RAW_FIELD: number = ModelInferResponseSchema.field.rawOutputContents.number;
const STREAM_RESPONSE_FIELD = ModelStreamInferResponseSchema.field.inferResponse.number;
const FINAL_RESPONSE = create(InferParameterSchema, { parameterChoice: { case: 'boolParam', value: true } });

/** The message of a response, with raw contents that are views of the tensors. @throws ScrimError INVALID_ARGUMENT */
export function inferResponseToMessage(response: InferResponse): ModelInferResponse {
  return create(ModelInferResponseSchema, {
    modelName: response.modelName,
    modelVersion: response.modelVersion ?? '',
    id: response.id ?? '',
    parameters: parametersToMessage(response.parameters ?? {}, 'the response'),
    outputs: response.outputs.map(({ name, tensor, parameters = {} }) =>
      create(ModelInferResponse_InferOutputTensorSchema, {
        ...tensorHead(name, tensor),
        parameters: parametersToMessage(parameters, `output '${clip(name)}'`),
      }),
    ),
    rawOutputContents: response.outputs.map(({ name, tensor }) => {
      expectWhole(tensor, `output '${clip(name)}'`);
      return encodeTensorBytes(tensor);
    }),
  });
}

/**
 * The response in a message. Contents may be raw or typed.
 * @throws ScrimError INVALID_DATA naming what is wrong; UNSUPPORTED for shared memory; LIMIT_EXCEEDED.
 */
export function inferResponseFromMessage(message: ModelInferResponse, limits: Limits = DEFAULT_LIMITS): InferResponse {
  const { modelName, modelVersion, id } = message;
  checkLimit(limits, 'maxTensors', message.outputs.length, 'the response', 'outputs');
  const { maxParameters } = limits;
  const heads = message.outputs.map((output) => readHead(output, 'output', maxParameters));
  const tensors = tensorsFromMessage(message.outputs, message.rawOutputContents, 'output', limits, 'INVALID_DATA');
  const outputs = heads.map((head, i): InferOutput => ({ ...head, tensor: tensors[i]! }));
  return {
    modelName,
    ...(modelVersion === '' ? {} : { modelVersion }),
    ...(id === '' ? {} : { id }),
    outputs,
    ...optional(parametersFromMessage(message.parameters, 'the response', maxParameters, true)),
  };
}

/** Name and parameters of a tensor. Shared memory is refused here, before anyone misses its contents. */
function readHead(
  tensor: TensorMessage,
  kind: 'input' | 'output',
  maxParameters: number,
): Pick<InferInput, 'name' | 'parameters'> {
  const what = `${kind} '${clip(tensor.name)}'`;
  const parameters = parametersFromMessage(tensor.parameters, what, maxParameters, kind === 'output');
  refuseSharedMemory(parameters, what);
  return { name: tensor.name, ...optional(parameters) };
}

function optional(parameters: NonNullable<InferInput['parameters']>): Pick<InferInput, 'parameters'> {
  return Object.keys(parameters).length === 0 ? {} : { parameters };
}

function tensorHead(name: string, tensor: WireTensor): { name: string; datatype: Datatype; shape: bigint[] } {
  return { name, datatype: DATATYPE_OF[tensor.dtype], shape: tensor.shape.map(BigInt) };
}

interface TensorMessage {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly bigint[];
  readonly parameters: Readonly<Record<string, InferParameter>>;
  readonly contents?: InferTensorContents;
}

function tensorsFromMessage(
  tensors: readonly TensorMessage[],
  raw: readonly Uint8Array[],
  kind: 'input' | 'output',
  limits: Limits,
  code: ScrimErrorCode,
): WireTensor[] {
  if (raw.length > 0 && raw.length !== tensors.length) {
    throw new ScrimError(code, `raw_${kind}_contents has ${raw.length} entries for ${tensors.length} ${kind}s`);
  }
  return tensors.map((tensor, i) => {
    const what = `${kind} '${clip(tensor.name)}'`;
    const datatype = expectDatatype(tensor.datatype, what, code);
    // A dimension beyond 2⁵³ loses digits here, but stays too large to pass.
    const shape = tensor.shape.map(Number);
    const bytes = raw[i];
    if (bytes === undefined) return fromContents(datatype, shape, tensor.contents, what, limits, code);
    // MLServer sends an empty message of contents beside the raw ones.
    if (FIELDS.some((name) => (tensor.contents?.[name].length ?? 0) > 0)) {
      throw new ScrimError(code, `${what} has contents besides raw_${kind}_contents`);
    }
    return decodeTensorBytes(datatype, shape, bytes, what, limits, code);
  });
}

type ContentsField = Exclude<keyof InferTensorContents, `$${string}`>;

const CONTENTS_FIELD: Readonly<Record<Datatype, ContentsField | undefined>> = {
  BOOL: 'boolContents',
  INT8: 'intContents',
  INT16: 'intContents',
  INT32: 'intContents',
  INT64: 'int64Contents',
  UINT8: 'uintContents',
  UINT16: 'uintContents',
  UINT32: 'uintContents',
  UINT64: 'uint64Contents',
  FP16: undefined,
  BF16: undefined,
  FP32: 'fp32Contents',
  FP64: 'fp64Contents',
  BYTES: 'bytesContents',
};

const FIELDS: readonly ContentsField[] = [...new Set(Object.values(CONTENTS_FIELD))].filter((f) => f !== undefined);

function fromContents(
  datatype: Datatype,
  shape: readonly number[],
  contents: InferTensorContents | undefined,
  what: string,
  limits: Limits,
  code: ScrimErrorCode,
): WireTensor {
  const size = checkShape(shape, datatype, what, limits, code);
  const field = CONTENTS_FIELD[datatype];
  const other = FIELDS.find((name) => name !== field && (contents?.[name].length ?? 0) > 0);
  if (other !== undefined) throw new ScrimError(code, `${what} is ${datatype}, but its contents are ${other}`);
  if (field === undefined && size > 0) throw new ScrimError(code, `${what} is ${datatype}, which is only sent raw`);
  const values = field === undefined ? [] : (contents?.[field] ?? []);
  if (values.length !== size) {
    throw new ScrimError(
      code,
      `${what} has ${values.length} elements, but its shape [${shape.join(', ')}] says ${size}`,
    );
  }
  const dtype = DTYPE_OF[datatype];
  if (dtype === 'bytes') return { dtype, shape, data: values as Uint8Array[] };
  const data = allocate(dtype, size);
  const small = field === 'intContents' || field === 'uintContents';
  for (const [i, value] of values.entries()) {
    data[i] = (typeof value === 'boolean' ? Number(value) : value) as never;
    // Triton cuts an integer that does not fit its 8 or 16 bits; here it is refused.
    if (small && data[i] !== value)
      throw new ScrimError(code, `${what} has an element out of the range of ${datatype}`);
  }
  return { dtype, shape, data } as Tensor;
}
