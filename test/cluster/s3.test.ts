/**
 * S3 transfers and synchronisation with real data: the Jobs' own command lines, run by rclone against an S3 server
 * (versitygw, over a directory), started by the real job and cron job controllers. Contents are compared by checksum.
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  connect,
  createCaConfigMap,
  createS3Secret,
  createVolume,
  deleteSync,
  getS3Bucket,
  getS3Object,
  KubeClient,
  listSyncs,
  putS3Bucket,
  putS3Object,
  type SyncS3Options,
  type SyncStatistics,
  syncS3,
  waitForS3Job,
  waitForSync,
} from '../../packages/dataops/src/index.js';
import { type ControlPlane, eventually, startControlPlane } from './control-plane.js';
import { type ProcessNode, startProcessNode } from './process-node.js';
import { type S3Server, startS3Server } from './s3-server.js';
import { type StorageSimulator, startStorageSimulator } from './storage-simulator.js';

const BUCKET = 'faces';

let plane: ControlPlane;
let storage: StorageSimulator;
let node: ProcessNode;
let client: KubeClient;
let s3: S3Server;
let namespace: string;
let count = 0;

beforeAll(async () => {
  s3 = await startS3Server(BUCKET);
  plane = await startControlPlane();
  storage = await startStorageSimulator(plane.api, plane.directory, { delayMs: 0 });
  const programs = { rclone: s3.rclone };
  node = await startProcessNode(plane.api, storage, join(plane.directory, 'certs'), programs);
  client = new KubeClient(connect({ kubeconfig: plane.kubeconfig('admin') }));
});
afterAll(async () => {
  client?.connection.close();
  await node?.stop();
  await storage?.stop();
  await plane?.stop();
  s3?.stop();
});
beforeEach(async () => {
  namespace = `s3-${++count}`;
  await plane.api.ensure('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
  await eventually(30_000, () => plane.api.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`));
  await createS3Secret(client, { namespace, secretName: 'keys', accessKey: s3.accessKey, secretKey: s3.secretKey });
  await createCaConfigMap(client, { namespace, configMapName: 'ca', certificate: s3.certificate });
  await createVolume(client, { namespace, pvcName: 'data', size: '1Gi' });
  await createVolume(client, { namespace, pvcName: 'copy', size: '1Gi' });
});

const settings = () => ({
  namespace,
  host: '127.0.0.1',
  port: s3.port,
  bucketName: BUCKET,
  credentialsSecret: 'keys',
  caConfigMaps: ['ca'],
});
const directory = (claim: string) => storage.directoryOf(namespace, claim);

/** Writes files; '/' in a name makes folders. */
function write(root: string, files: Readonly<Record<string, string | Buffer>>): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), content);
  }
}

/** SHA-256 of every file below `root`, by path. */
function checksums(root: string): Record<string, string> {
  const entries = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    entries
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [relative(root, path), createHash('sha256').update(readFileSync(path)).digest('hex')]),
  );
}

const done = (jobName: string) => waitForS3Job(client, { namespace, jobName, timeoutMs: 60_000 });

async function sync(more: Partial<SyncS3Options>): Promise<SyncStatistics | undefined> {
  const { name } = await syncS3(client, {
    ...settings(),
    direction: 'to-s3',
    volume: 'data',
    prefix: namespace,
    ...more,
  });
  return waitForSync(client, { namespace, name, timeoutMs: 100_000 });
}

describe('transfers', () => {
  it('put a volume into a bucket and get it back, the same to the last bit', async () => {
    const files = { 'a.bin': randomBytes(300_000), 'deep/er/b c.txt': 'täxt', empty: '' };
    write(await directory('data'), files);
    await done((await putS3Bucket(client, { ...settings(), pvcName: 'data' })).jobName);
    await done((await getS3Bucket(client, { ...settings(), pvcName: 'copy', pvcDir: 'in' })).jobName);
    expect(checksums(join(await directory('copy'), 'in'))).toEqual(checksums(await directory('data')));

    const object = { ...settings(), objectKey: 'models/x.onnx' };
    await done((await putS3Object(client, { ...object, pvcName: 'data', fileLocation: 'a.bin' })).jobName);
    await done((await getS3Object(client, { ...object, pvcName: 'copy', fileLocation: 'y/z.onnx' })).jobName);
    expect(readFileSync(join(await directory('copy'), 'y/z.onnx')).equals(files['a.bin'])).toBe(true);
  });

  it('end with the reason for a wrong key, a bucket that is not there and a certificate nobody vouches for', async () => {
    write(await directory('data'), { 'a.bin': 'a' });
    const failed = async (more: object): Promise<string> => {
      const { jobName } = await putS3Bucket(client, { ...settings(), pvcName: 'data', ...more });
      // The Job itself would try five times more.
      const path = `/api/v1/namespaces/${namespace}/pods?labelSelector=job-name=${jobName}`;
      return eventually(60_000, async () => {
        const [pod] = (await plane.api.get(path)).items;
        expect(pod.status.phase).toBe('Failed');
        return plane.api.get(`/api/v1/namespaces/${namespace}/pods/${pod.metadata.name}/log`);
      });
    };
    await createS3Secret(client, { namespace, secretName: 'wrong', accessKey: s3.accessKey, secretKey: 'guess' });
    expect(await failed({ credentialsSecret: 'wrong' })).toMatch(/SignatureDoesNotMatch|403/);
    expect(await failed({ bucketName: 'nowhere' })).toMatch(/NoSuchBucket|404/);
    expect(await failed({ caConfigMaps: [] })).toMatch(/certificate/);
  });
});

describe('synchronisation', () => {
  it('moves 10 of 1,000 files when 10 have changed, in both directions, and repairs what rotted', async () => {
    const source = await directory('data');
    const names = Array.from({ length: 1_000 }, (_, i) => `d${i % 10}/f${i}.bin`);
    write(source, Object.fromEntries(names.map((name, i) => [name, `${name} ${'x'.repeat(i % 50)}`])));
    expect(await sync({})).toMatchObject({ moved: 1_000, errors: 0 });
    const changed = names.filter((_, i) => i % 100 === 7);
    write(source, Object.fromEntries(changed.map((name) => [name, `changed ${name}`])));
    expect(await sync({})).toMatchObject({ moved: 10, deleted: 0, errors: 0 });
    expect(await sync({})).toMatchObject({ moved: 0 });
    expect(checksums(join(s3.folder, 'data', BUCKET, namespace))).toEqual(checksums(source));

    expect(await sync({ direction: 'from-s3', volume: 'copy' })).toMatchObject({ moved: 1_000 });
    write(source, Object.fromEntries(changed.map((name) => [name, `changed again ${name}`])));
    await sync({});
    expect(await sync({ direction: 'from-s3', volume: 'copy' })).toMatchObject({ moved: 10 });
    const copy = await directory('copy');
    expect(checksums(copy)).toEqual(checksums(source));

    // Same size, same time, another content: only checksums tell.
    const path = join(copy, 'd3/f3.bin');
    const reference = join(s3.folder, 'reference');
    execFileSync('cp', ['--preserve=timestamps', path, reference]);
    writeFileSync(path, 'y'.repeat(statSync(path).size));
    execFileSync('touch', ['--reference', reference, path]);
    expect(await sync({ direction: 'from-s3', volume: 'copy', verify: false })).toMatchObject({ moved: 0 });
    expect(await sync({ direction: 'from-s3', volume: 'copy' })).toMatchObject({ moved: 1 });
    expect(checksums(copy)).toEqual(checksums(source));
  });

  it('leaves alone what the source does not have, unless it is to go', async () => {
    const source = await directory('data');
    write(source, { 'keep.txt': 'k', 'gone.txt': 'g' });
    await sync({});
    rmSync(join(source, 'gone.txt'));
    expect(await sync({})).toMatchObject({ deleted: 0 });
    const target = join(s3.folder, 'data', BUCKET, namespace);
    expect(Object.keys(checksums(target))).toEqual(['gone.txt', 'keep.txt']);
    expect(await sync({ deleteExtra: true })).toMatchObject({ deleted: 1 });
    expect(Object.keys(checksums(target))).toEqual(['keep.txt']);
  });

  it('goes on after a run that was killed half-way, without moving again what had arrived', async () => {
    const source = await directory('data');
    write(source, Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`f${i}`, randomBytes(20_000)])));
    const target = join(s3.folder, 'data', BUCKET, namespace);
    let arrived = 0;
    let killed = false;
    node.onStart((pod, child) => {
      if (killed || pod.metadata.namespace !== namespace) return;
      killed = true;
      const timer = setInterval(() => {
        try {
          arrived = readdirSync(target).length;
        } catch {
          return;
        }
        if (arrived < 30) return;
        clearInterval(timer);
        child.kill('SIGKILL');
      }, 2);
    });
    const statistics = await sync({ name: 'resumed', verify: false });
    expect(checksums(target)).toEqual(checksums(source));
    expect(killed).toBe(true);
    expect(arrived).toBeGreaterThanOrEqual(30);
    // What the second run moved is all that the first had not finished.
    expect(statistics?.moved).toBeLessThan(300);
    const { items } = await plane.api.get(`/api/v1/namespaces/${namespace}/pods?labelSelector=job-name=resumed`);
    expect(items.map(({ status }: { status: { phase: string } }) => status.phase).sort()).toEqual([
      'Failed',
      'Succeeded',
    ]);
  });

  it('runs by schedule, is listed, is not made twice, and ends when it is deleted', async () => {
    write(await directory('data'), { 'a.txt': 'first' });
    const request = { ...settings(), direction: 'to-s3' as const, volume: 'data', prefix: namespace };
    const { name } = await syncS3(client, { ...request, schedule: '* * * * *' });
    expect(name).toBe('sync-data-to-faces');
    await expect(syncS3(client, { ...request, schedule: '* * * * *' })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    const target = join(s3.folder, 'data', BUCKET, namespace);
    await eventually(110_000, () => expect(Object.keys(checksums(target))).toEqual(['a.txt']));
    const [listed] = await listSyncs(client, { namespace });
    expect(listed).toMatchObject({ name, schedule: '* * * * *', suspended: false });
    expect(listed?.lastScheduleTime).toBeDefined();
    await deleteSync(client, { namespace, name });
    expect(await listSyncs(client, { namespace })).toEqual([]);
    await expect(deleteSync(client, { namespace, name })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('refuses places and schedules that can not be, and shows what it would do', async () => {
    const wrong = (more: Partial<SyncS3Options>) => expect(sync(more)).rejects;
    await wrong({ schedule: 'often' }).toMatchObject({ code: 'INVALID_ARGUMENT' });
    await wrong({ schedule: '* * * *' }).toMatchObject({ code: 'INVALID_ARGUMENT' });
    await wrong({ directory: '../up' }).toMatchObject({ code: 'INVALID_ARGUMENT' });
    await wrong({ volume: 'absent' }).toMatchObject({ code: 'NOT_FOUND' });
    await wrong({ volume: { server: 'h', path: 'relative' } }).toMatchObject({ code: 'INVALID_ARGUMENT' });
    const request = { ...settings(), direction: 'to-s3' as const, volume: { server: 'nas', path: '/export' } };
    const { manifests } = await syncS3(client, { ...request, dryRun: 'server', schedule: '@daily' });
    expect(JSON.stringify(manifests)).toContain('"nfs":{"server":"nas","path":"/export"}');
    expect(JSON.stringify(manifests)).not.toContain(s3.secretKey);
    expect(await listSyncs(client, { namespace })).toEqual([]);
  });
});
