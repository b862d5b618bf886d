/** `scrim create|clone|delete|list volume`, with the toolkit's aliases vol, pvc and persistentvolumeclaim. */
import type { CloneVolumeOptions, CreateVolumeOptions, OperationOptions } from '@scrim/dataops';
import type { Command } from 'commander';
import type { CommandContext } from '../context.js';
import { agreed } from './ask.js';
import { collect, given, inSession, pairsOf, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

const ALIASES = ['vol', 'pvc', 'persistentvolumeclaim'];

/** Adds the commands. */
export function registerVolume(verbs: Verbs, context: CommandContext): void {
  createVolume(verbs.create, context);
  cloneVolume(verbs.clone, context);
  deleteVolume(verbs.delete, context);
  listVolumes(verbs.list, context);
}

interface CreateFlags extends SharedFlags {
  readonly pvcName: string;
  readonly size: string;
  readonly storageClass?: string;
  readonly accessMode?: readonly string[];
  readonly annotation?: readonly string[];
}

function createVolume(create: Command, context: CommandContext): void {
  shared(create.command('volume').aliases(ALIASES).description('make a volume (PersistentVolumeClaim)'), {
    dryRun: true,
  })
    .requiredOption('-p, --pvc-name <name>', 'name of the new claim')
    .requiredOption('-s, --size <size>', 'size, such as 1024Mi, 100Gi or 10Ti')
    .option('-c, --storage-class <name>', "StorageClass; default: the cluster's default")
    .option('--access-mode <mode>', 'ReadWriteMany (default), ReadWriteOnce, …; may be repeated', collect)
    .option('--annotation <name=value>', 'of the claim; may be repeated', collect)
    .action((flags: CreateFlags) =>
      inSession(context, flags, async ({ dataops, client, operation, made }) => {
        const { pvcName, size, storageClass, accessMode } = flags;
        const more = given<Pick<CreateVolumeOptions, 'storageClass' | 'accessModes' | 'annotations'>>({
          storageClass,
          accessModes: accessMode,
          annotations: pairsOf('--annotation', flags.annotation, 'NAME=VALUE'),
        });
        made(await dataops.createVolume(client, { ...operation, pvcName, size, ...more }));
      }),
    );
}

interface CloneFlags extends SharedFlags {
  readonly newPvcName: string;
  readonly sourcePvcName?: string;
  readonly sourceSnapshotName?: string;
  readonly volumeSnapshotClass?: string;
  readonly annotation?: readonly string[];
}

function cloneVolume(clone: Command, context: CommandContext): void {
  shared(clone.command('volume').aliases(ALIASES).description('make a volume with the content of another one'), {
    dryRun: true,
  })
    .requiredOption('-p, --new-pvc-name <name>', 'name of the new claim')
    .option('-v, --source-pvc-name <name>', 'claim to clone')
    .option('-s, --source-snapshot-name <name>', 'VolumeSnapshot to clone')
    .option('-c, --volume-snapshot-class <name>', "VolumeSnapshotClass; default: the cluster's default")
    .option('--annotation <name=value>', 'of the claim, such as trident.netapp.io/splitOnClone=true', collect)
    .action((flags: CloneFlags) =>
      inSession(context, flags, async ({ dataops, client, operation, made }) => {
        const { newPvcName, sourcePvcName, sourceSnapshotName, volumeSnapshotClass } = flags;
        const more = given<Omit<CloneVolumeOptions, 'newPvcName' | keyof OperationOptions>>({
          sourcePvcName,
          sourceSnapshotName,
          volumeSnapshotClass,
          annotations: pairsOf('--annotation', flags.annotation, 'NAME=VALUE'),
        });
        made(await dataops.cloneVolume(client, { ...operation, newPvcName, ...more }));
      }),
    );
}

interface DeleteFlags extends SharedFlags {
  readonly pvcName: string;
  readonly force?: boolean;
  readonly preserveSnapshots?: boolean;
}

function deleteVolume(remove: Command, context: CommandContext): void {
  shared(remove.command('volume').aliases(ALIASES).description('delete a volume and its snapshots'), {
    dryRun: 'server',
  })
    .requiredOption('-p, --pvc-name <name>', 'claim to delete')
    .option('-f, --force', 'do not ask')
    .option('-s, --preserve-snapshots', "keep the volume's snapshots")
    .action((flags: DeleteFlags) =>
      inSession(context, flags, async ({ dataops, client, operation }) => {
        const warning = 'Warning: All data associated with the volume will be permanently deleted.';
        if (!(await agreed(flags, warning, context))) return;
        const { pvcName, preserveSnapshots = false } = flags;
        await dataops.deleteVolume(client, { ...operation, pvcName, preserveSnapshots });
      }),
    );
}

function listVolumes(list: Command, context: CommandContext): void {
  shared(
    list
      .command('volumes')
      .aliases(['vols', 'pvcs', 'persistentvolumeclaims', 'volume', 'vol', 'pvc', 'persistentvolumeclaim'])
      .description('list the volumes of a namespace'),
  ).action((flags: SharedFlags) =>
    inSession(context, flags, async (session) => {
      const volumes = await session.dataops.listVolumes(session.client, session.operation);
      session.list(volumes, {
        'PersistentVolumeClaim (PVC) Name': ({ name }) => name,
        Status: ({ status }) => status,
        Size: ({ size }) => size ?? '',
        StorageClass: ({ storageClass }) => storageClass ?? '',
        Clone: ({ clone }) => (clone ? 'Yes' : 'No'),
        'Source PVC': ({ sourcePvc, sourcePvcExists }) =>
          sourcePvc === undefined || sourcePvcExists ? (sourcePvc ?? '') : '*deleted*',
        'Source VolumeSnapshot': ({ clone, sourceSnapshot, sourceSnapshotExists }) =>
          sourceSnapshot === undefined ? (clone ? 'n/a' : '') : sourceSnapshotExists ? sourceSnapshot : '*deleted*',
        FlexCache: ({ flexCacheOf }) => (flexCacheOf === undefined ? 'No' : 'Yes'),
        'Source SVM': ({ flexCacheOf }) => flexCacheOf?.svm ?? '',
        'Source Volume': ({ flexCacheOf }) => flexCacheOf?.volume ?? '',
      });
    }),
  );
}
