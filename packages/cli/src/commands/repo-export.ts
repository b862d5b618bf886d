/** `scrim repo export`: the remote half of a bundle as a Triton model repository. */
import { chmod } from 'node:fs/promises';
import { candidatesOf, exportRepository } from 'scrim/client';
import { writeDirectory } from 'scrim/node';
import { Graph } from 'scrim/onnx';
import type { ExportFlags } from '../client-flags.js';
import type { CommandContext } from '../context.js';
import { type BundleFlags, openServable } from '../remote-bundle.js';
import { formatBytes, formatTable } from '../table.js';

interface RepoExportOptions extends BundleFlags, ExportFlags {
  readonly out: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

/** Writes one model for each payload form. */
export async function repoExport(context: CommandContext, options: RepoExportOptions): Promise<void> {
  const bundle = await openServable(options);
  const files = await exportRepository(bundle, options);
  const first = [...files.keys()][0] as string;
  await writeDirectory(options.out, files, { replace: options.force === true, marker: first });
  // Nothing in it is secret, and the server may run as another user.
  await chmod(options.out, 0o755);
  const models = [...files].flatMap(([path, bytes]) =>
    path.endsWith('.onnx')
      ? [{ name: path.split('/')[0] as string, bytes: bytes.length, candidates: candidatesOf(Graph.decode(bytes)) }]
      : [],
  );
  if (options.json) {
    context.printJson({ bundle: bundle.hash, out: options.out, models });
    return;
  }
  context.print(
    formatTable(
      ['model', 'size', 'candidates'],
      models.map(({ name, bytes, candidates }) => [name, formatBytes(bytes), String(candidates)]),
    ),
  );
  context.remark(`written to ${options.out}; serve it with: scrim serve ${options.out}`);
}
