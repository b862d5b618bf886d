// Timing in turns: a busy machine slows all sides alike, so the sides of a comparison take turns and ratios are made
// within a turn.

/** Middle of the values, or another quantile. */
export function quantile(values, q = 0.5) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

/** Milliseconds of `count` calls, one after another. */
export async function latencies(task, count) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await task();
    times.push(performance.now() - start);
  }
  return times;
}

/** Calls per second of `concurrency` callers in a closed loop for `seconds`, and the milliseconds of each call. */
export async function load(task, concurrency, seconds) {
  const start = performance.now();
  const end = start + seconds * 1000;
  const times = [];
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (performance.now() < end) {
        const called = performance.now();
        await task();
        times.push(performance.now() - called);
      }
    }),
  );
  return { perSecond: (1000 * times.length) / (performance.now() - start), times };
}

/** Number rounded to `digits` after the point. */
export function rounded(value, digits = 2) {
  return Number(value.toFixed(digits));
}
