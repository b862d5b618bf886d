/**
 * Where models come from: folders by name, each with a configuration and numbered versions.
 *
 * Triton's model repository as an interface without a file system. node/ reads it from disk; the one here holds its
 * files in memory, for embedding and for models that arrive in a load request.
 */
import { ScrimError } from '../errors.js';

/** One model of a repository, as it lay there when it was opened. */
export interface ModelFolder {
  /** Text of config.pbtxt; undefined where there is none. */
  readonly config: string | undefined;
  /** Numbers of the versions that exist, ascending. */
  readonly versions: readonly number[];
  /** Changes when a file of the model changes. */
  readonly fingerprint: string;
  /**
   * Reads the encoded ONNX model of a version, external data included.
   * @throws ScrimError NOT_FOUND
   */
  readModel(version: number, file: string): Promise<Uint8Array>;
  /** Reads a file by its path within the folder, such as labels. @throws ScrimError NOT_FOUND */
  readFile(path: string): Promise<Uint8Array>;
}

/** Models by name. */
export interface ModelRepository {
  /** Names of the models. */
  list(): Promise<string[]>;
  /** Opens a model; undefined if there is none of that name. */
  open(name: string): Promise<ModelFolder | undefined>;
}

/** Files of one model by their path within its folder, such as 'config.pbtxt' and '1/model.onnx'. */
export type ModelFiles = Readonly<Record<string, Uint8Array | string>>;

/** A version's folder: digits without leading zeros, from 1 up. */
const VERSION = /^([1-9]\d{0,14})\/(.+)$/;

/** Opens a model given by its files. `fingerprint` tells one set of files from another. */
export function openModelFiles(files: ModelFiles, fingerprint: string): ModelFolder {
  const read = async (path: string): Promise<Uint8Array> => {
    const content = Object.hasOwn(files, path) ? files[path] : undefined;
    if (content === undefined) throw new ScrimError('NOT_FOUND', `the model has no file '${path}'`);
    return typeof content === 'string' ? new TextEncoder().encode(content) : content;
  };
  const config = Object.hasOwn(files, 'config.pbtxt') ? files['config.pbtxt'] : undefined;
  const versions = new Set(Object.keys(files).flatMap((path) => Number(VERSION.exec(path)?.[1] ?? []) || []));
  return {
    config: config === undefined || typeof config === 'string' ? config : new TextDecoder().decode(config),
    versions: [...versions].sort((a, b) => a - b),
    fingerprint,
    readModel: (version, file) => read(`${version}/${file}`),
    readFile: read,
  };
}

/** A repository in memory that can be changed while it is served. */
export class MemoryRepository implements ModelRepository {
  readonly #models = new Map<string, { readonly files: ModelFiles; readonly revision: number }>();
  #revision = 0;

  constructor(models: Readonly<Record<string, ModelFiles>> = {}) {
    for (const [name, files] of Object.entries(models)) this.set(name, files);
  }

  /** Adds or replaces a model. */
  set(name: string, files: ModelFiles): void {
    this.#models.set(name, { files, revision: ++this.#revision });
  }

  /** Removes a model. */
  delete(name: string): void {
    this.#models.delete(name);
  }

  async list(): Promise<string[]> {
    return [...this.#models.keys()];
  }

  async open(name: string): Promise<ModelFolder | undefined> {
    const model = this.#models.get(name);
    return model === undefined ? undefined : openModelFiles(model.files, String(model.revision));
  }
}
