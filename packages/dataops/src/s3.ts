/** S3: Secrets with keys, CA certificates, Jobs that move buckets and objects to and from volumes. */
import type { V1JobCondition } from '@kubernetes/client-node';
import { ScrimError } from 'scrim';
import { assertArgument } from './argument.js';
import { diagnosePod, Patience } from './diagnose.js';
import type { KubeClient } from './kube/client.js';
import type { KindMap } from './kube/kinds.js';
import { caConfigMap, DATA_DIR, type S3Settings, s3Secret, transferJob } from './manifests/s3.js';
import { checkName, checkQuantity, uniqueSuffix } from './naming.js';
import { type Operation, type OperationOptions, runOperation } from './operation.js';
import type { WithManifests } from './snapshots.js';

/** Image of the transfer Jobs nobody chose one for; it has to contain rclone. */
export const DEFAULT_TRANSFER_IMAGE = 'docker.io/rclone/rclone:1.68.2';

/** Keeps S3 keys in a Secret. @throws ALREADY_EXISTS */
export async function createS3Secret(
  client: KubeClient,
  options: OperationOptions & { readonly secretName: string; readonly accessKey: string; readonly secretKey: string },
): Promise<WithManifests> {
  checkName('secretName', options.secretName);
  assertArgument(options.accessKey !== '', 'accessKey is empty');
  assertArgument(options.secretKey !== '', 'secretKey is empty');
  return runOperation(client, options, async (operation) => {
    await operation.create(s3Secret(options.secretName, options.accessKey, options.secretKey));
    return { manifests: operation.manifests };
  });
}

/** Deletes a Secret. @throws NOT_FOUND */
export async function deleteS3Secret(
  client: KubeClient,
  options: OperationOptions & { readonly secretName: string },
): Promise<void> {
  await deleteOne(client, options, 'Secret', 'secretName', options.secretName);
}

/** Keeps a CA certificate in a ConfigMap. `certificate` is PEM. @throws ALREADY_EXISTS, INVALID_ARGUMENT */
export async function createCaConfigMap(
  client: KubeClient,
  options: OperationOptions & { readonly configMapName: string; readonly certificate: string },
): Promise<WithManifests> {
  checkName('configMapName', options.configMapName);
  assertArgument(
    options.certificate.includes('-----BEGIN CERTIFICATE-----'),
    'certificate holds no PEM certificate (-----BEGIN CERTIFICATE-----)',
  );
  assertArgument(!options.certificate.includes('PRIVATE KEY'), 'certificate holds a private key: leave that out');
  return runOperation(client, options, async (operation) => {
    await operation.create(caConfigMap(options.configMapName, options.certificate));
    return { manifests: operation.manifests };
  });
}

/** Deletes a ConfigMap. @throws NOT_FOUND */
export async function deleteCaConfigMap(
  client: KubeClient,
  options: OperationOptions & { readonly configMapName: string },
): Promise<void> {
  await deleteOne(client, options, 'ConfigMap', 'configMapName', options.configMapName);
}

async function deleteOne(
  client: KubeClient,
  options: OperationOptions,
  kind: 'Secret' | 'ConfigMap' | 'Job',
  argument: string,
  name: string,
): Promise<void> {
  checkName(argument, name);
  await runOperation(client, options, async (operation) => {
    const { namespace } = operation;
    operation.emit({ type: 'deleting', kind, name, namespace });
    if (!(await operation.remove(kind, name))) {
      throw new ScrimError('NOT_FOUND', `${kind} '${name}' does not exist in namespace '${namespace}'`);
    }
    operation.emit({ type: 'deleted', kind, name, namespace });
  });
}

/** How the S3 server is reached, and with what the transfer's pod runs. */
export interface S3ServerOptions extends OperationOptions {
  /** Host name or address of the S3 server. */
  readonly host: string;
  /** Default: 443, or 80 without HTTPS. */
  readonly port?: number;
  /** Default: true. */
  readonly useHttps?: boolean;
  /** Default: true. */
  readonly verifyCertificates?: boolean;
  /** ConfigMaps with CA certificates to trust. */
  readonly caConfigMaps?: readonly string[];
  readonly bucketName: string;
  readonly credentialsSecret: string;
  readonly image?: string;
  readonly requests?: Readonly<Record<string, string>>;
  readonly limits?: Readonly<Record<string, string>>;
  /** User and group the files get; default 1000 and 100, those of Jupyter's images. */
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
}

/** What all transfers take. */
export interface S3TransferOptions extends S3ServerOptions {
  readonly pvcName: string;
}

/** A Job that was started. */
export interface S3JobResult extends WithManifests {
  readonly jobName: string;
}

/** Copies a bucket's objects into a volume, or into `pvcDir` of it. Starts the Job and returns. */
export async function getS3Bucket(
  client: KubeClient,
  options: S3TransferOptions & { readonly pvcDir?: string },
): Promise<S3JobResult> {
  const directory = onVolume('pvcDir', options.pvcDir ?? '');
  return start(client, options, 'get-bucket', ['copy', `s3:${options.bucketName}`, directory]);
}

/** Copies a volume's files, or those of `pvcDir`, into a bucket. Starts the Job and returns. */
export async function putS3Bucket(
  client: KubeClient,
  options: S3TransferOptions & { readonly pvcDir?: string },
): Promise<S3JobResult> {
  const directory = onVolume('pvcDir', options.pvcDir ?? '');
  return start(client, options, 'put-bucket', ['copy', directory, `s3:${options.bucketName}`]);
}

/** Copies one object to `fileLocation` on a volume; default: under the object's key. */
export async function getS3Object(
  client: KubeClient,
  options: S3TransferOptions & { readonly objectKey: string; readonly fileLocation?: string },
): Promise<S3JobResult> {
  const file = onVolume('fileLocation', options.fileLocation ?? options.objectKey);
  return start(client, options, 'get-object', ['copyto', objectPath(options, options.objectKey), file]);
}

/** Copies one file of a volume to an object; default key: the file's path. */
export async function putS3Object(
  client: KubeClient,
  options: S3TransferOptions & { readonly fileLocation: string; readonly objectKey?: string },
): Promise<S3JobResult> {
  const file = onVolume('fileLocation', options.fileLocation);
  return start(client, options, 'put-object', [
    'copyto',
    file,
    objectPath(options, options.objectKey ?? options.fileLocation),
  ]);
}

function objectPath({ bucketName }: S3TransferOptions, key: string): string {
  assertArgument(key !== '' && !key.endsWith('/'), `objectKey is '${key}', expected the key of one object`);
  return `s3:${bucketName}/${key.replace(/^\/+/, '')}`;
}

/** A path on the volume, as the pod sees it. @throws INVALID_ARGUMENT where it would leave the volume */
export function onVolume(argument: string, path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  assertArgument(!parts.includes('..'), `${argument} is '${path}', expected a path that stays on the volume`);
  return [DATA_DIR, ...parts].join('/');
}

const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const HOST = /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$|^\[[0-9A-Fa-f:.]+\]$/;

/** Checks a transfer's arguments and completes them. @throws INVALID_ARGUMENT */
export function s3Settings(options: S3ServerOptions, volume: S3Settings['volume']): S3Settings {
  assertArgument(
    BUCKET.test(options.bucketName),
    `bucketName is '${options.bucketName}', expected the name of a bucket`,
  );
  assertArgument(
    HOST.test(options.host),
    `host is '${options.host}', expected a host name or address without scheme or port`,
  );
  const { port } = options;
  assertArgument(port === undefined || (port > 0 && port < 65_536), `port is ${port}, expected 1 to 65535`);
  if (typeof volume === 'string') checkName('pvcName', volume);
  checkName('credentialsSecret', options.credentialsSecret);
  for (const name of options.caConfigMaps ?? []) checkName('caConfigMaps', name);
  for (const amount of Object.values({ ...options.requests, ...options.limits })) checkQuantity('a resource', amount);
  const scheme = (options.useHttps ?? true) ? 'https' : 'http';
  const { requests, limits } = options;
  return {
    endpoint: `${scheme}://${options.host}${port === undefined ? '' : `:${port}`}`,
    credentialsSecret: options.credentialsSecret,
    volume,
    image: options.image ?? DEFAULT_TRANSFER_IMAGE,
    verifyCertificates: options.verifyCertificates ?? true,
    caConfigMaps: options.caConfigMaps ?? [],
    runAsUser: options.runAsUser ?? 1000,
    runAsGroup: options.runAsGroup ?? 100,
    ...(requests === undefined ? {} : { requests }),
    ...(limits === undefined ? {} : { limits }),
  };
}

async function start(
  client: KubeClient,
  options: S3TransferOptions,
  operationName: string,
  args: readonly string[],
): Promise<S3JobResult> {
  const settings = s3Settings(options, options.pvcName);
  return runOperation(client, options, async (operation) => {
    if (operation.dryRun !== 'client') {
      const { namespace, signal } = operation;
      await client.get('PersistentVolumeClaim', namespace, options.pvcName, signal);
    }
    const jobName = `s3mover-${operationName}-${uniqueSuffix()}`;
    await operation.create(transferJob(jobName, operationName, settings, args));
    return { jobName, manifests: operation.manifests };
  });
}

/** How a Job stands. */
export interface JobStatus {
  readonly name: string;
  readonly state: 'active' | 'succeeded' | 'failed';
  readonly active: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly startTime?: string;
  readonly completionTime?: string;
  readonly conditions: readonly {
    readonly type: string;
    readonly status: string;
    readonly reason?: string;
    readonly message?: string;
  }[];
  /** What keeps its pods from running, such as an image that can't be pulled. */
  readonly problem?: string;
}

/** Reads how a Job stands. @throws NOT_FOUND */
export async function showS3Job(
  client: KubeClient,
  options: OperationOptions & { readonly jobName: string },
): Promise<JobStatus> {
  const { jobName } = options;
  checkName('jobName', jobName);
  return runOperation(client, options, async ({ namespace, signal }) => {
    const [job, pods] = await Promise.all([
      client.get('Job', namespace, jobName, signal),
      client.list('Pod', { namespace, labelSelector: `job-name=${jobName}` }, signal),
    ]);
    return jobStatus(job, pods.items);
  });
}

/** How `job` stands, with what its pods say. */
export function jobStatus(job: KindMap['Job'], pods: readonly KindMap['Pod'][]): JobStatus {
  const { active = 0, succeeded = 0, failed = 0, conditions = [], startTime, completionTime } = job.status ?? {};
  const has = (type: string): boolean =>
    conditions.some((condition: V1JobCondition) => condition.type === type && condition.status === 'True');
  const state = has('Complete') ? 'succeeded' : has('Failed') ? 'failed' : 'active';
  const finding = state === 'active' ? pods.map(diagnosePod).find((found) => found !== undefined) : undefined;
  return {
    name: job.metadata?.name ?? '',
    state,
    active,
    succeeded,
    failed,
    conditions: conditions.map(({ type, status, reason, message }) => ({
      type,
      status,
      ...(reason === undefined ? {} : { reason }),
      ...(message === undefined ? {} : { message }),
    })),
    ...(startTime === undefined ? {} : { startTime: String(startTime) }),
    ...(completionTime === undefined ? {} : { completionTime: String(completionTime) }),
    ...(finding === undefined ? {} : { problem: `${finding.reason}: ${finding.message}` }),
  };
}

/** Waits until a Job has succeeded. @throws UNAVAILABLE with reason 'JobFailed', NOT_FOUND (image), RESOURCE_EXHAUSTED */
export async function waitForS3Job(
  client: KubeClient,
  options: OperationOptions & { readonly jobName: string },
): Promise<JobStatus> {
  checkName('jobName', options.jobName);
  return runOperation(client, options, (operation) => waitForJob(operation, options.jobName));
}

/** Waits for a Job within a larger operation. */
export async function waitForJob(operation: Operation, name: string): Promise<JobStatus> {
  operation.emit({ type: 'waiting', kind: 'Job', name, namespace: operation.namespace });
  const patience = new Patience(operation.stallMs);
  return operation.waitFor(
    `Job '${name}' to end`,
    { jobs: { kind: 'Job', name }, pods: { kind: 'Pod', labels: `job-name=${name}` } },
    ({ jobs, pods }, elapsedMs) => {
      const job = jobs?.[0];
      if (jobs !== undefined && job === undefined) {
        throw new ScrimError('NOT_FOUND', `Job '${name}' does not exist in namespace '${operation.namespace}'`);
      }
      if (job === undefined || pods === undefined) return undefined;
      const status = jobStatus(job, pods);
      if (status.state === 'succeeded') return status;
      if (status.state === 'failed') {
        const { reason = 'Failed', message = '' } = status.conditions.find(({ type }) => type === 'Failed') ?? {};
        throw new ScrimError('UNAVAILABLE', `Job '${name}' failed: ${reason}: ${message}`, {
          details: { reason: 'JobFailed' },
        });
      }
      patience.judge(
        pods.map(diagnosePod).find((found) => found !== undefined),
        `Job '${name}' does not run`,
        elapsedMs,
      );
      return undefined;
    },
  );
}

/** Deletes a Job and its pods. @throws NOT_FOUND */
export async function deleteS3Job(
  client: KubeClient,
  options: OperationOptions & { readonly jobName: string },
): Promise<void> {
  await deleteOne(client, options, 'Job', 'jobName', options.jobName);
}
