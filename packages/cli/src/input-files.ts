/**
 * Inputs of models that read no photos, from files: .npy arrays of numbers, .csv tables of numbers and .wav recordings.
 *
 * Each file gives rows, one input of the model each, in the shape the model declares. An array with the model's rank holds
 * one row for each place of its first axis, one with a rank less is a single row. A table holds a row a line, with or
 * without a line of names. A recording is mixed to one channel and cut into windows as long as the model's input.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { float32, ScrimError, type Tensor } from 'scrim';
import type { Dimension } from 'scrim/onnx';
import { decodeNpy } from './npy.js';
import { decodeWav } from './wav.js';

/** The model's input: its name, and its shape with the batch first. */
export interface InputShape {
  readonly name: string;
  readonly shape: readonly Dimension[];
}

/** One input of the model. */
export interface InputRow {
  /** Name of the file, with the number of the row where it has more than one. */
  readonly label: string;
  /** [1, …]. */
  readonly tensor: Tensor<'float32'>;
}

const READERS: Readonly<Record<string, (bytes: Uint8Array, file: string, input: InputShape) => Tensor<'float32'>[]>> = {
  '.npy': readArray,
  '.csv': readTable,
  '.wav': readRecording,
};

/** True for a file that {@link readInputs} reads. */
export function isInputFile(path: string): boolean {
  return Object.hasOwn(READERS, extname(path).toLowerCase());
}

/** Files in the order they are read: files as they are named, folders (not those inside them) by name. */
export async function listInputFiles(paths: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const path of paths) {
    const found = await stat(path).catch((error: unknown) => {
      throw new ScrimError('NOT_FOUND', `'${path}' can't be read`, { cause: error });
    });
    if (!found.isDirectory()) {
      if (!isInputFile(path)) {
        throw new ScrimError('INVALID_DATA', `'${path}' is not read: inputs are .npy, .csv or .wav files`);
      }
      files.push(path);
      continue;
    }
    const names = (await readdir(path)).filter(isInputFile).sort();
    if (names.length === 0) throw new ScrimError('NOT_FOUND', `there is no .npy, .csv or .wav file in '${path}'`);
    files.push(...names.map((name) => join(path, name)));
  }
  return files;
}

/** The rows of all files, one after the other. @throws ScrimError NOT_FOUND, INVALID_DATA naming file and reason */
export async function* readInputs(files: readonly string[], input: InputShape): AsyncGenerator<InputRow> {
  for (const file of files) {
    const read = READERS[extname(file).toLowerCase()];
    const bytes = await readFile(file).catch((error: unknown) => {
      throw new ScrimError('NOT_FOUND', `'${file}' can't be read`, { cause: error });
    });
    let rows: Tensor<'float32'>[] = [];
    try {
      rows = read?.(bytes, file, input) ?? [];
    } catch (error) {
      if (error instanceof ScrimError && !error.message.includes(file)) {
        throw new ScrimError(error.code, `'${file}': ${error.message}`, { cause: error });
      }
      throw error;
    }
    for (const [i, tensor] of rows.entries()) {
      yield { label: rows.length === 1 ? basename(file) : `${basename(file)}#${i}`, tensor };
    }
  }
}

function fail(message: string): never {
  throw new ScrimError('INVALID_DATA', message);
}

function show(shape: readonly Dimension[]): string {
  return `[${shape.map((size) => (size === '' ? '?' : size)).join(', ')}]`;
}

/** The sizes of one row. @throws ScrimError INVALID_DATA if `found` does not fit what the model declares */
function expectRow(found: readonly number[], { name, shape }: InputShape): void {
  const declared = shape.slice(1);
  const fits =
    found.length === declared.length && declared.every((size, i) => typeof size === 'string' || size === found[i]);
  if (!fits) fail(`a row is ${show(found)}, the model's input '${name}' is ${show(shape)}`);
}

function readArray(bytes: Uint8Array, _file: string, input: InputShape): Tensor<'float32'>[] {
  const { shape, data } = decodeNpy(bytes);
  const { length: rank } = input.shape;
  if (shape.length !== rank && shape.length !== rank - 1) {
    fail(`the array is ${show(shape)}, the model's input '${input.name}' is ${show(input.shape)}`);
  }
  const row = shape.length === rank ? shape.slice(1) : shape;
  expectRow(row, input);
  const count = shape.length === rank ? (shape[0] ?? 0) : 1;
  if (count === 0) fail('the array has no row');
  const size = data.length / count;
  return Array.from({ length: count }, (_, i) => float32([1, ...row], data.slice(i * size, (i + 1) * size)));
}

/** Sizes of a row that holds `count` numbers in a line: the model's own where they are known. */
function rowOf(count: number, input: InputShape): number[] {
  const declared = input.shape.slice(1);
  if (declared.length === 1) {
    expectRow([count], input);
    return [count];
  }
  if (!declared.every((size) => typeof size === 'number') || product(declared) !== count) {
    fail(`a row has ${count} numbers, the model's input '${input.name}' is ${show(input.shape)}`);
  }
  return declared;
}

function product(sizes: readonly number[]): number {
  return sizes.reduce((a, b) => a * b, 1);
}

function readTable(bytes: Uint8Array, _file: string, input: InputShape): Tensor<'float32'>[] {
  const { rows } = parseTable(new TextDecoder().decode(bytes));
  if (rows.length === 0) fail('the table has no row');
  return rows.map((values) => float32([1, ...rowOf(values.length, input)], values));
}

/** A table of numbers: names of the columns, where the first line holds any, and rows of one length. */
export function parseTable(text: string): {
  readonly names: readonly string[] | undefined;
  readonly rows: Float32Array[];
} {
  const lines = text.split(/\r?\n/);
  let names: string[] | undefined;
  const rows: Float32Array[] = [];
  let columns = 0;
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '') continue;
    const cells = line.split(/[,;\t]/).map((cell) => cell.trim().replace(/^"(.*)"$/, '$1'));
    const values = cells.map((cell) => (cell === '' ? Number.NaN : Number(cell)));
    const wrong = values.findIndex((value) => !Number.isFinite(value));
    if (wrong >= 0 && rows.length === 0 && names === undefined) {
      names = cells;
      columns = cells.length;
      continue;
    }
    if (wrong >= 0) fail(`line ${i + 1}, column ${wrong + 1} is no number`);
    if (columns !== 0 && values.length !== columns) {
      fail(`line ${i + 1} has ${values.length} columns, the lines before it ${columns}`);
    }
    columns = values.length;
    rows.push(Float32Array.from(values));
  }
  return { names, rows };
}

function readRecording(bytes: Uint8Array, _file: string, input: InputShape): Tensor<'float32'>[] {
  const { samples } = decodeWav(bytes);
  const declared = input.shape.slice(1);
  const open = declared.filter((size) => typeof size !== 'number').length;
  if (open > 1)
    fail(`the model's input '${input.name}' is ${show(input.shape)}: bind its sizes with 'scrim model bind'`);
  if (open === 1) {
    const known = product(declared.filter((size) => typeof size === 'number') as number[]);
    const length = Math.floor(samples.length / known);
    if (length === 0) fail(`the recording has ${samples.length} samples, too few for ${show(input.shape)}`);
    const row = declared.map((size) => (typeof size === 'number' ? size : length));
    return [float32([1, ...row], samples.slice(0, known * length))];
  }
  const row = declared as readonly number[];
  const size = product(row);
  const count = Math.floor(samples.length / size);
  if (count === 0) fail(`the recording has ${samples.length} samples, a window of the model ${size}`);
  return Array.from({ length: count }, (_, i) => float32([1, ...row], samples.slice(i * size, (i + 1) * size)));
}
