/**
 * Work spread over processes: reading, composing and preparing photos takes a core each, and a process of its own has its
 * own threads for pictures. worker-main.ts is what they run.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ScrimError, type ScrimErrorCode } from 'scrim';
import { usableProcessors } from 'scrim/node';

/** One share of a work: photos, canvases or the like i with i mod `count` = `index`. */
export interface Share {
  readonly index: number;
  readonly count: number;
}

/** Does one share and hands on results as they come. */
export type Work<S, T> = (setup: S, share: Share, say: (value: T) => Promise<void>) => Promise<void>;

/** What a worker is told at its start. */
export interface WorkerTask {
  readonly kind: 'activations' | 'samples';
  readonly setup: unknown;
  readonly share: Share;
}

/** What a worker says. */
export type WorkerMessage<T> =
  | { readonly kind: 'result'; readonly value: T }
  | { readonly kind: 'end' }
  | { readonly kind: 'failed'; readonly code: ScrimErrorCode; readonly message: string };

/** Fewer pieces than this are not worth a process, which takes half a second to start. */
const LEAST_SHARE = 32;
const MOST_WORKERS = 16;

/** How many processes suit `pieces` of work here: `asked`, or one for two cores. */
export function workersFor(pieces: number, asked?: number): number {
  const most = asked ?? Math.min(MOST_WORKERS, Math.floor(usableProcessors() / 2));
  return Math.max(1, Math.min(most, asked === undefined ? Math.floor(pieces / LEAST_SHARE) : pieces));
}

/**
 * Runs shares of a task in processes and yields what they say, as it comes.
 * @throws ScrimError what a worker failed with; CANCELLED if the signal fires; ENGINE_FAILED if one ends without a word
 */
export async function* runWorkers<T>(
  kind: WorkerTask['kind'],
  setup: unknown,
  count: number,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const queue: WorkerMessage<T>[] = [];
  let wake = (): void => {};
  const say = (message: WorkerMessage<T>): void => {
    queue.push(message);
    wake();
  };
  const fail = (code: ScrimErrorCode, message: string): void => say({ kind: 'failed', code, message });
  const cancel = (): void => fail('CANCELLED', 'the work was interrupted');
  signal.addEventListener('abort', cancel, { once: true });
  const children = Array.from({ length: count }, (_, index) => {
    const task: WorkerTask = { kind, setup, share: { index, count } };
    const child = fork(workerPath(), [], {
      serialization: 'advanced',
      execArgv: [],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    let ended = false;
    child.on('message', (message) => {
      const said = message as WorkerMessage<T>;
      ended ||= said.kind !== 'result';
      say(said);
    });
    child.on('error', (error) => fail('ENGINE_FAILED', `a worker can't be started: ${error.message}`));
    child.on('exit', (code, by) => {
      if (!ended) fail('ENGINE_FAILED', `a worker ended ${by === null ? `with code ${code}` : `by signal ${by}`}`);
    });
    child.send(task, () => {});
    return child;
  });
  let running = count;
  try {
    if (signal.aborted) cancel();
    while (running > 0) {
      const message = queue.shift();
      if (message === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      if (message.kind === 'failed') throw new ScrimError(message.code, message.message);
      if (message.kind === 'end') running--;
      else yield message.value;
    }
  } finally {
    signal.removeEventListener('abort', cancel);
    await Promise.all(children.map(end));
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGKILL');
  await ended;
}

/** The compiled entry point, also where this file runs from its source. */
function workerPath(): string {
  const path = fileURLToPath(new URL('./worker-main.js', import.meta.url));
  return import.meta.url.endsWith('.ts') ? path.replace(/([\\/])src([\\/])worker-main/, '$1dist$2worker-main') : path;
}
