/**
 * What a client of a v2 server (Triton, KServe, MLServer, this project's own) can be asked, whatever carries it. HTTP
 * stands in http-client.ts, gRPC in node/grpc-client.ts; both keep the same rules for deadlines, cancelling and retries.
 */
import type {
  InferRequest,
  InferResponse,
  LoadRequest,
  ModelConfig,
  ModelMetadata,
  ModelStatistics,
  RepositoryEntry,
  ServerMetadata,
} from '../protocol/index.js';

/** How one call is made. */
export interface CallOptions {
  /** Milliseconds the call may take, every attempt and wait included. Default: the client's. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Headers, or gRPC metadata, besides the client's. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** How a call about one model is made. */
export interface ModelCallOptions extends CallOptions {
  /** A number in digits; default: the server chooses. */
  readonly version?: string;
}

/** Bytes of the bodies (HTTP) or messages (gRPC) of one call as sent: after compression, without headers. */
export interface TransferSize {
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** How an inference is made. */
export interface InferOptions extends CallOptions {
  /** Receives the size of the attempt that was answered. */
  readonly onTransfer?: (size: TransferSize) => void;
}

/**
 * A client. Calls may overlap. Every call throws ScrimError: UNAVAILABLE if the server can't be reached,
 * DEADLINE_EXCEEDED, CANCELLED if the signal fires, INVALID_DATA for an answer that can't be read, else the code of the
 * server's own error.
 */
export interface TritonClient {
  readonly protocol: 'http' | 'grpc';
  /** Where the server is; never with credentials. */
  readonly url: string;
  serverLive(options?: CallOptions): Promise<boolean>;
  serverReady(options?: CallOptions): Promise<boolean>;
  serverMetadata(options?: CallOptions): Promise<ServerMetadata>;
  modelReady(model: string, options?: ModelCallOptions): Promise<boolean>;
  modelMetadata(model: string, options?: ModelCallOptions): Promise<ModelMetadata>;
  modelConfig(model: string, options?: ModelCallOptions): Promise<ModelConfig>;
  /** Statistics of one model, or of all without `model`; one entry a version. */
  modelStatistics(model?: string, options?: ModelCallOptions): Promise<ModelStatistics[]>;
  repositoryIndex(options?: CallOptions & { readonly ready?: boolean }): Promise<RepositoryEntry[]>;
  loadModel(model: string, request?: LoadRequest, options?: CallOptions): Promise<void>;
  unloadModel(model: string, options?: CallOptions & { readonly unloadDependents?: boolean }): Promise<void>;
  /** Runs a model once. Tensors go as bytes unless an input or output says otherwise. Sequences are never retried. */
  infer(request: InferRequest, options?: InferOptions): Promise<InferResponse>;
  /** Ends the connections. */
  close(): Promise<void>;
}
