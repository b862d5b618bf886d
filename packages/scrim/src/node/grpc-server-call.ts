/**
 * One gRPC call on the server's side of an HTTP/2 stream: its messages as they come, and the way its answer goes.
 *
 * Deadlines (`grpc-timeout`), cancelling, compressed messages, limits and statuses are minded here, so that what answers
 * sees messages and a signal. Nothing that a caller does makes a call throw: faults end it with a status.
 */
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { ScrimError } from '../errors.js';
import {
  type ContentEncoding,
  createLimits,
  decodeContent,
  encodeGrpcStatusText,
  FrameReader,
  frameMessage,
  type GrpcFrame,
  parseGrpcTimeout,
  wireErrorOf,
} from '../protocol/index.js';
import type { Caller } from '../server/index.js';
import { freeBuffers } from './free-buffers.js';
import { drained } from './http2-drain.js';

/** Names of the encodings of messages that are read. */
const ACCEPTED = 'identity,deflate,gzip';
const HEAD = { ':status': 200, 'content-type': 'application/grpc', 'grpc-accept-encoding': ACCEPTED } as const;
const MAPPED = /^::ffff:(?=\d+\.)/i;
const GONE = 'the caller has gone';
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Time that a caller who was answered has to end its side. */
const LINGER_MS = 1_000;

/** A call that has begun. */
export class ServerCall {
  readonly path: string;
  readonly caller: Caller;
  /** Fires when the caller has gone or the deadline has passed. */
  readonly signal: AbortSignal;
  /** Bytes of the messages that came and went, as sent. */
  received = 0;
  sent = 0;
  /** Called once, with the status, when the call is over. */
  onOver: (status: number) => void = () => {};
  readonly #stream: ServerHttp2Stream;
  readonly #encoding: string;
  readonly #maxBytes: number;
  readonly #answerTimeoutMs: number;
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  /**
   * @param maxBytes Most bytes of a message, compressed or not
   * @param answerTimeoutMs Time in which the caller has to take something of an answer
   */
  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, maxBytes: number, answerTimeoutMs: number) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    this.#answerTimeoutMs = answerTimeoutMs;
    this.#encoding = String(headers['grpc-encoding'] ?? 'identity');
    this.path = String(headers[':path'] ?? '');
    this.signal = this.#controller.signal;
    const peer = stream.session?.socket.remoteAddress?.replace(MAPPED, '');
    this.caller = {
      header: (name) => {
        const value = headers[name];
        return Array.isArray(value) ? value.join(', ') : value;
      },
      ...(peer === undefined ? {} : { peer }),
    };
    // What breaks a stream shows in its end.
    stream.on('error', () => {});
    stream.once('close', () => this.#end(CANCELLED));
  }

  /**
   * Checks what every call must have and starts its deadline; false if the call was refused for it.
   */
  open(headers: IncomingHttpHeaders): boolean {
    const type = headers['content-type'];
    if (headers[':method'] !== 'POST' || type === undefined || !/^application\/grpc(?:[+;]|$)/.test(type)) {
      this.#stream.respond({ ':status': headers[':method'] === 'POST' ? 415 : 405 });
      this.#stream.end();
      this.#end(INTERNAL);
      this.#stream.resume();
      return false;
    }
    try {
      const timeoutMs = parseGrpcTimeout(headers['grpc-timeout'] as string | undefined);
      if (timeoutMs !== undefined) this.#limitTime(timeoutMs);
      if (!['identity', 'gzip', 'deflate'].includes(this.#encoding)) {
        throw new ScrimError('UNSUPPORTED', `grpc-encoding is not supported, expected one of ${ACCEPTED}`);
      }
      return true;
    } catch (error) {
      this.fail(error);
      return false;
    }
  }

  /**
   * Hands over the messages in their order; what can't be read ends the call.
   * @param rawField number of the field that holds raw tensors, if there is one
   */
  read(onMessage: (bytes: Uint8Array) => void, onEnd: () => void, rawField?: number): void {
    const reader = new FrameReader(this.#maxBytes, 'the message', rawField);
    const stream = this.#stream;
    // Messages that are decompressed take time; the order stays.
    let last: Promise<void> | undefined;
    const then = (step: () => void | Promise<void>): void => {
      last = (last ?? Promise.resolve()).then(step).catch((error: unknown) => this.fail(error));
    };
    const take = (frame: GrpcFrame): void => {
      this.received += frame.bytes.length;
      if (!frame.compressed && last === undefined) onMessage(frame.bytes);
      else
        then(async () => {
          if (this.#isOver) return;
          const bytes = await this.#inflate(frame);
          if (!this.#isOver) onMessage(bytes);
        });
    };
    stream.on('data', (chunk: Uint8Array) => {
      if (this.#isOver) return;
      try {
        for (const frame of reader.push(chunk)) take(frame);
      } catch (error) {
        this.fail(error);
      }
    });
    stream.on('end', () => {
      const end = (): void => {
        if (this.#isOver) return;
        if (reader.isEmpty) onEnd();
        else this.fail(new ScrimError('INVALID_ARGUMENT', 'the last message of the call is cut off'));
      };
      if (last === undefined) end();
      else then(end);
    });
  }

  /** Stops and goes on taking messages, as far as the connection's windows allow. */
  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  /** Sends a message; resolves when more may be sent. After the end of the call it does nothing. */
  async send(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#isOver || this.#stream.destroyed) return;
    if (this.#write(parts)) return;
    this.#stream.setTimeout(this.#answerTimeoutMs, this.#drop);
    await drained(this.#stream);
    this.#stream.setTimeout(0, this.#drop);
  }

  /** Sends the last message, if any, and the status OK. @param spent Buffers that nobody needs once it is sent */
  finish(parts?: readonly Uint8Array[], spent?: readonly ArrayBuffer[]): void {
    if (this.#isOver || this.#stream.destroyed || this.#stream.closed) return;
    // Only then: an answer that breaks off may still be in the hands of the system.
    if (spent) this.#stream.once('finish', () => freeBuffers(spent));
    this.#stream.cork();
    if (parts) this.#write(parts);
    else this.#head();
    this.#stream.end();
    this.#stream.uncork();
    this.#stream.setTimeout(this.#answerTimeoutMs, this.#drop);
    this.#end(OK);
  }

  /** Ends the call with the status of an error. */
  fail(error: unknown): void {
    if (this.#isOver || this.#stream.destroyed || this.#stream.closed) return;
    const { grpc, message } = wireErrorOf(error);
    const status = { 'grpc-status': String(grpc), 'grpc-message': encodeGrpcStatusText(message) };
    if (this.#stream.headersSent) {
      this.#trailers = status;
      this.#stream.end();
    } else {
      this.#stream.respond({ ...HEAD, ...status }, { endStream: true });
    }
    this.#end(grpc);
    // What the caller still sends is not wanted.
    if (!this.#stream.readableEnded) this.#stream.close(constants.NGHTTP2_NO_ERROR);
  }

  /** Gives up an answer that nobody takes. */
  readonly #drop = (): void => {
    this.#stream.close(constants.NGHTTP2_CANCEL);
    this.#stream.destroy();
  };

  readonly #letGo = (): void => {
    if (!this.#stream.closed && !this.#stream.destroyed) this.#stream.close(constants.NGHTTP2_NO_ERROR);
  };

  #trailers: Record<string, string> = { 'grpc-status': '0' };

  #head(): void {
    if (this.#stream.headersSent) return;
    this.#stream.respond(HEAD, { waitForTrailers: true });
    this.#stream.once('wantTrailers', () => {
      this.#stream.sendTrailers(this.#trailers);
      // What the caller still sends is not wanted. A reset at once would overtake the trailers.
      if (!this.#stream.readableEnded) setTimeout(this.#letGo, LINGER_MS).unref();
    });
  }

  #write(parts: readonly Uint8Array[]): boolean {
    this.#head();
    let isFlowing = true;
    this.#stream.cork();
    for (const part of frameMessage(parts)) {
      this.sent += part.length;
      isFlowing = this.#stream.write(part);
    }
    this.#stream.uncork();
    return isFlowing;
  }

  async #inflate({ bytes, compressed }: GrpcFrame): Promise<Uint8Array> {
    if (!compressed) return bytes;
    if (this.#encoding === 'identity') {
      throw new ScrimError('INVALID_ARGUMENT', 'a message is compressed, but grpc-encoding names no encoding');
    }
    const limits = createLimits({ maxBytes: this.#maxBytes });
    return decodeContent(bytes, this.#encoding as ContentEncoding, { limits, what: 'the message' });
  }

  #limitTime(timeoutMs: number): void {
    this.#timer = setTimeout(
      () => {
        const late = new ScrimError('DEADLINE_EXCEEDED', 'Deadline exceeded');
        this.fail(late);
      },
      Math.min(timeoutMs, MAX_TIMER_MS),
    );
    this.#timer.unref();
  }

  #end(status: number): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    // Without a reason abort() makes one with a stack.
    if (status !== OK) this.#controller.abort(GONE);
    this.onOver(status);
  }
}

const OK = 0;
const CANCELLED = 1;
const INTERNAL = 13;
