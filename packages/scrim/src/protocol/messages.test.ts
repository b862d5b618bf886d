import { create } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ERROR_CODES, ScrimError, type ScrimErrorCode } from '../errors.js';
import { tensor } from '../tensor.js';
import { sixDecimals } from './classification.js';
import {
  bytesTensor,
  classify,
  configPb,
  configTypeOf,
  createLimits,
  createModelConfig,
  type Datatype,
  DTYPE_OF,
  datatypeOfConfig,
  decodeIndexRequest,
  decodeJson,
  decodeLoadRequest,
  decodeUnloadRequest,
  encodeJson,
  errorFromGrpc,
  errorFromHttp,
  errorToJson,
  jsonText,
  loadRequestFromMessage,
  loadRequestToJson,
  loadRequestToMessage,
  type ModelMetadata,
  type ModelStatistics,
  metadataFromConfig,
  modelConfigFromJson,
  modelConfigToJson,
  modelMetadataFromJson,
  modelMetadataFromMessage,
  modelMetadataToJson,
  modelMetadataToMessage,
  modelPath,
  modelStatisticsFromJson,
  modelStatisticsFromMessage,
  modelStatisticsToJson,
  modelStatisticsToMessage,
  parseClassScore,
  parseModelConfig,
  pb,
  type RepositoryEntry,
  readinessFromHttp,
  repositoryIndexFromJson,
  repositoryIndexFromMessage,
  repositoryIndexToJson,
  repositoryIndexToMessage,
  repositoryPath,
  serverMetadataFromJson,
  serverMetadataFromMessage,
  serverMetadataToJson,
  serverMetadataToMessage,
  unloadRequestFromMessage,
  unloadRequestToJson,
  unloadRequestToMessage,
  wireErrorOf,
} from './index.js';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const count = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const duration = fc.record({ count, ns: count });
const code = (run: () => unknown): ScrimErrorCode => {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(ScrimError);
    return (error as ScrimError).code;
  }
  throw new Error('nothing was thrown');
};

describe('metadata', () => {
  const server = { name: 'scrim', version: '0.1.0', extensions: ['binary_tensor_data', 'statistics'] };
  const model: ModelMetadata = {
    name: 'm',
    versions: ['1', '2'],
    platform: 'onnxruntime_onnx',
    inputs: [{ name: 'INPUT__0', datatype: 'FP32', shape: [-1, 128, 32, 32] }],
    outputs: [{ name: 'OUTPUT__0', datatype: 'FP32', shape: [-1, 4] }],
  };

  it('survives JSON and gRPC', () => {
    expect(serverMetadataFromJson(decodeJson(encodeJson(serverMetadataToJson(server))))).toEqual(server);
    expect(serverMetadataFromMessage(serverMetadataToMessage(server))).toEqual(server);
    expect(modelMetadataFromJson(decodeJson(encodeJson(modelMetadataToJson(model))))).toEqual(model);
    expect(modelMetadataFromMessage(modelMetadataToMessage(model))).toEqual(model);
  });
  it('is read with members missing or unknown, not with wrong ones', () => {
    const read = (text: string) => modelMetadataFromJson(decodeJson(utf8(text)));
    expect(
      read('{"name":"m","platform":null,"x":1,"inputs":[{"name":"a","datatype":"FP8","shape":[],"tags":{}}]}'),
    ).toEqual({
      name: 'm',
      versions: [],
      platform: '',
      inputs: [{ name: 'a', datatype: 'FP8', shape: [] }],
      outputs: [],
    });
    for (const text of [
      '[]',
      'null',
      '{}',
      '{"name":1}',
      '{"name":"m","versions":[1]}',
      '{"name":"m","inputs":[{}]}',
    ]) {
      expect(code(() => read(text))).toBe('INVALID_DATA');
    }
    expect(() => read('{"name":"m","inputs":[{"name":"a","datatype":"FP32","shape":[1.5]}]}')).toThrow(
      'the model metadata.inputs[0].shape[0] is a number, expected an integer',
    );
  });
  it('follows from a configuration', () => {
    const config = parseModelConfig(
      'name: "m" backend: "onnxruntime" max_batch_size: 4 input { name: "x" data_type: TYPE_FP16 dims: [3, -1] } output { name: "y" data_type: TYPE_STRING dims: 1 }',
    );
    expect(metadataFromConfig(config, ['7'])).toEqual({
      name: 'm',
      versions: ['7'],
      platform: 'onnxruntime',
      inputs: [{ name: 'x', datatype: 'FP16', shape: [-1, 3, -1] }],
      outputs: [{ name: 'y', datatype: 'BYTES', shape: [-1, 1] }],
    });
    for (const datatype of Object.keys(DTYPE_OF) as Datatype[]) {
      expect(datatypeOfConfig(configTypeOf(datatype))).toBe(datatype);
    }
  });
  it('has readiness as Triton and as KServe say it', () => {
    const answers: [number, string, boolean][] = [
      [200, '', true],
      [400, '', false],
      [200, '{"ready":true}', true],
      [200, '{"name":"m","ready":false}', false],
      [200, '{"live":false}', false],
      [200, 'ok', true],
      [503, '{"ready":true}', false],
    ];
    for (const [status, body, expected] of answers) expect(readinessFromHttp(status, utf8(body))).toBe(expected);
  });
});

describe('statistics', () => {
  const steps = { computeInput: duration, computeInfer: duration, computeOutput: duration };
  const statistics: fc.Arbitrary<ModelStatistics> = fc.record({
    name: fc.string(),
    version: fc.string(),
    lastInferenceMs: count,
    inferenceCount: count,
    executionCount: count,
    inference: fc.record({
      success: duration,
      fail: duration,
      queue: duration,
      ...steps,
      cacheHit: duration,
      cacheMiss: duration,
    }),
    batches: fc.array(fc.record({ batchSize: count, ...steps }), { maxLength: 2 }),
    responses: fc.dictionary(
      fc.stringMatching(/^\d{1,3}$/),
      fc.record({
        computeInfer: duration,
        computeOutput: duration,
        success: duration,
        fail: duration,
        emptyResponse: duration,
        cancel: duration,
      }),
      { maxKeys: 2, noNullPrototype: true },
    ),
    memory: fc.array(fc.record({ type: fc.string(), id: fc.bigInt({ min: 0n, max: 9n }), byteSize: count }), {
      maxLength: 2,
    }),
  });
  it('survive JSON and gRPC exactly', () => {
    fc.assert(
      fc.property(fc.array(statistics, { maxLength: 2 }), (list) => {
        expect(modelStatisticsFromJson(decodeJson(encodeJson(modelStatisticsToJson(list))))).toEqual(list);
        expect(modelStatisticsFromMessage(modelStatisticsToMessage(list))).toEqual(list);
      }),
      { seed: 10, numRuns: 100 },
    );
  });
  it('have the members perf_analyzer reads', () => {
    const [empty] = modelStatisticsFromMessage(
      create(pb.ModelStatisticsResponseSchema, { modelStats: [{ name: 'm', version: '1' }] }),
    );
    const text = jsonText(modelStatisticsToJson([empty!]));
    for (const step of [
      'success',
      'fail',
      'queue',
      'compute_input',
      'compute_infer',
      'compute_output',
      'cache_hit',
      'cache_miss',
    ]) {
      expect(text).toContain(`"${step}":{"count":0,"ns":0}`);
    }
    expect(text).toContain('"version":"1"');
    expect(modelStatisticsFromJson(decodeJson(utf8('{"model_stats":[{"name":"m"}]}')))).toHaveLength(1);
    expect(
      code(() => modelStatisticsFromJson(decodeJson(utf8('{"model_stats":[{"name":"m","inference_count":-1}]}')))),
    ).toBe('INVALID_DATA');
  });
});

describe('the repository', () => {
  const entries: RepositoryEntry[] = [
    { name: 'a', version: '1', state: 'READY', reason: '' },
    { name: 'b', version: '', state: 'UNAVAILABLE', reason: 'broken' },
    { name: 'c', version: '', state: '', reason: '' },
  ];
  it('has an index', () => {
    expect(jsonText(repositoryIndexToJson(entries))).toBe(
      '[{"name":"a","version":"1","state":"READY"},{"name":"b","state":"UNAVAILABLE","reason":"broken"},{"name":"c"}]',
    );
    expect(repositoryIndexFromJson(repositoryIndexToJson(entries))).toEqual(entries);
    expect(repositoryIndexFromMessage(repositoryIndexToMessage(entries))).toEqual(entries);
    expect(code(() => repositoryIndexFromJson(decodeJson(utf8('{}'))))).toBe('INVALID_DATA');
    expect(decodeIndexRequest(new Uint8Array(0))).toEqual({ ready: false });
    expect(decodeIndexRequest(utf8('{"ready":true}'))).toEqual({ ready: true });
    expect(code(() => decodeIndexRequest(utf8('{"ready":1}')))).toBe('INVALID_ARGUMENT');
  });
  it('loads and unloads', () => {
    const request = { config: '{"backend":"onnxruntime"}', files: { '1/model.onnx': Uint8Array.of(0, 255, 7) } };
    expect(decodeLoadRequest(encodeJson(loadRequestToJson(request)))).toEqual(request);
    expect(loadRequestFromMessage(loadRequestToMessage('m', request))).toEqual(request);
    expect(decodeLoadRequest(new Uint8Array(0))).toEqual({});
    expect(jsonText(loadRequestToJson({}))).toBe('{}');
    for (const body of [
      '[]',
      '{"parameters":{"x":"1"}}',
      '{"parameters":{"file:":""}}',
      '{"parameters":{"file:a":"*"}}',
      '{"parameters":{"config":1}}',
    ]) {
      expect(code(() => decodeLoadRequest(utf8(body)))).toBe('INVALID_ARGUMENT');
    }
    expect(code(() => loadRequestFromMessage(unloadRequestToMessage('m', true) as never))).toBe('INVALID_ARGUMENT');
    for (const unloadDependents of [true, false]) {
      expect(decodeUnloadRequest(encodeJson(unloadRequestToJson(unloadDependents)))).toEqual({ unloadDependents });
      expect(unloadRequestFromMessage(unloadRequestToMessage('m', unloadDependents))).toEqual({ unloadDependents });
    }
    expect(decodeUnloadRequest(new Uint8Array(0))).toEqual({ unloadDependents: false });
  });
});

describe('errors', () => {
  it('survive HTTP with the code their status stands for', () => {
    for (const [name, { http, grpc }] of Object.entries(ERROR_CODES)) {
      const wire = wireErrorOf(new ScrimError(name as ScrimErrorCode, 'what happened'));
      expect(wire).toEqual({ http, grpc, message: 'what happened' });
      const back = errorFromHttp(wire.http, encodeJson(errorToJson(wire.message)), 'infer');
      expect(ERROR_CODES[back.code].http).toBe(http);
      expect(back.message).toBe(`infer: HTTP ${http}: what happened`);
      expect(ERROR_CODES[errorFromGrpc(grpc, 'x', 'infer').code].grpc).toBe(grpc);
    }
  });
  it('keep the text of other errors inside', () => {
    expect(wireErrorOf(new Error('secret')).message).toBe('internal error');
    expect(wireErrorOf('secret')).toMatchObject({ http: 500, grpc: 13 });
  });
  it('are read from whatever a server sends', () => {
    expect(errorFromHttp(502, utf8('<html>'), 'ready')).toMatchObject({
      code: 'UNAVAILABLE',
      message: 'ready: HTTP 502: the body is no v2 error',
    });
    expect(errorFromHttp(422, utf8('{"detail":"no such input"}'), 'infer')).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(errorFromHttp(418, utf8('[]'), 'infer').code).toBe('INVALID_ARGUMENT');
    expect(errorFromHttp(599, new Uint8Array(0), 'infer').code).toBe('INTERNAL');
    const long = errorFromHttp(400, encodeJson({ error: `a\nb\u0000${'x'.repeat(5000)}` }), 'infer').message;
    expect(long.length).toBeLessThan(1100);
    expect(long).toContain('a b x');
    expect(errorFromGrpc(99, 'odd', 'infer').code).toBe('INTERNAL');
  });
});

describe('the model configuration as JSON', () => {
  it('is Triton’s: names of the proto, defaults, 64-bit integers as numbers', () => {
    const config = createModelConfig({
      name: 'm',
      input: [{ name: 'x', dataType: configPb.DataType.TYPE_FP32, dims: [-1n, 2n ** 53n + 1n] }],
      schedulingChoice: {
        case: 'dynamicBatching',
        value: { preferredBatchSize: [4], maxQueueDelayMicroseconds: 2n ** 64n - 1n },
      },
      parameters: { __k: { stringValue: 'v' } },
      modelMetrics: {
        metricControl: [
          { metricOptions: { case: 'histogramOptions', value: { buckets: [0.5, Number.POSITIVE_INFINITY] } } },
        ],
      },
    });
    const json = jsonText(modelConfigToJson(config));
    expect(json).toContain('"max_batch_size":0');
    expect(json).toContain('"dims":[-1,9007199254740993]');
    expect(json).toContain('"data_type":"TYPE_FP32"');
    expect(json).toContain('"max_queue_delay_microseconds":18446744073709551615');
    expect(json).toContain('"parameters":{"__k":{"string_value":"v"}}');
    expect(json).toContain('"buckets":[0.5,"Infinity"]');
    expect(json).not.toContain('sequence_batching');
    expect(modelConfigFromJson(decodeJson(utf8(json)))).toEqual(config);
  });
  it('is read with strings for integers, and unknown fields only if asked to', () => {
    const value = decodeJson(utf8('{"name":"m","input":[{"dims":["1","2"]}],"from_the_future":[1]}'));
    expect(code(() => modelConfigFromJson(value))).toBe('INVALID_DATA');
    expect(code(() => modelConfigFromJson(value, { code: 'INVALID_ARGUMENT' }))).toBe('INVALID_ARGUMENT');
    expect(modelConfigFromJson(value, { ignoreUnknown: true }).input[0]?.dims).toEqual([1n, 2n]);
    expect(code(() => modelConfigFromJson(decodeJson(utf8('{"max_batch_size":"x"}'))))).toBe('INVALID_DATA');
    expect(code(() => modelConfigFromJson([]))).toBe('INVALID_DATA');
  });
});

describe('classification', () => {
  const text = (list: readonly Uint8Array[]): string[] => list.map((element) => new TextDecoder().decode(element));
  it('gives the best classes of each row', () => {
    const scores = tensor('float32', [2, 3], Float32Array.of(0.1, 0.7, 0.2, 5, -1, Number.NaN));
    const classes = classify(scores, 2, { batched: true, labels: ['cat', 'dog', ''] });
    expect(classes.shape).toEqual([2, 2]);
    expect(text(classes.data)).toEqual(['0.700000:1:dog', '0.200000:2', '5.000000:0:cat', '-1.000000:1:dog']);
    expect(text(classify(tensor('int64', [3], BigInt64Array.of(1n, 3n, 3n)), 9).data)).toEqual(['3:1', '3:2', '1:0']);
    expect(classify(tensor('uint8', [0, 4]), 2, { batched: true }).shape).toEqual([0, 0]);
    expect(code(() => classify(bytesTensor([0], []), 1))).toBe('INVALID_ARGUMENT');
    expect(code(() => classify(tensor('float16', [1]), 1))).toBe('INVALID_ARGUMENT');
  });
  it('is read back', () => {
    expect(parseClassScore(utf8('0.250000:7:a:b'))).toEqual({ value: 0.25, index: 7, label: 'a:b' });
    expect(parseClassScore(utf8('-inf:0'))).toEqual({ value: Number.NEGATIVE_INFINITY, index: 0 });
    for (const bad of ['', '1', '1:', 'x:1', '1:-1'])
      expect(code(() => parseClassScore(utf8(bad)))).toBe('INVALID_DATA');
  });
  it.each([
    [0.5, '0.500000'],
    [1 / 128, '0.007812'],
    [3 / 128, '0.023438'],
    [-2.000_000_5, '-2.000001'],
    [-2.000_000_49, '-2.000000'],
    [-0, '-0.000000'],
    [1e22, '10000000000000000000000.000000'],
    [Number.NaN, 'nan'],
    [Number.NEGATIVE_INFINITY, '-inf'],
  ])('writes %d as C does: %s', (value, expected) => {
    expect(sixDecimals(value)).toBe(expected);
  });
});

describe('paths and limits', () => {
  it('encode names', () => {
    expect(modelPath('a/b c', '3', 'infer')).toBe('/v2/models/a%2Fb%20c/versions/3/infer');
    expect(modelPath('m')).toBe('/v2/models/m');
    expect(repositoryPath('m', 'load')).toBe('/v2/repository/models/m/load');
  });
  it('are checked', () => {
    expect(createLimits({ maxBytes: 5 }).maxBytes).toBe(5);
    expect(code(() => createLimits({ maxBytes: -1 }))).toBe('INVALID_ARGUMENT');
    expect(code(() => createLimits({ maxDepth: 5000 }))).toBe('INVALID_ARGUMENT');
    expect(code(() => createLimits({ other: 1 } as never))).toBe('INVALID_ARGUMENT');
  });
});
