/**
 * An inference server without a network: what HTTP and gRPC listeners call.
 *
 * Open Inference Protocol (KServe v2) with Triton's extensions for the model repository, statistics, configuration,
 * classification, scheduling policy and binary tensors. It runs models and knows nothing of what they are for: no
 * noise code is within its reach.
 */
import { assertArgument, ScrimError } from '../errors.js';
import {
  DEFAULT_LIMITS,
  encodeTensorBytes,
  HeadMemo,
  type InferRequest,
  type InferResponse,
  type Limits,
  type LoadRequest,
  type ModelConfig,
  type ModelMetadata,
  type ModelStatistics,
  metadataFromConfig,
  type RepositoryEntry,
  type ServerMetadata,
} from '../protocol/index.js';
import { answerHttp, handleRequest, type RequestHeads } from './http-handler.js';
import type { EngineFactory } from './model-instance.js';
import { ModelRegistry, type ServerEvent } from './model-registry.js';
import type { ModelRepository } from './model-repository.js';
import { formatMetrics } from './model-statistics.js';
import type { Clock } from './served-model.js';
import type { HttpAnswer, HttpCall, InferenceServer } from './server-api.js';

/** How the set of served models is determined, as Triton's `--model-control-mode`. */
export type ControlMode = 'none' | 'poll' | 'explicit';

/** How a server is made. */
export interface InferenceServerOptions {
  readonly repository: ModelRepository;
  /** Makes an engine for each instance of a model. */
  readonly engineFactory: EngineFactory;
  /** Default 'none': every model of the repository, loaded at the start. */
  readonly controlMode?: ControlMode;
  /** Models to load at the start in mode 'explicit'; '*' for all. */
  readonly loadModels?: readonly string[];
  /** Default true: the server is ready only while every model that should be served is. */
  readonly strictReadiness?: boolean;
  /** Largest batch of a model whose configuration is silent; default 4, as Triton's. */
  readonly defaultMaxBatchSize?: number;
  /** Bytes of the inputs that may wait or run at a time, all models together; default 1 GiB. */
  readonly maxPendingBytes?: number;
  /** Limits on one message. */
  readonly limits?: Limits;
  /** Name and version the server says it has. */
  readonly name?: string;
  readonly version?: string;
  readonly clock?: Clock;
  /** Told when models are loaded, unloaded or can't be. */
  readonly onEvent?: (event: ServerEvent) => void;
}

export type { InferenceServer } from './server-api.js';

const EXTENSIONS: readonly string[] = [
  'classification',
  'model_repository',
  'schedule_policy',
  'model_configuration',
  'binary_tensor_data',
  'parameters',
  'statistics',
];

const SYSTEM_CLOCK: Clock = {
  nowNs: () => BigInt(Math.round(performance.now() * 1e6)),
  nowMs: () => Date.now(),
};

/** Makes a server; call `start()` before it is used and `close()` when done. @throws ScrimError INVALID_ARGUMENT */
export function createInferenceServer(options: InferenceServerOptions): InferenceServer {
  return new Server(options);
}

class Server implements InferenceServer {
  readonly limits: Limits;
  readonly #options: InferenceServerOptions;
  readonly #registry: ModelRegistry;
  readonly #maxPendingBytes: number;
  readonly #heads: RequestHeads = new HeadMemo();
  #pendingBytes = 0;
  #requests = 0;
  #state: 'starting' | 'serving' | 'draining' | 'closed' = 'starting';
  #idle: (() => void) | undefined;

  constructor(options: InferenceServerOptions) {
    const { defaultMaxBatchSize = 4, maxPendingBytes = 2 ** 30, clock = SYSTEM_CLOCK, onEvent } = options;
    assertArgument(
      Number.isInteger(defaultMaxBatchSize) && defaultMaxBatchSize >= 0,
      `defaultMaxBatchSize is ${defaultMaxBatchSize}, expected an integer ≥ 0`,
    );
    assertArgument(maxPendingBytes > 0, `maxPendingBytes is ${maxPendingBytes}, expected a number above 0`);
    this.#options = options;
    this.limits = options.limits ?? DEFAULT_LIMITS;
    this.#maxPendingBytes = maxPendingBytes;
    this.#registry = new ModelRegistry({
      repository: options.repository,
      engineFactory: options.engineFactory,
      defaultMaxBatchSize,
      clock,
      onEvent: onEvent ?? (() => {}),
    });
  }

  get #mode(): ControlMode {
    return this.#options.controlMode ?? 'none';
  }

  async start(): Promise<void> {
    const all = await this.#options.repository.list();
    const chosen = this.#options.loadModels ?? [];
    const names = this.#mode !== 'explicit' || chosen.includes('*') ? all : chosen;
    for (const name of names) {
      // The reason stands in the index and went to onEvent.
      await this.#registry.load(name, {}, true).catch(() => {});
    }
    if (this.#state === 'starting') this.#state = 'serving';
  }

  live(): boolean {
    return this.#state !== 'closed';
  }

  ready(): boolean {
    if (this.#state !== 'serving') return false;
    return this.#options.strictReadiness === false || this.#registry.allReady();
  }

  modelReady(name: string, version = ''): boolean {
    if (this.#state !== 'serving') return false;
    try {
      return this.#registry.find(name, version).alive;
    } catch {
      return false;
    }
  }

  metadata(): ServerMetadata {
    return { name: this.#options.name ?? 'scrim', version: this.#options.version ?? '0', extensions: EXTENSIONS };
  }

  modelMetadata(name: string, version = ''): ModelMetadata {
    const { settings } = this.#registry.find(name, version);
    return metadataFromConfig(
      settings.config,
      this.#registry.readyVersions(name).map((model) => String(model.version)),
    );
  }

  modelConfig(name: string, version = ''): ModelConfig {
    return this.#registry.find(name, version).settings.config;
  }

  statistics(name = '', version = ''): ModelStatistics[] {
    let models = this.#registry.all();
    if (name !== '') {
      const found = this.#registry.find(name, version);
      models = version === '' ? this.#registry.readyVersions(name) : [found];
    }
    return models.map((model) => model.statistics.snapshot(model.name, String(model.version)));
  }

  async infer(request: InferRequest, { signal }: { readonly signal?: AbortSignal } = {}): Promise<InferResponse> {
    if (this.#state !== 'serving') {
      const stopping =
        this.#state === 'starting' ? 'Server is not ready' : 'Server is stopping, no longer accept new requests';
      throw new ScrimError('UNAVAILABLE', stopping);
    }
    const model = this.#registry.find(request.modelName, request.modelVersion);
    const bytes = request.inputs.reduce((sum, { tensor }) => sum + byteLength(tensor), 0);
    if (this.#pendingBytes + bytes > this.#maxPendingBytes) {
      throw new ScrimError('UNAVAILABLE', 'Exceeds the memory for requests that wait', {
        details: { maxPendingBytes: this.#maxPendingBytes },
      });
    }
    this.#pendingBytes += bytes;
    this.#requests++;
    try {
      return await model.infer(request, signal);
    } finally {
      this.#pendingBytes -= bytes;
      this.#requests--;
      if (this.#requests === 0) this.#idle?.();
    }
  }

  index(readyOnly = false): Promise<RepositoryEntry[]> {
    return this.#registry.index(readyOnly);
  }

  async load(name: string, request: LoadRequest = {}): Promise<void> {
    this.#expectExplicit();
    await this.#registry.load(name, request);
  }

  async unload(name: string): Promise<void> {
    this.#expectExplicit();
    await this.#registry.unload(name);
  }

  async poll(): Promise<void> {
    if (this.#state === 'serving') await this.#registry.poll();
  }

  metrics(): string {
    return formatMetrics(
      this.#registry.all().map(({ name, version, statistics }) => ({ name, version: String(version), statistics })),
    );
  }

  handle(request: Request): Promise<Response> {
    return handleRequest(this, request);
  }

  answer(call: HttpCall): Promise<HttpAnswer> {
    return answerHttp(this, call, this.#heads);
  }

  async drain(timeoutMs = 30_000): Promise<void> {
    if (this.#state === 'closed') return;
    this.#state = 'draining';
    if (this.#requests === 0) return;
    const timer = setTimeout(() => this.#registry.abandon(), timeoutMs);
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
    clearTimeout(timer);
  }

  async close(): Promise<void> {
    this.#state = 'closed';
    await this.#registry.close();
  }

  #expectExplicit(): void {
    if (this.#mode === 'explicit') return;
    throw new ScrimError(
      'UNAVAILABLE',
      this.#mode === 'poll'
        ? 'explicit model load / unload is not allowed if polling is enabled'
        : 'explicit model load / unload is not allowed unless the model control mode is explicit',
    );
  }
}

function byteLength(tensor: InferRequest['inputs'][number]['tensor']): number {
  if (tensor.dtype !== 'bytes' && tensor.dtype !== 'string') return (tensor.data as Float32Array).byteLength;
  if (tensor.dtype === 'bytes') return tensor.data.reduce((sum, { length }) => sum + length, 0);
  return encodeTensorBytes(tensor).length;
}
