/** Messages that Python's tritonclient made (test/vectors/protocol) are read as what went into them. */
import { readFileSync } from 'node:fs';
import { fromBinary } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import {
  configPb,
  type Datatype,
  decodeContent,
  decodeInferRequest,
  decodeMessage,
  encodeInferRequest,
  encodeTensorBytes,
  formatModelConfig,
  inferRequestFromMessage,
  inferRequestToMessage,
  joinBody,
  modelConfigToJson,
  modelStatisticsFromMessage,
  parseModelConfig,
  pb,
} from './index.js';

interface Vector {
  name: string;
  datatype: Datatype;
  shape: number[];
  raw: string;
}
const load = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../../../test/vectors/protocol/${name}.json`, import.meta.url), 'utf8'));
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'base64'));

describe('HTTP requests of tritonclient', () => {
  const { requests, compressed } = load('http') as {
    requests: (Vector & { headerLength: number | null; body: string })[];
    compressed: { plain: string; gzip: string; deflate: string };
  };
  it.each(requests.map((vector) => [vector.name, vector] as const))('%s', (_, vector) => {
    const request = decodeInferRequest(bytes(vector.body), {
      modelName: 'm',
      ...(vector.headerLength === null ? {} : { headerLength: vector.headerLength }),
    });
    const [input] = request.inputs;
    expect(input?.name).toBe('IN');
    expect(input?.tensor.shape).toEqual(vector.shape);
    expect(input?.binary).toBe(vector.headerLength !== null);
    expect(encodeTensorBytes(input!.tensor)).toEqual(canonicalNan(bytes(vector.raw), vector));
    // And what this side writes for it means the same to this side.
    const again = encodeInferRequest(request);
    const { headerLength } = again;
    expect(
      decodeInferRequest(joinBody(again), { modelName: 'm', ...(headerLength === undefined ? {} : { headerLength }) }),
    ).toEqual(request);
  });

  it('reads every setting', () => {
    const vector = requests.find(({ name }) => name === 'every setting')!;
    const request = decodeInferRequest(bytes(vector.body), { modelName: 'm', headerLength: vector.headerLength! });
    expect(request).toMatchObject({
      id: 'id-1',
      sequenceId: 2n ** 63n + 5n,
      sequenceStart: true,
      sequenceEnd: false,
      priority: 7,
      timeoutUs: 250_000,
      parameters: { mode: 'fast', depth: 3, ratio: 0.25, on: true, whole: { double: 1 } },
      outputs: [
        { name: 'A', binary: false },
        { name: 'B', binary: true, classification: 3 },
      ],
    });
  });

  it.each(['gzip', 'deflate'] as const)('reads %s', async (encoding) => {
    expect(await decodeContent(bytes(compressed[encoding]), encoding)).toEqual(bytes(compressed.plain));
  });
});

/** A NaN has many bit patterns; JSON keeps none of them. NumPy's and this platform's are the same for FP32 and FP64. */
function canonicalNan(raw: Uint8Array, vector: Vector & { headerLength?: number | null }): Uint8Array {
  if (vector.headerLength !== null) return raw;
  if (vector.datatype === 'FP32') {
    const floats = new Float32Array(raw.slice().buffer).map((value) => (Number.isNaN(value) ? Number.NaN : value));
    return new Uint8Array(floats.buffer);
  }
  return raw;
}

describe('gRPC messages of tritonclient', () => {
  const { raw, typed, statistics } = load('grpc') as {
    raw: (Vector & { message: string })[];
    typed: (Vector & { message: string })[];
    statistics: string;
  };
  it.each(
    [...raw, ...typed].map((vector, i) => [`${vector.name} ${i < raw.length ? 'raw' : 'typed'}`, vector] as const),
  )('%s', (_, vector) => {
    const message = decodeMessage(pb.ModelInferRequestSchema, bytes(vector.message));
    const request = inferRequestFromMessage(message);
    expect(request.inputs[0]?.tensor.shape).toEqual(vector.shape);
    expect(encodeTensorBytes(request.inputs[0]!.tensor)).toEqual(bytes(vector.raw));
    expect(inferRequestFromMessage(inferRequestToMessage(request))).toEqual(request);
  });

  it('reads every setting', () => {
    const vector = raw.find(({ name }) => name === 'every setting')!;
    const message = decodeMessage(pb.ModelInferRequestSchema, bytes(vector.message));
    expect(inferRequestFromMessage(message)).toMatchObject({
      modelName: 'm',
      id: 'id-1',
      sequenceId: 'seq',
      sequenceStart: true,
      sequenceEnd: false,
      priority: 7,
      timeoutUs: 250_000,
      parameters: { mode: 'fast', depth: 3, ratio: 0.25, on: true, whole: { double: 1 } },
      outputs: [{ name: 'A' }, { name: 'B', classification: 3 }],
    });
  });

  it('reads statistics', () => {
    const [entry] = modelStatisticsFromMessage(decodeMessage(pb.ModelStatisticsResponseSchema, bytes(statistics)));
    expect(entry?.inferenceCount).toBe(2n ** 53n + 1n);
    expect(entry?.inference.cacheMiss).toEqual({ count: 7n, ns: 2n ** 64n - 8n });
    expect(entry?.batches[0]?.computeInfer.ns).toBe(12n);
    expect(entry?.responses['0']?.cancel.count).toBe(2n);
    expect(entry?.memory).toEqual([{ type: 'CPU', id: 0n, byteSize: 2n ** 40n }]);
  });
});

describe('config.pbtxt as Python reads it', () => {
  const { good, bad } = load('config') as {
    good: { text: string; message: string; json: Record<string, unknown> }[];
    bad: string[];
  };
  it.each(good.map((vector) => [vector.text.slice(0, 30), vector] as const))('%j', (_, vector) => {
    const config = parseModelConfig(vector.text);
    expect(config).toEqual(fromBinary(configPb.ModelConfigSchema, bytes(vector.message)));
    const text = formatModelConfig(config);
    const again = parseModelConfig(text);
    expect(again).toEqual(config);
    expect(formatModelConfig(again)).toBe(text);
    // Python's JSON differs from Triton's in one way: 64-bit integers are strings.
    expect(withNumbers(vector.json)).toEqual(withNumbers(modelConfigToJson(config)));
  });
  it.each(bad)('refuses %j with line and column', (text) => {
    expect(() => parseModelConfig(text)).toThrow(/^config\.pbtxt:\d+:\d+: /);
  });
});

/** Digits, bigints and the names of what is no number made alike, for two styles of JSON. */
function withNumbers(value: unknown): unknown {
  if (typeof value === 'bigint' || typeof value === 'number') return String(value);
  if (Array.isArray(value)) return value.map(withNumbers);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, withNumbers(member)]));
}
