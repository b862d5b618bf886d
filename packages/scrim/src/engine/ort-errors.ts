/**
 * onnxruntime's exceptions as ScrimErrors.
 *
 * Its messages may quote what a kernel met: an index, a requested shape, the text of a string. Those are tensor
 * values, so the message of a failed run keeps the node and the reason but loses every number and quotation, and the
 * original error is not kept as the cause. Messages about a model that can't be loaded speak of the model only.
 */
import { ScrimError } from '../errors.js';
import type { NamedTensors } from './engine.js';
import { formatValueInfo } from './feeds.js';

// Element types 14 to 23 of ONNXTensorElementDataType, which the JavaScript bindings refuse by number.
const TYPE_NAMES: Readonly<Record<string, string>> = {
  14: 'complex64',
  15: 'complex128',
  16: 'bfloat16',
  17: 'float8e4m3fn',
  18: 'float8e4m3fnuz',
  19: 'float8e5m2',
  20: 'float8e5m2fnuz',
  21: 'uint4',
  22: 'int4',
  23: 'float4e2m1',
};

/** What a failed load means: UNSUPPORTED for a type or operator without an implementation, else INVALID_MODEL. */
export function loadError(error: unknown): ScrimError {
  if (error instanceof ScrimError) return error;
  const reason = messageOf(error);
  const type = /unsupported data type: (\d+)/i.exec(reason)?.[1];
  if (type !== undefined) {
    const name = TYPE_NAMES[type] ?? `number ${type}`;
    return new ScrimError('UNSUPPORTED', `the graph takes or gives element type ${name}, which onnxruntime can't pass`);
  }
  const code = /Could not find an implementation|is not a registered function|No Op registered/i.test(reason)
    ? 'UNSUPPORTED'
    : 'INVALID_MODEL';
  return new ScrimError(code, `onnxruntime can't load the model: ${reason}`, { cause: error });
}

/** What a failed run means, told without any tensor value: the node, the kind of fault, and what was fed. */
export function runError(error: unknown, feeds: NamedTensors): ScrimError {
  if (error instanceof ScrimError) return error;
  const reason = messageOf(error);
  const node = /while running (\S+) node\. Name:'([^']*)'/.exec(reason);
  const status = /Status Message: ([\s\S]*)$/.exec(reason)?.[1] ?? reason;
  const where = node === null ? 'onnxruntime failed' : `${node[1]} node "${node[2]}" failed`;
  const fed = Object.entries(feeds).map(([name, { dtype, shape }]) => formatValueInfo({ name, dtype, shape }));
  return new ScrimError('ENGINE_FAILED', `${where}: ${withoutValues(status)} (fed: ${fed.join('; ')})`, {
    details: node === null ? {} : { operator: node[1], node: node[2] },
  });
}

/** `text` on one line, without the runtime's source positions, numbers and quotations. */
function withoutValues(text: string): string {
  return withoutPositions(text)
    .replace(/'[^']*'|"[^"]*"/g, "'…'")
    .replace(/(?<![\w.])[-+]?\d[\d.]*(e[-+]?\d+)?(?!\w)/gi, '#')
    .slice(0, 500);
}

// `path/file.cc:12 signature text` of a failed check, `file.h:12 text` of a returned status.
const SIGNATURE =
  /\S*\/\S*\.(?:cc|cpp|cuh?|h):\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?:::<lambda\([^()]*\)>)?(?: const)?/g;
const POSITION = /\S*\.(?:cc|cpp|cuh?|h):\d+/g;

function withoutPositions(text: string): string {
  return text.replace(SIGNATURE, '').replace(POSITION, '').replace(/\s+/g, ' ').trim();
}

function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return withoutPositions(text.replace(/^[\s\S]*?ERROR_MESSAGE: /, ''));
}
