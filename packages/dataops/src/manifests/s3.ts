/**
 * Objects for S3 transfers: Secret with keys, ConfigMap with a CA certificate, and the Job that moves the data.
 *
 * The Job runs rclone: it takes the keys from environment variables that Kubernetes fills from the Secret, moves only
 * what differs, verifies the checksum of what it moved and goes on where it stopped. What differs is told by size and
 * time, then by checksum: by checksum alone, a changed object of the same size that was uploaded in parts, and so has
 * none, would be missed. No shell is involved, so no name needs quoting.
 */
import type { V1Container, V1EnvVar, V1JobSpec, V1Volume, V1VolumeMount } from '@kubernetes/client-node';
import type { Manifest } from '../kube/kinds.js';
import { labelValue } from '../naming.js';
import { operationLabels } from './labels.js';

/** Where the volume is mounted in a transfer's pod. */
export const DATA_DIR = '/mnt/data';
const CA_DIR = '/mnt/ca';
/** The Job tries again itself, and shows it; rclone's own tries would hide a wrong address or certificate for minutes. */
const RETRIES = ['--low-level-retries=3', '--retries=2'];

/** A Secret with S3 keys, under the names the toolkit uses. */
export function s3Secret(name: string, accessKey: string, secretKey: string): Manifest<'Secret'> {
  const encode = (text: string): string => Buffer.from(text).toString('base64');
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, labels: operationLabels('s3configsecret-create') },
    type: 'Opaque',
    data: { access_key: encode(accessKey), secret_key: encode(secretKey) },
  };
}

/** A ConfigMap with a CA certificate (PEM), under the key the toolkit uses. */
export function caConfigMap(name: string, certificate: string): Manifest<'ConfigMap'> {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, labels: operationLabels('caconfigmap-create') },
    data: { ca_cert: certificate },
  };
}

/** How the S3 server is reached, and with what the pod runs. */
export interface S3Settings {
  /** Scheme, host and port, such as 'https://s3.example.com:9000'. */
  readonly endpoint: string;
  readonly credentialsSecret: string;
  /** The volume: a claim, or a folder that an NFS server exports. */
  readonly volume: string | { readonly server: string; readonly path: string };
  readonly image: string;
  /** False accepts any certificate. */
  readonly verifyCertificates: boolean;
  readonly caConfigMaps: readonly string[];
  readonly requests?: Readonly<Record<string, string>>;
  readonly limits?: Readonly<Record<string, string>>;
  /** User and group that write the files. */
  readonly runAsUser: number;
  readonly runAsGroup: number;
}

/** One run of rclone: the container's name and the arguments; 's3:' is the server, {@link DATA_DIR} the volume. */
export interface TransferPass {
  readonly container: string;
  readonly args: readonly string[];
}

/** A Job's specification that runs rclone once for each pass, one after another. */
export function transferJobSpec(
  settings: S3Settings,
  passes: readonly TransferPass[],
  labels: Readonly<Record<string, string>>,
): V1JobSpec {
  const fromSecret = (name: string, key: string): V1EnvVar => ({
    name,
    valueFrom: { secretKeyRef: { name: settings.credentialsSecret, key } },
  });
  const env: V1EnvVar[] = [
    { name: 'RCLONE_CONFIG_S3_TYPE', value: 's3' },
    { name: 'RCLONE_CONFIG_S3_PROVIDER', value: 'Other' },
    { name: 'RCLONE_CONFIG_S3_ENDPOINT', value: settings.endpoint },
    { name: 'RCLONE_CONFIG_S3_NO_CHECK_BUCKET', value: 'true' },
    fromSecret('RCLONE_CONFIG_S3_ACCESS_KEY_ID', 'access_key'),
    fromSecret('RCLONE_CONFIG_S3_SECRET_ACCESS_KEY', 'secret_key'),
    { name: 'RCLONE_CONFIG', value: '/tmp/rclone.conf' },
    { name: 'RCLONE_CACHE_DIR', value: '/tmp/rclone' },
  ];
  const volumes: V1Volume[] = [
    typeof settings.volume === 'string'
      ? { name: 'data', persistentVolumeClaim: { claimName: settings.volume } }
      : { name: 'data', nfs: { ...settings.volume } },
    { name: 'tmp', emptyDir: {} },
    ...settings.caConfigMaps.map((name, index) => ({
      name: `ca-config-map-${index}`,
      configMap: { name, items: [{ key: 'ca_cert', path: 'ca.crt' }] },
    })),
  ];
  const volumeMounts: V1VolumeMount[] = [
    { name: 'data', mountPath: DATA_DIR },
    { name: 'tmp', mountPath: '/tmp' },
    ...settings.caConfigMaps.map((_, index) => ({
      name: `ca-config-map-${index}`,
      mountPath: `${CA_DIR}/${index}`,
      readOnly: true,
    })),
  ];
  const certificates = settings.caConfigMaps.map((_, index) => `--ca-cert=${CA_DIR}/${index}/ca.crt`);
  const trust = settings.verifyCertificates ? certificates : ['--no-check-certificate'];
  const { requests, limits } = settings;
  const containers = passes.map(
    ({ container, args }): V1Container => ({
      name: container,
      image: settings.image,
      command: ['rclone'],
      args: [...args, ...RETRIES, ...trust],
      env,
      volumeMounts,
      securityContext: {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      },
      ...(requests === undefined && limits === undefined
        ? {}
        : {
            resources: {
              ...(requests === undefined ? {} : { requests: { ...requests } }),
              ...(limits === undefined ? {} : { limits: { ...limits } }),
            },
          }),
    }),
  );
  const initContainers = containers.slice(0, -1);
  return {
    backoffLimit: 5,
    template: {
      metadata: { labels: { ...labels } },
      spec: {
        restartPolicy: 'Never',
        automountServiceAccountToken: false,
        securityContext: {
          runAsNonRoot: true,
          runAsUser: settings.runAsUser,
          runAsGroup: settings.runAsGroup,
          fsGroup: settings.runAsGroup,
          fsGroupChangePolicy: 'OnRootMismatch',
          seccompProfile: { type: 'RuntimeDefault' },
        },
        volumes,
        ...(initContainers.length === 0 ? {} : { initContainers }),
        containers: containers.slice(-1),
      },
    },
  };
}

/** A transfer that runs once. */
export function transferJob(
  name: string,
  operation: string,
  settings: S3Settings,
  args: readonly string[],
): Manifest<'Job'> {
  const labels = operationLabels(operation);
  const passes = [{ container: 'transfer', args: [...args, '--stats=10s', '--stats-one-line', '--verbose'] }];
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, labels },
    spec: transferJobSpec(settings, passes, { ...labels, 'scrim.dev/job': name }),
  };
}

/** What a synchronisation does, besides where. */
export interface SyncPlan {
  readonly name: string;
  /** rclone's source and destination. */
  readonly source: string;
  readonly destination: string;
  /** Removes from the destination what the source does not have. */
  readonly deleteExtra: boolean;
  /** A second pass compares the checksum of every file. */
  readonly verify: boolean;
}

/** rclone's runs for a plan: what changed moves; then every checksum is compared, and what differs moves again. */
function syncPasses({ source, destination, deleteExtra, verify }: SyncPlan): readonly TransferPass[] {
  const args = [
    deleteExtra ? 'sync' : 'copy',
    source,
    destination,
    '--transfers=8',
    '--checkers=16',
    '--use-json-log',
    '--stats=5s',
    '--stats-log-level=NOTICE',
  ];
  return [{ container: 'transfer', args }, ...(verify ? [{ container: 'verify', args: [...args, '--checksum'] }] : [])];
}

/** A synchronisation that runs once. */
export function syncJob(plan: SyncPlan, settings: S3Settings): Manifest<'Job'> {
  const labels = { ...operationLabels('sync'), 'scrim.dev/job': plan.name };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: plan.name, labels },
    spec: transferJobSpec(settings, syncPasses(plan), labels),
  };
}

/** A synchronisation by schedule: one run at a time, the last three of each outcome kept. */
export function syncCronJob(
  plan: SyncPlan,
  settings: S3Settings,
  when: { readonly schedule: string; readonly timeZone?: string },
): Manifest<'CronJob'> {
  const labels = { ...operationLabels('sync'), 'scrim.dev/sync': labelValue(plan.name) };
  return {
    apiVersion: 'batch/v1',
    kind: 'CronJob',
    metadata: { name: plan.name, labels },
    spec: {
      schedule: when.schedule,
      ...(when.timeZone === undefined ? {} : { timeZone: when.timeZone }),
      concurrencyPolicy: 'Forbid',
      startingDeadlineSeconds: 600,
      successfulJobsHistoryLimit: 3,
      failedJobsHistoryLimit: 3,
      jobTemplate: { metadata: { labels }, spec: transferJobSpec(settings, syncPasses(plan), labels) },
    },
  };
}
