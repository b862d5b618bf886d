/** `scrim create|delete ca-config-map`. */
import { readFile } from 'node:fs/promises';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { inSession, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface CreateFlags extends SharedFlags {
  readonly configMapName: string;
  readonly file: string;
}

/** Adds the commands. */
export function registerCaConfigMap(verbs: Verbs, context: CommandContext): void {
  shared(verbs.create.command('ca-config-map').description('keep a CA certificate in a ConfigMap'), { dryRun: true })
    .requiredOption('-c, --config-map-name <name>', 'name of the new ConfigMap')
    .requiredOption('-f, --file <file>', 'certificate in PEM')
    .action((flags: CreateFlags) =>
      inSession(context, flags, async ({ dataops, client, operation, made, say }) => {
        const certificate = await readFile(flags.file, 'utf8').catch((error: unknown) => {
          throw ScrimError.from(error, 'NOT_FOUND', `--file '${flags.file}' can't be read`);
        });
        const { configMapName } = flags;
        const result = await dataops.createCaConfigMap(client, { ...operation, configMapName, certificate });
        say('Kubernetes CA config-map successfully created.');
        made(result);
      }),
    );
  shared(verbs.delete.command('ca-config-map').description('delete a ConfigMap with a CA certificate'), {
    dryRun: 'server',
  })
    .requiredOption('-c, --config-map-name <name>', 'ConfigMap to delete')
    .action((flags: SharedFlags & { readonly configMapName: string }) =>
      inSession(context, flags, async ({ dataops, client, operation, say }) => {
        await dataops.deleteCaConfigMap(client, { ...operation, configMapName: flags.configMapName });
        say('Kubernetes CA config-map successfully deleted.');
      }),
    );
}
