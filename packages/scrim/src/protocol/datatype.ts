/**
 * Element types of the v2 protocol and their counterparts in this project.
 *
 * Names and sizes: Open Inference Protocol, "Tensor Data Types"; BYTES elements vary in size, and FP16 and BF16 have
 * no JSON form (Triton's binary tensor data extension). Bytes and JSON of whole tensors are written elsewhere.
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { BYTES_PER_ELEMENT, type DataType } from '../tensor.js';

/** Element type as the v2 protocol names it. */
export type Datatype =
  | 'BOOL'
  | 'UINT8'
  | 'UINT16'
  | 'UINT32'
  | 'UINT64'
  | 'INT8'
  | 'INT16'
  | 'INT32'
  | 'INT64'
  | 'FP16'
  | 'BF16'
  | 'FP32'
  | 'FP64'
  | 'BYTES';

/** Element type of a decoded tensor: `string` never comes off the wire, `bytes` does. */
export type WireDtype = Exclude<DataType, 'string'> | 'bytes';

/** The element type of this project for each of the protocol's. */
export const DTYPE_OF: Readonly<Record<Datatype, WireDtype>> = {
  BOOL: 'bool',
  UINT8: 'uint8',
  UINT16: 'uint16',
  UINT32: 'uint32',
  UINT64: 'uint64',
  INT8: 'int8',
  INT16: 'int16',
  INT32: 'int32',
  INT64: 'int64',
  FP16: 'float16',
  BF16: 'bfloat16',
  FP32: 'float32',
  FP64: 'float64',
  BYTES: 'bytes',
};

/** The protocol's element type for each of this project; strings travel as BYTES in UTF-8. */
export const DATATYPE_OF: Readonly<Record<DataType | 'bytes', Datatype>> = {
  bool: 'BOOL',
  uint8: 'UINT8',
  uint16: 'UINT16',
  uint32: 'UINT32',
  uint64: 'UINT64',
  int8: 'INT8',
  int16: 'INT16',
  int32: 'INT32',
  int64: 'INT64',
  float16: 'FP16',
  bfloat16: 'BF16',
  float32: 'FP32',
  float64: 'FP64',
  string: 'BYTES',
  bytes: 'BYTES',
};

/** True for the name of an element type, such as 'FP32'. */
export function isDatatype(name: string): name is Datatype {
  return Object.hasOwn(DTYPE_OF, name);
}

/** Narrows `name` to an element type; throws `code` naming `what` if it is none. */
export function expectDatatype(name: string, what: string, code: ScrimErrorCode = 'INVALID_ARGUMENT'): Datatype {
  if (isDatatype(name)) return name;
  const shown = name.length > 32 ? `${name.slice(0, 32)}…` : name;
  throw new ScrimError(code, `${what} has datatype '${shown}', expected one of ${Object.keys(DTYPE_OF).join(', ')}`);
}

/** Bytes of one element; 0 for BYTES, whose elements vary. */
export function bytesPerElement(datatype: Datatype): number {
  const dtype = DTYPE_OF[datatype];
  return dtype === 'bytes' ? 0 : BYTES_PER_ELEMENT[dtype];
}

/** False for FP16 and BF16, which only travel as binary data. */
export function hasJsonForm(datatype: Datatype): boolean {
  return datatype !== 'FP16' && datatype !== 'BF16';
}
