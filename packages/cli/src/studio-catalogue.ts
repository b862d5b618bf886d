/**
 * What `scrim studio` offers the page: bundles with all their files, the remote models the embedded server runs, and
 * sample photos. The page's half of this description is packages/studio/src/catalogue.ts.
 *
 * The files of a bundle, head and noise included, go to the page because the page is the trusted side. The server gets
 * remote models alone, each under a name of its own, since many bundles call theirs the same.
 */
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Bundle, loadBundle, type Manifest, ScrimError } from 'scrim';
import { exportRepository, type PayloadFormat } from 'scrim/client';
import { createNodeCrypto, listPhotos, openBundle } from 'scrim/node';
import { MemoryRepository, type ModelFiles } from 'scrim/server';
import { completeFiles, SHIPPED } from './bundle-store.js';
import { type ModelSource, packageFolder } from './model-source.js';

/** The form in which the page sends releases. */
export const STUDIO_PAYLOAD: PayloadFormat = 'fp16';

/** One bundle as the page lists it. */
export interface StudioBundle {
  /** Path of its folder below bundles/, such as 'faceboxes-tfjs/alpha-0.80'. */
  readonly id: string;
  readonly kind: Manifest['transform']['kind'];
  readonly alpha: number;
  /** SHA-256 of the manifest: the page pins it. */
  readonly hash: string;
  /** Name of the remote model on the embedded server. */
  readonly remoteModel: string;
  readonly payload: PayloadFormat;
}

/** One sample photo. */
export interface StudioSample {
  readonly name: string;
  /** Path below the page. */
  readonly path: string;
}

/** Everything the page can be asked for besides its own files. */
export interface StudioCatalogue {
  readonly bundles: readonly StudioBundle[];
  readonly samples: readonly StudioSample[];
  /** By path below the page: files of bundles and samples. */
  readonly files: ReadonlyMap<string, () => Promise<Uint8Array>>;
  readonly repository: MemoryRepository;
}

/**
 * Opens every bundle below `folders` (two levels deep) and prepares what the page needs. Noise-only bundles of another
 * model than `model` are left out, with a remark.
 * @throws ScrimError NOT_FOUND if no bundle is left; INVALID_BUNDLE for one that was changed
 */
export async function buildCatalogue(options: {
  readonly model: ModelSource;
  readonly folders?: readonly string[];
  readonly remark: (text: string) => void;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal: AbortSignal;
}): Promise<StudioCatalogue> {
  const { model, folders = SHIPPED, remark, onProgress, signal } = options;
  const files = new Map<string, () => Promise<Uint8Array>>();
  const models: Record<string, ModelFiles> = {};
  const bundles: StudioBundle[] = [];
  const found = await findBundles(folders);
  for (const [done, { id, directory }] of found.entries()) {
    signal.throwIfAborted();
    onProgress?.(done, found.length);
    if (bundles.some((bundle) => bundle.id === id)) continue;
    const bundle = await openBundle(directory);
    const whole = await wholeBundle(bundle, directory, model);
    if (whole === undefined) {
      remark(`${id} is left out: it was made for ${bundle.manifest.model.source}, which is not at hand`);
      continue;
    }
    const remoteModel = `faces_${id.replace(/[^A-Za-z0-9]+/g, '_')}`;
    models[remoteModel] = await remoteFiles(whole.bundle, remoteModel);
    for (const [path, bytes] of whole.files) files.set(`/bundles/${id}/${path}`, async () => bytes);
    const { alpha, transform } = whole.bundle.manifest;
    const kind = transform.kind;
    bundles.push({ id, kind, alpha, hash: whole.bundle.hash, remoteModel, payload: STUDIO_PAYLOAD });
  }
  if (found.length > 0) onProgress?.(found.length, found.length);
  if (bundles.length === 0) {
    throw new ScrimError('NOT_FOUND', `there is no bundle in ${folders.map((folder) => `'${folder}'`).join(' or ')}`);
  }
  bundles.sort((a, b) => b.kind.localeCompare(a.kind) || a.alpha - b.alpha);
  const samples = await samplePhotos(files);
  return { bundles, samples, files, repository: new MemoryRepository(models) };
}

/** Folders that hold a manifest, at most two levels below each of `folders`. */
async function findBundles(folders: readonly string[]): Promise<{ id: string; directory: string }[]> {
  const found: { id: string; directory: string }[] = [];
  const look = async (directory: string, id: string, depth: number): Promise<void> => {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    if (entries.some((entry) => entry.name === 'manifest.json')) {
      found.push({ id: id === '' ? basename(directory) : id, directory });
      return;
    }
    if (depth === 0) return;
    for (const entry of entries) {
      const isFolder = entry.isDirectory() && /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(entry.name);
      if (isFolder) await look(join(directory, entry.name), id === '' ? entry.name : `${id}/${entry.name}`, depth - 1);
    }
  };
  for (const folder of folders) await look(folder, '', 2);
  return found;
}

/** A bundle with head and remote models, and all of its files; undefined if its model is not at hand. */
async function wholeBundle(
  bundle: Bundle,
  directory: string,
  model: ModelSource,
): Promise<{ bundle: Bundle; files: ReadonlyMap<string, Uint8Array> } | undefined> {
  if (!bundle.complete && bundle.manifest.model.sha256 !== model.sha256) return undefined;
  const files = bundle.complete ? await readFiles(bundle, directory) : await completeFiles(bundle, model);
  const read = async (path: string): Promise<Uint8Array> => {
    const bytes = files.get(path);
    if (!bytes) throw new ScrimError('INVALID_BUNDLE', `the bundle has no file '${path}'`);
    return bytes;
  };
  return { bundle: await loadBundle(read, createNodeCrypto()), files };
}

async function readFiles(bundle: Bundle, directory: string): Promise<Map<string, Uint8Array>> {
  const manifest: Uint8Array = await readFile(join(directory, 'manifest.json'));
  const files = new Map([['manifest.json', manifest]]);
  for (const path of Object.keys(bundle.manifest.files)) files.set(path, await bundle.read(path));
  return files;
}

/** The remote model that takes the page's payload, under `name`. */
async function remoteFiles(bundle: Bundle, name: string): Promise<ModelFiles> {
  const files: Record<string, Uint8Array | string> = {};
  for (const [path, bytes] of await exportRepository(bundle, { payloads: [STUDIO_PAYLOAD] })) {
    const inner = path.slice(path.indexOf('/') + 1);
    files[inner] =
      inner === 'config.pbtxt' ? new TextDecoder().decode(bytes).replace(/^name: ".*"/, `name: "${name}"`) : bytes;
  }
  return files;
}

/** The photos that npm installs with the weights. */
async function samplePhotos(files: Map<string, () => Promise<Uint8Array>>): Promise<StudioSample[]> {
  const photos = await listPhotos(join(packageFolder('@vladmandic/human'), 'assets'));
  return photos
    .filter((photo) => /(^|[/\\])(human-)?sample[^/\\]*\.jpg$/.test(photo) && !/sample-me/.test(photo))
    .sort((a, b) => Number(/human-/.test(a)) - Number(/human-/.test(b)) || a.localeCompare(b))
    .map((photo) => {
      const path = `samples/${basename(photo)}`;
      files.set(`/${path}`, () => readFile(photo));
      return { name: basename(photo, '.jpg'), path };
    });
}
