import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { crowdedModel, nestedModel, richModel } from '../../../../test/rich-model.js';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { ScrimError } from '../errors.js';
import { float32, int64, type Tensor, tensor } from '../tensor.js';
import { attachExternalData, decodeModel, detachExternalData, encodeModel, hasExternalData } from './codec.js';
import { ModelProtoSchema, TensorProtoSchema } from './gen/onnx_pb.js';
import { Graph, OPSET_RANGE } from './graph.js';
import { inferShapes } from './shape-inference.js';
import { dataTypeOf, tensorFromProto, tensorToProto } from './tensor-proto.js';

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ScrimError) return error.code;
    throw error;
  }
  return 'none';
}

/** Appends a field that no ONNX schema has: number 5000, three bytes. */
function withUnknownField(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from([...bytes, 0xc2, 0xb8, 0x02, 3, 1, 2, 3]);
}

describe('a model file', () => {
  it('survives decoding and encoding byte for byte', () => {
    for (const model of [richModel(), crowdedModel()]) {
      const bytes = toBinary(ModelProtoSchema, model);
      expect(encodeModel(decodeModel(bytes))).toEqual(bytes);
      expect(Graph.decode(bytes).encode()).toEqual(bytes);
      expect(Graph.decode(bytes).clone().encode()).toEqual(bytes);
    }
  });

  it('keeps fields that this version of the schema does not know', () => {
    const bytes = withUnknownField(encodeModel(richModel()));
    expect(encodeModel(decodeModel(bytes))).toEqual(bytes);
    expect(Graph.decode(bytes).clone().encode()).toEqual(bytes);
  });

  it('works at every operator set, in the runtime too', async () => {
    for (let opset = OPSET_RANGE.min; opset <= OPSET_RANGE.max; opset++) {
      const functions = opset >= 15;
      const graph = new Graph(richModel(opset, functions));
      expect(graph.opset).toBe(opset);
      expect(inferShapes(graph).get('y')).toEqual({ dtype: 'float32', shape: ['N', 2] });
      const again = Graph.decode(graph.encode());
      expect(again.proto).toEqual(graph.proto);
      const { y } = await runOnnx(again.encode(), { x: sampleTensor('float32', [3, 4]) });
      expect(y?.shape).toEqual([3, 2]);
    }
  });

  it('is read from a Buffer at any offset, as readFileSync gives it', () => {
    const bytes = encodeModel(richModel());
    for (let offset = 0; offset < 4; offset++) {
      const pool = Buffer.alloc(bytes.length + 8);
      pool.set(bytes, offset);
      const graph = Graph.decode(pool.subarray(offset, offset + bytes.length));
      expect(graph.initializer('w')?.data).toEqual(Float32Array.from({ length: 16 }, (_, i) => i / 8 - 1));
    }
  });

  it('keeps every typed data field', () => {
    const graph = Graph.decode(toBinary(ModelProtoSchema, crowdedModel()));
    const values = (name: string): unknown => Array.from(graph.initializer(name)?.data ?? []);
    expect(values('t_float')).toEqual([1.5, -2]);
    expect(values('t_double')).toEqual([1.5, Number.NaN]);
    expect(values('t_half')).toEqual([0x3c00, 0xc000]);
    expect(values('t_bfloat')).toEqual([0x3f80, 0]);
    expect(values('t_int8')).toEqual([-128, 127]);
    expect(values('t_uint8')).toEqual([0, 255]);
    expect(values('t_int16')).toEqual([-32768, 32767]);
    expect(values('t_uint16')).toEqual([0, 65535]);
    expect(values('t_int32')).toEqual([-5, 5]);
    expect(values('t_uint32')).toEqual([0, 4294967295]);
    expect(values('t_int64')).toEqual([-(2n ** 63n), 2n ** 63n - 1n]);
    expect(values('t_uint64')).toEqual([0n, 2n ** 64n - 1n]);
    expect(values('t_bool')).toEqual([0, 1]);
    expect(values('t_string')).toEqual(['a', '日本']);
    expect(codeOf(() => graph.initializer('t_int4'))).toBe('UNSUPPORTED');
    expect(inferShapes(graph).get('t_half')).toEqual({ dtype: 'float16', shape: [2] });
  });
});

describe('tensors in a file', () => {
  const tensors: Tensor[] = [
    float32([2, 2], [1, -0, Number.NaN, Number.POSITIVE_INFINITY]),
    int64([-(2n ** 63n), 5n]),
    tensor('float16', [3], Uint16Array.of(1, 2, 65535)),
    tensor('bool', [2], Uint8Array.of(0, 1)),
    tensor('string', [2], ['', 'ü']),
    tensor('float64', [0, 3]),
    tensor('uint8', [], Uint8Array.of(200)),
  ];

  it('come back as they were, copied', () => {
    for (const value of tensors) {
      const proto = fromBinary(TensorProtoSchema, toBinary(TensorProtoSchema, tensorToProto(value, 'name')));
      expect(dataTypeOf(proto)).toBe(value.dtype);
      expect(tensorFromProto(proto)).toEqual(value);
    }
    const source = float32([1], [1]);
    const proto = tensorToProto(source);
    source.data[0] = 9;
    expect(tensorFromProto(proto).data[0]).toBe(1);
  });

  it('are refused where data and shape disagree', () => {
    const wrong = (fields: Partial<ReturnType<typeof tensorToProto>>): string =>
      codeOf(() => tensorFromProto(Object.assign(tensorToProto(float32([2], [1, 2]), 'w'), fields)));
    expect(wrong({ dims: [3n] })).toBe('INVALID_MODEL');
    expect(wrong({ dims: [-2n] })).toBe('INVALID_MODEL');
    expect(wrong({ dims: [2n ** 60n] })).toBe('INVALID_MODEL');
    expect(wrong({ dims: [2n ** 20n, 2n ** 20n] })).toBe('LIMIT_EXCEEDED');
    expect(wrong({ rawData: new Uint8Array(7) })).toBe('INVALID_MODEL');
    expect(wrong({ rawData: new Uint8Array(0), floatData: [1] })).toBe('INVALID_MODEL');
    expect(wrong({ dataType: 17 })).toBe('UNSUPPORTED');
    expect(wrong({ dataType: 999 })).toBe('UNSUPPORTED');
  });
});

describe('external data', () => {
  it('moves out and comes back, aligned for mapping', async () => {
    const model = crowdedModel();
    const bytes = encodeModel(model);
    const file = detachExternalData(model, 'weights/model.bin', 8);
    expect(hasExternalData(model)).toBe(true);
    const offsets = (model.graph?.initializer ?? []).flatMap(({ externalData }) =>
      externalData.filter(({ key }) => key === 'offset').map(({ value }) => Number(value) % 4096),
    );
    expect(new Set(offsets)).toEqual(new Set([0]));
    expect(offsets.length).toBeGreaterThan(5);
    // Shapes are known without the file.
    expect(inferShapes(new Graph(model)).get('w')).toEqual({ dtype: 'float32', shape: [4, 4] });
    const stored = decodeModel(encodeModel(model));
    expect(codeOf(() => new Graph(stored).initializer('w'))).toBe('INVALID_MODEL');
    attachExternalData(stored, (location) => {
      expect(location).toBe('weights/model.bin');
      return file;
    });
    expect(hasExternalData(stored)).toBe(false);
    const [before, after] = [Graph.decode(bytes), new Graph(stored)];
    for (const name of before.initializerNames) {
      if (name !== 't_int4') expect(after.initializer(name)).toEqual(before.initializer(name));
    }
  });

  it('refuses places outside the folder and ranges outside the file', () => {
    const cases: [key: string, value: string][] = [
      ['location', '../secret'],
      ['location', '/etc/passwd'],
      ['location', 'a\\..\\..\\b'],
      ['location', 'C:\\x'],
      ['location', ''],
      ['location', 'a\0b'],
      ['offset', '-1'],
      ['offset', '1e400'],
      ['offset', 'abc'],
      ['offset', '4096'],
      ['length', '63'],
      ['length', '99999999'],
    ];
    for (const [key, value] of cases) {
      const model = richModel();
      const file = detachExternalData(model, 'w.bin', 64);
      const [weight] = model.graph?.initializer ?? [];
      const entry = weight?.externalData.find((candidate) => candidate.key === key);
      if (entry) entry.value = value;
      expect(
        codeOf(() => attachExternalData(model, () => file)),
        `${key} ${value}`,
      ).toBe('INVALID_MODEL');
      if (key === 'location') {
        expect(codeOf(() => detachExternalData(richModel(), value))).toBe('INVALID_MODEL');
      }
    }
  });
});

describe('a graph that is none', () => {
  it('is refused', () => {
    const change = (edit: (graph: Graph) => void): string => {
      const graph = new Graph(richModel());
      edit(graph);
      return codeOf(() => Graph.decode(encodeModel(graph.model)));
    };
    const node = (graph: Graph, name: string) => graph.proto.node.find((candidate) => candidate.name === name);
    expect(change(() => {})).toBe('none');
    expect(change((graph) => (node(graph, 'project')!.input[0] = 'm'))).toBe('INVALID_MODEL'); // a cycle
    expect(change((graph) => (node(graph, 'project')!.input[0] = 'p'))).toBe('INVALID_MODEL'); // of one
    expect(change((graph) => (node(graph, 'project')!.input[0] = 'nobody'))).toBe('INVALID_MODEL');
    expect(change((graph) => (node(graph, 'largest')!.output[0] = 'q'))).toBe('INVALID_MODEL'); // made twice
    expect(change((graph) => (node(graph, 'largest')!.output[0] = 'x'))).toBe('INVALID_MODEL'); // an input
    expect(change((graph) => (node(graph, 'largest')!.output[0] = 'sparse'))).toBe('INVALID_MODEL');
    expect(change((graph) => (graph.proto.initializer[1]!.name = 'w'))).toBe('INVALID_MODEL');
    expect(change((graph) => graph.proto.input.push(graph.proto.input[0]!))).toBe('INVALID_MODEL');
    expect(change((graph) => (graph.proto.output[0]!.name = 'nobody'))).toBe('INVALID_MODEL');
    // What a subgraph captures has to exist outside.
    expect(change((graph) => (node(graph, 'choose')!.attribute[0]!.g!.node[0]!.input[0] = 'nobody'))).toBe(
      'INVALID_MODEL',
    );
    expect(codeOf(() => decodeModel(new Uint8Array(0)))).toBe('INVALID_MODEL');
    expect(codeOf(() => decodeModel(new TextEncoder().encode('<html>not found</html>')))).toBe('INVALID_MODEL');
  });

  it('is put in order where its nodes are not', () => {
    const graph = new Graph(richModel());
    const names = graph.nodes().map(({ name }) => name);
    graph.proto.node.reverse();
    const again = new Graph(graph.model);
    expect(again.nodes().map(({ name }) => name)).toEqual(names);
  });
});

describe('limits', () => {
  it('hold for size, number of messages and nesting', () => {
    const bytes = encodeModel(richModel());
    expect(codeOf(() => decodeModel(bytes, { maxBytes: bytes.length }))).toBe('none');
    expect(codeOf(() => decodeModel(bytes, { maxBytes: bytes.length - 1 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => decodeModel(bytes, { maxMessages: 20 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => decodeModel(bytes, { maxDepth: 3 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => decodeModel(nestedModel(19)))).toBe('none');
    expect(codeOf(() => decodeModel(nestedModel(22)))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => decodeModel(nestedModel(3000)))).toBe('LIMIT_EXCEEDED');
  });

  it('come before allocation for lengths that a file only claims', () => {
    for (const claim of [
      [0x3a, 0xff, 0xff, 0xff, 0xff, 0x07],
      [0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ]) {
      expect(codeOf(() => decodeModel(Uint8Array.from(claim)))).toBe('INVALID_MODEL');
    }
    // An initializer of 2^62 elements and no data: known by its shape, refused when its elements are asked for.
    const model = richModel();
    model.graph!.initializer[0]!.dims = [2n ** 31n, 2n ** 31n];
    const graph = Graph.decode(encodeModel(model));
    expect(codeOf(() => graph.initializer('w'))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => inferShapes(graph))).toBe('INVALID_MODEL');
  });
});
