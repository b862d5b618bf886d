/**
 * A {@link Backend} on the other side of a thread boundary: {@link RemoteBackend} asks, {@link serveBackend} answers.
 * The boundary is anything that posts structured clones with transfers (worker_threads, Web Workers, MessagePorts);
 * making, watching and ending the thread is left to node/ and web/.
 *
 * Large inputs travel in staging buffers that come back with the answer, or are moved where the caller gave them up;
 * outputs are always moved. A run that is cancelled before the other side starts it is not made.
 */
import { type ErrorDetails, ScrimError, type ScrimErrorCode } from '../errors.js';
import { allocate, type Tensor } from '../tensor.js';
import type { Backend, BackendIdentity, BackendRunOptions, GraphOptions, LoadedGraph } from './backend.js';
import type { NamedTensors } from './engine.js';
import { RunQueue } from './run-queue.js';
import { StagingPool } from './staging-pool.js';

/** Sends one message and moves `transfer` with it. */
export type Post = (message: unknown, transfer: ArrayBuffer[]) => void;

type Ask =
  | { readonly ask: 'load'; readonly call: number; readonly model: Uint8Array; readonly options: GraphOptions }
  | {
      readonly ask: 'run';
      readonly call: number;
      readonly graph: number;
      readonly feeds: NamedTensors;
      readonly fetches: readonly string[];
      /** Names of the feeds whose buffers are to come back. */
      readonly staged: readonly string[];
    }
  | { readonly ask: 'cancel'; readonly call: number }
  | { readonly ask: 'release'; readonly call: number; readonly graph: number }
  | { readonly ask: 'close'; readonly call: number };

type Answer =
  | { readonly answer: 'ready'; readonly identity: BackendIdentity }
  | { readonly answer: 'failed'; readonly error: PlainError }
  | {
      readonly answer: 'done';
      readonly call: number;
      readonly value?: unknown;
      readonly error?: PlainError;
      readonly returned?: readonly ArrayBuffer[];
      /** Of a run: milliseconds. */
      readonly ms?: number;
    };

interface PlainError {
  readonly code: ScrimErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
}

type NumericArray = Exclude<Tensor['data'], string[]>;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: ScrimError) => void;
  readonly onTime: ((ms: number) => void) | undefined;
}

// Below this a plain structured clone is cheaper than a staging buffer.
const STAGING_BYTES = 64 * 1024;

/** The asking side. Its owner passes on the messages that arrive, and says when the other side is gone. */
export class RemoteBackend implements Backend {
  /** Resolves when the other side has started its backend; rejects if it could not. */
  readonly ready: Promise<BackendIdentity>;
  readonly #post: Post;
  readonly #onBusy: (busy: boolean) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #pool: StagingPool;
  #started!: { resolve: (identity: BackendIdentity) => void; reject: (error: ScrimError) => void };
  #dead: ScrimError | undefined;
  #next = 0;

  /**
   * @param width Runs that may be under way at a time; as many sets of staging buffers are kept.
   * @param onBusy Called with true when the first answer is awaited and with false when none is.
   */
  constructor(post: Post, width: number, onBusy: (busy: boolean) => void = () => {}) {
    this.#post = post;
    this.#onBusy = onBusy;
    this.#pool = new StagingPool(2 * width);
    this.ready = new Promise((resolve, reject) => {
      this.#started = { resolve, reject };
    });
    // Whoever awaits `ready` sees the failure; nobody else has to.
    this.ready.catch(() => {});
  }

  load(model: Uint8Array, options: GraphOptions): Promise<LoadedGraph> {
    return this.#ask((call) => {
      const copy = Uint8Array.from(model);
      this.#send({ ask: 'load', call, model: copy, options }, [copy.buffer]);
    }) as Promise<LoadedGraph>;
  }

  async run(graph: number, feeds: NamedTensors, options: BackendRunOptions): Promise<Record<string, Tensor>> {
    const { fetches, transfer, signal, onTime } = options;
    let onAbort = (): void => {};
    try {
      return (await this.#ask((call) => {
        const send = (moves: boolean): void => {
          const { feeds: packed, moved, staged } = this.#pack(feeds, moves);
          this.#send({ ask: 'run', call, graph, feeds: packed, fetches, staged }, moved);
        };
        try {
          send(transfer);
        } catch (error) {
          // Some buffers can't be moved (WebAssembly's memory, Node's pool), which only the attempt tells.
          if (!transfer) throw error;
          send(false);
        }
        onAbort = () => this.#send({ ask: 'cancel', call }, []);
        signal?.addEventListener('abort', onAbort, { once: true });
      }, onTime)) as Record<string, Tensor>;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async release(graph: number): Promise<void> {
    if (this.#dead === undefined) await this.#ask((call) => this.#send({ ask: 'release', call, graph }, []));
  }

  async close(): Promise<void> {
    this.#pool.clear();
    if (this.#dead === undefined) await this.#ask((call) => this.#send({ ask: 'close', call }, []));
  }

  /** Takes one message from the other side. */
  receive(message: unknown): void {
    const answer = message as Answer;
    if (answer.answer === 'ready') {
      this.#started.resolve(answer.identity);
    } else if (answer.answer === 'failed') {
      this.fail(revive(answer.error));
    } else {
      for (const buffer of answer.returned ?? []) this.#pool.give(buffer);
      const pending = this.#settle(answer.call);
      if (answer.ms !== undefined) pending?.onTime?.(answer.ms);
      if (answer.error !== undefined) pending?.reject(revive(answer.error));
      else pending?.resolve(answer.value);
    }
  }

  /** Says that the other side is gone: everything awaited and everything asked from now on rejects with `error`. */
  fail(error: ScrimError): void {
    this.#dead ??= error;
    this.#started.reject(error);
    for (const call of [...this.#pending.keys()]) this.#settle(call)?.reject(error);
  }

  #send(ask: Ask, moved: ArrayBuffer[]): void {
    this.#post(ask, moved);
  }

  #ask(send: (call: number) => void, onTime?: (ms: number) => void): Promise<unknown> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    return new Promise((resolve, reject) => {
      const call = this.#next++;
      this.#pending.set(call, { resolve, reject, onTime });
      if (this.#pending.size === 1) this.#onBusy(true);
      try {
        send(call);
      } catch (error) {
        this.#settle(call);
        reject(ScrimError.from(error, 'ENGINE_FAILED', "the message to the engine's thread could not be sent"));
      }
    });
  }

  #settle(call: number): Pending | undefined {
    const pending = this.#pending.get(call);
    if (this.#pending.delete(call) && this.#pending.size === 0) this.#onBusy(false);
    return pending;
  }

  /** `feeds` as they are posted, which buffers are moved with them, and which of those are to come back. */
  #pack(feeds: NamedTensors, transfer: boolean): { feeds: NamedTensors; moved: ArrayBuffer[]; staged: string[] } {
    const moved = new Set<ArrayBuffer>();
    const staged: string[] = [];
    const packed = Object.entries(feeds).map(([name, value]): [string, Tensor] => {
      const { dtype, shape, data } = value;
      if (Array.isArray(data)) return [name, { dtype, shape, data }];
      const { buffer, byteLength } = data;
      if (transfer && byteLength === buffer.byteLength && !isShared(buffer)) {
        moved.add(buffer as ArrayBuffer);
        return [name, { dtype, shape, data }];
      }
      if (byteLength < STAGING_BYTES) {
        // A view is posted with the whole of its buffer, so a part is cut out first.
        const whole = byteLength === buffer.byteLength && !isShared(buffer);
        return [name, { dtype, shape, data: whole ? data : data.slice() } as Tensor];
      }
      const stage = this.#pool.take(byteLength);
      moved.add(stage);
      staged.push(name);
      const copy = viewAs(value, stage);
      (copy as { set(source: unknown): void }).set(data);
      return [name, { dtype, shape, data: copy } as Tensor];
    });
    return { feeds: Object.fromEntries(packed), moved: [...moved], staged };
  }
}

/**
 * The answering side: starts a backend, says so, and returns the function that takes each message that arrives.
 * @param start Makes the backend; its failure is reported and every later request fails with it.
 * @param post Sends an answer.
 * @param options.defer See {@link RunQueue}: how to let arrived messages be read before the next task starts.
 * @param options.around Wraps each task, so that the owner knows when the runtime is at work.
 * @param options.onClosed Called after the answer to `close` was posted.
 */
export function serveBackend(
  start: () => Promise<{ readonly backend: Backend; readonly identity: BackendIdentity }>,
  post: Post,
  options: {
    readonly defer?: (step: () => void) => void;
    readonly around?: <T>(task: () => Promise<T>) => Promise<T>;
    readonly onClosed?: () => void;
  } = {},
): (message: unknown) => void {
  const { around = (task) => task(), onClosed = () => {} } = options;
  const queue = new RunQueue(1, options.defer);
  const cancelled = new Set<number>();
  const open = new Set<number>();
  const started = queue.add(() => around(start));
  started.then(
    ({ identity }) => post({ answer: 'ready', identity } satisfies Answer, []),
    (error) => post({ answer: 'failed', error: flatten(error) } satisfies Answer, []),
  );

  const act = async (ask: Exclude<Ask, { ask: 'cancel' }>): Promise<unknown> => {
    const { backend } = await started;
    if (ask.ask === 'load') return backend.load(ask.model, ask.options);
    if (ask.ask === 'run') return backend.run(ask.graph, ask.feeds, { fetches: ask.fetches, transfer: true });
    if (ask.ask === 'release') return backend.release(ask.graph);
    return backend.close();
  };

  return (message) => {
    const ask = message as Ask;
    if (ask.ask === 'cancel') {
      if (open.has(ask.call)) cancelled.add(ask.call);
      return;
    }
    open.add(ask.call);
    let started = 0;
    queue
      .add(() => {
        if (cancelled.has(ask.call)) throw new ScrimError('CANCELLED', 'the run was cancelled before it started');
        started = performance.now();
        return around(() => act(ask));
      })
      .then(
        (value) => ({ value }),
        (error: unknown) => ({ error: flatten(error) }),
      )
      .then((outcome) => {
        open.delete(ask.call);
        cancelled.delete(ask.call);
        const given = ask.ask === 'run' && 'value' in outcome ? buffersOf(outcome.value as NamedTensors) : [];
        // What an output lies in is the caller's now, even if the input was staged there.
        const staged = ask.ask === 'run' ? ask.staged.map((name) => bufferOf(ask.feeds[name]!)) : [];
        const returned = staged.filter((buffer) => !given.includes(buffer));
        const time = ask.ask === 'run' && 'value' in outcome ? { ms: performance.now() - started } : {};
        try {
          post({ answer: 'done', call: ask.call, ...outcome, returned, ...time } satisfies Answer, [
            ...returned,
            ...given,
          ]);
        } catch (error) {
          post({ answer: 'done', call: ask.call, error: flatten(error) } satisfies Answer, []);
        }
        if (ask.ask === 'close') onClosed();
      });
  };
}

function viewAs(value: Tensor, buffer: ArrayBuffer): NumericArray {
  const Constructor = allocate(value.dtype, 0).constructor as new (
    buffer: ArrayBuffer,
    byteOffset: number,
    length: number,
  ) => NumericArray;
  return new Constructor(buffer, 0, value.data.length);
}

function buffersOf(tensors: NamedTensors): ArrayBuffer[] {
  const numeric = Object.values(tensors).filter(({ data }) => !Array.isArray(data));
  return [...new Set(numeric.map(bufferOf))].filter((buffer) => !isShared(buffer));
}

function bufferOf(value: Tensor): ArrayBuffer {
  return (value.data as NumericArray).buffer as ArrayBuffer;
}

function isShared(buffer: ArrayBufferLike): boolean {
  return Object.prototype.toString.call(buffer) === '[object SharedArrayBuffer]';
}

function flatten(error: unknown): PlainError {
  const { code, message, details } = ScrimError.from(error, 'ENGINE_FAILED', "the engine's thread failed");
  return { code, message, details };
}

function revive(error: PlainError): ScrimError {
  return new ScrimError(error.code, error.message, { details: error.details });
}
