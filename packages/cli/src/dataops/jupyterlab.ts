/** `scrim create|clone|delete|list jupyterlab`. */
import type { CloneJupyterLabOptions, ExtraMount, WorkspaceSettings } from '@scrim/dataops';
import type { Command } from 'commander';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { agreed, askPassword, secretFromStdin } from './ask.js';
import { type ContainerFlags, containerFlags, resourcesOf } from './container-flags.js';
import { lineOf } from './lines.js';
import { collect, given, inSession, pairsOf, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

const ALIASES = ['jupyter'];

/** Adds the commands. */
export function registerJupyterLab(verbs: Verbs, context: CommandContext): void {
  createWorkspace(verbs.create, context);
  cloneWorkspace(verbs.clone, context);
  deleteWorkspace(verbs.delete, context);
  listWorkspaces(verbs.list, context);
}

interface WorkspaceFlags extends SharedFlags, ContainerFlags {
  readonly loadBalancer?: boolean;
  readonly passwordStdin?: boolean;
  readonly tlsSecret?: string;
  /** False with --no-https. */
  readonly https: boolean;
}

function workspaceFlags(command: Command): Command {
  return containerFlags(command)
    .option('-b, --load-balancer', 'Service of type LoadBalancer instead of NodePort')
    .option('--tls-secret <name>', 'serve HTTPS with the certificate of this kubernetes.io/tls Secret')
    .option('--no-https', 'serve HTTP, which is the default without --tls-secret')
    .option('--password-stdin', 'read the password from standard input');
}

async function passwordOf(flags: WorkspaceFlags, context: CommandContext): Promise<string> {
  if (flags.passwordStdin) return secretFromStdin('the password');
  if (flags.dryRun !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', 'a dry run does not ask for the password: give one with --password-stdin');
  }
  return askPassword(
    'Set workspace password (this password will be required in order to access the workspace):',
    'Re-enter password:',
    context.signal,
  );
}

function settingsOf(flags: WorkspaceFlags, password: string) {
  if (!flags.https && flags.tlsSecret !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', '--no-https and --tls-secret exclude each other');
  }
  return {
    password,
    resources: resourcesOf(flags),
    ...given<{ loadBalancer: boolean; tlsSecret: string }>({
      loadBalancer: flags.loadBalancer,
      tlsSecret: flags.tlsSecret,
    }),
  };
}

interface CreateFlags extends WorkspaceFlags {
  readonly workspaceName: string;
  readonly size: string;
  readonly storageClass?: string;
  readonly accessMode?: readonly string[];
  readonly image?: string;
  readonly mountPvc?: readonly string[];
}

function createWorkspace(create: Command, context: CommandContext): void {
  workspaceFlags(
    shared(create.command('jupyterlab').aliases(ALIASES).description('make a JupyterLab workspace'), { dryRun: true })
      .requiredOption('-w, --workspace-name <name>', 'name of the new workspace')
      .requiredOption('-s, --size <size>', "size of the workspace's volume, such as 10Gi")
      .option('-c, --storage-class <name>', "StorageClass; default: the cluster's default")
      .option('--access-mode <mode>', 'of the volume; default: ReadWriteMany; may be repeated', collect)
      .option('-i, --image <image>', "container image; default: 'jupyter/tensorflow-notebook'")
      .option('-v, --mount-pvc <name:path>', 'another volume to mount; may be repeated', collect),
  ).action((flags: CreateFlags) =>
    inSession(context, flags, async ({ dataops, client, operation, made, say }) => {
      const { workspaceName, size, storageClass, accessMode, image } = flags;
      const settings = settingsOf(flags, await passwordOf(flags, context));
      const result = await dataops.createJupyterLab(client, {
        ...operation,
        ...settings,
        workspaceName,
        size,
        mounts: (flags.mountPvc ?? []).map(mountOf),
        ...given<{ storageClass: string; image: string; accessModes: readonly string[] }>({
          storageClass,
          image,
          accessModes: accessMode,
        }),
      });
      say('Workspace successfully created.');
      say(`To access workspace, navigate to ${result.url}`);
      made(result);
    }),
  );
}

function mountOf(text: string): ExtraMount {
  const at = text.indexOf(':');
  if (at < 1) throw new ScrimError('INVALID_ARGUMENT', `--mount-pvc is '${text}', expected NAME:PATH`);
  return { claim: text.slice(0, at), path: text.slice(at + 1) };
}

interface CloneFlags extends WorkspaceFlags {
  readonly newWorkspaceName: string;
  readonly sourceWorkspaceName?: string;
  readonly sourceSnapshotName?: string;
  readonly volumeSnapshotClass?: string;
  readonly annotation?: readonly string[];
}

function cloneWorkspace(clone: Command, context: CommandContext): void {
  workspaceFlags(
    shared(
      clone.command('jupyterlab').aliases(ALIASES).description('make a workspace with the content of another one'),
      {
        dryRun: true,
      },
    )
      .requiredOption('-w, --new-workspace-name <name>', 'name of the new workspace')
      .option('-j, --source-workspace-name <name>', 'workspace to clone')
      .option('-s, --source-snapshot-name <name>', 'snapshot of a workspace to clone')
      .option('-c, --volume-snapshot-class <name>', "VolumeSnapshotClass; default: the cluster's default")
      .option('--annotation <name=value>', 'of the claim, such as trident.netapp.io/splitOnClone=true', collect),
  ).action((flags: CloneFlags) =>
    inSession(context, flags, async ({ dataops, client, operation, made, say }) => {
      const { newWorkspaceName, sourceWorkspaceName, sourceSnapshotName, volumeSnapshotClass } = flags;
      const settings = settingsOf(flags, await passwordOf(flags, context));
      const result = await dataops.cloneJupyterLab(client, {
        ...operation,
        ...settings,
        newWorkspaceName,
        ...given<Omit<CloneJupyterLabOptions, 'newWorkspaceName' | keyof WorkspaceSettings>>({
          sourceWorkspaceName,
          sourceSnapshotName,
          volumeSnapshotClass,
          annotations: pairsOf('--annotation', flags.annotation, 'NAME=VALUE'),
        }),
      });
      say('Workspace successfully created.');
      say(`To access workspace, navigate to ${result.url}`);
      say('JupyterLab workspace successfully cloned.');
      made(result);
    }),
  );
}

interface DeleteFlags extends SharedFlags {
  readonly workspaceName: string;
  readonly force?: boolean;
  readonly preserveSnapshots?: boolean;
}

function deleteWorkspace(remove: Command, context: CommandContext): void {
  shared(
    remove.command('jupyterlab').aliases(ALIASES).description('delete a workspace with its volume and snapshots'),
    { dryRun: 'server' },
  )
    .requiredOption('-w, --workspace-name <name>', 'workspace to delete')
    .option('-f, --force', 'do not ask')
    .option('-s, --preserve-snapshots', 'keep the snapshots')
    .action((flags: DeleteFlags) =>
      inSession(
        context,
        flags,
        async ({ dataops, client, operation, say }) => {
          const warning = 'Warning: All data associated with the workspace will be permanently deleted.';
          if (!(await agreed(flags, warning, context))) return;
          const { workspaceName, preserveSnapshots = false, namespace } = flags;
          say(`Deleting workspace '${workspaceName}' in namespace '${namespace}'.`);
          await dataops.deleteJupyterLab(client, { ...operation, workspaceName, preserveSnapshots });
          say('Workspace successfully deleted.');
        },
        lineOf,
      ),
    );
}

function listWorkspaces(list: Command, context: CommandContext): void {
  shared(
    list
      .command('jupyterlabs')
      .aliases(['jupyters', 'jupyterlab', 'jupyter'])
      .description('list the JupyterLab workspaces of a namespace'),
  ).action((flags: SharedFlags) =>
    inSession(context, flags, async (session) => {
      const workspaces = await session.dataops.listJupyterLabs(session.client, session.operation);
      session.list(workspaces, {
        'Workspace Name': ({ name }) => name,
        Status: ({ ready }) => (ready ? 'Ready' : 'Not Ready'),
        Size: ({ size }) => size ?? '',
        StorageClass: ({ storageClass }) => storageClass ?? '',
        'Access URL': ({ url }) => url ?? 'unavailable',
        Clone: ({ clone }) => (clone ? 'Yes' : 'No'),
        'Source Workspace': ({ sourceWorkspace, sourceWorkspaceExists }) =>
          sourceWorkspace === undefined || sourceWorkspaceExists ? (sourceWorkspace ?? '') : '*deleted*',
        'Source VolumeSnapshot': ({ clone, sourceSnapshot, sourceSnapshotExists }) =>
          sourceSnapshot === undefined ? (clone ? 'n/a' : '') : sourceSnapshotExists ? sourceSnapshot : '*deleted*',
      });
    }),
  );
}
