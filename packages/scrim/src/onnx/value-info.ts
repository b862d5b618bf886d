/** Element type and shape of a value, between ONNX's `ValueInfoProto` and plain objects. */
import { create } from '@bufbuild/protobuf';
import type { DataType } from '../tensor.js';
import {
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from './gen/onnx_pb.js';
import { dataTypeCode, dataTypeFromCode } from './tensor-proto.js';

/** A dimension: its size, the name of a symbolic size, or '' if nothing is known. */
export type Dimension = number | string;

/** Element type and shape; an undefined shape means that not even the rank is known. */
export interface ValueType {
  readonly dtype: DataType;
  readonly shape: readonly Dimension[] | undefined;
}

/** Writes a tensor type. */
export function valueInfo(name: string, type: ValueType): ValueInfoProto {
  const { shape } = type;
  const tensorType = create(TypeProto_TensorSchema, { elemType: dataTypeCode(type.dtype) });
  if (shape) {
    tensorType.shape = create(TensorShapeProtoSchema, {
      dim: shape.map((dimension) =>
        create(TensorShapeProto_DimensionSchema, {
          value:
            typeof dimension === 'number'
              ? { case: 'dimValue', value: BigInt(dimension) }
              : dimension === ''
                ? { case: undefined }
                : { case: 'dimParam', value: dimension },
        }),
      ),
    });
  }
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, { value: { case: 'tensorType', value: tensorType } }),
  });
}

/** Reads a tensor type; undefined for sequences, maps and element types without an array here. */
export function readValueInfo(proto: ValueInfoProto): ValueType | undefined {
  const value = proto.type?.value;
  if (value?.case !== 'tensorType') return undefined;
  const dtype = dataTypeFromCode(value.value.elemType);
  if (!dtype) return undefined;
  const shape = value.value.shape?.dim.map((dimension): Dimension => {
    if (dimension.value.case === 'dimValue') {
      const size = Number(dimension.value.value);
      return size >= 0 ? size : '';
    }
    return dimension.value.case === 'dimParam' ? dimension.value.value : '';
  });
  return { dtype, shape };
}
