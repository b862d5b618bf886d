/**
 * A v2 client over HTTP, for Node and browsers: Open Inference Protocol "HTTP/REST" with Triton's extensions (binary
 * tensors, statistics, configuration, repository control).
 *
 * Bodies are made by protocol/; this file knows routes, headers and statuses. The bearer token stands in one header and
 * never in an error.
 */
import { assertArgument, ScrimError } from '../errors.js';
// From their files, not from protocol/index.js: a browser's bundler then leaves protobuf out (see modelConfig below).
import { type ContentEncoding, encodeContent } from '../protocol/content-encoding.js';
import { HeadMemo } from '../protocol/head-memo.js';
import { HEADER_LENGTH, parseHeaderLength } from '../protocol/http-body.js';
import { encodeInferRequest } from '../protocol/http-request.js';
import { decodeInferResponse, type ResponseHead } from '../protocol/http-response.js';
import { decodeJson, encodeJson, type JsonValue } from '../protocol/json-value.js';
import { DEFAULT_LIMITS, type Limits } from '../protocol/limits.js';
import { modelMetadataFromJson, readinessFromHttp, serverMetadataFromJson } from '../protocol/metadata.js';
import { modelPath, repositoryPath } from '../protocol/model-path.js';
import { loadRequestToJson, repositoryIndexFromJson, unloadRequestToJson } from '../protocol/repository.js';
import { modelStatisticsFromJson } from '../protocol/statistics.js';
import { errorFromHttp } from '../protocol/wire-error.js';
import {
  createFetchTransport,
  type FetchFunction,
  type HttpTransport,
  type TransportResponse,
} from './http-transport.js';
import {
  createRetryContext,
  parseRetryAfter,
  RetryAfterError,
  type RetryClock,
  type RetryPolicy,
  withRetries,
} from './retry.js';
import type { CallOptions, TritonClient } from './triton-client.js';

/** How a client is set up. */
export interface TritonClientOptions {
  /** `http://host:8000` or `https://host/prefix`. Credentials in it are refused. */
  readonly url: string;
  /** Sent with every call, besides what a call brings. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as `Authorization: Bearer`. */
  readonly bearerToken?: string;
  /** Milliseconds a call may take altogether. Default 60,000. */
  readonly timeoutMs?: number;
  readonly retry?: RetryPolicy;
  /** Encoding of the bodies of inferences. Default 'identity'. */
  readonly compression?: ContentEncoding;
  /** Encoding to ask for in answers. Default 'identity'. A browser asks for what it likes, and decodes it itself. */
  readonly responseCompression?: ContentEncoding;
  readonly limits?: Limits;
  /** Default: the global fetch. A server's handler makes a client without a network. */
  readonly fetch?: FetchFunction;
  /** In place of `fetch`: connections of one's own, such as node's with mutual TLS. Closed with the client. */
  readonly transport?: HttpTransport;
  /** Numbers in [0, 1) for the jitter of retries. Default: the platform's cryptography. */
  readonly random?: () => number;
  readonly clock?: RetryClock;
}

const DEFAULT_TIMEOUT_MS = 60_000;

/** Makes a client; nothing is sent before the first call. @throws ScrimError INVALID_ARGUMENT for a wrong URL or setting */
export function createTritonClient(options: TritonClientOptions): TritonClient {
  const {
    limits = DEFAULT_LIMITS,
    compression = 'identity',
    responseCompression = 'identity',
    timeoutMs: defaultTimeoutMs = DEFAULT_TIMEOUT_MS,
  } = options;
  assertArgument(!(options.fetch && options.transport), 'fetch and transport are given, expected one of them');
  const base = checkUrl(options.url);
  const transport = options.transport ?? createFetchTransport(options.fetch);
  const retry = createRetryContext(options);
  const common: Record<string, string> = { 'accept-encoding': responseCompression, ...lowerCase(options.headers) };
  if (options.bearerToken !== undefined) common.authorization = `Bearer ${options.bearerToken}`;

  const heads = new HeadMemo<ResponseHead>();

  const call = async <T>(
    what: string,
    request: {
      readonly method: 'GET' | 'POST';
      readonly path: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: readonly Uint8Array[];
      readonly retryable?: boolean;
    },
    { timeoutMs = defaultTimeoutMs, signal, headers }: CallOptions,
    read: (response: TransportResponse) => T,
    accepts: (status: number) => boolean = (status) => status === 200,
  ): Promise<T> =>
    withRetries(what, retry, { timeoutMs, signal, retryable: request.retryable ?? true }, async (attempt) => {
      const response = await transport
        .exchange({
          method: request.method,
          url: `${base}${request.path}`,
          headers: { ...common, ...lowerCase(headers), ...request.headers },
          ...(request.body === undefined ? {} : { body: request.body }),
          signal: attempt.signal,
          maxBytes: limits.maxBytes,
        })
        .catch((error: unknown) => {
          throw nameCall(error, what);
        });
      if (accepts(response.status)) return read(response);
      const error = errorFromHttp(response.status, response.body, what);
      throw new RetryAfterError(error, parseRetryAfter(response.header('retry-after'), retry.clock.date()));
    }).catch((error: unknown) => {
      throw error instanceof RetryAfterError ? error.error : error;
    });

  const getJson = <T>(
    what: string,
    path: string,
    callOptions: CallOptions,
    read: (value: JsonValue) => T,
    post?: JsonValue,
  ): Promise<T> => {
    const request =
      post === undefined
        ? { method: 'GET' as const, path }
        : { method: 'POST' as const, path, headers: JSON_HEADERS, body: [encodeJson(post)] };
    return call(what, request, callOptions, ({ body }) =>
      read(body.length === 0 && post !== undefined ? {} : decodeJson(body, { what, code: 'INVALID_DATA', limits })),
    );
  };
  // Readiness is what the status says; only a server that can't be reached or that fails is worth another attempt.
  const ask = (what: string, path: string, callOptions: CallOptions): Promise<boolean> =>
    call(
      what,
      { method: 'GET', path },
      callOptions,
      ({ status, body }) => readinessFromHttp(status, body),
      (status) => status === 200 || status === 400 || status === 404 || status === 503,
    );

  return {
    protocol: 'http',
    url: base,
    serverLive: (callOptions = {}) => ask('server live', '/v2/health/live', callOptions),
    serverReady: (callOptions = {}) => ask('server ready', '/v2/health/ready', callOptions),
    serverMetadata: (callOptions = {}) => getJson('server metadata', '/v2', callOptions, serverMetadataFromJson),
    modelReady: (model, { version, ...callOptions } = {}) =>
      ask(`ready of model '${model}'`, modelPath(model, version, 'ready'), callOptions),
    modelMetadata: (model, { version, ...callOptions } = {}) =>
      getJson(`metadata of model '${model}'`, modelPath(model, version), callOptions, modelMetadataFromJson),
    modelConfig: async (model, { version, ...callOptions } = {}) => {
      // Configurations are protobuf's JSON, whose reader weighs more than the rest of this client: browsers load it late.
      const { modelConfigFromJson } = await import('../protocol/model-config.js');
      return getJson(`config of model '${model}'`, modelPath(model, version, 'config'), callOptions, (value) =>
        modelConfigFromJson(value, { ignoreUnknown: true, code: 'INVALID_DATA' }),
      );
    },
    modelStatistics: (model, { version, ...callOptions } = {}) =>
      getJson(
        model === undefined ? 'statistics' : `statistics of model '${model}'`,
        model === undefined ? '/v2/models/stats' : modelPath(model, version, 'stats'),
        callOptions,
        modelStatisticsFromJson,
      ),
    repositoryIndex: ({ ready = false, ...callOptions } = {}) =>
      getJson('repository index', '/v2/repository/index', callOptions, repositoryIndexFromJson, ready ? { ready } : {}),
    loadModel: (model, request = {}, callOptions = {}) =>
      getJson(
        `load of model '${model}'`,
        repositoryPath(model, 'load'),
        callOptions,
        () => undefined,
        loadRequestToJson(request),
      ),
    unloadModel: (model, { unloadDependents = false, ...callOptions } = {}) =>
      getJson(
        `unload of model '${model}'`,
        repositoryPath(model, 'unload'),
        callOptions,
        () => undefined,
        unloadRequestToJson(unloadDependents),
      ),
    infer: async (request, { onTransfer, ...callOptions } = {}) => {
      const encoded = encodeInferRequest(request);
      let body = encoded.parts;
      const headers: Record<string, string> = { ...encoded.headers };
      if (compression !== 'identity') {
        body = [await encodeContent(encoded.parts, compression)];
        headers['content-encoding'] = compression;
      }
      const sentBytes = body.reduce((sum, part) => sum + part.length, 0);
      const what = `infer of model '${request.modelName}'`;
      const path = modelPath(request.modelName, request.modelVersion, 'infer');
      return call(
        what,
        { method: 'POST', path, headers, body, retryable: request.sequenceId === undefined },
        callOptions,
        (response) => {
          onTransfer?.({ sentBytes, receivedBytes: response.body.length });
          const headerLength = parseHeaderLength(response.header(HEADER_LENGTH), 'INVALID_DATA');
          return decodeInferResponse(response.body, {
            ...(headerLength === undefined ? {} : { headerLength }),
            limits,
            heads,
          });
        },
      );
    },
    close: () => transport.close(),
  };
}

const JSON_HEADERS = { 'content-type': 'application/json' } as const;

function checkUrl(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ScrimError('INVALID_ARGUMENT', 'url is no URL, expected http://host:port or https://host:port');
  }
  assertArgument(
    /^https?:$/.test(url.protocol),
    `url has scheme '${url.protocol}', expected http: or https: (gRPC is createTritonClient of scrim/node)`,
  );
  assertArgument(url.username === '' && url.password === '', 'url holds credentials: use bearerToken or headers');
  assertArgument(url.search === '' && url.hash === '', 'url has a query or fragment');
  return url.href.replace(/\/+$/, '');
}

function lowerCase(headers: Readonly<Record<string, string>> = {}): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function nameCall(error: unknown, what: string): unknown {
  if (!(error instanceof ScrimError)) return ScrimError.from(error, 'UNAVAILABLE', what);
  return new ScrimError(error.code, `${what}: ${error.message}`, { details: error.details, cause: error });
}
