import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { listPhotos } from './photo-files.js';

let root: string;

beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'scrim-photos-')));
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

async function put(...paths: string[]): Promise<void> {
  for (const path of paths) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), '');
  }
}

const listed = async (folder = root) => (await listPhotos(folder)).map((path) => relative(root, path));

describe('listPhotos', () => {
  it('finds photos at any depth, by extension, sorted by code unit', async () => {
    await put('b.JPG', 'a/z.png', 'a.jpeg', 'B.webp', 'a/b/c.avif', 'x.tif', 'x.tiff', 'y.gif');
    await put('notes.txt', 'jpg', '.hidden.jpg', '.cache/a.jpg', 'a.jpg.part');
    expect(await listed()).toEqual(['B.webp', 'a.jpeg', 'a/b/c.avif', 'a/z.png', 'b.JPG', 'x.tif', 'x.tiff', 'y.gif']);
  });

  it('gives absolute paths, and none for an empty folder', async () => {
    expect(await listPhotos(root)).toEqual([]);
    await put('a.jpg');
    expect(await listPhotos(root)).toEqual([join(root, 'a.jpg')]);
  });

  it('follows links, ends in loops, and passes over links that point nowhere', async () => {
    await put('real/a.jpg');
    await symlink(join(root, 'real/a.jpg'), join(root, 'link.jpg'));
    await symlink(root, join(root, 'real/loop'));
    await symlink(join(root, 'gone'), join(root, 'gone.jpg'));
    expect(await listed()).toEqual(['link.jpg', 'real/a.jpg']);
    await symlink(join(root, 'real'), join(root, 'alias'));
    expect(await listed()).toEqual(['alias/a.jpg', 'link.jpg']);
  });

  it('says what is wrong with the folder', async () => {
    await put('a.jpg');
    await expect(listPhotos(join(root, 'missing'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(listPhotos(join(root, 'a.jpg'))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
