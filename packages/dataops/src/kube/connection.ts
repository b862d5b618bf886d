/**
 * Which cluster, as whom: reads a kubeconfig the way kubectl does and sends single HTTP requests with its credentials.
 *
 * Credentials (certificates, tokens, exec plugins, proxies) are @kubernetes/client-node's business; this file asks it
 * for them on each request, so a token that an exec plugin renews is used at once. TLS is verified unless the
 * kubeconfig itself says otherwise. What the requests mean is kube/client.ts.
 */
import { type Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { type AgentOptions, Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from 'node:https';
import { KubeConfig } from '@kubernetes/client-node';
import { ScrimError } from 'scrim';
import { WebSocket } from 'ws';

/** Where the cluster is described; without any of it, $KUBECONFIG, ~/.kube/config, then the pod's service account. */
export interface ConnectOptions {
  /** Path of a kubeconfig file. */
  readonly kubeconfig?: string;
  /** Context to use instead of the current one. */
  readonly context?: string;
  /** Text of a kubeconfig, instead of a file. */
  readonly kubeconfigText?: string;
}

/** One HTTP request to the API server. */
export interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly contentType?: string;
  readonly body?: unknown;
  readonly signal?: AbortSignal;
}

/** A websocket with Kubernetes' numbered streams: 0 is standard input, 1 and 2 are output and errors, 3 is the status. */
export interface StreamSocket {
  readonly bufferedAmount: number;
  send(frame: Uint8Array): void;
  close(): void;
  /** Calls `task` once when the socket has closed. */
  onClose(task: () => void): void;
}

/** Sends requests to one API server as one user. */
export interface Connection {
  /** Namespace the context names, or 'default'. */
  readonly namespace: string;
  /** URL of the API server. */
  readonly server: string;
  /** Sends `request` and resolves with the response as soon as its head is there; the caller reads the body. */
  send(request: KubeRequest): Promise<IncomingMessage>;
  /** Opens a websocket with numbered streams, as for running a command in a pod; rejects with `status` when refused. */
  openStreams(path: string, onFrame: (stream: number, bytes: Uint8Array) => void): Promise<StreamSocket>;
  /** Closes idle sockets. */
  close(): void;
}

/** Numbered streams, with a status at the end; Kubernetes has spoken it since 1.4. */
const STREAM_PROTOCOL = 'v4.channel.k8s.io';
const HANDSHAKE_MS = 30_000;

/**
 * Reads the kubeconfig; does not talk to the cluster yet.
 *
 * @throws NOT_FOUND when the file is missing, INVALID_ARGUMENT when it can't be read or lacks the context
 */
export function connect(options: ConnectOptions = {}): Connection {
  const config = loadConfig(options);
  const cluster = config.getCurrentCluster();
  if (cluster === null) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `context '${config.getCurrentContext()}' of the kubeconfig has no cluster`,
    );
  }
  const namespace = config.getContextObject(config.getCurrentContext())?.namespace ?? 'default';
  const server = cluster.server.replace(/\/+$/, '');
  let agent: Agent | undefined;
  let agentKey = '';

  const send = async (request: KubeRequest): Promise<IncomingMessage> => {
    const credentials: RequestOptions = {};
    try {
      await config.applyToHTTPSOptions(credentials);
    } catch (error) {
      throw ScrimError.from(error, 'UNAUTHENTICATED', 'the credentials of the kubeconfig could not be prepared');
    }
    const url = new URL(server + request.path);
    for (const [key, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(key, value);
    }
    const key = [credentials.cert, credentials.key, credentials.ca].map(String).join('|');
    if (agent === undefined || key !== agentKey) {
      // A proxy needs the agent the library made; else one that keeps its sockets saves a TLS handshake per request.
      agent =
        cluster.proxyUrl === undefined && url.protocol === 'https:'
          ? new HttpsAgent({ ...tlsOf(credentials), keepAlive: true, keepAliveMsecs: 15_000 })
          : (credentials.agent as Agent);
      agentKey = key;
    }
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const options: RequestOptions = {
      method: request.method,
      agent,
      ...(credentials.auth === undefined || credentials.auth === null ? {} : { auth: credentials.auth }),
      headers: {
        ...credentials.headers,
        Accept: 'application/json',
        'User-Agent': 'scrim-dataops',
        ...(body === undefined
          ? {}
          : { 'Content-Type': request.contentType ?? 'application/json', 'Content-Length': Buffer.byteLength(body) }),
      },
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    };
    return new Promise((resolve, reject) => {
      const sent: ClientRequest = (url.protocol === 'http:' ? httpRequest : httpsRequest)(url, options, resolve);
      sent.on('socket', (socket) => socket.setKeepAlive(true, 15_000));
      sent.on('error', reject);
      sent.end(body);
    });
  };
  const openStreams: Connection['openStreams'] = async (path, onFrame) => {
    const credentials: RequestOptions = {};
    try {
      await config.applyToHTTPSOptions(credentials);
    } catch (error) {
      throw ScrimError.from(error, 'UNAUTHENTICATED', 'the credentials of the kubeconfig could not be prepared');
    }
    const { auth, headers } = credentials;
    const socket = new WebSocket(server.replace(/^http/, 'ws') + path, STREAM_PROTOCOL, {
      ...tlsOf(credentials),
      headers: { ...headers, 'User-Agent': 'scrim-dataops' } as Record<string, string>,
      handshakeTimeout: HANDSHAKE_MS,
      ...(auth === undefined || auth === null ? {} : { auth }),
      ...(cluster.proxyUrl === undefined ? {} : { agent: credentials.agent as Agent }),
    });
    socket.on('message', (data) => {
      const frame = Buffer.isBuffer(data) ? data : Buffer.concat([data].flat().map((part) => new Uint8Array(part)));
      if (frame.length > 1) onFrame(frame.readUInt8(0), frame.subarray(1));
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    // What breaks a connection is told by its closing.
    socket.on('error', () => undefined);
    return {
      get bufferedAmount() {
        return socket.bufferedAmount;
      },
      send: (frame) => socket.send(frame),
      close: () => socket.close(),
      onClose: (task) => socket.once('close', task),
    };
  };
  return { namespace, server, send, openStreams, close: () => agent?.destroy() };
}

function tlsOf({ ca, cert, key, rejectUnauthorized, servername }: RequestOptions): AgentOptions {
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
    ...(servername === undefined ? {} : { servername }),
  };
}

function loadConfig(options: ConnectOptions): KubeConfig {
  const config = new KubeConfig();
  const where = options.kubeconfig === undefined ? 'the kubeconfig' : `kubeconfig '${options.kubeconfig}'`;
  try {
    if (options.kubeconfigText !== undefined) config.loadFromString(options.kubeconfigText);
    else if (options.kubeconfig !== undefined) config.loadFromFile(options.kubeconfig);
    else config.loadFromDefault();
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new ScrimError(
      missing ? 'NOT_FOUND' : 'INVALID_ARGUMENT',
      `${where} ${missing ? 'does not exist' : "can't be read"}`,
      {
        cause: error,
      },
    );
  }
  if (options.context !== undefined) {
    const names = config.getContexts().map(({ name }) => name);
    if (!names.includes(options.context)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `${where} has no context '${options.context}'; it has ${names.map((name) => `'${name}'`).join(', ') || 'none'}`,
      );
    }
    config.setCurrentContext(options.context);
  }
  return config;
}
