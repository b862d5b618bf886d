import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { createQueuedEngine } from '../engine/queued-engine.js';
import { Graph } from '../onnx/index.js';
import {
  decodeInferResponse,
  decodeMessage,
  encodeInferRequest,
  encodeMessage,
  healthPb,
  inferRequestToMessage,
  inferResponseFromMessage,
  joinBody,
  parseHeaderLength,
  pb,
} from '../protocol/index.js';
import type { EngineFactory } from '../server/index.js';
import { float32 } from '../tensor.js';
import type { AccessRecord } from './http-listener.js';
import { openModelRepository } from './model-files.js';
import { createNodeEngine } from './ort-engine.js';
import { DEFAULT_SETTINGS, type RuntimeSettings } from './ort-runtime.js';
import { createFlags, stopAndWait } from './ort-worker-data.js';
import { connectOrtWorker, ortWorkerUrl, WORKER_WIDTH } from './ort-worker-host.js';
import { type RunningServer, type ServeOptions, serveRepository } from './server-process.js';

const inline: EngineFactory = () => createNodeEngine({ threads: 1, thread: 'inline' });
/** Keeps the batch dimension to the model, so that requests are executed one by one. */
const ONE_BY_ONE = 'output { name: "y" data_type: TYPE_FP32 dims: [ -1, -1 ] }';
const cleanups: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const task of cleanups.splice(0).reverse()) await task();
});

/** y = x + x + … (`depth` times), rows of `width`. */
function doubling(width: number, depth: number): Uint8Array {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n', width]);
  let value = 'x';
  for (let i = 1; i < depth; i++) value = graph.add('Add', [value, 'x']);
  graph.add('Add', [value, 'x'], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', width]);
  return graph.encode();
}

function repository(models: Record<string, { model: Uint8Array; config?: string }>): string {
  const root = mkdtempSync(join(tmpdir(), 'scrim-server-'));
  cleanups.push(() => rmSync(root, { recursive: true }));
  for (const [name, { model, config }] of Object.entries(models)) {
    mkdirSync(join(root, name, '1'), { recursive: true });
    writeFileSync(join(root, name, '1', 'model.onnx'), model);
    if (config !== undefined) writeFileSync(join(root, name, 'config.pbtxt'), config);
  }
  return root;
}

async function serve(root: string, options: Partial<ServeOptions> = {}): Promise<RunningServer> {
  const running = await serveRepository({
    repository: root,
    httpPort: 0,
    grpcPort: 0,
    metricsPort: 0,
    engineFactory: inline,
    ...options,
  });
  cleanups.push(() => running.close(1_000));
  return running;
}

const encoded = (value: number, width = 4) =>
  encodeInferRequest({
    modelName: 'm',
    inputs: [{ name: 'x', tensor: float32([1, width], new Float32Array(width).fill(value)) }],
  });

async function infer(url: string, value: number, init: RequestInit = {}, width = 4): Promise<Response> {
  const body = encoded(value, width);
  return fetch(`${url}/v2/models/m/infer`, {
    method: 'POST',
    body: joinBody(body),
    ...init,
    headers: { ...body.headers, ...(init.headers as Record<string, string>) },
  });
}

async function firstNumber(response: Response): Promise<number> {
  const headerLength = parseHeaderLength(response.headers.get('inference-header-content-length'))!;
  const { outputs } = decodeInferResponse(new Uint8Array(await response.arrayBuffer()), { headerLength });
  return (outputs[0]!.tensor.data as Float32Array)[0]!;
}

/** Sends bytes over a bare connection and returns all that comes back until it is closed. */
function exchange(port: number, send: (socket: Socket) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => send(socket));
    let text = '';
    socket.on('data', (part) => {
      text += part.toString('latin1');
    });
    socket.on('close', () => resolve(text));
    socket.on('error', (error) => {
      if (text === '') reject(error);
    });
  });
}

describe('the server over sockets', () => {
  it('answers HTTP, metrics on their own port, and logs accesses without payloads', async () => {
    const records: AccessRecord[] = [];
    const { http, metrics } = await serve(repository({ m: { model: doubling(4, 2) } }), {
      onAccess: (record) => records.push(record),
    });
    const response = await infer(http!.url, 2);
    expect([response.status, await firstNumber(response)]).toEqual([200, 6]);
    const text = await (await fetch(`${metrics!.url}/metrics`)).text();
    expect(text).toContain('nv_inference_count{model="m",version="1"} 1');
    expect((await fetch(`${metrics!.url}/v2/health/ready`)).status).toBe(404);
    expect(records).toHaveLength(1);
    expect(records[0]).toMatchObject({ transport: 'http', method: 'POST', path: '/v2/models/m/infer', status: 200 });
  });

  it('asks for a token and answers only allowed origins', async () => {
    const { http, grpc } = await serve(repository({ m: { model: doubling(4, 1) } }), {
      tokens: ['one', 'two'],
      corsOrigins: ['https://app.example'],
    });
    const statuses = await Promise.all(
      ['', 'Bearer wrong', 'Bearer', 'one', 'Bearer two'].map(async (authorization) => {
        const { status } = await infer(http!.url, 1, { headers: authorization === '' ? {} : { authorization } });
        return status;
      }),
    );
    expect(statuses).toEqual([401, 401, 401, 401, 200]);
    expect((await fetch(`${http!.url}/v2/health/ready`)).status).toBe(200);
    const preflight = (origin: string) =>
      fetch(`${http!.url}/v2/models/m/infer`, {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' },
      });
    const allowed = await preflight('https://app.example');
    expect([allowed.status, allowed.headers.get('access-control-allow-origin')]).toEqual([204, 'https://app.example']);
    const foreign = await preflight('https://evil.example');
    expect(foreign.headers.get('access-control-allow-origin')).toBe(null);
    await expect(
      unary(grpc!.address, pb.ServerLiveRequestSchema, pb.ServerLiveResponseSchema, 'ServerLive', {}),
    ).rejects.toMatchObject({ code: 16 });
    const live = await unary(
      grpc!.address,
      pb.ServerLiveRequestSchema,
      pb.ServerLiveResponseSchema,
      'ServerLive',
      {},
      'Bearer one',
    );
    expect(live.live).toBe(true);
  });

  it('answers gRPC: infer, streams in order with errors inside, health', async () => {
    const { grpc } = await serve(repository({ m: { model: doubling(4, 2) } }));
    const message = (value: number, modelName = 'm') =>
      inferRequestToMessage({ modelName, inputs: [{ name: 'x', tensor: float32([1, 4], [value, 0, 0, 0]) }] });
    const answer = await unary(
      grpc!.address,
      pb.ModelInferRequestSchema,
      pb.ModelInferResponseSchema,
      'ModelInfer',
      message(5),
    );
    expect((inferResponseFromMessage(answer).outputs[0]!.tensor.data as Float32Array)[0]).toBe(15);
    await expect(
      unary(grpc!.address, pb.ModelInferRequestSchema, pb.ModelInferResponseSchema, 'ModelInfer', message(5, 'other')),
    ).rejects.toMatchObject({ code: 5 });

    const client = new Client(grpc!.address, credentials.createInsecure());
    const call = client.makeBidiStreamRequest(
      '/inference.GRPCInferenceService/ModelStreamInfer',
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
    );
    const got: string[] = [];
    call.on('data', (bytes: Buffer) => {
      const { errorMessage, inferResponse } = decodeMessage(pb.ModelStreamInferResponseSchema, new Uint8Array(bytes));
      const output = inferResponse?.rawOutputContents[0];
      got.push(errorMessage === '' ? String(new DataView(output!.slice().buffer).getFloat32(0, true)) : errorMessage);
    });
    for (let i = 0; i < 5; i++) {
      call.write(Buffer.from(encodeMessage(pb.ModelInferRequestSchema, message(i, i === 2 ? 'other' : 'm'))));
    }
    call.end();
    await new Promise((resolve) => call.on('end', resolve));
    client.close();
    expect(got).toEqual(['0', '3', "Request for unknown model: 'other' is not found", '9', '12']);
    const health = await unary(
      grpc!.address,
      healthPb.HealthCheckRequestSchema,
      healthPb.HealthCheckResponseSchema,
      'Check',
      {},
      undefined,
      'grpc.health.v1.Health',
    );
    expect(health.status).toBe(healthPb.HealthCheckResponse_ServingStatus.SERVING);
  });

  it('withstands clients that misbehave and still serves the others', async () => {
    const { http } = await serve(repository({ m: { model: doubling(4, 2) } }), {
      maxBodyBytes: 4_096,
      requestTimeoutMs: 400,
    });
    const { port, url } = http!;
    const head = 'POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\n';
    const cases: [string, (socket: Socket) => void, RegExp][] = [
      ['slow body', (s) => s.write(`${head}content-length: 100\r\n\r\n{`), /^HTTP\/1.1 408 [\s\S]*\{"error":/],
      ['slow headers', (s) => s.write('POST /v2 HTTP/1.1\r\nhost'), /^HTTP\/1.1 408 /],
      ['oversized', (s) => s.write(`${head}content-length: 99999\r\n\r\n`), /^HTTP\/1.1 400 [\s\S]*4096 bytes/],
      [
        'oversized in chunks',
        (s) => s.write(`${head}transfer-encoding: chunked\r\n\r\n1400\r\n${'x'.repeat(5_120)}\r\n0\r\n\r\n`),
        /^HTTP\/1.1 400 [\s\S]*4096 bytes/,
      ],
      ['no HTTP', (s) => s.write('\x16\x03\x01\x02\x00garbage\r\n\r\n'), /^HTTP\/1.1 400 [\s\S]*\{"error":/],
      ['no host', (s) => s.write('GET /v2 HTTP/1.1\r\n\r\n'), /^HTTP\/1.1 400 [\s\S]*\{"error":"[^"]*Host/],
      [
        'headers without end',
        (s) => s.write(`GET /v2 HTTP/1.1\r\nhost: x\r\nx: ${'a'.repeat(40_000)}\r\n\r\n`),
        /^HTTP\/1.1 431 [\s\S]*\{"error":/,
      ],
      [
        'the whole URL, as proxies send it',
        (s) => s.write('GET http://x:1/v2/health/live?a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'),
        /^HTTP\/1.1 200 /,
      ],
      [
        'a body in chunks',
        (s) => {
          const body = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}';
          const chunks = [body.slice(0, 20), body.slice(20)].map(
            (part) => `${part.length.toString(16)}\r\n${part}\r\n`,
          );
          s.write(`${head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n${chunks.join('')}0\r\n\r\n`);
        },
        /^HTTP\/1.1 200 [\s\S]*"outputs"/,
      ],
      [
        'bad JSON',
        (s) => s.write(`${head}content-length: 2\r\nconnection: close\r\n\r\n{]`),
        /^HTTP\/1.1 400 [\s\S]*\{"error":/,
      ],
      [
        'wrong header length',
        (s) =>
          s.write(`${head}content-length: 2\r\ninference-header-content-length: 99\r\nconnection: close\r\n\r\n{}`),
        /^HTTP\/1.1 400 [\s\S]*Inference-Header-Content-Length/,
      ],
      [
        'a bomb',
        (s) => s.write(`${head}content-encoding: gzip\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc`),
        /^HTTP\/1.1 400 [\s\S]*not valid gzip/,
      ],
    ];
    const answers = await Promise.all(cases.map(([, send]) => exchange(port, send)));
    for (const [i, [what, , expected]] of cases.entries()) expect(answers[i], what).toMatch(expected);
    for (let i = 0; i < 20; i++) {
      const socket = connect(port, '127.0.0.1');
      await new Promise((resolve) => socket.once('connect', resolve));
      socket.write(`${head}content-length: 100\r\n\r\n{"inputs"`);
      socket.destroy();
    }
    expect(await firstNumber(await infer(url, 4))).toBe(12);
  });

  it('drains: requests under way are answered, new connections are not', async () => {
    const width = 2 ** 16;
    const { http, close, server } = await serve(
      repository({ m: { model: doubling(width, 600), config: ONE_BY_ONE } }),
      {
        engineFactory: () => createNodeEngine({ threads: 1 }),
      },
    );
    const running = Promise.all([1, 2, 3].map(async (value) => firstNumber(await infer(http!.url, value, {}, width))));
    await expect.poll(() => server.metrics(), { interval: 1 }).toMatch(/_pending_request_count\{[^}]*\} 2/);
    const closed = close();
    expect(await running).toEqual([601, 1202, 1803]);
    await closed;
    await expect(fetch(`${http!.url}/v2/health/live`)).rejects.toThrow();
  });
});

describe('an instance that dies', () => {
  it('fails its own requests alone and comes back', async () => {
    const workers: { readonly worker: Worker; readonly flags: Int32Array }[] = [];
    const settings: RuntimeSettings = {
      ...DEFAULT_SETTINGS,
      threads: 1,
      thread: 'worker',
    };
    const engineFactory: EngineFactory = async () => {
      const flags = createFlags();
      const worker = new Worker(ortWorkerUrl(new URL('./ort-worker-host.ts', import.meta.url).href), {
        workerData: { settings, flags },
        execArgv: [],
      });
      workers.push({ worker, flags });
      const { backend, identity } = await connectOrtWorker(worker, flags);
      return createQueuedEngine(backend, identity, WORKER_WIDTH);
    };
    const width = 2 ** 16;
    const { http, server } = await serve(
      repository({
        m: {
          model: doubling(width, 400),
          config: `${ONE_BY_ONE} instance_group { count: 2 kind: KIND_CPU }`,
        },
      }),
      { engineFactory },
    );
    expect(await server.index()).toEqual([{ name: 'm', version: '1', state: 'READY', reason: '' }]);
    expect(workers).toHaveLength(2);
    const pending = Array.from({ length: 8 }, async (_, i) => {
      const response = await infer(http!.url, i, {}, width);
      if (response.status === 200) return (await firstNumber(response)) === 401 * i;
      expect([response.status, Object.keys((await response.json()) as object)]).toEqual([500, ['error']]);
      return 'failed';
    });
    await expect.poll(() => server.metrics(), { interval: 1 }).toMatch(/_pending_request_count\{[^}]*\} [1-9]/);
    // STOP keeps the thread out of native code, where ending it would end the process.
    stopAndWait(workers[0]!.flags, 5_000);
    await workers[0]!.worker.terminate();
    const results = await Promise.all(pending);
    expect(results.filter((result) => result === false)).toEqual([]);
    expect(results.filter((result) => result === 'failed').length).toBeLessThanOrEqual(1);
    await expect.poll(() => workers.length).toBe(3);
    expect(await firstNumber(await infer(http!.url, 2, {}, width))).toBe(802);
    expect((await fetch(`${http!.url}/v2/health/ready`)).status).toBe(200);
  });
});

describe('a repository on disk', () => {
  it('gives models by name, notices changes, and nothing outside a model', async () => {
    const root = repository({ m: { model: doubling(4, 1) }, n: { model: doubling(4, 2), config: 'name: "n"' } });
    mkdirSync(join(root, '.git'));
    writeFileSync(join(root, 'readme.txt'), '');
    symlinkSync(join(root, 'readme.txt'), join(root, 'm', 'link.txt'));
    const files = await openModelRepository(root);
    expect(await files.list()).toEqual(['m', 'n']);
    for (const name of ['..', 'a/b', '', '.git', 'nothing', 'm/../n']) expect(await files.open(name)).toBe(undefined);
    const before = (await files.open('m'))!;
    expect([before.config, before.versions]).toEqual([undefined, [1]]);
    await expect(before.readFile('../readme.txt')).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    await expect(before.readFile('link.txt')).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    await expect(before.readModel(2, 'model.onnx')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    mkdirSync(join(root, 'm', '2'));
    writeFileSync(join(root, 'm', '2', 'model.onnx'), doubling(4, 3));
    const after = (await files.open('m'))!;
    expect(after.versions).toEqual([1, 2]);
    expect(after.fingerprint).not.toBe(before.fingerprint);
    await expect(openModelRepository(join(root, 'missing'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

function unary<I extends DescMessage, O extends DescMessage>(
  address: string,
  input: I,
  output: O,
  method: string,
  message: MessageInitShape<I>,
  token?: string,
  service = 'inference.GRPCInferenceService',
): Promise<MessageShape<O>> {
  const client = new Client(address, credentials.createInsecure());
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', token);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      `/${service}/${method}`,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      Buffer.from(encodeMessage(input, message)),
      metadata,
      (error, bytes) => {
        client.close();
        if (error) reject(error);
        else resolve(decodeMessage(output, new Uint8Array(bytes!)));
      },
    );
  });
}
