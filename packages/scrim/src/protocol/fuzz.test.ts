/** Bytes from outside never do anything but decode or throw a ScrimError, and what decodes can be encoded again. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { int64, tensor } from '../tensor.js';
import {
  bytesTensor,
  createLimits,
  decodeInferRequest,
  decodeInferResponse,
  decodeJson,
  decodeMessage,
  encodeInferRequest,
  encodeMessage,
  type InferRequest,
  inferRequestFromMessage,
  inferRequestToMessage,
  inferResponseFromMessage,
  joinBody,
  modelConfigFromJson,
  modelMetadataFromJson,
  modelStatisticsFromJson,
  parseModelConfig,
  pb,
  repositoryIndexFromJson,
  serverMetadataFromJson,
} from './index.js';

const limits = createLimits({ maxBytes: 2 ** 20, maxElements: 2 ** 16 });
const seedRequest: InferRequest = {
  modelName: 'm',
  id: 'id',
  sequenceId: 7,
  timeoutUs: 9,
  parameters: { a: 'b', c: 1.5, d: true },
  inputs: [
    { name: 'f', tensor: tensor('float32', [2, 2], Float32Array.of(1, -2.5, 3e-9, 0)), binary: false },
    { name: 'i', tensor: int64([1n, -(2n ** 60n)]), binary: true },
    { name: 'b', tensor: bytesTensor([2], [Uint8Array.of(65, 34), new Uint8Array(0)]), binary: false },
    { name: 'c', tensor: bytesTensor([1], [Uint8Array.of(255)]), binary: true },
    { name: 'z', tensor: tensor('bool', [3], Uint8Array.of(1, 0, 1)), binary: false },
  ],
  outputs: [{ name: 'o', binary: true, classification: 3 }],
};
const http = encodeInferRequest(seedRequest);
const httpBytes = joinBody(http);
const grpcBytes = encodeMessage(pb.ModelInferRequestSchema, inferRequestToMessage(seedRequest));
const typedBytes = encodeMessage(pb.ModelInferRequestSchema, {
  modelName: 'm',
  parameters: { p: { parameterChoice: { case: 'doubleParam', value: 2 } } },
  inputs: [
    { name: 'a', datatype: 'INT16', shape: [3n], contents: { intContents: [1, -2, 300] } },
    { name: 'b', datatype: 'BYTES', shape: [1n], contents: { bytesContents: [Uint8Array.of(1, 2)] } },
    { name: 'c', datatype: 'FP64', shape: [2n], contents: { fp64Contents: [1, 2] } },
  ],
});

/** Copies of `bytes` with some changed in place, cut out or put in. */
function mutations(bytes: Uint8Array): fc.Arbitrary<Uint8Array> {
  const at = fc.noBias(fc.nat(bytes.length - 1));
  const byte = fc.oneof(fc.integer({ min: 0x30, max: 0x39 }), fc.integer({ min: 0x20, max: 0x7e }), fc.nat(255));
  const change = fc.tuple(
    at,
    fc.constant(1),
    byte.map((value) => Uint8Array.of(value)),
  );
  const words = ['"', '[', ']', '{', '}', ',', ':', '\\', '0', '-', '.', 'e9', '\\u00'].map((text) =>
    new TextEncoder().encode(text),
  );
  const insert = fc.tuple(at, fc.nat(3), fc.oneof(fc.uint8Array({ maxLength: 4 }), fc.constantFrom(...words)));
  const edits = fc.array(fc.oneof({ weight: 8, arbitrary: change }, { weight: 1, arbitrary: insert }), {
    minLength: 1,
    maxLength: 2,
  });
  return edits.map((list) => {
    let out = Array.from(bytes);
    for (const [start, cut, put] of list) out = [...out.slice(0, start), ...put, ...out.slice(start + cut)];
    return Uint8Array.from(out);
  });
}
const noise = fc.uint8Array({ maxLength: 200 });

function survives<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof ScrimError)) throw error;
    expect(['INVALID_ARGUMENT', 'INVALID_DATA', 'LIMIT_EXCEEDED', 'UNSUPPORTED']).toContain(error.code);
    return undefined;
  }
}

describe('bytes from outside', () => {
  it('as HTTP requests and responses', () => {
    const headerLengths = fc.oneof(
      fc.constant(http.headerLength),
      fc.constant(undefined),
      fc.nat(httpBytes.length + 5),
    );
    let decoded = 0;
    fc.assert(
      fc.property(
        fc.oneof({ weight: 5, arbitrary: mutations(httpBytes) }, { weight: 1, arbitrary: noise }),
        headerLengths,
        (bytes, headerLength) => {
          const options = headerLength === undefined ? {} : { headerLength };
          const request = survives(() => decodeInferRequest(bytes, { modelName: 'm', limits, ...options }));
          survives(() => decodeInferResponse(bytes, { limits, ...options }));
          if (request === undefined) return;
          decoded++;
          survives(() => encodeInferRequest(request));
          survives(() => inferRequestToMessage(request));
        },
      ),
      { seed: 13, numRuns: 1200 },
    );
    expect(decoded).toBeGreaterThan(15);
  });

  it('as gRPC messages', () => {
    let decoded = 0;
    fc.assert(
      fc.property(fc.oneof(mutations(grpcBytes), mutations(typedBytes), noise), (bytes) => {
        const message = survives(() => decodeMessage(pb.ModelInferRequestSchema, bytes, { limits }));
        if (message !== undefined) {
          const request = survives(() => inferRequestFromMessage(message, limits));
          if (request !== undefined) {
            decoded++;
            survives(() => encodeInferRequest(request));
          }
        }
        const response = survives(() => decodeMessage(pb.ModelInferResponseSchema, bytes, { limits }));
        if (response !== undefined) survives(() => inferResponseFromMessage(response, limits));
        survives(() => decodeMessage(pb.ModelStatisticsResponseSchema, bytes, { limits }));
        survives(() => decodeMessage(pb.ModelConfigResponseSchema, bytes, { limits }));
      }),
      { seed: 14, numRuns: 1200 },
    );
    expect(decoded).toBeGreaterThan(15);
  });

  it('as JSON of any form for every message', () => {
    const members = [
      'name',
      'versions',
      'inputs',
      'shape',
      'datatype',
      'model_stats',
      'inference_stats',
      'input',
      'dims',
      'extensions',
      'parameters',
      '__proto__',
      'version_policy',
    ];
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 4 },
        fc.oneof(fc.string(), fc.integer(), fc.double(), fc.boolean(), fc.constant(null)),
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom(...members), tie('tree'), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        const json = decodeJson(new TextEncoder().encode(JSON.stringify(value) ?? 'null'));
        survives(() => serverMetadataFromJson(json));
        survives(() => modelMetadataFromJson(json));
        survives(() => modelStatisticsFromJson(json));
        survives(() => repositoryIndexFromJson(json));
        survives(() => modelConfigFromJson(json, { ignoreUnknown: true }));
      }),
      { seed: 15, numRuns: 800 },
    );
  });

  it('as config.pbtxt', () => {
    const source = new TextEncoder().encode(
      'name: "m" input [ { name: "x" data_type: TYPE_FP32 dims: [ 1, -1 ] } ] parameters { key: "a" value: { string_value: "\\303\\274" } } version_policy < latest { num_versions: 0x2 } >',
    );
    fc.assert(
      fc.property(mutations(source), (bytes) => {
        survives(() => parseModelConfig(new TextDecoder().decode(bytes)));
      }),
      { seed: 16, numRuns: 1000 },
    );
  });

  it('can not make it slow: four times the bytes take no more than a few times the work', () => {
    const units = [
      '[',
      '[],',
      '{"a":',
      '"\\u0041',
      '"a",',
      '1',
      ' ',
      '-',
      '\\',
      '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[',
      '#\n',
      '"" ',
      'name: ',
      "'\\1",
      'input{}',
      'input{dims:1}',
    ];
    // Processor time, not the clock: other work on the machine does not count.
    const cost = (unit: string, size: number): number => {
      const text = `[${unit.repeat(size / unit.length)}`;
      const bytes = new TextEncoder().encode(text);
      const start = process.cpuUsage();
      survives(() => decodeJson(bytes, { limits }));
      survives(() => decodeInferRequest(bytes, { modelName: 'm', limits }));
      survives(() => decodeMessage(pb.ModelInferRequestSchema, bytes, { limits }));
      survives(() => parseModelConfig(text, { limits }));
      survives(() => parseModelConfig(text.slice(1), { limits }));
      const { user, system } = process.cpuUsage(start);
      return (user + system) / 1000;
    };
    for (const unit of units) {
      const small = cost(unit, 2 ** 15);
      expect(cost(unit, 2 ** 17), unit).toBeLessThan(10 * small + 300);
    }
  });
});
