/**
 * A v2 client over gRPC: `inference.GRPCInferenceService` by grpc-channel.ts, with protobuf-es for the messages.
 *
 * Messages pass through protocol/, with its limits; tensors are sent from their own memory. Deadlines and retries are
 * those of client/retry.ts, so that HTTP and gRPC behave alike.
 */
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { createRetryContext, type RetryClock, type RetryPolicy, withRetries } from '../client/retry.js';
import type { CallOptions, TritonClient } from '../client/triton-client.js';
import { assertArgument, ScrimError } from '../errors.js';
import {
  DEFAULT_LIMITS,
  decodeMessage,
  encodeGrpcRequest,
  encodeMessage,
  errorFromGrpc,
  type InferRequest,
  type InferResponse,
  inferResponseFromMessage,
  type Limits,
  loadRequestToMessage,
  modelMetadataFromMessage,
  modelStatisticsFromMessage,
  pb,
  RESPONSE_RAW_FIELD,
  repositoryIndexFromMessage,
  serverMetadataFromMessage,
  unloadRequestToMessage,
} from '../protocol/index.js';
import { type ClientTls, clientTlsSettings } from './client-tls.js';
import { GrpcChannel } from './grpc-channel.js';

/** How a gRPC client is set up. */
export interface GrpcClientOptions {
  /** `grpc://host:8001` or `grpcs://host:8001`; `host:8001` means the former. */
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as metadata `authorization: Bearer`. Refused without TLS unless the host is this machine. */
  readonly bearerToken?: string;
  /** For grpcs: authorities, and certificate and key of this client. */
  readonly tls?: ClientTls;
  /** Milliseconds a call may take altogether. Default 60,000. Streams have no deadline unless one is given. */
  readonly timeoutMs?: number;
  readonly retry?: RetryPolicy;
  readonly compression?: 'identity' | 'gzip' | 'deflate';
  readonly limits?: Limits;
  readonly random?: () => number;
  readonly clock?: RetryClock;
}

/** A client that can stream besides. */
export interface GrpcClient extends TritonClient {
  /**
   * Sends requests over one stream and gives the answers as they come; a decoupled model may give any number for each
   * request. Never retried. Leaving the loop ends the stream, and so does a request that fails, unless `onError` is
   * told instead: of the error and the id of the request, '' where the server does not say.
   */
  inferStream(
    requests: AsyncIterable<InferRequest> | Iterable<InferRequest>,
    options?: CallOptions & { readonly onError?: (error: ScrimError, id: string) => void },
  ): AsyncIterable<InferResponse>;
}

type Schema = DescMessage;

const SERVICE = `/${pb.GRPCInferenceService.typeName}/`;
const MESSAGE_OVERHEAD = 2 ** 16;
const DEFAULT_TIMEOUT_MS = 60_000;
const LOCAL = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/;

/** Makes a client; the connection is made by the first call. @throws ScrimError INVALID_ARGUMENT for a wrong URL or setting */
export function createGrpcClient(options: GrpcClientOptions): GrpcClient {
  const {
    limits = DEFAULT_LIMITS,
    timeoutMs: defaultTimeoutMs = DEFAULT_TIMEOUT_MS,
    compression = 'identity',
  } = options;
  const { target, secure } = parseTarget(options.url);
  assertArgument(
    secure || options.bearerToken === undefined || LOCAL.test(target),
    'bearerToken would travel in the clear: use grpcs://',
  );
  const channel = new GrpcChannel({
    target,
    secure,
    tls: clientTlsSettings(options.tls ?? {}),
    compression,
    maxBytes: limits.maxBytes + MESSAGE_OVERHEAD,
  });
  const retry = createRetryContext(options);

  const headersOf = (headers: Readonly<Record<string, string>> = {}): Record<string, string> => {
    const all: Record<string, string> = {};
    for (const [name, value] of Object.entries({ ...options.headers, ...headers })) all[name.toLowerCase()] = value;
    if (options.bearerToken !== undefined) all.authorization = `Bearer ${options.bearerToken}`;
    return all;
  };

  const send = async <O extends Schema, T>(
    what: string,
    method: { readonly name: string; readonly output: O },
    parts: readonly Uint8Array[],
    { timeoutMs = defaultTimeoutMs, signal, headers }: CallOptions,
    read: (answer: MessageShape<O>) => T,
    extra: {
      readonly retryable?: boolean;
      readonly rawField?: number;
      readonly onTransfer?: (sent: number, received: number) => void;
    } = {},
  ): Promise<T> => {
    const { retryable = true, rawField, onTransfer } = extra;
    return withRetries(what, retry, { timeoutMs, signal, retryable }, async (attempt) => {
      let received = 0;
      const value = await channel.unary(
        parts,
        {
          path: `${SERVICE}${method.name}`,
          what,
          headers: headersOf(headers),
          timeoutMs: attempt.remainingMs,
          signal: attempt.signal,
          rawField,
        },
        (answer) => {
          received = answer.length;
          return read(decodeMessage(method.output, answer, { what, code: 'INVALID_DATA', limits }));
        },
      );
      onTransfer?.(
        parts.reduce((sum, part) => sum + part.length, 0),
        received,
      );
      return value;
    });
  };
  const unary = <I extends Schema, O extends Schema, T>(
    what: string,
    method: { readonly name: string; readonly input: I; readonly output: O },
    message: MessageInitShape<I>,
    callOptions: CallOptions,
    read: (answer: MessageShape<O>) => T,
  ): Promise<T> => send(what, method, [encodeMessage(method.input, message)], callOptions, read);

  const methods = pb.GRPCInferenceService.method;
  const model = (name: string, version = ''): { name: string; version: string } => ({ name, version });
  return {
    protocol: 'grpc',
    url: `${secure ? 'grpcs' : 'grpc'}://${target}`,
    serverLive: (callOptions = {}) => unary('server live', methods.serverLive, {}, callOptions, ({ live }) => live),
    serverReady: (callOptions = {}) =>
      unary('server ready', methods.serverReady, {}, callOptions, ({ ready }) => ready),
    serverMetadata: (callOptions = {}) =>
      unary('server metadata', methods.serverMetadata, {}, callOptions, serverMetadataFromMessage),
    modelReady: (name, { version, ...callOptions } = {}) =>
      unary(
        `ready of model '${name}'`,
        methods.modelReady,
        model(name, version),
        callOptions,
        ({ ready }) => ready,
      ).catch((error: unknown) => {
        // Triton answers NOT_FOUND for a model it does not have; over HTTP that is a plain no.
        if (error instanceof ScrimError && error.code === 'NOT_FOUND') return false;
        throw error;
      }),
    modelMetadata: (name, { version, ...callOptions } = {}) =>
      unary(
        `metadata of model '${name}'`,
        methods.modelMetadata,
        model(name, version),
        callOptions,
        modelMetadataFromMessage,
      ),
    modelConfig: (name, { version, ...callOptions } = {}) =>
      unary(`config of model '${name}'`, methods.modelConfig, model(name, version), callOptions, ({ config }) => {
        if (config) return config;
        throw new ScrimError('INVALID_DATA', `the server sent no configuration of model '${name}'`);
      }),
    modelStatistics: (name = '', { version, ...callOptions } = {}) =>
      unary(
        name === '' ? 'statistics' : `statistics of model '${name}'`,
        methods.modelStatistics,
        model(name, version),
        callOptions,
        modelStatisticsFromMessage,
      ),
    repositoryIndex: ({ ready = false, ...callOptions } = {}) =>
      unary('repository index', methods.repositoryIndex, { ready }, callOptions, repositoryIndexFromMessage),
    loadModel: (name, request = {}, callOptions = {}) =>
      unary(
        `load of model '${name}'`,
        methods.repositoryModelLoad,
        loadRequestToMessage(name, request),
        callOptions,
        () => undefined,
      ),
    unloadModel: (name, { unloadDependents = false, ...callOptions } = {}) =>
      unary(
        `unload of model '${name}'`,
        methods.repositoryModelUnload,
        unloadRequestToMessage(name, unloadDependents),
        callOptions,
        () => undefined,
      ),
    infer: async (request, { onTransfer, ...callOptions } = {}) =>
      send(
        `infer of model '${request.modelName}'`,
        methods.modelInfer,
        encodeGrpcRequest(request),
        callOptions,
        (answer) => inferResponseFromMessage(answer, limits),
        {
          retryable: request.sequenceId === undefined,
          rawField: RESPONSE_RAW_FIELD,
          ...(onTransfer === undefined
            ? {}
            : { onTransfer: (sentBytes, receivedBytes) => onTransfer({ sentBytes, receivedBytes }) }),
        },
      ),
    async *inferStream(requests, { timeoutMs, signal, headers, onError } = {}) {
      const what = 'infer stream';
      if (signal?.aborted) throw new ScrimError('CANCELLED', `${what} was cancelled`);
      const late = new AbortController();
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => late.abort(), timeoutMs);
      const onAbort = (): void => late.abort();
      signal?.addEventListener('abort', onAbort, { once: true });
      const call = channel.stream({
        path: `${SERVICE}${methods.modelStreamInfer.name}`,
        what,
        headers: headersOf(headers),
        timeoutMs,
        signal: late.signal,
      });
      let failure: { readonly error: unknown } | undefined;
      const writing = (async () => {
        for await (const request of requests) {
          if (call.isOver) return;
          await call.send(encodeGrpcRequest(request));
        }
        call.end();
      })().catch((error: unknown) => {
        failure = { error };
        call.cancel();
      });
      try {
        for await (const bytes of call.messages()) {
          const message = decodeMessage(pb.ModelStreamInferResponseSchema, bytes, {
            what,
            code: 'INVALID_DATA',
            limits,
          });
          // Triton says no more than a text when one request of a stream fails.
          if (message.errorMessage !== '') {
            const error = errorFromGrpc(3, message.errorMessage, what);
            if (!onError) throw error;
            onError(error, message.inferResponse?.id ?? '');
          } else if (message.inferResponse) yield inferResponseFromMessage(message.inferResponse, limits);
        }
        await writing;
        if (failure) throw failure.error;
      } catch (error) {
        if (failure) throw failure.error;
        if (signal?.aborted) throw new ScrimError('CANCELLED', `${what} was cancelled`, { cause: error });
        if (late.signal.aborted) {
          throw new ScrimError('DEADLINE_EXCEEDED', `${what} took longer than ${timeoutMs} ms`, { cause: error });
        }
        throw error;
      } finally {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        call.cancel();
      }
    },
    close: async () => channel.close(),
  };
}

function parseTarget(url: string): { readonly target: string; readonly secure: boolean } {
  const match = /^(?:(grpcs?|https?):\/\/)?([A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?\/?$/.exec(url);
  assertArgument(match, 'url is no gRPC address, expected grpc://host:port or grpcs://host:port');
  const [, scheme = 'grpc', host, port = ':8001'] = match;
  return { target: `${host}${port}`, secure: scheme === 'grpcs' || scheme === 'https' };
}
