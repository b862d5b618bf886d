/** `scrim/client`: talk to a v2 server, and let it run the tail on a release. */
export { candidatesOf } from '../bundle/candidate-selection.js';
export {
  type CandidateNames,
  type CandidateSummary,
  type CandidateTask,
  candidateNames,
  findCandidates,
  placeCandidates,
} from '../bundle/candidates.js';
export {
  createPayloadPlan,
  encodePayload,
  PAYLOAD_DTYPES,
  PAYLOAD_FORMATS,
  type PayloadFormat,
  type PayloadPlan,
  payloadBytes,
} from '../bundle/payload-format.js';
export { type ExportOptions, exportRepository } from '../bundle/remote-repository.js';
export { remoteName, remoteVariant } from '../bundle/remote-variants.js';
export type {
  InferRequest,
  InferResponse,
  ModelMetadata,
  ModelStatistics,
  RepositoryEntry,
  ServerMetadata,
} from '../protocol/index.js';
export * from './confidential-session.js';
export { createEscalatingSession } from './escalating-session.js';
export { createTritonClient, type TritonClientOptions } from './http-client.js';
export {
  createFetchTransport,
  type FetchFunction,
  type HttpTransport,
  type TransportRequest,
  type TransportResponse,
} from './http-transport.js';
export { type ReleaseCharge, type ReleaseLedger, releaseNats } from './release-ledger.js';
export type { RetryClock, RetryPolicy } from './retry.js';
export type * from './triton-client.js';
