/**
 * Puts a volume back to a snapshot without a moment in which its data exists nowhere.
 *
 * A claim cannot change its volume, so the steps are: provision a new volume from the snapshot under another name;
 * keep both volumes (reclaim policy Retain); remove both claims; make the claim again, with the labels, class and
 * access modes it had, bound to the new volume; only then let the old volume go. A journal on the new volume lets an
 * interrupted restore be finished by running it again; a failing one binds the claim to its old volume again.
 * Where NetApp Trident offers TridentActionSnapshotRestore, the volume is put back in place instead; Trident does that
 * with a volume's newest snapshot alone, for ONTAP would delete the newer ones.
 */
import type { V1PersistentVolumeClaim } from '@kubernetes/client-node';
import { ScrimError } from 'scrim';
import { diagnoseClaim, diagnosePod, latestOf, Patience } from './diagnose.js';
import type { KubeClient } from './kube/client.js';
import { type ClaimSpec, claimManifest } from './manifests/volume.js';
import { volumeBinder } from './manifests/volume-binder.js';
import { checkName, labelValue, largerQuantity, shorten, uniqueSuffix } from './naming.js';
import { Operation, type OperationOptions, requestDigest, runOperation } from './operation.js';
import { readSnapshot } from './snapshots.js';
import { refuseInUse } from './volumes.js';
import { waitForAvailable, waitForClaim, waitForPreboundClaim } from './waiting.js';

const RESTORE_LABEL = 'scrim.dev/restore';
const JOURNAL_ANNOTATION = 'scrim.dev/restore-journal';
const POLICY_ANNOTATION = 'scrim.dev/reclaim-policy';
/** Of the pod that a class may wait for. It has to exist only where that pod gets to run. */
const BINDER_IMAGE = 'docker.io/library/busybox:1.37.0';
const TRIDENT_DRIVER = 'csi.trident.netapp.io';
/** Has Trident copy the blocks a clone shares with its origin: else the old volume could not go after the swap. */
const TRIDENT_SPLIT = { 'trident.netapp.io/splitOnClone': 'true' };

/** Arguments of {@link restoreVolumeSnapshot}. */
export interface RestoreVolumeSnapshotOptions extends OperationOptions {
  readonly snapshotName: string;
  /** Keeps the volume that was replaced, released, with reclaim policy Retain. */
  readonly keepOldVolume?: boolean;
  /** 'auto' restores in place where the driver can. */
  readonly method?: 'auto' | 'in-place' | 'swap';
}

/** Result of a restore. */
export interface RestoreResult {
  readonly pvcName: string;
  readonly method: 'in-place' | 'swap';
  /** The replaced PersistentVolume, where it was kept. */
  readonly oldVolume?: string;
}

/** What an interrupted restore needs to be finished. */
interface Journal {
  readonly snapshot: string;
  readonly interim: string;
  readonly claim: ClaimSpec;
  readonly ownerReferences?: NonNullable<V1PersistentVolumeClaim['metadata']>['ownerReferences'];
  readonly newVolume: string;
  readonly oldVolume?: string;
}

/**
 * Puts a volume back to one of its snapshots.
 *
 * Where the volume's class waits for a first consumer, a short-lived pod is that.
 *
 * @throws UNAVAILABLE with reason 'InUse' while pods use the volume, NOT_FOUND; the volume is as before then
 */
export async function restoreVolumeSnapshot(
  client: KubeClient,
  options: RestoreVolumeSnapshotOptions,
): Promise<RestoreResult> {
  checkName('snapshotName', options.snapshotName);
  return runOperation(client, options, (operation) =>
    restoreInto(operation, options, async (claim) => {
      await refuseInUse(operation, claim);
      operation.emit({
        type: 'step',
        step: 'restore-volume',
        name: claim,
        source: options.snapshotName,
        namespace: operation.namespace,
      });
    }),
  );
}

/** Restores within a larger operation; `quiesce` runs when the new volume is there and the old one must be free. */
export async function restoreInto(
  operation: Operation,
  options: Pick<RestoreVolumeSnapshotOptions, 'snapshotName' | 'keepOldVolume' | 'method'>,
  quiesce: (claim: string) => Promise<void>,
): Promise<RestoreResult> {
  const { client, namespace, signal } = operation;
  const { snapshotName, method = 'auto' } = options;
  if (operation.dryRun === 'client') {
    throw new ScrimError(
      'UNSUPPORTED',
      'a restore depends on the state of the cluster: it has no dry run of the client',
    );
  }
  const { claim: name, size } = await readSnapshot(operation, snapshotName);
  const keep = options.keepOldVolume ?? false;
  const unfinished = await findJournal(operation, name);
  if (unfinished !== undefined) {
    if (unfinished.snapshot !== snapshotName) {
      throw new ScrimError(
        'ALREADY_EXISTS',
        `a restore of '${name}' from VolumeSnapshot '${unfinished.snapshot}' was interrupted; finish it first by restoring that snapshot`,
        { details: { reason: 'UnfinishedRestore' } },
      );
    }
    if (operation.dryRun !== undefined) return { pvcName: name, method: 'swap' };
    await quiesce(name);
    return swap(operation, unfinished, keep);
  }
  const old = await client.find('PersistentVolumeClaim', namespace, name, signal);
  const oldVolume = old?.spec?.volumeName;
  const hindrance = method === 'swap' ? '' : await inPlaceHindrance(operation, name, oldVolume, snapshotName);
  const inPlace = method !== 'swap' && hindrance === undefined;
  if (method === 'in-place' && !inPlace) {
    throw new ScrimError('UNSUPPORTED', `the volume of '${name}' can't be restored in place: ${hindrance}`);
  }
  if (operation.dryRun !== undefined) return { pvcName: name, method: inPlace ? 'in-place' : 'swap' };
  if (inPlace) {
    await quiesce(name);
    await restoreInPlace(operation, name, snapshotName);
    return { pvcName: name, method: 'in-place' };
  }
  const claim = claimSpecOf(name, old, size, snapshotName);
  const splits = oldVolume !== undefined && (await isTridents(operation, oldVolume));
  const newVolume = await operation.silently(() => provision(operation, claim, snapshotName, splits));
  await quiesce(name);
  return swap(
    operation,
    {
      snapshot: snapshotName,
      interim: interimName(name, snapshotName),
      claim,
      ...(old?.metadata?.ownerReferences === undefined ? {} : { ownerReferences: old.metadata.ownerReferences }),
      newVolume,
      ...(oldVolume === undefined ? {} : { oldVolume }),
    },
    keep,
  );
}

function interimName(claim: string, snapshot: string): string {
  return `${shorten(claim, 220)}-restore-${requestDigest('restore', { claim, snapshot })}`;
}

/** The claim as it was, to be made again; what the volume controllers wrote into it is left out. */
function claimSpecOf(
  name: string,
  old: V1PersistentVolumeClaim | undefined,
  size: string,
  snapshot: string,
): ClaimSpec {
  const annotations = Object.fromEntries(
    Object.entries(old?.metadata?.annotations ?? {}).filter(
      ([key]) =>
        !/^(pv\.kubernetes\.io|volume(\.beta)?\.kubernetes\.io|kubectl\.kubernetes\.io|scrim\.dev)\//.test(key),
    ),
  );
  const { storageClassName, accessModes, volumeMode, resources } = old?.spec ?? {};
  const requested = resources?.requests?.storage;
  return {
    name,
    size: largerQuantity(size, requested),
    snapshot,
    ...(old?.metadata?.labels === undefined ? {} : { labels: old.metadata.labels }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    ...(storageClassName === undefined ? {} : { storageClass: storageClassName }),
    ...(accessModes === undefined ? {} : { accessModes }),
    ...(volumeMode === undefined || volumeMode === 'Filesystem' ? {} : { volumeMode }),
  };
}

/** Makes the new volume under an interim claim; an interrupted run's is taken over. Returns the volume's name. */
async function provision(operation: Operation, claim: ClaimSpec, snapshot: string, split: boolean): Promise<string> {
  const interim = interimName(claim.name, snapshot);
  const labels = {
    'created-by': 'ntap-dsutil',
    'created-by-operation': 'restore-volume-snapshot',
    [RESTORE_LABEL]: labelValue(claim.name),
  };
  const { annotations: _annotations, ...plain } = claim;
  const interimClaim = { ...plain, name: interim, labels, ...(split ? { annotations: TRIDENT_SPLIT } : {}) };
  const { object } = await operation.create(claimManifest(interimClaim), {
    adopt: requestDigest('restore', { claim: claim.name, snapshot }),
  });
  const outcome = await waitForClaim(operation, interim, object.metadata?.uid ?? '');
  const volume = outcome.bound ? outcome.claim.spec?.volumeName : await bindByPod(operation, interim);
  if (volume === undefined)
    throw new ScrimError('INTERNAL', `PersistentVolumeClaim '${interim}' is bound to no volume`);
  return volume;
}

/** Has a claim bound whose class waits for a pod (WaitForFirstConsumer): a pod comes, and goes once the claim is bound. */
async function bindByPod(operation: Operation, claim: string): Promise<string | undefined> {
  const pod = `scrim-bind-${operation.id}`;
  await operation.create(volumeBinder({ name: pod, claim, image: BINDER_IMAGE }));
  const patience = new Patience(operation.stallMs);
  const volume = await operation.waitFor(
    `PersistentVolumeClaim '${claim}' to be bound`,
    {
      claims: { kind: 'PersistentVolumeClaim', name: claim },
      pods: { kind: 'Pod', name: pod },
      events: { kind: 'Event', fields: `involvedObject.name=${claim}` },
    },
    ({ claims, pods, events }, elapsedMs) => {
      const [found] = claims ?? [];
      if (found?.status?.phase === 'Bound') return { name: found.spec?.volumeName };
      if (found === undefined || pods === undefined || events === undefined) return undefined;
      // The pod's image does not matter: it has done its part when it has a node.
      const finding = pods.map(diagnosePod).find((each) => each?.reason === 'Unschedulable');
      const what = `PersistentVolumeClaim '${claim}' is not bound`;
      patience.judge(finding ?? diagnoseClaim(found, events), what, elapsedMs);
      return undefined;
    },
    ({ events }) => latestOf(events ?? [])?.message ?? '',
  );
  await operation.remove('Pod', pod);
  return volume.name;
}

/** Exchanges the claim's volume; every step may have been done already by an interrupted run. */
async function swap(operation: Operation, journal: Journal, keepOldVolume: boolean): Promise<RestoreResult> {
  const { client, namespace, signal, fieldManager } = operation;
  const { newVolume, oldVolume, claim } = journal;
  const options = { fieldManager, signal };
  await retain(operation, newVolume, journal);
  if (oldVolume !== undefined) await retain(operation, oldVolume);
  operation.onFailure(`binding '${claim.name}' to its old volume`, (late) => bindBack(operation, journal, late));

  operation.keep('PersistentVolumeClaim', journal.interim);
  await operation.silently(() => operation.remove('PersistentVolumeClaim', journal.interim));
  const present = await client.find('PersistentVolumeClaim', namespace, claim.name, signal);
  if (present?.spec?.volumeName !== newVolume) {
    await operation.silently(() => operation.remove('PersistentVolumeClaim', claim.name));
    await reserve(client, newVolume, namespace, claim.name, options);
    await waitForAvailable(operation, newVolume);
    await operation.silently(() => makeClaimAgain(operation, journal, newVolume));
  }
  await client.patch('PersistentVolume', '', newVolume, await released(client, newVolume, signal), options);
  if (oldVolume !== undefined && !keepOldVolume) {
    await client.patch('PersistentVolume', '', oldVolume, await released(client, oldVolume, signal), options);
  }
  return {
    pvcName: claim.name,
    method: 'swap',
    ...(oldVolume !== undefined && keepOldVolume ? { oldVolume } : {}),
  };
}

/** Makes the claim bound to `volume` and waits for it. */
async function makeClaimAgain(operation: Operation, journal: Journal, volume: string): Promise<void> {
  const manifest = claimManifest({ ...journal.claim, volumeName: volume });
  const { ownerReferences } = journal;
  const { object } = await operation.create({
    ...manifest,
    metadata: { ...manifest.metadata, ...(ownerReferences === undefined ? {} : { ownerReferences }) },
  });
  await waitForPreboundClaim(operation, journal.claim.name, object.metadata?.uid ?? '');
}

/** Keeps a volume whatever happens to its claim; with a journal, writes it there. */
async function retain(operation: Operation, volume: string, journal?: Journal): Promise<void> {
  const { client, signal, fieldManager } = operation;
  const { metadata, spec } = await client.get('PersistentVolume', '', volume, signal);
  const policy = metadata?.annotations?.[POLICY_ANNOTATION] ?? spec?.persistentVolumeReclaimPolicy ?? 'Retain';
  await client.patch(
    'PersistentVolume',
    '',
    volume,
    {
      metadata: {
        annotations: {
          [POLICY_ANNOTATION]: policy,
          ...(journal === undefined ? {} : { [JOURNAL_ANNOTATION]: JSON.stringify(journal) }),
        },
        ...(journal === undefined
          ? {}
          : { labels: { [RESTORE_LABEL]: restoreKey(operation.namespace, journal.claim.name) } }),
      },
      spec: { persistentVolumeReclaimPolicy: 'Retain' },
    },
    { fieldManager, signal },
  );
}

/** The change that gives a volume its own reclaim policy back and forgets the restore. */
async function released(client: KubeClient, volume: string, signal: AbortSignal): Promise<object> {
  const { metadata, spec } = await client.get('PersistentVolume', '', volume, signal);
  const policy = metadata?.annotations?.[POLICY_ANNOTATION] ?? spec?.persistentVolumeReclaimPolicy;
  return {
    metadata: {
      annotations: { [POLICY_ANNOTATION]: null, [JOURNAL_ANNOTATION]: null },
      labels: { [RESTORE_LABEL]: null },
    },
    spec: { persistentVolumeReclaimPolicy: policy },
  };
}

/** Reserves a volume for a claim of this name: nothing else can bind it. */
async function reserve(
  client: KubeClient,
  volume: string,
  namespace: string,
  name: string,
  options: { readonly fieldManager: string; readonly signal: AbortSignal },
): Promise<void> {
  const claimRef = {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    namespace,
    name,
    uid: null,
    resourceVersion: null,
  };
  await client.patch('PersistentVolume', '', volume, { spec: { claimRef } }, options);
}

/** Undoes a swap that failed: the claim gets its old volume, the new one goes. */
async function bindBack(failed: Operation, journal: Journal, signal: AbortSignal): Promise<void> {
  const { client, namespace } = failed;
  const { oldVolume, newVolume, claim } = journal;
  const operation = new Operation(client, { namespace }, signal);
  const options = { fieldManager: operation.fieldManager, signal };
  const present = await client.find('PersistentVolumeClaim', namespace, claim.name, signal);
  if (present?.metadata?.deletionTimestamp !== undefined) {
    // A pod came and holds it. It will go, so both volumes are kept, and the journal with which to finish.
    throw new ScrimError('UNAVAILABLE', `PersistentVolumeClaim '${claim.name}' is being deleted`);
  }
  if (oldVolume !== undefined) {
    if (present?.spec?.volumeName !== oldVolume) {
      if (present !== undefined) await operation.remove('PersistentVolumeClaim', claim.name);
      await reserve(client, oldVolume, namespace, claim.name, options);
      await waitForAvailable(operation, oldVolume);
      await makeClaimAgain(operation, journal, oldVolume);
    }
    await client.patch('PersistentVolume', '', oldVolume, await released(client, oldVolume, signal), options);
  }
  await operation.remove('PersistentVolumeClaim', journal.interim);
  await client.patch('PersistentVolume', '', newVolume, await released(client, newVolume, signal), options);
  await client.delete('PersistentVolume', '', newVolume, { signal });
}

function restoreKey(namespace: string, claim: string): string {
  return requestDigest('restore-key', { namespace, claim });
}

async function findJournal(operation: Operation, claim: string): Promise<Journal | undefined> {
  const labelSelector = `${RESTORE_LABEL}=${restoreKey(operation.namespace, claim)}`;
  const { items } = await operation.client.list('PersistentVolume', { namespace: '', labelSelector }, operation.signal);
  const text = items.map(({ metadata }) => metadata?.annotations?.[JOURNAL_ANNOTATION]).find(Boolean);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as Journal;
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_DATA', `the journal of the interrupted restore of '${claim}' can't be read`);
  }
}

async function isTridents({ client, signal }: Operation, volume: string): Promise<boolean> {
  const { spec } = await client.get('PersistentVolume', '', volume, signal);
  return spec?.csi?.driver === TRIDENT_DRIVER;
}

/** Why the volume can't be put back in place, if so. */
async function inPlaceHindrance(
  operation: Operation,
  claim: string,
  volume: string | undefined,
  snapshot: string,
): Promise<string | undefined> {
  const { client, namespace, signal } = operation;
  if (volume === undefined) return 'it is gone';
  if (!(await client.serves('TridentActionSnapshotRestore', signal))) return 'the cluster has no Trident that could';
  if (!(await isTridents(operation, volume))) return "it is not Trident's";
  const { items } = await client.list('VolumeSnapshot', { namespace }, signal);
  const of = items.filter((item) => item.spec.source.persistentVolumeClaimName === claim);
  const time = (item: (typeof of)[number] | undefined): number => Date.parse(item?.status?.creationTime ?? '');
  const chosen = time(of.find(({ metadata }) => metadata?.name === snapshot));
  const newer = of.find((item) => time(item) > chosen);
  return newer === undefined ? undefined : `VolumeSnapshot '${newer.metadata?.name}' is newer than '${snapshot}'`;
}

async function restoreInPlace(operation: Operation, claim: string, snapshot: string): Promise<void> {
  const name = `${shorten(claim, 200)}-${uniqueSuffix()}`;
  await operation.silently(() =>
    operation.create({
      apiVersion: 'trident.netapp.io/v1',
      kind: 'TridentActionSnapshotRestore',
      metadata: { name, labels: { 'created-by': 'ntap-dsutil', 'created-by-operation': 'restore-volume-snapshot' } },
      spec: { pvcName: claim, volumeSnapshotName: snapshot },
    }),
  );
  await operation.waitFor(
    `Trident to restore '${claim}'`,
    { actions: { kind: 'TridentActionSnapshotRestore', name } },
    ({ actions }) => {
      const { state, message = '' } = actions?.[0]?.status ?? {};
      if (state === 'Failed') {
        throw new ScrimError('UNAVAILABLE', `Trident could not restore '${claim}': ${message}`, {
          details: { reason: 'TridentActionFailed' },
        });
      }
      return state === 'Succeeded' ? true : undefined;
    },
    ({ actions }) => actions?.[0]?.status?.message ?? '',
  );
  await operation.remove('TridentActionSnapshotRestore', name, { wait: false });
}
