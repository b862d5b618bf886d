/**
 * One HTTP exchange as the client needs it, and its form over `fetch`. Node's own connections, with mutual TLS and
 * bodies that are not copied, stand in node/http-agent.ts; a server's handler serves as a transport in memory.
 */
import { ScrimError } from '../errors.js';

/** A request. */
export interface TransportRequest {
  readonly method: 'GET' | 'POST';
  readonly url: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Pieces to be sent one after another; undefined for no body. */
  readonly body?: readonly Uint8Array[];
  readonly signal: AbortSignal;
  /** Most bytes of the answer's body. */
  readonly maxBytes: number;
}

/** An answer, whole. */
export interface TransportResponse {
  readonly status: number;
  /** A header by its name in lower case. */
  header(name: string): string | undefined;
  /** Decoded where it was compressed. */
  readonly body: Uint8Array;
}

/** Makes exchanges. A failure to reach the server is UNAVAILABLE, a body that is too long LIMIT_EXCEEDED. */
export interface HttpTransport {
  exchange(request: TransportRequest): Promise<TransportResponse>;
  close(): Promise<void>;
}

/** What a `fetch` is to this room: the global one, or a handler in this process. */
export type FetchFunction = (request: Request) => Promise<Response>;

/** A transport over a fetch function; the default is the global one. Connections are kept by the runtime. */
export function createFetchTransport(fetchFunction: FetchFunction = (request) => fetch(request)): HttpTransport {
  return {
    exchange: async ({ method, url, headers, body, signal, maxBytes }) => {
      signal.throwIfAborted();
      const request = new Request(url, {
        method,
        headers,
        signal,
        redirect: 'error',
        ...(body === undefined ? {} : { body: join(body) }),
      });
      let response: Response;
      try {
        response = await fetchFunction(request);
      } catch (error) {
        throw ScrimError.from(rootOf(error), 'UNAVAILABLE', 'the server can not be reached');
      }
      return {
        status: response.status,
        header: (name) => response.headers.get(name) ?? undefined,
        body: await readBody(response, maxBytes),
      };
    },
    close: async () => {},
  };
}

/** Checks a body's length against the limit, before or while it is read. */
export function expectBodyWithin(length: number, maxBytes: number): void {
  if (length > maxBytes) {
    throw new ScrimError('LIMIT_EXCEEDED', `the answer has ${length} bytes or more, above the limit of ${maxBytes}`);
  }
}

async function readBody(response: Response, maxBytes: number): Promise<Uint8Array> {
  const announced = Number(response.headers.get('content-length') ?? 0);
  const reader = response.body?.getReader();
  if (!reader) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    expectBodyWithin(announced, maxBytes);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      length += value.length;
      expectBodyWithin(length, maxBytes);
      chunks.push(value);
    }
  } catch (error) {
    await reader.cancel().catch(() => undefined);
    throw ScrimError.from(rootOf(error), 'UNAVAILABLE', 'the answer broke off');
  }
  return join(chunks, length);
}

/** fetch hides the reason ("ECONNREFUSED") in the cause. */
function rootOf(error: unknown): unknown {
  return error instanceof Error && !(error instanceof ScrimError) && error.cause instanceof Error ? error.cause : error;
}

/** All pieces in one array; a single piece that fills its buffer is passed on. */
export function join(pieces: readonly Uint8Array[], total?: number): Uint8Array<ArrayBuffer> {
  const [only] = pieces;
  if (pieces.length === 1 && only?.buffer instanceof ArrayBuffer) return only as Uint8Array<ArrayBuffer>;
  const bytes = new Uint8Array(total ?? pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
