/** PersistentVolumeClaims and VolumeSnapshots. */
import type { Manifest } from '../kube/kinds.js';
import { operationLabels } from './labels.js';

/** A volume claim. */
export interface ClaimSpec {
  readonly name: string;
  readonly size: string;
  /** Default: the cluster's default class. */
  readonly storageClass?: string;
  /** Default: ReadWriteMany. */
  readonly accessModes?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  /** VolumeSnapshot to start from. */
  readonly snapshot?: string;
  /** PersistentVolume to bind to. */
  readonly volumeName?: string;
  readonly volumeMode?: string;
}

/** A PersistentVolumeClaim, empty, from a snapshot, or for a volume that exists. */
export function claimManifest(spec: ClaimSpec): Manifest<'PersistentVolumeClaim'> {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      name: spec.name,
      labels: { ...(spec.labels ?? operationLabels('create-volume')) },
      ...(spec.annotations === undefined ? {} : { annotations: { ...spec.annotations } }),
    },
    spec: {
      accessModes: [...(spec.accessModes ?? ['ReadWriteMany'])],
      resources: { requests: { storage: spec.size } },
      ...(spec.storageClass === undefined ? {} : { storageClassName: spec.storageClass }),
      ...(spec.volumeMode === undefined ? {} : { volumeMode: spec.volumeMode }),
      ...(spec.volumeName === undefined ? {} : { volumeName: spec.volumeName }),
      ...(spec.snapshot === undefined
        ? {}
        : { dataSource: { apiGroup: 'snapshot.storage.k8s.io', kind: 'VolumeSnapshot', name: spec.snapshot } }),
    },
  };
}

/** A VolumeSnapshot of a claim. */
export function snapshotManifest(spec: {
  readonly name: string;
  readonly claim: string;
  /** Default: the cluster's default class for the volume's driver. */
  readonly snapshotClass?: string;
  readonly labels?: Readonly<Record<string, string>>;
}): Manifest<'VolumeSnapshot'> {
  return {
    apiVersion: 'snapshot.storage.k8s.io/v1',
    kind: 'VolumeSnapshot',
    metadata: { name: spec.name, labels: { ...(spec.labels ?? operationLabels('create-volume-snapshot')) } },
    spec: {
      source: { persistentVolumeClaimName: spec.claim },
      ...(spec.snapshotClass === undefined ? {} : { volumeSnapshotClassName: spec.snapshotClass }),
    },
  };
}
