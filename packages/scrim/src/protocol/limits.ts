/**
 * Limits on what a message may make the reader allocate.
 *
 * Every decoder of this room checks them before it allocates, on the decompressed size. The defaults follow Triton
 * where it has a limit (64 MiB of input, 100 levels of JSON) and bound what Triton leaves open.
 */
import { assertArgument, ScrimError } from '../errors.js';

/** Upper bounds on one message. All are integers ≥ 0. */
export interface Limits {
  /** Bytes of a message, after decompression. Default 64 MiB, as `--http-max-input-size`. */
  readonly maxBytes: number;
  /** Levels of nesting in JSON, protobuf and text format. Default 100. */
  readonly maxDepth: number;
  /** Tensors in one message: inputs, outputs or raw contents, counted apart. Default 1,024. */
  readonly maxTensors: number;
  /** Dimensions of one tensor. Default 32. */
  readonly maxRank: number;
  /** Elements of one tensor of fixed-size elements. Default 2²⁶. */
  readonly maxElements: number;
  /** Elements of one BYTES tensor, each of which becomes an object of about 100 bytes. Default 2²⁰. */
  readonly maxStrings: number;
  /** Numbers in the typed contents of one gRPC message, which cost up to 32 bytes of memory each. Default 2²². */
  readonly maxTypedElements: number;
  /** Parameters of one request, response, input or output. Default 1,024. */
  readonly maxParameters: number;
  /** JSON values, protobuf fields or text-format fields of one message, tensor contents apart. Default 2¹⁸. */
  readonly maxValues: number;
}

/** The limits in force where none are given. */
export const DEFAULT_LIMITS: Limits = Object.freeze({
  maxBytes: 64 * 2 ** 20,
  maxDepth: 100,
  maxTensors: 1024,
  maxRank: 32,
  maxElements: 2 ** 26,
  maxStrings: 2 ** 20,
  maxTypedElements: 2 ** 22,
  maxParameters: 1024,
  maxValues: 2 ** 18,
});

/**
 * The default limits with `changes` in place of some.
 * @throws ScrimError INVALID_ARGUMENT for a limit that is no integer ≥ 0 or an unknown name.
 */
export function createLimits(changes: Partial<Limits> = {}): Limits {
  for (const [name, value] of Object.entries(changes)) {
    assertArgument(Object.hasOwn(DEFAULT_LIMITS, name), `limits has no member '${name}'`);
    assertArgument(Number.isSafeInteger(value) && value >= 0, `limits.${name} is ${value}, expected an integer ≥ 0`);
  }
  assertArgument(
    (changes.maxDepth ?? 0) <= 1000,
    `limits.maxDepth is ${changes.maxDepth}, expected at most 1000: nesting uses the stack`,
  );
  return Object.freeze({ ...DEFAULT_LIMITS, ...changes });
}

/**
 * Throws unless `value` is at most `limits[limit]`.
 * @param what names what was counted, such as 'the request body'
 * @param unit follows the number, such as 'bytes'
 * @throws ScrimError LIMIT_EXCEEDED
 */
export function checkLimit(limits: Limits, limit: keyof Limits, value: number, what: string, unit: string): void {
  if (value > limits[limit]) {
    throw new ScrimError('LIMIT_EXCEEDED', `${what} has ${value} ${unit}, above the limit of ${limits[limit]}`, {
      details: { limit, value, maximum: limits[limit] },
    });
  }
}
