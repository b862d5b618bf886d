/** FlexCache volumes: a real API server and volume controller; the storage system is the stand-in of ontap-server.ts. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  createFlexCache,
  type DataopsEvent,
  deleteFlexCache,
  deleteVolume,
  KubeClient,
  listVolumes,
} from '../../packages/dataops/src/index.js';
import { type OntapServer, startOntapServer } from '../ontap-server.js';
import { eventually } from './control-plane.js';
import { startTestCluster, type TestCluster } from './test-cluster.js';

let cluster: TestCluster;
let ontap: OntapServer;
let namespace: string;
const claims = (name = ''): string => `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${name}`;
const volumes = (name = ''): string => `/api/v1/persistentvolumes/${name}`;

beforeAll(async () => {
  [cluster, ontap] = await Promise.all([startTestCluster(), startOntapServer()]);
  const { host, username, password } = ontap;
  const spec = { storageDriverName: 'ontap-nas', managementLIF: host, dataLIF: '10.0.0.2', svm: 'svm1' };
  const credentials = { username, password };
  await cluster.storage.installTridentBackend('backend1', spec, credentials);
  await cluster.storage.installTridentBackend('bare', { storageDriverName: 'ontap-nas' }, credentials);
  await cluster.storage.installTridentBackend('block', { ...spec, storageDriverName: 'ontap-san' }, credentials);
  await cluster.storage.installTridentBackend('denied', spec, { username, password: 'wrong' });
});
afterAll(async () => {
  await cluster?.stop();
  await ontap?.close();
});
beforeEach(async () => {
  namespace = await cluster.createNamespace();
  ontap.refusals.length = 0;
});
afterEach(async () => {
  const all = '/api/v1/persistentvolumeclaims?labelSelector=app=flexcache';
  for (const { metadata } of (await cluster.api.get(all)).items) {
    await cluster.api.send(
      'DELETE',
      `/api/v1/namespaces/${metadata.namespace}/persistentvolumeclaims/${metadata.name}`,
    );
  }
  const left = '/api/v1/persistentvolumes?labelSelector=app=flexcache';
  for (const { metadata } of (await cluster.api.get(left)).items) {
    await cluster.api.send('DELETE', volumes(metadata.name));
  }
  await eventually(20_000, async () => expect((await cluster.api.get(left)).items).toEqual([]));
  ontap.volumes.splice(0, ontap.volumes.length, ...ontap.volumes.filter(({ origin }) => origin === undefined));
});

const create = (more: object = {}, client: KubeClient = cluster.client) =>
  createFlexCache(client, {
    namespace,
    flexCacheVolume: 'cache-1',
    size: '100Gi',
    sourceSvm: 'svm-origin',
    sourceVolume: 'origin1',
    backendName: 'backend1',
    fingerprint: ontap.fingerprint,
    ...more,
  });
const remove = (more: object = {}) =>
  deleteFlexCache(cluster.client, {
    namespace,
    pvcName: 'cache-1',
    backendName: 'backend1',
    fingerprint: ontap.fingerprint,
    ...more,
  });
const caches = () => ontap.volumes.filter(({ origin }) => origin !== undefined);

describe('create flexcache', () => {
  it('makes the cache in ONTAP, a volume and a claim bound to it, and takes all of it away again', async () => {
    const events: DataopsEvent[] = [];
    const result = await create({ onProgress: (event: DataopsEvent) => events.push(event) });
    expect(result).toMatchObject({ pvcName: 'cache-1', volumeName: 'pv-cache-1', flexCache: 'svm1:cache_1' });
    expect(caches()).toMatchObject([
      {
        name: 'cache_1',
        svm: 'svm1',
        path: '/cache-1',
        size: 100 * 2 ** 30,
        origin: { svm: 'svm-origin', volume: 'origin1' },
      },
    ]);
    const volume = await cluster.api.get(volumes('pv-cache-1'));
    expect(volume.spec).toMatchObject({
      nfs: { server: '10.0.0.2', path: '/cache-1' },
      persistentVolumeReclaimPolicy: 'Retain',
      accessModes: ['ReadWriteMany'],
      capacity: { storage: '100Gi' },
    });
    expect(volume.metadata.labels).toMatchObject({
      app: 'flexcache',
      source_svm: 'svm-origin',
      source_volume: 'origin1',
    });
    const claim = await cluster.api.get(claims('cache-1'));
    expect(claim.status.phase).toBe('Bound');
    expect(claim.spec.volumeName).toBe('pv-cache-1');
    expect(claim.metadata.annotations['scrim.dev/awaited']).toBeUndefined();
    expect(events.map((event) => ('step' in event ? event.step : event.type))).toContain('flexcache-created');
    expect(await listVolumes(cluster.client, { namespace })).toMatchObject([
      { name: 'cache-1', flexCacheOf: { svm: 'svm-origin', volume: 'origin1' } },
    ]);
    await expect(create()).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(deleteVolume(cluster.client, { namespace, pvcName: 'cache-1' })).rejects.toThrow(/FlexCache/);

    await remove();
    expect(caches()).toEqual([]);
    expect(await cluster.api.find(claims('cache-1'))).toBeUndefined();
    expect(await cluster.api.find(volumes('pv-cache-1'))).toBeUndefined();
    expect(ontap.volumes.map(({ name }) => name)).toEqual(['origin1', 'unrelated']);
    // Every request was one that ONTAP's published description allows.
    expect(ontap.refusals).toEqual([]);
    await expect(remove()).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('trusts a CA, and takes addresses, SVM and credentials from the caller instead of the backend', async () => {
    const { host, username, password, certificate } = ontap;
    const own = { managementLif: host, dataLif: '10.9.9.9', svm: 'svm2', username, password, backendName: 'absent' };
    await create({ ...own, fingerprint: undefined, ca: certificate, serverName: 'storage.example.com' });
    expect(caches()).toMatchObject([{ svm: 'svm2' }]);
    expect((await cluster.api.get(volumes('pv-cache-1'))).spec.nfs.server).toBe('10.9.9.9');
  });

  it('leaves nothing behind when ONTAP or Kubernetes refuses', async () => {
    ontap.failNextJob('no aggregate has 100 GB free');
    await expect(create()).rejects.toThrow(/creating the FlexCache failed: no aggregate/);
    await expect(create({ sourceVolume: 'nope' })).rejects.toThrow(/origin volume "svm-origin:nope" does not exist/);
    await expect(create({ backendName: 'denied' })).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    await expect(create({ fingerprint: 'ab'.repeat(32) })).rejects.toThrow(/nothing was sent/);
    await expect(create({ backendName: 'nope' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(create({ backendName: 'bare' })).rejects.toThrow(/has no managementLIF/);
    await expect(create({ backendName: 'block' })).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(create({ junction: 'cache' })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(caches()).toEqual([]);

    // The cache is made, then the claim is refused: the cache goes again.
    await cluster.api.send('POST', `/api/v1/namespaces/${namespace}/resourcequotas`, {
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'none' },
      spec: { hard: { persistentvolumeclaims: '0' } },
    });
    await eventually(20_000, async () => {
      const quota = await cluster.api.get(`/api/v1/namespaces/${namespace}/resourcequotas/none`);
      expect(quota.status.hard).toBeDefined();
    });
    await expect(create()).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    expect(caches()).toEqual([]);
    await eventually(10_000, async () => expect(await cluster.api.find(volumes('pv-cache-1'))).toBeUndefined());
  });

  it('takes over what a client killed between two creates left, when run again', async () => {
    const { connection } = cluster.client;
    let gone = false;
    const dying = new KubeClient({
      ...connection,
      send: async (request) => {
        if (gone) throw Object.assign(new Error('killed'), { code: 'ECONNRESET' });
        const response = await connection.send(request);
        if (request.method === 'PATCH' && request.path.includes('/persistentvolumes/')) gone = true;
        return response;
      },
    });
    const killed = create({ timeoutMs: 3_000 }, dying);
    // The stand-in of a killed process still runs its rollback: what it made in ONTAP is put back for the second run.
    await expect(killed).rejects.toThrow();
    expect(await cluster.api.find(volumes('pv-cache-1'))).toBeDefined();
    ontap.volumes.push({
      uuid: '11111111-1111-1111-1111-111111111111',
      name: 'cache_1',
      svm: 'svm1',
      path: '/cache-1',
      origin: { svm: 'svm-origin', volume: 'origin1' },
    });
    const warnings: DataopsEvent[] = [];
    await create({ onProgress: (event: DataopsEvent) => event.type === 'warning' && warnings.push(event) });
    expect(warnings).toHaveLength(1);
    expect(caches()).toHaveLength(1);
    expect((await cluster.api.get(claims('cache-1'))).status.phase).toBe('Bound');
  });

  it('does not take over somebody else’s cache of the same name', async () => {
    const other = { svm: 'svm-origin', volume: 'unrelated' };
    ontap.volumes.push({
      uuid: '22222222-2222-2222-2222-222222222222',
      name: 'cache_1',
      svm: 'svm1',
      path: '/cache-1',
      origin: other,
    });
    await expect(create()).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(caches()).toHaveLength(1);
  });

  it('gives the caches of two namespaces volumes of their own', async () => {
    await create();
    const first = namespace;
    namespace = await cluster.createNamespace();
    const { volumeName } = await create({ svm: 'svm2' });
    expect(volumeName).toMatch(/^pv-cache-1-[0-9a-f]{8}$/);
    await remove({ svm: 'svm2' });
    expect(caches()).toMatchObject([{ svm: 'svm1' }]);
    expect((await cluster.api.get(`/api/v1/namespaces/${first}/persistentvolumeclaims/cache-1`)).status.phase).toBe(
      'Bound',
    );
  });

  it('shows the objects in a dry run and makes nothing', async () => {
    const requests = ontap.requests.length;
    const { manifests } = await create({ dryRun: 'server' });
    expect(manifests.map(({ kind }) => kind)).toEqual(['PersistentVolume', 'PersistentVolumeClaim']);
    await create({ dryRun: 'client', dataLif: '10.0.0.2', svm: 'svm1' });
    await expect(create({ dryRun: 'client' })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(ontap.requests).toHaveLength(requests);
    expect(await cluster.api.find(claims('cache-1'))).toBeUndefined();
  });
});

describe('delete flexcache', () => {
  it('refuses volumes in use, other volumes and the wrong backend, and deletes nothing then', async () => {
    await create();
    await cluster.api.send('POST', `/api/v1/namespaces/${namespace}/pods`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'user' },
      spec: {
        containers: [{ name: 'main', image: 'busy' }],
        volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'cache-1' } }],
      },
    });
    await expect(remove()).rejects.toMatchObject({ details: { reason: 'InUse' } });
    await cluster.api.send('DELETE', `/api/v1/namespaces/${namespace}/pods/user`);
    await eventually(10_000, async () =>
      expect(await cluster.api.find(`/api/v1/namespaces/${namespace}/pods/user`)).toBeUndefined(),
    );
    await expect(remove({ backendName: 'denied' })).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    const [cache] = caches();
    if (cache !== undefined) cache.path = '/elsewhere';
    await expect(remove()).rejects.toThrow(/mounted at '\/elsewhere'.*nothing was deleted/);
    expect((await cluster.api.get(claims('cache-1'))).status.phase).toBe('Bound');
    if (cache !== undefined) cache.path = '/cache-1';
  });

  it('goes on where an interrupted deletion ended', async () => {
    await create();
    ontap.failNextJob('the cluster is busy');
    await expect(remove()).rejects.toThrow(/unmounting the FlexCache failed: the cluster is busy/);
    expect(await cluster.api.find(claims('cache-1'))).toBeUndefined();
    expect(await cluster.api.find(volumes('pv-cache-1'))).toBeDefined();
    await remove();
    expect(caches()).toEqual([]);
    expect(await cluster.api.find(volumes('pv-cache-1'))).toBeUndefined();
  });
});
