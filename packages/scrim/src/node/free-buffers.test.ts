import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Graph } from '../onnx/index.js';
import {
  encodeGrpcRequest,
  encodeInferRequest,
  frameMessage,
  type InferResponse,
  joinBody,
} from '../protocol/index.js';
import { MemoryRepository } from '../server/index.js';
import { createInferenceServer, type InferenceServer } from '../server/inference-server.js';
import { float32 } from '../tensor.js';
import { freeArrays, freeBuffers } from './free-buffers.js';
import { createGrpcClient } from './grpc-client.js';
import { type GrpcListener, listenGrpc } from './grpc-server.js';
import { type HttpListener, listenHttp } from './http-listener.js';
import { createNodeEngine } from './ort-engine.js';

describe('freed buffers', () => {
  it('are empty at once; small, shared and pooled ones stay as they are', () => {
    const large = new ArrayBuffer(2 ** 20);
    const part = new Uint8Array(2 ** 20).subarray(1);
    const whole = new Uint8Array(2 ** 20);
    const kept = [new ArrayBuffer(10), new SharedArrayBuffer(2 ** 20), Buffer.from('text').buffer];
    const sizes = kept.map(({ byteLength }) => byteLength);
    freeBuffers([large, large, ...kept]);
    freeArrays([part, whole]);
    expect([large.byteLength, part.length, whole.length]).toEqual([0, 2 ** 20 - 1, 0]);
    expect(kept.map(({ byteLength }) => byteLength)).toEqual(sizes);
  });
});

describe('answers whose memory is freed', () => {
  const width = 2 ** 20;
  let server: InferenceServer;
  let http: HttpListener;
  let grpc: GrpcListener;
  const request = (value: number) => ({
    modelName: 'double',
    inputs: [{ name: 'x', tensor: float32([1, width], new Float32Array(width).fill(value)) }],
  });

  beforeAll(async () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['n', width]);
    graph.add('Add', ['x', 'x'], {}, { outputs: ['y'] });
    graph.addOutput('y', 'float32', ['n', width]);
    server = createInferenceServer({
      repository: new MemoryRepository({ double: { '1/model.onnx': graph.encode() } }),
      engineFactory: () => createNodeEngine({ threads: 1 }),
    });
    await server.start();
    http = await listenHttp({ answer: server.answer.bind(server), port: 0 });
    grpc = await listenGrpc({ server, port: 0 });
  });
  afterAll(async () => {
    await Promise.all([http.close(100), grpc.close(100)]);
    await server.close();
  });

  /** The last megabytes of what came, as numbers: a slow reader keeps the answer in the server's hands. */
  const tail = (bytes: Buffer): Set<number> =>
    new Set(new Float32Array(new Uint8Array(bytes.subarray(-4 * width)).buffer));

  it('reach a slow reader of HTTP whole, while others are answered', async () => {
    const read = async (value: number): Promise<Set<number>> => {
      const body = encodeInferRequest(request(value));
      const bytes = joinBody(body);
      const headers = Object.entries({
        ...body.headers,
        host: 'x',
        'content-length': bytes.length,
        connection: 'close',
      });
      const socket = connect(http.port, '127.0.0.1');
      socket.write(
        `POST /v2/models/double/infer HTTP/1.1\r\n${headers.map(([k, v]) => `${k}: ${v}`).join('\r\n')}\r\n\r\n`,
      );
      socket.write(bytes);
      const parts: Buffer[] = [];
      for await (const part of socket) {
        parts.push(part as Buffer);
        if (parts.length % 8 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      }
      return tail(Buffer.concat(parts));
    };
    const answers = await Promise.all([1, 2, 3, 4, 5, 6].map(read));
    expect(answers.map((values) => [...values])).toEqual([2, 4, 6, 8, 10, 12].map((value) => [value]));
  });

  it('reach a slow reader of gRPC whole, while others are answered', async () => {
    const session = connectHttp2(`http://${grpc.address}`);
    const read = async (value: number): Promise<Set<number>> => {
      const stream = session.request({
        ':method': 'POST',
        ':path': '/inference.GRPCInferenceService/ModelInfer',
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      for (const part of frameMessage(encodeGrpcRequest(request(value)))) stream.write(part);
      stream.end();
      const parts: Buffer[] = [];
      for await (const part of stream) {
        parts.push(part as Buffer);
        if (parts.length % 16 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return tail(Buffer.concat(parts));
    };
    const answers = await Promise.all([1, 2, 3, 4, 5, 6].map(read));
    expect(answers.map((values) => [...values])).toEqual([2, 4, 6, 8, 10, 12].map((value) => [value]));
    session.close();
    await once(session, 'close');
  });

  it('reach callers of one gRPC client whole, beside a stream that is read slowly', async () => {
    const client = createGrpcClient({ url: grpc.address });
    const valuesOf = ({ outputs }: InferResponse): number[] => [...new Set(outputs[0]!.tensor.data as Float32Array)];
    const calls = async (values: readonly number[]): Promise<number[]> =>
      (await Promise.all(values.map((value) => client.infer(request(value))))).flatMap(valuesOf);
    const values = Array.from({ length: 24 }, (_, i) => i);
    const doubled = values.map((value) => 2 * value);
    const found: number[] = [];
    const beside: Promise<number[]>[] = [];
    for await (const answer of client.inferStream(values.map(request))) {
      found.push(...valuesOf(answer as InferResponse));
      beside.push(calls([found.length]));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(found).toEqual(doubled);
    expect((await Promise.all(beside)).flat()).toEqual(doubled.map((value) => value + 2));
    expect(await calls(values)).toEqual(doubled);
    await client.close();
  });
});
