/**
 * gRPC for an inference server: inference.GRPCInferenceService and grpc.health.v1.Health over node:http2.
 *
 * A call's way over HTTP/2 is grpc-server-call.ts; messages are read by protocol/, which checks limits before it
 * allocates, and tensors are sent from their own memory. What this server lacks (shared memory, trace and log settings)
 * is answered UNIMPLEMENTED. Tokens travel as `authorization` metadata.
 */
import { setMaxListeners } from 'node:events';
import { createSecureServer, createServer, type Http2Server, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { ScrimError } from '../errors.js';
import {
  type configPb,
  decodeMessage,
  encodeGrpcResponse,
  encodeGrpcStreamError,
  encodeGrpcStreamResponse,
  encodeMessage,
  healthPb,
  type InferRequest,
  type InferResponse,
  inferRequestFromMessage,
  type Limits,
  loadRequestFromMessage,
  modelMetadataToMessage,
  modelStatisticsToMessage,
  pb,
  REQUEST_RAW_FIELD,
  repositoryIndexToMessage,
  serverMetadataToMessage,
  unloadRequestFromMessage,
  wireErrorOf,
} from '../protocol/index.js';
import { type Caller, type InferenceServer, spentBuffers } from '../server/index.js';
import { ServerCall } from './grpc-server-call.js';
import { type AccessRecord, ANSWER_TIMEOUT_MS } from './http-listener.js';
import { checkServerTls, type ServerTls, secureSettings } from './server-certificates.js';
import { createTokenCheck } from './server-token.js';

/** How a gRPC listener is made. */
export interface GrpcServerOptions {
  readonly server: InferenceServer;
  /** In place of `server.infer`, for servers that tell their callers apart. */
  readonly infer?: (
    caller: Caller,
    request: InferRequest,
    options: { readonly signal: AbortSignal },
  ) => Promise<InferResponse>;
  /** Default '127.0.0.1'. */
  readonly host?: string;
  /** 0 lets the system choose. */
  readonly port: number;
  readonly tls?: ServerTls;
  /** Tokens of which calls must bear one; the health service apart. None: anyone may call. */
  readonly tokens?: readonly string[];
  /** Requests of one stream that may be under way; more wait in the connection. Default 64. */
  readonly maxStreamRequests?: number;
  /** Time in which a caller has to take something of its answer; default 60 s. */
  readonly answerTimeoutMs?: number;
  readonly onAccess?: (record: AccessRecord) => void;
}

/** A listener that runs. */
export interface GrpcListener {
  readonly host: string;
  readonly port: number;
  /** Address for clients, such as '127.0.0.1:8001'. */
  readonly address: string;
  /** Takes no new calls and lets those under way end; after `timeoutMs` cuts them. */
  close(timeoutMs?: number): Promise<void>;
}

type Handler = (call: ServerCall) => void;

interface Answer {
  readonly parts: readonly Uint8Array[];
  /** Buffers that nobody needs once the answer is sent. */
  readonly spent?: readonly ArrayBuffer[];
}

const SERVICE = pb.GRPCInferenceService.typeName;
const HEALTH = healthPb.Health.typeName;
/** HTTP/2 window of a stream: large enough that it holds nothing up. */
const STREAM_WINDOW_BYTES = 8 * 2 ** 20;
/**
 * Of a connection: no more than the system takes of what is sent to it. node:http2 reads nothing while a write of its waits for
 * the system. A client that stands on it too would wait for this side to read, and this side for the client, for ever.
 */
const WINDOW_BYTES = 2 ** 18;
const MAX_STREAMS = 1_000;
const MAX_CONNECTIONS = 1_024;
const DEFAULT_STREAM_REQUESTS = 64;

/** Starts to listen. @throws ScrimError UNAVAILABLE if the address can't be had, INVALID_ARGUMENT for a wrong option. */
export async function listenGrpc(options: GrpcServerOptions): Promise<GrpcListener> {
  const { server, host = '127.0.0.1', port, tls, tokens = [], onAccess, answerTimeoutMs = ANSWER_TIMEOUT_MS } = options;
  const { limits } = server;
  const { infer = (_, request, inferOptions) => server.infer(request, inferOptions) } = options;
  const isAllowed = createTokenCheck(tokens);
  const handlers = new Map<string, Handler>();

  /**
   * A call of one message and one answer.
   * @param early `rawField`: number of the field that holds raw tensors. Such a call begins with its message, since it
   * changes nothing here; others wait for the caller to say that no more follows.
   */
  const unary = <I extends DescMessage>(
    service: string,
    name: string,
    input: I,
    answer: (message: MessageShape<I>, call: ServerCall, bytes: Uint8Array) => Promise<Answer>,
    early?: { readonly rawField: number },
  ): void => {
    handlers.set(`/${service}/${name}`, (call) => {
      let bytes: Uint8Array | undefined;
      const run = async (message: Uint8Array): Promise<void> => {
        try {
          const { parts, spent } = await answer(decodeMessage(input, message, { limits }), call, message);
          call.finish(parts, spent);
        } catch (error) {
          call.fail(error);
        }
      };
      const refuse = (text: string): void => call.fail(new ScrimError('UNSUPPORTED', text));
      call.read(
        (message) => {
          if (bytes !== undefined) return refuse('the call has more than one message');
          bytes = message;
          if (early) void run(message);
        },
        () => {
          if (bytes === undefined) refuse('the call has no message, expected one');
          else if (!early) void run(bytes);
        },
        early?.rawField,
      );
    });
  };
  const define = <I extends DescMessage, O extends DescMessage>(
    service: string,
    name: string,
    input: I,
    output: O,
    task: (message: MessageShape<I>) => Promise<MessageInitShape<O>> | MessageInitShape<O>,
  ): void => unary(service, name, input, async (message) => ({ parts: [encodeMessage(output, await task(message))] }));

  define(SERVICE, 'ServerLive', pb.ServerLiveRequestSchema, pb.ServerLiveResponseSchema, () => ({
    live: server.live(),
  }));
  define(SERVICE, 'ServerReady', pb.ServerReadyRequestSchema, pb.ServerReadyResponseSchema, () => ({
    ready: server.ready(),
  }));
  define(SERVICE, 'ModelReady', pb.ModelReadyRequestSchema, pb.ModelReadyResponseSchema, ({ name, version }) => ({
    ready: server.modelReady(name, version),
  }));
  define(SERVICE, 'ServerMetadata', pb.ServerMetadataRequestSchema, pb.ServerMetadataResponseSchema, () =>
    serverMetadataToMessage(server.metadata()),
  );
  define(SERVICE, 'ModelMetadata', pb.ModelMetadataRequestSchema, pb.ModelMetadataResponseSchema, (message) =>
    modelMetadataToMessage(server.modelMetadata(message.name, message.version)),
  );
  define(SERVICE, 'ModelConfig', pb.ModelConfigRequestSchema, pb.ModelConfigResponseSchema, (message) => ({
    config: server.modelConfig(message.name, message.version) as configPb.ModelConfig,
  }));
  define(SERVICE, 'ModelStatistics', pb.ModelStatisticsRequestSchema, pb.ModelStatisticsResponseSchema, (message) =>
    modelStatisticsToMessage(server.statistics(message.name, message.version)),
  );
  unary(
    SERVICE,
    'ModelInfer',
    pb.ModelInferRequestSchema,
    async (message, call, bytes) => {
      const request = inferRequestFromMessage(message, limits);
      const response = await infer(call.caller, request, { signal: call.signal });
      return { parts: encodeGrpcResponse(response), spent: spentBuffers([bytes], response) };
    },
    { rawField: REQUEST_RAW_FIELD },
  );
  define(
    SERVICE,
    'RepositoryIndex',
    pb.RepositoryIndexRequestSchema,
    pb.RepositoryIndexResponseSchema,
    async (message) => repositoryIndexToMessage(await server.index(message.ready)),
  );
  define(
    SERVICE,
    'RepositoryModelLoad',
    pb.RepositoryModelLoadRequestSchema,
    pb.RepositoryModelLoadResponseSchema,
    async (message) => {
      await server.load(message.modelName, loadRequestFromMessage(message));
      return {};
    },
  );
  define(
    SERVICE,
    'RepositoryModelUnload',
    pb.RepositoryModelUnloadRequestSchema,
    pb.RepositoryModelUnloadResponseSchema,
    async (message) => {
      unloadRequestFromMessage(message);
      await server.unload(message.modelName);
      return {};
    },
  );
  handlers.set(`/${SERVICE}/ModelStreamInfer`, (call) =>
    streamInfer(call, (request, signal) => infer(call.caller, request, { signal }), {
      limits,
      maxRequests: options.maxStreamRequests ?? DEFAULT_STREAM_REQUESTS,
    }),
  );
  define(HEALTH, 'Check', healthPb.HealthCheckRequestSchema, healthPb.HealthCheckResponseSchema, ({ service }) => {
    const { SERVING, NOT_SERVING } = healthPb.HealthCheckResponse_ServingStatus;
    if (service !== '' && service !== SERVICE) throw new ScrimError('NOT_FOUND', 'the service is unknown');
    return { status: server.ready() ? SERVING : NOT_SERVING };
  });

  const http2 = createHttp2Server(tls);
  const sessions = new Set<ServerHttp2Session>();
  /** By their peers: a session's end waits for what is to be sent, a socket's does not. */
  const sockets = new Map<string, Socket>();
  let isClosing = false;
  http2.maxConnections = MAX_CONNECTIONS;
  http2.on('connection', (socket: Socket) => {
    const peer = peerOf(socket);
    sockets.set(peer, socket);
    socket.once('close', () => sockets.delete(peer));
  });
  http2.on('session', (session) => {
    session.setLocalWindowSize(WINDOW_BYTES);
    const peer = peerOf(session.socket);
    session.setTimeout(answerTimeoutMs, () => {
      // What was sent to a peer that is silent may wait in memory for ever.
      const timer = setTimeout(() => sockets.get(peer)?.destroy(), answerTimeoutMs).unref();
      session.ping(() => clearTimeout(timer));
    });
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    if (isClosing) session.close();
  });
  // A connection that breaks takes its calls with it; there is nobody to be told.
  http2.on('sessionError', () => {});
  http2.on('stream', (stream, headers) => {
    const started = performance.now();
    const call = new ServerCall(stream, headers, limits.maxBytes, answerTimeoutMs);
    call.onOver = (status) =>
      onAccess?.({
        transport: 'grpc',
        method: 'POST',
        path: call.path.slice(0, SHOWN_PATH),
        status,
        requestBytes: call.received,
        responseBytes: call.sent,
        ms: Math.round((performance.now() - started) * 1000) / 1000,
      });
    if (!call.open(headers)) return;
    const handler = handlers.get(call.path);
    if (!handler) call.fail(new ScrimError('UNSUPPORTED', 'this server does not implement the method'));
    else if (!call.path.startsWith(OPEN_PATH) && !isAllowed(call.caller.header('authorization') ?? undefined)) {
      call.fail(new ScrimError('UNAUTHENTICATED', 'the call bears no valid token'));
    } else handler(call);
  });

  const shown = host.includes(':') ? `[${host}]` : host;
  await new Promise<void>((resolve, reject) => {
    http2.once('error', (error) => reject(ScrimError.from(error, 'UNAVAILABLE', `can't listen on ${host}:${port}`)));
    http2.listen(port, host, resolve);
  });
  http2.on('error', () => {});
  const bound = (http2.address() as AddressInfo).port;
  return {
    host,
    port: bound,
    address: `${shown}:${bound}`,
    close: (timeoutMs = 5_000) =>
      new Promise((resolve) => {
        isClosing = true;
        const timer = setTimeout(() => {
          for (const socket of sockets.values()) socket.destroy();
        }, timeoutMs);
        http2.close(() => {
          clearTimeout(timer);
          resolve();
        });
        for (const session of sessions) session.close();
      }),
  };
}

function peerOf({ remoteAddress, remotePort }: Pick<Socket, 'remoteAddress' | 'remotePort'>): string {
  return `${remoteAddress} ${remotePort}`;
}

/**
 * One stream: requests run side by side, answers come in the order of the requests, and a failed request is an answer
 * with `error_message`, not the end of the stream (Triton's ModelStreamInfer).
 */
function streamInfer(
  call: ServerCall,
  infer: (request: InferRequest, signal: AbortSignal) => Promise<InferResponse>,
  { limits, maxRequests }: { readonly limits: Limits; readonly maxRequests: number },
): void {
  // Every request listens to the one signal of its stream.
  setMaxListeners(0, call.signal);
  let last: Promise<void> = Promise.resolve();
  let open = 0;
  const answer = async (bytes: Uint8Array): Promise<Uint8Array[]> => {
    let id = '';
    try {
      const message = decodeMessage(pb.ModelInferRequestSchema, bytes, { limits });
      ({ id } = message);
      return encodeGrpcStreamResponse(await infer(inferRequestFromMessage(message, limits), call.signal));
    } catch (error) {
      return [encodeGrpcStreamError(wireErrorOf(error).message, id)];
    }
  };
  call.read(
    (bytes) => {
      if (++open >= maxRequests) call.pause();
      const ready = answer(bytes);
      last = last.then(async () => {
        // The next answer waits until this one is on its way, so that a slow reader holds up its own stream only.
        await call.send(await ready);
        if (--open < maxRequests) call.resume();
      });
    },
    () => void last.then(() => call.finish()),
    REQUEST_RAW_FIELD,
  );
}

/** @throws ScrimError INVALID_ARGUMENT for certificates that can't be used */
function createHttp2Server(tls: ServerTls | undefined): Http2Server {
  const settings = {
    settings: { initialWindowSize: STREAM_WINDOW_BYTES, maxConcurrentStreams: MAX_STREAMS },
    // The windows bound what a connection may send; node's own bound, 10 MB, would refuse calls below it.
    maxSessionMemory: MAX_SESSION_MB,
  };
  if (tls === undefined) return createServer(settings);
  checkServerTls(tls);
  try {
    return createSecureServer({ ...settings, ...secureSettings(tls) }) as unknown as Http2Server;
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_ARGUMENT', "the TLS certificate or key can't be used");
  }
}

const OPEN_PATH = `/${HEALTH}/`;
const SHOWN_PATH = 500;
const MAX_SESSION_MB = 2 ** 20;
