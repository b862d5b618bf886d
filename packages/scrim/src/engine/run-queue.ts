/**
 * A queue of asynchronous tasks: started in the order of the calls, at most `width` at a time, and waiting ones can
 * be taken out by an AbortSignal. It knows nothing of tensors; engines use it on both sides of a thread boundary.
 */
import { ScrimError } from '../errors.js';

interface Entry {
  readonly start: () => Promise<void>;
}

/** First in, first out, `width` at a time. */
export class RunQueue {
  readonly #width: number;
  readonly #defer: (step: () => void) => void;
  // A Set keeps the order of insertion and removes from the middle in constant time.
  readonly #waiting = new Set<Entry>();
  #active = 0;
  #idle: (() => void)[] = [];

  /**
   * @param width Tasks that may be under way at a time, ≥ 1.
   * @param defer Puts off the start of the next task; by default it starts at once. A thread whose tasks block it
   * passes `setImmediate`, so that messages which arrived meanwhile (cancellations) are read first.
   */
  constructor(width: number, defer: (step: () => void) => void = (step) => step()) {
    this.#width = width;
    this.#defer = defer;
  }

  /**
   * Runs `task` when its turn comes and settles as it does. If `signal` fires first, the promise rejects with
   * CANCELLED: a task that waits is dropped, one under way keeps its place in the queue until it ends.
   */
  add<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) {
        reject(cancelled(signal));
        return;
      }
      const onAbort = (): void => {
        this.#waiting.delete(entry);
        reject(cancelled(signal));
      };
      const entry: Entry = {
        start: async () => {
          try {
            resolve(await task());
          } catch (error) {
            reject(error);
          } finally {
            signal?.removeEventListener('abort', onAbort);
          }
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(entry);
      this.#advance();
    });
  }

  /** Resolves when nothing waits and nothing is under way. */
  idle(): Promise<void> {
    if (this.#active === 0 && this.#waiting.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #advance(): void {
    if (this.#active < this.#width && this.#waiting.size > 0) {
      this.#active++;
      this.#defer(() => void this.#startNext());
    }
    if (this.#active === 0 && this.#waiting.size === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  async #startNext(): Promise<void> {
    // Between #advance and here the last waiting task may have been cancelled.
    for (const entry of this.#waiting) {
      this.#waiting.delete(entry);
      await entry.start();
      break;
    }
    this.#active--;
    this.#advance();
  }
}

function cancelled(signal: AbortSignal | undefined): ScrimError {
  return new ScrimError('CANCELLED', 'the run was cancelled by its signal', { cause: signal?.reason });
}
