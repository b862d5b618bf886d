/**
 * Everything `scrim serve` is made of, as one function: repository on disk, engines, HTTP, gRPC and metrics listeners,
 * polling, and the way down (unready, finish, close).
 */
import { assertArgument, ScrimError } from '../errors.js';
import { createLimits } from '../protocol/index.js';
import {
  type ControlMode,
  createInferenceServer,
  type EngineFactory,
  type InferenceServer,
  type ServerEvent,
} from '../server/index.js';
import { type GrpcListener, listenGrpc } from './grpc-server.js';
import { type AccessRecord, type HttpListener, listenHttp } from './http-listener.js';
import { openModelRepository } from './model-files.js';
import { createNodeEngine } from './ort-engine.js';
import { startOrtProcess } from './ort-process-host.js';
import { DEFAULT_SETTINGS, type NodeExecutionProvider } from './ort-runtime.js';
import type { ServerTls } from './server-certificates.js';
import { usableProcessors } from './usable-processors.js';

/**
 * What an instance of a model runs in: a thread of the server, or a child process, which costs a copy of every tensor and
 * in return ends alone when native code fails or the process is killed.
 */
export type InstanceKind = 'thread' | 'process';

/** How {@link serveRepository} serves. */
export interface ServeOptions {
  /** Folder of the model repository. */
  readonly repository: string;
  /** Default '127.0.0.1'. */
  readonly host?: string;
  /** Ports; 0 lets the system choose, undefined leaves the listener out. */
  readonly httpPort?: number | undefined;
  readonly grpcPort?: number | undefined;
  readonly metricsPort?: number | undefined;
  readonly controlMode?: ControlMode;
  /** Models to load at the start in mode 'explicit'. */
  readonly loadModels?: readonly string[];
  /** Seconds between looks at the repository in mode 'poll'; default 15. */
  readonly pollSeconds?: number;
  readonly strictReadiness?: boolean;
  readonly tls?: ServerTls;
  /** Tokens of which calls must bear one. */
  readonly tokens?: readonly string[];
  /** Origins browsers may call from. */
  readonly corsOrigins?: readonly string[];
  /** Bytes of one request, compressed or not; default 64 MiB. */
  readonly maxBodyBytes?: number;
  /** Time for a whole request to arrive; default 30 s. */
  readonly requestTimeoutMs?: number;
  /** Time in which a caller has to take something of its answer; default 60 s. */
  readonly answerTimeoutMs?: number;
  /** Threads of all instances of a model together; default: all of the machine's. */
  readonly threads?: number;
  readonly executionProvider?: NodeExecutionProvider;
  /** What an instance of a model runs in; default 'thread'. */
  readonly instances?: InstanceKind;
  /** Instead of {@link createNodeEngine} with the settings above. */
  readonly engineFactory?: EngineFactory;
  readonly version?: string;
  readonly onEvent?: (event: ServerEvent) => void;
  readonly onAccess?: (record: AccessRecord) => void;
}

/** A server that runs. */
export interface RunningServer {
  readonly server: InferenceServer;
  readonly http: HttpListener | undefined;
  readonly grpc: GrpcListener | undefined;
  readonly metrics: HttpListener | undefined;
  /** Unready, finish what runs (waiting requests are refused after `timeoutMs`), close. */
  close(timeoutMs?: number): Promise<void>;
}

const DEFAULT_POLL_S = 15;
const CLOSE_MS = 2_000;

/**
 * An engine factory over onnxruntime-node that divides `threads` among the instances of a model whose configuration does
 * not say how many it wants.
 * @param threads default: all of the machine's
 */
export function nodeEngineFactory(
  options: {
    readonly threads?: number;
    readonly executionProvider?: NodeExecutionProvider;
    readonly instances?: InstanceKind;
  } = {},
): EngineFactory {
  const { threads = usableProcessors(), executionProvider = 'cpu', instances: kind = 'thread' } = options;
  assertArgument(
    kind === 'thread' || kind === 'process',
    `instances is '${String(kind)}', expected 'thread' or 'process'`,
  );
  return async ({ instances, threads: asked }) => {
    const own = asked ?? Math.max(1, Math.floor(threads / instances));
    // On a GPU every run waits for the device: nothing is short enough to block this thread.
    const thread = executionProvider === 'cpu' ? 'adaptive' : 'worker';
    if (kind === 'thread') return createNodeEngine({ threads: own, executionProvider, thread });
    return startOrtProcess({ ...DEFAULT_SETTINGS, executionProvider, threads: own });
  };
}

/**
 * Loads the models and starts to listen.
 * @throws ScrimError NOT_FOUND for a repository that does not exist, UNAVAILABLE for an address that can't be had,
 * INVALID_ARGUMENT for a wrong option. Models that fail to load are reported to `onEvent` and leave the server unready.
 */
export async function serveRepository(options: ServeOptions): Promise<RunningServer> {
  const { host = '127.0.0.1', controlMode = 'none', maxBodyBytes = 64 * 2 ** 20 } = options;
  const { threads, executionProvider, tls, tokens, corsOrigins, onAccess, requestTimeoutMs } = options;
  const server = createInferenceServer({
    repository: await openModelRepository(options.repository),
    engineFactory:
      options.engineFactory ??
      nodeEngineFactory({
        ...(threads === undefined ? {} : { threads }),
        ...(executionProvider === undefined ? {} : { executionProvider }),
        ...(options.instances === undefined ? {} : { instances: options.instances }),
      }),
    controlMode,
    limits: createLimits({ maxBytes: maxBodyBytes }),
    ...(options.loadModels === undefined ? {} : { loadModels: options.loadModels }),
    ...(options.strictReadiness === undefined ? {} : { strictReadiness: options.strictReadiness }),
    ...(options.version === undefined ? {} : { version: options.version }),
    ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
  });
  const shared = {
    host,
    ...(tls === undefined ? {} : { tls }),
    ...(tokens === undefined ? {} : { tokens }),
    ...(onAccess === undefined ? {} : { onAccess }),
    ...(options.answerTimeoutMs === undefined ? {} : { answerTimeoutMs: options.answerTimeoutMs }),
  };
  const opened: { close(timeoutMs?: number): Promise<void> }[] = [];
  const open = async <T extends { close(timeoutMs?: number): Promise<void> }>(
    port: number | undefined,
    listen: (port: number) => Promise<T>,
  ): Promise<T | undefined> => {
    if (port === undefined) return undefined;
    const listener = await listen(port);
    opened.push(listener);
    return listener;
  };
  const closeAll = async (timeoutMs: number): Promise<void> => {
    await Promise.all(opened.map((listener) => listener.close(timeoutMs)));
  };
  try {
    const http = await open(options.httpPort, (port) =>
      listenHttp({
        ...shared,
        port,
        maxBodyBytes,
        answer: (call) => server.answer(call),
        ...(corsOrigins === undefined ? {} : { corsOrigins }),
        ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs }),
      }),
    );
    const grpc = await open(options.grpcPort, (port) => listenGrpc({ ...shared, port, server }));
    const metrics = await open(options.metricsPort, (port) =>
      listenHttp({
        host,
        port,
        maxBodyBytes: 0,
        answer: (call) => server.answer(call.path === '/metrics' ? call : { ...call, path: '/' }),
      }),
    );
    await server.start();
    const poll = controlMode === 'poll' ? startPolling(server, options) : undefined;
    let closing: Promise<void> | undefined;
    return {
      server,
      http,
      grpc,
      metrics,
      close: (timeoutMs = 30_000) => {
        closing ??= (async () => {
          poll?.stop();
          await server.drain(timeoutMs);
          await closeAll(CLOSE_MS);
          await poll?.idle();
          await server.close();
        })();
        return closing;
      },
    };
  } catch (error) {
    await closeAll(0);
    await server.close();
    throw error;
  }
}

function startPolling(server: InferenceServer, options: ServeOptions): { stop(): void; idle(): Promise<void> } {
  const { pollSeconds = DEFAULT_POLL_S, onEvent } = options;
  let running: Promise<void> = Promise.resolve();
  let isBusy = false;
  const timer = setInterval(() => {
    if (isBusy) return;
    isBusy = true;
    running = server
      .poll()
      .catch((error: unknown) => {
        const reason = ScrimError.from(error, 'INTERNAL', "the repository can't be read").message;
        onEvent?.({ kind: 'load-failed', model: '', reason });
      })
      .finally(() => {
        isBusy = false;
      });
  }, pollSeconds * 1_000);
  return { stop: () => clearInterval(timer), idle: () => running };
}
