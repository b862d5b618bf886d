/**
 * SIMULATED: stands in for a CSI driver with its provisioner and snapshotter. A volume is a directory on this machine,
 * a snapshot a copy of one, so tests can compare contents. Claims, volumes and their binding are the real
 * controller-manager's; the custom resources below carry the fields of snapshot.storage.k8s.io/v1 that matter here.
 *
 * StorageClasses: 'sim' (default), 'sim-wait' (binds when a pod comes), 'sim-failing' (provisioning fails),
 * 'nobody' (a driver that is not installed), 'host-path' (the controller-manager's own provisioner).
 * VolumeSnapshotClasses: 'sim' (default), 'sim-failing', 'sim-slow'; another name is reported as not found.
 */
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { AdminApi, Json } from './admin-api.js';
import { emitEvent, type Pace, pause } from './node-simulator.js';

const DRIVER = 'sim.csi.scrim.dev';
const CLASSES: readonly { name: string; provisioner: string; wait?: boolean; isDefault?: boolean; fails?: string }[] = [
  { name: 'sim', provisioner: DRIVER, isDefault: true },
  { name: 'sim-wait', provisioner: DRIVER, wait: true },
  { name: 'sim-failing', provisioner: DRIVER, fails: 'all' },
  { name: 'sim-no-restore', provisioner: DRIVER, fails: 'restore' },
  { name: 'nobody', provisioner: 'nobody.example.com' },
  { name: 'host-path', provisioner: 'kubernetes.io/host-path' },
];
const SNAPSHOT_CLASSES = ['sim', 'sim-failing', 'sim-slow', 'csi-snapclass'];
const SNAPSHOTS = '/apis/snapshot.storage.k8s.io/v1';

/** The simulator, with access to the contents of its volumes. */
export interface StorageSimulator {
  /** Directory of a bound claim's volume. */
  directoryOf(namespace: string, claim: string): Promise<string>;
  /** Installs the custom resource of Trident's in-place restore, and plays Trident for it. */
  installTridentRestore(outcome: 'Succeeded' | 'Failed'): Promise<void>;
  removeTridentRestore(): Promise<void>;
  /** Installs Trident's custom resource for backends and writes one, with its Secret, into namespace 'trident'. */
  installTridentBackend(
    name: string,
    spec: Json,
    credentials: { readonly username: string; readonly password: string },
  ): Promise<void>;
  stop(): Promise<void>;
}

/** Installs the custom resources and classes and plays the driver until it is stopped. */
export async function startStorageSimulator(api: AdminApi, directory: string, pace: Pace): Promise<StorageSimulator> {
  const stop = new AbortController();
  const volumes = join(directory, 'volumes');
  const snapshots = join(directory, 'snapshots');
  mkdirSync(volumes, { recursive: true });
  mkdirSync(snapshots, { recursive: true });
  await installCrd(api, 'snapshot.storage.k8s.io', 'VolumeSnapshot', 'volumesnapshots', {
    spec: object({
      source: object({ persistentVolumeClaimName: text, volumeSnapshotContentName: text }),
      volumeSnapshotClassName: text,
    }),
    status: object({
      readyToUse: { type: 'boolean' },
      creationTime: text,
      restoreSize: text,
      boundVolumeSnapshotContentName: text,
      error: object({ message: text, time: text }),
    }),
  });
  for (const { name, provisioner, wait, isDefault, fails } of CLASSES) {
    await api.ensure('/apis/storage.k8s.io/v1/storageclasses', {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'StorageClass',
      metadata: {
        name,
        annotations: isDefault ? { 'storageclass.kubernetes.io/is-default-class': 'true' } : {},
      },
      provisioner,
      reclaimPolicy: 'Delete',
      volumeBindingMode: wait ? 'WaitForFirstConsumer' : 'Immediate',
      ...(fails === undefined ? {} : { parameters: { fails } }),
    });
  }
  const sizes = new Map<string, string>();
  const watching = [
    api.watch('/api/v1/persistentvolumeclaims', stop.signal, (type, claim) => {
      if (type === 'DELETED') return;
      void pause(pace)
        .then(() => provision(api, claim, volumes, snapshots))
        .catch(() => undefined);
    }),
    api.watch('/api/v1/persistentvolumes', stop.signal, (type, volume) => {
      if (type !== 'DELETED') void reclaim(api, volume, volumes).catch(() => undefined);
    }),
    api.watch(`${SNAPSHOTS}/volumesnapshots`, stop.signal, (type, snapshot) => {
      if (type === 'DELETED') {
        setTimeout(() => rmSync(join(snapshots, snapshot.metadata.uid), { recursive: true, force: true }), 1_000);
      } else {
        void pause(pace)
          .then(() => take(api, snapshot, volumes, snapshots, sizes))
          .catch(() => undefined);
      }
    }),
  ];
  const trident = '/apis/trident.netapp.io/v1/tridentactionsnapshotrestores';
  let tridentStop: AbortController | undefined;
  return {
    directoryOf: async (namespace, claim) => {
      const { spec } = await api.get(`/api/v1/namespaces/${namespace}/persistentvolumeclaims/${claim}`);
      return join(volumes, spec.volumeName);
    },
    installTridentRestore: async (outcome) => {
      await installCrd(api, 'trident.netapp.io', 'TridentActionSnapshotRestore', 'tridentactionsnapshotrestores', {
        spec: object({ pvcName: text, volumeSnapshotName: text }),
        status: object({ state: text, message: text, startTime: text, completionTime: text }),
      });
      const controller = new AbortController();
      tridentStop = controller;
      watching.push(
        api.watch(trident, controller.signal, (type, action) => {
          if (type !== 'ADDED') return;
          const { namespace, name } = action.metadata;
          const status = { state: outcome, message: outcome === 'Failed' ? 'snapshot is not the latest' : 'restored' };
          void restoreInPlace(api, action, volumes, snapshots, outcome)
            .then(() =>
              api.patch(
                `/apis/trident.netapp.io/v1/namespaces/${namespace}/tridentactionsnapshotrestores/${name}/status`,
                {
                  status,
                },
              ),
            )
            .catch((error: unknown) => process.stderr.write(`simulated Trident: ${String(error)}\n`));
        }),
      );
    },
    removeTridentRestore: async () => {
      tridentStop?.abort();
      await api.send(
        'DELETE',
        '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tridentactionsnapshotrestores.trident.netapp.io',
      );
    },
    installTridentBackend: async (name, spec, credentials) => {
      await installCrd(api, 'trident.netapp.io', 'TridentBackendConfig', 'tridentbackendconfigs', {
        spec: object({
          storageDriverName: text,
          managementLIF: text,
          dataLIF: text,
          svm: text,
          credentials: object({ name: text, type: text }),
        }),
      });
      await api.ensure('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'trident' } });
      await api.ensure('/api/v1/namespaces/trident/secrets', {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: `${name}-credentials` },
        stringData: credentials,
      });
      await api.ensure('/apis/trident.netapp.io/v1/namespaces/trident/tridentbackendconfigs', {
        apiVersion: 'trident.netapp.io/v1',
        kind: 'TridentBackendConfig',
        metadata: { name },
        spec: { ...spec, credentials: { name: `${name}-credentials` } },
      });
    },
    stop: async () => {
      stop.abort();
      tridentStop?.abort();
      await Promise.all(watching);
    },
  };
}

async function provision(api: AdminApi, claim: Json, volumes: string, snapshots: string): Promise<void> {
  const { namespace, name, uid, annotations = {}, resourceVersion } = claim.metadata;
  if (annotations['volume.beta.kubernetes.io/storage-provisioner'] !== DRIVER) return;
  if (claim.spec.volumeName !== undefined || claim.status.phase !== 'Pending') return;
  const volume = `pvc-${uid}`;
  if ((await api.find(`/api/v1/persistentvolumes/${volume}`)) !== undefined) return;
  const storage = await api.get(`/apis/storage.k8s.io/v1/storageclasses/${claim.spec.storageClassName}`);
  const source = claim.spec.dataSource?.kind === 'VolumeSnapshot' ? claim.spec.dataSource.name : undefined;
  const said = `External provisioner is provisioning volume for claim "${namespace}/${name}"`;
  await emitEvent(api, claim, 'Provisioning', said, 'Normal', DRIVER);
  const fails = storage.parameters?.fails;
  if (fails === 'all' || (fails === 'restore' && source !== undefined)) {
    const message = `failed to provision volume with StorageClass "${storage.metadata.name}": rpc error: the array is full`;
    await emitEvent(api, claim, 'ProvisioningFailed', message, 'Warning', DRIVER);
    return;
  }
  const target = join(volumes, volume);
  if (source === undefined) {
    mkdirSync(target, { recursive: true });
  } else {
    const snapshot = await api.find(`${SNAPSHOTS}/namespaces/${namespace}/volumesnapshots/${source}`);
    if (snapshot?.status?.readyToUse !== true) {
      await emitEvent(api, claim, 'ProvisioningFailed', `snapshot ${source} is not ready`, 'Warning', DRIVER);
      setTimeout(() => void retry(api, claim, volumes, snapshots), 200);
      return;
    }
    cpSync(join(snapshots, snapshot.metadata.uid), target, { recursive: true });
  }
  await api.ensure('/api/v1/persistentvolumes', {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: volume, annotations: { 'pv.kubernetes.io/provisioned-by': DRIVER } },
    spec: {
      accessModes: claim.spec.accessModes,
      capacity: { storage: claim.spec.resources.requests.storage },
      storageClassName: storage.metadata.name,
      persistentVolumeReclaimPolicy: storage.reclaimPolicy,
      claimRef: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name, uid, resourceVersion },
      // The name of Trident's driver where a test plays Trident.
      csi: { driver: annotations['test.scrim.dev/driver'] ?? DRIVER, volumeHandle: volume },
    },
  });
}

async function retry(api: AdminApi, claim: Json, volumes: string, snapshots: string): Promise<void> {
  const { namespace, name } = claim.metadata;
  const again = await api.find(`/api/v1/namespaces/${namespace}/persistentvolumeclaims/${name}`).catch(() => undefined);
  if (again !== undefined) await provision(api, again, volumes, snapshots).catch(() => undefined);
}

async function reclaim(api: AdminApi, volume: Json, volumes: string): Promise<void> {
  const { name, annotations = {}, deletionTimestamp } = volume.metadata;
  if (annotations['pv.kubernetes.io/provisioned-by'] !== DRIVER || deletionTimestamp !== undefined) return;
  if (volume.status.phase !== 'Released' || volume.spec.persistentVolumeReclaimPolicy !== 'Delete') return;
  rmSync(join(volumes, name), { recursive: true, force: true });
  await api.send('DELETE', `/api/v1/persistentvolumes/${name}`);
}

async function take(
  api: AdminApi,
  snapshot: Json,
  volumes: string,
  snapshots: string,
  sizes: Map<string, string>,
): Promise<void> {
  const { namespace, name, uid, deletionTimestamp } = snapshot.metadata;
  if (snapshot.status !== undefined || deletionTimestamp !== undefined || sizes.has(uid)) return;
  sizes.set(uid, '');
  const path = `${SNAPSHOTS}/namespaces/${namespace}/volumesnapshots/${name}/status`;
  const fail = (message: string): Promise<Json> =>
    api.patch(path, { status: { readyToUse: false, error: { message, time: new Date().toISOString() } } });
  const snapshotClass = snapshot.spec.volumeSnapshotClassName ?? 'sim';
  if (!SNAPSHOT_CLASSES.includes(snapshotClass)) {
    await fail(`Failed to get snapshot class with error volumesnapshotclass "${snapshotClass}" not found`);
    return;
  }
  if (snapshotClass === 'sim-failing') {
    await fail('Failed to create snapshot: rpc error: the array refuses');
    return;
  }
  await new Promise((resolve) => setTimeout(resolve, snapshotClass === 'sim-slow' ? 3_000 : 100));
  const claim = await api.get(
    `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${snapshot.spec.source.persistentVolumeClaimName}`,
  );
  const source = join(volumes, claim.spec.volumeName);
  if (existsSync(source)) cpSync(source, join(snapshots, uid), { recursive: true });
  await api.patch(path, {
    status: {
      readyToUse: true,
      creationTime: new Date().toISOString(),
      restoreSize: claim.status.capacity.storage,
      boundVolumeSnapshotContentName: `snapcontent-${uid}`,
    },
  });
}

async function restoreInPlace(
  api: AdminApi,
  action: Json,
  volumes: string,
  snapshots: string,
  outcome: string,
): Promise<void> {
  if (outcome !== 'Succeeded') return;
  const { namespace } = action.metadata;
  const { pvcName, volumeSnapshotName } = action.spec;
  const claim = await api.get(`/api/v1/namespaces/${namespace}/persistentvolumeclaims/${pvcName}`);
  const snapshot = await api.get(`${SNAPSHOTS}/namespaces/${namespace}/volumesnapshots/${volumeSnapshotName}`);
  const target = join(volumes, claim.spec.volumeName);
  rmSync(target, { recursive: true, force: true });
  cpSync(join(snapshots, snapshot.metadata.uid), target, { recursive: true });
}

const text = { type: 'string' };

function object(properties: Json): Json {
  return { type: 'object', properties };
}

/** Installs a namespaced custom resource with a status, version v1, and waits until it is served. */
async function installCrd(api: AdminApi, group: string, kind: string, plural: string, properties: Json): Promise<void> {
  await api.ensure('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      // Groups under k8s.io are protected: the API server wants to be told that this is not an official release.
      annotations: { 'api-approved.kubernetes.io': 'unapproved, a stand-in for tests' },
    },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: { openAPIV3Schema: object(properties) },
        },
      ],
    },
  });
  for (let attempt = 0; attempt < 100; attempt++) {
    if ((await api.find(`/apis/${group}/v1/${plural}`)) !== undefined) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${plural}.${group} is not served`);
}
