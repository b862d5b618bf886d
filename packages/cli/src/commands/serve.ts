/** `scrim serve`: a model repository over HTTP and gRPC, as Triton serves it. */
import { createServerLog, serveRepository } from 'scrim/node';
import type { CommandContext } from '../context.js';
import { type ServeFlags, serveOptions } from '../serve-options.js';

/** Serves until the process is asked to stop, then finishes what it has and closes. */
export async function serve(context: CommandContext, flags: ServeFlags, [repository]: string[]): Promise<void> {
  const log = createServerLog({ access: flags.accessLog });
  const options = await serveOptions(repository!, flags);
  const running = await serveRepository({
    ...options,
    version: context.version,
    onAccess: log.onAccess,
    onEvent: log.onEvent,
  });
  const { http, grpc, metrics, server } = running;
  if (http) context.remark(`HTTP    ${http.url}`);
  if (grpc) context.remark(`gRPC    ${grpc.address}`);
  if (metrics) context.remark(`metrics ${metrics.url}/metrics`);
  if (!server.ready()) context.remark('not ready: a model could not be loaded; see the log and the repository index');
  await new Promise<void>((resolve) => {
    if (context.signal.aborted) resolve();
    context.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await running.close(flags.drainSecs * 1_000);
  log.flush();
  context.remark('stopped');
}
