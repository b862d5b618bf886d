/**
 * Errors on the wire: `{"error": …}` with an HTTP status, or a gRPC status.
 *
 * Open Inference Protocol, "Inference Response JSON Error Object"; the statuses of each code stand in errors.ts.
 * Reading maps a status back to a code. Text of the other side is cut to a length fit for a log.
 */
import { ERROR_CODES, ScrimError, type ScrimErrorCode } from '../errors.js';
import { decodeJson, type JsonObject } from './json-value.js';

const MAX_MESSAGE = 1000;
const MAX_BODY = 2 ** 16;

const CODE_OF_HTTP: ReadonlyMap<number, ScrimErrorCode> = new Map([
  [400, 'INVALID_ARGUMENT'],
  [401, 'UNAUTHENTICATED'],
  [403, 'PERMISSION_DENIED'],
  [404, 'NOT_FOUND'],
  [405, 'UNSUPPORTED'],
  [408, 'DEADLINE_EXCEEDED'],
  [409, 'ALREADY_EXISTS'],
  [413, 'LIMIT_EXCEEDED'],
  [415, 'UNSUPPORTED'],
  [429, 'RESOURCE_EXHAUSTED'],
  [499, 'CANCELLED'],
  [501, 'UNSUPPORTED'],
  [502, 'UNAVAILABLE'],
  [503, 'UNAVAILABLE'],
  [504, 'DEADLINE_EXCEEDED'],
]);

/** By gRPC status number; 0 is no error. */
const CODE_OF_GRPC: readonly ScrimErrorCode[] = [
  'INTERNAL',
  'CANCELLED',
  'INTERNAL',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'INVALID_ARGUMENT',
  'UNAVAILABLE',
  'INVALID_ARGUMENT',
  'UNSUPPORTED',
  'INTERNAL',
  'UNAVAILABLE',
  'INTERNAL',
  'UNAUTHENTICATED',
];

/** What a server answers for an error. The text of anything but a ScrimError stays inside. */
export interface WireError {
  readonly http: number;
  readonly grpc: number;
  readonly message: string;
}

/** Status and message to answer with. */
export function wireErrorOf(error: unknown): WireError {
  if (error instanceof ScrimError) return { http: error.info.http, grpc: error.info.grpc, message: error.message };
  const { http, grpc } = ERROR_CODES.INTERNAL;
  return { http, grpc, message: 'internal error' };
}

/** Body of an HTTP error. */
export function errorToJson(message: string): JsonObject {
  return { error: message };
}

/**
 * The error in an HTTP answer with a status other than 200. A body that is no v2 error is not quoted.
 * @param what names the call, such as 'infer of model m'
 */
export function errorFromHttp(status: number, body: Uint8Array, what: string): ScrimError {
  const code = CODE_OF_HTTP.get(status) ?? (status >= 400 && status < 500 ? 'INVALID_ARGUMENT' : 'INTERNAL');
  const text = messageIn(body) ?? 'the body is no v2 error';
  return new ScrimError(code, `${what}: HTTP ${status}: ${text}`, { details: { status } });
}

/** The error in a gRPC status. @param what names the call */
export function errorFromGrpc(status: number, message: string, what: string): ScrimError {
  const code = CODE_OF_GRPC[status] ?? 'INTERNAL';
  return new ScrimError(code, `${what}: gRPC status ${status}: ${clean(message)}`, { details: { status } });
}

function messageIn(body: Uint8Array): string | undefined {
  if (body.length === 0 || body.length > MAX_BODY) return undefined;
  try {
    const value = decodeJson(body);
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return undefined;
    // KServe's and MLServer's own errors come as `detail`, from the web framework below them.
    const { error, detail } = value as JsonObject;
    const text = typeof error === 'string' ? error : detail;
    return typeof text === 'string' ? clean(text) : undefined;
  } catch {
    return undefined;
  }
}

/** One line without control characters, cut to a bounded length. */
function clean(text: string): string {
  const line = text
    .slice(0, MAX_MESSAGE)
    .replace(/\p{Cc}+/gu, ' ')
    .trim();
  return text.length > MAX_MESSAGE ? `${line}…` : line;
}
