/** `scrim/node`: engines, files, photos and cryptography of a Node process. */
export {
  openBundle,
  recordResults,
  writeDirectory,
  writeFileAtomically,
  writeFilesAtomically,
} from './bundle-files.js';
export { type CanvasOptions, createCanvases } from './canvases.js';
export type { ClientTls } from './client-tls.js';
export { attachExternalFiles } from './external-data.js';
export {
  type FddbDataset,
  type FddbFold,
  type FddbPhoto,
  type OpenFddbOptions,
  openFddb,
} from './fddb-files.js';
export { freeArrays } from './free-buffers.js';
export { createGateway, type Gateway, type GatewayOptions, type ReleaseCounts } from './gateway.js';
export type { GatewayLedgerOptions } from './gateway-ledger.js';
export { createGrpcClient, type GrpcClient, type GrpcClientOptions } from './grpc-client.js';
export { type GrpcListener, type GrpcServerOptions, listenGrpc } from './grpc-server.js';
export { createHttpAgent, type HttpAgentOptions } from './http-agent.js';
export {
  type AccessRecord,
  type HttpListener,
  type HttpListenerOptions,
  listenHttp,
} from './http-listener.js';
export * from './images.js';
export {
  type LedgerOptions,
  type LedgerPolicy,
  type LedgerStore,
  openLedger,
  type SubjectRecord,
} from './ledger-store.js';
export { openModelRepository } from './model-files.js';
export { createNodeCrypto } from './node-crypto.js';
export { type NodeConfidentialSession, type OpenSessionOptions, openConfidentialSession } from './open-session.js';
export { createNodeEngine, type NodeEngineOptions } from './ort-engine.js';
export { listPhotos } from './photo-files.js';
export type { ServerTls } from './server-certificates.js';
export { createServerLog, type ServerLog } from './server-log.js';
export {
  type InstanceKind,
  nodeEngineFactory,
  type RunningServer,
  type ServeOptions,
  serveRepository,
} from './server-process.js';
export { createTritonClient, type NodeTritonClientOptions } from './triton-client.js';
export { usableProcessors } from './usable-processors.js';
export { createInputReader, type DetectorInput, type InputReader } from './vision-input.js';
