/**
 * A JupyterLab workspace: Secret with the password's hash, Service, Deployment (its volume is manifests/volume.ts).
 *
 * The hash reaches Jupyter as a configuration file mounted from the Secret and found through JUPYTER_CONFIG_PATH
 * (jupyter_core's search path), so it stands in no command line and in no environment variable.
 */
import type { V1Volume, V1VolumeMount } from '@kubernetes/client-node';
import type { Manifest } from '../kube/kinds.js';
import { JUPYTERLAB_PREFIX } from '../naming.js';
import { type ContainerResources, resourceRequirements } from './resources.js';

const PORT = 8888;
const HOME = '/home/jovyan';
const CONFIG_DIR = '/etc/scrim-jupyter/config';
const TLS_DIR = '/etc/scrim-jupyter/tls';

/** Another volume for the workspace. */
export interface ExtraMount {
  readonly claim: string;
  readonly path: string;
}

/** The Secret with Jupyter's configuration; `passwordHash` is jupyter_server's format (`argon2:$argon2id$…`). */
export function workspaceSecret(spec: {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly passwordHash: string;
  readonly tls: boolean;
}): Manifest<'Secret'> {
  const config = {
    ServerApp: {
      ip: '0.0.0.0',
      port: PORT,
      open_browser: false,
      ...(spec.tls ? { certfile: `${TLS_DIR}/tls.crt`, keyfile: `${TLS_DIR}/tls.key` } : {}),
      // jupyter_server before 2.0 reads the first, later ones the second.
      password: spec.passwordHash,
    },
    PasswordIdentityProvider: { hashed_password: spec.passwordHash },
  };
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: spec.name, labels: { ...spec.labels } },
    type: 'Opaque',
    data: { 'jupyter_server_config.json': Buffer.from(JSON.stringify(config)).toString('base64') },
  };
}

/** The Service: NodePort, or LoadBalancer on port 80 (443 with TLS). */
export function workspaceService(spec: {
  readonly workspace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly loadBalancer: boolean;
  readonly tls: boolean;
}): Manifest<'Service'> {
  const name = `${JUPYTERLAB_PREFIX}${spec.workspace}`;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, labels: { ...spec.labels } },
    spec: {
      type: spec.loadBalancer ? 'LoadBalancer' : 'NodePort',
      selector: { app: name },
      ports: [
        {
          name: spec.tls ? 'https' : 'http',
          port: spec.loadBalancer ? (spec.tls ? 443 : 80) : PORT,
          targetPort: PORT,
          protocol: 'TCP',
        },
      ],
    },
  };
}

/** The Deployment: one pod with the workspace's volume as its home. */
export function workspaceDeployment(spec: {
  readonly workspace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly image: string;
  readonly secret: string;
  readonly tlsSecret?: string;
  readonly mounts?: readonly ExtraMount[];
  readonly resources?: ContainerResources;
}): Manifest<'Deployment'> {
  const name = `${JUPYTERLAB_PREFIX}${spec.workspace}`;
  const extra = spec.mounts ?? [];
  const volumes: V1Volume[] = [
    { name: 'workspace', persistentVolumeClaim: { claimName: name } },
    { name: 'jupyter-config', secret: { secretName: spec.secret, defaultMode: 0o440 } },
    ...(spec.tlsSecret === undefined
      ? []
      : [{ name: 'jupyter-tls', secret: { secretName: spec.tlsSecret, defaultMode: 0o440 } }]),
    ...extra.map(({ claim }, index) => ({
      name: index === 0 ? 'uservol' : `uservol-${index}`,
      persistentVolumeClaim: { claimName: claim },
    })),
  ];
  const volumeMounts: V1VolumeMount[] = [
    { name: 'workspace', mountPath: HOME },
    { name: 'jupyter-config', mountPath: CONFIG_DIR, readOnly: true },
    ...(spec.tlsSecret === undefined ? [] : [{ name: 'jupyter-tls', mountPath: TLS_DIR, readOnly: true }]),
    ...extra.map(({ path }, index) => ({ name: index === 0 ? 'uservol' : `uservol-${index}`, mountPath: path })),
  ];
  const resources = resourceRequirements(spec.resources ?? {});
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, labels: { ...spec.labels } },
    spec: {
      replicas: 1,
      // Two pods at once would write to one home; the old one goes first.
      strategy: { type: 'Recreate' },
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { ...spec.labels } },
        spec: {
          automountServiceAccountToken: false,
          // jovyan of Jupyter's images; the group lets it write to its volumes.
          securityContext: {
            runAsNonRoot: true,
            runAsUser: 1000,
            runAsGroup: 100,
            fsGroup: 100,
            fsGroupChangePolicy: 'OnRootMismatch',
            seccompProfile: { type: 'RuntimeDefault' },
          },
          volumes,
          containers: [
            {
              name: 'jupyterlab',
              image: spec.image,
              args: ['start-notebook.sh', '--no-browser'],
              env: [
                { name: 'JUPYTER_ENABLE_LAB', value: 'yes' },
                { name: 'RESTARTABLE', value: 'yes' },
                { name: 'JUPYTER_CONFIG_PATH', value: CONFIG_DIR },
              ],
              ports: [{ name: 'http', containerPort: PORT, protocol: 'TCP' }],
              readinessProbe: { tcpSocket: { port: PORT }, periodSeconds: 3 },
              securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
              volumeMounts,
              ...(resources === undefined ? {} : { resources }),
            },
          ],
        },
      },
    },
  };
}
