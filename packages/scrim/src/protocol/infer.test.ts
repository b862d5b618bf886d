/** Requests and responses of every element type through JSON, binary data and gRPC, and what is refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { allocate, int64, type Tensor, tensor } from '../tensor.js';
import {
  bytesTensor,
  createLimits,
  DATATYPE_OF,
  type Datatype,
  type DecodeRequestOptions,
  DTYPE_OF,
  decodeInferRequest,
  decodeInferResponse,
  decodeMessage,
  type EncodedBody,
  encodeInferRequest,
  encodeInferResponse,
  encodeMessage,
  hasJsonForm,
  type InferRequest,
  type InferResponse,
  inferRequestFromMessage,
  inferRequestToMessage,
  inferResponseFromMessage,
  inferResponseToMessage,
  joinBody,
  outputsAsBinary,
  type ParameterValue,
  parseHeaderLength,
  pb,
  toBytes,
  toStrings,
  type WireTensor,
} from './index.js';
import { LITTLE_ENDIAN, swapBytes } from './tensor-bytes.js';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 });

/** A tensor of any shape and any values. `text` keeps BYTES to valid UTF-8, which is what JSON can carry. */
function tensors(datatype: Datatype, text = false): fc.Arbitrary<WireTensor> {
  const dtype = DTYPE_OF[datatype];
  return shapes.chain((shape): fc.Arbitrary<WireTensor> => {
    const size = shape.reduce((product, dimension) => product * dimension, 1);
    if (dtype === 'bytes') {
      const element = text ? fc.string({ unit: 'grapheme' }).map(utf8) : fc.uint8Array({ maxLength: 12 });
      return fc.array(element, { minLength: size, maxLength: size }).map((data) => bytesTensor(shape, data));
    }
    const array = allocate(dtype, size);
    const bits = array.BYTES_PER_ELEMENT * 8;
    const signed = dtype.startsWith('int');
    const high = 2n ** BigInt(signed ? bits - 1 : bits) - 1n;
    const value: fc.Arbitrary<number | bigint> =
      dtype === 'float32'
        ? fc.float()
        : dtype === 'float64'
          ? fc.double()
          : dtype === 'bool'
            ? fc.integer({ min: 0, max: 1 })
            : fc.bigInt({ min: signed ? -high - 1n : 0n, max: high }).map((n) => (bits === 64 ? n : Number(n)));
    return fc.array(value, { minLength: size, maxLength: size }).map((values) => {
      const data = allocate(dtype, size);
      for (const [i, element] of values.entries()) data[i] = element as never;
      return tensor(dtype, shape, data) as Tensor;
    });
  });
}

function options(body: EncodedBody): DecodeRequestOptions {
  return { modelName: 'm', ...(body.headerLength === undefined ? {} : { headerLength: body.headerLength }) };
}
const overHttp = (request: InferRequest): InferRequest => {
  const body = encodeInferRequest(request);
  return decodeInferRequest(joinBody(body), options(body));
};
const overGrpc = (request: InferRequest): InferRequest =>
  inferRequestFromMessage(
    decodeMessage(
      pb.ModelInferRequestSchema,
      encodeMessage(pb.ModelInferRequestSchema, inferRequestToMessage(request)),
    ),
  );

function refusal(run: () => unknown, code: ScrimErrorCode = 'INVALID_ARGUMENT'): string {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(ScrimError);
    expect((error as ScrimError).code).toBe(code);
    return (error as ScrimError).message;
  }
  throw new Error('nothing was thrown');
}

describe.each(Object.keys(DTYPE_OF) as Datatype[])('%s', (datatype) => {
  const check = (text: boolean, binary: boolean): void => {
    const pair = fc.array(tensors(datatype, text), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(pair, (list) => {
        const inputs = list.map((entry, i) => ({ name: `x${i}`, tensor: entry, binary }));
        const decoded = overHttp({ modelName: 'm', inputs });
        expect(decoded.inputs).toEqual(inputs);
        const response: InferResponse = {
          modelName: 'm',
          outputs: list.map((entry, i) => ({ name: `y${i}`, tensor: entry })),
        };
        const body = encodeInferResponse(response, binary);
        expect(decodeInferResponse(joinBody(body), options(body))).toEqual(response);
      }),
      { seed: 5, numRuns: 60 },
    );
  };

  it('survives binary data', () => check(false, true));
  it(hasJsonForm(datatype) ? 'survives JSON' : 'has no JSON form', () => {
    if (hasJsonForm(datatype)) {
      check(true, false);
      return;
    }
    const dtype = DTYPE_OF[datatype] as 'float16';
    const inputs = [{ name: 'x', tensor: tensor(dtype, [1]), binary: false }];
    expect(refusal(() => encodeInferRequest({ modelName: 'm', inputs }))).toContain('no JSON form');
    const body = utf8(`{"inputs":[{"name":"x","shape":[1],"datatype":"${datatype}","data":[1]}]}`);
    expect(refusal(() => decodeInferRequest(body, { modelName: 'm' }))).toContain('no JSON form');
  });

  it('survives gRPC', () => {
    fc.assert(
      fc.property(tensors(datatype), (entry) => {
        const inputs = [{ name: 'x', tensor: entry, binary: true }];
        expect(overGrpc({ modelName: 'm', inputs }).inputs).toEqual(inputs);
        const response: InferResponse = { modelName: 'm', outputs: [{ name: 'y', tensor: entry }] };
        const bytes = encodeMessage(pb.ModelInferResponseSchema, inferResponseToMessage(response));
        expect(inferResponseFromMessage(decodeMessage(pb.ModelInferResponseSchema, bytes))).toEqual(response);
      }),
      { seed: 6, numRuns: 60 },
    );
  });
});

describe('a request', () => {
  const parameterValue: fc.Arbitrary<ParameterValue> = fc.oneof(
    fc.string(),
    fc.boolean(),
    fc.maxSafeInteger(),
    fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
    fc.double({ noInteger: true }),
    fc.integer().map((double) => ({ double })),
  );
  const settings = fc.record(
    {
      modelVersion: fc.constantFrom('1', '42'),
      id: fc.string({ minLength: 1 }),
      priority: fc.oneof(fc.nat(), fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n })),
      timeoutUs: fc.nat(),
      parameters: fc.dictionary(fc.stringMatching(/^x[a-z_]*$/), parameterValue, { minKeys: 1 }),
    },
    { requiredKeys: [] },
  );
  const sequence = fc.option(
    fc.record({
      sequenceId: fc.oneof(fc.nat(), fc.string(), fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n })),
      sequenceStart: fc.boolean(),
      sequenceEnd: fc.boolean(),
    }),
  );
  const inputs = [{ name: 'x', tensor: int64([1n, 2n]), binary: true }];

  it('keeps its settings over HTTP and gRPC', () => {
    fc.assert(
      fc.property(settings, sequence, (some, more) => {
        const request: InferRequest = { modelName: 'm', inputs, ...some, ...more };
        const { modelVersion: _, ...sent } = request;
        expect(overHttp(request)).toEqual({ ...sent, binaryOutputs: true });
        expect(overGrpc(request)).toEqual(request);
      }),
      { seed: 7, numRuns: 150 },
    );
  });

  it('says how each output comes', () => {
    const plain = overHttp({
      modelName: 'm',
      inputs,
      binaryOutputs: false,
      outputs: [{ name: 'a' }, { name: 'b', binary: true }],
    });
    expect(plain.outputs).toEqual([
      { name: 'a', binary: false },
      { name: 'b', binary: true },
    ]);
    const none = decodeInferRequest(utf8('{"inputs":[]}'), { modelName: 'm' });
    expect(outputsAsBinary(none)('any')).toBe(false);
    const byDefault = decodeInferRequest(
      utf8(
        '{"inputs":[],"parameters":{"binary_data_output":true},"outputs":[{"name":"a","parameters":{"binary_data":false}},{"name":"b"}]}',
      ),
      { modelName: 'm' },
    );
    expect(['a', 'b', 'c'].map(outputsAsBinary(byDefault))).toEqual([false, true, true]);
  });

  it('is read whatever the order of its members', () => {
    const body = utf8(
      '{"inputs":[{"data":[[1,2],[3.5,NaN]],"x":{"y":[1]},"datatype":"FP32","shape":[2,2],"name":"x"}],"extra":null}',
    );
    const [input] = decodeInferRequest(body, { modelName: 'm' }).inputs;
    expect(input?.tensor).toEqual(tensor('float32', [2, 2], Float32Array.of(1, 2, 3.5, Number.NaN)));
  });

  it('reads an array nested in any way by the number of its elements', () => {
    const data = (text: string) => () =>
      decodeInferRequest(utf8(`{"inputs":[{"name":"x","shape":[2,2],"datatype":"INT32","data":${text}}]}`), {
        modelName: 'm',
      });
    for (const text of ['[1,2,3,4]', '[[1,2],[3,4]]', '[[[[1]],[2]],[3,4],[]]', ' [ 1 , 2 , [ ] , 3 , 4 ] ']) {
      expect([...(data(text)().inputs[0]!.tensor.data as Int32Array)]).toEqual([1, 2, 3, 4]);
    }
    for (const text of [
      '[1,2,3]',
      '[1,2,3,4,5]',
      '[]',
      '[1,2,3,4',
      '[1,2,3,4,]',
      '[1 2,3,4]',
      '[1,2,3,"4"]',
      '7',
      '{}',
    ]) {
      refusal(data(text));
    }
  });

  it('shares memory with the body where it is aligned', () => {
    const data = Float32Array.from({ length: 8 }, (_, i) => i);
    const body = encodeInferRequest({ modelName: 'm', inputs: [{ name: 'x', tensor: tensor('float32', [8], data) }] });
    expect(body.parts.at(-1)?.buffer).toBe(data.buffer);
    expect((body.headerLength ?? 1) % 8).toBe(0);
    const bytes = joinBody(body);
    const decoded = decodeInferRequest(bytes, options(body)).inputs[0]?.tensor as Tensor<'float32'>;
    expect(decoded.data.buffer).toBe(bytes.buffer);
    const shifted = new Uint8Array(bytes.length + 1).subarray(1);
    shifted.set(bytes);
    const copied = decodeInferRequest(shifted, options(body)).inputs[0]?.tensor as Tensor<'float32'>;
    expect(copied.data.buffer).not.toBe(shifted.buffer);
    expect(copied.data).toEqual(data);
  });

  it('can be brought into the order of a big-endian machine', () => {
    expect(LITTLE_ENDIAN).toBe(true);
    expect([...swapBytes(Uint8Array.of(1, 2, 3, 4), 2)]).toEqual([2, 1, 4, 3]);
    expect([...swapBytes(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), 8)]).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
  });

  it('makes booleans 0 or 1', () => {
    const json = '{"inputs":[{"name":"x","shape":[3],"datatype":"BOOL","parameters":{"binary_data_size":3}}]}';
    const body = Uint8Array.of(...utf8(json), 0, 1, 255);
    const request = decodeInferRequest(body, { modelName: 'm', headerLength: json.length });
    expect([...(request.inputs[0]!.tensor.data as Uint8Array)]).toEqual([0, 1, 1]);
  });

  it('sends text as BYTES', () => {
    const words = tensor('string', [2], ['grün', '🎭']);
    const [input] = overHttp({ modelName: 'm', inputs: [{ name: 'x', tensor: words }] }).inputs;
    expect(input?.tensor).toEqual(toBytes(words));
    expect(toStrings(input?.tensor as ReturnType<typeof toBytes>)).toEqual(words);
    refusal(() => toStrings(bytesTensor([1], [Uint8Array.of(0xff)])), 'INVALID_DATA');
    expect(
      refusal(() =>
        encodeInferResponse(
          { modelName: 'm', outputs: [{ name: 'y', tensor: bytesTensor([1], [Uint8Array.of(0xff)]) }] },
          false,
        ),
      ),
    ).toContain('not UTF-8');
  });
});

describe('a raw request', () => {
  const floats = new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer);
  const raw = (dims: number[], datatype: Datatype, batched = false, body: Uint8Array = floats) =>
    decodeInferRequest(body, { modelName: 'm', headerLength: 0, rawInput: { name: 'x', datatype, dims, batched } });

  it('takes its shape from the model', () => {
    expect(raw([2, -1], 'FP32', true).inputs[0]?.tensor.shape).toEqual([1, 2, 3]);
    expect(raw([6], 'FP32').inputs[0]?.tensor.data).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
    expect(raw([1], 'BYTES').inputs[0]?.tensor).toEqual(bytesTensor([1], [floats]));
    expect(outputsAsBinary(raw([6], 'FP32'))('y')).toBe(true);
  });
  it('is refused where the shape can not be told', () => {
    refusal(() => raw([-1, -1], 'FP32'));
    refusal(() => raw([4, -1], 'FP32'));
    refusal(() => raw([5], 'FP32'));
    refusal(() => raw([-1], 'BYTES'));
    refusal(() => raw([2], 'BYTES'));
    refusal(() => raw([0, -1], 'FP32'));
    refusal(() => decodeInferRequest(floats, { modelName: 'm', headerLength: 0 }));
  });
});

describe('what is refused', () => {
  const head = (text: string) => () => decodeInferRequest(utf8(text), { modelName: 'm' });
  const entry = (members: string) => head(`{"inputs":[{${members}}]}`);
  const good = '"name":"x","shape":[1],"datatype":"INT8"';

  it.each([
    ['no inputs', head('{}'), 'no inputs'],
    ['no object', head('[]'), 'expected an object'],
    ['an empty body', head(''), 'found the end'],
    ['no name', entry('"shape":[1],"datatype":"INT8","data":[1]'), 'no name'],
    ['no shape', entry('"name":"x","datatype":"INT8","data":[1]'), 'no shape'],
    ['no datatype', entry('"name":"x","shape":[1],"data":[1]'), 'no datatype'],
    ['an unknown datatype', entry('"name":"x","shape":[1],"datatype":"FP8","data":[1]'), "datatype 'FP8'"],
    ['neither data nor size', entry(good), 'neither'],
    ['both data and size', entry(`${good},"data":[1],"parameters":{"binary_data_size":1}`), 'both'],
    ['a size without bytes', entry(`${good},"parameters":{"binary_data_size":1}`), 'binary_data_size 1'],
    ['a size that is no integer', entry(`${good},"parameters":{"binary_data_size":"1"}`), 'no integer'],
    ['a negative dimension', entry('"name":"x","shape":[-1],"datatype":"INT8","data":[1]'), 'out of the range'],
    ['a fraction as dimension', entry('"name":"x","shape":[1.5],"datatype":"INT8","data":[1]'), 'expected an integer'],
    ['an element out of range', entry(`${good},"data":[128]`), 'out of the range'],
    ['a number as boolean', entry('"name":"x","shape":[1],"datatype":"BOOL","data":[1]'), 'true or false'],
    ['a number as bytes', entry('"name":"x","shape":[1],"datatype":"BYTES","data":[1]'), 'a string'],
    ['an input twice', head(`{"inputs":[{${good},"data":[1]},{${good},"data":[1]}]}`), 'twice'],
    ['an output twice', head('{"inputs":[],"outputs":[{"name":"a"},{"name":"a"}]}'), 'twice'],
    ['an output without name', head('{"inputs":[],"outputs":[{}]}'), 'no name'],
    ['a reserved parameter', head('{"inputs":[],"parameters":{"triton_x":1}}'), 'reserved'],
    [
      'a reserved parameter gRPC has',
      head('{"inputs":[],"parameters":{"triton_enable_empty_final_response":true}}'),
      'reserved',
    ],
    ['an object as parameter', head('{"inputs":[],"parameters":{"x":{}}}'), 'no string, number or boolean'],
    ['a timeout that is no count', head('{"inputs":[],"parameters":{"timeout":-1}}'), "'timeout'"],
    [
      'a classification that is no count',
      head('{"inputs":[],"outputs":[{"name":"a","parameters":{"classification":"3"}}]}'),
      'classification',
    ],
    ['something behind', head('{"inputs":[]} {}'), 'expected the end'],
  ])('%s', (_, run, message) => {
    expect(refusal(run)).toContain(message);
  });

  it('shared memory', () => {
    refusal(entry(`${good},"parameters":{"shared_memory_region":"r"}`), 'UNSUPPORTED');
    refusal(head('{"inputs":[],"outputs":[{"name":"a","parameters":{"shared_memory_region":"r"}}]}'), 'UNSUPPORTED');
    const message = inferRequestToMessage({
      modelName: 'm',
      inputs: [{ name: 'x', tensor: int64([1]), parameters: { shared_memory_region: 'r' } }],
    });
    refusal(() => inferRequestFromMessage({ ...message, rawInputContents: [] }), 'UNSUPPORTED');
  });

  it('binary data of another size', () => {
    const json = (size: number) =>
      utf8(`{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":${size}}}]}`);
    const send = (size: number, bytes: number, headerLength?: number) => () => {
      const header = json(size);
      return decodeInferRequest(Uint8Array.of(...header, ...new Uint8Array(bytes)), {
        modelName: 'm',
        headerLength: headerLength ?? header.length,
      });
    };
    expect(send(8, 8)().inputs).toHaveLength(1);
    expect(refusal(send(8, 7))).toContain('7 bytes');
    expect(refusal(send(8, 9))).toContain('belong to no tensor');
    expect(refusal(send(7, 7))).toContain('expected 8');
    expect(refusal(send(8, 8, 1000))).toContain('Inference-Header-Content-Length');
    for (const value of ['-1', '1.5', 'x', '1e3', ' 1', '']) refusal(() => parseHeaderLength(value));
    expect([parseHeaderLength('0'), parseHeaderLength('12'), parseHeaderLength(null)]).toEqual([0, 12, undefined]);
  });

  it('BYTES whose lengths do not add up', () => {
    const send = (bytes: number[], shape: number) => () => {
      const header = utf8(
        `{"inputs":[{"name":"x","shape":[${shape}],"datatype":"BYTES","parameters":{"binary_data_size":${bytes.length}}}]}`,
      );
      return decodeInferRequest(Uint8Array.of(...header, ...bytes), { modelName: 'm', headerLength: header.length });
    };
    expect(send([1, 0, 0, 0, 65, 0, 0, 0, 0], 2)().inputs[0]?.tensor.data).toEqual([
      Uint8Array.of(65),
      new Uint8Array(0),
    ]);
    expect(refusal(send([2, 0, 0, 0, 65], 1))).toContain('past the end');
    expect(refusal(send([255, 255, 255, 255], 1))).toContain('past the end');
    expect(refusal(send([0, 0, 0], 1))).toContain('too few');
    expect(refusal(send([0, 0, 0, 0, 0], 1))).toContain('left');
    expect(refusal(send([1, 0, 0, 0, 65, 0, 0], 2))).toContain('too few');
    expect(refusal(send([4, 0, 0, 0, 0, 0, 0, 0], 2))).toContain('past the end');
  });

  it('more than the limits, before memory is taken', () => {
    const limits = createLimits({
      maxElements: 100,
      maxStrings: 2,
      maxRank: 2,
      maxTensors: 1,
      maxParameters: 1,
      maxBytes: 400,
    });
    const limited = (text: string) => () => decodeInferRequest(utf8(text), { modelName: 'm', limits });
    const one = (datatype: string, shape: string, data: string) =>
      limited(`{"inputs":[{"name":"x","datatype":"${datatype}","shape":${shape},"data":${data}}]}`);
    refusal(one('INT8', '[101]', '[]'), 'LIMIT_EXCEEDED');
    refusal(one('INT8', '[4294967296,4294967296]', '[]'), 'LIMIT_EXCEEDED');
    refusal(one('BYTES', '[3]', '["","",""]'), 'LIMIT_EXCEEDED');
    refusal(one('INT8', '[1,1,1]', '[1]'), 'LIMIT_EXCEEDED');
    expect(refusal(one('INT8', '[100]', '[]'))).toContain('fewer');
    expect(one('INT8', '[0,9007199254740991]', '[]')().inputs[0]?.tensor.data).toHaveLength(0);
    refusal(limited('{"inputs":[{"name":"x","datatype":"INT8","shape":[0],"data":[]},{}]}'), 'LIMIT_EXCEEDED');
    refusal(limited('{"inputs":[],"parameters":{"a":1,"b":2}}'), 'LIMIT_EXCEEDED');
    refusal(limited(`{"inputs":[]}${' '.repeat(400)}`), 'LIMIT_EXCEEDED');
  });

  it('on the way out: tensors that do not fit, reserved names', () => {
    const wrong = { dtype: 'int8', shape: [2], data: new Int8Array(1) } as const;
    for (const binary of [true, false]) {
      expect(
        refusal(() => encodeInferRequest({ modelName: 'm', inputs: [{ name: 'x', tensor: wrong, binary }] })),
      ).toContain('says 2');
    }
    expect(refusal(() => inferRequestToMessage({ modelName: 'm', inputs: [{ name: 'x', tensor: wrong }] }))).toContain(
      'says 2',
    );
    for (const name of ['timeout', 'sequence_id', 'binary_data_output', 'triton_x']) {
      expect(refusal(() => encodeInferRequest({ modelName: 'm', inputs: [], parameters: { [name]: 1 } }))).toContain(
        name,
      );
    }
    refusal(() => encodeInferRequest({ modelName: 'm', inputs: [], parameters: { x: 2n ** 64n } }));
    refusal(() => inferRequestToMessage({ modelName: 'm', inputs: [], priority: -1 }));
  });
});

describe('a response', () => {
  it('is read leniently', () => {
    const body = utf8(
      '{"model_name":"m","model_version":null,"id":null,"parameters":{"content_type":"np","headers":{"a":1}},"x":[1],' +
        '"outputs":[{"name":"y","shape":[1],"datatype":"INT64","parameters":{"k":null},"data":[9007199254740993]}]}',
    );
    const response = decodeInferResponse(body);
    expect(response.outputs).toEqual([{ name: 'y', tensor: int64([9_007_199_254_740_993n]) }]);
    expect({ ...response.parameters }).toEqual({ content_type: 'np' });
    expect(Object.keys(response).sort()).toEqual(['modelName', 'outputs', 'parameters']);
  });
  it('has errors of its own code', () => {
    refusal(() => decodeInferResponse(utf8('{"error":"x"}')), 'INVALID_DATA');
    refusal(() => decodeInferResponse(utf8('nonsense')), 'INVALID_DATA');
  });
  it('writes what Triton writes', () => {
    const response: InferResponse = {
      modelName: 'm',
      modelVersion: '1',
      id: 'i',
      outputs: [
        {
          name: 'y',
          tensor: tensor('float32', [1, 4], Float32Array.of(0.5, Number.NaN, Number.NEGATIVE_INFINITY, -0)),
        },
      ],
    };
    expect(new TextDecoder().decode(joinBody(encodeInferResponse(response, false)))).toBe(
      '{"id":"i","model_name":"m","model_version":"1","outputs":[{"name":"y","shape":[1,4],"datatype":"FP32","data":[0.5,NaN,-Infinity,-0.0]}]}',
    );
    expect(DATATYPE_OF.string).toBe('BYTES');
  });
});

describe('typed contents of gRPC', () => {
  const message = (datatype: string, contents: object, shape: bigint[] = [1n]) =>
    decodeMessage(
      pb.ModelInferRequestSchema,
      encodeMessage(pb.ModelInferRequestSchema, { modelName: 'm', inputs: [{ name: 'x', datatype, shape, contents }] }),
    );
  it.each([
    ['out of range', 'INT8', { intContents: [128] }],
    ['of another field', 'INT8', { uintContents: [1] }],
    ['of two fields', 'FP32', { fp32Contents: [1], intContents: [1] }],
    ['too many', 'FP64', { fp64Contents: [1, 2] }],
    ['too few', 'BOOL', {}],
    ['of a type that is raw only', 'FP16', { fp32Contents: [1] }],
    ['of a type that is raw only, missing', 'BF16', {}],
    ['of no type', 'FP8', {}],
  ])('%s are refused', (_, datatype, contents) => {
    refusal(() => inferRequestFromMessage(message(datatype, contents)));
  });
  it('may be missing for an empty tensor', () => {
    expect(inferRequestFromMessage(message('FP32', {}, [0n])).inputs[0]?.tensor).toEqual(tensor('float32', [0]));
  });
  it('and raw contents exclude each other', () => {
    const both = message('INT8', { intContents: [1] });
    refusal(() => inferRequestFromMessage({ ...both, rawInputContents: [Uint8Array.of(1)] }));
    refusal(() => inferRequestFromMessage({ ...both, rawInputContents: [Uint8Array.of(1), Uint8Array.of(1)] }));
    // MLServer writes an empty message of contents beside raw ones.
    const empty = decodeMessage(
      pb.ModelInferResponseSchema,
      encodeMessage(pb.ModelInferResponseSchema, {
        outputs: [{ name: 'y', datatype: 'UINT8', shape: [1n], contents: {} }],
        rawOutputContents: [Uint8Array.of(7)],
      }),
    );
    expect(inferResponseFromMessage(empty).outputs[0]?.tensor.data).toEqual(Uint8Array.of(7));
    refusal(() => inferRequestFromMessage(message('INT8', { intContents: [1] }, [-1n])));
  });
});
