/** Finding bundles: one that is named, or the shipped one of a model and an alpha, completed from the model if need be. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Bundle,
  encodeBundle,
  loadBundle,
  type Manifest,
  type ManifestInput,
  readBottleneck,
  ScrimError,
} from 'scrim';
import { createNodeCrypto, openBundle } from 'scrim/node';
import type { Graph } from 'scrim/onnx';
import { cutInPlanes, splitAt } from 'scrim/split';
import { DEFAULT_SIDE } from 'scrim/vision';
import { loadModelSource, type ModelSource } from './model-source.js';

/** Folders that may hold shipped bundles: of the installed package, and of a clone. */
export const SHIPPED: readonly string[] = ['../models/', '../../../models/'].map((path) =>
  fileURLToPath(new URL(path, import.meta.url)),
);

/** Which of the shipped transforms. */
export type TransformKind = Bundle['manifest']['transform']['kind'];

/** Name of the folder of an alpha, such as 'alpha-0.80'. */
export function alphaFolder(alpha: number): string {
  return `alpha-${alpha.toFixed(2)}`;
}

/** Opens a bundle and checks that it belongs to `model`; completes it where it is noise only. */
export async function openFor(directory: string, model: ModelSource): Promise<Bundle> {
  const bundle = await openBundle(directory);
  return complete(bundle, model, directory);
}

/** A bundle with its models; a noise-only one is completed from the model that `model` names. */
export async function openComplete(folder: string, model: string): Promise<Bundle> {
  const bundle = await openBundle(folder);
  return bundle.complete ? bundle : openFor(folder, await loadModelSource(model));
}

/** The shipped bundle of `model` at `alpha`. @throws ScrimError NOT_FOUND if there is none. */
export async function findBundle(
  model: ModelSource,
  alpha: number,
  transform: TransformKind = 'diagonal',
): Promise<Bundle> {
  const found = await lookForBundle(model, alpha, transform);
  if (found) return found;
  // Every command that looks for a bottleneck lets --transform choose.
  const hasDiagonal = transform !== 'diagonal' && (await lookForBundle(model, alpha)) !== undefined;
  throw new ScrimError(
    'NOT_FOUND',
    `there is no ${transform} bundle for ${model.name} (${model.source}) at alpha ${alpha}: ` +
      `${hasDiagonal ? 'take the diagonal one with --transform diagonal, or ' : ''}make one with 'scrim fit' and name it with --bundle`,
  );
}

/** As {@link findBundle}, undefined if there is none. */
export async function lookForBundle(
  model: ModelSource,
  alpha: number,
  transform: TransformKind = 'diagonal',
  folders: readonly string[] = SHIPPED,
): Promise<Bundle | undefined> {
  for (const folder of folders) {
    for (const directory of [folder, ...(await subfolders(folder))]) {
      const path = join(directory, alphaFolder(alpha));
      const bundle = await openBundle(path).catch((error: unknown) => {
        if (error instanceof ScrimError && error.code === 'NOT_FOUND') return undefined;
        throw error;
      });
      if (!bundle) continue;
      const { manifest } = bundle;
      const fits = manifest.alpha === alpha && manifest.transform.kind === transform;
      if (fits && manifest.model.sha256 === model.sha256) return complete(bundle, model, path);
    }
  }
  return undefined;
}

async function subfolders(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(folder, entry.name));
}

async function complete(bundle: Bundle, model: ModelSource, path: string): Promise<Bundle> {
  const { manifest } = bundle;
  if (manifest.model.sha256 !== model.sha256) {
    throw new ScrimError(
      'INVALID_BUNDLE',
      `bundle '${path}' was made for ${manifest.model.source}, not for ${model.source}: name its model with --model`,
    );
  }
  if (bundle.complete) return bundle;
  const files = await completeFiles(bundle, model);
  const read = async (name: string): Promise<Uint8Array> => {
    const bytes = files.get(name);
    if (!bytes) throw new ScrimError('INVALID_BUNDLE', `the bundle has no file '${name}'`);
    return bytes;
  };
  return loadBundle(read, createNodeCrypto());
}

/** The files of a noise-only bundle together with head and remote models made from `model`. */
export async function completeFiles(bundle: Bundle, model: ModelSource): Promise<Map<string, Uint8Array>> {
  const { manifest, parameters } = bundle;
  const cut = manifest.bottleneck?.cut ?? manifest.cut.tensors[0]?.name ?? '';
  const planar = cutInPlanes(model.graph, cut);
  const { head, tail } = splitAt(planar.graph, [planar.cut]);
  const bottleneck = await readBottleneck(bundle);
  const extras = new Map<string, Uint8Array>();
  for (const path of Object.keys(manifest.files)) {
    if (!/^(trusted|remote|weights)\//.test(path)) extras.set(path, await bundle.read(path));
  }
  const content = { manifest: toInput(manifest, tail), parameters, tail, head, extras };
  return encodeBundle({ ...content, ...(bottleneck ? { bottleneck } : {}) }, createNodeCrypto());
}

/** What the manifest was made from; with a bottleneck, what crosses in the model itself is found in its tail again. */
function toInput(manifest: Manifest, tail: Graph): ManifestInput {
  const {
    format: _format,
    formatVersion: _version,
    files: _files,
    transform: _transform,
    bottleneck,
    remote,
    ...rest
  } = manifest;
  const type = bottleneck && tail.declaredType(bottleneck.cut);
  const cut =
    bottleneck && type
      ? { tensors: [{ name: bottleneck.cut, dtype: type.dtype, shape: [...(type.shape ?? [])] }] }
      : rest.cut;
  return { ...rest, cut, remoteNames: { noisy: remote.noisy, base: remote.base } };
}

/**
 * The side that photos are resized to: the one asked for, else the one that the bundles name, 1024 without any.
 * @throws ScrimError INVALID_ARGUMENT if several bundles name different ones, which can't be compared
 */
export function photoSide(asked: number | undefined, bundles: readonly Bundle[]): number {
  const sides = new Set(bundles.map(({ manifest }) => manifest.model.detector?.side ?? DEFAULT_SIDE));
  const [only = DEFAULT_SIDE, ...more] = sides;
  if (asked !== undefined || more.length === 0) return asked ?? only;
  throw new ScrimError(
    'INVALID_ARGUMENT',
    `the bundles are for photos of ${[...sides].join(' and ')} pixels: give --size`,
  );
}
