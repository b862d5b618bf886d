/**
 * Clean activations and answers of canvases in a folder: several processes fill it, several fits read it.
 *
 * `meta.json` says what they are of and is written last: a folder without it is unfinished. Beside it lie plain arrays, a
 * row for each canvas, little-endian float32 or bytes: `activation.f32`, `output-NAME.f32`, `reconstruction.u8` (pictures
 * of the first canvases) and `picture.u8` (small pictures for an adversary).
 */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ScrimError, type Tensor } from 'scrim';
import { writeFileAtomically } from 'scrim/node';
import { type ActivationCache, createActivationCache } from 'scrim/noise';
import type { RgbImage } from 'scrim/vision';

const FORMAT = 'scrim-activations-1';
const META = 'meta.json';
/** What a folder may hold before it is finished. */
const OWN_FILES = /^((activation|output-.+)\.f32|(reconstruction|picture)\.u8)$/;
const { O_CREAT, O_RDONLY, O_WRONLY } = constants;

/** What is stored of each canvas. */
export interface StoredRow {
  /** [1, C, …] */
  readonly activation: Tensor<'float32'>;
  /** By name of the output; the batch of 1 first. */
  readonly outputs: ReadonlyMap<string, Tensor<'float32'>>;
  readonly reconstruction?: RgbImage;
  readonly picture?: RgbImage;
}

/** Shapes of the rows; a process learns them from its first canvas. */
export interface RowShapes {
  readonly shape: readonly number[];
  readonly outputs: Readonly<Record<string, readonly number[]>>;
}

/** Everything in a folder. */
export interface StoredActivations {
  readonly cache: ActivationCache;
  readonly photoCount: number;
  readonly reconstruction: readonly RgbImage[];
  readonly pictures: readonly RgbImage[];
}

interface Meta extends RowShapes {
  readonly format: string;
  readonly origin: Readonly<Record<string, string>>;
  readonly count: number;
  readonly photoCount: number;
  /** Number of pictures and their size, for both kinds. */
  readonly reconstruction: PictureSet;
  readonly picture: PictureSet;
}

interface PictureSet {
  readonly count: number;
  readonly width: number;
  readonly height: number;
}

/**
 * Makes the folder, unless it is there: what an interrupted fit left in it is written over.
 * @throws ScrimError ALREADY_EXISTS if it holds anything else
 */
export async function prepareStore(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const other = (await readdir(folder)).find((name) => !OWN_FILES.test(name));
  if (other === undefined) return;
  throw new ScrimError('ALREADY_EXISTS', `'${folder}' holds '${other}', expected an empty or a new folder for --cache`);
}

/** Opens the arrays of a folder for one process to fill some of their rows. */
export function openRows(folder: string): { write(index: number, row: StoredRow): RowShapes; close(): void } {
  const files = new Map<string, number>();
  const put = (name: string, index: number, values: Float32Array | Uint8Array): void => {
    let file = files.get(name);
    if (file === undefined) {
      file = openSync(join(folder, name), O_CREAT | O_WRONLY);
      files.set(name, file);
    }
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    let written = 0;
    while (written < bytes.length) {
      written += writeSync(file, bytes, written, bytes.length - written, index * bytes.length + written);
    }
  };
  return {
    write(index, { activation, outputs, reconstruction, picture }) {
      put('activation.f32', index, activation.data);
      for (const [name, value] of outputs) put(outputFile(name), index, value.data);
      if (reconstruction) put('reconstruction.u8', index, reconstruction.data);
      if (picture) put('picture.u8', index, picture.data);
      const own = [...outputs].map(([name, value]) => [name, value.shape.slice(1)] as const);
      return { shape: activation.shape.slice(1), outputs: Object.fromEntries(own) };
    },
    close() {
      for (const file of files.values()) closeSync(file);
    },
  };
}

/** Declares a folder finished. */
export async function finishStore(folder: string, meta: Omit<Meta, 'format'>): Promise<void> {
  await writeFileAtomically(join(folder, META), `${JSON.stringify({ format: FORMAT, ...meta }, null, 2)}\n`);
}

/**
 * Reads a folder; undefined if there is no finished one.
 * @throws ScrimError INVALID_ARGUMENT if it was made for another fit; INVALID_DATA if it is no such folder or damaged
 */
export async function readStore(
  folder: string,
  origin: Readonly<Record<string, string>>,
): Promise<StoredActivations | undefined> {
  const meta = await readMeta(folder);
  if (meta === undefined) return undefined;
  for (const [name, wanted] of Object.entries(origin)) {
    const found = meta.origin[name];
    if (found !== wanted) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `the activations in '${folder}' were made with ${name} ${found}, this fit has ${wanted}: name another --cache`,
      );
    }
  }
  const { count, shape, outputs } = meta;
  const floats = (name: string, size: number): Float32Array[] => {
    const rows = Array.from({ length: count }, () => new Float32Array(size));
    readRows(join(folder, name), rows);
    return rows;
  };
  const pictures = (name: string, { count: n, width, height }: PictureSet): RgbImage[] => {
    const rows = Array.from({ length: n }, () => new Uint8Array(3 * width * height));
    if (n > 0) readRows(join(folder, name), rows);
    return rows.map((data) => ({ width, height, data }));
  };
  const answers = Object.entries(outputs).map(
    ([name, own]) => [name, { shape: own, values: floats(outputFile(name), sizeOf(own)) }] as const,
  );
  return {
    cache: createActivationCache(shape, floats('activation.f32', sizeOf(shape)), new Map(answers)),
    photoCount: meta.photoCount,
    reconstruction: pictures('reconstruction.u8', meta.reconstruction),
    pictures: pictures('picture.u8', meta.picture),
  };
}

async function readMeta(folder: string): Promise<Meta | undefined> {
  const path = join(folder, META);
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new ScrimError('INVALID_DATA', `'${path}' can't be read`, { cause: error });
  });
  if (text === undefined) return undefined;
  let meta: Partial<Meta>;
  try {
    meta = JSON.parse(text) as Partial<Meta>;
  } catch (error) {
    throw new ScrimError('INVALID_DATA', `'${path}' is no JSON`, { cause: error });
  }
  if (meta.format !== FORMAT) {
    throw new ScrimError('INVALID_DATA', `'${path}' has the format '${meta.format}', expected ${FORMAT}`);
  }
  return meta as Meta;
}

function readRows(path: string, rows: readonly (Float32Array | Uint8Array)[]): void {
  let file: number;
  try {
    file = openSync(path, O_RDONLY);
  } catch (error) {
    throw new ScrimError('INVALID_DATA', `'${path}' can't be read`, { cause: error });
  }
  try {
    rows.forEach((row, i) => {
      const bytes = new Uint8Array(row.buffer, row.byteOffset, row.byteLength);
      let read = 0;
      while (read < bytes.length) {
        const got = readSync(file, bytes, read, bytes.length - read, i * bytes.length + read);
        if (got === 0) throw new ScrimError('INVALID_DATA', `'${path}' ends in row ${i} of ${rows.length}`);
        read += got;
      }
    });
  } finally {
    closeSync(file);
  }
}

function outputFile(name: string): string {
  return `output-${encodeURIComponent(name)}.f32`;
}

function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}
