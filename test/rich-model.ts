/**
 * A small model that uses most of what an ONNX file can hold: functions with attributes passed on, subgraphs that
 * capture, sparse initializers, every typed data field, metadata, training information, quantisation annotations.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  FunctionProtoSchema,
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  SparseTensorProtoSchema,
  StringStringEntryProtoSchema,
  TensorAnnotationSchema,
  TensorProto_DataType,
  TensorProtoSchema,
  TrainingInfoProtoSchema,
} from '../packages/scrim/src/onnx/gen/onnx_pb.js';
import { float, Graph, tensorToProto, valueInfo } from '../packages/scrim/src/onnx/index.js';
import { float32, int64 } from '../packages/scrim/src/tensor.js';

function subgraph(name: string, nodes: readonly (readonly [string, readonly string[], string])[]): GraphProto {
  return create(GraphProtoSchema, {
    name,
    node: nodes.map(([opType, input, output], i) =>
      create(NodeProtoSchema, { name: `${name}_${i}`, opType, input: [...input], output: [output] }),
    ),
    output: [valueInfo(nodes.at(-1)?.[2] ?? '', { dtype: 'float32', shape: undefined })],
  });
}

/** The model: x [N, 4] -> y [N, 2], runnable; `opset` from 11 to 22 (functions need 15 or more of the runtime). */
export function richModel(opset = 17, functions = true): ModelProto {
  const graph = Graph.create({ opset, name: 'rich' });
  graph.addInput('x', 'float32', ['N', 4]);
  graph.addInitializer(
    'w',
    float32(
      [4, 4],
      Array.from({ length: 16 }, (_, i) => i / 8 - 1),
    ),
  );
  graph.add('MatMul', ['x', 'w'], {}, { name: 'project', outputs: ['p'] });
  graph.addInitializer('two', float32([], [2]));
  let last = 'p';
  if (functions) {
    last = graph.add('Scaled', ['p', 'two'], { slope: float(0.25) }, { domain: 'custom', outputs: ['s'] });
  }
  graph.proto.sparseInitializer.push(
    create(SparseTensorProtoSchema, {
      values: tensorToProto(float32([2], [3, 4]), 'sparse'),
      indices: tensorToProto(int64([0, 5], [2]), ''),
      dims: [4n, 2n],
    }),
  );
  const again = new Graph(graph.model);
  again.add('MatMul', [last, 'sparse'], {}, { name: 'sparse_project', outputs: ['q'] });
  again.addInitializer('zero', float32([], [0]));
  again.add('ReduceMax', ['q'], { keepdims: 0 }, { name: 'largest', outputs: ['m'] });
  again.add('Greater', ['m', 'zero'], {}, { name: 'compare', outputs: ['c'] });
  again.add(
    'If',
    ['c'],
    {
      then_branch: subgraph('yes', [['Relu', ['q'], 'yes_out']]),
      else_branch: subgraph('no', [
        ['Neg', ['q'], 'no_neg'],
        ['Add', ['no_neg', 'm'], 'no_out'],
      ]),
    },
    { name: 'choose', outputs: ['y'] },
  );
  again.addOutput('y', 'float32', ['N', 2]);
  const { model } = again;
  model.producerVersion = '1.2.3';
  model.docString = 'rich';
  model.metadataProps.push(create(StringStringEntryProtoSchema, { key: 'author', value: 'тест' }));
  again.proto.valueInfo.push(valueInfo('p', { dtype: 'float32', shape: ['N', 4] }));
  again.proto.quantizationAnnotation.push(
    create(TensorAnnotationSchema, {
      tensorName: 'p',
      quantParameterTensorNames: [create(StringStringEntryProtoSchema, { key: 'SCALE_TENSOR', value: 'two' })],
    }),
  );
  if (!functions) return model;
  model.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: 'custom', version: 1n }));
  model.functions.push(
    create(FunctionProtoSchema, {
      name: 'Scaled',
      domain: 'custom',
      input: ['value', 'factor'],
      output: ['result'],
      attribute: ['slope'],
      opsetImport: [create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(opset) })],
      node: [
        create(NodeProtoSchema, {
          opType: 'LeakyRelu',
          input: ['value'],
          output: ['leaky'],
          attribute: [
            create(AttributeProtoSchema, {
              name: 'alpha',
              refAttrName: 'slope',
              type: AttributeProto_AttributeType.FLOAT,
            }),
          ],
        }),
        create(NodeProtoSchema, { opType: 'Mul', input: ['leaky', 'factor'], output: ['result'] }),
      ],
    }),
  );
  return model;
}

/** {@link richModel} with what no runtime runs but a file may hold: every typed data field, training information. */
export function crowdedModel(): ModelProto {
  const model = richModel();
  const { initializer } = model.graph as GraphProto;
  const typed = (
    name: string,
    dataType: TensorProto_DataType,
    fields: Parameters<typeof create<typeof TensorProtoSchema>>[1],
  ): void => {
    initializer.push(Object.assign(create(TensorProtoSchema, fields), { name, dataType, dims: [2n] }));
  };
  const Type = TensorProto_DataType;
  typed('t_float', Type.FLOAT, { floatData: [1.5, -2] });
  typed('t_double', Type.DOUBLE, { doubleData: [1.5, Number.NaN] });
  typed('t_half', Type.FLOAT16, { int32Data: [0x3c00, 0xc000] });
  typed('t_bfloat', Type.BFLOAT16, { int32Data: [0x3f80, 0] });
  typed('t_int8', Type.INT8, { int32Data: [-128, 127] });
  typed('t_uint8', Type.UINT8, { int32Data: [0, 255] });
  typed('t_int16', Type.INT16, { int32Data: [-32768, 32767] });
  typed('t_uint16', Type.UINT16, { int32Data: [0, 65535] });
  typed('t_int32', Type.INT32, { int32Data: [-5, 5] });
  typed('t_uint32', Type.UINT32, { uint64Data: [0n, 4294967295n] });
  typed('t_int64', Type.INT64, { int64Data: [-(2n ** 63n), 2n ** 63n - 1n] });
  typed('t_uint64', Type.UINT64, { uint64Data: [0n, 2n ** 64n - 1n] });
  typed('t_bool', Type.BOOL, { int32Data: [0, 1] });
  typed('t_string', Type.STRING, { stringData: [new TextEncoder().encode('a'), new TextEncoder().encode('日本')] });
  typed('t_int4', Type.INT4, { int32Data: [0x21] });
  model.trainingInfo.push(create(TrainingInfoProtoSchema, { algorithm: subgraph('training', [['Neg', ['g'], 'h']]) }));
  return model;
}

/** `count` Ifs inside one another, written from the inside out without any recursion. */
export function nestedModel(count: number): Uint8Array {
  const join = (...parts: Uint8Array[]): Uint8Array => {
    const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  };
  const field = (number: number, bytes: Uint8Array): Uint8Array => {
    const header: number[] = [number * 8 + 2];
    let length = bytes.length;
    for (; length >= 128; length = Math.floor(length / 128)) header.push((length % 128) + 128);
    return join(Uint8Array.from([...header, length]), bytes);
  };
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  let graph: Uint8Array = toBinary(GraphProtoSchema, subgraph('innermost', [['Relu', ['x'], 'r']]));
  for (let i = 0; i < count; i++) {
    const attribute = join(field(1, text('then_branch')), field(6, graph));
    const node = join(field(2, text(`y${i}`)), field(4, text('If')), field(5, attribute));
    graph = join(field(1, node), field(2, text('g')));
  }
  return field(7, graph);
}
