/**
 * KServe v2 / Triton messages to and from bytes, without any I/O; runs in Node and in browsers.
 *
 * One way through HTTP: decodeContent, decodeInferRequest, encodeInferResponse, encodeContent (a client the other way
 * round). Through gRPC: decodeMessage, inferRequestFromMessage, inferResponseToMessage, encodeMessage. The generated
 * messages are under `pb`, `configPb` and `healthPb`.
 */

export * from './bytes-tensor.js';
export * from './classification.js';
export * from './content-encoding.js';
export * from './datatype.js';
export * as pb from './gen/grpc_service_pb.js';
export * as healthPb from './gen/health_pb.js';
export type { ModelConfig } from './gen/model_config_pb.js';
export * as configPb from './gen/model_config_pb.js';
export * from './grpc-frame.js';
export * from './grpc-infer.js';
export * from './grpc-message.js';
export { HeadMemo } from './head-memo.js';
export { type EncodedBody, HEADER_LENGTH, joinBody, parseHeaderLength } from './http-body.js';
export {
  type DecodeRequestOptions,
  decodeInferRequest,
  encodeInferRequest,
  type RawInput,
  type RequestHead,
} from './http-request.js';
export { decodeInferResponse, encodeInferResponse, type ResponseHead } from './http-response.js';
export {
  type InferInput,
  type InferOutput,
  type InferRequest,
  type InferResponse,
  outputsAsBinary,
  type RequestedOutput,
} from './infer.js';
export { decodeJson, encodeJson, type JsonObject, type JsonValue, jsonText } from './json-value.js';
export { createLimits, DEFAULT_LIMITS, type Limits } from './limits.js';
export * from './metadata.js';
export * from './model-config.js';
export * from './model-path.js';
export type { DoubleParameter, Parameters, ParameterValue } from './parameters.js';
export * from './repository.js';
export * from './statistics.js';
export { decodeTensorBytes, encodeTensorBytes } from './tensor-bytes.js';
export { parseTextFormat, type TextFormatOptions } from './text-format-reader.js';
export { formatText } from './text-format-writer.js';
export * from './wire-error.js';
