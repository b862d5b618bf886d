/**
 * The promise itself: over real sockets, no run of 24 bytes of the photo's file, its pixels, the model's input or the clean
 * activation is among the bytes that the client or the gateway sends to the remote server, in any payload form, protocol
 * and encoding; and suppressed channels are not sent.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Bundle, Engine, Tensor } from 'scrim';
import { exportRepository, PAYLOAD_FORMATS, type PayloadFormat } from 'scrim/client';
import {
  createGateway,
  createGrpcClient,
  createHttpAgent,
  createNodeCrypto,
  createNodeEngine,
  listenGrpc,
  listenHttp,
  type RunningServer,
  readImage,
  serveRepository,
  writeDirectory,
} from 'scrim/node';
import { createPixelConverter, detectorOf, planResize } from 'scrim/vision';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openServable } from '../packages/cli/src/remote-bundle.js';
import { createConfidentialSession } from '../packages/scrim/src/client/confidential-session.js';
import { createTritonClient } from '../packages/scrim/src/client/http-client.js';
import type { TritonClient } from '../packages/scrim/src/client/triton-client.js';
import { createDiagonalTransform } from '../packages/scrim/src/noise/diagonal.js';
import {
  bytesTensor,
  decodeInferRequest,
  decodeMessage,
  inferRequestFromMessage,
  pb,
} from '../packages/scrim/src/protocol/index.js';
import {
  createSecret,
  findSecrets,
  type ReadWire,
  readGrpc,
  readHttp,
  recordWire,
  type Secret,
  type WireRecorder,
} from './wire-recorder.js';

const SIDE = 256;
const RESIZE = { kind: 'stretch', width: SIDE, height: SIDE } as const;
const require = createRequire(new URL('../packages/cli/package.json', import.meta.url));
const PHOTO = join(dirname(require.resolve('@vladmandic/human/package.json')), 'assets', 'human-sample-face.jpg');
const ENCODINGS = ['identity', 'gzip', 'deflate'] as const;
const PROTOCOLS = ['http', 'grpc'] as const;
const crypto = createNodeCrypto();

let folder: string;
let bundle: Bundle;
let engine: Engine;
let remote: RunningServer;
let wires: Record<(typeof PROTOCOLS)[number], WireRecorder>;
let file: Uint8Array;
let secrets: Secret[];

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

function clientOver(protocol: 'http' | 'grpc', compression: (typeof ENCODINGS)[number]): TritonClient {
  const address = `127.0.0.1:${wires[protocol].port}`;
  return protocol === 'grpc'
    ? createGrpcClient({ url: address, compression })
    : createTritonClient({ url: `http://${address}`, compression, transport: createHttpAgent() });
}

/** The photo and the clean activation in every form that a careless program might send. */
async function makeSecrets(): Promise<[string, Uint8Array][]> {
  const image = await readImage(PHOTO);
  const detector = detectorOf(bundle.manifest.model);
  const { resized, canvas } = planResize(image, RESIZE, detector.multiple);
  const input = createPixelConverter(detector.preprocessing).convert(image, { resized, canvas });
  const head = await engine.load(await bundle.read('trusted/head.onnx'));
  const outputs = await head.run({ [bundle.manifest.model.input]: input });
  const clean = (outputs[bundle.manifest.cut.tensors[0]?.name ?? ''] as Tensor<'float32'>).data;
  await head.close();
  const { steps, sentChannels, channels } = createDiagonalTransform(bundle.parameters);
  const plane = clean.length / channels;
  const grid: number[] = [];
  for (const [i, c] of (sentChannels ?? new Int32Array(0)).entries()) {
    for (const value of clean.subarray(c * plane, (c + 1) * plane)) grid.push(Math.round(value / (steps[i] as number)));
  }
  const halves = (values: Float32Array): Uint8Array => bytesOf(Uint16Array.from(values, toHalf));
  return [
    ['the file', file],
    ['the file as base64', new TextEncoder().encode(Buffer.from(file).toString('base64'))],
    ['the pixels', bytesOf(image.data)],
    ['the pixels at the size of the input', bytesOf(Uint8Array.from(input.data, (value) => (value + 1) * 127.5))],
    ['the input', bytesOf(input.data)],
    ['the input as float16', halves(input.data)],
    ['the activation', bytesOf(clean)],
    ['the activation as float16', halves(clean)],
    ['the activation on the grid', bytesOf(Int16Array.from(grid))],
    ['the activation on the grid, as bytes', Uint8Array.from(grid)],
    ['the activation as text', new TextEncoder().encode(Array.from(clean.subarray(0, 4_096)).join(','))],
  ];
}

/** IEEE 754 binary16, rounded to nearest, ties to even. */
function toHalf(value: number): number {
  const [bits = 0] = new Uint32Array(Float32Array.of(value).buffer);
  const sign = (bits >>> 16) & 0x8000;
  const size = Math.abs(value);
  if (size < 2 ** -14) return sign | Math.round(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  const mantissa = (size / 2 ** exponent) * 1024;
  const even = Math.round(mantissa) - (mantissa % 1 === 0.5 && Math.round(mantissa) % 2 === 1 ? 1 : 0);
  return sign | (((exponent + 15) << 10) + (even - 1024));
}

function read(protocol: 'http' | 'grpc', streams: readonly Buffer[]): ReadWire {
  const parts = streams.map(protocol === 'http' ? readHttp : readGrpc);
  return {
    bodies: parts.flatMap(({ bodies }) => bodies),
    otherBytes: parts.reduce((sum, part) => sum + part.otherBytes, 0),
    headerLengths: parts.flatMap(({ headerLengths }) => headerLengths),
  };
}

/** The one inference among what was sent. */
function sentTensor(protocol: 'http' | 'grpc', { bodies, headerLengths }: ReadWire): Tensor {
  const requests = bodies.flatMap((body, i) => {
    const plain = new Uint8Array(body);
    if (protocol === 'http') {
      const headerLength = headerLengths[i];
      return headerLength === undefined ? [] : [decodeInferRequest(plain, { modelName: 'm', headerLength })];
    }
    const message = decodeMessage(pb.ModelInferRequestSchema, plain);
    return message.inputs.length === 0 ? [] : [inferRequestFromMessage(message)];
  });
  expect(requests).toHaveLength(1);
  return requests[0]?.inputs[0]?.tensor as Tensor;
}

function expectOnlyReleased(protocol: 'http' | 'grpc', payload: PayloadFormat, streams: readonly Buffer[]): void {
  const wire = read(protocol, streams);
  // As sent, and as the receiver reads it.
  expect(findSecrets(Buffer.concat([...streams, ...wire.bodies]), secrets)).toEqual([]);
  // Header lines and frames have no room for a picture.
  expect(wire.otherBytes).toBeLessThan(3_000);
  const { mean } = bundle.parameters;
  const { sentChannels, channels } = createDiagonalTransform(bundle.parameters);
  const sent = [...(sentChannels as Int32Array)];
  const tensor = sentTensor(protocol, wire);
  const side = SIDE / 32;
  expect(tensor.shape).toEqual([1, payload === 'fp32' ? channels : sent.length, side, side]);
  if (payload !== 'fp32') return;
  // The document's form has a place for every channel: suppressed ones hold their constant.
  const data = tensor.data as Float32Array;
  for (let c = 0; c < channels; c++) {
    const plane = data.subarray(c * side * side, (c + 1) * side * side);
    if (!sent.includes(c)) expect(plane.every((value) => value === mean[c])).toBe(true);
  }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'scrim-capture-'));
  bundle = await openServable({ model: 'faceboxes', alpha: 0.8 });
  expect(createDiagonalTransform(bundle.parameters).sentChannels?.length).toBeLessThan(128);
  const repository = join(folder, 'repository');
  await writeDirectory(repository, await exportRepository(bundle));
  engine = await createNodeEngine({ threads: 1 });
  remote = await serveRepository({ repository, httpPort: 0, grpcPort: 0, threads: 1 });
  wires = { http: await recordWire(remote.http?.port ?? 0), grpc: await recordWire(remote.grpc?.port ?? 0) };
  file = new Uint8Array(readFileSync(PHOTO));
  secrets = (await makeSecrets()).map(([name, bytes]) => createSecret(name, bytes));
});

afterAll(async () => {
  await Promise.all(Object.values(wires).map((wire) => wire.close()));
  await remote.close(1_000);
  await engine.close();
  rmSync(folder, { recursive: true });
});

describe.each(PROTOCOLS)('over %s', (protocol) => {
  it.each(PAYLOAD_FORMATS)('a client sends releases alone, payload %s', async (payload) => {
    for (const encoding of ENCODINGS) {
      const client = clientOver(protocol, encoding);
      const session = await createConfidentialSession({ bundle, client, engine, crypto, payload });
      const { detections } = await session.detect(await readImage(PHOTO), { resize: RESIZE });
      expect(Array.isArray(detections)).toBe(true);
      expectOnlyReleased(protocol, payload, wires[protocol].take());
      await session.close();
      await client.close();
    }
  });

  it.each(PAYLOAD_FORMATS)('the gateway sends releases alone, payload %s', async (payload) => {
    for (const encoding of ENCODINGS) {
      const upstream = clientOver(protocol, encoding);
      const session = await createConfidentialSession({ bundle, client: upstream, engine, crypto, payload });
      const gateway = await createGateway({ bundle, session, upstream, resize: RESIZE });
      const front =
        protocol === 'http'
          ? await listenHttp({ port: 0, answer: (call) => gateway.answer(call) })
          : await listenGrpc({ port: 0, server: gateway.server });
      // What goes to the gateway is recorded too: there the search must find the picture.
      const wire = await recordWire(front.port);
      const address = `127.0.0.1:${wire.port}`;
      const client =
        protocol === 'http'
          ? createTritonClient({ url: `http://${address}`, compression: encoding, transport: createHttpAgent() })
          : createGrpcClient({ url: address, compression: encoding });
      wires[protocol].take();
      await client.infer({
        modelName: bundle.manifest.model.name,
        inputs: [{ name: bundle.manifest.model.input, tensor: bytesTensor([1], [file]) }],
      });
      expectOnlyReleased(protocol, payload, wires[protocol].take());
      const trusted = wire.take();
      expect(findSecrets(Buffer.concat(read(protocol, trusted).bodies), secrets.slice(0, 1))).toEqual(['the file']);
      await client.close();
      await wire.close();
      await front.close(500);
      await gateway.close();
      await session.close();
      await upstream.close();
    }
  });
});
