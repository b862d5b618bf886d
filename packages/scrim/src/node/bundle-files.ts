/** Bundles on disk: read with their hashes checked, written under a temporary name and renamed when whole. */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { type Bundle, loadBundle, MANIFEST_PATH } from '../bundle/bundle.js';
import { encodeManifest, type Figure } from '../bundle/manifest.js';
import { assertArgument, ScrimError } from '../errors.js';
import { toHex } from '../noise/noise-crypto.js';
import { createNodeCrypto } from './node-crypto.js';

/**
 * Opens a bundle directory, with every file held against its hash, whether it will be used or not; files are held
 * against it again when they are read. `remote/` may be left out as a whole: the trusted side does not need it.
 * @param expectedHash refuses any other bundle than this one.
 * @throws ScrimError NOT_FOUND if there is none, INVALID_BUNDLE if it was changed or is half-written.
 */
export async function openBundle(directory: string, expectedHash?: string): Promise<Bundle> {
  if (!(await exists(join(directory, MANIFEST_PATH)))) {
    throw new ScrimError('NOT_FOUND', `'${directory}' is no bundle: it has no ${MANIFEST_PATH}`);
  }
  const read = async (path: string): Promise<Uint8Array> => {
    try {
      return await readFile(join(directory, path));
    } catch (error) {
      throw ScrimError.from(error, 'INVALID_BUNDLE', `'${path}' of bundle '${directory}' can't be read`);
    }
  };
  const bundle = await loadBundle(read, createNodeCrypto(), expectedHash);
  const trustedOnly = !(await exists(join(directory, 'remote')));
  for (const path of Object.keys(bundle.manifest.files)) {
    if (!(trustedOnly && path.startsWith('remote/'))) await bundle.read(path);
  }
  return bundle;
}

/**
 * Writes measured or proven figures into the manifest of a bundle, in place of those of the same name. The bundle gets a
 * new hash.
 * @param extras files below `audit/` that are added or replaced with them, such as an attacker's decoder
 * @throws ScrimError as {@link openBundle}; INVALID_ARGUMENT for a path outside `audit/`
 */
export async function recordResults(
  directory: string,
  figures: readonly Figure[],
  extras: ReadonlyMap<string, Uint8Array> = new Map(),
): Promise<void> {
  const { manifest } = await openBundle(directory);
  const names = new Set(figures.map(({ name }) => name));
  const results = [...manifest.results.filter(({ name }) => !names.has(name)), ...figures];
  const crypto = createNodeCrypto();
  const files: Record<string, string> = { ...manifest.files };
  for (const [path, bytes] of extras) {
    assertArgument(/^audit\/[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(path), `'${path}' is no file below audit/`);
    files[path] = toHex(await crypto.sha256(bytes));
  }
  for (const [path, bytes] of extras) await writeFileAtomically(join(directory, path), bytes);
  await writeFileAtomically(join(directory, MANIFEST_PATH), encodeManifest({ ...manifest, files, results }));
}

/**
 * Writes files below `directory`, which appears whole or not at all.
 * @param options.replace lets an existing directory be replaced, but only one that holds `marker`
 * @throws ScrimError ALREADY_EXISTS if the directory exists and may not be replaced
 */
export async function writeDirectory(
  directory: string,
  files: ReadonlyMap<string, Uint8Array>,
  options: { readonly replace?: boolean; readonly marker?: string } = {},
): Promise<void> {
  const { replace = false, marker = MANIFEST_PATH } = options;
  const target = resolve(directory);
  const present = await exists(target);
  if (present && !(replace && (await exists(join(target, marker))))) {
    throw new ScrimError(
      'ALREADY_EXISTS',
      replace ? `'${directory}' exists and holds no ${marker}: it is not replaced` : `'${directory}' exists already`,
    );
  }
  await mkdir(dirname(target), { recursive: true });
  const temporary = await mkdtemp(join(dirname(target), `.${basename(target)}-`));
  try {
    for (const [path, bytes] of files) {
      const file = join(temporary, path);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, bytes);
    }
    if (present) {
      const old = `${temporary}-old`;
      await rename(target, old);
      await rename(temporary, target);
      await rm(old, { recursive: true, force: true });
    } else {
      await rename(temporary, target);
    }
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw ScrimError.from(error, 'INTERNAL', `'${directory}' can't be written`);
  }
}

/** Writes one file under a temporary name beside it and renames it. */
export async function writeFileAtomically(path: string, bytes: Uint8Array | string): Promise<void> {
  await writeFilesAtomically(new Map([[path, bytes]]));
}

/**
 * Writes files that belong together: none takes its place before all are written whole.
 * @throws as {@link writeFileAtomically}
 */
export async function writeFilesAtomically(files: ReadonlyMap<string, Uint8Array | string>): Promise<void> {
  // Two machines that share a volume may have processes of one number.
  const suffix = `${process.pid}-${randomBytes(4).toString('hex')}.part`;
  const written: [path: string, temporary: string][] = [];
  let current = '';
  try {
    for (const [path, bytes] of files) {
      current = path;
      await mkdir(dirname(resolve(path)), { recursive: true });
      written.push([path, `${path}.${suffix}`]);
      await writeFile(`${path}.${suffix}`, bytes);
    }
    for (const [path, temporary] of written) {
      current = path;
      await rename(temporary, path);
    }
  } catch (error) {
    for (const [, temporary] of written) await rm(temporary, { force: true });
    throw ScrimError.from(error, 'INTERNAL', `'${current}' can't be written`);
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
