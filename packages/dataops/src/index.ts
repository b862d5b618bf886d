/** Kubernetes data management as a library: `connect`, `new KubeClient(connection)`, then one function per command. */
import { dumpYaml } from '@kubernetes/client-node';
import type { Manifest } from './kube/kinds.js';

export {
  type BatchInferenceFigures,
  type BatchInferenceResult,
  type RunBatchInferenceOptions,
  runBatchInference,
} from './batch-inference.js';
export type { DataopsEvent, DataopsStep } from './events.js';
export {
  type CreateFlexCacheOptions,
  createFlexCache,
  type DeleteFlexCacheOptions,
  deleteFlexCache,
  type FlexCacheBackend,
  type FlexCacheResult,
} from './flexcache.js';
export type { PodLogLine } from './job-logs.js';
export {
  type CloneJupyterLabOptions,
  type CreateJupyterLabOptions,
  cloneJupyterLab,
  createJupyterLab,
  createJupyterLabSnapshot,
  DEFAULT_JUPYTERLAB_IMAGE,
  deleteJupyterLab,
  listJupyterLabSnapshots,
  listJupyterLabs,
  restoreJupyterLabSnapshot,
  type WorkspaceInfo,
  type WorkspaceResult,
  type WorkspaceSettings,
} from './jupyterlab.js';
export {
  type CreateInferenceServiceOptions,
  createInferenceService,
  deleteInferenceService,
  type InferenceServiceInfo,
  listInferenceServices,
} from './kserve.js';
export { KubeClient } from './kube/client.js';
export { type Connection, type ConnectOptions, connect } from './kube/connection.js';
export { KINDS, type Kind, type KindMap, type Manifest } from './kube/kinds.js';
export type { ExtraMount } from './manifests/jupyterlab.js';
export type { ContainerResources } from './manifests/resources.js';
export type { TritonAutoscale } from './manifests/triton-autoscaler.js';
export { OPERATION_ANNOTATION, type OperationOptions } from './operation.js';
export { hashJupyterPassword } from './password.js';
export {
  DEFAULT_PUSH_IMAGE,
  type PushRepositoryOptions,
  type PushRepositoryResult,
  pushRepository,
} from './push-repository.js';
export { type AccessRule, COMMAND_RULES, clusterRoles } from './rbac.js';
export { type RestoreResult, type RestoreVolumeSnapshotOptions, restoreVolumeSnapshot } from './restore.js';
export {
  createCaConfigMap,
  createS3Secret,
  DEFAULT_TRANSFER_IMAGE,
  deleteCaConfigMap,
  deleteS3Job,
  deleteS3Secret,
  getS3Bucket,
  getS3Object,
  type JobStatus,
  putS3Bucket,
  putS3Object,
  type S3JobResult,
  type S3ServerOptions,
  type S3TransferOptions,
  showS3Job,
  waitForS3Job,
} from './s3.js';
export {
  type CreateVolumeSnapshotOptions,
  createVolumeSnapshot,
  deleteVolumeSnapshot,
  listVolumeSnapshots,
  type VolumeSnapshotInfo,
  type WithManifests,
} from './snapshots.js';
export {
  deleteSync,
  listSyncs,
  type SyncInfo,
  type SyncResult,
  type SyncS3Options,
  type SyncStatistics,
  syncS3,
  waitForSync,
} from './sync.js';
export {
  type CreateTritonServerOptions,
  createTritonServer,
  DEFAULT_TRITON_IMAGE,
  deleteTritonServer,
  listTritonServers,
  type TritonEndpoints,
  type TritonInfo,
  type TritonResult,
} from './triton.js';
export {
  type CloneVolumeOptions,
  type CreateVolumeOptions,
  cloneVolume,
  createVolume,
  type DeleteVolumeOptions,
  deleteVolume,
  listVolumes,
  type VolumeInfo,
  type VolumeResult,
} from './volumes.js';

/** Manifests as the YAML documents kubectl reads, separated by '---'. */
export function manifestsYaml(manifests: readonly Manifest[]): string {
  return manifests
    .map((manifest) => dumpYaml(manifest, { noRefs: true, lineWidth: -1, quotingType: '"' }).trimEnd())
    .join('\n---\n');
}

/** Any plain value as YAML. */
export function toYaml(value: unknown): string {
  return dumpYaml(value, { noRefs: true, lineWidth: -1, quotingType: '"' }).trimEnd();
}
