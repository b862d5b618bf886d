/** Least rights: with its Role each command works, without any one of the rights it is refused. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type AccessRule,
  COMMAND_RULES,
  cloneJupyterLab,
  cloneVolume,
  clusterRoles,
  createCaConfigMap,
  createFlexCache,
  createJupyterLab,
  createJupyterLabSnapshot,
  createS3Secret,
  createTritonServer,
  createVolume,
  createVolumeSnapshot,
  deleteCaConfigMap,
  deleteFlexCache,
  deleteJupyterLab,
  deleteS3Job,
  deleteS3Secret,
  deleteSync,
  deleteTritonServer,
  deleteVolume,
  deleteVolumeSnapshot,
  getS3Bucket,
  KubeClient,
  listJupyterLabSnapshots,
  listJupyterLabs,
  listSyncs,
  listTritonServers,
  listVolumeSnapshots,
  listVolumes,
  restoreJupyterLabSnapshot,
  restoreVolumeSnapshot,
  showS3Job,
  syncS3,
  waitForS3Job,
  waitForSync,
} from '../../packages/dataops/src/index.js';
import { type OntapServer, startOntapServer } from '../ontap-server.js';
import { eventually } from './control-plane.js';
import { startTestCluster, type TestCluster } from './test-cluster.js';

let cluster: TestCluster;
let namespace: string;
let ontap: OntapServer;
let count = 0;

beforeAll(async () => {
  cluster = await startTestCluster();
  namespace = await cluster.createNamespace();
  ontap = await startOntapServer();
  const { host, username, password } = ontap;
  const spec = { storageDriverName: 'ontap-nas', managementLIF: host, dataLIF: '10.0.0.2', svm: 'svm1' };
  await cluster.storage.installTridentBackend('backend1', spec, { username, password });
  for (const name of ['scrim-limited', 'scrim-limited-cluster', 'scrim-limited-trident']) {
    await cluster.api.ensure('/apis/rbac.authorization.k8s.io/v1/clusterroles', {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name },
      rules: [],
    });
    const everywhere = name.endsWith('-cluster');
    const scope = everywhere ? '' : `namespaces/${name.endsWith('-trident') ? 'trident' : namespace}/`;
    const kind = everywhere ? 'ClusterRoleBinding' : 'RoleBinding';
    await cluster.api.ensure(`/apis/rbac.authorization.k8s.io/v1/${scope}${kind.toLowerCase()}s`, {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind,
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'limited' }],
    });
  }
});
afterAll(async () => {
  await cluster?.stop();
  await ontap?.close();
});

/** Gives the limited user exactly `rules` and waits until the API server goes by them. */
async function grant(rules: readonly AccessRule[], all: readonly AccessRule[]): Promise<void> {
  const roles = clusterRoles('limited', rules);
  for (const suffix of ['', '-cluster', '-trident']) {
    const name = `scrim-limited${suffix}`;
    const role = roles.find(({ metadata }) => metadata?.name === name);
    await cluster.api.patch(`/apis/rbac.authorization.k8s.io/v1/clusterroles/${name}`, { rules: role?.rules ?? [] });
  }
  const allowed = ({ group, resource, scope }: AccessRule, verb: string): boolean =>
    rules.some(
      (rule) => rule.group === group && rule.resource === resource && rule.scope === scope && rule.verbs.includes(verb),
    );
  for (const rule of all) {
    const { group, resource, verbs, scope } = rule;
    const places = { cluster: {}, trident: { namespace: 'trident' } };
    for (const verb of verbs) {
      const [plain, subresource = ''] = resource.split('/');
      const place = scope === undefined ? { namespace } : places[scope];
      const attributes = { group, resource: plain, subresource, verb, ...place };
      await eventually(10_000, async () => {
        const review = await cluster.api.send('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SubjectAccessReview',
          spec: { user: 'limited', groups: ['system:authenticated'], resourceAttributes: attributes },
        });
        if (review.status.allowed !== allowed(rule, verb)) throw new Error('the rules are not in force yet');
      });
    }
  }
}

interface Case {
  /** Prepares as administrator, under a name of its own. */
  readonly prepare?: (client: KubeClient, name: string) => Promise<unknown>;
  readonly run: (client: KubeClient, name: string) => Promise<unknown>;
  /** The volume controller stands still while rights to wait are missing: it is as fast as the command. */
  readonly freezes?: true;
  /** What is prepared must be unfinished too when the command has nothing to do but wait for it. */
  readonly waits?: true;
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
const flexCache = (client: KubeClient, name: string) =>
  createFlexCache(client, {
    ...on(),
    flexCacheVolume: name,
    size: '50Gi',
    sourceSvm: 'svm-origin',
    sourceVolume: 'origin1',
    backendName: 'backend1',
    fingerprint: ontap.fingerprint,
  });
const certificate = '-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n';
const jobs = new Map<string, string>();
const job = async (client: KubeClient, name: string) => {
  const settings = { ...on(), host: 'h', bucketName: 'faces', pvcName: name, credentialsSecret: 'keys' };
  jobs.set(name, (await getS3Bucket(client, settings)).jobName);
};

const syncOf = (name: string) => ({
  ...on(),
  direction: 'from-s3' as const,
  host: 'h',
  bucketName: 'faces',
  volume: name,
  credentialsSecret: 'keys',
});

/** Commands whose pods run processes, or that need KServe: see batch-and-push.test.ts. */
const ELSEWHERE = [
  'run-batch-inference',
  'create-inference-service',
  'list-inference-services',
  'delete-inference-service',
  'repo-push',
];

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
  'create-flexcache': { run: flexCache, freezes: true },
  'delete-flexcache': {
    prepare: flexCache,
    run: (client, name) =>
      deleteFlexCache(client, { ...on(), pvcName: name, backendName: 'backend1', fingerprint: ontap.fingerprint }),
  },
  'create-jupyterlab': { run: workspace },
  'list-jupyterlabs': { prepare: workspace, run: (client) => listJupyterLabs(client, on()) },
  'create-jupyterlab-snapshot': {
    prepare: workspace,
    run: (client, name) => createJupyterLabSnapshot(client, { ...on(), workspaceName: name, snapshotName: name }),
  },
  'list-jupyterlab-snapshots': {
    prepare: snapshot,
    run: (client) => listJupyterLabSnapshots(client, on()),
  },
  'restore-jupyterlab-snapshot': {
    prepare: async (client, name) => {
      await workspace(client, name);
      await createJupyterLabSnapshot(client, { ...on(), workspaceName: name, snapshotName: name });
    },
    run: (client, name) => restoreJupyterLabSnapshot(client, { ...on(), snapshotName: name }),
  },
  'clone-jupyterlab': {
    prepare: workspace,
    run: (client, name) =>
      cloneJupyterLab(client, {
        ...on(),
        newWorkspaceName: `${name}-copy`,
        sourceWorkspaceName: name,
        password: 'x',
      }),
  },
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
  'wait-s3-job': {
    waits: true,
    prepare: async (client, name) => {
      await volume(client, name);
      await job(client, name);
    },
    run: (client, name) => waitForS3Job(client, { ...on(), jobName: jobs.get(name) ?? '' }),
  },
  sync: { prepare: volume, run: (client, name) => syncS3(client, syncOf(name)) },
  'sync-follow': {
    waits: true,
    prepare: volume,
    run: async (client, name) => {
      await syncS3(client, { ...syncOf(name), name: `sync-${name}` });
      return waitForSync(client, { ...on(), name: `sync-${name}` });
    },
  },
  'sync-schedule': {
    prepare: volume,
    run: (client, name) => syncS3(client, { ...syncOf(name), schedule: '@daily' }),
  },
  'list-syncs': { run: (client) => listSyncs(client, on()) },
  'delete-sync': {
    prepare: async (client, name) => {
      await volume(client, name);
      await syncS3(client, { ...syncOf(name), name, schedule: '@daily' });
    },
    run: (client, name) => deleteSync(client, { ...on(), name }),
  },
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

const HOLD = 'test.scrim.dev/hold';

/** Keeps a case's objects of one resource from being deleted at once; returns what lets them go. */
async function hold({ group, resource, scope }: AccessRule, name: string): Promise<() => Promise<void>> {
  const version = group === '' ? '/api/v1' : `/apis/${group}/${resource === 'cronjobs' ? 'v1beta1' : 'v1'}`;
  const path = `${version}/${scope === 'cluster' ? '' : `namespaces/${namespace}/`}${resource}`;
  const change = async (edit: (finalizers: string[]) => string[]): Promise<void> => {
    for (const { metadata } of (await cluster.api.get(path)).items) {
      if (!metadata.name.endsWith(name) && metadata.name !== jobs.get(name)) continue;
      const finalizers = edit(metadata.finalizers ?? []);
      if (String(finalizers) === String(metadata.finalizers ?? [])) continue;
      await cluster.api.patch(`${path}/${metadata.name}`, { metadata: { finalizers } }).catch(ignoreAbsent);
    }
  };
  if (resource.includes('/')) return async () => undefined;
  await change((finalizers) => (finalizers.includes(HOLD) ? finalizers : [...finalizers, HOLD]));
  return () => change((finalizers) => finalizers.filter((each) => each !== HOLD));
}

/**
 * The limited client over a volume controller that stands still from the moment an object with "trigger" is sent until a
 * request is refused: else the wait may be over before anybody looks.
 */
function freezing(trigger: string): KubeClient {
  const { connection } = cluster.limited;
  return new KubeClient({
    ...connection,
    send: async (request) => {
      const body = JSON.stringify(request.body ?? '');
      if (request.method === 'PATCH' && body.includes(trigger)) cluster.freezeControllers(true);
      const response = await connection.send(request);
      if (response.statusCode === 403) cluster.freezeControllers(false);
      return response;
    },
  });
}

function ignoreAbsent(error: { status?: number }): void {
  if (error.status !== 404 && error.status !== 422) throw error;
}

describe('least rights', () => {
  it.each(Object.entries(CASES))('%s', { timeout: 600_000 }, async (command, { prepare, run, waits, freezes }) => {
    const all = COMMAND_RULES[command] ?? [];
    expect(all.length).toBeGreaterThan(0);
    const needed = all.filter(({ use }) => use === undefined);
    const attempt = async (rules: readonly AccessRule[], unfinished?: AccessRule): Promise<unknown> => {
      const name = `r${++count}`;
      if (unfinished !== undefined && waits) cluster.pace.delayMs = 5_000;
      await prepare?.(cluster.client, name);
      await grant(rules, all);
      if (unfinished === undefined) return run(cluster.limited, name);
      cluster.pace.delayMs = Math.max(cluster.pace.delayMs, 1_500);
      const release = await hold(unfinished, name);
      try {
        const reserving = unfinished.resource === 'persistentvolumes';
        const trigger = reserving ? '"claimRef"' : '"volumeName"';
        return await run(reserving || freezes ? freezing(trigger) : cluster.limited, name);
      } finally {
        cluster.pace.delayMs = 0;
        cluster.freezeControllers(false);
        await release();
      }
    };
    await attempt(needed);
    for (const rule of needed) {
      for (const verb of rule.verbs) {
        const less = needed.map((each) =>
          each === rule ? { ...each, verbs: each.verbs.filter((other) => other !== verb) } : each,
        );
        // A watch is needed only where the list before it found the object unfinished: so nothing finishes.
        const waiting = verb === 'watch' || (freezes && verb === 'list');
        const refused = attempt(less, waiting ? rule : undefined);
        await expect(refused, `${command} without ${verb} ${rule.resource}`).rejects.toMatchObject({
          code: 'PERMISSION_DENIED',
        });
      }
    }
  });

  it('has a case for every command of the table', () => {
    expect([...Object.keys(CASES), ...ELSEWHERE].sort()).toEqual(Object.keys(COMMAND_RULES).sort());
  });

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
