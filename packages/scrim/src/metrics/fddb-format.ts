/**
 * FDDB's text files: fold lists, ellipse lists, and result files with boxes ("rectangles" in FDDB's README).
 *
 * Fold list: one image name a line. Ellipse list: name, number of faces, then `major minor angle cx cy 1` for each.
 * Result file: name, number of detections, then `x y width height score` for each. The readers are strict: anything
 * else is INVALID_DATA with file and line. Finding the files on disk is left to `node/fddb-files.ts`.
 */
import { ScrimError } from '../errors.js';
import { type Ellipse, ellipseBox } from './ellipse-box.js';
import { assertBox, type ScoredBox } from './intersection-over-union.js';
import type { GroundTruth } from './match-detections.js';

/** A face of FDDB: the ellipse as annotated and the box around it. */
export interface FddbFace extends GroundTruth {
  readonly ellipse: Ellipse;
}

/** An image of FDDB with its faces, in the order of the file. `name` has no extension: `2002/08/11/big/img_591`. */
export interface FddbImage {
  readonly name: string;
  readonly faces: readonly FddbFace[];
}

/** What a detector found in one image. */
export interface ImageDetections {
  readonly name: string;
  readonly detections: readonly ScoredBox[];
}

/**
 * Reads a fold list, `FDDB-fold-NN.txt`; `file` is the name to use in messages.
 * @throws ScrimError INVALID_DATA naming file and line.
 */
export function parseFoldList(text: string, file: string): string[] {
  const lines = new Lines(text, file);
  const names = new NameTable(lines);
  while (!lines.atEnd()) names.read();
  return names.inOrder();
}

/**
 * Reads an ellipse list, `FDDB-fold-NN-ellipseList.txt`; `file` is the name to use in messages.
 * @throws ScrimError INVALID_DATA naming file and line.
 */
export function parseEllipseList(text: string, file: string): FddbImage[] {
  return parseRecords(text, file, 'face', ['major radius', 'minor radius', 'angle', 'cx', 'cy', '1'], (row) => {
    const [majorRadius, minorRadius, angle, centerX, centerY, one] = row.numbers as SixNumbers;
    if (majorRadius <= 0 || minorRadius <= 0) row.fail('a radius is not above 0');
    if (one !== 1) row.fail('the last field is not 1');
    const ellipse: Ellipse = { majorRadius, minorRadius, angle, centerX, centerY };
    return { ellipse, box: ellipseBox(ellipse) };
  }).map(({ name, rows }) => ({ name, faces: rows }));
}

/**
 * Reads a result file with boxes; `file` is the name to use in messages.
 * @throws ScrimError INVALID_DATA naming file and line.
 */
export function parseDetections(text: string, file: string): ImageDetections[] {
  return parseRecords(text, file, 'detection', ['x', 'y', 'width', 'height', 'score'], (row) => {
    const [x, y, width, height, score] = row.numbers as FiveNumbers;
    if (width < 0 || height < 0) row.fail('width or height is below 0');
    return { x, y, width, height, score };
  }).map(({ name, rows }) => ({ name, detections: rows }));
}

/**
 * Writes a result file with boxes; {@link parseDetections} reads back exactly the same numbers.
 * @throws ScrimError INVALID_ARGUMENT for a name that such a file can't hold, or a box or score that isn't finite.
 */
export function formatDetections(images: readonly ImageDetections[]): string {
  const lines: string[] = [];
  for (const { name, detections } of images) {
    const fault = nameFault(name);
    if (fault !== undefined) throw new ScrimError('INVALID_ARGUMENT', `images: ${fault}`);
    lines.push(name, String(detections.length));
    detections.forEach((detection, i) => {
      const { x, y, width, height, score } = detection;
      assertBox(detection, `images: detection ${i + 1} of ${name}`);
      if (!Number.isFinite(score)) {
        throw new ScrimError(
          'INVALID_ARGUMENT',
          `images: detection ${i + 1} of ${name} has a score that is not finite`,
        );
      }
      lines.push([x, y, width, height, score].join(' '));
    });
  }
  return lines.map((line) => `${line}\n`).join('');
}

type FiveNumbers = [number, number, number, number, number];
type SixNumbers = [...FiveNumbers, number];

interface Row {
  readonly numbers: readonly number[];
  fail(reason: string): never;
}

/** Records of a name line, a count line and `count` rows of numbers, one for each of `fields`. */
function parseRecords<T>(
  text: string,
  file: string,
  what: string,
  fields: readonly string[],
  toItem: (row: Row) => T,
): { name: string; rows: T[] }[] {
  const lines = new Lines(text, file);
  const names = new NameTable(lines);
  const records: { name: string; rows: T[] }[] = [];
  while (!lines.atEnd()) {
    const name = names.read();
    const count = readCount(lines, what);
    const rows: T[] = [];
    for (let i = 0; i < count; i++) {
      const where = `${what} ${i + 1} of ${count}`;
      const line = lines.next(`${where} (${fields.join(', ')})`);
      const fail = (reason: string): never => lines.fail(`${where}: ${reason}`);
      const parts = line.trim().split(/\s+/);
      if (parts.length !== fields.length) {
        fail(`has ${parts.length} fields, expected ${fields.length} (${fields.join(', ')})`);
      }
      const numbers = parts.map((part, f) => (NUMBER.test(part) ? Number(part) : fail(`${fields[f]} is not a number`)));
      const infinite = numbers.findIndex((value) => !Number.isFinite(value));
      if (infinite >= 0) fail(`${fields[infinite]} is too large`);
      rows.push(toItem({ numbers, fail }));
    }
    records.push({ name, rows });
  }
  return records;
}

const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

function readCount(lines: Lines, what: string): number {
  const line = lines.next(`the number of ${what}s`).trim();
  if (!/^\d{1,9}$/.test(line)) lines.fail(`expected the number of ${what}s, a whole number ≥ 0`);
  const count = Number(line);
  if (count > lines.left()) lines.fail(`announces ${count} ${what}s, but only ${lines.left()} lines follow`);
  return count;
}

/** The lines of a file; blank lines are allowed at its end only. */
class Lines {
  readonly #lines: readonly string[];
  readonly #file: string;
  #read = 0;

  constructor(text: string, file: string) {
    this.#lines = text.trimEnd() === '' ? [] : text.trimEnd().split('\n');
    this.#file = file;
  }

  atEnd(): boolean {
    return this.#read >= this.#lines.length;
  }

  left(): number {
    return this.#lines.length - this.#read;
  }

  /** Number, from 1, of the line that was read last. */
  get number(): number {
    return this.#read;
  }

  next(expected: string): string {
    const line = this.#lines[this.#read++];
    if (line === undefined) return this.fail(`the file ends where ${expected} should stand`);
    return line.trimEnd();
  }

  fail(reason: string): never {
    throw new ScrimError('INVALID_DATA', `${this.#file}:${this.#read}: ${reason}`, {
      details: { file: this.#file, line: this.#read },
    });
  }
}

/** Image names with the line each stood on: a name may come once in a file. */
class NameTable {
  readonly #lines: Lines;
  readonly #firstLine = new Map<string, number>();

  constructor(lines: Lines) {
    this.#lines = lines;
  }

  read(): string {
    const name = this.#lines.next('an image name');
    // A count that is too small leaves rows where the next name should be; say that, not "strange name".
    if (
      name.includes(' ') &&
      name
        .trim()
        .split(/\s+/)
        .every((part) => NUMBER.test(part))
    ) {
      this.#lines.fail('expected an image name, found a row of numbers: is the count above too small?');
    }
    const fault = nameFault(name);
    if (fault !== undefined) this.#lines.fail(fault);
    const first = this.#firstLine.get(name);
    if (first !== undefined) this.#lines.fail(`image ${name} stands on line ${first} already`);
    this.#firstLine.set(name, this.#lines.number);
    return name;
  }

  inOrder(): string[] {
    return [...this.#firstLine.keys()];
  }
}

/** Why `name` can't be an image name, or undefined. Names become paths below a folder, so none may climb out of it. */
function nameFault(name: string): string | undefined {
  if (name.trim() === '') return 'expected an image name, found a blank line';
  if (name.length > MAX_NAME_LENGTH) return `the image name has ${name.length} characters, above ${MAX_NAME_LENGTH}`;
  if (name !== name.trim()) return 'the image name begins or ends with a space';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff\\:]/.test(name)) {
    return 'the image name has a control character, a backslash or a colon';
  }
  if (name.split('/').some((segment) => segment === '' || segment === '.' || segment === '..')) {
    return 'the image name is not a plain relative path';
  }
  return undefined;
}

const MAX_NAME_LENGTH = 1024;
