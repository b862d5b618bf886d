/**
 * Classification outputs: the best classes of a tensor as text `value:index[:label]`.
 *
 * Triton's classification extension. Values are written as C's `%f` does for floating point and as digits for
 * integers, since that is what clients compare with. Equal values come in the order of their index, NaN last.
 */
import { ScrimError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import type { BytesTensor, WireTensor } from './bytes-tensor.js';

/** One class as it stands in a classification output. */
export interface ClassScore {
  readonly value: number;
  readonly index: number;
  readonly label?: string;
}

/**
 * The best `count` classes of each row: a BYTES tensor of shape [classes], or [batch, classes] if `batched`.
 * @param batched true where the first dimension is the batch
 * @param labels text for each class, '' for none
 * @throws ScrimError INVALID_ARGUMENT for element types that have no order here (BOOL, BYTES, FP16, BF16).
 */
export function classify(
  tensor: WireTensor,
  count: number,
  options: { readonly batched?: boolean; readonly labels?: readonly string[] } = {},
): BytesTensor {
  const { batched = false, labels = [] } = options;
  const { dtype, shape } = tensor;
  if (dtype === 'bytes' || dtype === 'string' || dtype === 'bool' || dtype === 'float16' || dtype === 'bfloat16') {
    throw new ScrimError('INVALID_ARGUMENT', `an output of type ${dtype} can't be classified`);
  }
  const data = (tensor as Tensor).data as ArrayLike<number | bigint>;
  const batch = batched && shape.length > 0 ? (shape[0] ?? 0) : 1;
  const width = batch === 0 ? 0 : data.length / batch;
  const classes = Math.min(count, width);
  const fraction = dtype === 'float32' || dtype === 'float64';
  const encoder = new TextEncoder();
  const elements: Uint8Array[] = [];
  for (let row = 0; row < batch; row++) {
    const start = row * width;
    const order = Array.from({ length: width }, (_, i) => i).sort((a, b) =>
      descending(data[start + a]!, data[start + b]!),
    );
    for (const index of order.slice(0, classes)) {
      const value = data[start + index]!;
      const text = fraction ? sixDecimals(Number(value)) : String(value);
      const label = labels[index] ?? '';
      elements.push(encoder.encode(`${text}:${index}${label === '' ? '' : `:${label}`}`));
    }
  }
  return { dtype: 'bytes', shape: batched && shape.length > 0 ? [batch, classes] : [classes], data: elements };
}

/** Reads one element of a classification output. @throws ScrimError INVALID_DATA */
export function parseClassScore(element: Uint8Array): ClassScore {
  const text = new TextDecoder().decode(element);
  const match = /^(-?(?:\d+(?:\.\d+)?|inf|nan)):(\d+)(?::([\s\S]*))?$/i.exec(text);
  if (match === null) throw new ScrimError('INVALID_DATA', "a class is not of the form 'value:index[:label]'");
  const [, value = '', index = '', label] = match;
  const word = value.replace('-', '').toLowerCase();
  const sign = value.startsWith('-') ? -1 : 1;
  const number = word === 'inf' ? sign * Number.POSITIVE_INFINITY : word === 'nan' ? Number.NaN : Number(value);
  return { value: number, index: Number(index), ...(label === undefined ? {} : { label }) };
}

function descending(a: number | bigint, b: number | bigint): number {
  if (a > b) return -1;
  if (a < b) return 1;
  return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
}

/** `value` with six decimals, halves to even: C's `%f`. */
export function sixDecimals(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  const size = Math.abs(value);
  if (size === Number.POSITIVE_INFINITY) return `${sign}inf`;
  if (size >= 1e21) return `${sign}${BigInt(size)}.000000`;
  // toFixed rounds halves up. An exact half at the seventh decimal is an odd multiple of 1/128.
  const multiple = size * 128;
  if (multiple % 2 !== 1) return `${sign}${size.toFixed(6)}`;
  const doubled = BigInt(multiple) * 15_625n;
  const below = doubled / 2n;
  const millionths = String(below % 2n === 0n ? below : below + 1n).padStart(7, '0');
  return `${sign}${millionths.slice(0, -6)}.${millionths.slice(-6)}`;
}
