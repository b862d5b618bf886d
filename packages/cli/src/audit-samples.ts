/**
 * Photos and labels for the audit: which photos attackers train on, which they are tried on, copies of photos, and the
 * faces the service itself finds.
 */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { type Bundle, expectType, float32, ScrimError, type Session, type Tensor } from 'scrim';
import { type AttackData, type AttackedModel, type AttackSample, collectAttackData } from 'scrim/audit';
import { createCanvases, encodeJpeg, listPhotos, readImage, readImageTowards } from 'scrim/node';
import { createFitRandom, type FitRandom } from 'scrim/noise';
import {
  createDetectionDecoder,
  createPixelConverter,
  type DetectorSpec,
  detectorOf,
  planResize,
  type ResizePlan,
  type RgbImage,
} from 'scrim/vision';
import type { Share } from './workers.js';

/** A photo of the audit. */
export interface AuditPhoto {
  readonly path: string;
  /** Unique within a set. */
  readonly id: string;
  readonly person?: string;
  readonly attributes?: Readonly<Record<string, string>>;
  /** How this copy differs from the file. */
  readonly change?: PhotoChange;
}

/** What makes a copy of a photo another picture of the same thing. */
export interface PhotoChange {
  readonly mirrored: boolean;
  /** Share of width and height that is kept, and where the cut begins as a share of what is left over. */
  readonly kept: number;
  readonly left: number;
  readonly top: number;
  /** Factor on all values. */
  readonly brightness: number;
  /** JPEG quality it is encoded with once more. */
  readonly quality: number;
}

/** A copy as somebody else may have it: cut by up to 4%, up to 12% brighter or darker, encoded anew. */
export function drawCopy(random: FitRandom): PhotoChange {
  return {
    mirrored: false,
    kept: 0.96 + 0.04 * random.uniform(),
    left: random.uniform(),
    top: random.uniform(),
    brightness: 0.88 + 0.24 * random.uniform(),
    quality: 60 + random.integer(30),
  };
}

/** A copy to train on: mirrored half the time, cut by up to 15%, up to 25% brighter or darker. */
export function drawAugmentation(random: FitRandom): PhotoChange {
  return {
    ...drawCopy(random),
    mirrored: random.integer(2) === 1,
    kept: 0.85 + 0.15 * random.uniform(),
    brightness: 0.75 + 0.5 * random.uniform(),
  };
}

/** The photos below folders, each with an id that is its path within its folder. */
export async function findPhotos(folders: readonly string[]): Promise<AuditPhoto[]> {
  const photos: AuditPhoto[] = [];
  for (const folder of folders) {
    const name = basename(resolve(folder));
    for (const path of await listPhotos(folder)) {
      photos.push({ path, id: [name, ...relative(resolve(folder), path).split(sep)].join('/') });
    }
  }
  return photos;
}

/**
 * Photos of people: each folder of `folder` is a person.
 * @throws ScrimError INVALID_ARGUMENT where a photo lies in no folder of a person
 */
export async function findPeople(folder: string): Promise<AuditPhoto[]> {
  const photos = await findPhotos([folder]);
  return photos.map((photo) => {
    const [person = '', ...rest] = relative(resolve(folder), photo.path).split(sep);
    if (rest.length === 0) {
      throw new ScrimError('INVALID_ARGUMENT', `--people '${folder}' holds a photo itself, expected a folder a person`);
    }
    return { ...photo, person };
  });
}

/**
 * Deals photos (or other inputs) to attackers and to the trial, the same way for the same seed.
 * @param what they are, for people
 * @throws ScrimError INVALID_DATA for fewer than ten
 */
export function splitPhotos<T>(
  photos: readonly T[],
  tried: number,
  seed: string,
  what = 'photos',
): { readonly train: T[]; readonly test: T[] } {
  if (photos.length < 10) {
    throw new ScrimError('INVALID_DATA', `--data holds ${photos.length} ${what}, expected at least 10`);
  }
  const random = createFitRandom(`${seed} split`);
  const order = [...photos];
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [order[i], order[j]] = [order[j] as T, order[i] as T];
  }
  const count = Math.min(tried, Math.max(2, Math.floor(photos.length / 5)));
  return { test: order.slice(0, count), train: order.slice(count) };
}

/**
 * Reads a table of labels: a line of headings, 'file' and the names of attributes; then one line a photo.
 * @returns attributes by path, as the file names it relative to its own folder, by name alone where that is unique
 * @throws ScrimError INVALID_DATA naming the line
 */
export async function readLabels(
  file: string,
): Promise<(path: string) => Readonly<Record<string, string>> | undefined> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new ScrimError('NOT_FOUND', `the labels '${file}' can't be read`, { cause: error });
  });
  const [head = [], ...rows] = parseCsv(text);
  if (head[0] !== 'file' || head.length < 2) {
    throw new ScrimError(
      'INVALID_DATA',
      `'${file}' begins with '${head.join(',').slice(0, 80)}', expected file,<attribute>`,
    );
  }
  const labels = new Map<string, Readonly<Record<string, string>>>();
  const byName = new Map<string, Readonly<Record<string, string>> | undefined>();
  rows.forEach((row, i) => {
    if (row.length !== head.length) {
      throw new ScrimError('INVALID_DATA', `'${file}', line ${i + 2}: ${row.length} fields, expected ${head.length}`);
    }
    const [path = '', ...values] = row;
    const own: Record<string, string> = {};
    values.forEach((value, k) => {
      if (value !== '') own[head[k + 1] as string] = value;
    });
    labels.set(resolve(join(dirname(file), path)), own);
    const name = basename(path);
    byName.set(name, byName.has(name) ? undefined : own);
  });
  return (path) => labels.get(resolve(path)) ?? byName.get(basename(path));
}

/** Fields of lines, with quotes as RFC 4180 has them; empty lines are left out. */
export function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  for (const line of text.replace(/^\uFEFF/, '').split(/\r?\n/)) {
    if (line.trim() === '') continue;
    const fields: string[] = [];
    const pattern = /(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g;
    for (const match of line.matchAll(pattern)) {
      fields.push((match[1] === undefined ? (match[2] ?? '') : match[1].replaceAll('""', '"')).trim());
    }
    rows.push(fields);
  }
  return rows;
}

/** Reads photos as inputs of a service and collects what attacks work with, the service's own faces included. */
export interface SampleCollector {
  /** @throws ScrimError as `readImage` and `collectAttackData` */
  collect(photos: readonly AuditPhoto[], onProgress?: (done: number) => void): Promise<AttackData>;
  /**
   * Pictures composed of photos, as fits compose theirs: an attacker with few photos has many pictures that way.
   * @throws ScrimError as `createCanvases` and `collectAttackData`
   */
  compose(
    photos: readonly AuditPhoto[],
    canvases: Composition,
    onProgress?: (done: number) => void,
  ): Promise<AttackData>;
  close(): Promise<void>;
}

/** How many pictures are composed, and which: the same seed gives the same ones. */
export interface Composition {
  readonly count: number;
  readonly seed: string;
  /** Only pictures i with i mod `count` = `index`; default all. */
  readonly part?: Share;
}

/** How a collector reads. */
export interface SampleOptions {
  readonly detector: DetectorSpec;
  /** Names of the remote half's outputs by their name in the model. */
  readonly outputs: ReadonlyMap<string, string>;
  readonly size: number;
  readonly pictureSide: number;
  readonly signal: AbortSignal;
  readonly onUnreadable: (path: string) => void;
}

/** What a composed picture is called, before its number. */
export const CANVAS_ID = 'canvas ';
/** Score a face must reach to count. */
const FACE_SCORE = 0.5;

/** A collector for the photos that a bundle takes. */
export function collectorOf(
  target: AttackedModel,
  { manifest }: Bundle,
  options: Omit<SampleOptions, 'detector' | 'outputs'>,
): Promise<SampleCollector> {
  const outputs = new Map(manifest.remote.outputs.map(({ model, remote }) => [model, remote]));
  return createSampleCollector(target, { ...options, detector: detectorOf(manifest.model), outputs });
}

/** Loads the remote half and makes a collector. */
async function createSampleCollector(target: AttackedModel, options: SampleOptions): Promise<SampleCollector> {
  const { detector, outputs, size, pictureSide, signal } = options;
  const converter = createPixelConverter(detector.preprocessing);
  const decoder = createDetectionDecoder(detector);
  const remote: Session = await target.engine.load(target.remote.encode());
  const input = remote.inputs[0]?.name ?? '';
  type Picture = Pick<AttackSample, 'id' | 'person' | 'attributes'> & { readonly image: RgbImage };
  async function* readPhotos(photos: readonly AuditPhoto[]): AsyncGenerator<Picture> {
    for (const { path, id, person, attributes, change } of photos) {
      let image: RgbImage;
      try {
        image = change ? await changeImage(await readImage(path), change) : await readImageTowards(path, square(size));
      } catch (error) {
        if (!(error instanceof ScrimError) || error.code !== 'INVALID_DATA') throw error;
        options.onUnreadable(path);
        continue;
      }
      yield { id, image, ...(person === undefined ? {} : { person }), ...(attributes ? { attributes } : {}) };
    }
  }
  async function* composePhotos(
    photos: readonly AuditPhoto[],
    { count, seed, part = { index: 0, count: 1 } }: Composition,
  ): AsyncGenerator<Picture> {
    const folders = new Map<string, string[]>();
    for (const { path, id } of photos) {
      const folder = id.slice(0, id.indexOf('/'));
      folders.set(folder, [...(folders.get(folder) ?? []), path]);
    }
    const canvases = createCanvases({
      folders: [...folders.values()],
      count,
      width: size,
      height: size,
      random: createFitRandom(seed),
      part,
      onUnreadable: options.onUnreadable,
    });
    let i = part.index;
    for await (const image of canvases) {
      yield { id: `${CANVAS_ID}${i}`, image };
      i += part.count;
    }
  }
  const gather = async (pictures: AsyncIterable<Picture>, onProgress?: (done: number) => void): Promise<AttackData> => {
    const plans = new Map<string, ResizePlan>();
    async function* samples(): AsyncGenerator<AttackSample> {
      for await (const { image, id, ...labels } of pictures) {
        const plan = planResize(image, { kind: 'stretch', width: size, height: size }, detector.multiple);
        plans.set(id, plan);
        yield {
          id,
          input: converter.convert(image, { resized: plan.resized, canvas: plan.canvas }),
          picture: image,
          ...labels,
        };
      }
    }
    const data = await collectAttackData(target, samples(), {
      pictureSide,
      signal,
      ...(onProgress ? { onProgress } : {}),
    });
    const records: AttackData['records'][number][] = [];
    for (const record of data.records) {
      signal.throwIfAborted();
      const answers = await remote.run({ [input]: float32([1, ...data.shape], record.activation) });
      const plan = plans.get(record.id) as ResizePlan;
      const of = (name: string): Tensor => {
        const found = answers[outputs.get(name) ?? name];
        if (!found) throw new ScrimError('INVALID_BUNDLE', `the remote half does not answer '${name}'`);
        return expectType(found, 'float32', name);
      };
      const [found = []] = decoder.decode(of(detector.outputs.offsets), of(detector.outputs.scores), [plan], {
        minScore: FACE_SCORE,
      });
      const [sx, sy] = [data.picture.width / plan.original.width, data.picture.height / plan.original.height];
      records.push({
        ...record,
        boxes: found.map(({ box: [left, top, right, bottom] }) => ({
          x: left * sx,
          y: top * sy,
          width: (right - left) * sx,
          height: (bottom - top) * sy,
        })),
      });
    }
    return { ...data, records };
  };
  return {
    collect: (photos, onProgress) => gather(readPhotos(photos), onProgress),
    compose: async (photos, canvases, onProgress) => ({
      ...(await gather(composePhotos(photos, canvases), onProgress)),
      sources: photos.length,
    }),
    close: () => remote.close(),
  };
}

function square(size: number): { width: number; height: number } {
  return { width: size, height: size };
}

async function changeImage(image: RgbImage, change: PhotoChange): Promise<RgbImage> {
  const { mirrored, kept, left, top, brightness, quality } = change;
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * kept))) as [
    number,
    number,
  ];
  const [x0, y0] = [Math.floor((image.width - width) * left), Math.floor((image.height - height) * top)];
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = ((y0 + y) * image.width + x0 + (mirrored ? width - 1 - x : x)) * 3;
      const to = (y * width + x) * 3;
      for (let c = 0; c < 3; c++)
        data[to + c] = Math.min(255, Math.round((image.data[from + c] as number) * brightness));
    }
  }
  return readImage(await encodeJpeg({ width, height, data }, quality));
}
