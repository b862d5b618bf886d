// A data set in FDDB's layout with as many photos as wanted: links to a few real ones.
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';

/**
 * Lays out ten folds below `root`. Every photo has one face somewhere: this is for memory and speed, not for accuracy.
 * @param fddb folder of FDDB whose photos are linked; without it, the samples of npm packages
 * @returns how many photos the links lead to
 */
export function linkFddb(root, count, fddb) {
  const photos = fddb === undefined ? samplePhotos() : photosBelow(resolve(fddb, 'originalPics'));
  mkdirSync(join(root, 'FDDB-folds'));
  const perFold = Math.ceil(count / 10);
  let made = 0;
  for (let fold = 1; fold <= 10; fold++) {
    const lines = [];
    mkdirSync(join(root, 'originalPics', String(fold)), { recursive: true });
    for (let i = 0; i < perFold && made < count; i++, made++) {
      const name = `${fold}/img_${i}`;
      symlinkSync(photos[made % photos.length], join(root, 'originalPics', `${name}.jpg`));
      lines.push(name, '1', '40 30 1.5 60 60  1');
    }
    const list = `FDDB-fold-${String(fold).padStart(2, '0')}-ellipseList.txt`;
    writeFileSync(join(root, 'FDDB-folds', list), `${lines.join('\n')}\n`);
  }
  return photos.length;
}

function samplePhotos() {
  const assets = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'assets');
  return [1, 2, 3, 4, 5, 6].map((n) => join(assets, `sample${n}.jpg`));
}

function photosBelow(root) {
  return readdirSync(root, { recursive: true })
    .filter((name) => name.endsWith('.jpg'))
    .map((name) => join(root, name));
}
