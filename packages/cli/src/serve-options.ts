/** Options of `scrim serve` as they come from the command line, and what they mean to the server. */
import { Option } from 'commander';
import type { ServeOptions } from 'scrim/node';
import {
  integer,
  type ListenerFlags,
  listenerFlags,
  portsOf,
  positive,
  readServerTls,
  readTokens,
} from './listener-flags.js';

/** What commander parsed. */
export interface ServeFlags extends ListenerFlags {
  readonly modelControlMode: 'none' | 'poll' | 'explicit';
  readonly repositoryPollSecs: number;
  readonly loadModel?: string[];
  readonly strictReadiness: boolean;
  readonly tokenFile?: string;
  readonly corsOrigin?: string[];
  readonly maxBody: number;
  readonly threads?: number;
  readonly instances: 'thread' | 'process';
  readonly provider: 'cpu' | 'webgpu' | 'cuda';
  readonly accessLog: boolean;
  readonly drainSecs: number;
}

/** The options, in the order help shows them. */
export function serveFlags(): Option[] {
  return [
    ...listenerFlags(),
    new Option('--token-file <file>', 'file with bearer tokens, one a line: calls must bear one'),
    new Option('--cors-origin <origin...>', "origins browsers may call from; '*' for any"),
    new Option('--model-control-mode <mode>', 'which models are served: all, as the folder changes, or as clients ask')
      .choices(['none', 'poll', 'explicit'])
      .default('none'),
    new Option('--repository-poll-secs <s>', 'seconds between looks at the repository')
      .default(15)
      .argParser(positive('--repository-poll-secs')),
    new Option('--load-model <name...>', "models to load at the start in mode explicit; '*' for all"),
    new Option('--no-strict-readiness', 'be ready even while a model is not'),
    new Option('--max-body <bytes>', 'largest request').default(64 * 2 ** 20).argParser(integer('--max-body', 1)),
    new Option(
      '--threads <n>',
      'threads for inference; default: all cores, or the CPU limit of the container',
    ).argParser(integer('--threads', 1, 1024)),
    new Option('--instances <kind>', 'what an instance of a model runs in; a process ends alone when it fails')
      .choices(['thread', 'process'])
      .default('thread'),
    new Option('--provider <name>', 'execution provider').choices(['cpu', 'webgpu', 'cuda']).default('cpu'),
    new Option('--no-access-log', 'do not log single requests'),
    new Option('--drain-secs <s>', 'time for requests under way when the server is stopped')
      .default(30)
      .argParser(positive('--drain-secs')),
  ];
}

/** Reads the files the flags name. @throws ScrimError NOT_FOUND, INVALID_ARGUMENT */
export async function serveOptions(repository: string, flags: ServeFlags): Promise<ServeOptions> {
  const { loadModel, corsOrigin, threads } = flags;
  const tls = await readServerTls(flags);
  const tokens = await readTokens('--token-file', flags.tokenFile);
  return {
    repository,
    host: flags.host,
    ...portsOf(flags),
    controlMode: flags.modelControlMode,
    pollSeconds: flags.repositoryPollSecs,
    strictReadiness: flags.strictReadiness,
    maxBodyBytes: flags.maxBody,
    executionProvider: flags.provider,
    instances: flags.instances,
    ...(threads === undefined ? {} : { threads }),
    ...(loadModel === undefined ? {} : { loadModels: loadModel }),
    ...(corsOrigin === undefined ? {} : { corsOrigins: corsOrigin }),
    ...(tls === undefined ? {} : { tls }),
    ...(tokens === undefined ? {} : { tokens }),
  };
}
