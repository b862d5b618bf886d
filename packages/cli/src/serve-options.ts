/** Options of `scrim serve` as they come from the command line, and what they mean to the server. */
import { readFile } from 'node:fs/promises';
import { Option } from 'commander';
import { ScrimError } from 'scrim';
import type { ServeOptions } from 'scrim/node';

/** What commander parsed. */
export interface ServeFlags {
  readonly host: string;
  readonly httpPort: number | false;
  readonly grpcPort: number | false;
  readonly metricsPort: number | false;
  readonly modelControlMode: 'none' | 'poll' | 'explicit';
  readonly repositoryPollSecs: number;
  readonly loadModel?: string[];
  readonly strictReadiness: boolean;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsClientCa?: string;
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
    new Option('--host <address>', 'address to listen on').default('127.0.0.1'),
    new Option('--http-port <port>', 'port for HTTP; 0 for any free one').default(8000).argParser(port('--http-port')),
    new Option('--no-http-port', 'no HTTP'),
    new Option('--grpc-port <port>', 'port for gRPC; 0 for any free one').default(8001).argParser(port('--grpc-port')),
    new Option('--no-grpc-port', 'no gRPC'),
    new Option('--metrics-port <port>', 'port for /metrics; 0 for any free one')
      .default(8002)
      .argParser(port('--metrics-port')),
    new Option('--no-metrics-port', 'no metrics'),
    new Option('--model-control-mode <mode>', 'which models are served: all, as the folder changes, or as clients ask')
      .choices(['none', 'poll', 'explicit'])
      .default('none'),
    new Option('--repository-poll-secs <s>', 'seconds between looks at the repository')
      .default(15)
      .argParser(positive('--repository-poll-secs')),
    new Option('--load-model <name...>', "models to load at the start in mode explicit; '*' for all"),
    new Option('--no-strict-readiness', 'be ready even while a model is not'),
    new Option('--tls-cert <file>', 'certificate chain (PEM)'),
    new Option('--tls-key <file>', 'key of the certificate (PEM)'),
    new Option('--tls-client-ca <file>', 'authorities clients must have a certificate of (PEM)'),
    new Option('--token-file <file>', 'file with bearer tokens, one a line: calls must bear one'),
    new Option('--cors-origin <origin...>', "origins browsers may call from; '*' for any"),
    new Option('--max-body <bytes>', 'largest request').default(64 * 2 ** 20).argParser(positive('--max-body')),
    new Option('--threads <n>', 'threads for inference; default: all cores').argParser(positive('--threads')),
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
  const { tlsCert, tlsKey, tlsClientCa, tokenFile, loadModel, corsOrigin, threads } = flags;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ScrimError('INVALID_ARGUMENT', '--tls-cert and --tls-key belong together');
  }
  if (tlsClientCa !== undefined && tlsCert === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', '--tls-client-ca needs --tls-cert and --tls-key');
  }
  return {
    repository,
    host: flags.host,
    httpPort: flags.httpPort === false ? undefined : flags.httpPort,
    grpcPort: flags.grpcPort === false ? undefined : flags.grpcPort,
    metricsPort: flags.metricsPort === false ? undefined : flags.metricsPort,
    controlMode: flags.modelControlMode,
    pollSeconds: flags.repositoryPollSecs,
    strictReadiness: flags.strictReadiness,
    maxBodyBytes: flags.maxBody,
    executionProvider: flags.provider,
    instances: flags.instances,
    ...(threads === undefined ? {} : { threads }),
    ...(loadModel === undefined ? {} : { loadModels: loadModel }),
    ...(corsOrigin === undefined ? {} : { corsOrigins: corsOrigin }),
    ...(tlsCert === undefined || tlsKey === undefined
      ? {}
      : {
          tls: {
            cert: await read('--tls-cert', tlsCert),
            key: await read('--tls-key', tlsKey),
            ...(tlsClientCa === undefined ? {} : { clientCa: await read('--tls-client-ca', tlsClientCa) }),
          },
        }),
    ...(tokenFile === undefined ? {} : { tokens: tokensIn(await read('--token-file', tokenFile)) }),
  };
}

function tokensIn(text: string): string[] {
  const tokens = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (tokens.length === 0) throw new ScrimError('INVALID_ARGUMENT', '--token-file has no token');
  return tokens;
}

async function read(flag: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw ScrimError.from(error, 'NOT_FOUND', `${flag}: '${file}' can't be read`);
  }
}

function port(flag: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isInteger(value) || value < 0 || value > 65_535) {
      throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a port from 0 to 65535`);
    }
    return value;
  };
}

function positive(flag: string): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!(value > 0)) throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a number above 0`);
    return value;
  };
}
