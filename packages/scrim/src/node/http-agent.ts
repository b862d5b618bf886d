/**
 * HTTP connections of Node for the v2 client: kept open, at most so many at a time, with TLS and mutual TLS. Bodies are
 * written piece by piece from the tensors' own memory; answers are read whole, and decompressed.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { expectBodyWithin, type HttpTransport, join, type TransportResponse } from '../client/http-transport.js';
import { ScrimError } from '../errors.js';
import { createLimits, decodeContent, parseContentEncoding } from '../protocol/index.js';

/** TLS of a client: PEM texts. */
export interface ClientTls {
  /** Authorities to trust in place of the system's. */
  readonly ca?: string | Uint8Array;
  /** Certificate and key of this client, for servers that ask for one. */
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
  readonly passphrase?: string;
  /** Name to expect in the server's certificate, where it is not the host of the URL. */
  readonly serverName?: string;
}

/** How connections are made. */
export interface HttpAgentOptions {
  readonly tls?: ClientTls;
  /** Connections at a time; more calls wait. Default 64. */
  readonly maxConnections?: number;
}

const JOINED_BYTES = 2 ** 14;

/** Makes a transport for `createTritonClient({ transport })`. Closing it ends the connections. */
export function createHttpAgent(options: HttpAgentOptions = {}): HttpTransport {
  const { tls = {}, maxConnections = 64 } = options;
  const { serverName, ...credentials } = tls;
  const pool = { keepAlive: true, maxSockets: maxConnections, noDelay: true, scheduling: 'lifo' as const };
  const plain = new HttpAgent(pool);
  const secure = new HttpsAgent({
    ...pool,
    ...(Object.fromEntries(Object.entries(credentials).map(([name, value]) => [name, pem(value)])) as object),
    ...(serverName === undefined ? {} : { servername: serverName }),
    minVersion: 'TLSv1.2',
  });
  return {
    exchange: ({ method, url, headers, body, signal, maxBytes }) =>
      new Promise((resolve, reject) => {
        const target = new URL(url);
        const over =
          target.protocol === 'https:' ? { send: httpsRequest, agent: secure } : { send: httpRequest, agent: plain };
        const length = body?.reduce((sum, part) => sum + part.length, 0) ?? 0;
        const request = over.send(
          target,
          {
            method,
            agent: over.agent,
            signal,
            headers: { ...headers, ...(method === 'POST' ? { 'content-length': String(length) } : {}) },
          },
          (response) => {
            readAnswer(response, maxBytes).then(resolve, reject);
          },
        );
        request.on('error', (error) => reject(ScrimError.from(error, 'UNAVAILABLE', 'the server can not be reached')));
        if (length <= JOINED_BYTES) {
          // Copying a little costs less than handing each part to the stream.
          if (length === 0) request.end();
          else request.end(join(body ?? [], length));
          return;
        }
        request.cork();
        for (const part of body ?? []) request.write(part);
        request.end();
        request.uncork();
      }),
    close: async () => {
      plain.destroy();
      secure.destroy();
    },
  };
}

async function readAnswer(response: IncomingMessage, maxBytes: number): Promise<TransportResponse> {
  const announced = Number(response.headers['content-length'] ?? 0);
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    expectBodyWithin(announced, maxBytes);
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      length += chunk.length;
      expectBodyWithin(length, maxBytes);
      chunks.push(chunk);
    }
    if (!response.complete) throw new ScrimError('UNAVAILABLE', 'the answer broke off');
  } catch (error) {
    response.destroy();
    throw ScrimError.from(error, 'UNAVAILABLE', 'the answer broke off');
  }
  const header = (name: string): string | undefined => {
    const value = response.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  };
  const encoding = header('content-encoding');
  const body = join(chunks, length);
  return { status: response.statusCode ?? 0, header, body: encoding ? await decode(body, encoding, maxBytes) : body };
}

/** What `fetch` does by itself: an answer comes compressed only if it was asked for so. */
function decode(body: Uint8Array, encoding: string, maxBytes: number): Promise<Uint8Array> {
  return decodeContent(body, parseContentEncoding(encoding), {
    limits: createLimits({ maxBytes }),
    what: 'the answer',
    code: 'INVALID_DATA',
  });
}

/** node:tls takes strings and Buffers. */
export function pem(value: string | Uint8Array | undefined): string | Buffer | undefined {
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value;
}
