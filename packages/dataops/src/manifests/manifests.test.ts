/** Manifests hold only fields that Kubernetes 1.34 knows: what a server with strict field validation would refuse. */

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as models from '@kubernetes/client-node';
import { describe, expect, it } from 'vitest';
import { COMMAND_RULES, clusterRoles } from '../rbac.js';
import { batchInferenceJobs, jobAbilities, mergeJob } from './batch-inference.js';
import { flexCacheClaim, flexCacheVolume } from './flexcache.js';
import { workspaceDeployment, workspaceSecret, workspaceService } from './jupyterlab.js';
import { workspaceLabels } from './labels.js';
import { repositoryPusher } from './repository-pusher.js';
import { caConfigMap, s3Secret, syncCronJob, syncJob, transferJob } from './s3.js';
import { tritonDeployment, tritonService } from './triton.js';
import { tritonAutoscaler } from './triton-autoscaler.js';
import { claimManifest } from './volume.js';
import { volumeBinder } from './volume-binder.js';

interface Model {
  getAttributeTypeMap?(): readonly { readonly name: string; readonly type: string }[];
}

/** Paths of fields that the model of Kubernetes 1.34 does not have. */
function unknownFields(value: unknown, type: string, path = ''): string[] {
  const array = /^Array<(.+)>$/.exec(type);
  if (array?.[1] !== undefined) {
    return (value as unknown[]).flatMap((item, index) => unknownFields(item, array[1] ?? '', `${path}[${index}]`));
  }
  const map = /^\{ \[key: string\]: (.+); \}$/.exec(type);
  if (map?.[1] !== undefined) {
    return Object.entries(value as object).flatMap(([key, item]) =>
      unknownFields(item, map[1] ?? '', `${path}.${key}`),
    );
  }
  const attributes = (models as unknown as Record<string, Model>)[type]?.getAttributeTypeMap?.();
  if (attributes === undefined) return [];
  return Object.entries(value as object).flatMap(([key, item]) => {
    const attribute = attributes.find(({ name }) => name === key);
    return attribute === undefined ? [`${path}.${key}`] : unknownFields(item, attribute.type, `${path}.${key}`);
  });
}

const EXAMPLES = fileURLToPath(new URL('../../../../deploy/examples', import.meta.url));
const labels = workspaceLabels('live');
const s3 = {
  endpoint: 'https://s3.example.com',
  credentialsSecret: 'keys',
  volume: 'data',
  image: 'rclone',
  verifyCertificates: true,
  caConfigMaps: ['ca'],
  requests: { cpu: '1' },
  limits: { memory: '1Gi' },
  runAsUser: 1000,
  runAsGroup: 100,
};
const plan = { name: 'a', source: 's3:a', destination: '/mnt/data', deleteExtra: true, verify: true };
const mounts = [{ claim: 'data', path: '/data' }];
const resources = { cpu: '1', memory: '1Gi', gpus: 1 };
const cache = {
  claim: 'cache1',
  namespace: 'ns',
  volume: 'pv-cache1',
  size: '50Gi',
  junction: '/cache1',
  dataLif: '10.0.0.2',
  sourceSvm: 'svm',
  sourceVolume: 'vol',
};
const batch = {
  name: 'faces',
  image: 'scrim-job',
  claim: 'inference-data',
  mountPath: '/data',
  dataset: '/data/FDDB',
  alpha: 0.8,
  noisy: true,
  allowMissing: false,
  args: ['--size', '512'],
  resources: { gpus: 2 },
  runAsUser: 1000,
  runAsGroup: 100,
};
const shards = { count: 3, directory: '/data/.scrim/faces-1' };
const CASES: readonly [string, object][] = [
  [
    'V1PersistentVolumeClaim',
    claimManifest({ name: 'a', size: '1Gi', storageClass: 'b', snapshot: 'c', volumeName: 'd' }),
  ],
  ['V1PersistentVolume', flexCacheVolume(cache)],
  ['V1PersistentVolumeClaim', flexCacheClaim(cache)],
  ['V1Secret', workspaceSecret({ name: 'a', labels, passwordHash: 'argon2:x', tls: true })],
  ['V1Service', workspaceService({ workspace: 'live', labels, loadBalancer: true, tls: true })],
  [
    'V1Deployment',
    workspaceDeployment({ workspace: 'live', labels, image: 'i', secret: 's', tlsSecret: 't', mounts, resources }),
  ],
  ['V1Service', tritonService({ server: 'a', loadBalancer: false })],
  ['V1Deployment', tritonDeployment({ server: 'a', image: 'i', modelRepository: 'm', resources, replicas: 2 })],
  ['V1Secret', s3Secret('a', 'b', 'c')],
  ['V1ConfigMap', caConfigMap('a', 'b')],
  ['V1Job', syncJob(plan, { ...s3, volume: { server: 'h', path: '/p' } })],
  ['V1CronJob', syncCronJob(plan, s3, { schedule: '@hourly', timeZone: 'Etc/UTC' })],
  ['V1Job', transferJob('a', 'get-bucket', s3, ['copy', 's3:a', '/mnt/data'])],
  ...[
    ...batchInferenceJobs(batch, undefined, jobAbilities(34)),
    ...[20, 22, 34].flatMap((minor) => batchInferenceJobs(batch, shards, jobAbilities(minor))),
    mergeJob(batch, shards),
  ].map((job): [string, object] => ['V1Job', job]),
  ['V1Pod', repositoryPusher({ name: 'a', image: 'busybox', claim: 'models', runAsUser: 1000, runAsGroup: 1000 })],
  ['V1Pod', volumeBinder({ name: 'a', image: 'busybox', claim: 'data' })],
  [
    'V2HorizontalPodAutoscaler',
    tritonAutoscaler({ server: 'a', ownerUid: 'u', minReplicas: 1, maxReplicas: 4, queueTimeMs: 10 }),
  ],
  ...Object.keys(COMMAND_RULES).flatMap((command) =>
    clusterRoles(command).map((role): [string, object] => ['V1ClusterRole', role]),
  ),
];

describe('manifests', () => {
  it.each(CASES)('%s has no field that Kubernetes 1.34 does not know', (type, manifest) => {
    expect(unknownFields(manifest, type)).toEqual([]);
  });

  it.each(readdirSync(EXAMPLES))('deploy/examples/%s has no such field either', (file) => {
    const documents = models.loadAllYaml(readFileSync(`${EXAMPLES}/${file}`, 'utf8')) as Record<string, string>[];
    expect(documents.length).toBeGreaterThan(0);
    for (const document of documents) {
      const [version = '', group = ''] = (document.apiVersion ?? '').split('/').reverse();
      if (group.includes('.') && !group.endsWith('storage.k8s.io')) continue; // a custom resource
      const type = `${version === '' ? '' : version[0]?.toUpperCase()}${version.slice(1)}${document.kind}`;
      expect(unknownFields(document, type)).toEqual([]);
    }
  });

  it('notices a field at a wrong place', () => {
    const wrong = { spec: { template: { spec: { containers: [{ name: 'a', restartPolicy: 'Never', mounts: [] }] } } } };
    expect(unknownFields(wrong, 'V1Job')).toEqual(['.spec.template.spec.containers[0].mounts']);
  });

  it('gives a workspace and a server of one name different pods', () => {
    const workspace = workspaceService({ workspace: 'same', labels, loadBalancer: false, tls: false });
    expect(workspace.spec?.selector).not.toEqual(tritonService({ server: 'same', loadBalancer: false }).spec?.selector);
  });

  it('runs workspaces and servers without root', () => {
    const workspace = workspaceDeployment({ workspace: 'live', labels, image: 'i', secret: 's' });
    for (const { spec } of [workspace, tritonDeployment({ server: 'a', image: 'i', modelRepository: 'm' })]) {
      expect(spec?.template.spec?.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000 });
      expect(spec?.template.spec?.containers[0]?.securityContext).toMatchObject({
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'] },
      });
    }
  });

  it('keeps the password hash out of the pod', () => {
    const pod = JSON.stringify(workspaceDeployment({ workspace: 'live', labels, image: 'i', secret: 's' }));
    expect(pod).not.toContain('argon2');
    expect(pod).not.toContain('password');
  });

  it("writes TR-4928's Job: its data volume, shared memory, GPUs, ALPHA and backoffLimit, at the right places", () => {
    const [job] = batchInferenceJobs(batch, undefined, jobAbilities(34));
    expect(job?.spec?.backoffLimit).toBe(5);
    const pod = job?.spec?.template.spec;
    expect(pod?.restartPolicy).toBe('Never');
    expect(pod?.volumes).toContainEqual({ name: 'data', persistentVolumeClaim: { claimName: 'inference-data' } });
    expect(pod?.volumes).toContainEqual({ name: 'dshm', emptyDir: { medium: 'Memory' } });
    const [container] = pod?.containers ?? [];
    expect(container).toMatchObject({
      command: ['scrim'],
      args: ['evaluate', '--dataset', '/data/FDDB', '--alpha', '$(ALPHA)', '--noisy', '--size', '512'],
      env: [{ name: 'ALPHA', value: '0.8' }],
      resources: { limits: { 'nvidia.com/gpu': '2' } },
      volumeMounts: expect.arrayContaining([
        { name: 'data', mountPath: '/data' },
        { name: 'dshm', mountPath: '/dev/shm' },
      ]),
    });
  });

  it('spreads a Job by what the cluster can do: indexes with failures counted apart, indexes, or one Job for each part', () => {
    const specs = (minor: number) => batchInferenceJobs(batch, shards, jobAbilities(minor)).map(({ spec }) => spec);
    expect(specs(34)).toMatchObject([
      { completionMode: 'Indexed', completions: 3, parallelism: 3, backoffLimitPerIndex: 5 },
    ]);
    expect(specs(22)).toMatchObject([{ completionMode: 'Indexed', completions: 3, backoffLimit: 15 }]);
    expect(specs(22)[0]).not.toHaveProperty('backoffLimitPerIndex');
    expect(specs(20)).toHaveLength(3);
    expect(specs(20)[2]).not.toHaveProperty('completionMode');
    expect(specs(20)[2]?.template.spec?.containers[0]?.env).toContainEqual({
      name: 'JOB_COMPLETION_INDEX',
      value: '2',
    });
    expect(specs(34)[0]?.template.spec?.containers[0]?.args?.slice(-4)).toEqual([
      '--shard',
      '$(JOB_COMPLETION_INDEX)/3',
      '--partial',
      '/data/.scrim/faces-1/part-$(JOB_COMPLETION_INDEX)-of-3.json',
    ]);
    const merge = mergeJob(batch, shards).spec?.template.spec?.containers[0];
    expect(merge?.args?.slice(0, 3)).toEqual(['evaluate', 'merge', '/data/.scrim/faces-1/part-0-of-3.json']);
    expect(merge).not.toHaveProperty('resources');
  });

  it('asks for the average wait in microseconds', () => {
    const { spec } = tritonAutoscaler({ server: 'a', ownerUid: '', minReplicas: 1, maxReplicas: 4, queueTimeMs: 2.5 });
    expect(spec?.metrics?.[0]?.pods?.target).toEqual({ type: 'AverageValue', averageValue: '2500' });
  });
});
