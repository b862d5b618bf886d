/**
 * Photos without labels: every image file below a folder, in an order that does not depend on machine or language.
 *
 * Only names are looked at. Whether a file holds the image its extension promises is found out by who decodes it.
 */
import { readdir, realpath, stat } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';
import { ScrimError } from '../errors.js';

/** Extensions, in lower case, of what counts as a photo. */
const PHOTO_EXTENSIONS: readonly string[] = ['.jpg', '.jpeg', '.png', '.webp', '.avif', '.tif', '.tiff', '.gif'];

/**
 * Absolute paths of the photos below `folder`, sorted by their path's code units; `[]` if there are none.
 *
 * Names that begin with a dot are left out. Links are followed, a linked folder at most once, so loops end.
 * @throws ScrimError NOT_FOUND if there is no such folder, INVALID_ARGUMENT if it is a file, PERMISSION_DENIED if a
 * folder can't be listed.
 */
export async function listPhotos(folder: string): Promise<string[]> {
  const root = resolve(folder);
  const info = await stat(root).catch(() => undefined);
  if (info === undefined) throw new ScrimError('NOT_FOUND', `there is no folder ${root}`);
  if (!info.isDirectory()) throw new ScrimError('INVALID_ARGUMENT', `${root} is no folder`);

  const photos: string[] = [];
  const visited = new Set<string>();
  const visit = async (path: string): Promise<void> => {
    const real = await realpath(path);
    if (visited.has(real)) return;
    visited.add(real);
    const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
      throw ScrimError.from(error, 'PERMISSION_DENIED', `can't list folder ${path}`);
    });
    entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
    for (const entry of entries) {
      if (entry.name.startsWith('.')) continue;
      const child = join(path, entry.name);
      // A link is what it points at; one that points nowhere is nothing.
      const target = entry.isSymbolicLink() ? await stat(child).catch(() => undefined) : entry;
      if (target?.isDirectory() === true) await visit(child);
      else if (target?.isFile() === true && PHOTO_EXTENSIONS.includes(extname(entry.name).toLowerCase())) {
        photos.push(child);
      }
    }
  };
  await visit(root);
  return photos.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}
