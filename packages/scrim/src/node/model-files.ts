/**
 * A Triton model repository on disk: `<root>/<model>/config.pbtxt`, `<root>/<model>/<version>/model.onnx`.
 *
 * Names that lead out of the root are no models; a file within a model's folder may be a link, but not to outside the
 * root. The fingerprint is made of names, sizes and times of change, so a poll reads no model.
 */
import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { ScrimError } from '../errors.js';
import { decodeModel, encodeModel, hasExternalData } from '../onnx/index.js';
import type { ModelFolder, ModelRepository } from '../server/index.js';
import { attachExternalFiles } from './external-data.js';

const VERSION = /^[1-9]\d{0,14}$/;
const MAX_CONFIG_BYTES = 2 ** 20;
/** Folders below a model's own that count as changed files. */
const MAX_DEPTH = 4;

/**
 * Opens the repository at `root`.
 * @throws ScrimError NOT_FOUND if there is no such folder.
 */
export async function openModelRepository(root: string): Promise<ModelRepository> {
  const top = await realpath(root).catch((cause: unknown) => {
    throw new ScrimError('NOT_FOUND', `the model repository '${root}' does not exist`, { cause });
  });
  if (!(await stat(top)).isDirectory()) throw new ScrimError('NOT_FOUND', `'${root}' is no folder`);
  return {
    list: async () => {
      const entries = await readdir(top, { withFileTypes: true });
      const names: string[] = [];
      for (const entry of entries) {
        if (entry.name.startsWith('.')) continue;
        const isFolder = entry.isDirectory() || (entry.isSymbolicLink() && (await isDirectory(join(top, entry.name))));
        if (isFolder) names.push(entry.name);
      }
      return names.sort();
    },
    open: (name) => openFolder(top, name),
  };
}

async function openFolder(top: string, name: string): Promise<ModelFolder | undefined> {
  if (name === '' || name.startsWith('.') || /[/\\\0]/.test(name)) return undefined;
  const folder = join(top, name);
  if (!(await isDirectory(folder))) return undefined;
  const entries = await readdir(folder, { withFileTypes: true });
  const versions: number[] = [];
  for (const { name: entry } of entries) {
    if (VERSION.test(entry) && (await isDirectory(join(folder, entry)))) versions.push(Number(entry));
  }
  const hasConfig = entries.some((entry) => entry.name === 'config.pbtxt');
  const read = async (path: string): Promise<Uint8Array> => readFile(await inside(folder, path, name));
  return {
    config: hasConfig ? await readConfig(folder, name) : undefined,
    versions: versions.sort((a, b) => a - b),
    fingerprint: await fingerprint(folder),
    readFile: read,
    readModel: async (version, file) => {
      const path = await inside(folder, `${version}/${file}`, name);
      const bytes = await readFile(path);
      const model = decodeModel(bytes);
      if (!hasExternalData(model)) return bytes;
      attachExternalFiles(model, dirname(path));
      return encodeModel(model);
    },
  };
}

async function readConfig(folder: string, name: string): Promise<string> {
  const path = await inside(folder, 'config.pbtxt', name);
  const { size } = await stat(path);
  if (size > MAX_CONFIG_BYTES) {
    throw new ScrimError('LIMIT_EXCEEDED', `config.pbtxt of '${name}' has ${size} bytes, above ${MAX_CONFIG_BYTES}`);
  }
  return readFile(path, 'utf8');
}

/** The real path of a file that must lie in the folder of its model. */
async function inside(folder: string, path: string, name: string): Promise<string> {
  const [root, real] = await Promise.all([
    realpath(folder),
    realpath(join(folder, path)).catch((cause: unknown) => {
      throw new ScrimError('NOT_FOUND', `model '${name}' has no file '${path}'`, { cause });
    }),
  ]);
  if (!real.startsWith(`${root}${sep}`)) {
    throw new ScrimError('PERMISSION_DENIED', `file '${path}' of model '${name}' leads out of the model's folder`);
  }
  return real;
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (entry) => entry.isDirectory(),
    () => false,
  );
}

async function fingerprint(folder: string, depth = 0): Promise<string> {
  if (depth > MAX_DEPTH) return '';
  const parts: string[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    const entry = await stat(path).catch(() => undefined);
    if (entry === undefined) continue;
    const own = entry.isDirectory() ? await fingerprint(path, depth + 1) : `${entry.size}@${entry.mtimeMs}`;
    parts.push(`${name}=${own}`);
  }
  return `{${parts.join(';')}}`;
}
