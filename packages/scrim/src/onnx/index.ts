/** `scrim/onnx`: read, write, index, edit and build ONNX models. */
export * from './attributes.js';
export * from './bind-inputs.js';
export * from './codec.js';
export * from './extract-graph.js';
export * from './flops.js';
export type { AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from './gen/onnx_pb.js';
export { AttributeProto_AttributeType, ModelProtoSchema } from './gen/onnx_pb.js';
export * from './graph.js';
export { isSteady } from './is-steady.js';
export { usedBy } from './node-scope.js';
export * from './pad-conv-channels.js';
export * from './raise-opset.js';
export * from './shape-inference.js';
export * from './tensor-proto.js';
export * from './to-float32.js';
export * from './value-info.js';
