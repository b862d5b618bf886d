/** JupyterLab workspaces, Triton servers and S3 objects against a real API server; node and storage are simulated. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { argon2Verify } from 'hash-wasm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  cloneJupyterLab,
  createCaConfigMap,
  createJupyterLab,
  createJupyterLabSnapshot,
  createS3Secret,
  createTritonServer,
  createVolume,
  deleteCaConfigMap,
  deleteJupyterLab,
  deleteS3Job,
  deleteS3Secret,
  deleteTritonServer,
  getS3Bucket,
  KubeClient,
  listJupyterLabSnapshots,
  listJupyterLabs,
  listTritonServers,
  putS3Object,
  restoreJupyterLabSnapshot,
  showS3Job,
  waitForS3Job,
} from '../../packages/dataops/src/index.js';
import { eventually } from './control-plane.js';
import { NODE_ADDRESS } from './node-simulator.js';
import { startTestCluster, type TestCluster } from './test-cluster.js';

let cluster: TestCluster;
let namespace: string;
const core = (path: string): string => `/api/v1/namespaces/${namespace}/${path}`;
const apps = (path: string): string => `/apis/apps/v1/namespaces/${namespace}/${path}`;
const PREFIX = 'ntap-dsutil-jupyterlab-';
const workspace = (more: object = {}) =>
  createJupyterLab(cluster.client, { namespace, workspaceName: 'live', size: '10Gi', password: 'secret', ...more });

/** Everything a failed command could have left behind. */
async function leftovers(): Promise<string[]> {
  const paths = [core('persistentvolumeclaims'), core('services'), core('secrets'), apps('deployments')];
  const lists = await Promise.all(paths.map((path) => cluster.api.get(path)));
  return lists
    .flatMap(({ items }) => items)
    .filter(({ metadata }) => metadata.labels?.['created-by'] === 'ntap-dsutil' && !metadata.deletionTimestamp)
    .map(({ metadata }) => metadata.name);
}

beforeAll(async () => {
  cluster = await startTestCluster();
});
afterAll(() => cluster?.stop());
beforeEach(async () => {
  namespace = await cluster.createNamespace();
});

describe('JupyterLab workspaces', () => {
  it('is made, listed, snapshotted, restored, cloned and deleted', async () => {
    await createVolume(cluster.client, { namespace, pvcName: 'inference-data', size: '1Gi' });
    const mounts = [{ claim: 'inference-data', path: '/home/jovyan/data' }];
    const made = await workspace({ mounts, resources: { cpu: '2', memory: '4Gi', gpus: 1 } });
    expect(made.url).toMatch(new RegExp(`^http://${NODE_ADDRESS}:3\\d{4}$`));
    expect(await listJupyterLabs(cluster.client, { namespace })).toMatchObject([
      { name: 'live', ready: true, size: '10Gi', storageClass: 'sim', url: made.url, clone: false },
    ]);
    const directory = await cluster.storage.directoryOf(namespace, `${PREFIX}live`);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'notebook'), 'first');
    const { snapshotName } = await createJupyterLabSnapshot(cluster.client, { namespace, workspaceName: 'live' });
    writeFileSync(join(directory, 'notebook'), 'second');
    expect(await listJupyterLabSnapshots(cluster.client, { namespace, workspaceName: 'live' })).toMatchObject([
      { name: snapshotName, sourceWorkspace: 'live' },
    ]);
    await restoreJupyterLabSnapshot(cluster.client, { namespace, snapshotName });
    const restored = await cluster.storage.directoryOf(namespace, `${PREFIX}live`);
    expect(readFileSync(join(restored, 'notebook'), 'utf8')).toBe('first');
    expect((await cluster.api.get(apps(`deployments/${PREFIX}live`))).status.readyReplicas).toBe(1);

    const clone = { namespace, newWorkspaceName: 'copy', sourceWorkspaceName: 'live', password: 'other' };
    await cloneJupyterLab(cluster.client, clone);
    const copied = await cluster.storage.directoryOf(namespace, `${PREFIX}copy`);
    expect(readFileSync(join(copied, 'notebook'), 'utf8')).toBe('first');
    expect((await listJupyterLabs(cluster.client, { namespace })).find(({ name }) => name === 'copy')).toMatchObject({
      clone: true,
      sourceWorkspace: 'live',
      sourceWorkspaceExists: true,
      ready: true,
    });
    for (const workspaceName of ['live', 'copy']) await deleteJupyterLab(cluster.client, { namespace, workspaceName });
    await eventually(10_000, async () => expect(await leftovers()).toEqual(['inference-data']));
    await expect(deleteJupyterLab(cluster.client, { namespace, workspaceName: 'live' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  it('keeps the password as an argon2id hash in a Secret and nowhere else', async () => {
    await workspace({ password: 'correct horse' });
    const deployment = await cluster.api.get(apps(`deployments/${PREFIX}live`));
    const { volumes } = deployment.spec.template.spec;
    const name = volumes.find((volume: { name: string }) => volume.name === 'jupyter-config').secret.secretName;
    const secret = await cluster.api.get(core(`secrets/${name}`));
    const config = JSON.parse(Buffer.from(secret.data['jupyter_server_config.json'], 'base64').toString());
    const hash: string = config.ServerApp.password;
    expect(hash).toMatch(/^argon2:\$argon2id\$v=19\$m=10240,t=10,p=8\$/);
    expect(await argon2Verify({ password: 'correct horse', hash: hash.slice('argon2:'.length) })).toBe(true);
    const everything = JSON.stringify([deployment, await cluster.api.get(core('pods'))]);
    expect(everything).not.toContain('argon2');
    expect(everything).not.toContain('correct horse');
  });

  it.each([
    ['an image that cannot be pulled', { image: 'example.com/unpullable:1' }, 'NOT_FOUND', 'ImagePullBackOff'],
    ['a container that crashes', { image: 'example.com/crashing:1' }, 'UNAVAILABLE', 'CrashLoopBackOff'],
    ['a pod no node can take', { resources: { cpu: '99' }, stallMs: 500 }, 'RESOURCE_EXHAUSTED', 'Unschedulable'],
    [
      'a volume to mount that does not exist',
      { mounts: [{ claim: 'no', path: '/no' }], stallMs: 500 },
      'RESOURCE_EXHAUSTED',
      'Unschedulable',
    ],
    ['a class that does not exist', { storageClass: 'nope' }, 'NOT_FOUND', 'ProvisioningFailed'],
  ])('ends with the reason and leaves nothing behind: %s', async (_, options, code, reason) => {
    await expect(workspace(options)).rejects.toMatchObject({ code, details: { reason } });
    await eventually(10_000, async () => expect(await leftovers()).toEqual([]));
  });

  it('takes over what a client killed between two creates left, when run again', async () => {
    const { connection } = cluster.client;
    let gone = false;
    const dying = new KubeClient({
      ...connection,
      send: async (request) => {
        if (gone) throw Object.assign(new Error('killed'), { code: 'ECONNRESET' });
        const response = await connection.send(request);
        if (request.method === 'PATCH' && request.path.includes('/services/')) gone = true;
        return response;
      },
    });
    const options = { namespace, workspaceName: 'live', size: '10Gi', password: 'secret' };
    await expect(createJupyterLab(dying, { ...options, timeoutMs: 4_000 })).rejects.toThrow();
    expect(await leftovers()).toEqual([`${PREFIX}live`, `${PREFIX}live`]);
    await expect(workspace({ size: '11Gi' })).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(await leftovers()).toHaveLength(2);
    await workspace();
    expect(await listJupyterLabs(cluster.client, { namespace })).toMatchObject([{ name: 'live', ready: true }]);
  });

  it('lets one of two racing creates win, with its own password', async () => {
    const outcomes = await Promise.allSettled([workspace({ password: 'a' }), workspace({ password: 'b' })]);
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const deployment = await cluster.api.get(apps(`deployments/${PREFIX}live`));
    expect(deployment.status.readyReplicas).toBe(1);
    const secrets = (await leftovers()).filter((name) => /-[0-9a-f]{8}$/.test(name));
    expect(secrets).toHaveLength(1);
  });

  it('leaves alone what another run has taken over, when it loses the race for the Deployment', async () => {
    const { connection } = cluster.client;
    let free = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      free = resolve;
    });
    let reached = (): void => undefined;
    const atDeployment = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const slow = new KubeClient({
      ...connection,
      send: async (request) => {
        if (request.method === 'PATCH' && request.path.includes('/deployments/')) {
          reached();
          await held;
        }
        return connection.send(request);
      },
    });
    const options = { namespace, workspaceName: 'live', size: '10Gi', password: 'a' };
    const losing = createJupyterLab(slow, options);
    await atDeployment;
    await workspace({ password: 'b' });
    free();
    await expect(losing).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    for (const path of [core(`persistentvolumeclaims/${PREFIX}live`), core(`services/${PREFIX}live`)]) {
      expect((await cluster.api.get(path)).metadata.deletionTimestamp, path).toBeUndefined();
    }
    expect((await leftovers()).filter((name) => /-[0-9a-f]{8}$/.test(name))).toHaveLength(1);
  });

  it('takes over a clone whose client was killed, and its snapshot goes in the end', async () => {
    await workspace();
    const { connection } = cluster.client;
    let gone = false;
    const dying = new KubeClient({
      ...connection,
      send: async (request) => {
        if (gone) throw Object.assign(new Error('killed'), { code: 'ECONNRESET' });
        const response = await connection.send(request);
        if (request.method === 'PATCH' && request.path.endsWith(`/persistentvolumeclaims/${PREFIX}copy`)) gone = true;
        return response;
      },
    });
    const options = { namespace, newWorkspaceName: 'copy', sourceWorkspaceName: 'live', password: 'secret' };
    await expect(cloneJupyterLab(dying, { ...options, timeoutMs: 3_000 })).rejects.toThrow();
    const events: string[] = [];
    await cloneJupyterLab(cluster.client, { ...options, onProgress: ({ type }) => events.push(type) });
    expect(events).toContain('adopted');
    const snapshots = `/apis/snapshot.storage.k8s.io/v1/namespaces/${namespace}/volumesnapshots`;
    await eventually(20_000, async () => expect((await cluster.api.get(snapshots)).items).toEqual([]));
    await expect(cloneJupyterLab(cluster.client, options)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  });

  it('goes on waiting over a restart of the API server', async () => {
    const making = workspace({ storageClass: 'sim' });
    await new Promise((resolve) => setTimeout(resolve, 150));
    const [made] = await Promise.all([making, cluster.restartApiServer(1_500)]);
    expect(made.url).toContain(NODE_ADDRESS);
    await eventually(20_000, () => cluster.api.get(core('pods')));
  });
});

describe('Triton servers', () => {
  beforeEach(async () => {
    await createVolume(cluster.client, { namespace, pvcName: 'triton-model-repo', size: '1Gi' });
  });

  it('is made, listed and deleted, apart from a workspace of the same name', async () => {
    await workspace({ workspaceName: 'same' });
    const options = { namespace, serverName: 'same', modelRepoPvcName: 'triton-model-repo', resources: { gpus: 1 } };
    const { endpoints } = await createTritonServer(cluster.client, options);
    expect(endpoints?.host).toBe(NODE_ADDRESS);
    expect(await listTritonServers(cluster.client, { namespace })).toMatchObject([
      { name: 'same', ready: true, endpoints },
    ]);
    const deployment = await cluster.api.get(apps('deployments/ntap-dsutil-triton-same'));
    const [container] = deployment.spec.template.spec.containers;
    expect(container.args).toEqual([
      'tritonserver',
      '--model-store=/models',
      '--model-control-mode=poll',
      '--repository-poll-secs=5',
    ]);
    expect(container.resources.limits).toEqual({ 'nvidia.com/gpu': '1' });
    // The toolkit gives both one label, so each receives the other's traffic: here each Service has its own pod.
    const reached = async (service: string): Promise<number> => {
      const { subsets = [] } = await cluster.api.get(core(`endpoints/${service}`));
      return subsets.flatMap(({ addresses = [] }: { addresses?: unknown[] }) => addresses).length;
    };
    const selectors = await Promise.all(
      ['ntap-dsutil-triton-same', `${PREFIX}same`].map(
        async (name) => (await cluster.api.get(core(`services/${name}`))).spec.selector,
      ),
    );
    expect(selectors[0]).not.toEqual(selectors[1]);
    expect(await reached(`${PREFIX}same`)).toBeLessThanOrEqual(1);
    await deleteTritonServer(cluster.client, { namespace, serverName: 'same' });
    expect(await listTritonServers(cluster.client, { namespace })).toEqual([]);
    expect(await cluster.api.find(core('persistentvolumeclaims/triton-model-repo'))).toBeDefined();
  });

  it('ends with the reason and leaves nothing behind', async () => {
    const options = { namespace, serverName: 'bad', modelRepoPvcName: 'triton-model-repo' };
    await expect(createTritonServer(cluster.client, { ...options, image: 'example.com/unpullable:1' })).rejects.toThrow(
      /unpullable.*can't be pulled/,
    );
    await expect(
      createTritonServer(cluster.client, { ...options, resources: { gpus: 64 }, stallMs: 500 }),
    ).rejects.toThrow(/Insufficient nvidia.com\/gpu/);
    await eventually(10_000, async () => expect(await leftovers()).toEqual(['triton-model-repo']));
    await expect(createTritonServer(cluster.client, { ...options, modelRepoPvcName: 'no' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });
});

describe('S3', () => {
  const transfer = () => ({
    namespace,
    host: 's3.example.com',
    port: 9000,
    bucketName: 'faces',
    pvcName: 'data',
    credentialsSecret: 's3-keys',
    caConfigMaps: ['ca'],
  });

  it('keeps keys and certificates, runs transfers, shows and deletes them', async () => {
    await createVolume(cluster.client, { namespace, pvcName: 'data', size: '1Gi' });
    await createS3Secret(cluster.client, { namespace, secretName: 's3-keys', accessKey: 'AKIA', secretKey: 'a/b+c' });
    const certificate = '-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n';
    await createCaConfigMap(cluster.client, { namespace, configMapName: 'ca', certificate });
    const secret = await cluster.api.get(core('secrets/s3-keys'));
    expect(Buffer.from(secret.data.secret_key, 'base64').toString()).toBe('a/b+c');
    const { jobName } = await getS3Bucket(cluster.client, { ...transfer(), pvcDir: 'in' });
    expect((await waitForS3Job(cluster.client, { namespace, jobName })).state).toBe('succeeded');
    expect(await showS3Job(cluster.client, { namespace, jobName })).toMatchObject({ succeeded: 1, failed: 0 });
    const job = await cluster.api.get(`/apis/batch/v1/namespaces/${namespace}/jobs/${jobName}`);
    const [container] = job.spec.template.spec.containers;
    expect(container.command).toEqual(['rclone']);
    expect(container.args.slice(0, 3)).toEqual(['copy', 's3:faces', '/mnt/data/in']);
    expect(container.args).toContain('--ca-cert=/mnt/ca/0/ca.crt');
    expect(JSON.stringify(job)).not.toContain('a/b+c');
    await deleteS3Job(cluster.client, { namespace, jobName });
    await expect(showS3Job(cluster.client, { namespace, jobName })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await deleteS3Secret(cluster.client, { namespace, secretName: 's3-keys' });
    await deleteCaConfigMap(cluster.client, { namespace, configMapName: 'ca' });
    expect(await cluster.api.find(core('secrets/s3-keys'))).toBeUndefined();
  });

  it('says why a transfer does not run', async () => {
    await createVolume(cluster.client, { namespace, pvcName: 'data', size: '1Gi' });
    const { jobName } = await putS3Object(cluster.client, {
      ...transfer(),
      caConfigMaps: [],
      fileLocation: 'a.bin',
      image: 'example.com/unpullable:1',
    });
    await createS3Secret(cluster.client, { namespace, secretName: 's3-keys', accessKey: 'a', secretKey: 'b' });
    await expect(waitForS3Job(cluster.client, { namespace, jobName })).rejects.toMatchObject({
      details: { reason: 'ImagePullBackOff' },
    });
  });
});
