import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTritonClient } from '../client/http-client.js';
import type { TritonClient } from '../client/triton-client.js';
import { Graph } from '../onnx/index.js';
import type { InferRequest } from '../protocol/index.js';
import { createInferenceServer, type InferenceServer, MemoryRepository } from '../server/index.js';
import { float32, int64 } from '../tensor.js';
import { createGrpcClient, type GrpcClient } from './grpc-client.js';
import { type GrpcListener, listenGrpc } from './grpc-server.js';
import { createHttpAgent } from './http-agent.js';
import { type HttpListener, listenHttp } from './http-listener.js';
import { createNodeEngine } from './ort-engine.js';
import { createTritonClient as createNodeClient } from './triton-client.js';

let server: InferenceServer;
let folder: string;
let http: HttpListener;
let https: HttpListener;
let grpc: GrpcListener;
let grpcs: GrpcListener;
const pem: Record<string, string> = {};
const closing: TritonClient[] = [];

function doubler(): Uint8Array {
  const graph = Graph.create();
  graph.addInput('x', 'float32', ['n', 'k']);
  graph.add('Add', ['x', 'x'], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', 'k']);
  graph.addInput('i', 'int64', ['n', 'k']);
  graph.add('Identity', ['i'], {}, { outputs: ['j'] });
  graph.addOutput('j', 'int64', ['n', 'k']);
  return graph.encode();
}

function request(value: number): InferRequest {
  return {
    modelName: 'double',
    id: String(value),
    inputs: [
      { name: 'x', tensor: float32([1, 2], [value, Number.NaN]) },
      { name: 'i', tensor: int64([2n ** 60n + 1n, -5n], [1, 2]) },
    ],
  };
}

/** An authority, a server certificate for 127.0.0.1 and a client certificate. */
function makeCertificates(): void {
  const run = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  run('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=test authority');
  for (const name of ['server', 'client']) {
    run(
      'req',
      ...key,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
      '-addext',
      'subjectAltName=IP:127.0.0.1',
    );
    run(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-out',
      `${name}.pem`,
      '-days',
      '2',
      '-copy_extensions',
      'copy',
    );
  }
  for (const name of ['ca.pem', 'server.pem', 'server.key', 'client.pem', 'client.key']) {
    pem[name] = readFileSync(join(folder, name), 'utf8');
  }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'scrim-clients-'));
  makeCertificates();
  server = createInferenceServer({
    repository: new MemoryRepository({ double: { '1/model.onnx': doubler() } }),
    engineFactory: () => createNodeEngine({ threads: 1 }),
    controlMode: 'explicit',
    loadModels: ['double'],
  });
  await server.start();
  const answer = server.answer.bind(server);
  const tls = { cert: pem['server.pem'] ?? '', key: pem['server.key'] ?? '', clientCa: pem['ca.pem'] ?? '' };
  http = await listenHttp({ answer, port: 0 });
  https = await listenHttp({ answer, port: 0, tls, tokens: ['token-1'] });
  grpc = await listenGrpc({ server, port: 0 });
  grpcs = await listenGrpc({ server, port: 0, tls, tokens: ['token-1'] });
});

afterAll(async () => {
  await Promise.all(closing.map((client) => client.close()));
  await Promise.all([http, https, grpc, grpcs].map((listener) => listener.close(1000)));
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const clientTls = (): { ca: string; cert: string; key: string } => ({
  ca: pem['ca.pem'] ?? '',
  cert: pem['client.pem'] ?? '',
  key: pem['client.key'] ?? '',
});

function kept<T extends TritonClient>(client: T): T {
  closing.push(client);
  return client;
}

describe.each([
  ['HTTP by fetch', () => createTritonClient({ url: http.url })],
  ['HTTP by node', () => createTritonClient({ url: http.url, transport: createHttpAgent() })],
  [
    'HTTP by node, gzip',
    () => createTritonClient({ url: http.url, transport: createHttpAgent(), compression: 'gzip' }),
  ],
  [
    'HTTP in one call, gzip and deflate',
    () => createNodeClient({ url: http.url, compression: 'gzip', responseCompression: 'deflate' }),
  ],
  ['HTTP by fetch, gzip answers', () => createTritonClient({ url: http.url, responseCompression: 'gzip' })],
  ['gRPC', () => createGrpcClient({ url: `grpc://${grpc.address}` })],
  ['gRPC in one call', () => createNodeClient({ url: `grpc://${grpc.address}` })],
  [
    'HTTP in one call, mutual TLS and token',
    () => createNodeClient({ url: https.url, bearerToken: 'token-1', tls: clientTls(), maxConnections: 2 }),
  ],
  ['gRPC, gzip', () => createGrpcClient({ url: grpc.address, compression: 'gzip' })],
  [
    'HTTP, mutual TLS and token',
    () =>
      createTritonClient({ url: https.url, bearerToken: 'token-1', transport: createHttpAgent({ tls: clientTls() }) }),
  ],
  [
    'gRPC, mutual TLS and token',
    () => createGrpcClient({ url: `grpcs://${grpcs.address}`, bearerToken: 'token-1', tls: clientTls() }),
  ],
])('over %s', (_, make) => {
  it('says the same about server, model and repository', async () => {
    const client = kept(make());
    expect(await client.serverLive()).toBe(true);
    expect(await client.serverReady()).toBe(true);
    expect((await client.serverMetadata()).extensions).toContain('statistics');
    expect(await client.modelReady('double')).toBe(true);
    expect(await client.modelReady('missing')).toBe(false);
    const metadata = await client.modelMetadata('double');
    expect(metadata.inputs.map(({ name, datatype }) => `${name} ${datatype}`)).toEqual(['x FP32', 'i INT64']);
    expect((await client.modelConfig('double')).input.map(({ name }) => name)).toEqual(['x', 'i']);
    expect((await client.repositoryIndex()).map(({ name, state }) => `${name} ${state}`)).toEqual(['double READY']);
    await client.unloadModel('double');
    expect(await client.modelReady('double')).toBe(false);
    await client.loadModel('double');
    expect(await client.modelReady('double')).toBe(true);
    await expect(client.modelMetadata('missing')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('infers exactly, counts bytes, and reads the statistics', async () => {
    const client = kept(make());
    const before = (await client.modelStatistics('double'))[0]?.inferenceCount ?? 0n;
    const sizes: number[] = [];
    const answers = await Promise.all(
      [1, 2, 3].map((value) => client.infer(request(value), { onTransfer: ({ sentBytes }) => sizes.push(sentBytes) })),
    );
    for (const [n, { id, outputs }] of answers.entries()) {
      expect(id).toBe(String(n + 1));
      expect(outputs.find(({ name }) => name === 'y')?.tensor.data).toEqual(Float32Array.of(2 * n + 2, Number.NaN));
      expect(outputs.find(({ name }) => name === 'j')?.tensor.data).toEqual(BigInt64Array.of(2n ** 60n + 1n, -5n));
    }
    expect(sizes.length).toBe(3);
    expect(Math.min(...sizes)).toBeGreaterThan(24);
    expect((await client.modelStatistics('double'))[0]?.inferenceCount).toBe(before + 3n);
    await expect(
      client.infer({ modelName: 'double', inputs: [{ name: 'z', tensor: float32([1], [1]) }] }),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('ends a call when it is cancelled', async () => {
    const client = kept(make());
    const controller = new AbortController();
    controller.abort();
    await expect(client.infer(request(1), { signal: controller.signal })).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

describe('the gRPC listener', () => {
  it('tells clients that a whole tensor may be under way in a stream, and how much in the connection', async () => {
    const session = connect(`http://${grpc.host}:${grpc.port}`);
    try {
      await once(session, 'remoteSettings');
      expect(session.remoteSettings.initialWindowSize).toBe(8 * 2 ** 20);
      expect(session.remoteSettings.maxConcurrentStreams).toBe(1_000);
      // The window of the connection follows in a frame of its own. With one of 8 MB, clients in Node and this server could wait
      // for each other for ever (free-buffers.test.ts sends enough for that).
      for (let i = 0; i < 50 && (session.state.remoteWindowSize ?? 0) < 2 ** 17; i++) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      expect(session.state.remoteWindowSize).toBe(2 ** 18);
    } finally {
      session.destroy();
    }
  });
});

describe('a gRPC stream', () => {
  it('answers every request, and stops when the reader leaves or the caller cancels', async () => {
    const client: GrpcClient = kept(createGrpcClient({ url: grpc.address }));
    const ids = new Set<string>();
    for await (const answer of client.inferStream([1, 2, 3, 4].map(request))) ids.add(answer.id ?? '');
    expect([...ids].sort()).toEqual(['1', '2', '3', '4']);
    const endless = async function* (): AsyncGenerator<InferRequest> {
      for (let value = 0; ; value++) {
        yield request(value);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    };
    let read = 0;
    for await (const _ of client.inferStream(endless())) if (++read === 3) break;
    const controller = new AbortController();
    const cancelled = (async () => {
      for await (const _ of client.inferStream(endless(), { signal: controller.signal })) controller.abort();
    })();
    await expect(cancelled).rejects.toMatchObject({ code: 'CANCELLED' });
    const failing = (async () => {
      for await (const _ of client.inferStream([{ ...request(1), modelName: 'missing' }])) expect.unreachable();
    })();
    await expect(failing).rejects.toThrowError(/missing/);
  });

  it('loses no answer of a reader that starts late and is slow', async () => {
    const client = kept(createGrpcClient({ url: grpc.address }));
    const requests = Array.from({ length: 100 }, (_, value) => {
      const x = float32([1, 1024], new Float32Array(1024).fill(value));
      return {
        ...request(value),
        inputs: [
          { name: 'x', tensor: x },
          { name: 'i', tensor: int64([1n], [1, 1]) },
        ],
      };
    });
    const read: string[] = [];
    for await (const { id } of client.inferStream(requests)) {
      // All answers are there, and the status behind them, before the second is asked for.
      await new Promise((resolve) => setTimeout(resolve, read.length === 0 ? 1_000 : 1));
      read.push(id ?? '');
    }
    expect(read).toEqual(requests.map(({ id }) => id));
  });

  it('goes on after a request that failed where someone is told of it', async () => {
    const client = kept(createNodeClient({ url: `grpc://${grpc.address}` }));
    const failures: string[] = [];
    const answered: string[] = [];
    const requests = [request(1), { ...request(2), modelName: 'missing' }, request(3)];
    const onError = (error: Error, id: string): void => void failures.push(`${id}: ${error.message}`);
    for await (const { id } of client.inferStream(requests, { onError })) answered.push(id ?? '');
    expect(answered).toEqual(['1', '3']);
    expect(failures).toEqual([expect.stringMatching(/^2: .*'missing' is not found/)]);
  });
});

describe('connections', () => {
  it('are refused without certificate, without token, and where nothing listens', async () => {
    const quick = { retry: { retries: 0 }, timeoutMs: 3000 };
    const { ca } = clientTls();
    const bare = kept(createTritonClient({ url: https.url, transport: createHttpAgent({ tls: { ca } }), ...quick }));
    await expect(bare.serverMetadata()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const bareGrpc = kept(createGrpcClient({ url: `grpcs://${grpcs.address}`, tls: { ca }, ...quick }));
    await expect(bareGrpc.serverMetadata()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const transport = createHttpAgent({ tls: clientTls() });
    const nameless = kept(createTritonClient({ url: https.url, transport, ...quick }));
    await expect(nameless.serverMetadata()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    const namelessGrpc = kept(createGrpcClient({ url: `grpcs://${grpcs.address}`, tls: clientTls(), ...quick }));
    await expect(namelessGrpc.serverMetadata()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    for (const nowhere of [
      createTritonClient({ url: 'http://127.0.0.1:9', ...quick }),
      createTritonClient({ url: 'http://127.0.0.1:9', transport: createHttpAgent(), ...quick }),
      createGrpcClient({ url: '127.0.0.1:9', ...quick }),
    ]) {
      await expect(kept(nowhere).serverMetadata()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    }
    expect(() => createTritonClient({ url: `grpc://${grpc.address}` })).toThrowError(/scrim\/node/);
    expect(() => createGrpcClient({ url: 'grpc://triton.example:8001', bearerToken: 'x' })).toThrowError(/grpcs/);
  });
});
