/**
 * Remembers what the JSON parts of messages said.
 *
 * Whoever infers again and again sends the same JSON again and again, and only the tensors behind it differ. Reading it
 * takes long between two runs of a model, as the processor has forgotten the reader's code by then; comparing bytes does
 * not. What is remembered is shared by all messages that say it: nobody may change it.
 */

/** Longer ones are read each time. */
const MAX_BYTES = 2 ** 12;
/** Heads that are remembered; the oldest go first. */
const MAX_HEADS = 16;

/** Heads of messages of one kind, read with the same limits. */
export class HeadMemo<T> {
  readonly #kept: { readonly json: Uint8Array; readonly head: T }[] = [];

  /** What the same bytes said before; undefined if they are not remembered. */
  find(json: Uint8Array): T | undefined {
    return this.#kept.find((entry) => isSame(entry.json, json))?.head;
  }

  /** Remembers what `json` says. */
  keep(json: Uint8Array, head: T): void {
    if (json.length > MAX_BYTES) return;
    // Copied: the message's memory is used again.
    this.#kept.push({ json: new Uint8Array(json), head });
    if (this.#kept.length > MAX_HEADS) this.#kept.shift();
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
