/** The server's log by pino: JSON lines with names, sizes, statuses and times; never payloads, headers or tokens. */
import { destination, type Logger, pino } from 'pino';
import type { ServerEvent } from '../server/index.js';
import type { AccessRecord } from './http-listener.js';

/** Where a server's events and accesses go. */
export interface ServerLog {
  onAccess(record: AccessRecord): void;
  onEvent(event: ServerEvent): void;
  /** Writes what is still held back. */
  flush(): void;
}

/** Makes a log on a file descriptor (default 2, stderr). `access` false leaves single requests out. */
export function createServerLog(options: { readonly fd?: number; readonly access?: boolean } = {}): ServerLog {
  const { fd = 2, access = true } = options;
  const sink = destination({ fd, sync: true });
  const logger: Logger = pino({ name: 'scrim', base: null }, sink);
  return {
    onAccess: (record) => {
      if (access) logger.info(record, 'access');
    },
    onEvent: (event) => {
      if (event.kind === 'load-failed') logger.error(event, event.kind);
      else logger.info(event, event.kind);
    },
    flush: () => sink.flushSync(),
  };
}
