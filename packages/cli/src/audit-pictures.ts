/** Pictures of an audit: the grids of its page, small enough to lie in one file. */
import type { AttackPicture, AttackResult } from 'scrim/audit';
import { encodeJpeg, resizeImage } from 'scrim/node';
import type { RgbImage } from 'scrim/vision';
import type { PagePicture } from './audit-page.js';
import type { PictureGroup } from './audit-parts.js';

const JPEG_QUALITY = 85;
const PAGE_SIDE = 256;

/** Heading of the grid of whole photos, which several attacks add columns to. */
export const PHOTOS = 'Original, what was sent, and what attackers made of it';

/** What attacks made of whole photos, as a group of the page. */
export async function photoGroup(results: readonly AttackResult[]): Promise<PictureGroup> {
  const pictures: AttackPicture[] = results.flatMap(({ name, pictures: own }) =>
    own
      .filter(({ label }) => label !== 'original')
      .map(({ id, label, image }) => ({
        id,
        label: /^rebuilt/.test(label) ? label.replace('rebuilt', name) : label,
        image,
      })),
  );
  return { title: PHOTOS, pictures: await pagePictures(pictures) };
}

/** Pictures as the page shows them. */
export async function pagePictures(pictures: readonly AttackPicture[]): Promise<PagePicture[]> {
  const out: PagePicture[] = [];
  for (const { id, label, image } of pictures) out.push(await pagePicture(id, label, image));
  return out;
}

/** One of them. */
export async function pagePicture(id: string, label: string, image: RgbImage): Promise<PagePicture> {
  const factor = Math.min(1, PAGE_SIDE / Math.max(image.width, image.height));
  const size = {
    width: Math.max(1, Math.round(image.width * factor)),
    height: Math.max(1, Math.round(image.height * factor)),
  };
  const small = factor < 1 ? await resizeImage(image, size) : image;
  return { id, label, ...size, jpeg: Buffer.from(await encodeJpeg(small, JPEG_QUALITY)).toString('base64') };
}

/** Groups of one title become one; a picture of the same photo and label is shown once. */
export function mergeGroups(groups: readonly PictureGroup[]): PictureGroup[] {
  const merged = new Map<string, Map<string, PagePicture>>();
  for (const { title, pictures } of groups) {
    const own = merged.get(title) ?? new Map<string, PagePicture>();
    merged.set(title, own);
    for (const picture of pictures) {
      const key = `${picture.id}\n${picture.label}`;
      if (!own.has(key)) own.set(key, picture);
    }
  }
  const shown = new Set(
    [...(merged.get(PHOTOS)?.values() ?? [])].filter(({ label }) => label === 'original').map(({ id }) => id),
  );
  return [...merged].map(([title, pictures]) => ({
    title,
    pictures: [...pictures.values()].filter(({ id }) => title !== PHOTOS || shown.has(id)),
  }));
}
