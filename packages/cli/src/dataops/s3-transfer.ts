/** `scrim get-s3|put-s3 bucket|object`: Jobs that move data between S3 and a volume. */
import type { S3JobResult, S3TransferOptions } from '@scrim/dataops';
import { type Command, Option } from 'commander';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { collect, given, inSession, numberOf, type Session, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface TransferFlags extends SharedFlags {
  readonly s3Host?: string;
  readonly objectHost?: string;
  readonly s3Port?: string;
  readonly objectPort?: string;
  readonly useHttps: boolean;
  readonly verifyCertificates: boolean;
  readonly bucketName: string;
  readonly pvcName: string;
  readonly credentialsSecret: string;
  readonly imageName?: string;
  readonly image?: string;
  readonly caConfigMap?: readonly string[];
  readonly cpuRequest?: string;
  readonly cpuLimit?: string;
  readonly memoryRequest?: string;
  readonly memoryLimit?: string;
  readonly pvcDir?: string;
  readonly objectKey?: string;
  readonly fileLocation?: string;
  readonly wait?: boolean;
}

type Start = (session: Session, options: S3TransferOptions, flags: TransferFlags) => Promise<S3JobResult>;

/** Adds the commands. */
export function registerS3Transfer(verbs: Verbs, context: CommandContext): void {
  const bucket = (verb: Command, description: string, start: Start): void => {
    transfer(verb.command('bucket').description(description), context, start).option(
      '-d, --pvc-dir <directory>',
      'directory of the volume; default: its root',
    );
  };
  const object = (verb: Command, description: string, start: Start, required: 'objectKey' | 'fileLocation'): void => {
    transfer(verb.command('object').description(description), context, (session, options, flags) => {
      if (flags[required] === undefined) {
        const flag = required === 'objectKey' ? '-k, --object-key' : '-f, --file-location';
        throw new ScrimError('INVALID_ARGUMENT', `required option '${flag}' not specified`);
      }
      return start(session, options, flags);
    })
      .option('-k, --object-key <key>', "object's key; default: the file's path")
      .option('-f, --file-location <path>', "path on the volume; default: the object's key");
  };
  const place = (flags: TransferFlags) => given<{ pvcDir: string }>({ pvcDir: flags.pvcDir });
  bucket(verbs.getS3, 'copy a bucket to a volume', ({ dataops, client }, options, flags) =>
    dataops.getS3Bucket(client, { ...options, ...place(flags) }),
  );
  bucket(verbs.putS3, 'copy a volume to a bucket', ({ dataops, client }, options, flags) =>
    dataops.putS3Bucket(client, { ...options, ...place(flags) }),
  );
  object(
    verbs.getS3,
    'copy an object to a volume',
    ({ dataops, client }, options, { objectKey = '', fileLocation }) =>
      dataops.getS3Object(client, { ...options, objectKey, ...given<{ fileLocation: string }>({ fileLocation }) }),
    'objectKey',
  );
  object(
    verbs.putS3,
    'copy a file of a volume to an object',
    ({ dataops, client }, options, { objectKey, fileLocation = '' }) =>
      dataops.putS3Object(client, { ...options, fileLocation, ...given<{ objectKey: string }>({ objectKey }) }),
    'fileLocation',
  );
}

function transfer(command: Command, context: CommandContext, start: Start): Command {
  return shared(command, { dryRun: true, shortOutput: false })
    .option('-o, --s3-host <host>', 'host name or address of the S3 server')
    .addOption(new Option('--object-host <host>', 'the same').hideHelp())
    .option('-t, --s3-port <port>', 'its port; default: 443, or 80 without HTTPS')
    .addOption(new Option('--object-port <port>', 'the same').hideHelp())
    .requiredOption('-b, --bucket-name <name>', 'bucket')
    .requiredOption('-p, --pvc-name <name>', 'claim of the volume')
    .requiredOption('-c, --credentials-secret <name>', 'Secret with the keys, see create s3-secret')
    .option('-u, --use-https', 'use HTTPS, which is the default', true)
    .option('--no-use-https', 'use HTTP')
    .option('-v, --verify-certificates', "check the server's certificate, which is the default", true)
    .option('--no-verify-certificates', 'accept any certificate')
    .option('-m, --ca-config-map <name>', 'ConfigMap with a CA certificate to trust; may be repeated', collect)
    .option('-i, --image-name <image>', 'container image with rclone')
    .addOption(new Option('--image <image>', 'the same').hideHelp())
    .option('--cpu-request <amount>', 'CPUs the Job asks for')
    .option('--cpu-limit <amount>', 'CPUs the Job may use')
    .option('--memory-request <amount>', 'memory the Job asks for')
    .option('--memory-limit <amount>', 'memory the Job may use')
    .option('--wait', 'wait until the Job has ended')
    .action((flags: TransferFlags) =>
      inSession(context, flags, async (session) => {
        const result = await start(session, optionsOf(session, flags), flags);
        session.say(`Created Kubernetes job ${result.jobName}`);
        if (flags.wait && flags.dryRun === undefined) {
          const { dataops, client, operation } = session;
          await dataops.waitForS3Job(client, { ...operation, jobName: result.jobName });
          session.say(`Job ${result.jobName} succeeded.`);
        }
        session.made(result);
      }),
    );
}

function optionsOf({ operation }: Session, flags: TransferFlags): S3TransferOptions {
  const host = flags.s3Host ?? flags.objectHost;
  if (host === undefined) throw new ScrimError('INVALID_ARGUMENT', "required option '-o, --s3-host' not specified");
  const port = flags.s3Port ?? flags.objectPort;
  const amounts = (cpu: string | undefined, memory: string | undefined) => {
    const set = given<{ cpu: string; memory: string }>({ cpu, memory });
    return Object.keys(set).length === 0 ? undefined : set;
  };
  return {
    ...operation,
    host,
    useHttps: flags.useHttps,
    verifyCertificates: flags.verifyCertificates,
    bucketName: flags.bucketName,
    pvcName: flags.pvcName,
    credentialsSecret: flags.credentialsSecret,
    ...given<Pick<S3TransferOptions, 'port' | 'image' | 'caConfigMaps' | 'requests' | 'limits'>>({
      port: numberOf('--s3-port', port),
      image: flags.imageName ?? flags.image,
      caConfigMaps: flags.caConfigMap,
      requests: amounts(flags.cpuRequest, flags.memoryRequest),
      limits: amounts(flags.cpuLimit, flags.memoryLimit),
    }),
  };
}
