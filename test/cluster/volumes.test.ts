/** Volumes, snapshots, clones and restores against a real API server; the storage behind them is simulated. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  cloneVolume,
  createVolume,
  createVolumeSnapshot,
  type DataopsEvent,
  deleteVolume,
  deleteVolumeSnapshot,
  KubeClient,
  listVolumeSnapshots,
  listVolumes,
  restoreVolumeSnapshot,
} from '../../packages/dataops/src/index.js';
import { eventually } from './control-plane.js';
import { startTestCluster, type TestCluster } from './test-cluster.js';

let cluster: TestCluster;
let namespace: string;
const claims = (name = ''): string => `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${name}`;
const snapshots = (name = ''): string =>
  `/apis/snapshot.storage.k8s.io/v1/namespaces/${namespace}/volumesnapshots/${name}`;

beforeAll(async () => {
  cluster = await startTestCluster();
});
afterAll(() => cluster?.stop());
beforeEach(async () => {
  namespace = await cluster.createNamespace();
});

async function write(claim: string, content: string): Promise<void> {
  const directory = await cluster.storage.directoryOf(namespace, claim);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'data'), content);
}

async function content(claim: string): Promise<string> {
  return readFileSync(join(await cluster.storage.directoryOf(namespace, claim), 'data'), 'utf8');
}

describe('create volume', () => {
  it('makes a bound volume with the labels, access mode and size of the toolkit', async () => {
    const events: DataopsEvent[] = [];
    const result = await createVolume(cluster.client, {
      namespace,
      pvcName: 'inference-data',
      size: '50Gi',
      onProgress: (event) => events.push(event),
    });
    expect(result.bound).toBe(true);
    const claim = await cluster.api.get(claims('inference-data'));
    expect(claim.status.phase).toBe('Bound');
    expect(claim.spec.accessModes).toEqual(['ReadWriteMany']);
    expect(claim.spec.resources.requests.storage).toBe('50Gi');
    expect(claim.metadata.labels).toEqual({ 'created-by': 'ntap-dsutil', 'created-by-operation': 'create-volume' });
    expect(claim.metadata.managedFields[0]).toMatchObject({ operation: 'Apply' });
    expect(claim.metadata.managedFields[0].manager).toMatch(/^scrim:[0-9a-f]{8}$/);
    expect(events.map(({ type }) => type)).toEqual(['creating', 'created', 'waiting', 'ready']);
  });

  it("binds with the controller-manager's own provisioner too", async () => {
    const options = {
      namespace,
      pvcName: 'host',
      size: '1Gi',
      storageClass: 'host-path',
      accessModes: ['ReadWriteOnce'],
    };
    expect((await createVolume(cluster.client, options)).bound).toBe(true);
  });

  it('refuses a name that exists and leaves what is there alone', async () => {
    await createVolume(cluster.client, { namespace, pvcName: 'data', size: '1Gi' });
    const before = await cluster.api.get(claims('data'));
    await expect(createVolume(cluster.client, { namespace, pvcName: 'data', size: '2Gi' })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    expect(await cluster.api.get(claims('data'))).toEqual(before);
  });

  it('lets exactly one of several racing creates win', async () => {
    const sizes = ['1Gi', '2Gi', '3Gi', '4Gi', '5Gi', '6Gi'];
    const outcomes = await Promise.allSettled(
      sizes.map((size) => createVolume(cluster.client, { namespace, pvcName: 'raced', size })),
    );
    const winners = sizes.filter((_, index) => outcomes[index]?.status === 'fulfilled');
    expect(winners).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'ALREADY_EXISTS' });
    }
    expect((await cluster.api.get(claims('raced'))).spec.resources.requests.storage).toBe(winners[0]);
  });

  it('ends with the reason, and takes the claim back, when the class does not exist', async () => {
    const wrong = createVolume(cluster.client, { namespace, pvcName: 'data', size: '1Gi', storageClass: 'nope' });
    await expect(wrong).rejects.toMatchObject({ code: 'NOT_FOUND', details: { reason: 'ProvisioningFailed' } });
    await expect(wrong).rejects.toThrow(/storageclass.*"nope" not found/);
    await eventually(5_000, async () => expect(await cluster.api.find(claims('data'))).toBeUndefined());
  });

  it('ends with the reason when no provisioner answers', async () => {
    await expect(
      createVolume(cluster.client, { namespace, pvcName: 'data', size: '1Gi', storageClass: 'nobody', stallMs: 1_500 }),
    ).rejects.toMatchObject({ code: 'UNAVAILABLE', details: { reason: 'ExternalProvisioning' } });
  });

  it('ends with the reason when provisioning keeps failing', async () => {
    await expect(
      createVolume(cluster.client, {
        namespace,
        pvcName: 'data',
        size: '1Gi',
        storageClass: 'sim-failing',
        stallMs: 1_000,
      }),
    ).rejects.toThrow(/the array is full/);
  });

  it('returns unbound where the class waits for the first consumer', async () => {
    const result = await createVolume(cluster.client, {
      namespace,
      pvcName: 'data',
      size: '1Gi',
      storageClass: 'sim-wait',
    });
    expect(result.bound).toBe(false);
    expect((await cluster.api.get(claims('data'))).status.phase).toBe('Pending');
  });

  it('ends at its deadline with the last it knew, and can be cancelled', async () => {
    const hopeless = { namespace, pvcName: 'data', size: '1Gi', storageClass: 'nobody' };
    await expect(createVolume(cluster.client, { ...hopeless, timeoutMs: 1_500 })).rejects.toMatchObject({
      code: 'DEADLINE_EXCEEDED',
      message: expect.stringContaining('nobody.example.com'),
    });
    await eventually(5_000, async () => expect(await cluster.api.find(claims('data'))).toBeUndefined());
    const signal = AbortSignal.timeout(1_000);
    await expect(createVolume(cluster.client, { ...hopeless, signal })).rejects.toMatchObject({ code: 'CANCELLED' });
    await eventually(5_000, async () => expect(await cluster.api.find(claims('data'))).toBeUndefined());
  });

  it('stores nothing in a dry run, which the server checks', async () => {
    const wanted = { namespace, pvcName: 'data', size: '1Gi' };
    const { manifests } = await createVolume(cluster.client, { ...wanted, dryRun: 'server' });
    expect(manifests).toHaveLength(1);
    expect(await cluster.api.find(claims('data'))).toBeUndefined();
    await expect(
      createVolume(cluster.client, { ...wanted, accessModes: ['ReadWriteSometimes'], dryRun: 'server' }),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('is told by the server what the caller may not do', async () => {
    await expect(createVolume(cluster.limited, { namespace, pvcName: 'data', size: '1Gi' })).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
    });
  });
});

describe('snapshots and clones', () => {
  beforeEach(async () => {
    await createVolume(cluster.client, { namespace, pvcName: 'data', size: '1Gi' });
    await write('data', 'first');
  });

  it('takes, lists and deletes snapshots', async () => {
    const names = await Promise.all(
      [1, 2, 3].map(
        async () => (await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'data' })).snapshotName,
      ),
    );
    expect(new Set(names).size).toBe(3);
    for (const name of names) expect(name).toMatch(/^ntap-dsutil\.\d{14}\.[0-9a-f]{8}$/);
    const list = await listVolumeSnapshots(cluster.client, { namespace, pvcName: 'data' });
    expect(list).toHaveLength(3);
    expect(list[0]).toMatchObject({ readyToUse: true, sourcePvc: 'data', sourceExists: true });
    await deleteVolumeSnapshot(cluster.client, { namespace, snapshotName: names[0] ?? '' });
    expect(await cluster.api.find(snapshots(names[0]))).toBeUndefined();
    await expect(
      deleteVolumeSnapshot(cluster.client, { namespace, snapshotName: names[0] ?? '' }),
    ).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it("ends with the driver's reason and takes the snapshot back", async () => {
    const failing = {
      namespace,
      pvcName: 'data',
      snapshotName: 'bad',
      volumeSnapshotClass: 'sim-failing',
      stallMs: 500,
    };
    await expect(createVolumeSnapshot(cluster.client, failing)).rejects.toThrow(/the array refuses/);
    expect(await cluster.api.find(snapshots('bad'))).toBeUndefined();
    const missing = { namespace, pvcName: 'data', volumeSnapshotClass: 'nope' };
    await expect(createVolumeSnapshot(cluster.client, missing)).rejects.toThrow(/"nope" not found/);
    const nothing = createVolumeSnapshot(cluster.client, { namespace, pvcName: 'other' });
    await expect(nothing).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('clones a volume with its content and leaves no snapshot behind', async () => {
    await cloneVolume(cluster.client, { namespace, newPvcName: 'copy', sourcePvcName: 'data' });
    expect(await content('copy')).toBe('first');
    await eventually(5_000, async () => expect((await cluster.api.get(snapshots())).items).toEqual([]));
    const copy = await cluster.api.get(claims('copy'));
    expect(copy.spec.storageClassName).toBe('sim');
    expect(copy.spec.resources.requests.storage).toBe('1Gi');
    expect(copy.metadata.labels).toMatchObject({ 'created-by-operation': 'clone-volume', 'source-pvc': 'data' });
    expect(await listVolumes(cluster.client, { namespace })).toMatchObject([
      { name: 'copy', clone: true, sourcePvc: 'data', sourcePvcExists: true, sourceSnapshotExists: false },
      { name: 'data', clone: false },
    ]);
  });

  it('clones a snapshot, which stays', async () => {
    const { snapshotName } = await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'data' });
    await write('data', 'second');
    await cloneVolume(cluster.client, { namespace, newPvcName: 'copy', sourceSnapshotName: snapshotName });
    expect(await content('copy')).toBe('first');
    expect(await cluster.api.find(snapshots(snapshotName))).toBeDefined();
  });

  it('deletes nothing in a dry run', async () => {
    await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'data', snapshotName: 'kept' });
    await deleteVolume(cluster.client, { namespace, pvcName: 'data', dryRun: 'server' });
    await deleteVolumeSnapshot(cluster.client, { namespace, snapshotName: 'kept', dryRun: 'server' });
    for (const path of [claims('data'), snapshots('kept')]) {
      expect((await cluster.api.get(path)).metadata.deletionTimestamp, path).toBeUndefined();
    }
  });

  it('deletes a volume with its snapshots, or keeps them', async () => {
    const { snapshotName } = await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'data' });
    await cloneVolume(cluster.client, { namespace, newPvcName: 'copy', sourceSnapshotName: snapshotName });
    await deleteVolume(cluster.client, { namespace, pvcName: 'data', preserveSnapshots: true });
    expect(await cluster.api.find(claims('data'))).toBeUndefined();
    expect(await cluster.api.find(snapshots(snapshotName))).toBeDefined();
    await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'copy', snapshotName: 'of-copy' });
    await deleteVolume(cluster.client, { namespace, pvcName: 'copy' });
    expect(await cluster.api.find(snapshots('of-copy'))).toBeUndefined();
    expect(await cluster.api.find(snapshots(snapshotName))).toBeDefined();
  });
});

describe('restore', () => {
  const restore = (options: object = {}) =>
    restoreVolumeSnapshot(cluster.client, { namespace, snapshotName: 'good', ...options });
  let oldVolume: string;

  beforeEach(async () => {
    await createVolume(cluster.client, {
      namespace,
      pvcName: 'data',
      size: '1Gi',
      accessModes: ['ReadWriteOnce'],
      labels: { team: 'vision' },
      annotations: { 'example.com/kept': 'yes' },
    });
    await write('data', 'first');
    await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'data', snapshotName: 'good' });
    await write('data', 'second');
    oldVolume = (await cluster.api.get(claims('data'))).spec.volumeName;
  });

  it('puts the content back, keeps labels, access mode and class, and lets the old volume go last', async () => {
    expect(await restore()).toEqual({ pvcName: 'data', method: 'swap' });
    expect(await content('data')).toBe('first');
    const claim = await cluster.api.get(claims('data'));
    expect(claim.metadata.labels).toEqual({ team: 'vision' });
    expect(claim.metadata.annotations['example.com/kept']).toBe('yes');
    expect(claim.spec).toMatchObject({ accessModes: ['ReadWriteOnce'], storageClassName: 'sim' });
    expect(claim.status.phase).toBe('Bound');
    const volume = await cluster.api.get(`/api/v1/persistentvolumes/${claim.spec.volumeName}`);
    expect(volume.spec.persistentVolumeReclaimPolicy).toBe('Delete');
    expect(volume.metadata.labels ?? {}).toEqual({});
    await eventually(10_000, async () =>
      expect(await cluster.api.find(`/api/v1/persistentvolumes/${oldVolume}`)).toBeUndefined(),
    );
    expect((await cluster.api.get(claims())).items).toHaveLength(1);
  });

  it('keeps the old volume where asked to', async () => {
    expect(await restore({ keepOldVolume: true })).toMatchObject({ oldVolume });
    const volume = await cluster.api.get(`/api/v1/persistentvolumes/${oldVolume}`);
    expect(volume.spec.persistentVolumeReclaimPolicy).toBe('Retain');
  });

  it('changes nothing when the new volume cannot be made', async () => {
    await cluster.api.send('DELETE', claims('data'));
    await createVolume(cluster.client, { namespace, pvcName: 'stuck', size: '1Gi', storageClass: 'sim-no-restore' });
    await write('stuck', 'kept');
    await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'stuck', snapshotName: 'useless' });
    const before = await cluster.api.get(claims('stuck'));
    await expect(restore({ snapshotName: 'useless', stallMs: 500 })).rejects.toThrow(/the array is full/);
    expect(await cluster.api.get(claims('stuck'))).toEqual(before);
    expect(await content('stuck')).toBe('kept');
    await eventually(5_000, async () => expect((await cluster.api.get(claims())).items).toHaveLength(1));
  });

  it('refuses a snapshot that is not ready, with the old volume still there', async () => {
    await cluster.api.send('POST', snapshots(), {
      apiVersion: 'snapshot.storage.k8s.io/v1',
      kind: 'VolumeSnapshot',
      metadata: { name: 'broken' },
      spec: { source: { persistentVolumeClaimName: 'data' }, volumeSnapshotClassName: 'sim-failing' },
    });
    await eventually(5_000, async () =>
      expect((await cluster.api.get(snapshots('broken'))).status.error).toBeDefined(),
    );
    await expect(restore({ snapshotName: 'broken' })).rejects.toThrow(/not ready.*the array refuses/);
    expect(await content('data')).toBe('second');
  });

  it('refuses while a pod uses the volume', async () => {
    await cluster.api.send('POST', `/api/v1/namespaces/${namespace}/pods`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'user' },
      spec: {
        containers: [{ name: 'main', image: 'busy' }],
        volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'data' } }],
      },
    });
    await expect(restore()).rejects.toMatchObject({ details: { reason: 'InUse', pods: ['user'] } });
    expect(await content('data')).toBe('second');
    await eventually(5_000, async () => expect((await cluster.api.get(claims())).items).toHaveLength(1));
    await expect(deleteVolume(cluster.client, { namespace, pvcName: 'data' })).rejects.toMatchObject({
      details: { reason: 'InUse' },
    });
  });

  it('finishes a restore whose client died between removing the claim and making it again', async () => {
    const controller = new AbortController();
    const original = cluster.client.connection.send.bind(cluster.client.connection);
    let gone = false;
    // The client's process "dies": from the moment the claim is deleted, none of its requests arrives any more.
    const dying = {
      ...cluster.client.connection,
      send: async (request: Parameters<typeof original>[0]) => {
        if (gone) throw Object.assign(new Error('killed'), { code: 'ECONNRESET' });
        const response = await original(request);
        if (request.method === 'DELETE' && request.path.endsWith('/persistentvolumeclaims/data')) gone = true;
        return response;
      },
    };
    const killed = restoreVolumeSnapshot(new KubeClient(dying), {
      namespace,
      snapshotName: 'good',
      timeoutMs: 8_000,
      signal: controller.signal,
    });
    await expect(killed).rejects.toThrow();
    expect(await cluster.api.find(claims('data'))).toBeUndefined();
    expect(await cluster.api.find(`/api/v1/persistentvolumes/${oldVolume}`)).toBeDefined();
    expect(await restore()).toMatchObject({ method: 'swap' });
    expect(await content('data')).toBe('first');
    expect((await cluster.api.get(claims('data'))).metadata.labels).toEqual({ team: 'vision' });
  });

  it('restores a volume whose class waits for a pod', async () => {
    const pods = `/api/v1/namespaces/${namespace}/pods`;
    const user = { name: 'user', namespace };
    await createVolume(cluster.client, { namespace, pvcName: 'late', size: '1Gi', storageClass: 'sim-wait' });
    await cluster.api.send('POST', pods, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: user,
      spec: {
        containers: [{ name: 'main', image: 'busy' }],
        volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'late' } }],
      },
    });
    await eventually(20_000, async () => expect((await cluster.api.get(claims('late'))).status.phase).toBe('Bound'));
    await write('late', 'first');
    await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'late', snapshotName: 'early' });
    await write('late', 'second');
    await cluster.api.send('DELETE', `${pods}/user`);
    await eventually(20_000, async () => expect((await cluster.api.get(pods)).items).toEqual([]));
    expect(await restore({ snapshotName: 'early' })).toEqual({ pvcName: 'late', method: 'swap' });
    expect(await content('late')).toBe('first');
    expect((await cluster.api.get(claims('late'))).spec.storageClassName).toBe('sim-wait');
    expect((await cluster.api.get(pods)).items).toEqual([]);
  });

  it('keeps both volumes where a pod holds the claim that is to go, and finishes once it is free', async () => {
    const path = claims('data');
    const claim = await cluster.api.get(path);
    const finalizers = [...claim.metadata.finalizers, 'test.scrim.dev/hold'];
    await cluster.api.patch(path, { metadata: { finalizers } });
    await expect(restore({ timeoutMs: 4_000 })).rejects.toThrow(
      /could not be undone: binding 'data' to its old volume/,
    );
    const volume = await cluster.api.get(`/api/v1/persistentvolumes/${oldVolume}`);
    expect(volume.spec.persistentVolumeReclaimPolicy).toBe('Retain');
    await cluster.api.patch(path, { metadata: { finalizers: [] } });
    await eventually(10_000, async () => expect(await cluster.api.find(path)).toBeUndefined());
    expect(await restore()).toMatchObject({ method: 'swap' });
    expect(await content('data')).toBe('first');
  });

  it('restores in place where Trident offers it, and reports its refusal', async () => {
    await createVolume(cluster.client, {
      namespace,
      pvcName: 'trident',
      size: '1Gi',
      annotations: { 'test.scrim.dev/driver': 'csi.trident.netapp.io' },
    });
    await write('trident', 'first');
    await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'trident', snapshotName: 'mark' });
    await write('trident', 'second');
    const volume = (await cluster.api.get(claims('trident'))).spec.volumeName;
    await cluster.storage.installTridentRestore('Succeeded');
    expect(await restore({ snapshotName: 'mark', timeoutMs: 15_000 })).toEqual({
      pvcName: 'trident',
      method: 'in-place',
    });
    expect(await content('trident')).toBe('first');
    expect((await cluster.api.get(claims('trident'))).spec.volumeName).toBe(volume);
    await cluster.storage.removeTridentRestore();
    await eventually(20_000, async () => expect(await cluster.api.find('/apis/trident.netapp.io/v1')).toBeUndefined());
    await cluster.storage.installTridentRestore('Failed');
    await write('trident', 'third');
    await expect(restore({ snapshotName: 'mark' })).rejects.toThrow(/snapshot is not the latest/);
    expect(await content('trident')).toBe('third');

    // ONTAP would delete the newer snapshot, so Trident refuses an older one: that goes by a new volume.
    await write('trident', 'between');
    await createVolumeSnapshot(cluster.client, { namespace, pvcName: 'trident', snapshotName: 'newer' });
    await expect(restore({ snapshotName: 'mark', method: 'in-place' })).rejects.toThrow(/'newer' is newer than 'mark'/);
    const { connection } = cluster.client;
    const sent: string[] = [];
    const watched = new KubeClient({
      ...connection,
      send: (request) => {
        if (request.path.includes('/persistentvolumeclaims/trident-restore-')) sent.push(JSON.stringify(request.body));
        return connection.send(request);
      },
    });
    const byName = { namespace, snapshotName: 'mark', timeoutMs: 15_000 };
    expect(await restoreVolumeSnapshot(watched, byName)).toEqual({ pvcName: 'trident', method: 'swap' });
    expect(await content('trident')).toBe('first');
    expect(sent.join()).toContain('"trident.netapp.io/splitOnClone":"true"');
    await cluster.storage.removeTridentRestore();
  });
});
