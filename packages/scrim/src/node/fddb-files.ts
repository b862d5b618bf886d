/**
 * FDDB on disk: its ellipse lists, and where its photos are.
 *
 * FDDB is unpacked as `FDDB-folds/FDDB-fold-NN-ellipseList.txt` (NN from 01 to 10) and
 * `originalPics/2002/08/11/big/img_591.jpg`. Some copies have the photos' folders beside `FDDB-folds` instead: that is
 * accepted too. What the lists mean is left to `metrics/fddb-format.ts`; photos without labels are found by
 * `photo-files.ts`.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ScrimError } from '../errors.js';
import { type FddbImage, parseEllipseList, parseFoldList } from '../metrics/fddb-format.js';

/** One fold of FDDB; `fold` counts from 1. */
export interface FddbFold {
  readonly fold: number;
  readonly images: readonly FddbImage[];
}

/** An image that the lists name, and whether its photo is there. */
export interface FddbPhoto {
  readonly fold: number;
  /** Name in the lists, without extension. */
  readonly name: string;
  /** Absolute path of the photo, be it there or not. */
  readonly path: string;
  readonly present: boolean;
}

/** FDDB as found in a folder. */
export interface FddbDataset {
  /** Absolute path of the data set. */
  readonly root: string;
  /** Folds with their annotations, by number: what `createFddbEvaluator` takes. */
  readonly folds: readonly FddbFold[];
  /** Every image of every fold, in the order of the lists. */
  readonly photos: readonly FddbPhoto[];
  /** How many photos are there, and how many images the lists name: 2,845 for all of FDDB. */
  readonly images: { readonly found: number; readonly expected: number };
  /** How many faces are in the photos that are there, and in all images of the lists: 5,171 for all of FDDB. */
  readonly faces: { readonly found: number; readonly expected: number };
}

/** Settings of {@link openFddb}. */
export interface OpenFddbOptions {
  /** Accept a data set that lacks some of the ten ellipse lists (not all); false unless given. */
  readonly allowMissingFolds?: boolean;
}

/** How many folds FDDB has. */
const FOLDS = 10;

/**
 * Reads FDDB's annotations below `root` and looks which photos are there. Missing photos are no error: they are
 * counted, and the caller decides.
 * @throws ScrimError NOT_FOUND if `root` is no FDDB (the message says what was looked for), INVALID_DATA naming file
 * and line if a list can't be read, or a fold list and its ellipse list name different images.
 */
export async function openFddb(root: string, options: OpenFddbOptions = {}): Promise<FddbDataset> {
  const base = resolve(root);
  const folds = await readFolds(base, options.allowMissingFolds === true);
  assertDistinct(folds);

  const names = folds.flatMap(({ images }) => images.map(({ name }) => name));
  const inOriginalPics = await presentPhotos(join(base, 'originalPics'), names);
  const besideFolds = inOriginalPics.size === names.length ? new Set<string>() : await presentPhotos(base, names);
  const nested = inOriginalPics.size >= besideFolds.size;
  const photoRoot = nested ? join(base, 'originalPics') : base;
  const present = nested ? inOriginalPics : besideFolds;

  const photos = folds.flatMap(({ fold, images }) =>
    images.map(({ name }) => ({ fold, name, path: photoPath(photoRoot, name), present: present.has(name) })),
  );
  const images = folds.flatMap((fold) => fold.images);
  const countFaces = (of: readonly FddbImage[]): number => of.reduce((sum, { faces }) => sum + faces.length, 0);
  return {
    root: base,
    folds,
    photos,
    images: { found: present.size, expected: images.length },
    faces: { found: countFaces(images.filter(({ name }) => present.has(name))), expected: countFaces(images) },
  };
}

async function readFolds(base: string, allowMissing: boolean): Promise<FddbFold[]> {
  const folder = join(base, 'FDDB-folds');
  const files = await listFolder(folder);
  const wanted = Array.from({ length: FOLDS }, (_, i) => i + 1);
  const missing = wanted.map(ellipseListName).filter((name) => files?.has(name) !== true);
  if (missing.length === FOLDS || (missing.length > 0 && !allowMissing)) {
    const found = files === undefined ? 'there is no folder FDDB-folds' : `FDDB-folds lacks ${missing.join(', ')}`;
    throw new ScrimError(
      'NOT_FOUND',
      `${base} is not FDDB: ${found}. Looked for FDDB-folds/${ellipseListName(1)} to ${ellipseListName(FOLDS)}, ` +
        'and photos such as originalPics/2002/08/11/big/img_591.jpg (or 2002/… without originalPics)',
    );
  }
  const folds: FddbFold[] = [];
  for (const fold of wanted) {
    const file = ellipseListName(fold);
    if (files?.has(file) !== true) continue;
    const images = parseEllipseList(await readText(join(folder, file)), file);
    const listFile = `FDDB-fold-${twoDigits(fold)}.txt`;
    if (files.has(listFile)) {
      const listed = parseFoldList(await readText(join(folder, listFile)), listFile);
      assertSameImages(listed, listFile, images, file);
    }
    folds.push({ fold, images });
  }
  return folds;
}

function assertSameImages(
  listed: readonly string[],
  listFile: string,
  images: readonly FddbImage[],
  file: string,
): void {
  const annotated = new Set(images.map(({ name }) => name));
  const stranger = listed.find((name) => !annotated.has(name));
  if (stranger !== undefined) {
    throw new ScrimError('INVALID_DATA', `${listFile} names ${stranger}, which ${file} does not annotate`);
  }
  if (listed.length < images.length) {
    throw new ScrimError(
      'INVALID_DATA',
      `${file} annotates ${images.length} images, ${listFile} names ${listed.length}`,
    );
  }
}

function assertDistinct(folds: readonly FddbFold[]): void {
  const foldOf = new Map<string, number>();
  for (const { fold, images } of folds) {
    for (const { name } of images) {
      const other = foldOf.get(name);
      if (other !== undefined) {
        throw new ScrimError('INVALID_DATA', `image ${name} is in fold ${other} and in fold ${fold}`);
      }
      foldOf.set(name, fold);
    }
  }
}

/** Those of `names` whose photo lies below `folder`. Each folder is listed once, rather than each file looked up. */
async function presentPhotos(folder: string, names: readonly string[]): Promise<Set<string>> {
  const byFolder = new Map<string, string[]>();
  for (const name of names) {
    const prefix = name.slice(0, name.lastIndexOf('/') + 1);
    const members = byFolder.get(prefix);
    if (members === undefined) byFolder.set(prefix, [name]);
    else members.push(name);
  }
  const present = new Set<string>();
  for (const [prefix, members] of byFolder) {
    const files = await listFolder(join(folder, prefix));
    for (const name of members) {
      if (files?.has(`${name.slice(prefix.length)}.jpg`) === true) present.add(name);
    }
  }
  return present;
}

function photoPath(folder: string, name: string): string {
  return `${join(folder, ...name.split('/'))}.jpg`;
}

function ellipseListName(fold: number): string {
  return `FDDB-fold-${twoDigits(fold)}-ellipseList.txt`;
}

function twoDigits(fold: number): string {
  return String(fold).padStart(2, '0');
}

/** Names in a folder, or undefined if there is no such folder. */
async function listFolder(folder: string): Promise<Set<string> | undefined> {
  try {
    return new Set(await readdir(folder));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw ScrimError.from(error, 'PERMISSION_DENIED', `can't list folder ${folder}`);
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw ScrimError.from(error, 'NOT_FOUND', `can't read ${path}`);
  }
}
