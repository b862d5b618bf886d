/** Numbers and names as people read them. */

/** Keeps a number and its unit on one line. */
const NO_BREAK = '\u00a0';

/** Bytes: '65.3 kB'. */
export function bytes(count: number): string {
  if (count < 1000) return `${count}${NO_BREAK}bytes`;
  if (count < 1e6) return `${(count / 1e3).toFixed(count < 1e4 ? 2 : 1)}${NO_BREAK}kB`;
  return `${(count / 1e6).toFixed(2)}${NO_BREAK}MB`;
}

/** Milliseconds: '83 ms', '1.24 s'. */
export function duration(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)}${NO_BREAK}s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)}${NO_BREAK}ms`;
}

/** A size such as 92 × 32 × 32, on one line. */
export function dimensions(sizes: readonly number[]): string {
  return sizes.join(`${NO_BREAK}×${NO_BREAK}`);
}

/** A count with its noun. */
export function count(n: number, noun: string): string {
  return `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;
}
