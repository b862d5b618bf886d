/**
 * Entry point of the processes that workers.ts starts: does one share of a task, says what comes of it, and ends.
 *
 * It ends when its parent says so or is gone, never by the signals that a terminal sends to the whole group.
 */
import { ScrimError } from 'scrim';
import type { Work, WorkerMessage, WorkerTask } from './workers.js';

const WORKS: Readonly<Record<WorkerTask['kind'], () => Promise<Work<never, unknown>>>> = {
  activations: async () => (await import('./activation-work.js')).work,
  samples: async () => (await import('./sample-work.js')).work,
};

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
process.on('disconnect', () => process.exit());
process.once('message', async (task: WorkerTask) => {
  try {
    const work = await WORKS[task.kind]();
    await work(task.setup as never, task.share, (value) => say({ kind: 'result', value }));
    await say({ kind: 'end' });
  } catch (error) {
    const { code, message } = ScrimError.from(error, 'INTERNAL', 'a worker failed');
    await say({ kind: 'failed', code, message });
  }
  process.disconnect();
});

/** Resolves when the message is on its way, so that no more is held here than the pipe takes. */
function say(message: WorkerMessage<unknown>): Promise<void> {
  return new Promise((resolve) => {
    process.send?.(message, undefined, undefined, () => resolve());
  });
}
