/** `scrim create|delete flexcache`: caches of ONTAP volumes. The password comes from a Secret, stdin or the environment. */
import { readFile } from 'node:fs/promises';
import type { DataopsEvent, FlexCacheBackend } from '@scrim/dataops';
import type { Command } from 'commander';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { agreed, secretFromStdin } from './ask.js';
import { given, inSession, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

/** Environment variables that stand in for the Secret of Trident's backend. */
const USERNAME_VARIABLE = 'SCRIM_ONTAP_USERNAME';
const PASSWORD_VARIABLE = 'SCRIM_ONTAP_PASSWORD';

/** Adds the commands. */
export function registerFlexCache(verbs: Verbs, context: CommandContext): void {
  createCache(verbs.create, context);
  deleteCache(verbs.delete, context);
}

interface BackendFlags extends SharedFlags {
  readonly backendName: string;
  readonly tridentNamespace?: string;
  readonly sslCertPath?: string;
  readonly sslCertFingerprint?: string;
  readonly tlsServerName?: string;
  readonly managementLif?: string;
  readonly dataLif?: string;
  readonly svm?: string;
  readonly ontapUsername?: string;
  readonly passwordStdin?: boolean;
}

function backendFlags(command: Command): Command {
  return command
    .requiredOption('-b, --backend-name <name>', 'TridentBackendConfig of the storage system')
    .option('-t, --trident-namespace <name>', "namespace Trident runs in; default: 'trident'")
    .option('--ssl-cert-path <file>', "CA certificate of the storage system (PEM); default: the system's")
    .option('--ssl-cert-fingerprint <sha256>', "SHA-256 of the storage system's own certificate, instead of a CA")
    .option('--tls-server-name <name>', 'name the certificate is issued for, where it is not the management LIF')
    .option('--management-lif <address>', "default: the backend's")
    .option('--data-lif <address>', "default: the backend's")
    .option('--svm <name>', "SVM of the cache; default: the backend's")
    .option('--ontap-username <name>', `default: $${USERNAME_VARIABLE}, else the backend's Secret`)
    .option('--password-stdin', `read ONTAP's password from stdin; default: $${PASSWORD_VARIABLE}, else the Secret`);
}

async function backendOf(flags: BackendFlags): Promise<FlexCacheBackend> {
  const { sslCertPath } = flags;
  const username = flags.ontapUsername ?? process.env[USERNAME_VARIABLE];
  const password = flags.passwordStdin ? await secretFromStdin('the password') : process.env[PASSWORD_VARIABLE];
  if ((username === undefined) !== (password === undefined)) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `one of ONTAP's user name and password is given: give both (--ontap-username or $${USERNAME_VARIABLE}; --password-stdin or $${PASSWORD_VARIABLE}) or neither`,
    );
  }
  const ca =
    sslCertPath === undefined
      ? undefined
      : await readFile(sslCertPath, 'utf8').catch((error: unknown) => {
          throw ScrimError.from(error, 'NOT_FOUND', `--ssl-cert-path '${sslCertPath}' can't be read`);
        });
  const { backendName, tridentNamespace, sslCertFingerprint, tlsServerName, managementLif, dataLif, svm } = flags;
  return {
    backendName,
    ...given<Omit<FlexCacheBackend, 'backendName'>>({
      tridentNamespace,
      ca,
      fingerprint: sslCertFingerprint,
      serverName: tlsServerName,
      managementLif,
      dataLif,
      svm,
      username,
      password,
    }),
  };
}

/** The toolkit's line for an event of these commands. */
function lineOf(event: DataopsEvent): string | undefined {
  if (event.type === 'step') {
    const { step, name, source = '' } = event;
    const cache = `FlexCache volume '${name}'`;
    const lines: Partial<Record<typeof step, string>> = {
      'create-flexcache': `Creating FlexCache: ${source} -> ${name}`,
      'flexcache-created': 'FlexCache created successfully.',
      'delete-flexcache': `Deleting ${cache} in SVM '${source}'.`,
      'flexcache-deleted': `${cache} successfully deleted.`,
    };
    return lines[step];
  }
  if (!('kind' in event)) return undefined;
  const { kind, type, name, namespace, source = '' } = event;
  const volume = kind === 'PersistentVolume';
  const short = `${volume ? 'PV' : 'PVC'} '${name}'`;
  switch (type) {
    case 'creating':
      return `Creating ${short} in namespace '${namespace}'...`;
    case 'created':
      return `${short} created successfully.`;
    case 'waiting':
      return 'Waiting for Kubernetes to bind volume to PVC.';
    case 'ready':
      return `${short} is bound to PV '${source}'.\nVolume successfully created and bound to PersistentVolumeClaim (PVC) '${name}' in namespace '${namespace}'.`;
    case 'deleting':
      return volume
        ? `Deleting PersistentVolume (PV) '${name}' associated with FlexCache PVC '${source}'.`
        : `Deleting ${short} in namespace '${namespace}'.`;
    case 'deleted':
      return `${volume ? 'PersistentVolume (PV)' : 'PVC'} '${name}' successfully deleted.`;
    default:
      return undefined;
  }
}

interface CreateFlags extends BackendFlags {
  readonly flexcacheVol: string;
  readonly flexcacheSize: string;
  readonly sourceVol: string;
  readonly sourceSvm: string;
  readonly junction?: string;
}

function createCache(create: Command, context: CommandContext): void {
  backendFlags(
    shared(create.command('flexcache').description('make a FlexCache volume in ONTAP, and a claim for it'), {
      dryRun: true,
    })
      .requiredOption('-f, --flexcache-vol <name>', 'name of the new cache and of its claim')
      .requiredOption('-z, --flexcache-size <size>', 'size, such as 100Gi')
      .requiredOption('-v, --source-vol <name>', 'volume to cache')
      .requiredOption('-s, --source-svm <name>', 'SVM of that volume')
      .option('-c, --junction <path>', "where the SVM mounts the cache; default: '/' and its name"),
  ).action((flags: CreateFlags) =>
    inSession(
      context,
      flags,
      async ({ dataops, client, operation, made }) => {
        const { flexcacheVol, flexcacheSize, sourceVol, sourceSvm, junction } = flags;
        const result = await dataops.createFlexCache(client, {
          ...operation,
          ...(await backendOf(flags)),
          flexCacheVolume: flexcacheVol,
          size: flexcacheSize,
          sourceSvm,
          sourceVolume: sourceVol,
          ...given<{ junction: string }>({ junction }),
        });
        made(result);
      },
      lineOf,
    ),
  );
}

function deleteCache(remove: Command, context: CommandContext): void {
  backendFlags(
    shared(
      remove
        .command('flexcache-volume')
        .aliases(['flexcache'])
        .description('delete a FlexCache volume; its origin stays'),
      { dryRun: 'server' },
    )
      .requiredOption('-p, --pvc-name <name>', 'claim of the cache')
      .option('-f, --force', 'do not ask'),
  ).action((flags: BackendFlags & { readonly pvcName: string; readonly force?: boolean }) =>
    inSession(
      context,
      flags,
      async ({ dataops, client, operation }) => {
        if (flags.passwordStdin && !flags.force && flags.dryRun === undefined) {
          throw new ScrimError('INVALID_ARGUMENT', 'stdin can not hold both the password and an answer: add --force');
        }
        const warning = 'Warning: This FlexCache volume will be permanently deleted.';
        if (!(await agreed(flags, warning, context))) return;
        await dataops.deleteFlexCache(client, { ...operation, ...(await backendOf(flags)), pvcName: flags.pvcName });
      },
      lineOf,
    ),
  );
}
