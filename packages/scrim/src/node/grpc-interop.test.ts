/** Both sides of this project's gRPC against @grpc/grpc-js, which neither of them is made of. */
import { connect, constants, type IncomingHttpHeaders } from 'node:http2';
import {
  Client,
  type ClientDuplexStream,
  compressionAlgorithms,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceError,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Graph } from '../onnx/index.js';
import {
  createLimits,
  decodeMessage,
  encodeGrpcRequest,
  encodeMessage,
  inferResponseFromMessage,
  pb,
} from '../protocol/index.js';
import { createInferenceServer, type InferenceServer, MemoryRepository } from '../server/index.js';
import { float32 } from '../tensor.js';
import { createGrpcClient } from './grpc-client.js';
import { type GrpcListener, listenGrpc } from './grpc-server.js';
import type { AccessRecord } from './http-listener.js';
import { createNodeEngine } from './ort-engine.js';

const PATH = '/inference.GRPCInferenceService/';
const WIDTH = 2_000;
const pass = (bytes: Buffer): Buffer => bytes;

function doubler(): Uint8Array {
  const graph = Graph.create();
  graph.addInput('x', 'float32', ['n', WIDTH]);
  graph.add('Add', ['x', 'x'], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', WIDTH]);
  return graph.encode();
}

const request = (value: number, modelName = 'double', width = WIDTH) => ({
  modelName,
  inputs: [{ name: 'x', tensor: float32([1, width], new Float32Array(width).fill(value)) }],
});
const encoded = (...args: Parameters<typeof request>): Buffer => Buffer.concat(encodeGrpcRequest(request(...args)));

function firstValue(message: pb.ModelInferResponse): number | undefined {
  const [output] = inferResponseFromMessage(message).outputs;
  return (output!.tensor.data as Float32Array)[0];
}

function firstNumber(bytes: Uint8Array): number | undefined {
  return firstValue(decodeMessage(pb.ModelInferResponseSchema, new Uint8Array(bytes)));
}

describe('the listener, called by grpc-js', () => {
  let server: InferenceServer;
  let listener: GrpcListener;
  let client: Client;
  const records: AccessRecord[] = [];
  const waiting: AbortSignal[] = [];

  beforeAll(async () => {
    server = createInferenceServer({
      repository: new MemoryRepository({ double: { '1/model.onnx': doubler() } }),
      engineFactory: () => createNodeEngine({ threads: 1, thread: 'inline' }),
      limits: createLimits({ maxBytes: 100_000 }),
    });
    await server.start();
    listener = await listenGrpc({
      server,
      port: 0,
      tokens: ['token-1'],
      onAccess: (record) => records.push(record),
      infer: (_, given, options) => {
        if (given.modelName !== 'never') return server.infer(given, options);
        waiting.push(options.signal);
        return new Promise(() => {});
      },
    });
    client = new Client(listener.address, credentials.createInsecure());
  });
  afterAll(async () => {
    client.close();
    await listener.close(100);
    await server.close();
  });

  const metadata = (authorization = 'Bearer token-1'): Metadata => {
    const given = new Metadata();
    given.set('authorization', authorization);
    return given;
  };
  const unary = (
    bytes: Buffer,
    { method = 'ModelInfer', deadline = Date.now() + 10_000, by = client, token = 'Bearer token-1' } = {},
  ): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      by.makeUnaryRequest(`${PATH}${method}`, pass, pass, bytes, metadata(token), { deadline }, (error, answer) =>
        error ? reject(error) : resolve(answer as Buffer),
      );
    });

  it('answers, with compressed requests too', async () => {
    expect(firstNumber(await unary(encoded(3)))).toBe(6);
    for (const algorithm of [compressionAlgorithms.gzip, compressionAlgorithms.deflate]) {
      const by = new Client(listener.address, credentials.createInsecure(), {
        'grpc.default_compression_algorithm': algorithm,
      });
      expect(firstNumber(await unary(encoded(4), { by }))).toBe(8);
      // A message that grows past the limit is refused as one that is sent so.
      await expect(unary(Buffer.alloc(200_000), { by })).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
      by.close();
    }
  });

  it('refuses what it can not answer with the status that says why, and goes on', async () => {
    await expect(unary(encoded(1), { method: 'TraceSetting' })).rejects.toMatchObject({ code: status.UNIMPLEMENTED });
    await expect(unary(encoded(1), { token: 'Bearer x' })).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
    await expect(unary(encoded(1, 'größer'))).rejects.toMatchObject({
      code: status.NOT_FOUND,
      details: expect.stringContaining("'größer'"),
    });
    await expect(unary(Buffer.from([0xff, 0xff]))).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
    await expect(unary(encoded(1, 'double', 200_000))).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(firstNumber(await unary(encoded(5)))).toBe(10);
    const seen = records.filter(({ status: code }) => code === status.NOT_FOUND);
    expect(seen).toEqual([expect.objectContaining({ transport: 'grpc', path: `${PATH}ModelInfer`, responseBytes: 0 })]);
  });

  it('ends calls at their deadline and when the caller goes, and tells who works for them', async () => {
    await expect(unary(encoded(1, 'never'), { deadline: Date.now() + 150 })).rejects.toMatchObject({
      code: status.DEADLINE_EXCEEDED,
    });
    const call = client.makeUnaryRequest(`${PATH}ModelInfer`, pass, pass, encoded(1, 'never'), metadata(), () => {});
    await expect.poll(() => waiting.length).toBe(2);
    call.cancel();
    await expect.poll(() => waiting.every(({ aborted }) => aborted)).toBe(true);
  });

  /** A call written frame by frame, whose caller may never say that no more follows. */
  async function raw(method: string, messages: readonly Buffer[], ends: boolean) {
    const session = connect(`http://${listener.address}`);
    const stream = session.request({
      ':method': 'POST',
      ':path': `${PATH}${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: 'Bearer token-1',
    });
    let code: unknown;
    const readStatus = (headers: IncomingHttpHeaders): void => {
      code ??= headers['grpc-status'];
    };
    stream.on('response', readStatus);
    stream.on('trailers', readStatus);
    stream.on('error', () => {});
    let bytes = 0;
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    for (const message of messages) {
      const prefix = Buffer.alloc(5);
      prefix.writeUInt32BE(message.length, 1);
      stream.write(Buffer.concat([prefix, message]));
    }
    if (ends) stream.end();
    await new Promise((resolve) => stream.once('close', resolve));
    const { rstCode } = stream;
    session.close();
    return { code, bytes, rstCode };
  }

  it('answers a request whose caller leaves its side open, and lets go of it', async () => {
    const answered = await raw('ModelInfer', [encoded(4)], false);
    expect(answered).toMatchObject({ code: '0', rstCode: constants.NGHTTP2_NO_ERROR });
    expect(answered.bytes).toBeGreaterThan(16);
  });

  it('refuses calls of two messages and of none', async () => {
    for (const method of ['ModelInfer', 'ServerLive']) {
      const message = method === 'ModelInfer' ? encoded(4, 'never') : Buffer.alloc(0);
      expect(await raw(method, [message, message], true)).toMatchObject({ code: '12', bytes: 0 });
      expect(await raw(method, [], true)).toMatchObject({ code: '12', bytes: 0 });
    }
  });

  it('streams in order, with more requests under way than it takes at a time', async () => {
    const call: ClientDuplexStream<Buffer, Buffer> = client.makeBidiStreamRequest(
      `${PATH}ModelStreamInfer`,
      pass,
      pass,
      metadata(),
    );
    const got: (number | undefined)[] = [];
    const ended = new Promise((resolve) => {
      call.on('data', (bytes: Buffer) => {
        const { inferResponse } = decodeMessage(pb.ModelStreamInferResponseSchema, new Uint8Array(bytes));
        expect(inferResponse?.parameters.triton_final_response?.parameterChoice.value).toBe(true);
        got.push(firstValue(inferResponse!));
      });
      call.on('end', resolve);
    });
    for (let i = 0; i < 200; i++) call.write(encoded(i));
    call.end();
    await ended;
    expect(got).toEqual(Array.from({ length: 200 }, (_, i) => 2 * i));
  });

  it('answers HTTP/2 that is not gRPC with an HTTP status, and ends calls without a message', async () => {
    const session = connect(`http://${listener.address}`);
    const ask = (headers: Record<string, string>, body?: Uint8Array): Promise<Record<string, unknown>> =>
      new Promise((resolve, reject) => {
        const stream = session.request({ ':method': 'POST', ':path': `${PATH}ServerLive`, ...headers });
        stream.on('response', (answer) => resolve({ http: answer[':status'], grpc: answer['grpc-status'] }));
        stream.on('error', reject);
        stream.resume();
        stream.end(body);
      });
    const grpc = { 'content-type': 'application/grpc', authorization: 'Bearer token-1' };
    expect(await ask({ 'content-type': 'application/json' })).toEqual({ http: 415 });
    expect(await ask({ ':method': 'GET' })).toEqual({ http: 405 });
    expect(await ask(grpc)).toEqual({ http: 200, grpc: '12' });
    expect(await ask(grpc, Uint8Array.of(0, 0, 0, 0, 9, 1))).toEqual({ http: 200, grpc: '3' });
    expect(await ask({ ...grpc, 'grpc-timeout': 'soon' })).toEqual({ http: 200, grpc: '3' });
    expect(await ask({ ...grpc, 'grpc-encoding': 'snappy' })).toEqual({ http: 200, grpc: '12' });
    expect(await ask({ ...grpc, ':path': '/nothing' })).toEqual({ http: 200, grpc: '12' });
    session.destroy();
  });

  it('lets calls under way end when it closes, and cuts them after the time it gives', async () => {
    const own = await listenGrpc({
      server,
      port: 0,
      infer: (_, given) => new Promise((resolve) => setTimeout(() => resolve(server.infer(given)), 200)),
    });
    const by = new Client(own.address, credentials.createInsecure());
    const running = unary(encoded(7), { by });
    await new Promise((resolve) => setTimeout(resolve, 100));
    await own.close(5_000);
    expect(firstNumber(await running)).toBe(14);
    by.close();
    const stuck = await listenGrpc({ server, port: 0, infer: () => new Promise(() => {}) });
    const other = new Client(stuck.address, credentials.createInsecure());
    const cut = unary(encoded(7), { by: other });
    cut.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 100));
    await stuck.close(50);
    await expect(cut).rejects.toBeDefined();
    other.close();
  });
});

describe('the client, answered by grpc-js', () => {
  let server: Server;
  let address: string;
  const seen: Metadata[] = [];
  let fault: Partial<ServiceError> | undefined;
  let cancelled = 0;

  beforeAll(async () => {
    server = new Server({ 'grpc.default_compression_algorithm': compressionAlgorithms.gzip });
    const define = (name: string, stream = false) => ({
      path: `${PATH}${name}`,
      requestStream: stream,
      responseStream: stream,
      requestSerialize: pass,
      requestDeserialize: pass,
      responseSerialize: pass,
      responseDeserialize: pass,
    });
    server.addService({ ServerLive: define('ServerLive'), ModelStreamInfer: define('ModelStreamInfer', true) }, {
      ServerLive: (
        call: { metadata: Metadata; on(event: string, listener: () => void): void },
        reply: sendUnaryData<Buffer>,
      ) => {
        seen.push(call.metadata);
        call.on('cancelled', () => {
          cancelled++;
        });
        if (call.metadata.get('wait').length > 0) return;
        if (fault) reply(fault);
        else reply(null, Buffer.from(encodeMessage(pb.ServerLiveResponseSchema, { live: true })));
      },
      ModelStreamInfer: (call: ClientDuplexStream<Buffer, Buffer>) => {
        call.on('data', () => call.emit('error', { code: status.ABORTED, details: 'no more' }));
      },
    } as never);
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    address = `127.0.0.1:${port}`;
  });
  afterAll(() => server.forceShutdown());

  it('sends headers, token and timeout, and reads statuses with their texts', async () => {
    const client = createGrpcClient({ url: address, headers: { 'X-One': '1' }, bearerToken: 't', timeoutMs: 5_000 });
    expect(await client.serverLive({ headers: { 'x-two': '2' } })).toBe(true);
    const metadata = seen.at(-1);
    expect(['x-one', 'x-two', 'authorization'].map((name) => metadata?.get(name))).toEqual([
      ['1'],
      ['2'],
      ['Bearer t'],
    ]);
    fault = { code: status.FAILED_PRECONDITION, details: 'nicht 100% möglich' };
    await expect(client.serverLive()).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('nicht 100% möglich'),
    });
    fault = undefined;
    await expect(client.serverReady()).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(client.serverLive({ headers: { connection: 'close' } })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await client.close();
    await expect(client.serverLive()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('keeps deadlines, and tells the server when it gives a call up', async () => {
    const client = createGrpcClient({ url: address });
    const before = cancelled;
    await expect(client.serverLive({ timeoutMs: 150, headers: { wait: '1' } })).rejects.toMatchObject({
      code: 'DEADLINE_EXCEEDED',
    });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    await expect(client.serverLive({ signal: controller.signal, headers: { wait: '1' } })).rejects.toMatchObject({
      code: 'CANCELLED',
    });
    await expect.poll(() => cancelled).toBeGreaterThanOrEqual(before + 2);
    const stream = (async () => {
      for await (const _ of client.inferStream([request(1)], { timeoutMs: 5_000 })) expect.unreachable();
    })();
    await expect(stream).rejects.toMatchObject({ message: expect.stringContaining('no more') });
    await client.close();
  });

  it('makes a new connection when the old one broke', async () => {
    const client = createGrpcClient({ url: address, retry: { retries: 5, baseMs: 20 } });
    expect(await client.serverLive()).toBe(true);
    const port = Number(address.split(':')[1]);
    server.forceShutdown();
    const again = new Server();
    again.addService(
      {
        ServerLive: {
          path: `${PATH}ServerLive`,
          requestStream: false,
          responseStream: false,
          requestSerialize: pass,
          requestDeserialize: pass,
          responseSerialize: pass,
          responseDeserialize: pass,
        },
      },
      {
        ServerLive: (_: unknown, reply: sendUnaryData<Buffer>) =>
          reply(null, Buffer.from(encodeMessage(pb.ServerLiveResponseSchema, { live: true }))),
      } as never,
    );
    const bound = new Promise<void>((resolve, reject) => {
      const bind = (tries: number): void =>
        again.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error) => {
          if (!error) resolve();
          else if (tries === 0) reject(error);
          else setTimeout(() => bind(tries - 1), 50);
        });
      bind(20);
    });
    await bound;
    expect(await client.serverLive()).toBe(true);
    await client.close();
    again.forceShutdown();
  });
});
