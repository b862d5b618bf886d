/**
 * The kinds of objects this package touches: where the API serves each and what it looks like.
 *
 * Built-in kinds take their types from @kubernetes/client-node 1.4 (Kubernetes 1.34), so a field that 1.34 does not
 * know fails to compile in manifests/. VolumeSnapshots follow snapshot.storage.k8s.io/v1, the in-place restore follows
 * Trident's trident.netapp.io/v1. Objects here are plain JSON: times are strings although the types say Date.
 */
import type {
  CoreV1Event,
  V1ConfigMap,
  V1CronJob,
  V1Deployment,
  V1Job,
  V1Node,
  V1ObjectMeta,
  V1PersistentVolume,
  V1PersistentVolumeClaim,
  V1Pod,
  V1ResourceRequirements,
  V1Secret,
  V1Service,
  V2HorizontalPodAutoscaler,
} from '@kubernetes/client-node';

/** A snapshot of a volume, snapshot.storage.k8s.io/v1. */
export interface VolumeSnapshot {
  apiVersion?: string;
  kind?: string;
  metadata?: V1ObjectMeta;
  spec: {
    source: { persistentVolumeClaimName?: string; volumeSnapshotContentName?: string };
    volumeSnapshotClassName?: string;
  };
  status?: {
    readyToUse?: boolean;
    creationTime?: string;
    restoreSize?: string;
    boundVolumeSnapshotContentName?: string;
    error?: { message?: string; time?: string };
  };
}

/** Trident's order to put a volume back to a snapshot in place, trident.netapp.io/v1. */
export interface TridentActionSnapshotRestore {
  apiVersion?: string;
  kind?: string;
  metadata?: V1ObjectMeta;
  spec: { pvcName: string; volumeSnapshotName: string };
  status?: { state?: string; message?: string; startTime?: string; completionTime?: string };
}

/** What Trident knows of one storage backend, trident.netapp.io/v1; the parts FlexCache needs. */
export interface TridentBackendConfig {
  apiVersion?: string;
  kind?: string;
  metadata?: V1ObjectMeta;
  spec: {
    storageDriverName?: string;
    managementLIF?: string;
    dataLIF?: string;
    svm?: string;
    credentials?: { name?: string; type?: string };
  };
}

/** A model server as KServe runs it, serving.kserve.io/v1beta1; the parts a Triton repository needs. */
export interface InferenceService {
  apiVersion?: string;
  kind?: string;
  metadata?: V1ObjectMeta;
  spec: {
    predictor: {
      minReplicas?: number;
      maxReplicas?: number;
      model: {
        modelFormat: { name: string };
        protocolVersion?: string;
        storageUri: string;
        image?: string;
        resources?: V1ResourceRequirements;
      };
    };
  };
  status?: {
    url?: string;
    conditions?: { type: string; status: string; reason?: string; message?: string }[];
  };
}

/** Kind name to the type of its objects. */
export interface KindMap {
  ConfigMap: V1ConfigMap;
  CronJob: V1CronJob;
  Deployment: V1Deployment;
  Event: CoreV1Event;
  HorizontalPodAutoscaler: V2HorizontalPodAutoscaler;
  InferenceService: InferenceService;
  Job: V1Job;
  Node: V1Node;
  PersistentVolume: V1PersistentVolume;
  PersistentVolumeClaim: V1PersistentVolumeClaim;
  Pod: V1Pod;
  Secret: V1Secret;
  Service: V1Service;
  TridentActionSnapshotRestore: TridentActionSnapshotRestore;
  TridentBackendConfig: TridentBackendConfig;
  VolumeSnapshot: VolumeSnapshot;
}

/** Names of the kinds in {@link KindMap}. */
export type Kind = keyof KindMap;

/** Where the API serves a kind. */
export interface KindInfo {
  readonly apiVersion: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

/** Group, version and path of every kind. */
export const KINDS: Readonly<Record<Kind, KindInfo>> = {
  ConfigMap: { apiVersion: 'v1', plural: 'configmaps', namespaced: true },
  CronJob: { apiVersion: 'batch/v1', plural: 'cronjobs', namespaced: true },
  Deployment: { apiVersion: 'apps/v1', plural: 'deployments', namespaced: true },
  Event: { apiVersion: 'v1', plural: 'events', namespaced: true },
  HorizontalPodAutoscaler: { apiVersion: 'autoscaling/v2', plural: 'horizontalpodautoscalers', namespaced: true },
  InferenceService: { apiVersion: 'serving.kserve.io/v1beta1', plural: 'inferenceservices', namespaced: true },
  Job: { apiVersion: 'batch/v1', plural: 'jobs', namespaced: true },
  Node: { apiVersion: 'v1', plural: 'nodes', namespaced: false },
  PersistentVolume: { apiVersion: 'v1', plural: 'persistentvolumes', namespaced: false },
  PersistentVolumeClaim: { apiVersion: 'v1', plural: 'persistentvolumeclaims', namespaced: true },
  Pod: { apiVersion: 'v1', plural: 'pods', namespaced: true },
  Secret: { apiVersion: 'v1', plural: 'secrets', namespaced: true },
  Service: { apiVersion: 'v1', plural: 'services', namespaced: true },
  TridentActionSnapshotRestore: {
    apiVersion: 'trident.netapp.io/v1',
    plural: 'tridentactionsnapshotrestores',
    namespaced: true,
  },
  TridentBackendConfig: { apiVersion: 'trident.netapp.io/v1', plural: 'tridentbackendconfigs', namespaced: true },
  VolumeSnapshot: { apiVersion: 'snapshot.storage.k8s.io/v1', plural: 'volumesnapshots', namespaced: true },
};

/** An object as it is sent: with apiVersion, kind and a name. */
export type Manifest<K extends Kind = Kind> = {
  [P in K]: KindMap[P] & { apiVersion: string; kind: P; metadata: V1ObjectMeta & { name: string } };
}[K];

/** Path of a kind's collection, or of one object, below the API server's root. */
export function pathOf(kind: Kind, namespace: string, name?: string): string {
  const { apiVersion, plural, namespaced } = KINDS[kind];
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const scope = namespaced ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return `${root}${scope}/${plural}${name === undefined ? '' : `/${encodeURIComponent(name)}`}`;
}
