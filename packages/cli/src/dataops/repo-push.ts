/** `scrim repo push`: the remote half of a bundle onto the volume of a Triton server. */
import type { PushRepositoryOptions } from '@scrim/dataops';
import type { Command } from 'commander';
import { ScrimError } from 'scrim';
import { exportRepository, PAYLOAD_FORMATS, type PayloadFormat } from 'scrim/client';
import { transformFlag } from '../client-flags.js';
import type { CommandContext } from '../context.js';
import { openServable } from '../remote-bundle.js';
import { formatBytes } from '../table.js';
import { given, inSession, numberOf, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface PushFlags extends SharedFlags {
  readonly bundle?: string;
  readonly model: string;
  readonly alpha: string;
  readonly transform: 'diagonal' | 'bottleneck';
  readonly pvcName: string;
  readonly payloads: string;
  readonly image?: string;
  readonly force?: boolean;
}

/** Adds the command. */
export function registerRepoPush(verbs: Verbs, context: CommandContext): void {
  const push: Command = verbs.repo
    .command('push')
    .description('Kubernetes: put the remote half of a bundle on the volume of a Triton server');
  shared(push, { dryRun: true })
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model, --transform and --alpha')
    .option('--model <file>', "ONNX file, FaceBoxes .pth checkpoint, or 'faceboxes' (npm weights)", 'faceboxes')
    .addOption(transformFlag('bottleneck'))
    .option('--alpha <a>', 'weight of privacy against accuracy, from 0 up to 1', '0.8')
    .requiredOption('-p, --pvc-name <name>', 'claim with the model repository')
    .option('--payloads <list>', 'forms of the payload, separated by commas', PAYLOAD_FORMATS.join(','))
    .option('-i, --image <image>', "image of the pod that writes (sh, tar, sha256sum); default: 'busybox:1.37.0'")
    .option('-f, --force', 'replace models that are there')
    .action((flags: PushFlags) =>
      inSession(
        context,
        flags,
        async ({ dataops, client, operation, made, say }) => {
          const bundle = await openServable({ ...flags, alpha: numberOf('--alpha', flags.alpha) ?? 0.8 });
          const files = await exportRepository(bundle, payloadsOf(flags.payloads));
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

function payloadsOf(text: string): PayloadFormat[] {
  return text.split(',').map((name) => {
    if ((PAYLOAD_FORMATS as readonly string[]).includes(name)) return name as PayloadFormat;
    throw new ScrimError('INVALID_ARGUMENT', `--payloads has '${name}', expected some of ${PAYLOAD_FORMATS.join(',')}`);
  });
}
