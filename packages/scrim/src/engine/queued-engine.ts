/**
 * An {@link Engine} over a {@link Backend}: checks feeds and fetches, keeps the order of the calls, hands out sessions,
 * and makes closing safe. What runs the graphs, and on which thread, is the backend's.
 */
import { ScrimError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import type { Backend, BackendIdentity, LoadedGraph } from './backend.js';
import type { Engine, LoadOptions, NamedTensors, RunOptions, Session, ValueInfo } from './engine.js';
import { checkFeeds, checkFetches, checkResident } from './feeds.js';
import { RunQueue } from './run-queue.js';

/**
 * Makes an engine over `backend`.
 * @param width Runs handed to the backend at a time: 1 where it shares this thread, 2 where it has its own (the next
 * input is copied while the last one is computed). The rest waits here, uncopied.
 * @param defer See {@link RunQueue}: for a backend that blocks this thread and gives the event loop no turn itself.
 */
export function createQueuedEngine(
  backend: Backend,
  identity: BackendIdentity,
  width: number,
  defer?: (step: () => void) => void,
): Engine {
  return new QueuedEngine(backend, identity, new RunQueue(width, defer));
}

class QueuedEngine implements Engine {
  readonly description: string;
  readonly executionProvider: string;
  readonly threads: number;
  readonly #backend: Backend;
  readonly #queue: RunQueue;
  readonly #sessions = new Set<QueuedSession>();
  #closing: Promise<void> | undefined;

  constructor(backend: Backend, identity: BackendIdentity, queue: RunQueue) {
    this.description = identity.description;
    this.executionProvider = identity.executionProvider;
    this.threads = identity.threads;
    this.#backend = backend;
    this.#queue = queue;
  }

  async load(model: Uint8Array, options: LoadOptions = {}): Promise<Session> {
    this.#assertOpen();
    if (Object.prototype.toString.call(model) !== '[object Uint8Array]') {
      throw new ScrimError('INVALID_ARGUMENT', 'model is no Uint8Array, expected the bytes of an ONNX file');
    }
    const { threads = this.threads, optimize = 'all', resident = {} } = options;
    checkThreads('threads', threads);
    if (optimize !== 'all' && optimize !== 'none') {
      throw new ScrimError('INVALID_ARGUMENT', `optimize is "${String(optimize)}", expected "all" or "none"`);
    }
    const loaded = await this.#queue.add(async () => {
      const graph = await this.#backend.load(model, { threads, optimize, resident });
      try {
        checkResident(resident, graph.inputs, graph.outputs);
      } catch (error) {
        await this.#backend.release(graph.graph);
        throw error;
      }
      const session = new QueuedSession(this.#backend, this.#queue, graph, resident, () =>
        this.#sessions.delete(session),
      );
      this.#sessions.add(session);
      return session;
    });
    return loaded;
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      // Loads that were asked for before still finish, and their sessions are closed too.
      await this.#queue.idle();
      await Promise.all([...this.#sessions].map((session) => session.close()));
      await this.#backend.close();
    })();
    for (const session of this.#sessions) session.seal();
    return this.#closing;
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new ScrimError('ENGINE_FAILED', 'the engine is closed');
  }
}

class QueuedSession implements Session {
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly #backend: Backend;
  readonly #queue: RunQueue;
  readonly #graph: number;
  readonly #onClose: () => void;
  /** Outputs that take an input's place in the next run. */
  readonly #stays: ReadonlySet<string>;
  readonly #resident: ReadonlySet<string>;
  /** Resident inputs that hold something. */
  #kept: ReadonlySet<string> = new Set();
  #sealed = false;
  #closing: Promise<void> | undefined;

  constructor(
    backend: Backend,
    queue: RunQueue,
    loaded: LoadedGraph,
    resident: Readonly<Record<string, string>>,
    onClose: () => void,
  ) {
    this.#stays = new Set(Object.values(resident));
    this.#resident = new Set(Object.keys(resident));
    this.inputs = loaded.inputs;
    this.outputs = loaded.outputs;
    this.#graph = loaded.graph;
    this.#backend = backend;
    this.#queue = queue;
    this.#onClose = onClose;
  }

  async run(feeds: NamedTensors, options: RunOptions = {}): Promise<Record<string, Tensor>> {
    if (this.#sealed) throw new ScrimError('ENGINE_FAILED', 'the session is closed');
    const { signal, transfer = false } = options;
    const fetches = checkFetches(this.outputs, options.fetches, this.#stays);
    checkFeeds(this.inputs, feeds, this.#kept);
    const run = { fetches, transfer, ...(signal === undefined ? {} : { signal }) };
    // From here on the runs that follow may rely on what this one leaves.
    this.#kept = this.#resident;
    return this.#queue.add(() => this.#backend.run(this.#graph, feeds, run), signal);
  }

  close(): Promise<void> {
    this.#sealed = true;
    // The queue keeps the order: the graph is released after every run that was asked for before.
    this.#closing ??= this.#queue.add(() => this.#backend.release(this.#graph)).finally(this.#onClose);
    return this.#closing;
  }

  /** Refuses further runs. */
  seal(): void {
    this.#sealed = true;
  }
}

/**
 * Throws unless `threads` is an integer from 1 to 1024.
 * @throws ScrimError INVALID_ARGUMENT naming `what`.
 */
export function checkThreads(what: string, threads: number): void {
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new ScrimError('INVALID_ARGUMENT', `${what} is ${String(threads)}, expected an integer from 1 to 1024`);
  }
}
