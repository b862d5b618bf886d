/**
 * What ort-worker-host.ts and ort-worker.ts agree on beside their messages: the data a thread starts with, and the
 * shared words by which the thread says when it is in native code and the host says when to stop.
 */
import type { RuntimeSettings } from './ort-runtime.js';

/** What the host hands over when it makes the thread. */
export interface OrtWorkerData {
  readonly settings: RuntimeSettings;
  /** Shared memory: the words {@link STOP} and {@link BUSY}. */
  readonly flags: Int32Array;
}

/** Index of the word that the host sets to 1 when nothing may be started any more. */
export const STOP = 0;

/** Index of the word that is 1 while the thread may be in native code. */
export const BUSY = 1;

/** Fresh flags, both 0. */
export function createFlags(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(8));
}

/** Runs `task` under {@link BUSY}; once {@link STOP} is set it starts nothing and never settles. */
export async function markBusy<T>(flags: Int32Array, task: () => Promise<T>): Promise<T> {
  // Mark first, look second: whoever sets STOP and then sees BUSY at 0 knows that nothing starts.
  Atomics.store(flags, BUSY, 1);
  try {
    if (Atomics.load(flags, STOP) === 0) return await task();
  } finally {
    Atomics.store(flags, BUSY, 0);
    Atomics.notify(flags, BUSY);
  }
  return new Promise<never>(() => {});
}

/** Sets {@link STOP} and blocks until {@link BUSY} is 0; false if that takes longer than `timeoutMs`. */
export function stopAndWait(flags: Int32Array, timeoutMs: number): boolean {
  Atomics.store(flags, STOP, 1);
  return Atomics.wait(flags, BUSY, 1, timeoutMs) !== 'timed-out';
}
