import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { QueuePolicy } from './model-settings.js';
import { type QueuedRequest, RequestQueue } from './request-queue.js';

const OPEN: QueuePolicy = { maxQueueSize: 0, timeoutUs: 0, allowOverride: true, onTimeout: 'reject' };
const request = (fields: Partial<QueuedRequest> = {}): QueuedRequest => ({
  batchSize: 1,
  kind: 'a',
  priority: 1,
  timeoutUs: 0,
  arrivedNs: 0n,
  ...fields,
});

describe('the queue of a model', () => {
  it('hands out every request once, in order, in batches of one kind that are not too large', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ batchSize: fc.integer({ min: 1, max: 8 }), kind: fc.constantFrom('a', 'b') })),
        fc.uniqueArray(fc.integer({ min: 1, max: 8 }), { maxLength: 3 }),
        (fields, preferred) => {
          const queue = new RequestQueue([OPEN], { preferred, maxDelayUs: 0 }, 8);
          const requests = fields.map(request);
          for (const one of requests) queue.add(one);
          const seen: QueuedRequest[] = [];
          for (;;) {
            const { batch } = queue.next(0n);
            if (batch === undefined) break;
            expect(batch.reduce((sum, { batchSize }) => sum + batchSize, 0)).toBeLessThanOrEqual(8);
            expect(new Set(batch.map(({ kind }) => kind)).size).toBe(1);
            seen.push(...batch);
          }
          expect(seen).toEqual(requests);
          expect(queue.size).toBe(0);
        },
      ),
      { seed: 3, numRuns: 200 },
    );
  });

  it('waits for company until the delay is over, a preferred size is reached, or the next does not fit', () => {
    const batching = { preferred: [4], maxDelayUs: 100 };
    const queue = new RequestQueue([OPEN], batching, 8);
    queue.add(request());
    expect(queue.next(0n)).toEqual({ waitUntilNs: 100_000n });
    expect(queue.next(99_999n).batch).toBeUndefined();
    expect(queue.next(100_000n).batch).toHaveLength(1);
    for (let i = 0; i < 4; i++) queue.add(request());
    expect(queue.next(0n).batch).toHaveLength(4);
    queue.add(request());
    queue.add(request({ kind: 'b' }));
    expect(queue.next(0n).batch).toHaveLength(1);
  });

  it('refuses when full, and refuses or delays what waited too long', () => {
    const reject: QueuePolicy = { maxQueueSize: 2, timeoutUs: 10, allowOverride: true, onTimeout: 'reject' };
    const queue = new RequestQueue([reject], undefined, 1);
    queue.add(request({ timeoutUs: 5 }));
    queue.add(request({ timeoutUs: 50 }));
    expect(() => queue.add(request())).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
    expect(queue.nextDeadline()).toBe(5_000n);
    expect(queue.expire(4_999n)).toEqual([]);
    expect(queue.expire(5_000n)).toHaveLength(1);
    // A request may not stay longer than the model allows.
    expect(queue.nextDeadline()).toBe(10_000n);
    expect(queue.expire(10_000n)).toHaveLength(1);

    const delay = new RequestQueue([{ ...reject, onTimeout: 'delay' }], undefined, 1);
    const late = request();
    delay.add(late);
    expect(delay.expire(10_000n)).toEqual([]);
    const fresh = request({ arrivedNs: 10_000n });
    delay.add(fresh);
    expect([delay.next(10_000n).batch, delay.next(10_000n).batch]).toEqual([[fresh], [late]]);
  });

  it('serves higher priorities first', () => {
    const queue = new RequestQueue([OPEN, OPEN], undefined, 1);
    const low = request({ priority: 2 });
    const high = request();
    queue.add(low);
    queue.add(high);
    expect(queue.next(0n).batch).toEqual([high]);
    expect(queue.remove(low)).toBe(true);
    expect(queue.remove(low)).toBe(false);
    expect(queue.next(0n)).toEqual({});
  });
});
