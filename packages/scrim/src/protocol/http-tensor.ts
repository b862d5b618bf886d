/**
 * One input of an HTTP request or one output of an HTTP response: `{name, shape, datatype, parameters, data}`.
 *
 * Open Inference Protocol, "Request Input" and "Response Output", with Triton's `binary_data_size`. Members may come
 * in any order. Where `data` comes before shape and datatype it is skipped and read again.
 */
import { ScrimError } from '../errors.js';
import type { WireTensor } from './bytes-tensor.js';
import { DATATYPE_OF, type Datatype, expectDatatype } from './datatype.js';
import type { BodyWriter } from './http-body.js';
import { clip, refuseSharedMemory } from './infer.js';
import type { JsonReader } from './json-reader.js';
import { encodeTensorJson, readTensorJson } from './json-tensor.js';
import { checkLimit } from './limits.js';
import {
  type Parameters,
  type ParameterValue,
  parametersJson,
  parametersWithout,
  readParametersJson,
} from './parameters.js';
import { encodeTensorBytes, expectWhole } from './tensor-bytes.js';

/** A tensor entry as read: either its contents or the number of bytes they take in the binary part. */
export interface HttpTensor {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: readonly number[];
  readonly parameters?: Parameters;
  readonly contents: WireTensor | number;
}

const BINARY_DATA_SIZE = 'binary_data_size';

/**
 * Reads the object the reader stands before.
 * @param kind 'input' refuses parameters of unknown kinds, 'output' drops them
 */
export function readHttpTensor(reader: JsonReader, kind: 'input' | 'output', index: number): HttpTensor {
  const start = reader.position;
  let what = `${kind} ${index}`;
  let name: string | undefined;
  let datatype: Datatype | undefined;
  let shape: number[] | undefined;
  let parameters: Parameters | undefined;
  let tensor: WireTensor | undefined;
  let dataAt: number | undefined;
  reader.object((key) => {
    switch (key) {
      case 'name':
        name = reader.string();
        what = `${kind} '${clip(name)}'`;
        break;
      case 'datatype':
        datatype = expectDatatype(reader.string(), what, reader.code);
        break;
      case 'shape':
        shape = readShape(reader, what);
        break;
      case 'parameters':
        if (reader.kind() === 'null') reader.skip();
        else parameters = readParametersJson(reader, what, kind === 'output');
        break;
      case 'data':
        dataAt = reader.position;
        if (datatype !== undefined && shape !== undefined) tensor = readTensorJson(reader, datatype, shape, what);
        else reader.skip();
        break;
      default:
        reader.skip();
    }
  });
  if (name === undefined) reader.fail(`${what} has no name`, start);
  if (datatype === undefined) reader.fail(`${what} has no datatype`, start);
  if (shape === undefined) reader.fail(`${what} has no shape`, start);

  if (dataAt !== undefined && tensor === undefined) {
    const after = reader.position;
    reader.position = dataAt;
    tensor = readTensorJson(reader, datatype, shape, what);
    reader.position = after;
  }
  const size = parameters?.[BINARY_DATA_SIZE];
  const rest = parametersWithout(parameters ?? {}, [BINARY_DATA_SIZE]);
  if (rest !== undefined) refuseSharedMemory(rest, what);
  if ((tensor === undefined) === (size === undefined)) {
    const found = tensor === undefined ? 'neither' : 'both';
    reader.fail(`${what} must have either data or the parameter ${BINARY_DATA_SIZE}, but has ${found}`, start);
  }
  return {
    name,
    datatype,
    shape,
    ...(rest === undefined ? {} : { parameters: rest }),
    contents: tensor ?? expectSize(reader, size, what, start),
  };
}

/** Writes one entry; the tensor goes into the JSON or, if `binary`, behind it. */
export function writeHttpTensor(
  writer: BodyWriter,
  entry: { readonly name: string; readonly tensor: WireTensor; readonly parameters?: Parameters },
  binary: boolean,
  kind: 'input' | 'output',
): void {
  const { name, tensor } = entry;
  const what = `${kind} '${clip(name)}'`;
  const parameters: Record<string, ParameterValue> = { ...entry.parameters };
  if (Object.hasOwn(parameters, BINARY_DATA_SIZE)) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `${what} has a parameter ${BINARY_DATA_SIZE}, which is set by the encoder`,
    );
  }
  expectWhole(tensor, what);
  const bytes = binary ? encodeTensorBytes(tensor) : undefined;
  if (bytes !== undefined) parameters[BINARY_DATA_SIZE] = bytes.length;
  writer.text(`{"name":${JSON.stringify(name)},"shape":[${tensor.shape.join(',')}],`);
  writer.text(`"datatype":"${DATATYPE_OF[tensor.dtype]}"`);
  if (Object.keys(parameters).length > 0) writer.text(`,"parameters":${parametersJson(parameters, what)}`);
  if (bytes === undefined) {
    writer.text(',"data":');
    writer.bytes(encodeTensorJson(tensor, what));
  } else {
    writer.binary(bytes);
  }
  writer.text('}');
}

function readShape(reader: JsonReader, what: string): number[] {
  const shape: number[] = [];
  reader.array(() => {
    shape.push(reader.integer(0, Number.MAX_SAFE_INTEGER));
    checkLimit(reader.limits, 'maxRank', shape.length, what, 'dimensions or more');
  });
  return shape;
}

function expectSize(reader: JsonReader, value: ParameterValue | undefined, what: string, start: number): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  return reader.fail(`${what} has a ${BINARY_DATA_SIZE} that is no integer ≥ 0`, start);
}
