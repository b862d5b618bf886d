/** Volumes: make, clone, list, delete. A volume is a PersistentVolumeClaim; any CSI driver will do. */
import { ScrimError } from 'scrim';
import type { KubeClient } from './kube/client.js';
import type { KindMap } from './kube/kinds.js';
import { operationLabels } from './manifests/labels.js';
import { type ClaimSpec, claimManifest } from './manifests/volume.js';
import {
  checkAccessModes,
  checkName,
  checkSize,
  labelValue,
  largerQuantity,
  snapshotName,
  uniqueSuffix,
} from './naming.js';
import { type Operation, type OperationOptions, REQUEST_ANNOTATION, runOperation } from './operation.js';
import { readSnapshot, removeSnapshot, takeSnapshot, type WithManifests } from './snapshots.js';
import { type ClaimOutcome, waitForClaim } from './waiting.js';

/** Label that ties a clone's temporary snapshots to the clone. */
const FOR_CLONE_LABEL = 'scrim.dev/for-clone';

/** Arguments of {@link createVolume}. */
export interface CreateVolumeOptions extends OperationOptions {
  readonly pvcName: string;
  /** Such as '20Gi'. */
  readonly size: string;
  /** Default: the cluster's default class. */
  readonly storageClass?: string;
  /** Default: ['ReadWriteMany']. */
  readonly accessModes?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Result of operations that make a volume. */
export interface VolumeResult extends WithManifests {
  readonly pvcName: string;
  /** False where the class binds the volume only once a pod uses it. */
  readonly bound: boolean;
}

/**
 * Makes a volume and waits until it is bound.
 *
 * @throws ALREADY_EXISTS, NOT_FOUND (no such class, no class at all), UNAVAILABLE (the provisioner fails or is absent)
 */
export async function createVolume(client: KubeClient, options: CreateVolumeOptions): Promise<VolumeResult> {
  checkName('pvcName', options.pvcName);
  checkSize('size', options.size);
  checkAccessModes(options.accessModes);
  return runOperation(client, options, async (operation) => {
    const { bound } = await makeClaim(operation, { ...options, name: options.pvcName });
    return { pvcName: options.pvcName, bound, manifests: operation.manifests };
  });
}

/** Makes a claim within a larger operation. `adopt`: see {@link Operation.create}. */
export async function makeClaim(operation: Operation, spec: ClaimSpec, adopt?: string): Promise<ClaimOutcome> {
  const { object } = await operation.create(claimManifest(spec), adopt === undefined ? {} : { adopt });
  return settleClaim(operation, object);
}

/** Waits for a claim and says how it stands; in a dry run there is nothing to wait for. */
async function settleClaim(operation: Operation, claim: KindMap['PersistentVolumeClaim']): Promise<ClaimOutcome> {
  if (operation.dryRun !== undefined) return { claim, bound: false };
  const { name = '', uid = '' } = claim.metadata ?? {};
  const outcome = await waitForClaim(operation, name, uid);
  operation.emit(
    outcome.bound
      ? { type: 'ready', kind: 'PersistentVolumeClaim', name, namespace: operation.namespace }
      : {
          type: 'warning',
          message: `PersistentVolumeClaim '${name}' will be bound once a pod uses it: its StorageClass waits for the first consumer`,
        },
  );
  return outcome;
}

/** Arguments of {@link cloneVolume}; exactly one source. */
export interface CloneVolumeOptions extends OperationOptions {
  readonly newPvcName: string;
  readonly sourcePvcName?: string;
  readonly sourceSnapshotName?: string;
  /** For the snapshot taken of `sourcePvcName`; default: the cluster's. */
  readonly volumeSnapshotClass?: string;
  /** Further annotations of the clone, such as Trident's `trident.netapp.io/splitOnClone`. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/**
 * Makes a volume with the content of another one or of a snapshot; class and access modes are the source's.
 *
 * The snapshot taken on the way is deleted once the clone is bound; where the clone waits for its first pod, the
 * snapshot is handed to it and goes when the clone does.
 */
export async function cloneVolume(client: KubeClient, options: CloneVolumeOptions): Promise<VolumeResult> {
  checkName('newPvcName', options.newPvcName);
  const { sourcePvcName, sourceSnapshotName } = options;
  if ((sourcePvcName === undefined) === (sourceSnapshotName === undefined)) {
    throw new ScrimError('INVALID_ARGUMENT', 'expected exactly one of sourcePvcName and sourceSnapshotName');
  }
  return runOperation(client, options, async (operation) => {
    const { bound } = await makeClone(operation, { ...options, name: options.newPvcName });
    return { pvcName: options.newPvcName, bound, manifests: operation.manifests };
  });
}

/** Clones within a larger operation. With `adopt`, a claim that an interrupted run of the same request left is taken over. */
export async function makeClone(
  operation: Operation,
  spec: {
    readonly name: string;
    readonly sourcePvcName?: string;
    readonly sourceSnapshotName?: string;
    readonly volumeSnapshotClass?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly adopt?: string;
  },
): Promise<ClaimOutcome> {
  const { namespace } = operation;
  const { name, adopt } = spec;
  const dry = operation.dryRun !== undefined;
  const temporary = spec.sourceSnapshotName === undefined;
  const snapshot = spec.sourceSnapshotName ?? snapshotName('for-clone', new Date(), uniqueSuffix());
  const unfinished = await unfinishedClone(operation, name, adopt);
  if (unfinished !== undefined) {
    const outcome = await settleClaim(operation, unfinished);
    if (!dry) await settleSnapshots(operation, outcome, name);
    operation.emit({ type: 'step', step: 'volume-cloned', name, namespace });
    return outcome;
  }
  const forClone = { ...operationLabels('clone-volume'), [FOR_CLONE_LABEL]: labelValue(name) };
  if (temporary) {
    const source = spec.sourcePvcName ?? '';
    operation.emit({ type: 'step', step: 'snapshot-for-clone', name: snapshot, source, namespace });
    await takeSnapshot(operation, {
      pvcName: source,
      snapshotName: snapshot,
      labels: forClone,
      ...(spec.volumeSnapshotClass === undefined ? {} : { volumeSnapshotClass: spec.volumeSnapshotClass }),
    });
  }
  const { sourceName, claimSpec } = await cloneSource(operation, snapshot, spec.sourcePvcName, dry && temporary);
  operation.emit({ type: 'step', step: 'clone-volume', name, source: snapshot, namespace });
  const manifest = claimManifest({
    ...claimSpec,
    name,
    labels: spec.labels ?? { ...operationLabels('clone-volume'), 'source-pvc': labelValue(sourceName) },
    ...(spec.annotations === undefined ? {} : { annotations: spec.annotations }),
    snapshot,
  });
  const { object } = await operation.create(manifest, adopt === undefined ? {} : { adopt });
  // Should this client end before the clone is bound, the snapshot goes with the clone at the latest.
  if (temporary && !dry) await giveTo(operation, snapshot, object);
  const outcome = await settleClaim(operation, object);
  if (temporary && !dry) await settleSnapshots(operation, outcome, name);
  operation.emit({ type: 'step', step: 'volume-cloned', name, namespace });
  return outcome;
}

/** The claim an interrupted run of the same request left. @throws ALREADY_EXISTS where it is anyone else's */
async function unfinishedClone(
  operation: Operation,
  name: string,
  adopt: string | undefined,
): Promise<KindMap['PersistentVolumeClaim'] | undefined> {
  const { client, namespace, signal } = operation;
  if (operation.dryRun === 'client') return undefined;
  const present = await client.find('PersistentVolumeClaim', namespace, name, signal);
  if (present === undefined) return undefined;
  const { annotations = {}, deletionTimestamp } = present.metadata ?? {};
  if (adopt === undefined || annotations[REQUEST_ANNOTATION] !== adopt || deletionTimestamp !== undefined) {
    throw new ScrimError(
      'ALREADY_EXISTS',
      `PersistentVolumeClaim '${name}' exists already in namespace '${namespace}'`,
    );
  }
  await operation.adopt(present, 'PersistentVolumeClaim');
  return present;
}

/** Makes a snapshot a claim's own, so that it goes when the claim does. */
async function giveTo(
  { client, namespace, signal, fieldManager }: Operation,
  snapshot: string,
  { metadata }: KindMap['PersistentVolumeClaim'],
): Promise<void> {
  const ownerReferences = [
    { apiVersion: 'v1', kind: 'PersistentVolumeClaim', name: metadata?.name ?? '', uid: metadata?.uid ?? '' },
  ];
  await client.patch(
    'VolumeSnapshot',
    namespace,
    snapshot,
    { metadata: { ownerReferences } },
    { fieldManager, signal },
  );
}

/** Size, class, access modes a clone of `snapshot` gets. In a dry run the snapshot does not exist: the claim tells. */
async function cloneSource(
  operation: Operation,
  snapshot: string,
  claimName: string | undefined,
  fromClaim: boolean,
): Promise<{ readonly sourceName: string; readonly claimSpec: Omit<ClaimSpec, 'name'> }> {
  const { client, namespace, signal } = operation;
  if (operation.dryRun === 'client') {
    throw new ScrimError(
      'UNSUPPORTED',
      'a clone takes its size and class from the cluster: use the dry run of the server',
    );
  }
  const source = fromClaim ? { claim: claimName ?? '', size: '0' } : await readSnapshot(operation, snapshot);
  const claim = await client.find('PersistentVolumeClaim', namespace, source.claim, signal);
  if (claim === undefined) {
    throw new ScrimError(
      'NOT_FOUND',
      `PersistentVolumeClaim '${source.claim}', whose class and access modes the clone needs, does not exist in namespace '${namespace}'`,
    );
  }
  const capacity = claim.status?.capacity?.storage ?? claim.spec?.resources?.requests?.storage ?? '0';
  const { storageClassName, accessModes, volumeMode } = claim.spec ?? {};
  return {
    sourceName: source.claim,
    claimSpec: {
      size: source.size === '0' ? capacity : largerQuantity(source.size, claim.spec?.resources?.requests?.storage),
      ...(storageClassName === undefined ? {} : { storageClass: storageClassName }),
      ...(accessModes === undefined ? {} : { accessModes }),
      ...(volumeMode === undefined || volumeMode === 'Filesystem' ? {} : { volumeMode }),
    },
  };
}

/** Removes the clone's temporary snapshots, those of interrupted runs too, or hands them to the clone. */
async function settleSnapshots(operation: Operation, outcome: ClaimOutcome, name: string): Promise<void> {
  const { client, namespace, signal } = operation;
  const selection = { namespace, labelSelector: `${FOR_CLONE_LABEL}=${labelValue(name)}` };
  const { items } = await client.list('VolumeSnapshot', selection, signal);
  for (const { metadata } of items) {
    const snapshot = metadata?.name ?? '';
    if (outcome.bound) {
      await operation.remove('VolumeSnapshot', snapshot, { wait: false });
    } else {
      await giveTo(operation, snapshot, outcome.claim);
      operation.keep('VolumeSnapshot', snapshot);
    }
  }
}

/** A volume as lists show it. */
export interface VolumeInfo {
  readonly name: string;
  readonly status: string;
  readonly size?: string;
  readonly storageClass?: string;
  readonly accessModes: readonly string[];
  readonly clone: boolean;
  readonly sourcePvc?: string;
  /** False where the source is gone. */
  readonly sourcePvcExists?: boolean;
  readonly sourceSnapshot?: string;
  readonly sourceSnapshotExists?: boolean;
  /** SVM and volume a FlexCache is of; undefined for other volumes. */
  readonly flexCacheOf?: { readonly svm: string; readonly volume: string };
}

/** Lists the volumes of a namespace. */
export async function listVolumes(client: KubeClient, options: OperationOptions = {}): Promise<readonly VolumeInfo[]> {
  return runOperation(client, options, async ({ namespace, signal }) => {
    const { items } = await client.list('PersistentVolumeClaim', { namespace }, signal);
    const snapshots = items.some((claim) => isClone(claim))
      ? await snapshotNames(client, namespace, signal)
      : undefined;
    const names = new Set(items.map(({ metadata }) => metadata?.name));
    return items.map((claim) => describe(claim, names, snapshots));
  });
}

function isClone(claim: KindMap['PersistentVolumeClaim']): boolean {
  const operation = claim.metadata?.labels?.['created-by-operation'];
  return operation === 'clone-volume' || operation === 'clone-jupyterlab';
}

function isFlexCache(claim: KindMap['PersistentVolumeClaim']): boolean {
  return claim.metadata?.labels?.app === 'flexcache';
}

async function snapshotNames(client: KubeClient, namespace: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const { items } = await client.list('VolumeSnapshot', { namespace }, signal);
  return new Set(items.map(({ metadata }) => metadata?.name ?? ''));
}

function describe(
  claim: KindMap['PersistentVolumeClaim'],
  names: ReadonlySet<string | undefined>,
  snapshots: ReadonlySet<string> | undefined,
): VolumeInfo {
  const { metadata, spec, status } = claim;
  const clone = isClone(claim);
  const sourcePvc = clone ? metadata?.labels?.['source-pvc'] : undefined;
  const sourceSnapshot = clone ? spec?.dataSource?.name : undefined;
  const size = status?.capacity?.storage;
  return {
    name: metadata?.name ?? '',
    status: status?.phase ?? 'Unknown',
    accessModes: spec?.accessModes ?? [],
    clone,
    ...(size === undefined ? {} : { size }),
    ...(spec?.storageClassName === undefined ? {} : { storageClass: spec.storageClassName }),
    ...(sourcePvc === undefined ? {} : { sourcePvc, sourcePvcExists: names.has(sourcePvc) }),
    ...(sourceSnapshot === undefined
      ? {}
      : { sourceSnapshot, sourceSnapshotExists: snapshots?.has(sourceSnapshot) ?? false }),
    ...(isFlexCache(claim)
      ? {
          flexCacheOf: {
            svm: metadata?.labels?.source_svm ?? '',
            volume: metadata?.labels?.source_volume ?? '',
          },
        }
      : {}),
  };
}

/** Arguments of {@link deleteVolume}. */
export interface DeleteVolumeOptions extends OperationOptions {
  readonly pvcName: string;
  /** Keeps the volume's snapshots. */
  readonly preserveSnapshots?: boolean;
}

/**
 * Deletes a volume, and its snapshots unless they are to be kept, and waits until it is gone.
 *
 * @throws NOT_FOUND, INVALID_ARGUMENT for a FlexCache, UNAVAILABLE with reason 'InUse' while pods use it (nothing is
 *   deleted then)
 */
export async function deleteVolume(client: KubeClient, options: DeleteVolumeOptions): Promise<void> {
  checkName('pvcName', options.pvcName);
  await runOperation(client, options, async (operation) => {
    const { client, namespace, signal } = operation;
    const claim = await client.find('PersistentVolumeClaim', namespace, options.pvcName, signal);
    if (claim !== undefined && isFlexCache(claim)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `PersistentVolumeClaim '${options.pvcName}' is a FlexCache volume: delete it as one, so that the cache goes too`,
      );
    }
    await refuseInUse(operation, options.pvcName);
    await removeVolume(operation, options.pvcName, options.preserveSnapshots ?? false);
  });
}

/** Deletes a volume within a larger operation: snapshots first, as the toolkit does. */
export async function removeVolume(operation: Operation, name: string, preserveSnapshots: boolean): Promise<void> {
  const { client, namespace, signal } = operation;
  if (operation.dryRun !== 'client') await client.get('PersistentVolumeClaim', namespace, name, signal);
  if (!preserveSnapshots && operation.dryRun !== 'client') {
    operation.emit({ type: 'step', step: 'delete-snapshots', name, namespace });
    const { items } = (await client.serves('VolumeSnapshot', signal))
      ? await client.list('VolumeSnapshot', { namespace }, signal)
      : { items: [] };
    for (const { metadata, spec } of items) {
      if (spec.source.persistentVolumeClaimName === name) await removeSnapshot(operation, metadata?.name ?? '');
    }
  }
  operation.emit({ type: 'deleting', kind: 'PersistentVolumeClaim', name, namespace });
  await operation.remove('PersistentVolumeClaim', name);
  operation.emit({ type: 'deleted', kind: 'PersistentVolumeClaim', name, namespace });
}

/** Names of pods that use a claim and have not ended. */
export async function podsUsing(operation: Operation, claim: string): Promise<readonly string[]> {
  const { items } = await operation.client.list('Pod', { namespace: operation.namespace }, operation.signal);
  return items
    .filter(({ status }) => status?.phase !== 'Succeeded' && status?.phase !== 'Failed')
    .filter(({ spec }) => spec?.volumes?.some((volume) => volume.persistentVolumeClaim?.claimName === claim))
    .map(({ metadata }) => metadata?.name ?? '');
}

/** Throws UNAVAILABLE with reason 'InUse' while pods use the claim. */
export async function refuseInUse(operation: Operation, claim: string): Promise<void> {
  if (operation.dryRun === 'client') return;
  const pods = await podsUsing(operation, claim);
  if (pods.length === 0) return;
  throw new ScrimError(
    'UNAVAILABLE',
    `PersistentVolumeClaim '${claim}' is used by ${pods.map((pod) => `pod '${pod}'`).join(', ')}; nothing was changed`,
    { details: { reason: 'InUse', pods } },
  );
}
