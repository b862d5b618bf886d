/**
 * gRPC for an inference server: inference.GRPCInferenceService and grpc.health.v1.Health over @grpc/grpc-js.
 *
 * Messages are read by protocol/, which checks limits before it allocates; grpc-js only moves bytes. What this server
 * lacks (shared memory, trace and log settings) is answered UNIMPLEMENTED. Tokens travel as `authorization` metadata.
 */
import type { Http2Server, ServerHttp2Session, Settings } from 'node:http2';
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { ScrimError } from '../errors.js';
import {
  type configPb,
  decodeMessage,
  encodeMessage,
  healthPb,
  type InferRequest,
  type InferResponse,
  inferRequestFromMessage,
  inferResponseToMessage,
  type Limits,
  loadRequestFromMessage,
  modelMetadataToMessage,
  modelStatisticsToMessage,
  pb,
  repositoryIndexToMessage,
  serverMetadataToMessage,
  unloadRequestFromMessage,
  wireErrorOf,
} from '../protocol/index.js';
import type { Caller, InferenceServer } from '../server/index.js';
import type { AccessRecord } from './http-listener.js';
import { checkServerTls, type ServerTls } from './server-certificates.js';
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

type Unary<I extends DescMessage, O extends DescMessage> = (
  message: MessageShape<I>,
  signal: AbortSignal,
  call: AnyCall,
) => Promise<MessageInitShape<O>> | MessageInitShape<O>;

/** What calls of every kind have. */
type AnyCall = Pick<ServerUnaryCall<Buffer, Buffer>, 'metadata' | 'getPeer'>;

const SERVICE = pb.GRPCInferenceService.typeName;
const HEALTH = healthPb.Health.typeName;
const GONE = 'the caller has gone';
/** HTTP/2 window: large enough that a tensor needs no round trip on the way. */
const WINDOW_BYTES = 8 * 2 ** 20;
const DEFAULT_STREAM_REQUESTS = 64;

/** Starts to listen. @throws ScrimError UNAVAILABLE if the address can't be had, INVALID_ARGUMENT for a wrong option. */
export async function listenGrpc(options: GrpcServerOptions): Promise<GrpcListener> {
  const { server, host = '127.0.0.1', port, tls, tokens = [] } = options;
  const { limits } = server;
  const { infer = (_, request, inferOptions) => server.infer(request, inferOptions) } = options;
  const isAllowed = createTokenCheck(tokens);
  const grpc = new Server({
    'grpc.max_receive_message_length': limits.maxBytes,
    'grpc.max_send_message_length': -1,
    // Nothing here asks for these counts, which cost time on every call.
    'grpc.enable_channelz': 0,
    'grpc.max_concurrent_streams': 1_000,
  });
  widenWindows(grpc);

  const definition: Record<string, ServiceDefinition[string]> = {};
  const handlers: Record<string, unknown> = {};
  const define = (service: string, name: string, stream: boolean): void => {
    definition[name] = {
      path: `/${service}/${name}`,
      requestStream: stream,
      responseStream: stream,
      requestSerialize: passBytes,
      requestDeserialize: passBytes,
      responseSerialize: passBytes,
      responseDeserialize: passBytes,
      originalName: name,
    };
  };
  const record = (path: string, status: number, started: number, requestBytes: number, responseBytes: number): void =>
    options.onAccess?.({
      transport: 'grpc',
      method: 'POST',
      path,
      status,
      requestBytes,
      responseBytes,
      ms: Math.round((performance.now() - started) * 1000) / 1000,
    });
  const authorize = (call: AnyCall): void => {
    if (!isAllowed(callerOf(call).header('authorization') ?? undefined)) {
      throw new ScrimError('UNAUTHENTICATED', 'the call bears no valid token');
    }
  };
  const unary = <I extends DescMessage, O extends DescMessage>(
    service: string,
    name: string,
    input: I,
    output: O,
    task: Unary<I, O>,
  ): void => {
    define(service, name, false);
    handlers[name] = async (call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>): Promise<void> => {
      const started = performance.now();
      const gone = new AbortController();
      // grpc-js says so of every call that ends, answered or not; without a reason abort() makes one with a stack.
      let isOpen = true;
      call.on('cancelled', () => {
        if (isOpen) gone.abort(GONE);
      });
      const path = `/${service}/${name}`;
      try {
        if (service === SERVICE) authorize(call);
        const message = decodeMessage(input, plainBytes(call.request), { limits });
        const bytes = asBuffer(encodeMessage(output, await task(message, gone.signal, call)));
        isOpen = false;
        reply(null, bytes);
        record(path, 0, started, call.request.length, bytes.length);
      } catch (error) {
        const { grpc: code, message } = wireErrorOf(error);
        isOpen = false;
        reply({ code, details: message });
        record(path, code, started, call.request.length, 0);
      }
    };
  };

  unary(SERVICE, 'ServerLive', pb.ServerLiveRequestSchema, pb.ServerLiveResponseSchema, () => ({
    live: server.live(),
  }));
  unary(SERVICE, 'ServerReady', pb.ServerReadyRequestSchema, pb.ServerReadyResponseSchema, () => ({
    ready: server.ready(),
  }));
  unary(SERVICE, 'ModelReady', pb.ModelReadyRequestSchema, pb.ModelReadyResponseSchema, ({ name, version }) => ({
    ready: server.modelReady(name, version),
  }));
  unary(SERVICE, 'ServerMetadata', pb.ServerMetadataRequestSchema, pb.ServerMetadataResponseSchema, () =>
    serverMetadataToMessage(server.metadata()),
  );
  unary(SERVICE, 'ModelMetadata', pb.ModelMetadataRequestSchema, pb.ModelMetadataResponseSchema, (message) =>
    modelMetadataToMessage(server.modelMetadata(message.name, message.version)),
  );
  unary(SERVICE, 'ModelConfig', pb.ModelConfigRequestSchema, pb.ModelConfigResponseSchema, (message) => ({
    config: server.modelConfig(message.name, message.version) as configPb.ModelConfig,
  }));
  unary(SERVICE, 'ModelStatistics', pb.ModelStatisticsRequestSchema, pb.ModelStatisticsResponseSchema, (message) =>
    modelStatisticsToMessage(server.statistics(message.name, message.version)),
  );
  unary(
    SERVICE,
    'ModelInfer',
    pb.ModelInferRequestSchema,
    pb.ModelInferResponseSchema,
    async (message, signal, call) => {
      const request = inferRequestFromMessage(message, limits);
      return inferResponseToMessage(await infer(callerOf(call), request, { signal }));
    },
  );
  unary(
    SERVICE,
    'RepositoryIndex',
    pb.RepositoryIndexRequestSchema,
    pb.RepositoryIndexResponseSchema,
    async (message) => repositoryIndexToMessage(await server.index(message.ready)),
  );
  unary(
    SERVICE,
    'RepositoryModelLoad',
    pb.RepositoryModelLoadRequestSchema,
    pb.RepositoryModelLoadResponseSchema,
    async (message) => {
      await server.load(message.modelName, loadRequestFromMessage(message));
      return {};
    },
  );
  unary(
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
  define(SERVICE, 'ModelStreamInfer', true);
  handlers.ModelStreamInfer = (call: ServerDuplexStream<Buffer, Buffer>): void => {
    const started = performance.now();
    try {
      authorize(call);
    } catch (error) {
      const { grpc: code, message } = wireErrorOf(error);
      call.emit('error', { code, details: message });
      return;
    }
    streamInfer(
      call,
      (request, signal) => infer(callerOf(call), request, { signal }),
      { limits, maxRequests: options.maxStreamRequests ?? DEFAULT_STREAM_REQUESTS },
      (bytes, sent) => record(`/${SERVICE}/ModelStreamInfer`, 0, started, bytes, sent),
    );
  };
  grpc.addService(definition as ServiceDefinition, handlers as never);

  for (const name of Object.keys(definition)) delete definition[name];
  for (const name of Object.keys(handlers)) delete handlers[name];
  unary(HEALTH, 'Check', healthPb.HealthCheckRequestSchema, healthPb.HealthCheckResponseSchema, ({ service }) => {
    const { SERVING, NOT_SERVING } = healthPb.HealthCheckResponse_ServingStatus;
    if (service !== '' && service !== SERVICE) throw new ScrimError('NOT_FOUND', 'the service is unknown');
    return { status: server.ready() ? SERVING : NOT_SERVING };
  });
  grpc.addService(definition as ServiceDefinition, handlers as never);

  const shown = host.includes(':') ? `[${host}]` : host;
  const bound = await new Promise<number>((resolve, reject) => {
    grpc.bindAsync(`${shown}:${port}`, credentialsOf(tls), (error, actual) => {
      if (error) reject(ScrimError.from(error, 'UNAVAILABLE', `can't listen on ${host}:${port}`));
      else resolve(actual);
    });
  });
  return {
    host,
    port: bound,
    address: `${shown}:${bound}`,
    close: (timeoutMs = 5_000) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => grpc.forceShutdown(), timeoutMs);
        grpc.tryShutdown(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
  };
}

/**
 * One stream: requests run side by side, answers come in the order of the requests, and a failed request is an answer
 * with `error_message`, not the end of the stream (Triton's ModelStreamInfer).
 */
function streamInfer(
  call: ServerDuplexStream<Buffer, Buffer>,
  infer: (request: InferRequest, signal: AbortSignal) => Promise<InferResponse>,
  { limits, maxRequests }: { readonly limits: Limits; readonly maxRequests: number },
  onEnd: (bytes: number, sent: number) => void,
): void {
  const gone = new AbortController();
  let last: Promise<void> = Promise.resolve();
  let open = 0;
  let received = 0;
  let sent = 0;
  const answer = async (bytes: Buffer): Promise<Buffer> => {
    let id = '';
    let fields: MessageInitShape<typeof pb.ModelStreamInferResponseSchema>;
    try {
      const message = decodeMessage(pb.ModelInferRequestSchema, plainBytes(bytes), { limits });
      ({ id } = message);
      const request = inferRequestFromMessage(message, limits);
      const response = inferResponseToMessage(await infer(request, gone.signal));
      response.parameters.triton_final_response = finalResponse();
      fields = { inferResponse: response };
    } catch (error) {
      const parameters = { triton_final_response: finalResponse() };
      fields = { errorMessage: wireErrorOf(error).message, inferResponse: { id, parameters } };
    }
    return asBuffer(encodeMessage(pb.ModelStreamInferResponseSchema, fields));
  };
  call.on('data', (bytes: Buffer) => {
    received += bytes.length;
    if (++open >= maxRequests) call.pause();
    const ready = answer(bytes);
    last = last.then(async () => {
      const message = await ready;
      if (gone.signal.aborted) return;
      sent += message.length;
      const isFlowing = call.write(message);
      // The next answer waits until this one is on its way, so that a slow reader holds up its own stream only.
      if (!isFlowing) await drained(call, gone.signal);
      if (--open < maxRequests) call.resume();
    });
  });
  call.on('cancelled', () => {
    gone.abort();
    onEnd(received, sent);
  });
  call.on('error', () => gone.abort());
  call.on('end', () => {
    void last.then(() => {
      if (gone.signal.aborted) return;
      call.end();
      onEnd(received, sent);
    });
  });
}

function drained(call: ServerDuplexStream<Buffer, Buffer>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      call.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    call.on('drain', done);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });
}

function finalResponse(): pb.InferParameter {
  return decodeMessage(pb.InferParameterSchema, FINAL);
}

const FINAL = encodeMessage(pb.InferParameterSchema, { parameterChoice: { case: 'boolParam', value: true } });

/**
 * Lets a tensor arrive without a round trip for every 64 KiB. grpc-js 1.14 takes 'grpc-node.flow_control_window' on its
 * client alone, so the windows are set where its server makes its HTTP/2 server; a test holds that clients are told.
 */
function widenWindows(server: Server): void {
  const inner = server as unknown as {
    commonServerOptions: { settings?: Settings };
    createHttp2Server(credentials: ServerCredentials): Http2Server;
  };
  inner.commonServerOptions.settings = { ...inner.commonServerOptions.settings, initialWindowSize: WINDOW_BYTES };
  const create = inner.createHttp2Server.bind(server);
  inner.createHttp2Server = (credentials) =>
    create(credentials).on('session', (session: ServerHttp2Session) => session.setLocalWindowSize(WINDOW_BYTES));
}

function credentialsOf(tls: ServerTls | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  checkServerTls(tls);
  try {
    return ServerCredentials.createSsl(
      tls.clientCa === undefined ? null : Buffer.from(tls.clientCa),
      [{ cert_chain: Buffer.from(tls.cert), private_key: Buffer.from(tls.key) }],
      tls.clientCa !== undefined,
    );
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_ARGUMENT', "the TLS certificate or key can't be used");
  }
}

/** grpc-js shows a peer as `1.2.3.4:5678` or `[::1]:5678`, or as a path of a socket. */
function callerOf(call: AnyCall): Caller {
  const peer = call
    .getPeer()
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/^::ffff:(?=\d+\.)/i, '');
  return {
    header: (name) => {
      const [value] = call.metadata.get(name);
      return value === undefined ? undefined : String(value);
    },
    ...(peer === '' ? {} : { peer }),
  };
}

function passBytes(bytes: Buffer): Buffer {
  return bytes;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The same bytes without Buffer's own slice(), which copies nothing where a Uint8Array's does. */
function plainBytes(bytes: Buffer): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
