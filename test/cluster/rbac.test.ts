/** Least rights: with its Role each command works, without any one of the rights it is refused. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type AccessRule,
  COMMAND_RULES,
  cloneVolume,
  clusterRoles,
  createCaConfigMap,
  createJupyterLab,
  createS3Secret,
  createTritonServer,
  createVolume,
  createVolumeSnapshot,
  deleteCaConfigMap,
  deleteJupyterLab,
  deleteS3Job,
  deleteS3Secret,
  deleteTritonServer,
  deleteVolume,
  deleteVolumeSnapshot,
  getS3Bucket,
  type KubeClient,
  listJupyterLabs,
  listTritonServers,
  listVolumeSnapshots,
  listVolumes,
  restoreVolumeSnapshot,
  showS3Job,
} from '../../packages/dataops/src/index.js';
import { eventually } from './control-plane.js';
import { startTestCluster, type TestCluster } from './test-cluster.js';

let cluster: TestCluster;
let namespace: string;
let count = 0;

beforeAll(async () => {
  cluster = await startTestCluster();
  namespace = await cluster.createNamespace();
  for (const name of ['scrim-limited', 'scrim-limited-cluster']) {
    await cluster.api.ensure('/apis/rbac.authorization.k8s.io/v1/clusterroles', {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name },
      rules: [],
    });
    const cluster_ = name.endsWith('-cluster');
    const scope = cluster_ ? '' : `namespaces/${namespace}/`;
    const kind = cluster_ ? 'ClusterRoleBinding' : 'RoleBinding';
    await cluster.api.ensure(`/apis/rbac.authorization.k8s.io/v1/${scope}${kind.toLowerCase()}s`, {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind,
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'limited' }],
    });
  }
});
afterAll(() => cluster?.stop());

/** Gives the limited user exactly `rules` and waits until the API server goes by them. */
async function grant(rules: readonly AccessRule[], all: readonly AccessRule[]): Promise<void> {
  const roles = clusterRoles('limited', rules);
  for (const suffix of ['', '-cluster']) {
    const name = `scrim-limited${suffix}`;
    const role = roles.find(({ metadata }) => metadata?.name === name);
    await cluster.api.patch(`/apis/rbac.authorization.k8s.io/v1/clusterroles/${name}`, { rules: role?.rules ?? [] });
  }
  const allowed = (group: string, resource: string, verb: string): boolean =>
    rules.some((rule) => rule.group === group && rule.resource === resource && rule.verbs.includes(verb));
  for (const { group, resource, verbs, scope } of all) {
    for (const verb of verbs) {
      const [plain, subresource = ''] = resource.split('/');
      const attributes = { group, resource: plain, subresource, verb, ...(scope === 'cluster' ? {} : { namespace }) };
      await eventually(10_000, async () => {
        const review = await cluster.api.send('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SubjectAccessReview',
          spec: { user: 'limited', groups: ['system:authenticated'], resourceAttributes: attributes },
        });
        if (review.status.allowed !== allowed(group, resource, verb)) throw new Error('the rules are not in force yet');
      });
    }
  }
}

interface Case {
  /** Prepares as administrator, under a name of its own. */
  readonly prepare?: (client: KubeClient, name: string) => Promise<unknown>;
  readonly run: (client: KubeClient, name: string) => Promise<unknown>;
}

const on = () => ({ namespace, timeoutMs: 20_000 });
const volume = (client: KubeClient, pvcName: string) => createVolume(client, { ...on(), pvcName, size: '1Gi' });
const snapshot = async (client: KubeClient, name: string) => {
  await volume(client, name);
  await createVolumeSnapshot(client, { ...on(), pvcName: name, snapshotName: name });
};
const workspace = (client: KubeClient, workspaceName: string) =>
  createJupyterLab(client, { ...on(), workspaceName, size: '1Gi', password: 'x' });
const server = (client: KubeClient, name: string) =>
  createTritonServer(client, { ...on(), serverName: name, modelRepoPvcName: name });
const certificate = '-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n';
const jobs = new Map<string, string>();
const job = async (client: KubeClient, name: string) => {
  const settings = { ...on(), host: 'h', bucketName: 'faces', pvcName: name, credentialsSecret: 'keys' };
  jobs.set(name, (await getS3Bucket(client, settings)).jobName);
};

const CASES: Readonly<Record<string, Case>> = {
  'create-volume': { run: volume },
  'clone-volume': {
    prepare: volume,
    run: (client, name) => cloneVolume(client, { ...on(), newPvcName: `${name}-copy`, sourcePvcName: name }),
  },
  'list-volumes': {
    prepare: async (client, name) => {
      await volume(client, name);
      await cloneVolume(client, { ...on(), newPvcName: `${name}-copy`, sourcePvcName: name });
    },
    run: (client) => listVolumes(client, on()),
  },
  'delete-volume': { prepare: snapshot, run: (client, name) => deleteVolume(client, { ...on(), pvcName: name }) },
  'create-volume-snapshot': {
    prepare: volume,
    run: (client, name) => createVolumeSnapshot(client, { ...on(), pvcName: name, snapshotName: name }),
  },
  'list-volume-snapshots': { prepare: snapshot, run: (client) => listVolumeSnapshots(client, on()) },
  'delete-volume-snapshot': {
    prepare: snapshot,
    run: (client, name) => deleteVolumeSnapshot(client, { ...on(), snapshotName: name }),
  },
  'restore-volume-snapshot': {
    prepare: snapshot,
    run: (client, name) => restoreVolumeSnapshot(client, { ...on(), snapshotName: name }),
  },
  'create-jupyterlab': { run: workspace },
  'list-jupyterlabs': { prepare: workspace, run: (client) => listJupyterLabs(client, on()) },
  'delete-jupyterlab': {
    prepare: async (client, name) => {
      await workspace(client, name);
      await createVolumeSnapshot(client, { ...on(), pvcName: `ntap-dsutil-jupyterlab-${name}`, snapshotName: name });
    },
    run: (client, name) => deleteJupyterLab(client, { ...on(), workspaceName: name }),
  },
  'create-triton-server': { prepare: volume, run: server },
  'list-triton-servers': { run: (client) => listTritonServers(client, on()) },
  'delete-triton-server': {
    prepare: async (client, name) => {
      await volume(client, name);
      await server(client, name);
    },
    run: (client, name) => deleteTritonServer(client, { ...on(), serverName: name }),
  },
  'create-s3-secret': {
    run: (client, name) => createS3Secret(client, { ...on(), secretName: name, accessKey: 'a', secretKey: 'b' }),
  },
  'delete-s3-secret': {
    prepare: (client, name) => createS3Secret(client, { ...on(), secretName: name, accessKey: 'a', secretKey: 'b' }),
    run: (client, name) => deleteS3Secret(client, { ...on(), secretName: name }),
  },
  'create-ca-config-map': {
    run: (client, name) => createCaConfigMap(client, { ...on(), configMapName: name, certificate }),
  },
  'delete-ca-config-map': {
    prepare: (client, name) => createCaConfigMap(client, { ...on(), configMapName: name, certificate }),
    run: (client, name) => deleteCaConfigMap(client, { ...on(), configMapName: name }),
  },
  'transfer-s3': { prepare: volume, run: job },
  'show-s3-job': {
    prepare: async (client, name) => {
      await volume(client, name);
      await job(client, name);
    },
    run: (client, name) => showS3Job(client, { ...on(), jobName: jobs.get(name) ?? '' }),
  },
  'delete-s3-job': {
    prepare: async (client, name) => {
      await volume(client, name);
      await job(client, name);
    },
    run: (client, name) => deleteS3Job(client, { ...on(), jobName: jobs.get(name) ?? '' }),
  },
};

describe('least rights', () => {
  it.each(Object.entries(CASES))('%s', async (command, { prepare, run }) => {
    const all = COMMAND_RULES[command] ?? [];
    expect(all.length).toBeGreaterThan(0);
    const needed = all.filter(({ use }) => use === undefined);
    const attempt = async (rules: readonly AccessRule[]): Promise<unknown> => {
      const name = `r${++count}`;
      await prepare?.(cluster.client, name);
      await grant(rules, all);
      return run(cluster.limited, name);
    };
    await attempt(needed);
    for (const rule of needed) {
      // What is only watched may have ended before the watch began: 'watch' has tests of its own below.
      for (const verb of rule.verbs.filter((each) => each !== 'watch')) {
        const less = needed.map((each) =>
          each === rule ? { ...each, verbs: each.verbs.filter((other) => other !== verb) } : each,
        );
        await expect(attempt(less), `${command} without ${verb} ${rule.resource}`).rejects.toMatchObject({
          code: 'PERMISSION_DENIED',
        });
      }
    }
  });

  it.each(['persistentvolumeclaims', 'events'])(
    'create-volume is refused where it may not watch %s',
    async (resource) => {
      const all = COMMAND_RULES['create-volume'] ?? [];
      const less = all.map((rule) =>
        rule.resource === resource ? { ...rule, verbs: rule.verbs.filter((verb) => verb !== 'watch') } : rule,
      );
      await grant(less, all);
      const stuck = { ...on(), pvcName: `r${++count}`, size: '1Gi', storageClass: 'nobody' };
      await expect(createVolume(cluster.limited, stuck)).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
      const path = `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${stuck.pvcName}`;
      await eventually(10_000, async () => expect(await cluster.api.find(path)).toBeUndefined());
    },
  );

  it('says what it could not take back where it may not delete', async () => {
    const all = COMMAND_RULES['create-volume'] ?? [];
    await grant(
      all.filter(({ use }) => use === undefined),
      all,
    );
    const failing = { ...on(), pvcName: `r${++count}`, size: '1Gi', storageClass: 'nope' };
    await expect(createVolume(cluster.limited, failing)).rejects.toThrow(
      `could not be undone: PersistentVolumeClaim '${failing.pvcName}'`,
    );
  });
});
