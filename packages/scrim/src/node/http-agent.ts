/**
 * HTTP connections of Node for the v2 client: kept open, at most so many at a time, with TLS and mutual TLS. Bodies are
 * written piece by piece from the tensors' own memory; answers are read whole, and decompressed.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { expectBodyWithin, type HttpTransport, join, type TransportResponse } from '../client/http-transport.js';
import { ScrimError } from '../errors.js';
import { createLimits, decodeContent, parseContentEncoding } from '../protocol/index.js';
import { freeArrays } from './free-buffers.js';

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
  const plain = new PlainAgent(pool);
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

/** Size of the buffer that a connection reads into. */
const READ_BYTES = 2 ** 18;
/** A body gets its whole memory once one part in this many of it has come. */
const TRUSTED_SHARE = 16;
/** Deno and Bun have node:net, but not its reads into a given buffer. */
const READS_IN_PLACE = !('deno' in process.versions || 'bun' in process.versions);

const readBuffers = new WeakSet<ArrayBufferLike>();

/**
 * Connections that read into one buffer again and again. Left to itself a socket takes 64 KiB of fresh memory for every
 * read, of which node's HTTP parser makes a copy: for the tensors of a busy client that is most of what its collector
 * has to do.
 */
class PlainAgent extends HttpAgent {
  override createConnection(
    options: NetConnectOpts,
    onCreated?: (error: Error | null, stream: Duplex) => void,
  ): Socket {
    if (!READS_IN_PLACE) return super.createConnection(options as never, onCreated) as Socket;
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    readBuffers.add(buffer.buffer);
    const socket = connect({
      ...options,
      onread: {
        buffer,
        callback: (size) => {
          socket.emit('data', buffer.subarray(0, size));
          return true;
        },
      },
    });
    return socket;
  }
}

async function readAnswer(response: IncomingMessage, maxBytes: number): Promise<TransportResponse> {
  let body: Uint8Array;
  try {
    body = await readBody(response, maxBytes);
  } catch (error) {
    response.destroy();
    throw ScrimError.from(error, 'UNAVAILABLE', 'the answer broke off');
  }
  const header = (name: string): string | undefined => {
    const value = response.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  };
  const encoding = header('content-encoding');
  return { status: response.statusCode ?? 0, header, body: encoding ? await decode(body, encoding, maxBytes) : body };
}

/** Listens from the start, so that what comes is taken before the connection reads again. */
function readBody(response: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const announced = Number(response.headers['content-length'] ?? 0);
    let chunks: Uint8Array[] = [];
    let body: Uint8Array | undefined;
    let length = 0;
    response.on('error', reject);
    response.on('close', () => {
      if (!response.complete) reject(new ScrimError('UNAVAILABLE', 'the answer broke off'));
    });
    response.on('data', (chunk: Uint8Array) => {
      length += chunk.length;
      try {
        expectBodyWithin(length, maxBytes);
      } catch (error) {
        reject(error);
        return;
      }
      if (body) {
        body.set(chunk, length - chunk.length);
        freeArrays([chunk]);
        return;
      }
      chunks.push(readBuffers.has(chunk.buffer) ? new Uint8Array(chunk) : chunk);
      if (announced < length || length * TRUSTED_SHARE < announced || length === announced) return;
      body = new Uint8Array(announced);
      let at = 0;
      for (const early of chunks) {
        body.set(early, at);
        at += early.length;
      }
      freeArrays(chunks);
      chunks = [];
    });
    response.on('end', () => {
      if (!response.complete) reject(new ScrimError('UNAVAILABLE', 'the answer broke off'));
      else if (body) resolve(body);
      else {
        const whole = join(chunks, length);
        freeArrays(chunks.filter(({ buffer }) => buffer !== whole.buffer));
        resolve(whole);
      }
    });
    try {
      expectBodyWithin(announced, maxBytes);
    } catch (error) {
      reject(error);
    }
  });
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
