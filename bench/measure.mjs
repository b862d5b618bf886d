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

const RESAMPLES = 4000;
/** Share of the values at either end that a trimmed mean leaves out. */
const TRIM = 0.2;

/** Mean without the fifth at either end: a stall of the machine does not count, and the rest all does. */
export function trimmedMean(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const out = Math.floor(TRIM * sorted.length);
  const kept = sorted.slice(out, sorted.length - out);
  return kept.reduce((sum, value) => sum + value, 0) / kept.length;
}

/**
 * What one side takes more than the other, from ratios made within turns, some turns to a group (processes, say): the
 * trimmed mean of the logarithms, as a share, with its 95% bootstrap interval over groups and the turns within.
 */
export function pairedShare(groups) {
  const logs = groups.map((ratios) => ratios.map(Math.log));
  const any = (list) => list[Math.floor(Math.random() * list.length)];
  const resampled = Array.from({ length: RESAMPLES }, () =>
    trimmedMean(
      logs.flatMap(() => {
        const group = any(logs);
        return group.map(() => any(group));
      }),
    ),
  );
  return {
    share: Math.expm1(trimmedMean(logs.flat())),
    interval: [0.025, 0.975].map((q) => Math.expm1(quantile(resampled, q))),
    byGroup: logs.map((group) => Math.expm1(trimmedMean(group))),
  };
}

/** A tensor as an activation might be: float32 from 0 up to 1 or float16 from 1/8 up to 1, the same every time. */
export function activation(dtype, shape) {
  const length = shape.reduce((product, size) => product * size, 1);
  const value = (i) => ((i * 2654435761) >>> 8) / 2 ** 24;
  if (dtype === 'float32') return { dtype, shape, data: Float32Array.from({ length }, (_, i) => value(i)) };
  // Bits of float16: 0x3000 is 1/8, 0x3c00 is 1.
  return { dtype, shape, data: Uint16Array.from({ length }, (_, i) => 0x3000 + Math.floor(value(i) * 0xc00)) };
}
