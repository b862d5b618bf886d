/**
 * The queue of one model: who waits, for how long, and which requests go together as one batch.
 *
 * Triton's dynamic batcher (model_configuration.md, "Dynamic Batcher"): preferred sizes go at once, anything goes when
 * the oldest request has waited for the allowed delay or the next one does not fit. It only decides; instances and
 * timers are the scheduler's. Times are nanoseconds of one clock.
 */
import { ScrimError } from '../errors.js';
import type { BatchingSettings, QueuePolicy } from './model-settings.js';

/** What the queue has to know of a request. */
export interface QueuedRequest {
  /** Its share of a batch, at least 1. */
  readonly batchSize: number;
  /** Requests with the same text may share a batch. */
  readonly kind: string;
  /** Priority level, 1-based. */
  readonly priority: number;
  /** Timeout the request asks for, in microseconds; 0 for none. */
  readonly timeoutUs: number;
  /** When it arrived. */
  readonly arrivedNs: bigint;
}

interface Entry<T> {
  readonly request: T;
  readonly deadlineNs: bigint | undefined;
}

/** What to do next: execute a batch, or wait until a moment (undefined: until something arrives). */
export type NextBatch<T> = { readonly batch: readonly T[] } | { readonly batch?: never; readonly waitUntilNs?: bigint };

/** Requests of one model that wait, in the order they will be served. */
export class RequestQueue<T extends QueuedRequest> {
  readonly #levels: { readonly policy: QueuePolicy; waiting: Entry<T>[]; delayed: Entry<T>[] }[];
  readonly #batching: BatchingSettings | undefined;
  readonly #maxBatch: number;
  #size = 0;

  constructor(policies: readonly QueuePolicy[], batching: BatchingSettings | undefined, maxBatch: number) {
    this.#levels = policies.map((policy) => ({ policy, waiting: [], delayed: [] }));
    this.#batching = batching;
    this.#maxBatch = maxBatch;
  }

  /** Requests that wait. */
  get size(): number {
    return this.#size;
  }

  /** Adds a request. @throws ScrimError UNAVAILABLE if the queue of its priority is full. */
  add(request: T): void {
    const level = this.#levels[request.priority - 1]!;
    const { maxQueueSize, timeoutUs, allowOverride } = level.policy;
    if (maxQueueSize > 0 && level.waiting.length + level.delayed.length >= maxQueueSize) {
      throw new ScrimError('UNAVAILABLE', 'Exceeds maximum queue size', { details: { maxQueueSize } });
    }
    const own = allowOverride ? request.timeoutUs : 0;
    const effective = own > 0 && (timeoutUs === 0 || own < timeoutUs) ? own : timeoutUs;
    const deadlineNs = effective > 0 ? request.arrivedNs + BigInt(effective) * 1000n : undefined;
    level.waiting.push({ request, deadlineNs });
    this.#size++;
  }

  /** Takes a request out; false if it does not wait here. */
  remove(request: T): boolean {
    for (const level of this.#levels) {
      for (const list of [level.waiting, level.delayed]) {
        const index = list.findIndex((entry) => entry.request === request);
        if (index === -1) continue;
        list.splice(index, 1);
        this.#size--;
        return true;
      }
    }
    return false;
  }

  /** Takes every request out. */
  clear(): T[] {
    const all = this.#levels.flatMap((level) => [...level.waiting, ...level.delayed].map(({ request }) => request));
    for (const level of this.#levels) {
      level.waiting = [];
      level.delayed = [];
    }
    this.#size = 0;
    return all;
  }

  /** Takes out the requests whose time is over and that are to be refused; those to be delayed move behind the rest. */
  expire(nowNs: bigint): T[] {
    const refused: T[] = [];
    for (const level of this.#levels) {
      if (!level.waiting.some(({ deadlineNs }) => deadlineNs !== undefined && deadlineNs <= nowNs)) continue;
      const waiting: Entry<T>[] = [];
      for (const entry of level.waiting) {
        if (entry.deadlineNs === undefined || entry.deadlineNs > nowNs) waiting.push(entry);
        else if (level.policy.onTimeout === 'delay')
          level.delayed.push({ request: entry.request, deadlineNs: undefined });
        else refused.push(entry.request);
      }
      level.waiting = waiting;
    }
    this.#size -= refused.length;
    return refused;
  }

  /** The next moment at which {@link expire} has something to do; undefined for none. */
  nextDeadline(): bigint | undefined {
    let next: bigint | undefined;
    for (const { waiting } of this.#levels) {
      for (const { deadlineNs } of waiting) {
        if (deadlineNs !== undefined && (next === undefined || deadlineNs < next)) next = deadlineNs;
      }
    }
    return next;
  }

  /** Takes the next batch out, or says until when to wait for a better one. */
  next(nowNs: bigint): NextBatch<T> {
    if (this.#size === 0) return {};
    if (this.#batching === undefined) return { batch: this.#take(1) };
    const { preferred, maxDelayUs } = this.#batching;
    const wanted = preferred.length > 0 ? preferred : [this.#maxBatch];
    let count = 0;
    let size = 0;
    let best = 0;
    let full = false;
    let oldest: bigint | undefined;
    let kind: string | undefined;
    for (const { request } of this.#inOrder()) {
      kind ??= request.kind;
      if (request.kind !== kind || size + request.batchSize > this.#maxBatch) {
        full = true;
        break;
      }
      count++;
      size += request.batchSize;
      if (oldest === undefined || request.arrivedNs < oldest) oldest = request.arrivedNs;
      if (wanted.includes(size)) best = count;
    }
    if (best > 0) return { batch: this.#take(best) };
    const dueNs = oldest! + BigInt(Math.round(maxDelayUs)) * 1000n;
    if (full || maxDelayUs === 0 || dueNs <= nowNs) return { batch: this.#take(count) };
    return { waitUntilNs: dueNs };
  }

  *#inOrder(): Generator<Entry<T>> {
    for (const { waiting, delayed } of this.#levels) {
      yield* waiting;
      yield* delayed;
    }
  }

  #take(count: number): T[] {
    const taken: T[] = [];
    for (const level of this.#levels) {
      for (const list of [level.waiting, level.delayed]) {
        if (taken.length < count) taken.push(...list.splice(0, count - taken.length).map(({ request }) => request));
      }
    }
    this.#size -= taken.length;
    return taken;
  }
}
