/**
 * The HTTP side of the v2 protocol: one request in, one answer out.
 *
 * Routes, bodies and statuses are Triton's (http_server.cc): errors are `{"error": …}`, what is not ready is 400
 * without a body, unknown paths and faulty requests are 400 or 404, wrong methods 405. Content-Type is not asked for,
 * since Triton's Python client sends none. Reading bodies, TLS, authentication and CORS are the listener's.
 */
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import {
  chooseContentEncoding,
  decodeContent,
  decodeIndexRequest,
  decodeInferRequest,
  decodeLoadRequest,
  decodeUnloadRequest,
  encodeContent,
  encodeInferResponse,
  encodeJson,
  errorToJson,
  HEADER_LENGTH,
  type HeadMemo,
  type JsonValue,
  modelConfigToJson,
  modelMetadataToJson,
  modelStatisticsToJson,
  outputsAsBinary,
  parseContentEncoding,
  parseHeaderLength,
  type RawInput,
  type RequestHead,
  repositoryIndexToJson,
  serverMetadataToJson,
  wireErrorOf,
} from '../protocol/index.js';
import type { HttpAnswer, HttpCall, InferenceServer } from './server-api.js';
import { spentBuffers } from './spent-buffers.js';

export type { HttpAnswer, HttpCall } from './server-api.js';

/** Statuses where Triton's differ from what a code means elsewhere: everything else is 400. */
const STATUS: Readonly<Partial<Record<ScrimErrorCode, number>>> = {
  NOT_FOUND: 404,
  UNAVAILABLE: 503,
  RESOURCE_EXHAUSTED: 503,
  DEADLINE_EXCEEDED: 503,
  UNSUPPORTED: 501,
  UNAUTHENTICATED: 401,
  PERMISSION_DENIED: 403,
  CANCELLED: 499,
  ENGINE_FAILED: 500,
  INTERNAL: 500,
  NOISE_FAILED: 500,
  DIVERGED: 500,
};

const JSON_TYPE = { 'content-type': 'application/json' };
const RETRY_AFTER_S = '1';

/** The answer to a failed request. */
export function errorAnswer(error: unknown): HttpAnswer {
  const { message } = wireErrorOf(error);
  const status = error instanceof ScrimError ? (STATUS[error.code] ?? 400) : 500;
  return {
    status,
    headers: status === 503 ? { ...JSON_TYPE, 'retry-after': RETRY_AFTER_S } : JSON_TYPE,
    parts: [encodeJson(errorToJson(message))],
  };
}

/** What the requests of a server said, as they tend to say it again. */
export type RequestHeads = HeadMemo<RequestHead>;

/** Answers a call. Never rejects. @param heads of requests to this server alone */
export async function answerHttp(server: InferenceServer, call: HttpCall, heads?: RequestHeads): Promise<HttpAnswer> {
  try {
    return await route(server, call, heads);
  } catch (error) {
    return errorAnswer(error);
  }
}

/** Answers a request of the platform's fetch types. Never rejects. */
export async function handleRequest(server: InferenceServer, request: Request): Promise<Response> {
  let answer: HttpAnswer;
  try {
    const { pathname } = new URL(request.url);
    answer = await answerHttp(server, {
      method: request.method,
      path: pathname,
      header: (name) => request.headers.get(name),
      body: await readBody(request, server.limits.maxBytes),
      signal: request.signal,
    });
  } catch (error) {
    answer = errorAnswer(error);
  }
  const { status, headers, parts } = answer;
  // 499 is for logs: nobody is there to read it.
  const body = parts.length === 0 ? null : new Blob(parts as Uint8Array<ArrayBuffer>[]);
  return new Response(body, { status, headers });
}

async function readBody(request: Request, maxBytes: number): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array(0);
  const tooLarge = (): ScrimError =>
    new ScrimError('LIMIT_EXCEEDED', `the request has more than ${maxBytes} bytes`, { details: { maxBytes } });
  const announced = Number(request.headers.get('content-length') ?? 0);
  if (announced > maxBytes) throw tooLarge();
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = request.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > maxBytes) {
      await reader.cancel().catch(() => {});
      throw tooLarge();
    }
    parts.push(value);
  }
  if (parts.length === 1) return parts[0]!;
  const body = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    body.set(part, offset);
    offset += part.length;
  }
  return body;
}

const MODEL_PATH = /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?(?:\/([a-z_/]+))?$/;
const REPOSITORY_PATH = /^\/v2\/repository(?:\/([^/]+))?\/(index|models\/([^/]+)\/(load|unload))$/;
const UNSUPPORTED_PATH =
  /^\/v2\/(?:(systemsharedmemory|cudasharedmemory|logging|trace)(?:\/|$)|models\/[^/]+\/trace\/)/;

async function route(server: InferenceServer, call: HttpCall, heads: RequestHeads | undefined): Promise<HttpAnswer> {
  const path = call.path.length > 1 && call.path.endsWith('/') ? call.path.slice(0, -1) : call.path;
  switch (path) {
    case '/v2':
      return get(call, () => json(serverMetadataToJson(server.metadata())));
    case '/v2/health/live':
      return get(call, () => health(server.live()));
    case '/v2/health/ready':
      return get(call, () => health(server.ready()));
    case '/v2/models/stats':
      return get(call, () => json(modelStatisticsToJson(server.statistics())));
    case '/metrics':
      return get(call, () => ({
        status: 200,
        headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' },
        parts: [new TextEncoder().encode(server.metrics())],
      }));
  }
  if (UNSUPPORTED_PATH.test(path)) {
    throw new ScrimError('UNSUPPORTED', 'shared memory, trace and log settings are not supported by this server');
  }
  const model = MODEL_PATH.exec(path);
  if (model) return modelRoute(server, call, decodeName(model[1]!), model[2] ?? '', model[3] ?? '', heads);
  const repository = REPOSITORY_PATH.exec(path);
  if (repository) return repositoryRoute(server, call, repository);
  throw new ScrimError('NOT_FOUND', 'Not Found');
}

async function modelRoute(
  server: InferenceServer,
  call: HttpCall,
  name: string,
  version: string,
  action: string,
  heads: RequestHeads | undefined,
): Promise<HttpAnswer> {
  switch (action) {
    case '':
      return get(call, () => json(modelMetadataToJson(server.modelMetadata(name, version))));
    case 'ready':
      return get(call, () => health(server.modelReady(name, version)));
    case 'config':
      return get(call, () => json(modelConfigToJson(server.modelConfig(name, version))));
    case 'stats':
      return get(call, () => json(modelStatisticsToJson(server.statistics(name, version))));
    case 'infer':
      return post(call, () => infer(server, call, name, version, heads));
    case 'generate':
    case 'generate_stream':
      throw new ScrimError('UNSUPPORTED', `'${action}' is not supported by this server`);
    default:
      throw new ScrimError('NOT_FOUND', 'Not Found');
  }
}

async function infer(
  server: InferenceServer,
  call: HttpCall,
  name: string,
  version: string,
  heads: RequestHeads | undefined,
): Promise<HttpAnswer> {
  const { limits } = server;
  const body = await content(server, call);
  const headerLength = parseHeaderLength(call.header(HEADER_LENGTH));
  const rawInput = headerLength === 0 ? rawInputOf(server, name, version) : undefined;
  const request = decodeInferRequest(body, {
    modelName: name,
    limits,
    ...(version === '' ? {} : { modelVersion: version }),
    ...(headerLength === undefined ? {} : { headerLength }),
    ...(rawInput === undefined ? {} : { rawInput }),
    ...(heads === undefined ? {} : { heads }),
  });
  const response = await server.infer(request, call.signal === undefined ? {} : { signal: call.signal });
  const encoded = encodeInferResponse(response, outputsAsBinary(request));
  const encoding = chooseContentEncoding(call.header('accept-encoding'));
  const spent = spentBuffers([call.body, body], response);
  if (encoding === 'identity') return { status: 200, headers: encoded.headers, parts: encoded.parts, spent };
  const compressed = await encodeContent(encoded.parts, encoding);
  return { status: 200, headers: { ...encoded.headers, 'content-encoding': encoding }, parts: [compressed], spent };
}

function rawInputOf(server: InferenceServer, name: string, version: string): RawInput | undefined {
  const { inputs } = server.modelMetadata(name, version);
  const [input] = inputs;
  if (input === undefined || inputs.length !== 1) return undefined;
  const batched = server.modelConfig(name, version).maxBatchSize > 0;
  return {
    name: input.name,
    datatype: input.datatype as RawInput['datatype'],
    dims: batched ? input.shape.slice(1) : input.shape,
    batched,
  };
}

async function repositoryRoute(server: InferenceServer, call: HttpCall, match: RegExpExecArray): Promise<HttpAnswer> {
  const [, , action, encoded, verb] = match;
  return post(call, async () => {
    const body = await content(server, call);
    if (action === 'index') {
      const { ready } = decodeIndexRequest(body, server.limits);
      return json(repositoryIndexToJson(await server.index(ready)));
    }
    const name = decodeName(encoded!);
    if (verb === 'load') {
      await server.load(name, decodeLoadRequest(body, server.limits));
    } else {
      decodeUnloadRequest(body, server.limits);
      await server.unload(name);
    }
    return { status: 200, headers: JSON_TYPE, parts: [] };
  });
}

/** The body, not compressed. */
async function content(server: InferenceServer, call: HttpCall): Promise<Uint8Array> {
  const encoding = parseContentEncoding(call.header('content-encoding'));
  return decodeContent(call.body, encoding, { limits: server.limits, what: 'the request' });
}

function decodeName(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new ScrimError('INVALID_ARGUMENT', 'the path is not valid percent-encoding', { cause });
  }
}

function get(call: HttpCall, task: () => HttpAnswer): HttpAnswer {
  if (call.method === 'GET' || call.method === 'HEAD') return task();
  return notAllowed('GET, HEAD');
}

async function post(call: HttpCall, task: () => Promise<HttpAnswer>): Promise<HttpAnswer> {
  return call.method === 'POST' ? task() : notAllowed('POST');
}

function notAllowed(allow: string): HttpAnswer {
  return {
    status: 405,
    headers: { ...JSON_TYPE, allow },
    parts: [encodeJson(errorToJson('Method Not Allowed'))],
  };
}

function json(value: JsonValue): HttpAnswer {
  return { status: 200, headers: JSON_TYPE, parts: [encodeJson(value)] };
}

function health(good: boolean): HttpAnswer {
  return { status: good ? 200 : 400, headers: {}, parts: [] };
}
