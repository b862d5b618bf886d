/**
 * Inference requests to and from HTTP bodies.
 *
 * Open Inference Protocol, "Inference Request JSON Object", with Triton's extensions for binary tensor data (raw
 * requests included), parameters, sequences, scheduling policy and classification. Model name and version travel in
 * the path, content encoding in a header; both are the caller's.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { bytesPerElement, type Datatype } from './datatype.js';
import type { HeadMemo } from './head-memo.js';
import { BinaryPart, BodyWriter, type EncodedBody, splitBody } from './http-body.js';
import { type HttpTensor, readHttpTensor, writeHttpTensor } from './http-tensor.js';
import {
  clip,
  expectDistinct,
  type InferInput,
  type InferRequest,
  outputFromParameters,
  parametersFromOutput,
  parametersFromSettings,
  type RequestedOutput,
  type RequestSettings,
  settingsFromParameters,
} from './infer.js';
import { JsonReader } from './json-reader.js';
import { checkLimit, DEFAULT_LIMITS, type Limits } from './limits.js';
import { type Parameters, parametersJson, readParametersJson } from './parameters.js';
import { decodeTensorBytes } from './tensor-bytes.js';

/** The only input of a model, as its configuration says: what a raw request needs to be understood. */
export interface RawInput {
  readonly name: string;
  readonly datatype: Datatype;
  /** Dimensions without the batch; −1 for one of variable size. */
  readonly dims: readonly number[];
  /** True where a batch dimension comes first, which a raw request fills with 1. */
  readonly batched: boolean;
}

/** What {@link decodeInferRequest} has to know besides the body. */
export interface DecodeRequestOptions {
  readonly modelName: string;
  readonly modelVersion?: string;
  /** Value of Inference-Header-Content-Length; missing where the body is JSON alone, 0 for a raw request. */
  readonly headerLength?: number;
  /** Needed for raw requests only; missing where the model does not have exactly one input. */
  readonly rawInput?: RawInput;
  readonly limits?: Limits;
  /** Of requests read with the same limits. */
  readonly heads?: HeadMemo<RequestHead>;
}

/** What the JSON part of a request says. */
export interface RequestHead {
  readonly id: string | undefined;
  readonly tensors: readonly HttpTensor[];
  readonly settings: RequestSettings;
  readonly outputs: readonly RequestedOutput[] | undefined;
}

/**
 * Writes a request. Tensors are binary unless an input says otherwise, and so are the outputs asked for.
 * @throws ScrimError INVALID_ARGUMENT for tensors that do not fit their shape, FP16, BF16 or non-UTF-8 BYTES as JSON,
 * repeated names and reserved parameters.
 */
export function encodeInferRequest(request: InferRequest): EncodedBody {
  const { inputs, outputs = [], binaryOutputs = true } = request;
  expectDistinct(
    inputs.map((input) => input.name),
    'input',
  );
  expectDistinct(
    outputs.map((output) => output.name),
    'output',
  );
  const parameters = parametersFromSettings(request);
  if (outputs.length === 0) parameters.binary_data_output = binaryOutputs;

  const writer = new BodyWriter();
  writer.text('{');
  if (request.id !== undefined && request.id !== '') writer.text(`"id":${JSON.stringify(request.id)},`);
  if (Object.keys(parameters).length > 0) {
    writer.text(`"parameters":${parametersJson(parameters, 'the request')},`);
  }
  writer.text('"inputs":[');
  for (const [i, input] of inputs.entries()) {
    if (i > 0) writer.text(',');
    writeHttpTensor(writer, input, input.binary ?? true, 'input');
  }
  writer.text(']');
  if (outputs.length > 0) {
    const entries = outputs.map((output) => {
      const entry = { ...parametersFromOutput(output), binary_data: output.binary ?? binaryOutputs };
      return `{"name":${JSON.stringify(output.name)},"parameters":${parametersJson(entry, `output '${clip(output.name)}'`)}}`;
    });
    writer.text(`,"outputs":[${entries.join(',')}]`);
  }
  writer.text('}');
  return writer.finish();
}

/**
 * Reads a request. Tensors are views of `body` where alignment allows. Members no one knows are ignored.
 * @param body the whole body, not compressed
 * @throws ScrimError INVALID_ARGUMENT naming what is wrong, for faults in the JSON with byte, line and column;
 * UNSUPPORTED for shared memory; LIMIT_EXCEEDED.
 */
export function decodeInferRequest(body: Uint8Array, options: DecodeRequestOptions): InferRequest {
  const { modelName, modelVersion, headerLength, limits = DEFAULT_LIMITS, heads } = options;
  const model = { modelName, ...(modelVersion === undefined ? {} : { modelVersion }) };
  checkLimit(limits, 'maxBytes', body.length, 'the request', 'bytes');
  if (headerLength === 0) return { ...model, ...rawRequest(body, options.rawInput, limits) };

  const { json, binary } = splitBody(body, headerLength, 'INVALID_ARGUMENT');
  let head = heads?.find(json);
  if (head === undefined) {
    head = readHead(json, limits);
    // Tensors in the JSON are the request's own.
    if (head.tensors.every(({ contents }) => typeof contents === 'number')) heads?.keep(json, head);
  }
  const { id, tensors, settings, outputs } = head;
  const part = new BinaryPart(binary, 'INVALID_ARGUMENT');
  const inputs = tensors.map((entry): InferInput => {
    const { name, contents } = entry;
    const what = `input '${clip(name)}'`;
    const isBinary = typeof contents === 'number';
    const tensor = isBinary
      ? decodeTensorBytes(entry.datatype, entry.shape, part.take(contents, what), what, limits)
      : contents;
    return {
      name,
      tensor,
      binary: isBinary,
      ...(entry.parameters === undefined ? {} : { parameters: entry.parameters }),
    };
  });
  part.end();
  const { binaryOutputs = false } = settings;
  return {
    ...model,
    ...(id === undefined ? {} : { id }),
    inputs,
    ...settings,
    binaryOutputs,
    ...(outputs === undefined ? {} : { outputs: outputs.map((output) => ({ binary: binaryOutputs, ...output })) }),
  };
}

function readHead(json: Uint8Array, limits: Limits): RequestHead {
  const reader = new JsonReader(json, { what: 'the request', limits });
  let id: string | undefined;
  let parameters: Parameters | undefined;
  let tensors: HttpTensor[] | undefined;
  let outputs: RequestedOutput[] | undefined;
  reader.object((key) => {
    if (reader.kind() === 'null') return reader.skip();
    switch (key) {
      case 'id':
        id = reader.string();
        break;
      case 'parameters':
        parameters = readParametersJson(reader, 'the request', false);
        break;
      case 'inputs':
        tensors = readList(reader, 'inputs', (index) => readHttpTensor(reader, 'input', index));
        break;
      case 'outputs':
        outputs = readList(reader, 'outputs', (index) => readRequestedOutput(reader, index));
        break;
      default:
        reader.skip();
    }
  });
  reader.end();
  if (tensors === undefined) throw new ScrimError('INVALID_ARGUMENT', 'the request has no inputs');

  expectDistinct(
    tensors.map(({ name }) => name),
    'input',
  );
  const settings = settingsFromParameters(parameters ?? {});
  if (settings.emptyFinalResponse !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', "parameters whose names begin with 'triton_' are reserved for the server");
  }
  if (outputs !== undefined) {
    expectDistinct(
      outputs.map((output) => output.name),
      'output',
    );
  }
  return { id, tensors, settings, outputs };
}

/** Reads an array of at most `maxTensors` entries. */
export function readList<T>(reader: JsonReader, what: string, read: (index: number) => T): T[] {
  const list: T[] = [];
  reader.array((index) => {
    checkLimit(reader.limits, 'maxTensors', index + 1, what, 'entries or more');
    list.push(read(index));
  });
  return list;
}

function readRequestedOutput(reader: JsonReader, index: number): RequestedOutput {
  const start = reader.position;
  let name: string | undefined;
  let parameters: Parameters = {};
  reader.object((key) => {
    if (key === 'name') name = reader.string();
    else if (key === 'parameters' && reader.kind() !== 'null') {
      parameters = readParametersJson(reader, `output ${index}`, false);
    } else reader.skip();
  });
  if (name === undefined) reader.fail(`output ${index} has no name`, start);
  return outputFromParameters(name, parameters);
}

/**
 * A raw request: the body is the one input, without any JSON, and all outputs come binary. The dimension of variable
 * size, if there is one, follows from the number of bytes; a BYTES input is one element, the body itself.
 */
function rawRequest(
  body: Uint8Array,
  input: RawInput | undefined,
  limits: Limits,
): Pick<InferRequest, 'inputs' | 'binaryOutputs'> {
  assertArgument(input !== undefined, 'a raw request (Inference-Header-Content-Length 0) needs a model with one input');
  const { name, datatype, dims } = input;
  const what = `raw input '${clip(name)}'`;
  const variable = dims.filter((dimension) => dimension < 0).length;
  const known = dims.reduce((product, dimension) => (dimension < 0 ? product : product * dimension), 1);
  const batch = input.batched ? [1] : [];
  if (datatype === 'BYTES') {
    assertArgument(variable === 0 && known === 1, `${what} is BYTES and must have one element to be sent raw`);
    return {
      inputs: [{ name, tensor: { dtype: 'bytes', shape: [...batch, ...dims], data: [body] }, binary: true }],
      binaryOutputs: true,
    };
  }
  assertArgument(variable <= 1, `${what} has ${variable} dimensions of variable size: its shape can't be told`);
  const width = known * bytesPerElement(datatype);
  const missing = width === 0 ? 0 : Math.floor(body.length / width);
  const shape = [...batch, ...dims.map((dimension) => (dimension < 0 ? missing : dimension))];
  return {
    inputs: [{ name, tensor: decodeTensorBytes(datatype, shape, body, what, limits), binary: true }],
    binaryOutputs: true,
  };
}
