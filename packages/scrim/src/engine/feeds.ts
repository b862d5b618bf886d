/**
 * Checks the tensors and names of one run against a graph's inputs and outputs, before anything is copied or sent.
 *
 * A graph's rank-0 shape is not checked: onnxruntime reports a scalar and a value of unknown rank alike. Symbolic
 * dimensions accept any size; that two inputs agree on one is left to the runtime.
 */
import { ScrimError } from '../errors.js';
import { type DataType, sizeOf, type Tensor } from '../tensor.js';
import type { NamedTensors, ValueInfo } from './engine.js';

const ARRAY_NAMES: Readonly<Record<DataType, string>> = {
  float32: 'Float32Array',
  float64: 'Float64Array',
  float16: 'Uint16Array',
  bfloat16: 'Uint16Array',
  int8: 'Int8Array',
  uint8: 'Uint8Array',
  int16: 'Int16Array',
  uint16: 'Uint16Array',
  int32: 'Int32Array',
  uint32: 'Uint32Array',
  int64: 'BigInt64Array',
  uint64: 'BigUint64Array',
  bool: 'Uint8Array',
  string: 'Array',
};

/**
 * Throws unless `feeds` holds exactly one well-formed tensor for each of `inputs`; those in `kept` may be left out.
 * @throws ScrimError INVALID_ARGUMENT naming the input, what arrived and what is expected.
 */
export function checkFeeds(
  inputs: readonly ValueInfo[],
  feeds: NamedTensors,
  kept: ReadonlySet<string> = new Set(),
): void {
  if (typeof feeds !== 'object' || feeds === null) {
    throw new ScrimError('INVALID_ARGUMENT', `feeds is ${feeds === null ? 'null' : typeof feeds}, expected an object`);
  }
  for (const input of inputs) {
    if (!Object.hasOwn(feeds, input.name) || feeds[input.name] === undefined) {
      if (kept.has(input.name)) continue;
      throw new ScrimError('INVALID_ARGUMENT', `input "${input.name}" is missing; the graph takes ${list(inputs)}`, {
        details: { input: input.name },
      });
    }
    checkTensor(input, feeds[input.name] as Tensor);
  }
  for (const name of Object.keys(feeds)) {
    if (!inputs.some((input) => input.name === name)) {
      throw new ScrimError('INVALID_ARGUMENT', `input "${name}" is unknown; the graph takes ${list(inputs)}`, {
        details: { input: name },
      });
    }
  }
}

/**
 * The outputs to compute: `fetches` without repetitions, or all of `outputs`.
 * @throws ScrimError INVALID_ARGUMENT for a name that is no output, or for none at all.
 */
export function checkFetches(
  outputs: readonly ValueInfo[],
  fetches?: readonly string[],
  stays: ReadonlySet<string> = new Set(),
): readonly string[] {
  if (fetches === undefined) return outputs.map((output) => output.name).filter((name) => !stays.has(name));
  if (fetches.length === 0 && stays.size === 0)
    throw new ScrimError('INVALID_ARGUMENT', 'fetches is empty, expected at least one output');
  for (const name of fetches) {
    if (!outputs.some((output) => output.name === name)) {
      throw new ScrimError('INVALID_ARGUMENT', `output "${name}" is unknown; the graph gives ${list(outputs)}`, {
        details: { output: name },
      });
    }
  }
  return [...new Set(fetches)];
}

/**
 * Throws unless `resident` pairs inputs with outputs of the same element type, each output once.
 * @throws ScrimError INVALID_ARGUMENT naming the pair.
 */
export function checkResident(
  resident: Readonly<Record<string, string>>,
  inputs: readonly ValueInfo[],
  outputs: readonly ValueInfo[],
): void {
  const seen = new Set<string>();
  for (const [inputName, outputName] of Object.entries(resident)) {
    const input = inputs.find(({ name }) => name === inputName);
    const output = outputs.find(({ name }) => name === outputName);
    if (input === undefined || output === undefined || input.dtype !== output.dtype || seen.has(outputName)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `resident pairs "${inputName}" with "${outputName}", expected an input and an output of one element type, ` +
          `each used once; the graph takes ${list(inputs)} and gives ${list(outputs)}`,
      );
    }
    seen.add(outputName);
  }
}

/** `value` for people: its name, element type and shape, such as `x float32 [batch, 3]`; '?' is an unknown size. */
export function formatValueInfo(value: ValueInfo): string {
  return `${value.name} ${value.dtype} [${formatShape(value.shape)}]`;
}

function checkTensor(input: ValueInfo, value: Tensor): void {
  if (typeof value !== 'object' || value === null) reject(input, 'is no tensor');
  const { dtype, shape, data } = value;
  if (dtype !== input.dtype) reject(input, `is ${String(dtype)}, expected ${input.dtype}`);
  if (!Array.isArray(shape)) reject(input, 'has no shape');
  if (!fits(input.shape, shape)) {
    reject(input, `has shape [${formatShape(shape)}], expected [${formatShape(input.shape)}]`);
  }
  const array = arrayName(data);
  if (array !== ARRAY_NAMES[dtype]) reject(input, `holds a ${array}, expected a ${ARRAY_NAMES[dtype]} for ${dtype}`);
  const size = sizeOf(shape);
  if (data.length !== size) {
    reject(input, `has ${data.length} elements, expected ${size} for shape [${formatShape(shape)}]`);
  }
  if (dtype === 'string') checkStrings(input, data as readonly unknown[]);
}

function checkStrings(input: ValueInfo, elements: readonly unknown[]): void {
  for (const [i, element] of elements.entries()) {
    if (typeof element !== 'string') reject(input, 'has an element that is no string');
    // onnxruntime's C interface ends a string there and would run the rest of it away without a word.
    if (element.includes('\0')) reject(input, `has a NUL character in element ${i}, which onnxruntime can't take`);
  }
}

function fits(expected: ValueInfo['shape'], actual: readonly number[]): boolean {
  if (expected.length === 0) return true;
  return (
    expected.length === actual.length &&
    expected.every((dimension, i) => typeof dimension === 'string' || dimension === actual[i])
  );
}

// Object.prototype.toString rather than instanceof: it also holds for arrays made in another realm.
function arrayName(data: unknown): string {
  return Object.prototype.toString.call(data).slice(8, -1);
}

function formatShape(shape: readonly (number | string)[]): string {
  return shape.map((dimension) => (dimension === '' ? '?' : String(dimension))).join(', ');
}

function list(values: readonly ValueInfo[]): string {
  return values.length === 0 ? 'no tensors' : values.map(formatValueInfo).join('; ');
}

function reject(input: ValueInfo, what: string): never {
  throw new ScrimError('INVALID_ARGUMENT', `input "${input.name}" ${what}`, { details: { input: input.name } });
}
