/** `scrim show|delete s3-job`. */
import { type Command, Option } from 'commander';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { inSession, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface JobFlags extends SharedFlags {
  readonly job?: string;
  readonly s3Job?: string;
}

/** Adds the commands. */
export function registerS3Job(verbs: Verbs, context: CommandContext): void {
  jobFlag(shared(verbs.show.command('s3-job').description('show how a transfer stands'))).action((flags: JobFlags) =>
    inSession(context, flags, async (session) => {
      const { dataops, client, operation } = session;
      const jobName = jobOf(flags);
      const status = await dataops.showS3Job(client, { ...operation, jobName });
      if (flags.output === 'json') context.printJson(status);
      else if (flags.output === 'yaml') context.print(dataops.toYaml(status));
      else context.print(`Job ${jobName} status:\n${dataops.toYaml(status)}`);
    }),
  );
  jobFlag(
    shared(verbs.delete.command('s3-job').description('delete a transfer with its pods'), { dryRun: 'server' }),
  ).action((flags: JobFlags) =>
    inSession(context, flags, async ({ dataops, client, operation, say }) => {
      const jobName = jobOf(flags);
      await dataops.deleteS3Job(client, { ...operation, jobName });
      say(`Job ${jobName} deleted.`);
    }),
  );
}

function jobFlag(command: Command): Command {
  return command
    .option('-j, --job <name>', 'the Job, as get-s3 and put-s3 printed it')
    .addOption(new Option('--s3-job <name>', 'the same').hideHelp());
}

function jobOf({ job, s3Job }: JobFlags): string {
  const name = job ?? s3Job;
  if (name === undefined) throw new ScrimError('INVALID_ARGUMENT', "required option '-j, --job' not specified");
  return name;
}
