/** What a server offers to listeners and programs, apart from how it is made: types alone. */
import type {
  InferRequest,
  InferResponse,
  Limits,
  LoadRequest,
  ModelConfig,
  ModelMetadata,
  ModelStatistics,
  RepositoryEntry,
  ServerMetadata,
} from '../protocol/index.js';

/** Who calls, as far as a listener knows. */
export interface Caller {
  /** Value of a header (gRPC: of metadata) by its name in lower case; undefined or null for none. */
  header(name: string): string | null | undefined;
  /** Network address, without the port; missing where there is no network. */
  readonly peer?: string;
}

/** A request whose body was read. */
export interface HttpCall extends Caller {
  readonly method: string;
  /** Path without query, percent-encoded. */
  readonly path: string;
  readonly body: Uint8Array;
  /** Fires when the caller has gone. */
  readonly signal?: AbortSignal;
}

/** An answer; the parts of the body are to be sent one after another. */
export interface HttpAnswer {
  readonly status: number;
  /** Names in lower case. Content-Length is not among them. */
  readonly headers: Readonly<Record<string, string>>;
  readonly parts: readonly Uint8Array[];
  /** Buffers of the call and the answer that nobody needs once the answer is sent. */
  readonly spent?: readonly ArrayBuffer[];
}

/** A server of models. */
export interface InferenceServer {
  readonly limits: Limits;
  /** Loads the models of the start. Those that fail are not ready and say why in the index. */
  start(): Promise<void>;
  /** True until {@link close}. */
  live(): boolean;
  /** True if requests are taken and, under strict readiness, every model is ready. */
  ready(): boolean;
  /** True if that version (default: any) answers requests. */
  modelReady(name: string, version?: string): boolean;
  metadata(): ServerMetadata;
  /** @throws ScrimError NOT_FOUND, UNAVAILABLE, INVALID_ARGUMENT */
  modelMetadata(name: string, version?: string): ModelMetadata;
  /** The configuration, completed. @throws ScrimError NOT_FOUND, UNAVAILABLE, INVALID_ARGUMENT */
  modelConfig(name: string, version?: string): ModelConfig;
  /** Of one version, all ready versions of a model, or all models. @throws ScrimError NOT_FOUND, UNAVAILABLE */
  statistics(name?: string, version?: string): ModelStatistics[];
  /** Answers a request. @throws ScrimError as the model does; UNAVAILABLE once the server stops. */
  infer(request: InferRequest, options?: { readonly signal?: AbortSignal }): Promise<InferResponse>;
  /** States of the models of the repository. */
  index(readyOnly?: boolean): Promise<RepositoryEntry[]>;
  /** @throws ScrimError UNAVAILABLE unless the control mode is explicit; why the model can't be loaded. */
  load(name: string, request?: LoadRequest): Promise<void>;
  /** @throws ScrimError UNAVAILABLE unless the control mode is explicit; NOT_FOUND. */
  unload(name: string): Promise<void>;
  /** Compares the models with the repository once; for mode poll. */
  poll(): Promise<void>;
  /** Prometheus text. */
  metrics(): string;
  /** Answers one HTTP request of the v2 API, /metrics included. Never rejects. */
  handle(request: Request): Promise<Response>;
  /** As {@link handle}, for listeners that have the body already. Never rejects. */
  answer(call: HttpCall): Promise<HttpAnswer>;
  /**
   * Is not ready any more, refuses new requests and waits for those it has; after `timeoutMs` those that wait in
   * queues are refused. Resolves when none is left.
   */
  drain(timeoutMs?: number): Promise<void>;
  /** Frees all models. Requests under way are answered. */
  close(): Promise<void>;
}
