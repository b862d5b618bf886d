/**
 * Pictures to fit on, composed from folders of unlabelled photos.
 *
 * A small set of photos shows a model too few layouts and sizes. Each canvas is drawn from a plan: 40% one photo (mirrored
 * half of the time, zoomed in to a crop of 0.55 to 1 or shrunk by up to 1.4 onto its mean colour), 30% such a photo with
 * 1 to 4 others pasted 15 to 61% high, 30% a mosaic of 2×2 to 5×5 photos; brightness 0.75 to 1.25. With several folders
 * each pick chooses the folder first, so that a few scenes are not drowned in many portraits. Plans depend on the seed
 * alone; pixels are sharp's.
 */
import sharp from 'sharp';
import { ScrimError } from '../errors.js';
import type { FitRandom } from '../noise/fit/fit-random.js';
import type { RgbImage } from '../vision/index.js';
import { usableProcessors } from './usable-processors.js';

/** What canvases are made from. */
export interface CanvasOptions {
  /** Photo files by folder; each folder weighs the same. */
  readonly folders: readonly (readonly string[])[];
  readonly count: number;
  readonly width: number;
  readonly height: number;
  readonly random: FitRandom;
  /** Renders only the canvases i with i mod `count` = `index`, the same ones as without: for several processes. */
  readonly part?: { readonly index: number; readonly count: number };
  /** Called for a photo that can't be read; another one takes its place. */
  readonly onUnreadable?: (path: string) => void;
}

interface Pick {
  readonly folder: number;
  readonly photo: number;
  readonly mirror: boolean;
}

interface Placement extends Pick {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** Share of the photo that is shown, and where the crop starts, as fractions. */
  readonly crop: number;
  readonly cropX: number;
  readonly cropY: number;
}

interface Plan {
  readonly background: Placement;
  readonly placements: readonly Placement[];
  readonly brightness: number;
}

/** Composes `count` canvases one after the other. @throws ScrimError INVALID_DATA if no photo can be read. */
export async function* createCanvases(options: CanvasOptions): AsyncGenerator<RgbImage> {
  const folders = options.folders.filter((photos) => photos.length > 0);
  if (folders.length === 0) throw new ScrimError('INVALID_DATA', 'there are no photos to make canvases from');
  const { part = { index: 0, count: 1 } } = options;
  const unreadable = new Set<string>();
  const pending: Promise<RgbImage>[] = [];
  // Canvases composed ahead of the one in use: sharp works on one a core.
  const ahead = usableProcessors();
  for (let i = 0; i < options.count || pending.length > 0; ) {
    while (i < options.count && pending.length <= ahead) {
      const plan = drawPlan(options, folders);
      if (i++ % part.count !== part.index) continue;
      const rendered = render(plan, options, folders, unreadable);
      rendered.catch(() => undefined); // reported when its turn comes
      pending.push(rendered);
    }
    const next = pending.shift();
    if (next) yield await next;
  }
}

function drawPlan({ random, width, height }: CanvasOptions, folders: readonly (readonly string[])[]): Plan {
  const between = (low: number, high: number): number => low + random.uniform() * (high - low);
  const pick = (): Pick => {
    const folder = random.integer(folders.length);
    return { folder, photo: random.integer(folders[folder]?.length ?? 1), mirror: random.uniform() < 0.5 };
  };
  const full = { left: 0, top: 0, width, height, crop: 1, cropX: 0, cropY: 0 };
  const whole = (): Placement => {
    const chosen = pick();
    if (random.uniform() < 0.6) {
      return { ...chosen, ...full, crop: between(0.55, 1), cropX: random.uniform(), cropY: random.uniform() };
    }
    const share = 1 / between(1, 1.4);
    const [w, h] = [Math.round(width * share), Math.round(height * share)];
    const left = random.integer(width - w + 1);
    const top = random.integer(height - h + 1);
    return { ...chosen, ...full, left, top, width: w, height: h };
  };
  const kind = random.uniform();
  const placements: Placement[] = [];
  let background: Placement;
  if (kind < 0.7) {
    background = whole();
    const pasted = kind < 0.4 ? 0 : 1 + random.integer(4);
    for (let i = 0; i < pasted; i++) {
      const size = Math.round(Math.min(width, height) * between(0.15, 0.61));
      const left = random.integer(width - size + 1);
      const top = random.integer(height - size + 1);
      placements.push({ ...pick(), ...full, left, top, width: size, height: size });
    }
  } else {
    const n = 2 + random.integer(4);
    const [w, h] = [Math.ceil(width / n), Math.ceil(height / n)];
    background = { ...pick(), ...full, width: w, height: h };
    for (let row = 0; row < n; row++) {
      for (let column = 0; column < n; column++) {
        if (row + column > 0) {
          placements.push({ ...pick(), ...full, left: column * w, top: row * h, width: w, height: h });
        }
      }
    }
  }
  return { background, placements, brightness: between(0.75, 1.25) };
}

async function render(
  plan: Plan,
  options: CanvasOptions,
  folders: readonly (readonly string[])[],
  unreadable: Set<string>,
): Promise<RgbImage> {
  const { width, height } = options;
  const data = new Uint8Array(width * height * 3);
  const [background, ...others] = await Promise.all(
    [plan.background, ...plan.placements].map((placement) => readPlacement(placement, options, folders, unreadable)),
  );
  if (background) {
    if (plan.background.width < width || plan.background.height < height) fill(data, meanColour(background));
    paste(data, width, height, plan.background, background);
  }
  plan.placements.forEach((placement, i) => {
    paste(data, width, height, placement, others[i] as Uint8Array);
  });
  const brightened = Uint8Array.from({ length: 256 }, (_, value) => Math.min(255, Math.round(value * plan.brightness)));
  for (let i = 0; i < data.length; i++) data[i] = brightened[data[i] as number] as number;
  return { width, height, data };
}

async function readPlacement(
  placement: Placement,
  options: CanvasOptions,
  folders: readonly (readonly string[])[],
  unreadable: Set<string>,
): Promise<Uint8Array> {
  const photos = folders[placement.folder] as readonly string[];
  for (let attempt = 0; attempt < photos.length; attempt++) {
    const path = photos[(placement.photo + attempt) % photos.length] as string;
    if (unreadable.has(path)) continue;
    try {
      return await readCrop(path, placement);
    } catch {
      unreadable.add(path);
      options.onUnreadable?.(path);
    }
  }
  throw new ScrimError('INVALID_DATA', `none of the ${photos.length} photos of a folder can be read`);
}

async function readCrop(path: string, placement: Placement): Promise<Uint8Array> {
  let image = sharp(path, { failOn: 'error' });
  if (placement.crop < 1) {
    const { width = 0, height = 0 } = await image.metadata();
    const [w, h] = [Math.max(1, Math.floor(width * placement.crop)), Math.max(1, Math.floor(height * placement.crop))];
    image = image.extract({
      left: Math.floor((width - w) * placement.cropX),
      top: Math.floor((height - h) * placement.cropY),
      width: w,
      height: h,
    });
  }
  if (placement.mirror) image = image.flop();
  const { data } = await image
    .resize(placement.width, placement.height, { fit: 'fill', kernel: 'linear' })
    .toColourspace('srgb')
    .flatten({ background: '#808080' })
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  if (data.length !== placement.width * placement.height * 3) {
    throw new ScrimError('INVALID_DATA', `'${path}' is not a colour photo`);
  }
  return data;
}

function paste(canvas: Uint8Array, width: number, height: number, place: Placement, pixels: Uint8Array): void {
  const visible = Math.min(place.width, width - place.left);
  for (let row = 0; row < place.height && place.top + row < height; row++) {
    const source = pixels.subarray(row * place.width * 3, (row * place.width + visible) * 3);
    canvas.set(source, ((place.top + row) * width + place.left) * 3);
  }
}

function meanColour(pixels: Uint8Array): readonly [number, number, number] {
  const sums: [number, number, number] = [0, 0, 0];
  for (let i = 0; i + 2 < pixels.length; i += 3) {
    sums[0] += pixels[i] as number;
    sums[1] += pixels[i + 1] as number;
    sums[2] += pixels[i + 2] as number;
  }
  const count = Math.max(1, pixels.length / 3);
  return [sums[0] / count, sums[1] / count, sums[2] / count];
}

function fill(canvas: Uint8Array, [r, g, b]: readonly [number, number, number]): void {
  for (let i = 0; i < canvas.length; i += 3) {
    canvas[i] = r;
    canvas[i + 1] = g;
    canvas[i + 2] = b;
  }
}
