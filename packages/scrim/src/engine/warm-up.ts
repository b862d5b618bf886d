/**
 * Warming up: the first run of a graph pays for what later runs reuse (memory, kernel choice, shader compilation on
 * a GPU). Making it before the clock or the first request matters is the caller's decision, never implicit.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { type Tensor, tensor } from '../tensor.js';
import type { NamedTensors, Session, ValueInfo } from './engine.js';

/**
 * Runs `session` on `feeds` and drops the results.
 * @param runs How often, ≥ 1; default 1. Shapes matter: warm up with those that will come.
 * @throws ScrimError as {@link Session.run}.
 */
export async function warmUp(session: Session, feeds: NamedTensors, runs = 1): Promise<void> {
  assertArgument(Number.isInteger(runs) && runs >= 1, `runs is ${runs}, expected an integer ≥ 1`);
  for (let i = 0; i < runs; i++) await session.run(feeds);
}

/**
 * Tensors of zeros (or empty strings) for `inputs`, with the sizes of symbolic dimensions taken from `sizes`.
 * @throws ScrimError INVALID_ARGUMENT naming the input and the dimension that has no size.
 */
export function zeroFeeds(
  inputs: readonly ValueInfo[],
  sizes: Readonly<Record<string, number>> = {},
): Record<string, Tensor> {
  return Object.fromEntries(
    inputs.map(({ name, dtype, shape }) => {
      const known = shape.map((dimension, axis) => {
        const size =
          typeof dimension === 'number' ? dimension : Object.hasOwn(sizes, dimension) ? sizes[dimension] : undefined;
        if (size === undefined) {
          throw new ScrimError(
            'INVALID_ARGUMENT',
            `sizes has nothing for dimension ${axis} ("${dimension}") of input "${name}"`,
          );
        }
        return size;
      });
      return [name, tensor(dtype, known)];
    }),
  );
}
