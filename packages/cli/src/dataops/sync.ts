/** `scrim sync`, `scrim list syncs`, `scrim delete sync`: what changed moves between S3 storage and a volume or folder. */
import type { S3ServerOptions, SyncS3Options, SyncStatistics } from '@scrim/dataops';
import type { Command } from 'commander';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { collect, given, inSession, numberOf, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface SyncFlags extends SharedFlags {
  readonly from: string;
  readonly to: string;
  readonly s3Host: string;
  readonly s3Port?: string;
  readonly useHttps: boolean;
  readonly verifyCertificates: boolean;
  readonly credentialsSecret: string;
  readonly caConfigMap?: readonly string[];
  readonly imageName?: string;
  readonly cpuRequest?: string;
  readonly cpuLimit?: string;
  readonly memoryRequest?: string;
  readonly memoryLimit?: string;
  readonly delete?: boolean;
  readonly verify: boolean;
  readonly schedule?: string;
  readonly timeZone?: string;
  readonly name?: string;
  readonly follow?: boolean;
}

/** Adds the commands. */
export function registerSync(program: Command, verbs: Verbs, context: CommandContext): void {
  shared(
    program.command('sync').description('Kubernetes: move what changed between S3 storage and a volume or folder'),
    { dryRun: true },
  )
    .requiredOption('--from <place>', 's3:BUCKET[/PREFIX], pvc:CLAIM[/DIRECTORY] or nfs:SERVER:/EXPORT')
    .requiredOption('--to <place>', 'the same; one of the two is s3:')
    .requiredOption('--s3-host <host>', 'host name or address of the S3 server')
    .option('--s3-port <port>', 'its port; default: 443, or 80 without HTTPS')
    .requiredOption('-c, --credentials-secret <name>', 'Secret with the keys, see create s3-secret')
    .option('--no-use-https', 'use HTTP')
    .option('--no-verify-certificates', 'accept any certificate')
    .option('-m, --ca-config-map <name>', 'ConfigMap with a CA certificate to trust; may be repeated', collect)
    .option('-i, --image-name <image>', 'container image with rclone')
    .option('--cpu-request <amount>', 'CPUs a run asks for')
    .option('--cpu-limit <amount>', 'CPUs a run may use')
    .option('--memory-request <amount>', 'memory a run asks for')
    .option('--memory-limit <amount>', 'memory a run may use')
    .option('--delete', 'also remove from --to what --from does not have')
    .option('--no-verify', 'leave out the second pass, which compares the checksum of every file')
    .option('--schedule <cron>', "run again and again, such as '*/15 * * * *' or @daily; default: once, now")
    .option('--time-zone <zone>', 'of the schedule, such as Europe/Berlin (Kubernetes 1.27 or later)')
    .option('--name <name>', 'name of the Job or CronJob')
    .option('--follow', 'wait for the run and say what it did')
    .action((flags: SyncFlags) => inSession(context, flags, (session) => sync(session, flags)));
  shared(verbs.list.command('syncs').aliases(['sync']).description('list scheduled synchronisations')).action(
    (flags: SharedFlags) =>
      inSession(context, flags, async (session) => {
        const syncs = await session.dataops.listSyncs(session.client, session.operation);
        session.list(syncs, {
          Name: ({ name }) => name,
          Schedule: ({ schedule }) => schedule,
          Suspended: ({ suspended }) => (suspended ? 'Yes' : 'No'),
          Running: ({ active }) => String(active),
          'Last Run': ({ lastScheduleTime }) => lastScheduleTime ?? '',
        });
      }),
  );
  shared(verbs.delete.command('sync').description('delete a scheduled synchronisation; the data stays'), {
    dryRun: 'server',
  })
    .requiredOption('--name <name>', 'CronJob to delete')
    .action((flags: SharedFlags & { readonly name: string }) =>
      inSession(context, flags, async ({ dataops, client, operation, say }) => {
        await dataops.deleteSync(client, { ...operation, name: flags.name });
        say(`Synchronisation '${flags.name}' deleted.`);
      }),
    );
}

type Session = Parameters<Parameters<typeof inSession>[2]>[0];

async function sync({ dataops, client, operation, context, made, say }: Session, flags: SyncFlags): Promise<void> {
  if (flags.follow && flags.schedule !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', '--follow and --schedule exclude each other');
  }
  const result = await dataops.syncS3(client, { ...operation, ...serverOf(flags), ...placesOf(flags) });
  say(
    flags.schedule === undefined
      ? `Created Kubernetes job ${result.name}`
      : `Created Kubernetes cron job ${result.name}, which runs at '${flags.schedule}'.`,
  );
  if (flags.follow && flags.dryRun === undefined) {
    let last = '';
    const statistics = await dataops.waitForSync(client, {
      ...operation,
      name: result.name,
      onStatistics: (now) => {
        const text = wordsOf(now);
        if (text !== last) context.remark(text);
        last = text;
      },
    });
    say(
      statistics === undefined
        ? `Job ${result.name} succeeded.`
        : `Job ${result.name} succeeded: ${wordsOf(statistics)}.`,
    );
    made({ ...result, ...(statistics === undefined ? {} : { statistics }) });
    return;
  }
  made(result);
}

function wordsOf({ moved, bytes, checked, deleted }: SyncStatistics): string {
  return `${moved} moved (${bytes} bytes), ${checked} compared, ${deleted} deleted`;
}

type Places = Pick<SyncS3Options, 'direction' | 'volume' | 'directory' | 'bucketName' | 'prefix'> &
  Partial<Pick<SyncS3Options, 'deleteExtra' | 'verify' | 'schedule' | 'timeZone' | 'name'>>;

/** Where from, where to, how and when. @throws INVALID_ARGUMENT */
function placesOf(flags: SyncFlags): Places {
  const direction = isS3(flags.from) ? 'from-s3' : 'to-s3';
  const [bucket, other] = direction === 'from-s3' ? [flags.from, flags.to] : [flags.to, flags.from];
  if (!isS3(bucket) || isS3(other)) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--from is '${flags.from}' and --to is '${flags.to}', expected s3:BUCKET for exactly one of them`,
    );
  }
  const { deleteExtra, verify, schedule, timeZone, name } = { ...flags, deleteExtra: flags.delete };
  const [bucketName = '', prefix] = split(bucket.replace(/^s3:(\/\/)?/, ''));
  return {
    direction,
    bucketName,
    verify,
    ...folderOf(other),
    ...given<Pick<Places, 'prefix' | 'deleteExtra' | 'schedule' | 'timeZone' | 'name'>>({
      prefix,
      deleteExtra,
      schedule,
      timeZone,
      name,
    }),
  };
}

function isS3(place: string): boolean {
  return place.startsWith('s3:');
}

function folderOf(place: string): Pick<Places, 'volume' | 'directory'> {
  const [, claim] = /^pvc:(?:\/\/)?(.+)$/.exec(place) ?? [];
  if (claim !== undefined) {
    const [volume = '', directory] = split(claim);
    return { volume, ...(directory === undefined ? {} : { directory }) };
  }
  const [, server, path] = /^nfs:(?:\/\/)?([^/]+?):?(\/.*)$/.exec(place) ?? [];
  if (server === undefined || path === undefined) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `the place is '${place}', expected pvc:CLAIM[/DIRECTORY] or nfs:SERVER:/EXPORT`,
    );
  }
  return { volume: { server, path } };
}

/** 'a/b/c' as 'a' and 'b/c'. */
function split(path: string): readonly [string, string | undefined] {
  const at = path.indexOf('/');
  return at < 0 ? [path, undefined] : [path.slice(0, at), path.slice(at + 1)];
}

function serverOf(flags: SyncFlags): Pick<S3ServerOptions, 'host' | 'credentialsSecret'> & Partial<S3ServerOptions> {
  const amounts = (cpu: string | undefined, memory: string | undefined) => {
    const set = given<{ cpu: string; memory: string }>({ cpu, memory });
    return Object.keys(set).length === 0 ? undefined : set;
  };
  return {
    host: flags.s3Host,
    credentialsSecret: flags.credentialsSecret,
    useHttps: flags.useHttps,
    verifyCertificates: flags.verifyCertificates,
    ...given<Pick<S3ServerOptions, 'port' | 'image' | 'caConfigMaps' | 'requests' | 'limits'>>({
      port: numberOf('--s3-port', flags.s3Port),
      image: flags.imageName,
      caConfigMaps: flags.caConfigMap,
      requests: amounts(flags.cpuRequest, flags.memoryRequest),
      limits: amounts(flags.cpuLimit, flags.memoryLimit),
    }),
  };
}
