/**
 * Inference responses to and from HTTP bodies.
 *
 * Open Inference Protocol, "Inference Response JSON Object", with Triton's binary tensor data extension. Decoding is
 * lenient where servers differ: null members count as missing, unknown members and parameters are dropped. Error
 * responses are read elsewhere.
 */
import { ScrimError } from '../errors.js';
import type { HeadMemo } from './head-memo.js';
import { BinaryPart, BodyWriter, type EncodedBody, splitBody } from './http-body.js';
import { readList } from './http-request.js';
import { type HttpTensor, readHttpTensor, writeHttpTensor } from './http-tensor.js';
import { clip, type InferOutput, type InferResponse } from './infer.js';
import { JsonReader } from './json-reader.js';
import { checkLimit, DEFAULT_LIMITS, type Limits } from './limits.js';
import { type Parameters, parametersJson, readParametersJson } from './parameters.js';
import { decodeTensorBytes } from './tensor-bytes.js';

/**
 * Writes a response.
 * @param binary which outputs go as binary data; default all. A server passes `outputsAsBinary(request)`.
 * @throws ScrimError INVALID_ARGUMENT for tensors that do not fit their shape, and FP16, BF16 or non-UTF-8 BYTES as JSON.
 */
export function encodeInferResponse(
  response: InferResponse,
  binary: boolean | ((name: string) => boolean) = true,
): EncodedBody {
  const writer = new BodyWriter();
  writer.text('{');
  if (response.id !== undefined && response.id !== '') writer.text(`"id":${JSON.stringify(response.id)},`);
  writer.text(`"model_name":${JSON.stringify(response.modelName)},`);
  if (response.modelVersion !== undefined) writer.text(`"model_version":${JSON.stringify(response.modelVersion)},`);
  if (response.parameters !== undefined) {
    writer.text(`"parameters":${parametersJson(response.parameters, 'the response')},`);
  }
  writer.text('"outputs":[');
  for (const [i, output] of response.outputs.entries()) {
    if (i > 0) writer.text(',');
    writeHttpTensor(writer, output, typeof binary === 'boolean' ? binary : binary(output.name), 'output');
  }
  writer.text(']}');
  return writer.finish();
}

/** What the JSON part of a response says. */
export interface ResponseHead extends Omit<InferResponse, 'outputs'> {
  readonly tensors: readonly HttpTensor[];
}

/**
 * Reads a response with status 200. Tensors are views of `body` where alignment allows.
 * @param body the whole body, not compressed
 * @throws ScrimError INVALID_DATA naming what is wrong; UNSUPPORTED for shared memory; LIMIT_EXCEEDED.
 */
export function decodeInferResponse(
  body: Uint8Array,
  options: {
    readonly headerLength?: number;
    readonly limits?: Limits;
    /** Of responses read with the same limits. */
    readonly heads?: HeadMemo<ResponseHead>;
  } = {},
): InferResponse {
  const { headerLength, limits = DEFAULT_LIMITS, heads } = options;
  const code = 'INVALID_DATA';
  checkLimit(limits, 'maxBytes', body.length, 'the response', 'bytes');
  const { json, binary } = splitBody(body, headerLength, code);
  let head = heads?.find(json);
  if (head === undefined) {
    head = readHead(json, limits);
    // Tensors in the JSON are the response's own.
    if (head.tensors.every(({ contents }) => typeof contents === 'number')) heads?.keep(json, head);
  }
  const { tensors, parameters, ...rest } = head;
  const part = new BinaryPart(binary, code);
  const outputs = tensors.map((entry): InferOutput => {
    const { name, contents } = entry;
    const what = `output '${clip(name)}'`;
    // Copied, as are parameters: answers are their callers', who may change them.
    const shape = [...entry.shape];
    const tensor =
      typeof contents === 'number'
        ? decodeTensorBytes(entry.datatype, shape, part.take(contents, what), what, limits, code)
        : contents;
    return { name, tensor, ...(entry.parameters === undefined ? {} : { parameters: { ...entry.parameters } }) };
  });
  part.end();
  return { ...rest, outputs, ...(parameters === undefined ? {} : { parameters: { ...parameters } }) };
}

function readHead(json: Uint8Array, limits: Limits): ResponseHead {
  const code = 'INVALID_DATA';
  const reader = new JsonReader(json, { what: 'the response', code, limits });
  let modelName = '';
  let modelVersion: string | undefined;
  let id: string | undefined;
  let parameters: Parameters | undefined;
  let tensors: HttpTensor[] | undefined;
  reader.object((key) => {
    if (reader.kind() === 'null') return reader.skip();
    switch (key) {
      case 'model_name':
        modelName = reader.string();
        break;
      case 'model_version':
        modelVersion = reader.string();
        break;
      case 'id':
        id = reader.string();
        break;
      case 'parameters':
        parameters = readParametersJson(reader, 'the response', true);
        break;
      case 'outputs':
        tensors = readList(reader, 'outputs', (index) => readHttpTensor(reader, 'output', index));
        break;
      default:
        reader.skip();
    }
  });
  reader.end();
  if (tensors === undefined) throw new ScrimError(code, 'the response has no outputs');

  return {
    modelName,
    ...(modelVersion === undefined ? {} : { modelVersion }),
    ...(id === undefined ? {} : { id }),
    tensors,
    ...(parameters === undefined ? {} : { parameters }),
  };
}
