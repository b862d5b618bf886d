/**
 * gRPC calls of a client over node:http2: one connection, made when a call needs it and again when it broke.
 *
 * Deadlines travel as `grpc-timeout`; keeping them, and trying again, is the caller's. Messages are sent from the parts
 * they come in. The connection keeps the process alive only while a call is under way.
 */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { ConnectionOptions } from 'node:tls';
import { ScrimError } from '../errors.js';
import {
  type ContentEncoding,
  createLimits,
  decodeContent,
  decodeGrpcStatusText,
  encodeContent,
  errorFromGrpc,
  FrameReader,
  formatGrpcTimeout,
  frameMessage,
  type GrpcFrame,
  grpcStatusOfHttp,
} from '../protocol/index.js';
import { drained } from './http2-drain.js';

/** How a channel is made. */
export interface GrpcChannelOptions {
  /** Host and port. */
  readonly target: string;
  readonly secure: boolean;
  readonly tls: ConnectionOptions;
  /** Encoding of the messages that are sent. */
  readonly compression: ContentEncoding;
  /** Most bytes of a message that comes, compressed or not. */
  readonly maxBytes: number;
}

/** What a call is. */
export interface GrpcCallSettings {
  /** Such as '/inference.GRPCInferenceService/ModelInfer'. */
  readonly path: string;
  /** Names the call in errors. */
  readonly what: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Number of the answer's field that holds raw tensors, if there is one. */
  readonly rawField?: number | undefined;
}

/** A call of many messages. */
export interface GrpcStream {
  /** Sends a message; resolves when more may be sent, or the call is over. */
  send(parts: readonly Uint8Array[]): Promise<void>;
  /** Says that no message follows. */
  end(): void;
  /** Gives up what is left of the call. */
  cancel(): void;
  /** True when nothing can be sent any more. */
  readonly isOver: boolean;
  /** The answers as they come. @throws ScrimError with the status that the call ended with */
  messages(): AsyncGenerator<Uint8Array, void, undefined>;
}

/** HTTP/2 window: large enough that an answer needs no round trip on the way. */
const WINDOW_BYTES = 8 * 2 ** 20;
const MAX_SESSION_MB = 2 ** 20;
/** Answers of a stream that wait to be read before the connection is told to wait. */
const MAX_WAITING = 16;

/** gRPC statuses of streams that were reset (doc/PROTOCOL-HTTP2.md, "Errors"); the rest is INTERNAL. */
const STATUS_OF_RESET: ReadonlyMap<number, number> = new Map([
  [constants.NGHTTP2_REFUSED_STREAM, 14],
  [constants.NGHTTP2_CANCEL, 1],
  [constants.NGHTTP2_ENHANCE_YOUR_CALM, 8],
  [constants.NGHTTP2_INADEQUATE_SECURITY, 7],
]);

/** A connection to one server, and its calls. */
export class GrpcChannel {
  readonly #options: GrpcChannelOptions;
  #session: ClientHttp2Session | undefined;
  readonly #callsOf = new WeakMap<ClientHttp2Session, number>();
  #isClosed = false;

  constructor(options: GrpcChannelOptions) {
    this.#options = options;
  }

  /**
   * A call of one message and one answer, of which `read` makes the result: before the status has come, where it can.
   * @throws ScrimError with the code of the status; CANCELLED when `signal` fires; what `read` throws
   */
  async unary<T>(
    parts: readonly Uint8Array[],
    settings: GrpcCallSettings,
    read: (answer: Uint8Array) => T,
  ): Promise<T> {
    const framed = await this.#frame(parts);
    const answers: GrpcFrame[] = [];
    let result: { readonly value: T } | { readonly fault: unknown } | undefined;
    let encoding: ContentEncoding = 'identity';
    await new Promise<void>((resolve, reject) => {
      const stream = this.#begin(settings, {
        onEncoding: (given) => {
          encoding = given;
        },
        onFrame: (frame) => {
          answers.push(frame);
          if (answers.length > 1 || frame.compressed) return;
          try {
            result = { value: read(frame.bytes) };
          } catch (fault) {
            result = { fault };
          }
        },
        onOver: (error) => (error ? reject(error) : resolve()),
      });
      stream.cork();
      for (const part of framed) stream.write(part);
      stream.end();
      stream.uncork();
    });
    const [answer] = answers;
    if (answers.length !== 1 || answer === undefined) {
      const found = answers.length === 0 ? 'is empty' : 'has more than one message';
      throw new ScrimError('INVALID_DATA', `${settings.what}: the answer ${found}`);
    }
    if (!result) return read(await this.#inflate(answer, encoding, settings.what));
    if ('fault' in result) throw result.fault;
    return result.value;
  }

  /** A call of many messages both ways. */
  stream(settings: GrpcCallSettings): GrpcStream {
    const waiting: GrpcFrame[] = [];
    let encoding: ContentEncoding = 'identity';
    let outcome: { readonly error: ScrimError | undefined } | undefined;
    let wake = (): void => {};
    const stream = this.#begin(settings, {
      onEncoding: (given) => {
        encoding = given;
      },
      onFrame: (frame) => {
        waiting.push(frame);
        if (waiting.length >= MAX_WAITING) stream.pause();
        wake();
      },
      onOver: (error) => {
        outcome ??= { error };
        wake();
      },
    });
    const inflate = (frame: GrpcFrame): Promise<Uint8Array> => this.#inflate(frame, encoding, settings.what);
    return {
      send: async (parts) => {
        let isFlowing = true;
        for (const part of await this.#frame(parts)) {
          if (!stream.writable) return;
          isFlowing = stream.write(part);
        }
        if (!isFlowing) await drained(stream);
      },
      end: () => {
        if (stream.writable) stream.end();
      },
      cancel: () => cancel(stream),
      get isOver() {
        return outcome !== undefined || !stream.writable;
      },
      messages: async function* () {
        for (;;) {
          const frame = waiting.shift();
          if (frame) {
            if (stream.isPaused() && waiting.length === 0) stream.resume();
            yield await inflate(frame);
          } else if (outcome) {
            if (outcome.error) throw outcome.error;
            return;
          } else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        }
      },
    };
  }

  /** Takes no more calls; the connection ends when those under way have. */
  close(): void {
    this.#isClosed = true;
    this.#session?.close();
    this.#session = undefined;
  }

  async #frame(parts: readonly Uint8Array[]): Promise<Uint8Array[]> {
    const { compression } = this.#options;
    if (compression === 'identity') return frameMessage(parts);
    return frameMessage([await encodeContent(parts, compression)], true);
  }

  async #inflate({ bytes, compressed }: GrpcFrame, encoding: ContentEncoding, what: string): Promise<Uint8Array> {
    if (!compressed) return bytes;
    const limits = createLimits({ maxBytes: this.#options.maxBytes });
    if (encoding === 'identity')
      throw new ScrimError('INVALID_DATA', `${what}: the answer is compressed in no known way`);
    return decodeContent(bytes, encoding, { limits, what: `${what}: the answer`, code: 'INVALID_DATA' });
  }

  /** Opens the stream of a call and watches it to its end. */
  #begin(
    { path, what, headers, timeoutMs, signal, rawField }: GrpcCallSettings,
    watcher: {
      readonly onEncoding: (encoding: ContentEncoding) => void;
      readonly onFrame: (frame: GrpcFrame) => void;
      readonly onOver: (error?: ScrimError) => void;
    },
  ): ClientHttp2Stream {
    const { compression, maxBytes } = this.#options;
    if (this.#isClosed) throw new ScrimError('UNAVAILABLE', `${what}: the client is closed`);
    if (signal?.aborted) throw new ScrimError('CANCELLED', `${what} was cancelled`);
    const session = this.#connect();
    let stream: ClientHttp2Stream;
    try {
      stream = session.request({
        ...headers,
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
        'grpc-accept-encoding': 'identity,deflate,gzip',
        ...(compression === 'identity' ? {} : { 'grpc-encoding': compression }),
        ...(timeoutMs === undefined ? {} : { 'grpc-timeout': formatGrpcTimeout(timeoutMs) }),
      });
    } catch (error) {
      // A session that broke a moment ago, or a header that HTTP/2 has no room for.
      const isHeader = error instanceof TypeError;
      throw ScrimError.from(error, isHeader ? 'INVALID_ARGUMENT' : 'UNAVAILABLE', `${what}: the call can't be made`);
    }
    const calls = this.#callsOf.get(session) ?? 0;
    if (calls === 0) session.ref();
    this.#callsOf.set(session, calls + 1);
    const reader = new FrameReader(maxBytes, `${what}: the answer`, rawField);
    let status: ScrimError | 'ok' | undefined;
    let isForeign = false;
    let fault: unknown;
    let isOver = false;
    const over = (error?: ScrimError): void => {
      if (isOver) return;
      isOver = true;
      signal?.removeEventListener('abort', onAbort);
      watcher.onOver(error);
    };
    const onAbort = (): void => {
      over(new ScrimError('CANCELLED', `${what} was cancelled`));
      cancel(stream);
    };
    const readStatus = (trailers: IncomingHttpHeaders): void => {
      const code = trailers['grpc-status'];
      if (code === undefined || status !== undefined) return;
      const text = decodeGrpcStatusText(String(trailers['grpc-message'] ?? ''));
      status = code === '0' ? 'ok' : errorFromGrpc(Number(code), text, what);
    };
    stream.on('response', (answer) => {
      const http = Number(answer[':status']);
      if (http !== 200) status = errorFromGrpc(grpcStatusOfHttp(http), `HTTP status ${http}`, what);
      else if (!String(answer['content-type'] ?? '').startsWith('application/grpc')) {
        status = errorFromGrpc(2, 'the answer is not gRPC', what);
      }
      isForeign = status !== undefined;
      const encoding = String(answer['grpc-encoding'] ?? 'identity');
      if (encoding === 'gzip' || encoding === 'deflate') watcher.onEncoding(encoding);
      readStatus(answer);
    });
    stream.on('trailers', (trailers) => {
      readStatus(trailers);
      if (stream.readableEnded) settle();
    });
    stream.on('data', (chunk: Uint8Array) => {
      // The status of a stream that was paused comes before the messages that waited.
      if (isOver || isForeign) return;
      try {
        for (const frame of reader.push(chunk)) watcher.onFrame(frame);
      } catch (error) {
        over(error instanceof ScrimError ? error : ScrimError.from(error, 'INVALID_DATA', what));
        cancel(stream);
      }
    });
    const settle = (): void => {
      if (status === 'ok') {
        over(reader.isEmpty ? undefined : new ScrimError('INVALID_DATA', `${what}: the answer is cut off`));
      } else if (status) over(status);
      else over(broken(stream, session, fault, what));
      // The server has answered: it wants nothing more.
      if (!stream.writableEnded) cancel(stream);
    };
    stream.on('end', () => {
      if (status !== undefined) settle();
    });
    stream.on('error', (error) => {
      fault = error;
    });
    stream.on('close', () => {
      const left = (this.#callsOf.get(session) ?? 1) - 1;
      this.#callsOf.set(session, left);
      if (left === 0 && !session.destroyed) session.unref();
      settle();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    return stream;
  }

  #connect(): ClientHttp2Session {
    if (this.#session && !this.#session.closed && !this.#session.destroyed) return this.#session;
    const { target, secure, tls } = this.#options;
    const session = connect(`${secure ? 'https' : 'http'}://${target}`, {
      ...(secure ? tls : {}),
      settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
      maxSessionMemory: MAX_SESSION_MB,
    });
    session.once('connect', () => session.setLocalWindowSize(WINDOW_BYTES));
    // The calls under way are told; the next one makes a new connection.
    const drop = (): void => {
      if (this.#session === session) this.#session = undefined;
    };
    session.on('error', drop);
    session.on('goaway', drop);
    session.once('close', drop);
    session.unref();
    this.#session = session;
    return session;
  }
}

function cancel(stream: ClientHttp2Stream): void {
  if (!stream.closed && !stream.destroyed) stream.close(constants.NGHTTP2_CANCEL);
}

/** Why a stream ended without a status. */
function broken(stream: ClientHttp2Stream, session: ClientHttp2Session, fault: unknown, what: string): ScrimError {
  const reset = stream.rstCode;
  const code = (fault as { code?: unknown } | undefined)?.code;
  // Node reports a reset as an error of its own; any other is the connection's.
  if (fault !== undefined && code !== 'ERR_HTTP2_STREAM_ERROR') {
    return ScrimError.from(fault, 'UNAVAILABLE', `${what}: the server can not be reached`);
  }
  if (session.destroyed || reset === constants.NGHTTP2_NO_ERROR || reset === undefined) {
    return new ScrimError('UNAVAILABLE', `${what}: the answer broke off`);
  }
  return errorFromGrpc(STATUS_OF_RESET.get(reset) ?? 13, `the stream was reset with code ${reset}`, what);
}
