/** Checks of arguments: a wrong one is the caller's fault and says which. */
import { ScrimError } from 'scrim';

/** Throws INVALID_ARGUMENT with `message` unless `condition` holds. */
export function assertArgument(condition: unknown, message: string): asserts condition {
  if (!condition) throw new ScrimError('INVALID_ARGUMENT', message);
}
