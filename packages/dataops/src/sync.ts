/**
 * Synchronisation between S3-compatible storage and a volume or an exported folder, once (a Job) or by schedule (a
 * CronJob): TR-4928's "Copy and Sync". rclone does the work inside the pod; manifests/s3.ts says how it is run. Only
 * what changed moves; a run that was interrupted goes on, file by file, when its Job tries again.
 */
import { ScrimError } from 'scrim';
import { assertArgument } from './argument.js';
import { followJobs, type PodLogLine } from './job-logs.js';
import type { KubeClient } from './kube/client.js';
import { type S3Settings, type SyncPlan, syncCronJob, syncJob } from './manifests/s3.js';
import { checkName, shorten, uniqueSuffix } from './naming.js';
import { type OperationOptions, runOperation } from './operation.js';
import { onVolume, type S3ServerOptions, s3Settings } from './s3.js';
import type { WithManifests } from './snapshots.js';

/** CronJob names become parts of Job names, so Kubernetes allows 52 characters. */
const LONGEST_NAME = 52;
const CRON_JOBS_BEFORE_1_21 = 'batch/v1beta1';

/** Arguments of {@link syncS3}. */
export interface SyncS3Options extends S3ServerOptions {
  readonly direction: 'from-s3' | 'to-s3';
  /** The other side: a claim, or a folder that an NFS server exports. */
  readonly volume: S3Settings['volume'];
  /** Directory of the volume; default: its root. */
  readonly directory?: string;
  /** Part of the bucket; default: all of it. */
  readonly prefix?: string;
  /** Also removes from the destination what the source does not have; default: leaves it there. */
  readonly deleteExtra?: boolean;
  /** Compares the checksum of every file in a second pass, and moves again what differs; default: true. */
  readonly verify?: boolean;
  /** Runs again and again, such as '*\/15 * * * *' or '@daily'; default: once, now. */
  readonly schedule?: string;
  /** Zone of the schedule, such as 'Europe/Berlin' (Kubernetes 1.27 or later); default: the cluster's. */
  readonly timeZone?: string;
  /** Name of the Job or CronJob; default: made from the names of bucket and volume. */
  readonly name?: string;
}

/** A synchronisation that was started or scheduled. */
export interface SyncResult extends WithManifests {
  /** Name of the Job, or of the CronJob. */
  readonly name: string;
  readonly schedule?: string;
}

const FIELD = String.raw`(?:\*|[0-9A-Za-z]+(?:-[0-9A-Za-z]+)?)(?:/\d+)?`;
const SCHEDULE = new RegExp(
  String.raw`^(?:@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)|${FIELD}(?:,${FIELD})*(?:\s+${FIELD}(?:,${FIELD})*){4})$`,
);

/**
 * Starts or schedules a synchronisation and returns; {@link waitForSync} waits for one that runs once.
 *
 * @throws NOT_FOUND where the claim does not exist, ALREADY_EXISTS, INVALID_ARGUMENT
 */
export async function syncS3(client: KubeClient, options: SyncS3Options): Promise<SyncResult> {
  const { schedule, timeZone, volume, direction } = options;
  if (schedule !== undefined) {
    assertArgument(
      SCHEDULE.test(schedule.trim()),
      `schedule is '${schedule}', expected five fields such as '*/15 * * * *', or @hourly, @daily, @weekly, @monthly`,
    );
  }
  assertArgument(timeZone === undefined || schedule !== undefined, 'timeZone is given without a schedule');
  if (typeof volume !== 'string') checkExport(volume);
  const settings = s3Settings(options, volume);
  const bucket = bucketPath(options);
  const directory = onVolume('directory', options.directory ?? '');
  const name = options.name ?? defaultName(options);
  checkName('name', name);
  assertArgument(
    name.length <= LONGEST_NAME && !name.includes('.'),
    `name is '${name}', expected at most ${LONGEST_NAME} characters without dots`,
  );
  const plan: SyncPlan = {
    name,
    source: direction === 'from-s3' ? bucket : directory,
    destination: direction === 'from-s3' ? directory : bucket,
    deleteExtra: options.deleteExtra ?? false,
    verify: options.verify ?? true,
  };
  return runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    if (operation.dryRun !== 'client') {
      if (typeof volume === 'string') await client.get('PersistentVolumeClaim', namespace, volume, signal);
      if (schedule !== undefined) await client.negotiate('CronJob', CRON_JOBS_BEFORE_1_21, signal);
    }
    if (schedule === undefined) {
      await operation.create(syncJob(plan, settings));
    } else {
      const when = { schedule: schedule.trim(), ...(timeZone === undefined ? {} : { timeZone }) };
      await operation.create(syncCronJob(plan, settings, when));
    }
    return { name, ...(schedule === undefined ? {} : { schedule }), manifests: operation.manifests };
  });
}

function checkExport({ server, path }: Exclude<S3Settings['volume'], string>): void {
  assertArgument(
    /^[A-Za-z0-9.:-]+$/.test(server) && path.startsWith('/'),
    `the exported folder is '${server}:${path}', expected SERVER and an absolute path`,
  );
}

function bucketPath({ bucketName, prefix = '' }: SyncS3Options): string {
  const path = prefix.replace(/^\/+|\/+$/g, '');
  assertArgument(!path.split('/').includes('..'), `prefix is '${prefix}', expected one without '..'`);
  return `s3:${bucketName}${path === '' ? '' : `/${path}`}`;
}

/** What is scheduled has one name for one pair of places, so that scheduling twice is noticed; what runs once, a new one. */
function defaultName({ direction, bucketName, volume, schedule }: SyncS3Options): string {
  const place = typeof volume === 'string' ? volume : volume.server;
  const [from, to] = direction === 'from-s3' ? [bucketName, place] : [place, bucketName];
  const plain = `sync-${from}-to-${to}`.toLowerCase().replace(/[^a-z0-9-]+/g, '-');
  return schedule === undefined
    ? `${shorten(plain, LONGEST_NAME - 9)}-${uniqueSuffix()}`
    : shorten(plain, LONGEST_NAME);
}

/** What rclone says it did, over all passes of a run. */
export interface SyncStatistics {
  /** Files that moved, and their bytes. */
  readonly moved: number;
  readonly bytes: number;
  /** Files that were compared, and files that were removed. */
  readonly checked: number;
  readonly deleted: number;
  readonly errors: number;
}

/** Reads one line of a pass's log: rclone's statistics where it holds them. */
export function readSyncStatistics(line: string): SyncStatistics | undefined {
  if (!line.startsWith('{')) return undefined;
  let entry: { stats?: Readonly<Record<string, unknown>> };
  try {
    entry = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { stats } = entry;
  if (stats === undefined) return undefined;
  const count = (key: string): number => (typeof stats[key] === 'number' ? stats[key] : 0);
  return {
    moved: count('transfers'),
    bytes: count('bytes'),
    checked: count('checks'),
    deleted: count('deletes'),
    errors: count('errors'),
  };
}

/** Waits until a synchronisation that runs once has ended. @throws as waitForS3Job */
export async function waitForSync(
  client: KubeClient,
  options: OperationOptions & {
    readonly name: string;
    /** Called with what the run has done so far, as its log says. */
    readonly onStatistics?: (statistics: SyncStatistics) => void;
  },
): Promise<SyncStatistics | undefined> {
  const { name, onStatistics = () => undefined } = options;
  checkName('name', name);
  return runOperation(client, options, async (operation) => {
    // A pass counts on from zero, and so does the pod of another attempt: the last word of each is kept.
    const passes = new Map<string, SyncStatistics>();
    const onLine = ({ pod, container, text }: PodLogLine): void => {
      const statistics = readSyncStatistics(text);
      if (statistics === undefined) return;
      passes.set(`${pod}/${container}`, statistics);
      onStatistics(sum([...passes.values()]));
    };
    await followJobs(operation, [name], `scrim.dev/job=${name}`, onLine, () => undefined);
    return passes.size === 0 ? undefined : sum([...passes.values()]);
  });
}

function sum(passes: readonly SyncStatistics[]): SyncStatistics {
  const total = (key: keyof SyncStatistics): number => passes.reduce((before, pass) => before + pass[key], 0);
  return {
    moved: total('moved'),
    bytes: total('bytes'),
    checked: total('checked'),
    deleted: total('deleted'),
    errors: total('errors'),
  };
}

/** A scheduled synchronisation as lists show it. */
export interface SyncInfo {
  readonly name: string;
  readonly schedule: string;
  readonly suspended: boolean;
  readonly active: number;
  readonly lastScheduleTime?: string;
}

/** Lists the scheduled synchronisations of a namespace. */
export async function listSyncs(client: KubeClient, options: OperationOptions = {}): Promise<readonly SyncInfo[]> {
  return runOperation(client, options, async ({ namespace, signal }) => {
    await client.negotiate('CronJob', CRON_JOBS_BEFORE_1_21, signal);
    const { items } = await client.list('CronJob', { namespace, labelSelector: 'created-by-operation=sync' }, signal);
    return items.map(({ metadata, spec, status }) => ({
      name: metadata?.name ?? '',
      schedule: spec?.schedule ?? '',
      suspended: spec?.suspend ?? false,
      active: status?.active?.length ?? 0,
      ...(status?.lastScheduleTime === undefined ? {} : { lastScheduleTime: String(status.lastScheduleTime) }),
    }));
  });
}

/** Deletes a scheduled synchronisation with its Jobs. @throws NOT_FOUND */
export async function deleteSync(
  client: KubeClient,
  options: OperationOptions & { readonly name: string },
): Promise<void> {
  const { name } = options;
  checkName('name', name);
  await runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    await client.negotiate('CronJob', CRON_JOBS_BEFORE_1_21, signal);
    operation.emit({ type: 'deleting', kind: 'CronJob', name, namespace });
    if (!(await operation.remove('CronJob', name))) {
      throw new ScrimError('NOT_FOUND', `CronJob '${name}' does not exist in namespace '${namespace}'`);
    }
    operation.emit({ type: 'deleted', kind: 'CronJob', name, namespace });
  });
}
