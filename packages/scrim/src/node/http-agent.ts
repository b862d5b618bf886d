/**
 * HTTP connections of Node for the v2 client: kept open, at most so many at a time, with TLS and mutual TLS. Bodies are
 * written from the tensors' own memory; answers are read into memory of their own, and decompressed.
 *
 * It stands on node:net and not on node:http, which takes every byte of an answer through two buffers of its own.
 */
import { validateHeaderName, validateHeaderValue } from 'node:http';
import { connect, isIP } from 'node:net';
import { type ConnectionOptions, connect as tlsConnect } from 'node:tls';
import type { HttpTransport, TransportRequest } from '../client/http-transport.js';
import { assertArgument, ScrimError } from '../errors.js';
import { createLimits, decodeContent, parseContentEncoding } from '../protocol/index.js';
import { type ClientTls, clientTlsSettings } from './client-tls.js';
import { ConnectionPool, type OpenSocket } from './http-connection.js';

/** How connections are made. */
export interface HttpAgentOptions {
  readonly tls?: ClientTls;
  /** Connections to one server at a time; more calls wait. Default 64. */
  readonly maxConnections?: number;
}

/**
 * Makes a transport for `createTritonClient({ transport })`. Closing it ends the connections.
 * @throws ScrimError INVALID_ARGUMENT for TLS texts that can't be used
 */
export function createHttpAgent(options: HttpAgentOptions = {}): HttpTransport {
  const { tls = {}, maxConnections = 64 } = options;
  assertArgument(
    Number.isSafeInteger(maxConnections) && maxConnections > 0,
    `maxConnections is ${maxConnections}, expected an integer above 0`,
  );
  const secure = Object.keys(tls).length > 0 ? clientTlsSettings(tls) : {};
  const pools = new Map<string, ConnectionPool>();
  let isClosed = false;
  const poolOf = (target: URL): ConnectionPool => {
    let pool = pools.get(target.origin);
    if (!pool) {
      pool = new ConnectionPool(opener(target, secure), maxConnections);
      pools.set(target.origin, pool);
    }
    return pool;
  };
  return {
    exchange: async (request) => {
      if (isClosed) throw new ScrimError('UNAVAILABLE', 'the client is closed');
      const { body = [], signal, maxBytes } = request;
      const target = new URL(request.url);
      const answer = await poolOf(target).exchange({ head: formatHead(request, target), body, signal, maxBytes });
      const encoding = answer.header('content-encoding');
      return {
        status: answer.status,
        header: (name) => answer.header(name),
        body: encoding ? await decode(answer.body, encoding, maxBytes) : answer.body,
      };
    },
    close: async () => {
      isClosed = true;
      for (const pool of pools.values()) pool.close();
    },
  };
}

const KEPT = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 1_000 } as const;

function opener({ protocol, hostname, port }: URL, secure: ConnectionOptions): OpenSocket {
  const host = hostname.replace(/^\[|\]$/g, '');
  if (protocol !== 'https:') return (onread) => connect({ ...KEPT, host, port: Number(port || 80), onread });
  const settings: ConnectionOptions = {
    ...{ ...KEPT, host, port: Number(port || 443), minVersion: 'TLSv1.2', ALPNProtocols: ['http/1.1'] },
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...secure,
  };
  let session: Buffer | undefined;
  return (onread) => {
    const socket = tlsConnect({ ...settings, ...(session ? { session } : {}), ...({ onread } as object) });
    socket.on('session', (given) => {
      session = given;
    });
    return socket;
  };
}

/** Headers that say where a message ends and what becomes of its connection. */
const OWN_HEADERS: ReadonlySet<string> = new Set(['connection', 'content-length', 'transfer-encoding', 'upgrade']);

/** Request line and headers. @throws ScrimError INVALID_ARGUMENT for headers that are none, or are the connection's */
function formatHead({ method, headers, body = [] }: TransportRequest, { host, pathname, search }: URL): Buffer {
  let text = `${method} ${pathname}${search} HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n`;
  for (const [name, value] of Object.entries(headers)) {
    assertArgument(!OWN_HEADERS.has(name), `header '${name}' is the connection's own`);
    try {
      validateHeaderName(name);
      validateHeaderValue(name, value);
    } catch (error) {
      throw ScrimError.from(error, 'INVALID_ARGUMENT', 'a header can not be sent');
    }
    text += `${name}: ${value}\r\n`;
  }
  if (method === 'POST') text += `content-length: ${body.reduce((sum, part) => sum + part.length, 0)}\r\n`;
  return Buffer.from(`${text}\r\n`, 'latin1');
}

/** What `fetch` does by itself: an answer comes compressed only if it was asked for so. */
function decode(body: Uint8Array, encoding: string, maxBytes: number): Promise<Uint8Array> {
  return decodeContent(body, parseContentEncoding(encoding), {
    limits: createLimits({ maxBytes }),
    what: 'the answer',
    code: 'INVALID_DATA',
  });
}
