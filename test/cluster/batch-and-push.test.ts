/**
 * `scrim run batch-inference` and `scrim repo push` end to end: a real API server, job controller and scheduler, and pods
 * that are processes of this machine (process-node.ts). The images are photos that npm packages bring.
 *
 * The control plane is Kubernetes 1.20, which has no Indexed Jobs: here shards are one Job for each part. What Indexed
 * Jobs look like is held against Kubernetes 1.34's models in packages/dataops/src/manifests/manifests.test.ts.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type AccessRule,
  type BatchInferenceResult,
  COMMAND_RULES,
  connect,
  createInferenceService,
  createTritonServer,
  createVolume,
  deleteInferenceService,
  KubeClient,
  listInferenceServices,
  type Manifest,
  type PodLogLine,
  pushRepository,
  type RunBatchInferenceOptions,
  runBatchInference,
} from '../../packages/dataops/src/index.js';
import type { Json } from './admin-api.js';
import { type ControlPlane, eventually, startControlPlane } from './control-plane.js';
import { type ProcessNode, startProcessNode } from './process-node.js';
import { type StorageSimulator, startStorageSimulator } from './storage-simulator.js';

const SCRIM = fileURLToPath(new URL('../../packages/cli/bin/scrim.js', import.meta.url));
const IMAGE = 'scrim-job:test';

let plane: ControlPlane;
let storage: StorageSimulator;
let node: ProcessNode;
let client: KubeClient;
let namespace: string;
let count = 0;

beforeAll(async () => {
  plane = await startControlPlane();
  storage = await startStorageSimulator(plane.api, plane.directory, { delayMs: 0 });
  node = await startProcessNode(plane.api, storage, join(plane.directory, 'certs'));
  client = new KubeClient(connect({ kubeconfig: plane.kubeconfig('admin') }));
});
afterAll(async () => {
  client?.connection.close();
  await node?.stop();
  await storage?.stop();
  await plane?.stop();
});
beforeEach(async () => {
  namespace = `run-${++count}`;
  await plane.api.ensure('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
  await eventually(30_000, () => plane.api.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`));
});

/** Lays sample photos out as FDDB on the volume of a claim. */
async function volumeWithPhotos(claim: string): Promise<string> {
  await createVolume(client, { namespace, pvcName: claim, size: '1Gi' });
  const root = join(await storage.directoryOf(namespace, claim), 'FDDB');
  const assets = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'assets');
  mkdirSync(join(root, 'FDDB-folds'), { recursive: true });
  for (let fold = 1; fold <= 10; fold++) {
    mkdirSync(join(root, 'originalPics', `2002/${fold}`), { recursive: true });
    const names = fold <= 6 ? [`2002/${fold}/img_1`] : [];
    for (const name of names)
      copyFileSync(join(assets, `sample${fold}.jpg`), join(root, 'originalPics', `${name}.jpg`));
    const lines = names.flatMap((name) => [name, '1', '130 100 1.5 505 478  1']);
    writeFileSync(
      join(root, 'FDDB-folds', `FDDB-fold-${String(fold).padStart(2, '0')}-ellipseList.txt`),
      lines.join('\n'),
    );
  }
  return root;
}

const settings = (more: Partial<RunBatchInferenceOptions> = {}): RunBatchInferenceOptions => ({
  namespace,
  pvcName: 'inference-data',
  dataset: '/data/FDDB',
  image: IMAGE,
  args: ['--size', '256'],
  follow: true,
  timeoutMs: 110_000,
  ...more,
});

/** The figures of the command on this machine. */
const single = (root: string): Json =>
  JSON.parse(
    execFileSync(process.execPath, [SCRIM, 'evaluate', '--dataset', root, '--size', '256', '--json'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  );
const foldsOf = (json: Json): Json => json.folds.map(({ fold, ap }: Json) => ({ fold, ap }));

describe('run batch-inference', () => {
  it('evaluates on one pod, hands on its log and returns the figures of a run on this machine', async () => {
    const root = await volumeWithPhotos('inference-data');
    const lines: PodLogLine[] = [];
    const result = await runBatchInference(client, settings({ jobName: 'plain', onLine: (line) => lines.push(line) }));
    const expected = single(root);
    expect(result.figures).toMatchObject({ mAP: expected.mAP, folds: foldsOf(expected) });
    expect(result.figures?.lines.at(-1)).toMatch(/^6 of 6 images/);
    expect(lines.map(({ text }) => text)).toContain('===== Results =====');
    expect(lines.filter(({ text }) => text.startsWith('mAP: '))).toHaveLength(1);
    const job = await plane.api.get(`/apis/batch/v1/namespaces/${namespace}/jobs/plain`);
    expect(job.spec).toMatchObject({ backoffLimit: 5, completions: 1 });
  });

  it('evaluates in parts, one of which is killed and retried, and merges to exactly the same figures', async () => {
    const root = await volumeWithPhotos('inference-data');
    const started: string[] = [];
    node.onStart((pod, child) => {
      if (pod.metadata.namespace !== namespace) return;
      const job: string = pod.metadata.labels['job-name'];
      started.push(job);
      if (job === 'spread-1' && started.filter((name) => name === job).length === 1) {
        setTimeout(() => child.kill('SIGKILL'), 700);
      }
    });
    const pods = new Set<string>();
    const result = await runBatchInference(
      client,
      settings({ jobName: 'spread', shards: 3, onLine: ({ pod }) => pods.add(pod) }),
    );
    expect(result.jobs).toEqual(['spread-0', 'spread-1', 'spread-2', 'spread-merge']);
    const expected = single(root);
    expect(result.figures).toMatchObject({ mAP: expected.mAP, folds: foldsOf(expected) });
    expect(result.figures?.lines.at(-1)).toMatch(/^6 of 6 images, 3 parts/);
    expect(started.filter((name) => name === 'spread-1').length).toBeGreaterThan(1);
    // The result is on the volume, whole files alone.
    const hidden = join(await storage.directoryOf(namespace, 'inference-data'), '.scrim');
    const [run = ''] = readdirSync(hidden);
    expect(readdirSync(join(hidden, run)).sort()).toEqual([0, 1, 2].map((index) => `part-${index}-of-3.json`));
  });

  it('goes on with a run whose looker-on was stopped, under the directory that run chose', async () => {
    const root = await volumeWithPhotos('inference-data');
    const stopped = new AbortController();
    const begun = runBatchInference(
      client,
      settings({ jobName: 'left', shards: 2, signal: stopped.signal, onLine: () => stopped.abort() }),
    );
    await expect(begun).rejects.toMatchObject({ code: 'CANCELLED' });
    const events: string[] = [];
    const again = await runBatchInference(
      client,
      settings({ jobName: 'left', shards: 2, onProgress: ({ type }) => events.push(type) }),
    );
    expect(events.filter((type) => type === 'adopted')).toHaveLength(2);
    expect(again.figures?.mAP).toBe(single(root).mAP);
    await expect(runBatchInference(client, settings({ jobName: 'left', shards: 2, alpha: 0.5 }))).rejects.toMatchObject(
      {
        code: 'ALREADY_EXISTS',
      },
    );
  });

  it('ends with the reason: no volume, an image that cannot be pulled, a data set that is not there', async () => {
    await expect(runBatchInference(client, settings())).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await createVolume(client, { namespace, pvcName: 'inference-data', size: '1Gi' });
    const gone = settings({ jobName: 'gone', image: 'unpullable:1' });
    await expect(runBatchInference(client, gone)).rejects.toMatchObject({
      code: 'NOT_FOUND',
      details: { reason: 'ImagePullBackOff' },
    });
    await eventually(20_000, async () =>
      expect(await plane.api.find(`/apis/batch/v1/namespaces/${namespace}/jobs/gone`)).toBeUndefined(),
    );
    const lines: string[] = [];
    const bad = runBatchInference(
      client,
      settings({ jobName: 'bad', onLine: ({ text }) => lines.push(text), timeoutMs: 12_000 }),
    );
    // Its pods fail, the controller tries again, ever later: a Job that has started stays for its log to be read.
    await expect(bad).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(lines.join('\n')).toMatch(/is not FDDB/);
    expect(await plane.api.find(`/apis/batch/v1/namespaces/${namespace}/jobs/bad`)).toBeDefined();
  });

  it.each<[string, Partial<RunBatchInferenceOptions>, RegExp]>([
    ['a data set beside the volume', { dataset: '/elsewhere' }, /below \/data/],
    ['a data set above the volume', { dataset: '/data/../etc' }, /below \/data/],
    ['noise without alpha', { noisy: true }, /needs alpha/],
    ['no shards', { shards: 0 }, /1 to 1000/],
    ['an alpha of 1', { alpha: 1 }, /from 0 up to/],
    ['a name that is too long', { jobName: 'x'.repeat(51) }, /at most 50/],
  ])('refuses %s', async (_, more, message) => {
    await expect(runBatchInference(client, settings(more))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });

  it('starts without waiting, and shows what it would do', async () => {
    await volumeWithPhotos('inference-data');
    const dry: BatchInferenceResult = await runBatchInference(
      client,
      settings({ dryRun: 'client', shards: 2, jobName: 'dry' }),
    );
    expect(dry.manifests?.map(({ metadata }) => metadata.name)).toEqual(['dry', 'dry-merge']);
    expect(dry.manifests?.map((each) => (each as Manifest<'Job'>).spec?.suspend)).toEqual([undefined, true]);
    const server = await runBatchInference(client, settings({ dryRun: 'server', shards: 2, jobName: 'dry' }));
    expect(server.jobs).toEqual(['dry-0', 'dry-1', 'dry-merge']);
    expect((await plane.api.get(`/apis/batch/v1/namespaces/${namespace}/jobs`)).items).toEqual([]);
    const begun = await runBatchInference(client, settings({ follow: false, jobName: 'begun' }));
    expect(begun.figures).toBeUndefined();
    const ended = await runBatchInference(client, settings({ jobName: 'begun' }));
    expect(ended.figures?.folds).toHaveLength(6);
  });
});

describe('repo push', () => {
  const sum = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  const repository = (models: readonly string[], size: number, fill: number): Map<string, Uint8Array> =>
    new Map(
      models.flatMap((model): [string, Uint8Array][] => [
        [`${model}/config.pbtxt`, new TextEncoder().encode(`name: "${model}"\n`)],
        [`${model}/1/model.onnx`, Uint8Array.from({ length: size }, (_, i) => (i * 31 + fill) % 251)],
      ]),
    );
  const push = (files: Map<string, Uint8Array>, more: object = {}) =>
    pushRepository(client, { namespace, pvcName: 'repo', files, timeoutMs: 60_000, ...more });
  const pods = async (): Promise<Json[]> => (await plane.api.get(`/api/v1/namespaces/${namespace}/pods`)).items;

  it('puts models in their places with their checksums, leaves others alone and leaves nothing behind', async () => {
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    const root = await storage.directoryOf(namespace, 'repo');
    mkdirSync(join(root, 'mine'));
    const files = repository(['one', 'two'], 3_000_000, 1);
    const sent: number[] = [];
    const result = await push(files, { onSent: (bytes: number) => sent.push(bytes) });
    expect(result).toMatchObject({ models: ['one', 'two'], files: 4 });
    expect(sent.at(-1)).toBeGreaterThan(6_000_000);
    for (const [path, bytes] of files) expect(sum(readFileSync(join(root, path)))).toBe(sum(bytes));
    expect(readdirSync(root).sort()).toEqual(['mine', 'one', 'two']);
    await eventually(20_000, async () => expect(await pods()).toEqual([]));

    await expect(push(repository(['two', 'three'], 10, 2))).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(readdirSync(root).sort()).toEqual(['mine', 'one', 'two']);
    const newer = repository(['two', 'three'], 10, 2);
    await push(newer, { replace: true });
    for (const [path, bytes] of newer) expect(sum(readFileSync(join(root, path)))).toBe(sum(bytes));
    expect(readdirSync(root).sort()).toEqual(['mine', 'one', 'three', 'two']);
  });

  it('leaves the repository as it was where the connection breaks, and says so', async () => {
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    const root = await storage.directoryOf(namespace, 'repo');
    const old = repository(['one'], 1000, 1);
    await push(old);
    node.cutNextCommandAfter(1_000_000);
    await expect(push(repository(['one'], 8_000_000, 2), { replace: true })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    for (const [path, bytes] of old) expect(sum(readFileSync(join(root, path)))).toBe(sum(bytes));
    await eventually(20_000, () => expect(readdirSync(root)).toEqual(['one']));
    await eventually(20_000, async () => expect(await pods()).toEqual([]));
  });

  it('puts back what a push that died in the middle of the swap had set aside', async () => {
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    const root = await storage.directoryOf(namespace, 'repo');
    const left = join(root, '.scrim-push-0000');
    mkdirSync(join(left, 'old/one/1'), { recursive: true });
    mkdirSync(join(left, 'new/one'), { recursive: true });
    writeFileSync(join(left, 'old/one/config.pbtxt'), 'old');
    writeFileSync(join(left, 'models'), 'one\n');
    await push(repository(['two'], 10, 1));
    expect(readFileSync(join(root, 'one/config.pbtxt'), 'utf8')).toBe('old');
    expect(existsSync(left)).toBe(false);
  });

  it('leaves a push alone that still runs, and sweeps up after one whose pod was killed', async () => {
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    const root = await storage.directoryOf(namespace, 'repo');
    const pod = (name: string): object => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name },
      spec: { containers: [{ name: 'push', image: 'busybox' }] },
    });
    const path = `/api/v1/namespaces/${namespace}/pods`;
    await plane.api.send('POST', path, pod('scrim-repo-push-0001'));
    await eventually(20_000, async () =>
      expect((await plane.api.get(`${path}/scrim-repo-push-0001`)).status.phase).toBe('Running'),
    );
    for (const id of ['0001', '0002']) mkdirSync(join(root, `.scrim-push-${id}/new/one`), { recursive: true });
    await push(repository(['two'], 10, 1));
    expect(readdirSync(root).sort()).toEqual(['.scrim-push-0001', 'two']);
    await plane.api.send('DELETE', `${path}/scrim-repo-push-0001`);
    await eventually(20_000, async () => expect(await pods()).toEqual([]));
    const remarks: string[] = [];
    const onProgress = (event: { type: string; message?: string }): void => {
      if (event.type === 'warning') remarks.push(event.message ?? '');
    };
    await push(repository(['three'], 10, 1), { onProgress });
    expect(readdirSync(root).sort()).toEqual(['three', 'two']);
    expect(remarks).toEqual([expect.stringContaining('.scrim-push-0001')]);
  });

  it('ends with the reason: no volume, an image that cannot be pulled, no right to run commands, bad paths', async () => {
    const files = repository(['one'], 10, 1);
    await expect(push(files)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    await expect(push(files, { image: 'unpullable' })).rejects.toMatchObject({
      details: { reason: 'ImagePullBackOff' },
    });
    for (const path of ['model.onnx', '../x/y', 'a/../../b', '.hidden/x', 'a b/c']) {
      await expect(push(new Map([[path, new Uint8Array()]]))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    await expect(push(new Map())).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

const ROLE = 'scrim-least';

/** Gives the limited user exactly `rules` and waits until the API server goes by them. */
async function grant(rules: readonly AccessRule[], all: readonly AccessRule[]): Promise<void> {
  await plane.api.patch(`/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/roles/${ROLE}`, {
    rules: rules
      .filter(({ verbs }) => verbs.length > 0)
      .map(({ group, resource, verbs }) => ({ apiGroups: [group], resources: [resource], verbs })),
  });
  for (const { group, resource, verbs } of all) {
    for (const verb of verbs) {
      const [plain, subresource = ''] = resource.split('/');
      const granted = rules.some(
        (rule) => rule.group === group && rule.resource === resource && rule.verbs.includes(verb),
      );
      await eventually(10_000, async () => {
        const { status } = await plane.api.send('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SubjectAccessReview',
          spec: { user: 'limited', resourceAttributes: { namespace, group, resource: plain, subresource, verb } },
        });
        if (status.allowed !== granted) throw new Error('the rules are not in force yet');
      });
    }
  }
}

/** With its rights the command works, without any one of them it is refused. `prepare` is done as administrator. */
async function holdsItsRights(
  command: string,
  run: (limited: KubeClient, name: string) => Promise<unknown>,
  prepare: (name: string) => Promise<unknown> = async () => undefined,
): Promise<void> {
  const ensure = (kind: string, body: Json): Promise<void> =>
    plane.api.ensure(`/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/${kind}`, {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      ...body,
    });
  await ensure('roles', { kind: 'Role', metadata: { name: ROLE }, rules: [] });
  await ensure('rolebindings', {
    kind: 'RoleBinding',
    metadata: { name: ROLE },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: ROLE },
    subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'limited' }],
  });
  const limited = new KubeClient(connect({ kubeconfig: plane.kubeconfig('limited') }));
  let attempts = 0;
  const attempt = async (rules: readonly AccessRule[]): Promise<unknown> => {
    const name = `least-${attempts++}`;
    await prepare(name);
    await grant(rules, all);
    return run(limited, name);
  };
  const all = COMMAND_RULES[command] ?? [];
  expect(all.length).toBeGreaterThan(0);
  const needed = all.filter(({ use }) => use === undefined);
  try {
    await attempt(needed);
    for (const rule of needed) {
      for (const verb of rule.verbs) {
        // 'watch' may not be reached; 'create' on pods/exec is asked for by Kubernetes 1.35 and later alone.
        if (verb === 'watch' || (rule.resource === 'pods/exec' && verb === 'create')) continue;
        const less = needed.map((each) =>
          each === rule ? { ...each, verbs: each.verbs.filter((other) => other !== verb) } : each,
        );
        await expect(attempt(less), `without ${verb} ${rule.resource}`).rejects.toMatchObject({
          code: 'PERMISSION_DENIED',
        });
      }
    }
  } finally {
    limited.connection.close();
  }
}

describe('least rights', () => {
  it.each<[string, (limited: KubeClient, name: string) => Promise<unknown>]>([
    ['run-batch-inference', (limited, jobName) => runBatchInference(limited, settings({ jobName, shards: 1 }))],
    [
      'repo-push',
      (limited, name) => {
        const files = new Map([[`${name}/config.pbtxt`, new Uint8Array(9)]]);
        return pushRepository(limited, { namespace, pvcName: 'inference-data', files, timeoutMs: 30_000 });
      },
    ],
  ])('%s works with its rights and is refused without any one of them', async (command, run) => {
    await volumeWithPhotos('inference-data');
    await holdsItsRights(command, run);
  });
});

const inferenceServices = (): string => `/apis/serving.kserve.io/v1beta1/namespaces/${namespace}/inferenceservices`;

/** Installs KServe's custom resource, without a controller. */
async function installKServe(): Promise<void> {
  const group = 'serving.kserve.io';
  const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  await plane.api.ensure('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `inferenceservices.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind: 'InferenceService', plural: 'inferenceservices', singular: 'inferenceservice' },
      versions: [
        {
          name: 'v1beta1',
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: { openAPIV3Schema: { type: 'object', properties: { spec: open, status: open } } },
        },
      ],
    },
  });
  await eventually(20_000, () => plane.api.get(inferenceServices()));
}

describe('Triton beyond a Deployment', () => {
  it('says that autoscaling and KServe need what this cluster lacks, before it makes anything', async () => {
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    const server = { namespace, serverName: 'a', modelRepoPvcName: 'repo', timeoutMs: 20_000 };
    const autoscale = { minReplicas: 1, maxReplicas: 3, queueTimeMs: 5 };
    await expect(createTritonServer(client, { ...server, autoscale })).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect((await plane.api.get(`/api/v1/namespaces/${namespace}/services`)).items).toEqual([]);
    await expect(createInferenceService(client, server)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });

  it('runs a server through KServe (its custom resource is real, its controller is this test)', async () => {
    await installKServe();
    const path = inferenceServices();
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    const server = { namespace, serverName: 'faces', modelRepoPvcName: 'repo', timeoutMs: 30_000 };
    const making = createInferenceService(client, { ...server, minReplicas: 1, maxReplicas: 3 });
    await eventually(20_000, () =>
      plane.api.patch(`${path}/faces/status`, {
        status: { url: 'http://faces.example.com', conditions: [{ type: 'Ready', status: 'True' }] },
      }),
    );
    expect(await making).toMatchObject({ name: 'faces', ready: true, url: 'http://faces.example.com' });
    expect((await plane.api.get(`${path}/faces`)).spec.predictor).toEqual({
      minReplicas: 1,
      maxReplicas: 3,
      model: { modelFormat: { name: 'triton' }, protocolVersion: 'v2', storageUri: 'pvc://repo/' },
    });
    expect(await listInferenceServices(client, { namespace })).toMatchObject([{ name: 'faces', ready: true }]);
    await deleteInferenceService(client, { namespace, serverName: 'faces' });
    expect(await listInferenceServices(client, { namespace })).toEqual([]);
    const slow = createInferenceService(client, { ...server, timeoutMs: 2_000 });
    await expect(slow).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(await listInferenceServices(client, { namespace })).toEqual([]);
  });

  it('works with the rights for KServe, and is refused without any one of them', { timeout: 240_000 }, async () => {
    await installKServe();
    await createVolume(client, { namespace, pvcName: 'repo', size: '1Gi' });
    const server = (serverName: string) => ({ namespace, serverName, modelRepoPvcName: 'repo', timeoutMs: 20_000 });
    const ready = { status: { conditions: [{ type: 'Ready', status: 'True' }] } };
    let over = false;
    const controller = (async () => {
      while (!over) {
        for (const { metadata, status } of (await plane.api.get(inferenceServices())).items) {
          if (status === undefined) await plane.api.patch(`${inferenceServices()}/${metadata.name}/status`, ready);
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    })();
    try {
      const make = (name: string) => createInferenceService(client, server(name));
      await holdsItsRights('create-inference-service', (limited, name) =>
        createInferenceService(limited, server(name)),
      );
      await holdsItsRights('list-inference-services', (limited) => listInferenceServices(limited, { namespace }));
      const remove = (limited: KubeClient, serverName: string) =>
        deleteInferenceService(limited, { namespace, serverName, timeoutMs: 20_000 });
      // Under names of its own: what the first command had made is still there.
      await holdsItsRights(
        'delete-inference-service',
        (limited, name) => remove(limited, `d-${name}`),
        (name) => make(`d-${name}`),
      );
    } finally {
      over = true;
      await controller;
    }
  });
});
