/** `scrim create|delete s3-secret`. */
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { hidden, readStdin } from './ask.js';
import { inSession, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface CreateFlags extends SharedFlags {
  readonly secretName: string;
  readonly accessKey?: string;
  readonly secretKey?: string;
  readonly keysStdin?: boolean;
}

/** Adds the commands. */
export function registerS3Secret(verbs: Verbs, context: CommandContext): void {
  shared(verbs.create.command('s3-secret').description('keep S3 keys in a Secret'), { dryRun: true })
    .requiredOption('-d, --secret-name <name>', 'name of the new Secret')
    .option('-a, --access-key <key>', 'access key')
    .option('-s, --secret-key <key>', 'secret key; other users of this machine can see it there: better leave it out')
    .option('--keys-stdin', 'read the access key and the secret key from standard input, a line each')
    .action((flags: CreateFlags) =>
      inSession(context, flags, async ({ dataops, client, operation, made, say }) => {
        const keys = await keysOf(flags, context);
        const result = await dataops.createS3Secret(client, { ...operation, secretName: flags.secretName, ...keys });
        say('Kubernetes secret successfully created.');
        made(result);
      }),
    );
  shared(verbs.delete.command('s3-secret').description('delete a Secret with S3 keys'), { dryRun: 'server' })
    .requiredOption('-d, --secret-name <name>', 'Secret to delete')
    .action((flags: SharedFlags & { readonly secretName: string }) =>
      inSession(context, flags, async ({ dataops, client, operation, say }) => {
        await dataops.deleteS3Secret(client, { ...operation, secretName: flags.secretName });
        say('Kubernetes secret successfully deleted.');
      }),
    );
}

async function keysOf(
  flags: CreateFlags,
  context: CommandContext,
): Promise<{ readonly accessKey: string; readonly secretKey: string }> {
  if (flags.keysStdin) {
    const [accessKey = '', secretKey = ''] = (await readStdin()).split(/\r?\n/);
    if (accessKey === '' || secretKey === '') {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        'standard input must hold the access key and the secret key, a line each',
      );
    }
    return { accessKey, secretKey };
  }
  if (flags.accessKey !== undefined && flags.secretKey !== undefined) {
    context.remark('warning: the secret key stood on the command line, where other users can see it; use --keys-stdin');
    return { accessKey: flags.accessKey, secretKey: flags.secretKey };
  }
  if (!process.stdin.isTTY) {
    throw new ScrimError('INVALID_ARGUMENT', 'the keys are missing: give them with --keys-stdin');
  }
  return {
    accessKey: flags.accessKey ?? (await hidden('Access key: ', context.signal)),
    secretKey: flags.secretKey ?? (await hidden('Secret key: ', context.signal)),
  };
}
