/**
 * Objects for S3 transfers: Secret with keys, ConfigMap with a CA certificate, and the Job that moves the data.
 *
 * The Job runs rclone: it takes the keys from environment variables that Kubernetes fills from the Secret, compares
 * checksums, moves only what differs and goes on where it stopped. No shell is involved, so no name needs quoting.
 */
import type { V1EnvVar, V1JobSpec, V1Volume, V1VolumeMount } from '@kubernetes/client-node';
import type { Manifest } from '../kube/kinds.js';
import { operationLabels } from './labels.js';

/** Where the volume is mounted in a transfer's pod. */
export const DATA_DIR = '/mnt/data';
const CA_DIR = '/mnt/ca';

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
  readonly claim: string;
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

/** A Job's specification that runs rclone once with `args`; 's3:' is the server, {@link DATA_DIR} the volume. */
export function transferJobSpec(
  settings: S3Settings,
  args: readonly string[],
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
    { name: 'data', persistentVolumeClaim: { claimName: settings.claim } },
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
        containers: [
          {
            name: 'transfer',
            image: settings.image,
            command: ['rclone'],
            args: [...args, '--checksum', '--stats=10s', '--stats-one-line', '--verbose', ...trust],
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
          },
        ],
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
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, labels },
    spec: transferJobSpec(settings, args, { ...labels, 'scrim.dev/job': name }),
  };
}
