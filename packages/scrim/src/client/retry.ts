/**
 * Deadlines, cancelling and retries of a call, the same for every transport.
 *
 * Errors whose code is retryable (UNAVAILABLE and a server's own DEADLINE_EXCEEDED) are tried again after an exponential
 * delay with full jitter: uniform in [0, base·2ⁿ], or what Retry-After says if that is longer. One deadline
 * covers attempts and delays. Random numbers, clock and timer are passed in.
 */
import { assertArgument, ScrimError } from '../errors.js';

/** When a call is tried again. */
export interface RetryPolicy {
  /** Attempts after the first; 0 turns retries off. Default 3. */
  readonly retries?: number;
  /** Upper end of the first delay. Default 100. */
  readonly baseMs?: number;
  /** Upper end of every delay; a Retry-After beyond it ends the call. Default 5,000. */
  readonly maxMs?: number;
}

/** Time as retries see it. */
export interface RetryClock {
  /** Milliseconds that never go back. */
  now(): number;
  /** Milliseconds since 1970, for dates in Retry-After. */
  date(): number;
  /** Settles after `ms`, or at once when `signal` fires. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** What retries need of their surroundings. */
export interface RetryContext {
  readonly policy: Required<RetryPolicy>;
  readonly clock: RetryClock;
  /** A number in [0, 1), for jitter alone. */
  readonly random: () => number;
}

/** What one attempt gets. */
export interface Attempt {
  /** Fires when the caller cancels or the deadline passes. */
  readonly signal: AbortSignal;
  /** Milliseconds left until the deadline; undefined without one. */
  readonly remainingMs: number | undefined;
}

/** An error that came with a time to wait before the next attempt. */
export class RetryAfterError extends Error {
  constructor(
    readonly error: ScrimError,
    readonly afterMs: number | undefined,
  ) {
    super(error.message, { cause: error });
  }
}

/** Makes the context of a client. @throws ScrimError INVALID_ARGUMENT for numbers that are negative or no numbers */
export function createRetryContext(
  options: { readonly retry?: RetryPolicy; readonly random?: () => number; readonly clock?: RetryClock } = {},
): RetryContext {
  const { retry = {}, random = cryptoRandom, clock = systemClock } = options;
  const policy = { retries: 3, baseMs: 100, maxMs: 5_000, ...retry };
  assertArgument(Number.isSafeInteger(policy.retries) && policy.retries >= 0, 'retry.retries is no integer ≥ 0');
  assertArgument(policy.baseMs >= 0 && policy.maxMs >= 0, 'retry.baseMs or retry.maxMs is negative');
  return { policy, random, clock };
}

/**
 * Runs `attempt` until it succeeds, fails for good, or the deadline passes.
 * @param what names the call in errors
 * @throws ScrimError CANCELLED if `signal` fires, DEADLINE_EXCEEDED after `timeoutMs`, else the last attempt's error
 */
export async function withRetries<T>(
  what: string,
  { policy, clock, random }: RetryContext,
  options: {
    readonly timeoutMs?: number | undefined;
    readonly signal?: AbortSignal | undefined;
    readonly retryable?: boolean;
  },
  attempt: (attempt: Attempt) => Promise<T>,
): Promise<T> {
  const { timeoutMs, signal, retryable = true } = options;
  assertArgument(timeoutMs === undefined || timeoutMs > 0, `timeoutMs is ${timeoutMs}, expected a number above 0`);
  const started = clock.now();
  const controller = new AbortController();
  const ended = (): ScrimError | undefined => {
    if (signal?.aborted) return new ScrimError('CANCELLED', `${what} was cancelled`);
    if (timeoutMs !== undefined && clock.now() - started >= timeoutMs) return late(what, timeoutMs);
    return undefined;
  };
  const abort = (): void => controller.abort();
  signal?.addEventListener('abort', abort, { once: true });
  let timedOut = false;
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          controller.abort();
        }, timeoutMs);
  try {
    for (let tries = 0; ; tries++) {
      const over = ended();
      if (over) throw over;
      const left = timeoutMs === undefined ? undefined : timeoutMs - (clock.now() - started);
      try {
        return await attempt({ signal: controller.signal, remainingMs: left });
      } catch (thrown) {
        if (signal?.aborted) throw new ScrimError('CANCELLED', `${what} was cancelled`, { cause: thrown });
        if (timedOut) throw late(what, timeoutMs as number);
        const { error, afterMs = 0 } = thrown instanceof RetryAfterError ? thrown : { error: thrown };
        if (!(error instanceof ScrimError) || !error.info.retryable || !retryable || tries >= policy.retries)
          throw error;
        const delay = Math.max(random() * Math.min(policy.maxMs, policy.baseMs * 2 ** tries), afterMs);
        const tooLate = timeoutMs !== undefined && clock.now() - started + delay >= timeoutMs;
        if (afterMs > policy.maxMs || tooLate) throw error;
        await clock.sleep(delay, controller.signal);
        if (signal?.aborted) throw new ScrimError('CANCELLED', `${what} was cancelled`);
        if (timedOut) throw late(what, timeoutMs as number);
      }
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

/** Milliseconds that a Retry-After header asks for; undefined where it is missing or says nothing one can read. */
export function parseRetryAfter(value: string | null | undefined, nowMs: number): number | undefined {
  if (value === null || value === undefined) return undefined;
  if (/^\s*\d{1,9}\s*$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

function late(what: string, timeoutMs: number): ScrimError {
  return new ScrimError('DEADLINE_EXCEEDED', `${what} took longer than ${timeoutMs} ms`, { details: { timeoutMs } });
}

const systemClock: RetryClock = {
  now: () => performance.now(),
  date: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener('abort', done, { once: true });
    }),
};

function cryptoRandom(): number {
  return (globalThis.crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32;
}
