/**
 * Connections of an HTTP/1.1 client to one server: kept open and used again, one exchange at a time on each.
 *
 * An exchange that fails or is cancelled takes its connection with it, and so does an answer that comes before its
 * request was sent: nothing of a request is sent once its caller has heard of its end.
 */
import type { OnReadOpts, Socket } from 'node:net';
import { ScrimError } from '../errors.js';
import { AnswerReader } from './http-answer-reader.js';

/** Makes a socket that connects; it reads as `onread` says where that is given. */
export type OpenSocket = (onread: OnReadOpts | undefined) => Socket;

/** A request as it is sent, and how its answer is read. */
export interface ConnectionRequest {
  /** Request line and headers. */
  readonly head: Buffer;
  readonly body: readonly Uint8Array[];
  readonly signal: AbortSignal;
  /** Most bytes of the answer's body as sent. */
  readonly maxBytes: number;
}

/** Size of the buffer that heads and the beginnings of bodies are read into. */
const READ_BYTES = 2 ** 16;
/** Parts of less altogether are copied: it costs less than handing each to the socket. */
const JOINED_BYTES = 2 ** 14;
/** A connection is used no more this long before the server said that it would close it. */
const CLOSING_MARGIN_MS = 1_000;
/** Deno and Bun have node:net, but not its reads into a given buffer. */
const READS_IN_PLACE = !('deno' in process.versions || 'bun' in process.versions);

/** The connections to one server. */
export class ConnectionPool {
  readonly #open: OpenSocket;
  readonly #most: number;
  readonly #readsInPlace: boolean;
  readonly #all = new Set<Connection>();
  readonly #idle: Connection[] = [];
  readonly #waiting = new Set<(connection: Connection | undefined) => void>();
  #isClosed = false;

  /**
   * @param most Connections at a time; more exchanges wait
   * @param readsInPlace whether sockets that are opened do as `onread` says
   */
  constructor(open: OpenSocket, most: number, readsInPlace: boolean = READS_IN_PLACE) {
    this.#open = open;
    this.#most = most;
    this.#readsInPlace = readsInPlace;
  }

  /**
   * Makes an exchange.
   * @throws ScrimError UNAVAILABLE if the server can't be reached or breaks off, CANCELLED, as the reader
   */
  async exchange(request: ConnectionRequest): Promise<AnswerReader> {
    const connection = this.#take() ?? (await this.#wait(request.signal));
    return connection.exchange(request);
  }

  /** Ends all connections, and the exchanges on them. */
  close(): void {
    this.#isClosed = true;
    for (const wake of this.#waiting) wake(undefined);
    for (const connection of this.#all) connection.end();
  }

  #take(): Connection | undefined {
    if (this.#isClosed) throw closed();
    // The last one used is the likeliest to be alive.
    for (let found = this.#idle.pop(); found; found = this.#idle.pop()) {
      if (found.isUsable) return found;
      found.end();
    }
    if (this.#all.size >= this.#most) return undefined;
    const connection = new Connection(this.#open, this.#readsInPlace, {
      onFree: () => this.#give(connection),
      onClosed: () => this.#drop(connection),
    });
    this.#all.add(connection);
    return connection;
  }

  #wait(signal: AbortSignal): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const wake = (connection: Connection | undefined): void => {
        this.#waiting.delete(wake);
        signal.removeEventListener('abort', onAbort);
        if (connection) resolve(connection);
        else reject(closed());
      };
      const onAbort = (): void => {
        this.#waiting.delete(wake);
        reject(cancelled());
      };
      this.#waiting.add(wake);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  #give(connection: Connection): void {
    const [next] = this.#waiting;
    if (!connection.isUsable) connection.end();
    else if (next) next(connection);
    else this.#idle.push(connection);
  }

  #drop(connection: Connection): void {
    this.#all.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at !== -1) this.#idle.splice(at, 1);
    const [next] = this.#waiting;
    if (next && !this.#isClosed) next(this.#take());
  }
}

interface Exchange {
  readonly reader: AnswerReader;
  readonly settle: (error?: unknown) => void;
}

class Connection {
  readonly #socket: Socket;
  readonly #on: { readonly onFree: () => void; readonly onClosed: () => void };
  #current: Exchange | undefined;
  #fault: unknown;
  #usableUntilMs = Number.POSITIVE_INFINITY;

  constructor(
    open: OpenSocket,
    readsInPlace: boolean,
    on: { readonly onFree: () => void; readonly onClosed: () => void },
  ) {
    this.#on = on;
    // Left to itself a socket takes fresh memory for every read.
    const buffer = readsInPlace ? Buffer.allocUnsafeSlow(READ_BYTES) : undefined;
    const socket = open(
      buffer && {
        buffer: () => this.#current?.reader.space ?? buffer,
        callback: (size, bytes) => {
          this.#take(bytes.subarray(0, size));
          return true;
        },
      },
    );
    if (!buffer) socket.on('data', (bytes: Uint8Array) => this.#take(bytes));
    socket.on('error', (error) => {
      this.#fault = error;
    });
    socket.on('close', () => this.#closed());
    this.#socket = socket;
  }

  /** False once the connection has ended, or is about to. */
  get isUsable(): boolean {
    return this.#socket.writable && performance.now() < this.#usableUntilMs;
  }

  exchange({ head, body, signal, maxBytes }: ConnectionRequest): Promise<AnswerReader> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        this.#free();
        reject(cancelled());
        return;
      }
      const reader = new AnswerReader(maxBytes);
      const onAbort = (): void => this.#fail(cancelled());
      const settle = (error?: unknown): void => {
        this.#current = undefined;
        signal.removeEventListener('abort', onAbort);
        if (error === undefined) resolve(reader);
        else reject(error);
      };
      this.#current = { reader, settle };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#socket.ref();
      this.#send(head, body);
    });
  }

  /** Ends the connection now. */
  end(): void {
    this.#fail(closed());
  }

  #send(head: Buffer, body: readonly Uint8Array[]): void {
    const length = body.reduce((sum, part) => sum + part.length, head.length);
    if (length <= JOINED_BYTES) {
      this.#socket.write(body.length === 0 ? head : Buffer.concat([head, ...body], length));
      return;
    }
    this.#socket.cork();
    this.#socket.write(head);
    for (const part of body) this.#socket.write(part);
    this.#socket.uncork();
  }

  #take(bytes: Uint8Array): void {
    const current = this.#current;
    if (!current) {
      // Nothing was asked for: what comes can't be told from the next answer.
      this.#socket.destroy();
      return;
    }
    try {
      const taken = current.reader.push(bytes);
      if (current.reader.isWhole) this.#finish(current, taken < bytes.length);
    } catch (error) {
      this.#fail(error);
    }
  }

  #finish({ reader, settle }: Exchange, hasMore: boolean): void {
    const idleS = /(?:^|[,;\s])timeout=(\d{1,9})/i.exec(reader.header('keep-alive') ?? '')?.[1];
    if (idleS !== undefined) this.#usableUntilMs = performance.now() + Number(idleS) * 1_000 - CLOSING_MARGIN_MS;
    settle();
    if (reader.keepsAlive && !hasMore && this.#socket.writableLength === 0) this.#free();
    else this.#socket.destroy();
  }

  /** Keeps the process alive no longer. */
  #free(): void {
    this.#socket.unref();
    this.#on.onFree();
  }

  #fail(error: unknown): void {
    this.#current?.settle(error);
    this.#socket.destroy();
  }

  #closed(): void {
    const current = this.#current;
    if (current) {
      const { reader } = current;
      if (this.#fault === undefined) reader.end();
      if (reader.isWhole) current.settle();
      else {
        const what = reader.hasBegun ? 'the answer broke off' : 'the server can not be reached';
        current.settle(
          this.#fault === undefined && !reader.hasBegun
            ? new ScrimError('UNAVAILABLE', 'the server closed the connection without an answer')
            : ScrimError.from(this.#fault ?? new Error('the connection was closed'), 'UNAVAILABLE', what),
        );
      }
    }
    this.#on.onClosed();
  }
}

function cancelled(): ScrimError {
  return new ScrimError('CANCELLED', 'the exchange was cancelled');
}

function closed(): ScrimError {
  return new ScrimError('UNAVAILABLE', 'the client is closed');
}
