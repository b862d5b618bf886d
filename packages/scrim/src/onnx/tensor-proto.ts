/**
 * Between ONNX's `TensorProto` and our `Tensor`.
 *
 * Follows the comments on TensorProto in the ONNX schema: raw_data is little-endian and row-major; without it small
 * integer and 16-bit float types sit in int32_data, one element each. Types below one byte and 8-bit floats are not
 * tensors here and are named as unsupported.
 */
import { create } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import { allocate, BYTES_PER_ELEMENT, type DataType, sizeOf, type Tensor, tensor } from '../tensor.js';
import { type TensorProto, TensorProto_DataLocation, TensorProto_DataType, TensorProtoSchema } from './gen/onnx_pb.js';

const CODES: Readonly<Record<DataType, TensorProto_DataType>> = {
  float32: TensorProto_DataType.FLOAT,
  float64: TensorProto_DataType.DOUBLE,
  float16: TensorProto_DataType.FLOAT16,
  bfloat16: TensorProto_DataType.BFLOAT16,
  int8: TensorProto_DataType.INT8,
  uint8: TensorProto_DataType.UINT8,
  int16: TensorProto_DataType.INT16,
  uint16: TensorProto_DataType.UINT16,
  int32: TensorProto_DataType.INT32,
  uint32: TensorProto_DataType.UINT32,
  int64: TensorProto_DataType.INT64,
  uint64: TensorProto_DataType.UINT64,
  bool: TensorProto_DataType.BOOL,
  string: TensorProto_DataType.STRING,
};

const TYPES: ReadonlyMap<number, DataType> = new Map(
  Object.entries(CODES).map(([name, code]) => [code, name as DataType]),
);

/** ONNX's number for an element type. */
export function dataTypeCode(dtype: DataType): TensorProto_DataType {
  return CODES[dtype];
}

/** The element type of ONNX's number, undefined for one that has no typed array here. */
export function dataTypeFromCode(code: number): DataType | undefined {
  return TYPES.get(code);
}

/**
 * Element type of a tensor.
 * @throws ScrimError UNSUPPORTED for element types without a typed array (complex, 8-bit floats, 4-bit integers).
 */
export function dataTypeOf(proto: TensorProto): DataType {
  const dtype = TYPES.get(proto.dataType);
  if (dtype === undefined) {
    const name = TensorProto_DataType[proto.dataType] ?? String(proto.dataType);
    throw new ScrimError('UNSUPPORTED', `tensor '${proto.name}' has element type ${name}, which has no array here`);
  }
  return dtype;
}

/**
 * Shape of a stored tensor.
 * @throws ScrimError INVALID_MODEL for a dimension below zero or beyond exact integers.
 */
export function dimsOf(proto: TensorProto): number[] {
  const shape = proto.dims.map(Number);
  if (!shape.every((dimension) => Number.isSafeInteger(dimension) && dimension >= 0)) {
    throw new ScrimError('INVALID_MODEL', `tensor '${proto.name}' has shape [${proto.dims.join(', ')}]`);
  }
  return shape;
}

const textDecoder = new TextDecoder();
const textEncoder = new TextEncoder();

/**
 * Reads a tensor. The data is a view of the message's bytes where alignment allows, else a copy: treat it as read-only.
 * @throws ScrimError INVALID_MODEL if data and shape disagree or the data is external and was not attached,
 * LIMIT_EXCEEDED for more elements than an array can have, UNSUPPORTED as {@link dataTypeOf}.
 */
export function tensorFromProto(proto: TensorProto): Tensor {
  const dtype = dataTypeOf(proto);
  const shape = dimsOf(proto);
  const size = sizeOf(shape);
  const wrong = (found: number, unit: string): ScrimError =>
    new ScrimError(
      'INVALID_MODEL',
      `tensor '${proto.name}' of shape [${shape.join(', ')}] has ${found} ${unit}, expected ${size}`,
    );
  if (proto.dataLocation === TensorProto_DataLocation.EXTERNAL) {
    throw new ScrimError('INVALID_MODEL', `tensor '${proto.name}' is kept in an external file that was not read`);
  }
  if (dtype === 'string') {
    if (proto.stringData.length !== size) throw wrong(proto.stringData.length, 'strings');
    return tensor(
      'string',
      shape,
      proto.stringData.map((bytes) => textDecoder.decode(bytes)),
    );
  }
  const width = BYTES_PER_ELEMENT[dtype];
  if (proto.rawData.length > 0 || size === 0) {
    if (proto.rawData.length !== size * width) throw wrong(proto.rawData.length / width, 'elements in raw_data');
    return tensor(dtype, shape, view(dtype, proto.rawData));
  }
  const values: readonly (number | bigint)[] =
    dtype === 'float32'
      ? proto.floatData
      : dtype === 'float64'
        ? proto.doubleData
        : dtype === 'int64'
          ? proto.int64Data
          : dtype === 'uint64' || dtype === 'uint32'
            ? proto.uint64Data
            : proto.int32Data;
  if (values.length !== size) throw wrong(values.length, 'elements');
  const data = allocate(dtype, size) as { [index: number]: number | bigint };
  const big = dtype === 'int64' || dtype === 'uint64';
  values.forEach((value, i) => {
    data[i] = big ? BigInt(value) : Number(value);
  });
  return tensor(dtype, shape, data as never);
}

/** Writes a tensor as raw bytes (strings as string_data). The bytes are copied. */
export function tensorToProto(value: Tensor, name = ''): TensorProto {
  const proto = create(TensorProtoSchema, {
    name,
    dims: value.shape.map(BigInt),
    dataType: CODES[value.dtype],
  });
  if (value.dtype === 'string') {
    proto.stringData = (value as Tensor<'string'>).data.map((text) => textEncoder.encode(text));
  } else {
    const data = value.data as Float32Array;
    proto.rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  }
  return proto;
}

function view(dtype: Exclude<DataType, 'string'>, bytes: Uint8Array): never {
  const width = BYTES_PER_ELEMENT[dtype];
  // Not bytes.slice(): on Node's Buffer, a Uint8Array too, that is another view.
  const aligned = bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);
  const sample = allocate(dtype, 0) as Float32Array;
  const Constructor = sample.constructor as Float32ArrayConstructor;
  return new Constructor(aligned.buffer as ArrayBuffer, aligned.byteOffset, aligned.length / width) as never;
}
