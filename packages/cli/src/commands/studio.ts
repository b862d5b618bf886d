/**
 * `scrim studio`: the page that shows confidential inference at work, the bundles it needs and a server for their remote
 * halves, on one local address.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { ScrimError } from 'scrim';
import { createServerLog, listenHttp, nodeEngineFactory } from 'scrim/node';
import { createInferenceServer } from 'scrim/server';
import type { CommandContext } from '../context.js';
import { loadModelSource } from '../model-source.js';
import { buildCatalogue } from '../studio-catalogue.js';
import { createStudioSite } from '../studio-site.js';

interface StudioOptions {
  readonly model: string;
  readonly bundles?: string[];
  readonly host: string;
  readonly port: number;
  readonly threads?: number;
  readonly accessLog?: boolean;
}

const DRAIN_MS = 5_000;

/** Serves until the process is asked to stop. */
export async function studio(context: CommandContext, options: StudioOptions): Promise<void> {
  const model = await loadModelSource(options.model);
  let progress: ReturnType<CommandContext['progress']> | undefined;
  const catalogue = await buildCatalogue({
    model,
    ...(options.bundles === undefined ? {} : { folders: options.bundles }),
    remark: (text) => context.remark(text),
    onProgress: (done, total) => {
      progress ??= context.progress('bundles', total);
      progress.update(done);
    },
    signal: context.signal,
  }).finally(() => progress?.stop());
  const log = createServerLog({ access: options.accessLog ?? false });
  const server = createInferenceServer({
    repository: catalogue.repository,
    engineFactory: nodeEngineFactory(options.threads === undefined ? {} : { threads: options.threads }),
    version: context.version,
    onEvent: (event) => {
      if (event.kind === 'load-failed') log.onEvent(event);
    },
  });
  context.onClose(async () => {
    await server.drain(DRAIN_MS);
    await server.close();
  });
  await server.start();
  const answer = await createStudioSite({ page: pageFolder(), catalogue, server, version: context.version });
  const listener = await listenHttp({ answer, host: options.host, port: options.port, onAccess: log.onAccess });
  context.onClose(() => listener.close(DRAIN_MS));
  context.print(`${listener.url}/`);
  context.remark(`${catalogue.bundles.length} bundles, ${catalogue.samples.length} sample photos; Ctrl-C stops`);
  await new Promise<void>((resolve) => {
    if (context.signal.aborted) resolve();
    context.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  context.remark('stopped');
}

/** Folder of the built page. */
function pageFolder(): string {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('@scrim/studio/package.json')), 'dist');
  } catch (error) {
    throw new ScrimError('NOT_FOUND', "the package '@scrim/studio' is not installed", { cause: error });
  }
}
