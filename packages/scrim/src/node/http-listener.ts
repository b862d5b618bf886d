/**
 * HTTP for a handler: node:http(s), with what a handler must not have to think of.
 *
 * Bodies are limited before they are read and must keep coming; tokens are compared in constant time; browsers get
 * answers only for the origins that were allowed (Fetch standard, "HTTP-network CORS protocol"). The access log has
 * method, path, status, sizes and time, never a payload, a header or a query.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { Readable } from 'node:stream';
import { ScrimError } from '../errors.js';
import { errorAnswer, type HttpAnswer, type HttpCall } from '../server/index.js';
import { freeArrays, freeBuffers } from './free-buffers.js';
import { checkServerTls, type ServerTls, secureSettings } from './server-certificates.js';
import { createTokenCheck } from './server-token.js';

/** One line of the access log. */
export interface AccessRecord {
  readonly transport: 'http' | 'grpc';
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly requestBytes?: number;
  readonly responseBytes?: number;
  readonly ms: number;
}

/** How a listener is made. */
export interface HttpListenerOptions {
  readonly answer: (call: HttpCall) => Promise<HttpAnswer>;
  /** Default '127.0.0.1'. */
  readonly host?: string;
  /** 0 lets the system choose. */
  readonly port: number;
  readonly tls?: ServerTls;
  /** Tokens of which requests must bear one; health paths apart. None: anyone may call. */
  readonly tokens?: readonly string[];
  /** Origins that browsers may call from; '*' for any. Default none. */
  readonly corsOrigins?: readonly string[];
  /** Bytes of a body as sent; default 64 MiB. */
  readonly maxBodyBytes?: number;
  /** Time for a whole request to arrive; default 30 s. */
  readonly requestTimeoutMs?: number;
  /** Time in which a caller has to take something of its answer; default 60 s. */
  readonly answerTimeoutMs?: number;
  /** Time an idle connection is kept; default 60 s. */
  readonly keepAliveTimeoutMs?: number;
  /** Connections at a time; default 1,024. */
  readonly maxConnections?: number;
  readonly onAccess?: (record: AccessRecord) => void;
}

/** A listener that runs. */
export interface HttpListener {
  readonly host: string;
  readonly port: number;
  /** Base address, such as 'http://127.0.0.1:8000'. */
  readonly url: string;
  /** Takes no new connections, ends idle ones, and lets the rest end with their answer; after `timeoutMs` cuts them. */
  close(timeoutMs?: number): Promise<void>;
}

/** An answer nobody takes anything of for this long is dropped, with its connection or its stream. */
export const ANSWER_TIMEOUT_MS = 60_000;
const JOINED_BYTES = 2 ** 14;
/** TLS encrypts what is written at once into memory of its own, and tells of no progress before the whole is sent. */
const SEALED_BYTES = 2 ** 18;
/** A body gets its whole memory once one part in this many of it has come. */
const TRUSTED_SHARE = 16;
const HEADERS_TIMEOUT_MS = 10_000;
const CHECK_INTERVAL_MS = 1_000;
const PREFLIGHT_MAX_AGE_S = '600';
const EXPOSED_HEADERS = 'inference-header-content-length, retry-after';
const ORIGIN = /^https?:\/\/[^/?#]*/i;
/** How a socket for both families shows an IPv4 address. */
const MAPPED = /^::ffff:(?=\d+\.)/i;
const OPEN_PATHS: ReadonlySet<string> = new Set(['/v2/health/live', '/v2/health/ready']);

/** Starts to listen. @throws ScrimError UNAVAILABLE if the address can't be had, INVALID_ARGUMENT for a wrong option. */
export async function listenHttp(options: HttpListenerOptions): Promise<HttpListener> {
  const { host = '127.0.0.1', port, tls, requestTimeoutMs = 30_000 } = options;
  const settings = {
    requestTimeout: requestTimeoutMs,
    headersTimeout: Math.min(HEADERS_TIMEOUT_MS, requestTimeoutMs),
    keepAliveTimeout: options.keepAliveTimeoutMs ?? 60_000,
    connectionsCheckingInterval: Math.min(CHECK_INTERVAL_MS, requestTimeoutMs),
    noDelay: true,
    // A missing Host is refused below, with a v2 error as its body.
    requireHostHeader: false,
  };
  if (tls !== undefined) checkServerTls(tls);
  const state = { isClosing: false };
  const exchange = createExchange(options, state);
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => void exchange(request, response);
  let server: Server;
  try {
    server =
      tls === undefined
        ? createServer(settings, onRequest)
        : createTlsServer({ ...settings, ...secureSettings(tls) }, onRequest);
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_ARGUMENT', "the TLS certificate or key can't be used");
  }
  server.maxConnections = options.maxConnections ?? 1_024;
  server.on('clientError', refuseBroken);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(ScrimError.from(error, 'UNAVAILABLE', `can't listen on ${host}:${port}`));
    });
    server.listen(port, host, resolve);
  });
  server.on('error', () => {});
  const address = server.address() as AddressInfo;
  const shown = host.includes(':') ? `[${host}]` : host;
  return {
    host,
    port: address.port,
    url: `${tls === undefined ? 'http' : 'https'}://${shown}:${address.port}`,
    close: (timeoutMs = 5_000) => {
      state.isClosing = true;
      return closeServer(server, timeoutMs);
    },
  };
}

async function closeServer(server: Server, timeoutMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  const timer = setTimeout(() => server.closeAllConnections(), timeoutMs);
  await closed;
  clearTimeout(timer);
}

/** Faults below HTTP that have a status of their own. */
const BROKEN: Readonly<Record<string, readonly [status: string, text: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'the request did not arrive in time'],
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'the headers of the request are too large'],
};

/** What is no HTTP gets an answer in v2 form and loses its connection. */
function refuseBroken(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const [status, text] = BROKEN[error.code ?? ''] ?? ['400 Bad Request', 'the request is not valid HTTP'];
  const body = JSON.stringify({ error: text });
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}

type Exchange = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

function createExchange(options: HttpListenerOptions, state: { readonly isClosing: boolean }): Exchange {
  const { answer, tokens = [], corsOrigins = [], maxBodyBytes = 64 * 2 ** 20, onAccess } = options;
  const { answerTimeoutMs = ANSWER_TIMEOUT_MS } = options;
  const isAllowed = createTokenCheck(tokens);
  return async (request, response) => {
    const started = performance.now();
    const method = request.method ?? 'GET';
    // Proxies may send the whole URL (RFC 9112, 3.2.2).
    const path = (request.url ?? '/').replace(ORIGIN, '').split('?', 1)[0] || '/';
    const peer = request.socket.remoteAddress?.replace(MAPPED, '');
    const gone = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    const cors = corsHeaders(request, corsOrigins);
    let requestBytes = 0;
    let result: HttpAnswer;
    let isComplete = true;
    try {
      if (method === 'OPTIONS' && cors !== undefined) {
        result = { status: 204, headers: preflightHeaders(request), parts: [] };
        request.resume();
      } else {
        if (!OPEN_PATHS.has(path) && !isAllowed(request.headers.authorization)) {
          isComplete = request.readableEnded;
          throw new ScrimError('UNAUTHENTICATED', 'the request bears no valid token');
        }
        isComplete = false;
        if (request.headers.host === undefined && request.httpVersion === '1.1') {
          throw new ScrimError('INVALID_ARGUMENT', 'the request has no Host header');
        }
        const body = await readBody(request, maxBodyBytes);
        isComplete = true;
        requestBytes = body.length;
        result = await answer({
          method,
          path,
          header: (name) => {
            const value = request.headers[name];
            return Array.isArray(value) ? value.join(', ') : value;
          },
          body,
          signal: gone.signal,
          ...(peer === undefined ? {} : { peer }),
        });
      }
    } catch (error) {
      result = errorAnswer(error);
      if (result.status === 401) result = { ...result, headers: { ...result.headers, 'www-authenticate': 'Bearer' } };
    }
    const keepAlive = isComplete && !state.isClosing;
    // Node sets the socket's next timeout itself once the answer is sent.
    response.setTimeout(answerTimeoutMs);
    const responseBytes = send(request, response, result, cors ?? {}, isComplete, keepAlive);
    onAccess?.({
      transport: 'http',
      method,
      path: path.slice(0, 500),
      status: gone.signal.aborted ? 499 : result.status,
      requestBytes,
      responseBytes,
      ms: Math.round((performance.now() - started) * 1000) / 1000,
    });
  };
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, parts, spent }: HttpAnswer,
  cors: Readonly<Record<string, string>>,
  isComplete: boolean,
  keepAlive: boolean,
): number {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  if (response.destroyed) return 0;
  // A body that was not read to its end can't be told from the next request.
  const ending = keepAlive ? {} : { connection: 'close' };
  const length = status === 204 ? {} : { 'content-length': String(size) };
  // Only then: an answer that breaks off may still be in the hands of the system.
  if (spent) response.once('finish', () => freeBuffers(spent));
  response.writeHead(status, { ...headers, ...cors, ...length, ...ending });
  if (request.method === 'HEAD') {
    response.end();
    return 0;
  }
  if (size <= JOINED_BYTES) {
    // Copying a little costs less than handing each part to the stream.
    response.end(join(parts, size));
  } else if (size > SEALED_BYTES && 'encrypted' in request.socket) {
    Readable.from(pieces(parts)).pipe(response);
  } else {
    response.cork();
    for (const part of parts) response.write(part);
    response.end();
  }
  if (!isComplete) request.resume();
  return size;
}

/** Parts in pieces that are encrypted one at a time. */
function* pieces(parts: readonly Uint8Array[]): Generator<Uint8Array> {
  for (const part of parts) {
    for (let at = 0; at < part.length; at += SEALED_BYTES) yield part.subarray(at, at + SEALED_BYTES);
  }
}

/** Reads the body. What it announces is checked first, and what comes is counted. */
function readBody(request: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  const announced = request.headers['content-length'];
  const tooLarge = (): ScrimError =>
    new ScrimError('LIMIT_EXCEEDED', `the request has more than ${maxBytes} bytes`, { details: { maxBytes } });
  if (announced !== undefined && Number(announced) > maxBytes) return Promise.reject(tooLarge());
  return new Promise((resolve, reject) => {
    /** 0 where it comes in chunks. */
    const known = Number(announced ?? 0);
    // Memory is taken as bytes come, not as they are announced: the whole only once a part of it is here. From then on
    // each piece is copied while the next one is on its way.
    let parts: Uint8Array[] = [];
    let body: Uint8Array | undefined;
    let size = 0;
    const done = (settle: () => void): void => {
      request.off('data', onData);
      request.off('end', onEnd);
      request.off('error', onGone);
      request.off('aborted', onGone);
      settle();
    };
    const onData = (part: Uint8Array): void => {
      size += part.length;
      if (size > maxBytes) {
        done(() => reject(tooLarge()));
      } else if (body) {
        body.set(part, size - part.length);
        freeArrays([part]);
      } else {
        parts.push(part);
        if (known === 0 || size * TRUSTED_SHARE < known) return;
        body = join(parts, known);
        freeArrays(parts);
        parts = [];
      }
    };
    const onEnd = (): void => done(() => resolve(body ?? join(parts, size)));
    const onGone = (): void => done(() => reject(new ScrimError('CANCELLED', 'the caller went away')));
    request.on('data', onData);
    request.on('end', onEnd);
    request.on('error', onGone);
    request.on('aborted', onGone);
  });
}

function join(parts: readonly Uint8Array[], size: number): Uint8Array {
  const body = new Uint8Array(size);
  let offset = 0;
  for (const part of parts) {
    body.set(part, offset);
    offset += part.length;
  }
  return body;
}

function corsHeaders(request: IncomingMessage, allowed: readonly string[]): Record<string, string> | undefined {
  const { origin } = request.headers;
  if (origin === undefined || !(allowed.includes(origin) || allowed.includes('*'))) return undefined;
  return {
    'access-control-allow-origin': allowed.includes('*') ? '*' : origin,
    'access-control-expose-headers': EXPOSED_HEADERS,
    vary: 'origin',
  };
}

function preflightHeaders(request: IncomingMessage): Record<string, string> {
  const asked = request.headers['access-control-request-headers'];
  return {
    'access-control-allow-methods': 'GET, HEAD, POST',
    'access-control-max-age': PREFLIGHT_MAX_AGE_S,
    ...(asked === undefined ? {} : { 'access-control-allow-headers': asked.slice(0, 1_000) }),
  };
}
