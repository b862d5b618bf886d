/** `scrim repo export`: the remote half of a bundle as a Triton model repository. */
import { chmod } from 'node:fs/promises';
import { ScrimError } from 'scrim';
import { exportRepository, PAYLOAD_FORMATS, type PayloadFormat } from 'scrim/client';
import { writeDirectory } from 'scrim/node';
import type { CommandContext } from '../context.js';
import { type BundleFlags, openServable } from '../remote-bundle.js';
import { formatBytes, formatTable } from '../table.js';

interface RepoExportOptions extends BundleFlags {
  readonly out: string;
  readonly payloads: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

/** Writes one model for each payload form. */
export async function repoExport(context: CommandContext, options: RepoExportOptions): Promise<void> {
  const payloads = options.payloads.split(',').map((text) => {
    if ((PAYLOAD_FORMATS as readonly string[]).includes(text)) return text as PayloadFormat;
    throw new ScrimError('INVALID_ARGUMENT', `--payloads has '${text}', expected some of ${PAYLOAD_FORMATS.join(',')}`);
  });
  const bundle = await openServable(options);
  const files = await exportRepository(bundle, payloads);
  const first = [...files.keys()][0] as string;
  await writeDirectory(options.out, files, { replace: options.force === true, marker: first });
  // Nothing in it is secret, and the server may run as another user.
  await chmod(options.out, 0o755);
  const models = [...files].filter(([path]) => path.endsWith('.onnx'));
  if (options.json) {
    context.printJson({
      bundle: bundle.hash,
      out: options.out,
      models: models.map(([path, bytes]) => ({ name: path.split('/')[0], bytes: bytes.length })),
    });
    return;
  }
  context.print(
    formatTable(
      ['model', 'size'],
      models.map(([path, bytes]) => [path.split('/')[0] as string, formatBytes(bytes.length)]),
    ),
  );
  context.remark(`written to ${options.out}; serve it with: scrim serve ${options.out}`);
}
