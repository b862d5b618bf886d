/** A FlexCache volume: what ONTAP is asked for, and the volume and claim that bring it into the cluster by NFS. */
import type { Manifest } from '../kube/kinds.js';
import { labelValue } from '../naming.js';
import { operationLabels } from './labels.js';

/** What a FlexCache is made of. */
export interface FlexCacheSpec {
  /** Name of the claim. */
  readonly claim: string;
  readonly namespace: string;
  /** Name of the PersistentVolume. */
  readonly volume: string;
  readonly size: string;
  /** Where the SVM mounts the cache, such as '/cache1'. */
  readonly junction: string;
  /** Address of the SVM's data LIF. */
  readonly dataLif: string;
  readonly sourceSvm: string;
  readonly sourceVolume: string;
}

/** Labels of a FlexCache's volume and claim; the toolkit knows them by `app`. */
function flexCacheLabels({ sourceSvm, sourceVolume }: FlexCacheSpec): Record<string, string> {
  return {
    ...operationLabels('create-flexcache'),
    app: 'flexcache',
    source_svm: labelValue(sourceSvm),
    source_volume: labelValue(sourceVolume),
  };
}

/** The PersistentVolume, reserved for the claim. Its reclaim policy keeps the cache when the claim goes. */
export function flexCacheVolume(spec: FlexCacheSpec): Manifest<'PersistentVolume'> {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: spec.volume, labels: flexCacheLabels(spec) },
    spec: {
      capacity: { storage: spec.size },
      accessModes: ['ReadWriteMany'],
      persistentVolumeReclaimPolicy: 'Retain',
      storageClassName: '',
      nfs: { server: spec.dataLif, path: spec.junction },
      claimRef: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace: spec.namespace, name: spec.claim },
    },
  };
}

/** The claim, bound to that volume and to no other. */
export function flexCacheClaim(spec: FlexCacheSpec): Manifest<'PersistentVolumeClaim'> {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: spec.claim, labels: flexCacheLabels(spec) },
    spec: {
      accessModes: ['ReadWriteMany'],
      resources: { requests: { storage: spec.size } },
      storageClassName: '',
      volumeName: spec.volume,
    },
  };
}

/** Body of POST /api/storage/flexcache/flexcaches. `bytes` is the cache's size. */
export function flexCacheBody(request: {
  readonly name: string;
  readonly svm: string;
  readonly sourceSvm: string;
  readonly sourceVolume: string;
  readonly junction: string;
  readonly bytes: number;
}): object {
  return {
    name: request.name,
    svm: { name: request.svm },
    origins: [{ svm: { name: request.sourceSvm }, volume: { name: request.sourceVolume } }],
    path: request.junction,
    size: request.bytes,
  };
}
