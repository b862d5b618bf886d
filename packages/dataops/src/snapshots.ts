/** Snapshots of volumes through the CSI snapshot API: make, list, delete. Restoring is restore.ts. */
import { ScrimError } from 'scrim';
import type { KubeClient } from './kube/client.js';
import type { KindMap, Manifest, VolumeSnapshot } from './kube/kinds.js';
import { snapshotManifest } from './manifests/volume.js';
import { checkName, snapshotName, uniqueSuffix } from './naming.js';
import { type Operation, type OperationOptions, runOperation } from './operation.js';
import { waitForSnapshot } from './waiting.js';

/** What an operation returns besides what it is about. */
export interface WithManifests {
  /** Objects as they were sent, in order. */
  readonly manifests: readonly Manifest[];
}

/** Arguments of {@link createVolumeSnapshot}. */
export interface CreateVolumeSnapshotOptions extends OperationOptions {
  /** Claim to take the snapshot of. */
  readonly pvcName: string;
  /** Default: `ntap-dsutil.<time>.<random>`. */
  readonly snapshotName?: string;
  /** Default: the cluster's default VolumeSnapshotClass for the volume's driver. */
  readonly volumeSnapshotClass?: string;
}

/** A snapshot as lists show it. */
export interface VolumeSnapshotInfo {
  readonly name: string;
  readonly readyToUse: boolean;
  readonly creationTime?: string;
  /** Claim the snapshot is of; undefined where it was made from existing storage. */
  readonly sourcePvc?: string;
  /** False where that claim is gone. */
  readonly sourceExists: boolean;
  readonly sourceWorkspace?: string;
  readonly volumeSnapshotClass?: string;
  readonly restoreSize?: string;
  readonly error?: string;
}

/**
 * Takes a snapshot of a volume and waits until it is ready to use.
 *
 * @throws NOT_FOUND where the volume does not exist, ALREADY_EXISTS, UNAVAILABLE with the driver's reason
 */
export async function createVolumeSnapshot(
  client: KubeClient,
  options: CreateVolumeSnapshotOptions,
): Promise<WithManifests & { readonly snapshotName: string }> {
  checkName('pvcName', options.pvcName);
  if (options.snapshotName !== undefined) checkName('snapshotName', options.snapshotName);
  return runOperation(client, options, async (operation) => {
    const name = options.snapshotName ?? snapshotName('plain', new Date(), uniqueSuffix());
    await takeSnapshot(operation, { ...options, snapshotName: name });
    return { snapshotName: name, manifests: operation.manifests };
  });
}

/** Takes a snapshot within a larger operation. */
export async function takeSnapshot(
  operation: Operation,
  spec: {
    readonly pvcName: string;
    readonly snapshotName: string;
    readonly volumeSnapshotClass?: string;
    readonly labels?: Readonly<Record<string, string>>;
  },
): Promise<VolumeSnapshot> {
  const { pvcName: claim, snapshotName: name } = spec;
  if (operation.dryRun !== 'client') {
    await operation.client.get('PersistentVolumeClaim', operation.namespace, claim, operation.signal);
  }
  const { object } = await operation.create(
    snapshotManifest({
      name,
      claim,
      ...(spec.volumeSnapshotClass === undefined ? {} : { snapshotClass: spec.volumeSnapshotClass }),
      ...(spec.labels === undefined ? {} : { labels: spec.labels }),
    }),
  );
  if (operation.dryRun !== undefined) return object;
  operation.emit({ type: 'waiting', kind: 'VolumeSnapshot', name, namespace: operation.namespace, source: claim });
  const ready = await waitForSnapshot(operation, name, object.metadata?.uid ?? '');
  operation.emit({ type: 'ready', kind: 'VolumeSnapshot', name, namespace: operation.namespace, source: claim });
  return ready;
}

/** Lists snapshots, of one claim or of all; with `workspacesOnly`, those of JupyterLab workspaces. */
export async function listVolumeSnapshots(
  client: KubeClient,
  options: OperationOptions & { readonly pvcName?: string; readonly workspacesOnly?: boolean } = {},
): Promise<readonly VolumeSnapshotInfo[]> {
  return runOperation(client, options, async ({ namespace, signal }) => {
    const [snapshots, claims] = await Promise.all([
      client.list('VolumeSnapshot', { namespace }, signal),
      client.list('PersistentVolumeClaim', { namespace }, signal),
    ]);
    const byName = new Map(claims.items.map((claim) => [claim.metadata?.name ?? '', claim]));
    return snapshots.items
      .map((snapshot) => describe(snapshot, byName))
      .filter(({ sourcePvc }) => options.pvcName === undefined || sourcePvc === options.pvcName)
      .filter(({ sourceWorkspace }) => !options.workspacesOnly || sourceWorkspace !== undefined);
  });
}

function describe(
  snapshot: VolumeSnapshot,
  claims: ReadonlyMap<string, KindMap['PersistentVolumeClaim']>,
): VolumeSnapshotInfo {
  const { spec, status, metadata } = snapshot;
  const source = spec.source.persistentVolumeClaimName;
  const claim = source === undefined ? undefined : claims.get(source);
  const workspace = claim?.metadata?.labels?.['jupyterlab-workspace-name'];
  return {
    name: metadata?.name ?? '',
    readyToUse: status?.readyToUse ?? false,
    sourceExists: claim !== undefined,
    ...(status?.creationTime === undefined ? {} : { creationTime: status.creationTime }),
    ...(source === undefined ? {} : { sourcePvc: source }),
    ...(workspace === undefined ? {} : { sourceWorkspace: workspace }),
    ...(spec.volumeSnapshotClassName === undefined ? {} : { volumeSnapshotClass: spec.volumeSnapshotClassName }),
    ...(status?.restoreSize === undefined ? {} : { restoreSize: status.restoreSize }),
    ...(status?.error?.message === undefined ? {} : { error: status.error.message }),
  };
}

/** Deletes a snapshot and waits until it is gone. @throws NOT_FOUND */
export async function deleteVolumeSnapshot(
  client: KubeClient,
  options: OperationOptions & { readonly snapshotName: string },
): Promise<void> {
  checkName('snapshotName', options.snapshotName);
  await runOperation(client, options, (operation) => removeSnapshot(operation, options.snapshotName));
}

/** Deletes a snapshot within a larger operation. */
export async function removeSnapshot(operation: Operation, name: string): Promise<void> {
  const { namespace } = operation;
  operation.emit({ type: 'deleting', kind: 'VolumeSnapshot', name, namespace });
  if (!(await operation.remove('VolumeSnapshot', name))) {
    throw new ScrimError('NOT_FOUND', `VolumeSnapshot '${name}' does not exist in namespace '${namespace}'`);
  }
  operation.emit({ type: 'deleted', kind: 'VolumeSnapshot', name, namespace });
}

/** Claim and size a ready snapshot restores to. @throws NOT_FOUND, UNAVAILABLE where it is not ready */
export async function readSnapshot(
  operation: Operation,
  name: string,
): Promise<{ readonly claim: string; readonly size: string }> {
  const snapshot = await operation.client.get('VolumeSnapshot', operation.namespace, name, operation.signal);
  const claim = snapshot.spec.source.persistentVolumeClaimName;
  if (claim === undefined) {
    throw new ScrimError('UNSUPPORTED', `VolumeSnapshot '${name}' was not taken of a PersistentVolumeClaim`);
  }
  const { readyToUse, restoreSize, error } = snapshot.status ?? {};
  if (readyToUse !== true) {
    throw new ScrimError(
      'UNAVAILABLE',
      `VolumeSnapshot '${name}' is not ready to use${error?.message === undefined ? '' : `: ${error.message}`}`,
      { details: { reason: 'SnapshotNotReady' } },
    );
  }
  return { claim, size: restoreSize ?? '0' };
}
