import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RunQueue } from './run-queue.js';

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A promise that is settled by hand. */
function gate<T = void>(): { promise: Promise<T>; open: (value: T) => void; fail: (error: Error) => void } {
  let open!: (value: T) => void;
  let fail!: (error: Error) => void;
  const promise = new Promise<T>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { promise, open, fail };
}

describe('RunQueue', () => {
  it('starts in the order of the calls, never more than its width, and starts all that are not cancelled', async () => {
    const scenario = fc.record({
      width: fc.integer({ min: 1, max: 4 }),
      deferred: fc.boolean(),
      // For each task: after how many ticks it ends, whether it fails, and whether it is cancelled while it waits.
      tasks: fc.array(fc.record({ ticks: fc.nat(3), fails: fc.boolean(), cancels: fc.boolean() }), { maxLength: 20 }),
    });
    await fc.assert(
      fc.asyncProperty(scenario, async ({ width, deferred, tasks }) => {
        const queue = deferred ? new RunQueue(width, setImmediate) : new RunQueue(width);
        const started: number[] = [];
        let active = 0;
        let most = 0;
        const controllers = tasks.map(() => new AbortController());
        const results = tasks.map(({ ticks, fails }, i) =>
          queue.add(async () => {
            started.push(i);
            most = Math.max(most, ++active);
            for (let n = 0; n <= ticks; n++) await tick();
            active--;
            if (fails) throw new Error(`task ${i}`);
            return i;
          }, controllers[i]!.signal),
        );
        // Only those that wait: where starting is deferred, that is all of them.
        const waits = (i: number): boolean => deferred || i >= width;
        tasks.forEach(({ cancels }, i) => {
          if (cancels && waits(i)) controllers[i]!.abort();
        });
        const settled = await Promise.allSettled(results);
        await queue.idle();

        const expected = tasks.flatMap(({ cancels }, i) => (cancels && waits(i) ? [] : [i]));
        expect(started).toEqual(expected);
        expect(most).toBeLessThanOrEqual(width);
        settled.forEach((result, i) => {
          const { cancels, fails } = tasks[i]!;
          if (cancels && waits(i)) expect(result).toMatchObject({ reason: { code: 'CANCELLED' } });
          else if (fails) expect(result).toMatchObject({ reason: { message: `task ${i}` } });
          else expect(result).toEqual({ status: 'fulfilled', value: i });
        });
      }),
      { numRuns: 100, seed: 7 },
    );
  });

  it('drops the result of a task under way when its signal fires, but keeps its place until it ends', async () => {
    const queue = new RunQueue(1);
    const first = gate();
    const controller = new AbortController();
    const dropped = queue.add(() => first.promise, controller.signal);
    let second = false;
    const after = queue.add(async () => {
      second = true;
    });
    controller.abort(new Error('enough'));
    await expect(dropped).rejects.toMatchObject({ code: 'CANCELLED', cause: { message: 'enough' } });
    await tick();
    expect(second).toBe(false);
    first.open();
    await after;
    expect(second).toBe(true);
  });

  it('does not start what was cancelled before it was added, and is idle at once when empty', async () => {
    const queue = new RunQueue(1);
    await queue.idle();
    let started = false;
    const result = queue.add(async () => {
      started = true;
    }, AbortSignal.abort());
    await expect(result).rejects.toMatchObject({ code: 'CANCELLED' });
    await queue.idle();
    expect(started).toBe(false);
  });

  it('leaves no listener on a signal that outlives its runs', async () => {
    const queue = new RunQueue(1);
    const controller = new AbortController();
    let listeners = 0;
    const { signal } = controller;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--;
      remove(...args);
    };
    for (let i = 0; i < 5; i++) await queue.add(async () => i, signal);
    expect(listeners).toBe(0);
  });
});
