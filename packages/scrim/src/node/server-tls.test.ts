/** The server's listeners under TLS: certificates of clients, bearer tokens, CORS, metrics; and a repository that is polled. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { type ClientHttp2Stream, connect as connectHttp2, constants } from 'node:http2';
import { request as secureRequest } from 'node:https';
import { type AddressInfo, connect as connectPlain, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createTritonClient } from '../client/http-client.js';
import { Graph } from '../onnx/index.js';
import { encodeGrpcRequest, encodeInferRequest, frameMessage, joinBody } from '../protocol/index.js';
import type { ServerEvent } from '../server/index.js';
import { float32 } from '../tensor.js';
import { createGrpcClient } from './grpc-client.js';
import { createHttpAgent } from './http-agent.js';
import { createNodeEngine } from './ort-engine.js';
import { type RunningServer, type ServeOptions, serveRepository } from './server-process.js';

let folder: string;
const pem: Record<string, string> = {};
const cleanups: (() => Promise<void> | void)[] = [];

/** y = factor · x. */
function scale(factor: number): Uint8Array {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n', 2]);
  graph.add('Mul', ['x', graph.addInitializer('f', float32([1], [factor]))], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', 2]);
  return graph.encode();
}

/** Numbers in an answer of {@link wide}. */
const WIDE = 4 * 2 ** 20;

/** y = x · [2, 2, …]. */
function wide(): Uint8Array {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n', 1]);
  const row = graph.addInitializer('f', float32([1, WIDE], new Float32Array(WIDE).fill(2)));
  graph.add('Mul', ['x', row], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', WIDE]);
  return graph.encode();
}

function certificate(name: string, authority: string): void {
  const run = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`];
  if (name === authority) {
    run('req', '-x509', ...key, '-out', `${name}.pem`, '-days', '2', '-subj', `/CN=${name}`);
  } else {
    const names = ['-addext', 'subjectAltName=IP:127.0.0.1'];
    run('req', ...key, '-out', `${name}.csr`, '-subj', `/CN=${name}`, ...names);
    const signed = ['-CA', `${authority}.pem`, '-CAkey', `${authority}.key`, '-CAcreateserial'];
    run(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      ...signed,
      '-out',
      `${name}.pem`,
      '-days',
      '2',
      '-copy_extensions',
      'copy',
    );
  }
  for (const file of [`${name}.pem`, `${name}.key`]) pem[file] = readFileSync(join(folder, file), 'utf8');
}

function writeModel(root: string, name: string, version: number, model: Uint8Array): void {
  mkdirSync(join(root, name, String(version)), { recursive: true });
  writeFileSync(join(root, name, String(version), 'model.onnx'), model);
}

async function serve(options: Partial<ServeOptions>): Promise<RunningServer & { root: string }> {
  const root = mkdtempSync(join(tmpdir(), 'scrim-tls-'));
  cleanups.push(() => rmSync(root, { recursive: true, force: true }));
  writeModel(root, 'm', 1, scale(2));
  const running = await serveRepository({
    repository: root,
    httpPort: 0,
    grpcPort: 0,
    metricsPort: 0,
    engineFactory: () => createNodeEngine({ threads: 1, thread: 'inline' }),
    ...options,
  });
  cleanups.push(() => running.close(500));
  return { ...running, root };
}

const serverTls = (): { cert: string; key: string } => ({ cert: pem['server.pem']!, key: pem['server.key']! });
const quick = { retry: { retries: 0 }, timeoutMs: 5_000 };
const inputs = [{ name: 'x', tensor: float32([1, 2], [3, 4]) }];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'scrim-tls-'));
  for (const [name, authority] of [
    ['ca', 'ca'],
    ['other-ca', 'other-ca'],
    ['server', 'ca'],
    ['client', 'ca'],
    ['stranger', 'other-ca'],
  ]) {
    certificate(name as string, authority as string);
  }
});

afterEach(async () => {
  for (const task of cleanups.splice(0).reverse()) await task();
});

afterAll(() => rmSync(folder, { recursive: true }));

describe('TLS', () => {
  it('refuses certificates that are none before it listens, an empty list of authorities above all', async () => {
    const [cert, key, clientCa] = [pem['server.pem']!, pem['server.key']!, pem['ca.pem']!];
    for (const [tls, reason] of [
      [{ cert: '', key, clientCa }, /the TLS certificate can't be read/],
      [{ cert, key: 'no key', clientCa }, /the TLS key can't be read/],
      [{ cert, key: pem['client.key']! }, /the TLS key is not that of the certificate/],
      [{ cert, key, clientCa: '' }, /the authorities of clients' certificates can't be read/],
    ] as const) {
      for (const port of [{ grpcPort: undefined }, { httpPort: undefined }]) {
        await expect(serve({ tls, ...port })).rejects.toMatchObject({
          code: 'INVALID_ARGUMENT',
          message: expect.stringMatching(reason),
        });
      }
    }
  });

  it('asks for clients’ certificates of the right authority, on both protocols', async () => {
    const { http, grpc } = await serve({ tls: { ...serverTls(), clientCa: pem['ca.pem']! } });
    const outcome = async (cert: string | undefined, ca = 'ca'): Promise<string[]> => {
      const tls = {
        ca: pem[`${ca}.pem`]!,
        ...(cert === undefined ? {} : { cert: pem[`${cert}.pem`]!, key: pem[`${cert}.key`]! }),
      };
      const clients = [
        createTritonClient({ url: http!.url, transport: createHttpAgent({ tls }), ...quick }),
        createGrpcClient({ url: `grpcs://${grpc!.address}`, tls, ...quick }),
      ];
      const outcomes = clients.map(async (client) => {
        try {
          const { outputs } = await client.infer({ modelName: 'm', inputs });
          return [...(outputs[0]!.tensor.data as Float32Array)].join();
        } catch (error) {
          return (error as { code: string }).code;
        } finally {
          await client.close();
        }
      });
      return Promise.all(outcomes);
    };
    expect(await outcome('client')).toEqual(['6,8', '6,8']);
    expect(await outcome(undefined)).toEqual(['UNAVAILABLE', 'UNAVAILABLE']);
    expect(await outcome('stranger')).toEqual(['UNAVAILABLE', 'UNAVAILABLE']);
    // The other way round: a client does not speak to a server that its authority does not vouch for.
    expect(await outcome('client', 'other-ca')).toEqual(['UNAVAILABLE', 'UNAVAILABLE']);
  });

  it('refuses old versions of TLS and plain text, and refuses to start with a key that does not fit', async () => {
    const { http } = await serve({ tls: serverTls() });
    const versionOf = (maxVersion: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3'): Promise<string> =>
      new Promise((resolve) => {
        const options = { port: http!.port, host: '127.0.0.1', ca: pem['ca.pem']!, maxVersion, minVersion: 'TLSv1' };
        const socket = connect(options as object, () => {
          resolve(socket.getProtocol() ?? '');
          socket.destroy();
        });
        socket.on('error', () => resolve('refused'));
      });
    expect(await versionOf('TLSv1.3')).toBe('TLSv1.3');
    expect(await versionOf('TLSv1.2')).toBe('TLSv1.2');
    expect(await versionOf('TLSv1.1')).toBe('refused');
    await expect(
      new Promise((resolve, reject) => {
        request(`http://127.0.0.1:${http!.port}/v2`, resolve).on('error', reject).end();
      }),
    ).rejects.toThrow();
    await expect(serve({ tls: { cert: pem['server.pem']!, key: pem['client.key']! } })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  it('carries bearer tokens and CORS as plain HTTP does; metrics stay on their own port', async () => {
    const { http, grpc, metrics } = await serve({
      tls: serverTls(),
      tokens: ['secret-token-1'],
      corsOrigins: ['https://app.example'],
    });
    const ask = (
      method: string,
      path: string,
      headers: Record<string, string>,
    ): Promise<{ status: number; headers: IncomingHttpHeaders; text: string }> =>
      new Promise((resolve, reject) => {
        const call = secureRequest(`${http!.url}${path}`, { method, headers, ca: pem['ca.pem']! }, (response) => {
          let text = '';
          response.on('data', (part) => {
            text += part;
          });
          response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
        });
        call.on('error', reject);
        call.end();
      });
    const origin = 'https://app.example';
    const refused = await ask('GET', '/v2', { origin, authorization: 'Bearer wrong' });
    expect(refused.status).toBe(401);
    expect(refused.headers['www-authenticate']).toBe('Bearer');
    // Without this the page's script could not read why.
    expect(refused.headers['access-control-allow-origin']).toBe(origin);
    expect(JSON.parse(refused.text)).toEqual({ error: 'the request bears no valid token' });
    const allowed = await ask('GET', '/v2', { origin, authorization: 'Bearer secret-token-1' });
    expect([allowed.status, allowed.headers['access-control-allow-origin'], allowed.headers.vary]).toEqual([
      200,
      origin,
      'origin',
    ]);
    const preflight = await ask('OPTIONS', '/v2/models/m/infer', {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,inference-header-content-length',
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers['access-control-allow-headers']).toBe('authorization,inference-header-content-length');
    const foreign = await ask('GET', '/v2', { origin: 'https://evil.example', authorization: 'Bearer secret-token-1' });
    expect(foreign.headers['access-control-allow-origin']).toBe(undefined);
    expect((await ask('GET', '/v2/health/live', {})).status).toBe(200);
    expect((await fetch(`${metrics!.url}/metrics`)).status).toBe(200);
    const ca = { ca: pem['ca.pem']! };
    for (const [bearerToken, code] of [
      ['secret-token-1', undefined],
      ['secret-token-2', 'UNAUTHENTICATED'],
    ] as const) {
      const token = { bearerToken, ...quick };
      for (const client of [
        createTritonClient({ url: http!.url, transport: createHttpAgent({ tls: ca }), ...token }),
        createGrpcClient({ url: `grpcs://${grpc!.address}`, tls: ca, ...token }),
      ]) {
        const answer = client.infer({ modelName: 'm', inputs });
        if (code === undefined) expect((await answer).outputs).toHaveLength(1);
        else await expect(answer).rejects.toMatchObject({ code, message: expect.not.stringContaining('secret') });
        await client.close();
      }
    }
  });
});

/** Several times the server's own, which is {@link ANSWER_TIMEOUT_MS}. */
const PATIENCE_MS = 3_000;
const ANSWER_TIMEOUT_MS = 600;

describe.each(['plain sockets', 'TLS'])('callers that take nothing of their answers, over %s', (over) => {
  const isSecure = over === 'TLS';
  const ca = (): { ca: string } => ({ ca: pem['ca.pem']! });
  /** Bytes of an answer: more than the system takes of one that nobody reads. */
  const size = 4 * WIDE;
  const request = { modelName: 'wide', inputs: [{ name: 'x', tensor: float32([1, 1], [3]) }] };
  const serveWide = async (): Promise<RunningServer> => {
    const running = await serve({
      answerTimeoutMs: ANSWER_TIMEOUT_MS,
      ...(isSecure ? { tls: serverTls() } : {}),
      controlMode: 'poll',
    });
    writeModel(running.root, 'wide', 1, wide());
    await running.server.poll();
    return running;
  };
  /** Passes a connection on to `port` and takes nothing of what comes back for a while; how much came until its end. */
  const relay = async (port: number): Promise<{ port: number; taken: Promise<number> }> => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(() => void server.close());
    const taken = once(server, 'connection').then(async ([down]: Socket[]) => {
      const up = connectPlain(port, '127.0.0.1');
      let bytes = 0;
      let isPatient = false;
      for (const [from, to] of [
        [down!, up],
        [up, down!],
      ] as const) {
        from.on('error', () => {});
        from.on('data', (part) => to.write(part));
      }
      up.on('data', (part) => {
        bytes += part.length;
        if (isPatient || bytes < 2 ** 17) return;
        isPatient = true;
        up.pause();
        setTimeout(() => up.resume(), PATIENCE_MS);
      });
      await once(up, 'close');
      down!.destroy();
      return bytes;
    });
    return { port: (server.address() as AddressInfo).port, taken };
  };

  it('lose their HTTP connection, and slow ones do not', async () => {
    const { http } = await serveWide();
    const body = encodeInferRequest({ ...request, binaryOutputs: true });
    const bytes = joinBody(body);
    const headers = Object.entries({ ...body.headers, host: 'x', 'content-length': bytes.length, connection: 'close' });
    const open = (): Socket => {
      const { port } = http!;
      const socket = isSecure ? connect({ port, host: '127.0.0.1', ...ca() }) : connectPlain(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write(
        `POST /v2/models/wide/infer HTTP/1.1\r\n${headers.map(([k, v]) => `${k}: ${v}`).join('\r\n')}\r\n\r\n`,
      );
      socket.write(bytes);
      return socket;
    };
    /** Bytes that come from now on. */
    const read = async (socket: Socket, pauseMs: number): Promise<number> => {
      let taken = 0;
      let parts = 0;
      socket.on('data', (part) => {
        taken += part.length;
        if (pauseMs === 0 || ++parts % 64 !== 0) return;
        socket.pause();
        setTimeout(() => socket.resume(), pauseMs);
      });
      socket.resume();
      await once(socket, 'close');
      return taken;
    };
    const stopped = [0, 1, 2].map(() => open().pause());
    expect(await read(open(), 30)).toBeGreaterThan(size);
    await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
    for (const socket of stopped) expect(await read(socket, 0)).toBeLessThan(size);
  });

  it('lose their gRPC call where the connection lives, else the connection', async () => {
    const { grpc } = await serveWide();
    const port = Number(grpc!.address.split(':')[1]);
    const call = (through: number, initialWindowSize: number): ClientHttp2Stream => {
      const address = `${isSecure ? 'https' : 'http'}://127.0.0.1:${through}`;
      const session = connectHttp2(address, { ...(isSecure ? ca() : {}), settings: { initialWindowSize } });
      session.on('error', () => {});
      session.on('connect', () => session.setLocalWindowSize(initialWindowSize));
      cleanups.push(() => session.destroy());
      const path = '/inference.GRPCInferenceService/ModelInfer';
      const stream = session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      stream.on('error', () => {});
      for (const part of frameMessage(encodeGrpcRequest(request))) stream.write(part);
      stream.end();
      return stream;
    };
    const paused = call(port, 2 ** 16);
    await once(paused, 'close');
    expect(paused.rstCode).toBe(constants.NGHTTP2_CANCEL);
    expect(paused.session?.destroyed).not.toBe(true);
    const stopping = await relay(port);
    call(stopping.port, 2 ** 30);
    expect(await stopping.taken).toBeLessThan(size);
  });
});

describe('a repository that is polled', () => {
  it('is followed while requests run: new versions, new models, removed ones, broken ones', async () => {
    const events: ServerEvent[] = [];
    const { http, root, server } = await serve({
      controlMode: 'poll',
      pollSeconds: 0.1,
      onEvent: (event) => events.push(event),
    });
    const client = createTritonClient({ url: http!.url, ...quick });
    cleanups.push(() => client.close());
    const ask = async (modelName: string): Promise<number | string> => {
      try {
        const { outputs } = await client.infer({ modelName, inputs });
        return (outputs[0]!.tensor.data as Float32Array)[0] as number;
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    let isDone = false;
    const seen = new Set<number | string>();
    const running = (async () => {
      while (!isDone) seen.add(await ask('m'));
    })();
    const eventually = { timeout: 20_000, interval: 20 };
    expect(await ask('m')).toBe(6);
    // A folder is filled elsewhere and moved in: what is half written would be loaded half written.
    const stage = mkdtempSync(join(tmpdir(), 'scrim-tls-'));
    cleanups.push(() => rmSync(stage, { recursive: true, force: true }));
    writeModel(stage, 'm', 2, scale(10));
    execFileSync('mv', [join(stage, 'm', '2'), join(root, 'm', '2')]);
    await expect.poll(() => ask('m'), eventually).toBe(30);
    writeModel(stage, 'n', 1, scale(-1));
    execFileSync('mv', [join(stage, 'n'), join(root, 'n')]);
    await expect.poll(() => ask('n'), eventually).toBe(-3);
    rmSync(join(root, 'n'), { recursive: true });
    await expect.poll(() => ask('n'), eventually).toMatch(/NOT_FOUND|UNAVAILABLE/);
    // What can't be loaded leaves what serves as it is.
    mkdirSync(join(stage, '3'));
    writeFileSync(join(stage, '3', 'model.onnx'), 'no model');
    execFileSync('mv', [join(stage, '3'), join(root, 'm', '3')]);
    await expect.poll(() => events.some(({ kind }) => kind === 'load-failed'), eventually).toBe(true);
    expect(await ask('m')).toBe(30);
    await expect(client.loadModel('m')).rejects.toMatchObject({ message: expect.stringMatching(/polling/) });
    isDone = true;
    await running;
    expect([...seen].sort()).toEqual([30, 6]);
    expect(server.live()).toBe(true);
  });
});
