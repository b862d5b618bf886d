/**
 * A v2 client over gRPC: `inference.GRPCInferenceService` by @grpc/grpc-js, with protobuf-es for the messages.
 *
 * grpc-js brings connections, TLS, deadlines and streams; messages pass as bytes through protocol/, with its limits.
 * Retries are this project's (client/retry.ts), so that HTTP and gRPC behave alike; those of grpc-js are off.
 */
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import {
  type ChannelOptions,
  Client,
  compressionAlgorithms,
  type CallOptions as GrpcCallOptions,
  credentials as grpcCredentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { createRetryContext, type RetryClock, type RetryPolicy, withRetries } from '../client/retry.js';
import type { CallOptions, TritonClient } from '../client/triton-client.js';
import { assertArgument, ScrimError } from '../errors.js';
import {
  DEFAULT_LIMITS,
  decodeMessage,
  encodeMessage,
  errorFromGrpc,
  type InferRequest,
  type InferResponse,
  inferRequestToMessage,
  inferResponseFromMessage,
  type Limits,
  loadRequestToMessage,
  modelMetadataFromMessage,
  modelStatisticsFromMessage,
  pb,
  repositoryIndexFromMessage,
  serverMetadataFromMessage,
  unloadRequestToMessage,
} from '../protocol/index.js';
import type { ClientTls } from './http-agent.js';

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
/** HTTP/2 window: large enough that an answer needs no round trip on the way. */
const WINDOW_BYTES = 8 * 2 ** 20;
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
  const channel = new Client(target, secure ? secureCredentials(options.tls ?? {}) : grpcCredentials.createInsecure(), {
    'grpc.max_receive_message_length': limits.maxBytes + MESSAGE_OVERHEAD,
    'grpc.max_send_message_length': -1,
    'grpc.enable_retries': 0,
    'grpc-node.flow_control_window': WINDOW_BYTES,
    'grpc.enable_channelz': 0,
    'grpc.default_compression_algorithm': compressionAlgorithms[compression],
    ...(options.tls?.serverName === undefined ? {} : { 'grpc.ssl_target_name_override': options.tls.serverName }),
  } satisfies ChannelOptions);
  const retry = createRetryContext(options);

  const metadataOf = (headers: Readonly<Record<string, string>> = {}): Metadata => {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries({ ...options.headers, ...headers })) metadata.set(name, value);
    if (options.bearerToken !== undefined) metadata.set('authorization', `Bearer ${options.bearerToken}`);
    return metadata;
  };

  const unary = async <I extends Schema, O extends Schema, T>(
    what: string,
    method: { readonly name: string; readonly input: I; readonly output: O },
    message: MessageInitShape<I>,
    { timeoutMs = defaultTimeoutMs, signal, headers }: CallOptions,
    read: (answer: MessageShape<O>) => T,
    extra: { readonly retryable?: boolean; readonly onTransfer?: (sent: number, received: number) => void } = {},
  ): Promise<T> => {
    const bytes = encodeMessage(method.input, message);
    const { retryable = true, onTransfer } = extra;
    return withRetries(what, retry, { timeoutMs, signal, retryable }, async (attempt) => {
      const answer = await new Promise<Uint8Array>((resolve, reject) => {
        const callOptions: GrpcCallOptions =
          attempt.remainingMs === undefined ? {} : { deadline: Date.now() + attempt.remainingMs };
        const call = channel.makeUnaryRequest(
          `${SERVICE}${method.name}`,
          asBuffer,
          (buffer: Buffer) => buffer,
          bytes,
          metadataOf(headers),
          callOptions,
          (error, value) => {
            attempt.signal.removeEventListener('abort', abort);
            if (error || !value) reject(toScrimError(error, what));
            else resolve(value);
          },
        );
        const abort = (): void => call.cancel();
        if (attempt.signal.aborted) abort();
        else attempt.signal.addEventListener('abort', abort, { once: true });
      });
      onTransfer?.(bytes.length, answer.length);
      return read(decodeMessage(method.output, answer, { what, code: 'INVALID_DATA', limits }));
    });
  };

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
      unary(
        `infer of model '${request.modelName}'`,
        methods.modelInfer,
        inferRequestToMessage(request),
        callOptions,
        (answer) => inferResponseFromMessage(answer, limits),
        {
          retryable: request.sequenceId === undefined,
          ...(onTransfer === undefined
            ? {}
            : { onTransfer: (sentBytes, receivedBytes) => onTransfer({ sentBytes, receivedBytes }) }),
        },
      ),
    async *inferStream(requests, { timeoutMs, signal, headers, onError } = {}) {
      const what = 'infer stream';
      if (signal?.aborted) throw new ScrimError('CANCELLED', `${what} was cancelled`);
      const call = channel.makeBidiStreamRequest(
        `${SERVICE}${methods.modelStreamInfer.name}`,
        asBuffer,
        (buffer: Buffer) => buffer,
        metadataOf(headers),
        timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs },
      );
      const abort = (): void => call.cancel();
      signal?.addEventListener('abort', abort, { once: true });
      let failure: unknown;
      const writing = (async () => {
        for await (const request of requests) {
          if (call.destroyed) return;
          const bytes = encodeMessage(pb.ModelInferRequestSchema, inferRequestToMessage(request));
          if (!call.write(bytes)) {
            await new Promise<void>((resolve) => {
              call.once('drain', resolve);
              call.once('close', resolve);
            });
          }
        }
        call.end();
      })().catch((error: unknown) => {
        failure = error;
        call.cancel();
      });
      try {
        for await (const bytes of call as AsyncIterable<Uint8Array>) {
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
        if (failure !== undefined) throw failure;
      } catch (error) {
        if (failure !== undefined) throw failure;
        if (signal?.aborted) throw new ScrimError('CANCELLED', `${what} was cancelled`, { cause: error });
        throw error instanceof ScrimError ? error : toScrimError(error as ServiceError, what);
      } finally {
        signal?.removeEventListener('abort', abort);
        call.cancel();
      }
    },
    close: async () => channel.close(),
  };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function toScrimError(error: ServiceError | null, what: string): ScrimError {
  if (error === null) return new ScrimError('INVALID_DATA', `${what}: the answer is empty`);
  if (error instanceof ScrimError) return error;
  return errorFromGrpc(error.code ?? 2, error.details ?? '', what);
}

function secureCredentials({ ca, cert, key }: ClientTls): ReturnType<typeof grpcCredentials.createSsl> {
  assertArgument((cert === undefined) === (key === undefined), 'tls.cert and tls.key belong together: one is missing');
  const buffer = (value: string | Uint8Array | undefined): Buffer | null =>
    value === undefined ? null : typeof value === 'string' ? Buffer.from(value) : asBuffer(value);
  return grpcCredentials.createSsl(buffer(ca), buffer(key), buffer(cert));
}

function parseTarget(url: string): { readonly target: string; readonly secure: boolean } {
  const match = /^(?:(grpcs?|https?):\/\/)?([A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?\/?$/.exec(url);
  assertArgument(match, 'url is no gRPC address, expected grpc://host:port or grpcs://host:port');
  const [, scheme = 'grpc', host, port = ':8001'] = match;
  return { target: `${host}${port}`, secure: scheme === 'grpcs' || scheme === 'https' };
}
