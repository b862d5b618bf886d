/**
 * A size that is a number while the graph is built, or an int64 value of one element that the graph computes when it
 * runs. Arithmetic folds numbers at once, so a model with fixed sizes gets no shape arithmetic at all and a model with
 * a symbolic batch gets only what the batch touches.
 */

/** A number, or the name of an int64 value of shape [1]. */
export type Size = number | { readonly value: string };

/** True if the size is known now. */
export function isFixed(size: Size): size is number {
  return typeof size === 'number';
}

/** True if every size is known now. */
export function areFixed(sizes: readonly Size[]): sizes is readonly number[] {
  return sizes.every(isFixed);
}
