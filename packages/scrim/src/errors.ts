/**
 * One error class for the whole project and one closed table of codes.
 *
 * The table says, once, how each code looks from outside: HTTP status, gRPC status, exit code of the command line,
 * and whether sending the same request again can help. Messages name the argument, what arrived and what was
 * expected. Messages and details never carry tensor values, pixels, keys, seeds or tokens.
 */

/** What a {@link ScrimErrorCode} means to HTTP, gRPC, the command line and a retry loop. */
export interface ErrorCodeInfo {
  /** HTTP status the servers answer with. */
  readonly http: number;
  /** Numeric gRPC status code. */
  readonly grpc: number;
  /** Exit code of the `scrim` command: 2 for a wrong call, 1 for a failure, 130 for an interruption. */
  readonly exit: number;
  /** True where the same request may succeed later. */
  readonly retryable: boolean;
}

/** Every code a {@link ScrimError} can have; {@link ERROR_CODES} says what each means. */
export type ScrimErrorCode =
  | 'INVALID_ARGUMENT'
  | 'INVALID_MODEL'
  | 'INVALID_BUNDLE'
  | 'INVALID_DATA'
  | 'LIMIT_EXCEEDED'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'UNSUPPORTED'
  | 'UNAUTHENTICATED'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'UNAVAILABLE'
  | 'DEADLINE_EXCEEDED'
  | 'CANCELLED'
  | 'NOISE_FAILED'
  | 'DIVERGED'
  | 'ENGINE_FAILED'
  | 'INTERNAL';

/** What each code stands for and how it looks from outside. */
export const ERROR_CODES: Readonly<Record<ScrimErrorCode, ErrorCodeInfo>> = {
  /** An argument is of the wrong kind, shape or range. */
  INVALID_ARGUMENT: { http: 400, grpc: 3, exit: 2, retryable: false },
  /** Bytes that should be an ONNX model are not, or are inconsistent. */
  INVALID_MODEL: { http: 400, grpc: 3, exit: 1, retryable: false },
  /** A bundle is incomplete, tampered with, or does not fit its model. */
  INVALID_BUNDLE: { http: 400, grpc: 3, exit: 1, retryable: false },
  /** An image, checkpoint, annotation or other input file can't be read as what it should be. */
  INVALID_DATA: { http: 400, grpc: 3, exit: 1, retryable: false },
  /** A size, count or depth is above the limit that was set for it. */
  LIMIT_EXCEEDED: { http: 413, grpc: 8, exit: 1, retryable: false },
  /** A file, model, version or tensor of that name does not exist. */
  NOT_FOUND: { http: 404, grpc: 5, exit: 1, retryable: false },
  /** What was to be made exists already. */
  ALREADY_EXISTS: { http: 409, grpc: 6, exit: 1, retryable: false },
  /** The operator, option or feature is not supported. */
  UNSUPPORTED: { http: 501, grpc: 12, exit: 1, retryable: false },
  /** The caller is not authenticated. */
  UNAUTHENTICATED: { http: 401, grpc: 16, exit: 1, retryable: false },
  /** The caller may not do this, or a policy forbids it. */
  PERMISSION_DENIED: { http: 403, grpc: 7, exit: 1, retryable: false },
  /** A privacy budget, queue or quota is used up. */
  RESOURCE_EXHAUSTED: { http: 429, grpc: 8, exit: 1, retryable: false },
  /** The other side can't answer now. */
  UNAVAILABLE: { http: 503, grpc: 14, exit: 1, retryable: true },
  /** The deadline passed. */
  DEADLINE_EXCEEDED: { http: 504, grpc: 4, exit: 1, retryable: true },
  /** The caller cancelled. */
  CANCELLED: { http: 499, grpc: 1, exit: 130, retryable: false },
  /** The noise could not be made as specified; nothing was released. */
  NOISE_FAILED: { http: 500, grpc: 13, exit: 1, retryable: false },
  /** A fit or an attack diverged and was stopped. */
  DIVERGED: { http: 500, grpc: 13, exit: 1, retryable: false },
  /** The engine failed while it loaded or ran a graph. */
  ENGINE_FAILED: { http: 500, grpc: 13, exit: 1, retryable: false },
  /** A fault of the program itself. */
  INTERNAL: { http: 500, grpc: 13, exit: 1, retryable: false },
};

/** Values that may stand in {@link ScrimError.details}: names, sizes and settings, never data. */
export type ErrorDetails = Readonly<
  Record<string, string | number | boolean | readonly string[] | readonly number[] | undefined>
>;

/** The only error class the project throws on purpose. */
export class ScrimError extends Error {
  override readonly name = 'ScrimError';
  readonly code: ScrimErrorCode;
  readonly details: ErrorDetails;

  constructor(
    code: ScrimErrorCode,
    message: string,
    options: { readonly details?: ErrorDetails; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

  /** HTTP status, gRPC code, exit code and retryability of this error. */
  get info(): ErrorCodeInfo {
    return ERROR_CODES[this.code];
  }

  /** Returns `error` if it is a ScrimError, else wraps it under `code` with `message` in front of its own. */
  static from(error: unknown, code: ScrimErrorCode, message: string, details?: ErrorDetails): ScrimError {
    if (error instanceof ScrimError) return error;
    const reason = (error instanceof Error ? error.message : String(error)).trim();
    return new ScrimError(code, `${message}: ${reason}`, {
      cause: error,
      ...(details === undefined ? {} : { details }),
    });
  }
}

/** Throws `INVALID_ARGUMENT` with `message` unless `condition` holds. */
export function assertArgument(condition: unknown, message: string, details?: ErrorDetails): asserts condition {
  if (!condition) throw new ScrimError('INVALID_ARGUMENT', message, details === undefined ? {} : { details });
}
