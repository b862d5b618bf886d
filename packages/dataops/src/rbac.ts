/**
 * Least rights: what each command asks the API server for, and the Roles that grant just that.
 *
 * deploy/rbac.yaml is written from this table, and the cluster tests take the rights away one by one. Rights marked
 * 'rollback' are used only when a command fails: to remove what it made. 'optional' ones
 * are used in some cases only: nodes for addresses, snapshots where workspaces are clones, Trident's in-place restore,
 * pods where a class makes a volume for a pod alone,
 * watching a Service whose load balancer is still to come.
 */
import type { V1ClusterRole } from '@kubernetes/client-node';

/** Some verbs on one resource. */
export interface AccessRule {
  /** '' for the core group. */
  readonly group: string;
  readonly resource: string;
  readonly verbs: readonly string[];
  /** Resources outside namespaces need a ClusterRoleBinding, those of Trident a RoleBinding in its namespace. */
  readonly scope?: 'cluster' | 'trident';
  readonly use?: 'rollback' | 'optional';
}

const rule = (group: string, resource: string, verbs: string, use?: AccessRule['use']): AccessRule => ({
  group,
  resource,
  verbs: verbs.split(' '),
  ...(use === undefined ? {} : { use }),
});
const claims = (verbs: string, use?: AccessRule['use']): AccessRule => rule('', 'persistentvolumeclaims', verbs, use);
const snapshots = (verbs: string, use?: AccessRule['use']): AccessRule =>
  rule('snapshot.storage.k8s.io', 'volumesnapshots', verbs, use);
const deployments = (verbs: string, use?: AccessRule['use']): AccessRule => rule('apps', 'deployments', verbs, use);
const services = (verbs: string, use?: AccessRule['use']): AccessRule => rule('', 'services', verbs, use);
const secrets = (verbs: string, use?: AccessRule['use']): AccessRule => rule('', 'secrets', verbs, use);
const volumes = (verbs: string, use?: AccessRule['use']): AccessRule => ({
  ...rule('', 'persistentvolumes', verbs, use),
  scope: 'cluster',
});
/** What FlexCache commands read of Trident's backend. */
const backend: readonly AccessRule[] = [
  { ...rule('trident.netapp.io', 'tridentbackendconfigs', 'get'), scope: 'trident' },
  { ...rule('', 'secrets', 'get'), scope: 'trident' },
];
const nodes: AccessRule = { ...rule('', 'nodes', 'list', 'optional'), scope: 'cluster' };
const events = rule('', 'events', 'list watch');
const pods = rule('', 'pods', 'list watch');

const MAKE = 'get create patch';
const MAKE_AND_WAIT = 'get create patch list watch';
const REMOVE = 'get delete list watch';

/** What each command needs; the names are the command line's. */
export const COMMAND_RULES: Readonly<Record<string, readonly AccessRule[]>> = {
  'create-volume': [claims(MAKE_AND_WAIT), events, claims('delete', 'rollback')],
  'clone-volume': [claims(MAKE_AND_WAIT), snapshots(`${MAKE_AND_WAIT} delete`), events, claims('delete', 'rollback')],
  'list-volumes': [claims('list'), snapshots('list')],
  'delete-volume': [claims(REMOVE), snapshots(REMOVE), rule('', 'pods', 'list')],
  'create-volume-snapshot': [claims('get'), snapshots(MAKE_AND_WAIT), events, snapshots('delete', 'rollback')],
  'list-volume-snapshots': [claims('list'), snapshots('list')],
  'delete-volume-snapshot': [snapshots(REMOVE)],
  'restore-volume-snapshot': [
    claims(`${MAKE_AND_WAIT} delete`),
    snapshots('get'),
    snapshots('list', 'optional'),
    rule('', 'pods', `${MAKE_AND_WAIT} delete`, 'optional'),
    events,
    rule('', 'pods', 'list'),
    volumes('get list watch patch'),
    volumes('delete', 'rollback'),
    rule('trident.netapp.io', 'tridentactionsnapshotrestores', `${MAKE_AND_WAIT} delete`, 'optional'),
  ],
  'create-flexcache': [
    claims(MAKE_AND_WAIT),
    events,
    volumes(MAKE_AND_WAIT),
    ...backend,
    claims('delete', 'rollback'),
    volumes('delete', 'rollback'),
  ],
  'delete-flexcache': [claims(REMOVE), rule('', 'pods', 'list'), volumes(REMOVE), ...backend],
  'create-jupyterlab': [
    claims(MAKE_AND_WAIT),
    events,
    services(`${MAKE} list`),
    services('watch', 'optional'),
    secrets(MAKE),
    deployments(MAKE_AND_WAIT),
    pods,
    nodes,
    claims('delete', 'rollback'),
    services('delete', 'rollback'),
    secrets('delete', 'rollback'),
    deployments('delete', 'rollback'),
  ],
  'clone-jupyterlab': [
    claims(MAKE_AND_WAIT),
    snapshots(`${MAKE_AND_WAIT} delete`),
    events,
    services(`${MAKE} list`),
    services('watch', 'optional'),
    secrets(MAKE),
    deployments(MAKE_AND_WAIT),
    pods,
    nodes,
    claims('delete', 'rollback'),
    services('delete', 'rollback'),
    secrets('delete', 'rollback'),
    deployments('delete', 'rollback'),
  ],
  'list-jupyterlabs': [deployments('list'), services('list'), claims('list'), snapshots('list', 'optional'), nodes],
  'delete-jupyterlab': [
    deployments(REMOVE),
    services(REMOVE),
    secrets('get delete list'),
    claims(REMOVE),
    snapshots(REMOVE),
  ],
  'create-jupyterlab-snapshot': [claims('get'), snapshots(MAKE_AND_WAIT), events, snapshots('delete', 'rollback')],
  'list-jupyterlab-snapshots': [claims('list'), snapshots('list')],
  'restore-jupyterlab-snapshot': [
    claims(`${MAKE_AND_WAIT} delete`),
    snapshots('get'),
    snapshots('list', 'optional'),
    rule('', 'pods', `${MAKE_AND_WAIT} delete`, 'optional'),
    events,
    pods,
    deployments('get list watch'),
    rule('apps', 'deployments/scale', 'patch'),
    volumes('get list watch patch'),
    volumes('delete', 'rollback'),
    rule('trident.netapp.io', 'tridentactionsnapshotrestores', `${MAKE_AND_WAIT} delete`, 'optional'),
  ],
  'create-triton-server': [
    claims('get'),
    services(`${MAKE} list`),
    services('watch', 'optional'),
    deployments(MAKE_AND_WAIT),
    pods,
    nodes,
    rule('autoscaling', 'horizontalpodautoscalers', MAKE, 'optional'),
    services('delete', 'rollback'),
    deployments('delete', 'rollback'),
  ],
  'list-triton-servers': [deployments('list'), services('list'), nodes],
  'delete-triton-server': [deployments(REMOVE), services(REMOVE)],
  'create-s3-secret': [secrets(MAKE)],
  'delete-s3-secret': [secrets(REMOVE)],
  'create-ca-config-map': [rule('', 'configmaps', MAKE)],
  'delete-ca-config-map': [rule('', 'configmaps', REMOVE)],
  'transfer-s3': [claims('get'), rule('batch', 'jobs', MAKE)],
  'wait-s3-job': [rule('batch', 'jobs', 'list watch'), pods],
  'show-s3-job': [rule('batch', 'jobs', 'get'), rule('', 'pods', 'list')],
  'delete-s3-job': [rule('batch', 'jobs', REMOVE)],
  sync: [claims('get'), rule('batch', 'jobs', MAKE)],
  'sync-follow': [claims('get'), rule('batch', 'jobs', MAKE_AND_WAIT), pods, rule('', 'pods/log', 'get', 'optional')],
  'sync-schedule': [claims('get'), rule('batch', 'cronjobs', MAKE)],
  'list-syncs': [rule('batch', 'cronjobs', 'list')],
  'delete-sync': [rule('batch', 'cronjobs', REMOVE)],
  'run-batch-inference': [
    claims('get'),
    rule('batch', 'jobs', MAKE_AND_WAIT),
    pods,
    rule('', 'pods/log', 'get'),
    rule('batch', 'jobs', 'delete', 'rollback'),
  ],
  'create-inference-service': [
    claims('get'),
    rule('serving.kserve.io', 'inferenceservices', MAKE_AND_WAIT),
    rule('serving.kserve.io', 'inferenceservices', 'delete', 'rollback'),
  ],
  'list-inference-services': [rule('serving.kserve.io', 'inferenceservices', 'list')],
  'delete-inference-service': [rule('serving.kserve.io', 'inferenceservices', REMOVE)],
  // Opening a command's streams is 'get' on older servers and 'create' too from 1.35 on.
  'repo-push': [claims('get'), rule('', 'pods', `${MAKE_AND_WAIT} delete`), rule('', 'pods/exec', 'get create')],
};

/**
 * The ClusterRoles of a command: `scrim-<command>` to be bound in a namespace by a RoleBinding, and, where it looks
 * outside namespaces, `scrim-<command>-cluster` to be bound by a ClusterRoleBinding; `scrim-<command>-trident`, to be
 * bound in Trident's namespace, where it reads Trident's backend.
 */
export function clusterRoles(
  command: string,
  rules: readonly AccessRule[] = COMMAND_RULES[command] ?? [],
): V1ClusterRole[] {
  const role = (name: string, scope: AccessRule['scope']): V1ClusterRole => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name },
    rules: rules
      .filter((entry) => entry.scope === scope && entry.verbs.length > 0)
      .map(({ group, resource, verbs }) => ({ apiGroups: [group], resources: [resource], verbs: [...verbs] })),
  });
  const needed = (scope: AccessRule['scope']): boolean => rules.some((entry) => entry.scope === scope);
  return [
    role(`scrim-${command}`, undefined),
    ...(['cluster', 'trident'] as const).filter(needed).map((scope) => role(`scrim-${command}-${scope}`, scope)),
  ];
}
