/** JupyterLab workspaces and their snapshots: make, clone, list, delete, restore. */
import { ScrimError } from 'scrim';
import { endpointOf, nodeHost, waitForEndpoint } from './endpoints.js';
import type { KubeClient } from './kube/client.js';
import type { KindMap } from './kube/kinds.js';
import { type ExtraMount, workspaceDeployment, workspaceSecret, workspaceService } from './manifests/jupyterlab.js';
import { JUPYTERLAB_SELECTOR, workspaceLabels } from './manifests/labels.js';
import type { ContainerResources } from './manifests/resources.js';
import {
  checkAccessModes,
  checkName,
  checkServiceName,
  checkSize,
  JUPYTERLAB_PREFIX,
  labelValue,
  snapshotName,
  uniqueSuffix,
} from './naming.js';
import { type Operation, type OperationOptions, requestDigest, runOperation } from './operation.js';
import { hashJupyterPassword } from './password.js';
import { restoreInto } from './restore.js';
import {
  listVolumeSnapshots,
  readSnapshot,
  takeSnapshot,
  type VolumeSnapshotInfo,
  type WithManifests,
} from './snapshots.js';
import { makeClaim, makeClone, refuseInUse, removeVolume } from './volumes.js';
import { waitForDeployment } from './waiting.js';

/** Image of a workspace nobody chose one for, as in TR-4928. */
export const DEFAULT_JUPYTERLAB_IMAGE = 'jupyter/tensorflow-notebook';

/** What all new workspaces take. */
export interface WorkspaceSettings extends OperationOptions {
  /** Kept only as an argon2id hash in a Secret. */
  readonly password: string;
  readonly resources?: ContainerResources;
  readonly loadBalancer?: boolean;
  /** Name of a Secret of type kubernetes.io/tls: Jupyter then speaks HTTPS with it. */
  readonly tlsSecret?: string;
}

/** Arguments of {@link createJupyterLab}. */
export interface CreateJupyterLabOptions extends WorkspaceSettings {
  readonly workspaceName: string;
  /** Size of the workspace's volume. */
  readonly size: string;
  readonly storageClass?: string;
  readonly accessModes?: readonly string[];
  readonly image?: string;
  /** Volumes to mount besides the workspace's own. */
  readonly mounts?: readonly ExtraMount[];
}

/** A workspace that was made. */
export interface WorkspaceResult extends WithManifests {
  readonly workspaceName: string;
  /** Where it answers; undefined in a dry run. */
  readonly url?: string;
}

/**
 * Makes a workspace: volume, Service, Secret, Deployment; waits until it is ready and returns its address.
 *
 * What an interrupted run of the same request left is taken over; a run that fails removes what it made.
 *
 * @throws ALREADY_EXISTS, NOT_FOUND (an image that can't be pulled, a missing class), RESOURCE_EXHAUSTED
 */
export async function createJupyterLab(client: KubeClient, options: CreateJupyterLabOptions): Promise<WorkspaceResult> {
  const { workspaceName, size, storageClass, accessModes } = options;
  checkServiceName('workspaceName', workspaceName, JUPYTERLAB_PREFIX);
  checkSize('size', size);
  checkAccessModes(accessModes);
  const image = options.image ?? DEFAULT_JUPYTERLAB_IMAGE;
  checkMounts(options.mounts ?? []);
  return runOperation(client, options, async (operation) => {
    const name = `${JUPYTERLAB_PREFIX}${workspaceName}`;
    const { loadBalancer = false, tlsSecret } = options;
    const asked = { workspaceName, size, storageClass, accessModes, image, loadBalancer, tlsSecret };
    const request = requestDigest('create-jupyterlab', asked);
    await refuseExisting(operation, name);
    operation.emit({ type: 'step', step: 'workspace-volume', name, namespace: operation.namespace });
    const labels = workspaceLabels(workspaceName);
    const claim = {
      name,
      size,
      labels,
      ...(storageClass === undefined ? {} : { storageClass }),
      ...(accessModes === undefined ? {} : { accessModes }),
    };
    await makeClaim(operation, claim, request);
    return startWorkspace(operation, { ...options, image, labels, request });
  });
}

async function refuseExisting(operation: Operation, name: string): Promise<void> {
  if (operation.dryRun === 'client') return;
  const { client, namespace, signal } = operation;
  if ((await client.find('Deployment', namespace, name, signal)) === undefined) return;
  throw new ScrimError('ALREADY_EXISTS', `Deployment '${name}' exists already in namespace '${namespace}'`);
}

function checkMounts(mounts: readonly ExtraMount[]): void {
  for (const { claim, path } of mounts) {
    checkName('the volume to mount', claim);
    if (!path.startsWith('/') || path.includes(':')) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `the path to mount '${claim}' at is '${path}', expected an absolute path`,
      );
    }
  }
}

/** Service, Secret and Deployment of a workspace whose volume is there. */
async function startWorkspace(
  operation: Operation,
  spec: WorkspaceSettings & {
    readonly workspaceName: string;
    readonly image: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly request: string;
    readonly mounts?: readonly ExtraMount[];
  },
): Promise<WorkspaceResult> {
  const { workspaceName: workspace, labels, request, image } = spec;
  const { namespace } = operation;
  const name = `${JUPYTERLAB_PREFIX}${workspace}`;
  const tls = spec.tlsSecret !== undefined;
  const service = workspaceService({ workspace, labels, loadBalancer: spec.loadBalancer ?? false, tls });
  await operation.create(service, { adopt: request });
  for (const { claim, path } of spec.mounts ?? []) {
    operation.emit({ type: 'step', step: 'attach-volume', name: claim, source: path, namespace });
  }
  // A name of its own per run: of two runs that race for the Deployment, each has the password it was given.
  const secret = `${name.slice(0, 200)}-${operation.id}`;
  const passwordHash = await hashJupyterPassword(spec.password);
  await operation.silently(() => operation.create(workspaceSecret({ name: secret, labels, passwordHash, tls })));
  await operation.create(
    workspaceDeployment({
      workspace,
      labels,
      image,
      secret,
      ...(spec.tlsSecret === undefined ? {} : { tlsSecret: spec.tlsSecret }),
      ...(spec.mounts === undefined ? {} : { mounts: spec.mounts }),
      ...(spec.resources === undefined ? {} : { resources: spec.resources }),
    }),
  );
  if (operation.dryRun !== undefined) return { workspaceName: workspace, manifests: operation.manifests };
  await waitForDeployment(operation, name, name);
  const { host, ports } = await waitForEndpoint(operation, name);
  return { workspaceName: workspace, url: urlOf(host, ports['8888'], tls), manifests: operation.manifests };
}

function urlOf(host: string, port: number | undefined, tls: boolean): string {
  const usual = port === (tls ? 443 : 80);
  return `${tls ? 'https' : 'http'}://${host}${port === undefined || usual ? '' : `:${port}`}`;
}

/** Arguments of {@link cloneJupyterLab}; a source workspace, a snapshot of one, or both. */
export interface CloneJupyterLabOptions extends WorkspaceSettings {
  readonly newWorkspaceName: string;
  readonly sourceWorkspaceName?: string;
  readonly sourceSnapshotName?: string;
  readonly volumeSnapshotClass?: string;
  /** Annotations of the claim, such as Trident's `trident.netapp.io/splitOnClone`. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Makes a workspace with the content and image of another one, or of a snapshot of one. */
export async function cloneJupyterLab(client: KubeClient, options: CloneJupyterLabOptions): Promise<WorkspaceResult> {
  const { newWorkspaceName: workspace, sourceWorkspaceName, sourceSnapshotName } = options;
  checkServiceName('newWorkspaceName', workspace, JUPYTERLAB_PREFIX);
  if (sourceWorkspaceName === undefined && sourceSnapshotName === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', 'expected sourceWorkspaceName, sourceSnapshotName or both');
  }
  return runOperation(client, options, async (operation) => {
    if (operation.dryRun === 'client') {
      throw new ScrimError('UNSUPPORTED', 'a clone takes its settings from the cluster: use the dry run of the server');
    }
    const { namespace, signal } = operation;
    const name = `${JUPYTERLAB_PREFIX}${workspace}`;
    await refuseExisting(operation, name);
    const claim =
      sourceSnapshotName === undefined
        ? `${JUPYTERLAB_PREFIX}${sourceWorkspaceName}`
        : (await readSnapshot(operation, sourceSnapshotName)).claim;
    const source = sourceWorkspaceName ?? (await workspaceOf(operation, claim));
    const deployment = await client.get('Deployment', namespace, `${JUPYTERLAB_PREFIX}${source}`, signal);
    const image = deployment.spec?.template.spec?.containers[0]?.image ?? DEFAULT_JUPYTERLAB_IMAGE;
    const labels = {
      ...workspaceLabels(workspace, 'clone-jupyterlab'),
      'source-jupyterlab-workspace': labelValue(source),
    };
    operation.emit({
      type: 'step',
      step: 'clone-workspace',
      name: workspace,
      source: sourceSnapshotName ?? source,
      ...(sourceSnapshotName === undefined ? {} : { fromSnapshot: true }),
      namespace,
    });
    const { loadBalancer = false, tlsSecret } = options;
    const asked = { workspace, source, sourceSnapshotName, loadBalancer, tlsSecret };
    const request = requestDigest('clone-jupyterlab', asked);
    await makeClone(operation, {
      name,
      adopt: request,
      labels: { ...labels, 'source-pvc': labelValue(claim) },
      ...(sourceSnapshotName === undefined ? { sourcePvcName: claim } : { sourceSnapshotName }),
      ...(options.volumeSnapshotClass === undefined ? {} : { volumeSnapshotClass: options.volumeSnapshotClass }),
      ...(options.annotations === undefined ? {} : { annotations: options.annotations }),
    });
    return startWorkspace(operation, { ...options, workspaceName: workspace, image, labels, request });
  });
}

/** Workspace a claim belongs to. @throws NOT_FOUND, INVALID_ARGUMENT where it is no workspace's */
async function workspaceOf(operation: Operation, claim: string): Promise<string> {
  const { metadata } = await operation.client.get(
    'PersistentVolumeClaim',
    operation.namespace,
    claim,
    operation.signal,
  );
  const workspace = metadata?.labels?.['jupyterlab-workspace-name'];
  if (workspace === undefined) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `PersistentVolumeClaim '${claim}' is not the volume of a JupyterLab workspace`,
    );
  }
  return workspace;
}

/** A workspace as lists show it. */
export interface WorkspaceInfo {
  readonly name: string;
  readonly ready: boolean;
  readonly size?: string;
  readonly storageClass?: string;
  /** Undefined while it has no address. */
  readonly url?: string;
  readonly clone: boolean;
  readonly sourceWorkspace?: string;
  readonly sourceWorkspaceExists?: boolean;
  readonly sourceSnapshot?: string;
  readonly sourceSnapshotExists?: boolean;
}

/** Lists the workspaces of a namespace. */
export async function listJupyterLabs(
  client: KubeClient,
  options: OperationOptions = {},
): Promise<readonly WorkspaceInfo[]> {
  return runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    const selection = { namespace, labelSelector: JUPYTERLAB_SELECTOR };
    const [deployments, services, claims, node] = await Promise.all([
      client.list('Deployment', selection, signal),
      client.list('Service', selection, signal),
      client.list('PersistentVolumeClaim', selection, signal),
      nodeHost(operation),
    ]);
    const snapshots = claims.items.some(({ spec }) => spec?.dataSource?.kind === 'VolumeSnapshot')
      ? (await client.list('VolumeSnapshot', { namespace }, signal)).items
      : [];
    const named = <T extends KindMap[keyof KindMap]>(items: readonly T[]): Map<string, T> =>
      new Map(items.map((item) => [item.metadata?.name ?? '', item]));
    const all = {
      deployments: named(deployments.items),
      services: named(services.items),
      claims: named(claims.items),
      snapshots: named(snapshots),
    };
    return deployments.items.map((deployment) => describe(deployment, all, node));
  });
}

function describe(
  deployment: KindMap['Deployment'],
  all: {
    readonly deployments: ReadonlyMap<string, unknown>;
    readonly services: ReadonlyMap<string, KindMap['Service']>;
    readonly claims: ReadonlyMap<string, KindMap['PersistentVolumeClaim']>;
    readonly snapshots: ReadonlyMap<string, unknown>;
  },
  node: string,
): WorkspaceInfo {
  const name = deployment.metadata?.name ?? '';
  const labels = deployment.metadata?.labels ?? {};
  const claim = all.claims.get(name);
  const service = all.services.get(name);
  const endpoint = service === undefined ? undefined : endpointOf(service, node);
  const tls = service?.spec?.ports?.[0]?.name === 'https';
  const clone = labels['created-by-operation'] === 'clone-jupyterlab';
  const source = labels['source-jupyterlab-workspace'];
  const snapshot = clone ? claim?.spec?.dataSource?.name : undefined;
  const size = claim?.status?.capacity?.storage;
  return {
    name: labels['jupyterlab-workspace-name'] ?? name.slice(JUPYTERLAB_PREFIX.length),
    ready:
      (deployment.status?.readyReplicas ?? 0) >= (deployment.spec?.replicas ?? 1) && deployment.spec?.replicas !== 0,
    clone,
    ...(size === undefined ? {} : { size }),
    ...(claim?.spec?.storageClassName === undefined ? {} : { storageClass: claim.spec.storageClassName }),
    ...(endpoint === undefined ? {} : { url: urlOf(endpoint.host, endpoint.ports['8888'], tls) }),
    ...(clone && source !== undefined
      ? { sourceWorkspace: source, sourceWorkspaceExists: all.deployments.has(`${JUPYTERLAB_PREFIX}${source}`) }
      : {}),
    ...(snapshot === undefined ? {} : { sourceSnapshot: snapshot, sourceSnapshotExists: all.snapshots.has(snapshot) }),
  };
}

/** Deletes a workspace with its volume, and the volume's snapshots unless they are to be kept. @throws NOT_FOUND */
export async function deleteJupyterLab(
  client: KubeClient,
  options: OperationOptions & { readonly workspaceName: string; readonly preserveSnapshots?: boolean },
): Promise<void> {
  checkServiceName('workspaceName', options.workspaceName, JUPYTERLAB_PREFIX);
  await runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    const name = `${JUPYTERLAB_PREFIX}${options.workspaceName}`;
    const present = await Promise.all(
      (['Deployment', 'Service', 'PersistentVolumeClaim'] as const).map((kind) =>
        client.find(kind, namespace, name, signal),
      ),
    );
    if (present.every((object) => object === undefined)) {
      throw new ScrimError(
        'NOT_FOUND',
        `JupyterLab workspace '${options.workspaceName}' does not exist in namespace '${namespace}'`,
      );
    }
    for (const kind of ['Deployment', 'Service'] as const) {
      operation.emit({ type: 'deleting', kind, name, namespace });
      await operation.remove(kind, name);
    }
    const secrets = { namespace, labelSelector: `${JUPYTERLAB_SELECTOR},app=${name}` };
    for (const { metadata } of (await client.list('Secret', secrets, signal)).items) {
      await operation.remove('Secret', metadata?.name ?? '', { wait: false });
    }
    if (present[2] === undefined) return;
    operation.emit({ type: 'step', step: 'delete-workspace-volume', name, namespace });
    await removeVolume(operation, name, options.preserveSnapshots ?? false);
  });
}

/** Takes a snapshot of a workspace's volume. */
export async function createJupyterLabSnapshot(
  client: KubeClient,
  options: OperationOptions & {
    readonly workspaceName: string;
    readonly snapshotName?: string;
    readonly volumeSnapshotClass?: string;
  },
): Promise<WithManifests & { readonly snapshotName: string }> {
  checkServiceName('workspaceName', options.workspaceName, JUPYTERLAB_PREFIX);
  if (options.snapshotName !== undefined) checkName('snapshotName', options.snapshotName);
  return runOperation(client, options, async (operation) => {
    const name = options.snapshotName ?? snapshotName('plain', new Date(), uniqueSuffix());
    const { workspaceName, volumeSnapshotClass } = options;
    operation.emit({ type: 'step', step: 'snapshot-workspace', name: workspaceName, namespace: operation.namespace });
    await takeSnapshot(operation, {
      pvcName: `${JUPYTERLAB_PREFIX}${workspaceName}`,
      snapshotName: name,
      ...(volumeSnapshotClass === undefined ? {} : { volumeSnapshotClass }),
    });
    return { snapshotName: name, manifests: operation.manifests };
  });
}

/** Lists snapshots of one workspace, or of all. */
export async function listJupyterLabSnapshots(
  client: KubeClient,
  options: OperationOptions & { readonly workspaceName?: string } = {},
): Promise<readonly VolumeSnapshotInfo[]> {
  const { workspaceName } = options;
  return listVolumeSnapshots(client, {
    ...options,
    workspacesOnly: true,
    ...(workspaceName === undefined ? {} : { pvcName: `${JUPYTERLAB_PREFIX}${workspaceName}` }),
  });
}

/**
 * Puts a workspace back to a snapshot: stops its pods, restores the volume, starts as many as ran before.
 * If the restore fails, the workspace runs on with the volume it had.
 */
export async function restoreJupyterLabSnapshot(
  client: KubeClient,
  options: OperationOptions & { readonly snapshotName: string; readonly keepOldVolume?: boolean },
): Promise<{ readonly workspaceName: string }> {
  const { snapshotName } = options;
  checkName('snapshotName', snapshotName);
  return runOperation(client, options, async (operation) => {
    const { namespace, signal, fieldManager } = operation;
    const { claim } = await readSnapshot(operation, snapshotName);
    if (!claim.startsWith(JUPYTERLAB_PREFIX)) {
      throw new ScrimError('INVALID_ARGUMENT', `VolumeSnapshot '${snapshotName}' is not of a JupyterLab workspace`);
    }
    const workspaceName = claim.slice(JUPYTERLAB_PREFIX.length);
    const deployment = await client.get('Deployment', namespace, claim, signal);
    // 0 is what an interrupted restore left.
    const replicas = deployment.spec?.replicas || 1;
    operation.emit({ type: 'step', step: 'restore-workspace', name: workspaceName, source: snapshotName, namespace });
    const scale = async (count: number, within: AbortSignal): Promise<void> => {
      operation.emit({ type: 'scaling', name: claim, namespace, replicas: count });
      await client.scale(namespace, claim, count, { fieldManager, signal: within });
    };
    const result = await restoreInto(operation, options, async () => {
      operation.onFailure(`starting Deployment '${claim}' again`, (late) => scale(replicas, late));
      await scale(0, signal);
      await operation.waitFor(
        `the pods of '${claim}' to end`,
        { pods: { kind: 'Pod', labels: `app=${claim}` } },
        ({ pods }) => (pods?.length === 0 ? true : undefined),
      );
      await refuseInUse(operation, claim);
      operation.emit({ type: 'step', step: 'restore-volume', name: claim, source: snapshotName, namespace });
    });
    operation.emit({ type: 'step', step: 'volume-restored', name: result.pvcName, source: snapshotName, namespace });
    if (operation.dryRun === undefined) {
      await scale(replicas, signal);
      await waitForDeployment(operation, claim, claim);
    }
    return { workspaceName };
  });
}
