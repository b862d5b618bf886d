/**
 * Which models are loaded, in which state, and how that changes: load, unload, poll.
 *
 * Triton's model management (model_management.md): a reload loads the new versions first and retires the old ones when
 * they work; what fails to load leaves the versions that serve as they are. Changes of one model are made one after
 * another.
 */
import { ScrimError } from '../errors.js';
import {
  type configPb,
  createModelConfig,
  DEFAULT_LIMITS,
  DTYPE_OF,
  datatypeOfConfig,
  decodeJson,
  decodeTensorBytes,
  type LoadRequest,
  type ModelConfig,
  modelConfigFromJson,
  parseModelConfig,
  type RepositoryEntry,
  toStrings,
} from '../protocol/index.js';
import { allocate, sizeOf, type Tensor } from '../tensor.js';
import { type EngineFactory, ModelInstance } from './model-instance.js';
import { type ModelFolder, type ModelRepository, openModelFiles } from './model-repository.js';
import {
  checkConfig,
  chooseVersions,
  instanceCount,
  type ModelSettings,
  settleModel,
  wantedThreads,
  wantsGpu,
} from './model-settings.js';
import { type Clock, ServedModel } from './served-model.js';

/** What a registry is made of. */
export interface RegistryOptions {
  readonly repository: ModelRepository;
  readonly engineFactory: EngineFactory;
  /** Largest batch of a model whose configuration is silent. */
  readonly defaultMaxBatchSize: number;
  readonly clock: Clock;
  /** Told of failures that no caller waits for: names and reasons, never data. */
  readonly onEvent: (event: ServerEvent) => void;
}

/** Something that happened to a model. */
export interface ServerEvent {
  readonly kind: 'loaded' | 'load-failed' | 'unloaded';
  readonly model: string;
  readonly versions?: readonly number[];
  readonly reason?: string;
}

type State = 'LOADING' | 'READY' | 'UNLOADING' | 'UNAVAILABLE';

interface VersionSlot {
  state: State;
  reason: string;
  model: ServedModel | undefined;
}

interface Slot {
  readonly versions: Map<number, VersionSlot>;
  fingerprint: string | undefined;
  /** Whether the model should be served. */
  wanted: boolean;
  /** The last change; the next one waits for it. */
  change: Promise<void>;
}

const MAX_WARM_UPS = 1_000;

/** The models of a server. */
export class ModelRegistry {
  readonly #options: RegistryOptions;
  readonly #slots = new Map<string, Slot>();
  readonly #retiring = new Set<Promise<void>>();

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /**
   * The model to answer a request.
   * @throws ScrimError NOT_FOUND for an unknown model or version; UNAVAILABLE for one that is not ready;
   * INVALID_ARGUMENT for a version that is no number.
   */
  find(name: string, version = ''): ServedModel {
    const slot = this.#slots.get(name);
    const shown = name.slice(0, 200);
    if (slot === undefined || slot.versions.size === 0) {
      throw new ScrimError('NOT_FOUND', `Request for unknown model: '${shown}' is not found`);
    }
    if (version === '') {
      const ready = this.#ready(slot).at(-1);
      if (ready) return ready;
      throw new ScrimError('UNAVAILABLE', `Request for unknown model: '${shown}' has no available versions`);
    }
    const number = parseVersion(version);
    const found = slot.versions.get(number);
    if (found === undefined) {
      throw new ScrimError('NOT_FOUND', `Request for unknown model: '${shown}' version ${number} is not found`);
    }
    if (found.state !== 'READY' || found.model === undefined) {
      throw new ScrimError(
        'UNAVAILABLE',
        `Request for unknown model: '${shown}' version ${number} is not at ready state`,
      );
    }
    return found.model;
  }

  /** Versions of a model that are ready, ascending. */
  readyVersions(name: string): ServedModel[] {
    const slot = this.#slots.get(name);
    return slot === undefined ? [] : this.#ready(slot);
  }

  /** Every model that is ready. */
  all(): ServedModel[] {
    return [...this.#slots.values()].flatMap((slot) => this.#ready(slot));
  }

  /** True if every model that should be served has a version that is, with an instance alive. */
  allReady(): boolean {
    return [...this.#slots.values()].every((slot) => !slot.wanted || this.#ready(slot).some((model) => model.alive));
  }

  /** The repository's models and the state of their versions. */
  async index(readyOnly: boolean): Promise<RepositoryEntry[]> {
    const names = new Set([...(await this.#options.repository.list()), ...this.#slots.keys()]);
    const entries: RepositoryEntry[] = [];
    for (const name of [...names].sort()) {
      const versions = [...(this.#slots.get(name)?.versions ?? [])].sort(([a], [b]) => a - b);
      if (versions.length === 0 && !readyOnly) entries.push({ name, version: '', state: '', reason: '' });
      for (const [version, { state, reason }] of versions) {
        if (readyOnly && state !== 'READY') continue;
        entries.push({ name, version: version > 0 ? String(version) : '', state, reason });
      }
    }
    return entries;
  }

  /**
   * Loads a model or loads it anew. A name that the repository does not have leaves no trace, unless it is `required`.
   * @throws ScrimError naming the model and why it can't be loaded.
   */
  load(name: string, request: LoadRequest = {}, required = false): Promise<void> {
    const change = this.#change(name, async (slot) => {
      let isKnown = required;
      slot.wanted = true;
      try {
        const folder = await this.#open(name, request);
        isKnown = true;
        const config = readConfig(folder, request);
        await this.#apply(name, slot, folder, config);
        slot.fingerprint = request.config === undefined && request.files === undefined ? folder.fingerprint : undefined;
        const versions = this.#ready(slot).map(({ version }) => version);
        this.#options.onEvent({ kind: 'loaded', model: name, versions });
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        if (isKnown && slot.versions.size === 0) {
          slot.versions.set(0, { state: 'UNAVAILABLE', reason, model: undefined });
        }
        this.#options.onEvent({ kind: 'load-failed', model: name, reason });
        const code = error instanceof ScrimError ? error.code : 'INTERNAL';
        throw new ScrimError(code, `failed to load '${name.slice(0, 200)}', ${reason}`, { cause: error });
      }
    });
    return change.catch((error: unknown) => {
      const slot = this.#slots.get(name);
      if (slot?.change === change && slot.versions.size === 0) this.#slots.delete(name);
      throw error;
    });
  }

  /** Stops serving a model; resolves at once, requests under way are answered. @throws ScrimError NOT_FOUND */
  unload(name: string): Promise<void> {
    if (!this.#slots.has(name)) {
      return Promise.reject(
        new ScrimError('NOT_FOUND', `failed to unload '${name.slice(0, 200)}', the model is not loaded`),
      );
    }
    return this.#change(name, async (slot) => {
      slot.wanted = false;
      slot.fingerprint = undefined;
      for (const version of slot.versions.values()) this.#retire(version, 'unloaded');
      this.#options.onEvent({ kind: 'unloaded', model: name });
    });
  }

  /** Brings the models in line with the repository: loads what is new or changed, unloads what is gone. */
  async poll(): Promise<void> {
    const names = await this.#options.repository.list();
    for (const [name, slot] of this.#slots) {
      if (slot.wanted && !names.includes(name)) await this.unload(name);
    }
    for (const name of names) {
      const folder = await this.#options.repository.open(name).catch(() => undefined);
      const slot = this.#slots.get(name);
      if (folder === undefined || (slot?.wanted && slot.fingerprint === folder.fingerprint)) continue;
      await this.load(name).catch(() => {
        // A model that can't be loaded is tried again when its files change.
        const failed = this.#slots.get(name);
        if (failed) failed.fingerprint = folder.fingerprint;
      });
    }
  }

  /** Frees every model after the requests it has. `abandon` refuses those that wait. */
  async close(abandon = false): Promise<void> {
    await Promise.all([...this.#slots.values()].map((slot) => slot.change.catch(() => {})));
    for (const slot of this.#slots.values()) {
      slot.wanted = false;
      for (const version of slot.versions.values()) {
        if (abandon) version.model?.abandon();
        this.#retire(version, 'unloaded');
      }
    }
    await Promise.all(this.#retiring);
  }

  /** Refuses every request that waits in a queue. */
  abandon(): void {
    for (const model of this.all()) model.abandon();
  }

  #ready(slot: Slot): ServedModel[] {
    return [...slot.versions.values()]
      .flatMap(({ state, model }) => (state === 'READY' && model ? [model] : []))
      .sort((a, b) => a.version - b.version);
  }

  #change(name: string, task: (slot: Slot) => Promise<void>): Promise<void> {
    let slot = this.#slots.get(name);
    if (slot === undefined) {
      slot = { versions: new Map(), fingerprint: undefined, wanted: false, change: Promise.resolve() };
      this.#slots.set(name, slot);
    }
    const settled = slot;
    const change = settled.change.catch(() => {}).then(() => task(settled));
    settled.change = change;
    return change;
  }

  async #open(name: string, request: LoadRequest): Promise<ModelFolder> {
    if (request.files !== undefined) {
      if (request.config === undefined) {
        throw new ScrimError('INVALID_ARGUMENT', "a load request with files needs the parameter 'config'");
      }
      return openModelFiles(request.files, 'load request');
    }
    const folder = await this.#options.repository.open(name);
    if (folder === undefined) throw new ScrimError('NOT_FOUND', 'failed to poll from model repository');
    return folder;
  }

  async #apply(name: string, slot: Slot, folder: ModelFolder, config: ModelConfig): Promise<void> {
    checkConfig(name, config);
    const versions = chooseVersions(config, folder.versions);
    if (versions.length === 0) throw new ScrimError('NOT_FOUND', 'at least one version must be available');
    slot.versions.delete(0);
    const fresh: ServedModel[] = [];
    try {
      for (const version of versions) {
        const old = slot.versions.get(version);
        if (old?.state !== 'READY') slot.versions.set(version, { state: 'LOADING', reason: '', model: undefined });
        fresh.push(await this.#start(name, version, folder, config));
      }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      for (const version of slot.versions.values()) {
        if (version.state !== 'LOADING') continue;
        version.state = 'UNAVAILABLE';
        version.reason = reason;
      }
      await Promise.all(fresh.map((model) => model.close()));
      throw error;
    }
    for (const model of fresh) {
      const old = slot.versions.get(model.version);
      slot.versions.set(model.version, { state: 'READY', reason: '', model });
      if (old) this.#retire(old, '');
    }
    for (const [number, version] of slot.versions) {
      if (!versions.includes(number)) this.#retire(version, 'unloaded');
    }
  }

  async #start(name: string, version: number, folder: ModelFolder, config: ModelConfig): Promise<ServedModel> {
    const { engineFactory, defaultMaxBatchSize, clock } = this.#options;
    const file = config.defaultModelFilename === '' ? 'model.onnx' : config.defaultModelFilename;
    const bytes = await folder.readModel(version, file);
    const count = instanceCount(config);
    const threads = wantedThreads(name, config);
    const request = {
      ...{ model: name, version, instances: count, gpu: wantsGpu(config) },
      ...(threads === undefined ? {} : { threads }),
    };
    const instances: ModelInstance[] = [];
    try {
      for (let i = 0; i < count; i++) instances.push(await ModelInstance.start(engineFactory, request, bytes));
      const settings = settleModel(name, config, instances[0]!.graph, defaultMaxBatchSize);
      const labels = await readLabels(folder, settings.config);
      const model = new ServedModel({ name, version, settings, instances, labels, clock });
      await warmUp(model, folder, settings);
      return model;
    } catch (error) {
      await Promise.all(instances.map((instance) => instance.close().catch(() => {})));
      throw error;
    }
  }

  #retire(version: VersionSlot, reason: string): void {
    const { model } = version;
    version.model = undefined;
    if (model === undefined) {
      version.state = 'UNAVAILABLE';
      if (reason !== '') version.reason = reason;
      return;
    }
    version.state = 'UNLOADING';
    const closing = model
      .close()
      .catch(() => {})
      .then(() => {
        version.state = 'UNAVAILABLE';
        version.reason = reason;
        this.#retiring.delete(closing);
      });
    this.#retiring.add(closing);
  }
}

function parseVersion(version: string): number {
  if (!/^\d{1,15}$/.test(version) || Number(version) < 1) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `failed to get model version from specified version string '${version.slice(0, 50)}' (an integral value > 0 is expected)`,
    );
  }
  return Number(version);
}

function readConfig(folder: ModelFolder, request: LoadRequest): ModelConfig {
  if (request.config !== undefined) {
    const json = decodeJson(new TextEncoder().encode(request.config), { what: "load parameter 'config'" });
    return modelConfigFromJson(json, { code: 'INVALID_ARGUMENT' });
  }
  return folder.config === undefined ? createModelConfig() : parseModelConfig(folder.config);
}

async function readLabels(folder: ModelFolder, config: ModelConfig): Promise<Map<string, readonly string[]>> {
  const labels = new Map<string, readonly string[]>();
  for (const { name, labelFilename } of config.output) {
    if (labelFilename === '') continue;
    const text = new TextDecoder().decode(await folder.readFile(labelFilename));
    labels.set(name, text.split(/\r?\n/));
  }
  return labels;
}

/** Runs the samples of `model_warmup` on every instance. */
async function warmUp(model: ServedModel, folder: ModelFolder, settings: ModelSettings): Promise<void> {
  const fetches = settings.outputs.map(({ name }) => name);
  for (const sample of settings.config.modelWarmup) {
    const what = `model_warmup '${sample.name}'`;
    const batch = settings.maxBatchSize > 0 ? [Math.max(1, sample.batchSize)] : [];
    const feeds: Record<string, Tensor> = Object.create(null);
    for (const [name, input] of Object.entries(sample.inputs)) {
      feeds[name] = await warmUpTensor(folder, input, batch, `${what}: input '${name}'`);
    }
    const missing = settings.inputs.find(({ name }) => feeds[name] === undefined);
    if (missing) throw new ScrimError('INVALID_ARGUMENT', `${what} has no input '${missing.name}'`);
    for (let i = 0; i < Math.min(MAX_WARM_UPS, Math.max(1, sample.count)); i++) await model.warm(feeds, fetches);
  }
}

async function warmUpTensor(
  folder: ModelFolder,
  input: configPb.ModelWarmup_Input,
  batch: readonly number[],
  what: string,
): Promise<Tensor> {
  const datatype = datatypeOfConfig(input.dataType);
  if (datatype === undefined) throw new ScrimError('INVALID_ARGUMENT', `${what} has no data_type`);
  const dims = input.dims.map(Number);
  const { case: source, value } = input.inputDataType;
  const dtype = DTYPE_OF[datatype];
  if (source === 'inputDataFile') {
    const bytes = await folder.readFile(`warmup/${value}`);
    const one = decodeTensorBytes(datatype, dims, bytes, what, DEFAULT_LIMITS);
    const tensor = one.dtype === 'bytes' ? toStrings(one) : one;
    return repeat(tensor, batch);
  }
  const shape = [...batch, ...dims];
  const size = sizeOf(shape);
  if (dtype === 'bytes') return { dtype: 'string', shape, data: new Array<string>(size).fill('') };
  const data = allocate(dtype, size) as Exclude<Tensor['data'], string[]>;
  // "Random" data only has to be no constant; a fixed sequence serves and repeats.
  if (source === 'randomData') {
    let state = 1;
    for (let i = 0; i < size; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const wide = dtype === 'int64' || dtype === 'uint64';
      const number = dtype === 'float32' || dtype === 'float64' ? state / 2 ** 32 : state >>> 31;
      data[i] = (wide ? BigInt(number) : number) as never;
    }
  }
  return { dtype, shape, data } as Tensor;
}

function repeat(sample: Tensor, batch: readonly number[]): Tensor {
  const [rows] = batch;
  if (rows === undefined) return sample;
  const { dtype, data, shape } = sample;
  if (dtype === 'string') {
    return { dtype, shape: [rows, ...shape], data: Array.from({ length: rows }, () => data as string[]).flat() };
  }
  const all = allocate(dtype, rows * data.length) as Exclude<Tensor['data'], string[]>;
  for (let i = 0; i < rows; i++) all.set(data as never, i * data.length);
  return { dtype, shape: [rows, ...shape], data: all } as Tensor;
}
