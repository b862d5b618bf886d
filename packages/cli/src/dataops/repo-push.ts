/** `scrim repo push`: the remote half of a bundle onto the volume of a Triton server. */
import type { PushRepositoryOptions } from '@scrim/dataops';
import type { Command } from 'commander';
import { exportRepository } from 'scrim/client';
import { type ExportFlags, exportFlags, transformFlag } from '../client-flags.js';
import type { CommandContext } from '../context.js';
import { openServable } from '../remote-bundle.js';
import { formatBytes } from '../table.js';
import { given, inSession, numberOf, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface PushFlags extends SharedFlags, ExportFlags {
  readonly bundle?: string;
  readonly model: string;
  readonly alpha: string;
  readonly transform: 'diagonal' | 'bottleneck';
  readonly pvcName: string;
  readonly image?: string;
  readonly force?: boolean;
}

/** Adds the command. */
export function registerRepoPush(verbs: Verbs, context: CommandContext): void {
  const push: Command = verbs.repo
    .command('push')
    .description('Kubernetes: put the remote half of a bundle on the volume of a Triton server');
  for (const flag of exportFlags()) push.addOption(flag);
  shared(push, { dryRun: true })
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model, --transform and --alpha')
    .option('--model <file>', "ONNX file, FaceBoxes .pth checkpoint, or 'faceboxes' (npm weights)", 'faceboxes')
    .addOption(transformFlag('bottleneck'))
    .option('--alpha <a>', 'weight of privacy against accuracy, from 0 up to 1', '0.8')
    .requiredOption('-p, --pvc-name <name>', 'claim with the model repository')
    .option('-i, --image <image>', "image of the pod that writes (sh, tar, sha256sum); default: 'busybox:1.37.0'")
    .option('-f, --force', 'replace models that are there')
    .action((flags: PushFlags) =>
      inSession(
        context,
        flags,
        async ({ dataops, client, operation, made, say }) => {
          const bundle = await openServable({ ...flags, alpha: numberOf('--alpha', flags.alpha) ?? 0.8 });
          const files = await exportRepository(bundle, flags);
          const progress = context.progress('push', Math.max(1, Math.round(sizeOf(files) / 1024)));
          let result: Awaited<ReturnType<typeof dataops.pushRepository>>;
          try {
            result = await dataops.pushRepository(client, {
              ...operation,
              pvcName: flags.pvcName,
              files,
              replace: flags.force ?? false,
              onSent: (sent) =>
                progress.update(Math.min(Math.round(sent / 1024), Math.round(sizeOf(files) / 1024)), 'KiB'),
              ...given<Pick<PushRepositoryOptions, 'image'>>({ image: flags.image }),
            });
          } finally {
            progress.stop();
          }
          say(
            `Pushed ${result.models.length} models (${result.files} files, ${formatBytes(result.bytes)}, checksums verified) ` +
              `to volume '${flags.pvcName}' in namespace '${flags.namespace}':`,
          );
          for (const model of result.models) say(model);
          made(result);
        },
        () => undefined,
      ),
    );
}

function sizeOf(files: ReadonlyMap<string, Uint8Array>): number {
  return [...files.values()].reduce((sum, { length }) => sum + length, 0);
}
