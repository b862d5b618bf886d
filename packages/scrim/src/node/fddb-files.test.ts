import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFddbEvaluator } from '../metrics/fddb-evaluator.js';
import { openFddb } from './fddb-files.js';

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'scrim-fddb-'));
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

async function put(path: string, text = ''): Promise<void> {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), text);
}

const two = (n: number) => String(n).padStart(2, '0');
const imageName = (fold: number, i: number) => `2002/07/${two(fold)}/big/img_${i}`;

/** An FDDB of two images a fold, with one and two faces. */
async function putFolds(folds: readonly number[], lists = true): Promise<void> {
  for (const fold of folds) {
    const names = [1, 2].map((i) => imageName(fold, i));
    const rows = names.map((name, i) => `${name}\n${i + 1}\n${'20 10 1.5 40 50  1\n'.repeat(i + 1)}`);
    await put(`FDDB-folds/FDDB-fold-${two(fold)}-ellipseList.txt`, rows.join(''));
    if (lists) await put(`FDDB-folds/FDDB-fold-${two(fold)}.txt`, names.map((name) => `${name}\n`).join(''));
  }
}

const all = Array.from({ length: 10 }, (_, i) => i + 1);

describe('openFddb', () => {
  it('reads all folds and finds the photos in originalPics', async () => {
    await putFolds(all);
    await put(`originalPics/${imageName(5, 2)}.jpg`);
    await put(`originalPics/${imageName(10, 1)}.jpg`);
    await put(`originalPics/${imageName(1, 1)}.png`);
    const fddb = await openFddb(root);
    expect(fddb.root).toBe(root);
    expect(fddb.folds.map(({ fold }) => fold)).toEqual(all);
    expect(fddb.images).toEqual({ found: 2, expected: 20 });
    expect(fddb.faces).toEqual({ found: 3, expected: 30 });
    expect(fddb.photos).toHaveLength(20);
    expect(fddb.photos.filter(({ present }) => present)).toEqual([
      { fold: 5, name: imageName(5, 2), path: join(root, `originalPics/${imageName(5, 2)}.jpg`), present: true },
      { fold: 10, name: imageName(10, 1), path: join(root, `originalPics/${imageName(10, 1)}.jpg`), present: true },
    ]);
    const evaluator = createFddbEvaluator(fddb.folds);
    evaluator.add(imageName(5, 2), []);
    expect(evaluator.result().images).toEqual({ found: 1, expected: 20 });
  });

  it('finds photos that lie beside FDDB-folds', async () => {
    await putFolds(all, false);
    await put(`${imageName(3, 1)}.jpg`);
    const fddb = await openFddb(root);
    expect(fddb.images.found).toBe(1);
    expect(fddb.photos.find(({ present }) => present)?.path).toBe(join(root, `${imageName(3, 1)}.jpg`));
  });

  it('says where photos would be if there are none', async () => {
    await putFolds(all);
    const fddb = await openFddb(root);
    expect(fddb.images).toEqual({ found: 0, expected: 20 });
    expect(fddb.photos[0]!.path).toBe(join(root, 'originalPics', `${imageName(1, 1)}.jpg`));
  });

  it('says what it looked for in a folder that is no FDDB', async () => {
    const message = /is not FDDB: there is no folder FDDB-folds\. Looked for FDDB-folds\/FDDB-fold-01-ellipseList\.txt/;
    await expect(openFddb(root)).rejects.toMatchObject({ code: 'NOT_FOUND', message: expect.stringMatching(message) });
    await expect(openFddb(join(root, 'missing'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await put('file');
    await expect(openFddb(join(root, 'file'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('names the lists that are missing, unless that is allowed', async () => {
    await putFolds(all.filter((fold) => fold !== 4));
    await expect(openFddb(root)).rejects.toThrow(/FDDB-folds lacks FDDB-fold-04-ellipseList\.txt/);
    const fddb = await openFddb(root, { allowMissingFolds: true });
    expect(fddb.images.expected).toBe(18);
    await rm(join(root, 'FDDB-folds'), { recursive: true });
    await expect(openFddb(root, { allowMissingFolds: true })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('refuses lists that contradict each other', async () => {
    await putFolds(all);
    await put('FDDB-folds/FDDB-fold-02.txt', `${imageName(2, 1)}\n`);
    await expect(openFddb(root)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: 'FDDB-fold-02-ellipseList.txt annotates 2 images, FDDB-fold-02.txt names 1',
    });
    await put('FDDB-folds/FDDB-fold-02.txt', `${imageName(2, 1)}\n${imageName(2, 9)}\n`);
    await expect(openFddb(root)).rejects.toThrow(/FDDB-fold-02\.txt names .*img_9, which/);
  });

  it('refuses an image in two folds, and a list that can not be read, by file and line', async () => {
    await putFolds(all, false);
    await put('FDDB-folds/FDDB-fold-02-ellipseList.txt', `${imageName(1, 1)}\n0\n`);
    await expect(openFddb(root)).rejects.toThrow(/img_1 is in fold 1 and in fold 2/);
    await put('FDDB-folds/FDDB-fold-02-ellipseList.txt', 'a\n1\n1 2 3\n');
    await expect(openFddb(root)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/^FDDB-fold-02-ellipseList\.txt:3: /),
    });
  });
});
