/** `scrim create|list|restore jupyterlab-snapshot`; deleting one is `delete volume-snapshot` under another name. */
import type { CommandContext } from '../context.js';
import { lineOf } from './lines.js';
import { given, inSession, type SharedFlags, shared } from './session.js';
import { listSnapshots } from './snapshot-table.js';
import type { Verbs } from './verbs.js';

interface CreateFlags extends SharedFlags {
  readonly workspaceName: string;
  readonly snapshotName?: string;
  readonly volumeSnapshotClass?: string;
}

/** Adds the commands. */
export function registerJupyterLabSnapshot(verbs: Verbs, context: CommandContext): void {
  shared(
    verbs.create
      .command('jupyterlab-snapshot')
      .aliases(['jupyterlabsnapshot', 'jupyter-snapshot', 'jupytersnapshot'])
      .description("take a snapshot of a workspace's volume"),
    { dryRun: true },
  )
    .requiredOption('-w, --workspace-name <name>', 'workspace to take the snapshot of')
    .option('-s, --snapshot-name <name>', "name of the snapshot; default: 'ntap-dsutil.<time>.<random>'")
    .option('-c, --volume-snapshot-class <name>', "VolumeSnapshotClass; default: the cluster's default")
    .action((flags: CreateFlags) =>
      inSession(context, flags, async ({ dataops, client, operation, made }) => {
        const { workspaceName, snapshotName, volumeSnapshotClass } = flags;
        const more = given<{ snapshotName: string; volumeSnapshotClass: string }>({
          snapshotName,
          volumeSnapshotClass,
        });
        made(await dataops.createJupyterLabSnapshot(client, { ...operation, workspaceName, ...more }));
      }),
    );
  shared(
    verbs.list
      .command('jupyterlab-snapshots')
      .aliases(['jupyterlab-snapshot', 'jupyterlabsnapshots', 'jupyterlabsnapshot'])
      .description('list snapshots of workspaces'),
  )
    .option('-w, --workspace-name <name>', 'only those of this workspace')
    .action((flags: SharedFlags & { readonly workspaceName?: string }) =>
      inSession(context, flags, async (session) => {
        const more = given<{ workspaceName: string }>({ workspaceName: flags.workspaceName });
        const { dataops, client, operation } = session;
        listSnapshots(session, await dataops.listJupyterLabSnapshots(client, { ...operation, ...more }));
      }),
    );
  shared(
    verbs.restore
      .command('jupyterlab-snapshot')
      .aliases(['jupyterlabsnapshot'])
      .description('put a workspace back to a snapshot; it is stopped meanwhile'),
    { dryRun: 'server' },
  )
    .requiredOption('-s, --snapshot-name <name>', 'snapshot to restore')
    .option('--keep-old-volume', 'keep the PersistentVolume that is replaced')
    .action((flags: SharedFlags & { readonly snapshotName: string; readonly keepOldVolume?: boolean }) =>
      inSession(
        context,
        flags,
        async ({ dataops, client, operation, say }) => {
          const { snapshotName, keepOldVolume = false } = flags;
          const restored = await dataops.restoreJupyterLabSnapshot(client, {
            ...operation,
            snapshotName,
            keepOldVolume,
          });
          if (flags.dryRun !== undefined) {
            context.print(`Workspace '${restored.workspaceName}' would be restored (dry run of the server).`);
          }
          say('JupyterLab workspace snapshot successfully restored.');
        },
        // The Deployment was there before: the toolkit does not call it created.
        (event) => (event.type === 'ready' && event.kind === 'Deployment' ? undefined : lineOf(event)),
      ),
    );
}
