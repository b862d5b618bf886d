import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { float32 } from '../tensor.js';
import { createTritonClient, type TritonClientOptions } from './http-client.js';
import type { RetryClock } from './retry.js';

/** A clock whose sleeps return at once and are written down. */
function testClock(): RetryClock & { readonly slept: number[] } {
  const slept: number[] = [];
  let now = 0;
  return {
    slept,
    now: () => now,
    date: () => Date.parse('2026-01-01T00:00:00Z') + now,
    sleep: async (ms) => {
      slept.push(ms);
      now += ms;
    },
  };
}

type Answer = { status: number; body?: string; headers?: Record<string, string> } | Error;

/** A server that gives prepared answers, the last one over and over. */
function scripted(answers: readonly Answer[], options: Partial<TritonClientOptions> = {}) {
  const requests: Request[] = [];
  const clock = testClock();
  const client = createTritonClient({
    url: 'http://server.test/prefix/',
    random: () => 0.5,
    clock,
    fetch: async (request) => {
      const answer = answers[Math.min(requests.length, answers.length - 1)] as Answer;
      requests.push(request);
      if (answer instanceof Error) throw answer;
      return new Response(answer.body ?? null, { status: answer.status, headers: answer.headers ?? {} });
    },
    ...options,
  });
  return { client, requests, clock };
}

const METADATA = '{"name":"triton","version":"2.73","extensions":["statistics"],"news":null}';
const OUTPUT = '{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[NaN]}]}';
const input = { name: 'x', tensor: float32([1, 2], [1, 2]) };

describe('v2 over HTTP', () => {
  it('asks each route once, with headers and token', async () => {
    const { client, requests } = scripted([{ status: 200, body: METADATA }], {
      headers: { 'X-Tenant': 'a' },
      bearerToken: 'token-1',
    });
    expect(await client.serverMetadata({ headers: { 'X-Call': 'b' } })).toEqual({
      name: 'triton',
      version: '2.73',
      extensions: ['statistics'],
    });
    expect(await client.serverReady()).toBe(true);
    expect(await client.modelReady('a/b', { version: '3' })).toBe(true);
    expect(requests.map(({ method, url }) => `${method} ${new URL(url).pathname}`)).toEqual([
      'GET /prefix/v2',
      'GET /prefix/v2/health/ready',
      'GET /prefix/v2/models/a%2Fb/versions/3/ready',
    ]);
    const [first] = requests;
    expect(first?.headers.get('authorization')).toBe('Bearer token-1');
    expect(first?.headers.get('x-tenant')).toBe('a');
    expect(first?.headers.get('x-call')).toBe('b');
  });

  it('reads answers of servers that say no without a body', async () => {
    const { client, clock } = scripted([{ status: 400 }]);
    expect(await client.serverReady()).toBe(false);
    expect(await client.modelReady('m')).toBe(false);
    expect(clock.slept).toEqual([]);
  });

  it('sends tensors as bytes and compresses bodies if told to', async () => {
    const { client, requests } = scripted([{ status: 200, body: OUTPUT }]);
    let size = 0;
    const response = await client.infer(
      { modelName: 'm', inputs: [input] },
      { onTransfer: ({ sentBytes }) => (size = sentBytes) },
    );
    expect(response.outputs[0]?.tensor.data[0]).toBeNaN();
    const [request] = requests;
    const length = Number(request?.headers.get('inference-header-content-length'));
    const body = new Uint8Array((await request?.arrayBuffer()) as ArrayBuffer);
    expect(body.length).toBe(size);
    expect(body.length).toBe(length + 8);
    const zipped = scripted([{ status: 200, body: OUTPUT }], { compression: 'gzip' });
    await zipped.client.infer({ modelName: 'm', inputs: [input] });
    expect(zipped.requests[0]?.headers.get('content-encoding')).toBe('gzip');
    const stream = zipped.requests[0]?.body?.pipeThrough(new DecompressionStream('gzip'));
    expect(new Uint8Array(await new Response(stream ?? null).arrayBuffer())).toEqual(body);
  });

  it('tries retryable failures again, with growing jittered delays', async () => {
    const { client, requests, clock } = scripted([
      new TypeError('fetch failed'),
      { status: 503, body: '{"error":"queue full"}' },
      { status: 504 },
      { status: 200, body: METADATA },
    ]);
    expect((await client.serverMetadata()).name).toBe('triton');
    expect(requests.length).toBe(4);
    expect(clock.slept).toEqual([50, 100, 200]);
  });

  it('gives up after the attempts it has, and says what the server said', async () => {
    const { client, requests } = scripted([{ status: 503, body: '{"error":"queue full"}' }], { retry: { retries: 2 } });
    await expect(client.modelMetadata('m')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: "metadata of model 'm': HTTP 503: queue full",
    });
    expect(requests.length).toBe(3);
  });

  it.each([
    [400, 'INVALID_ARGUMENT'],
    [401, 'UNAUTHENTICATED'],
    [404, 'NOT_FOUND'],
    [429, 'RESOURCE_EXHAUSTED'],
    [500, 'INTERNAL'],
    [501, 'UNSUPPORTED'],
  ])('does not repeat what HTTP %i refuses', async (status, code) => {
    const { client, requests } = scripted([{ status, body: '{"error":"no"}' }]);
    await expect(client.serverMetadata()).rejects.toMatchObject({ code });
    expect(requests.length).toBe(1);
  });

  it('never repeats an inference of a sequence', async () => {
    const { client, requests } = scripted([{ status: 503 }]);
    await expect(client.infer({ modelName: 'm', inputs: [input], sequenceId: 7 })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    expect(requests.length).toBe(1);
  });

  it('honours Retry-After in seconds and as a date, and ends where it asks for too long', async () => {
    const { client, clock } = scripted([
      { status: 503, headers: { 'retry-after': '2' } },
      { status: 503, headers: { 'retry-after': 'Thu, 01 Jan 2026 00:00:03 GMT' } },
      { status: 200, body: METADATA },
    ]);
    await client.serverMetadata();
    expect(clock.slept).toEqual([2000, 1000]);
    const long = scripted([{ status: 503, headers: { 'retry-after': '3600' } }]);
    await expect(long.client.serverMetadata()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(long.requests.length).toBe(1);
  });

  it('ends at the deadline, in an attempt and between attempts', async () => {
    const hanging = createTritonClient({
      url: 'http://server.test',
      fetch: (request) =>
        new Promise((_, reject) => {
          request.signal.addEventListener('abort', () => reject(request.signal.reason as Error));
        }),
    });
    await expect(hanging.serverMetadata({ timeoutMs: 30 })).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    const { client, requests } = scripted([{ status: 503, headers: { 'retry-after': '2' } }], { timeoutMs: 1500 });
    await expect(client.serverMetadata()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(requests.length).toBe(1);
    const controller = new AbortController();
    const outcome = hanging.serverMetadata({ signal: controller.signal });
    controller.abort();
    await expect(outcome).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(hanging.serverMetadata({ signal: controller.signal })).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('refuses answers that are too long or that can not be read', async () => {
    const { DEFAULT_LIMITS } = await import('../protocol/index.js');
    const { client } = scripted([{ status: 200, body: METADATA }], { limits: { ...DEFAULT_LIMITS, maxBytes: 20 } });
    await expect(client.serverMetadata()).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
    for (const body of ['', '[]', '{"name":1}', '<html>']) {
      const broken = scripted([{ status: 200, body }]);
      await expect(broken.client.serverMetadata()).rejects.toMatchObject({ code: 'INVALID_DATA' });
    }
  });

  it('refuses URLs with credentials, and keeps tokens out of errors', async () => {
    for (const url of ['nowhere', 'ftp://host', 'http://user:secret@host', 'http://host/?token=secret']) {
      expect(() => createTritonClient({ url })).toThrowError(ScrimError);
      expect(() => createTritonClient({ url })).not.toThrowError(/secret/);
    }
    const { client } = scripted([{ status: 401 }], { bearerToken: 'token-1' });
    const error = await client.serverMetadata().catch((thrown: ScrimError) => thrown);
    expect(JSON.stringify([error, (error as ScrimError).message])).not.toContain('token-1');
  });
});
