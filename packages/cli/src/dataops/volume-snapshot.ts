/** `scrim create|list|delete|restore volume-snapshot`. */
import type { Command } from 'commander';
import type { CommandContext } from '../context.js';
import { agreed } from './ask.js';
import { given, inSession, type SharedFlags, shared } from './session.js';
import { listSnapshots } from './snapshot-table.js';
import type { Verbs } from './verbs.js';

/** Adds the commands. */
export function registerVolumeSnapshot(verbs: Verbs, context: CommandContext): void {
  createSnapshot(verbs.create, context);
  deleteSnapshot(verbs.delete, context);
  restoreSnapshot(verbs.restore, context);
  shared(
    verbs.list
      .command('volume-snapshots')
      .aliases(['volume-snapshot', 'volumesnapshots', 'volumesnapshot'])
      .description('list snapshots of volumes'),
  )
    .option('-p, --pvc-name <name>', 'only those of this claim')
    .action((flags: SharedFlags & { readonly pvcName?: string }) =>
      inSession(context, flags, async (session) => {
        const more = given<{ pvcName: string }>({ pvcName: flags.pvcName });
        const { dataops, client, operation } = session;
        listSnapshots(session, await dataops.listVolumeSnapshots(client, { ...operation, ...more }));
      }),
    );
}

interface CreateFlags extends SharedFlags {
  readonly pvcName: string;
  readonly snapshotName?: string;
  readonly volumeSnapshotClass?: string;
}

function createSnapshot(create: Command, context: CommandContext): void {
  shared(create.command('volume-snapshot').aliases(['volumesnapshot']).description('take a snapshot of a volume'), {
    dryRun: true,
  })
    .requiredOption('-p, --pvc-name <name>', 'claim to take the snapshot of')
    .option('-s, --snapshot-name <name>', "name of the snapshot; default: 'ntap-dsutil.<time>.<random>'")
    .option('-c, --volume-snapshot-class <name>', "VolumeSnapshotClass; default: the cluster's default")
    .action((flags: CreateFlags) =>
      inSession(context, flags, async ({ dataops, client, operation, made }) => {
        const { pvcName, snapshotName, volumeSnapshotClass } = flags;
        const more = given<{ snapshotName: string; volumeSnapshotClass: string }>({
          snapshotName,
          volumeSnapshotClass,
        });
        made(await dataops.createVolumeSnapshot(client, { ...operation, pvcName, ...more }));
      }),
    );
}

interface NamedFlags extends SharedFlags {
  readonly snapshotName: string;
  readonly force?: boolean;
}

function deleteSnapshot(remove: Command, context: CommandContext): void {
  shared(
    remove
      .command('volume-snapshot')
      .aliases(['volumesnapshot', 'jupyterlab-snapshot', 'jupyterlabsnapshot'])
      .description('delete a snapshot of a volume or a workspace'),
    { dryRun: 'server' },
  )
    .requiredOption('-s, --snapshot-name <name>', 'snapshot to delete')
    .option('-f, --force', 'do not ask')
    .action((flags: NamedFlags) =>
      inSession(context, flags, async ({ dataops, client, operation }) => {
        const warning = 'Warning: This snapshot will be permanently deleted.';
        if (!(await agreed(flags, warning, context))) return;
        await dataops.deleteVolumeSnapshot(client, { ...operation, snapshotName: flags.snapshotName });
      }),
    );
}

function restoreSnapshot(restore: Command, context: CommandContext): void {
  shared(
    restore
      .command('volume-snapshot')
      .aliases(['volumesnapshot'])
      .description('put a volume back to a snapshot; the old volume goes only when the new one is bound'),
    { dryRun: 'server' },
  )
    .requiredOption('-s, --snapshot-name <name>', 'snapshot to restore')
    .option('-f, --force', 'do not ask')
    .option('--keep-old-volume', 'keep the PersistentVolume that is replaced')
    .action((flags: NamedFlags & { readonly keepOldVolume?: boolean }) =>
      inSession(context, flags, async ({ dataops, client, operation, say }) => {
        const warning =
          'Warning: In order to restore a snapshot, the PersistentVolumeClaim (PVC) associated the snapshot must NOT be mounted to any pods.';
        if (!(await agreed(flags, warning, context))) return;
        const { snapshotName, keepOldVolume = false } = flags;
        const result = await dataops.restoreVolumeSnapshot(client, { ...operation, snapshotName, keepOldVolume });
        say('VolumeSnapshot successfully restored.');
        if (flags.dryRun !== undefined) {
          const how = result.method === 'swap' ? 'by a new volume' : 'in place';
          context.print(`PersistentVolumeClaim '${result.pvcName}' would be restored ${how} (dry run of the server).`);
        }
        if (result.oldVolume !== undefined) context.remark(`kept PersistentVolume '${result.oldVolume}'`);
      }),
    );
}
