/** Flags of the commands that listen, `scrim serve` and `scrim gateway`: ports, TLS and tokens, and the files they name. */
import { readFile } from 'node:fs/promises';
import { Option } from 'commander';
import { ScrimError } from 'scrim';
import type { ServerTls } from 'scrim/node';

/** What commander parsed. */
export interface ListenerFlags {
  readonly host: string;
  readonly httpPort: number | false;
  readonly grpcPort: number | false;
  readonly metricsPort: number | false;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsClientCa?: string;
}

/** Address, ports and TLS, in the order help shows them. */
export function listenerFlags(): Option[] {
  return [
    new Option('--host <address>', 'address to listen on').default('127.0.0.1'),
    port('--http-port', 'port for HTTP', 8000),
    new Option('--no-http-port', 'no HTTP'),
    port('--grpc-port', 'port for gRPC', 8001),
    new Option('--no-grpc-port', 'no gRPC'),
    port('--metrics-port', 'port for /metrics', 8002),
    new Option('--no-metrics-port', 'no metrics'),
    new Option('--tls-cert <file>', 'certificate chain (PEM)'),
    new Option('--tls-key <file>', 'key of the certificate (PEM)'),
    new Option('--tls-client-ca <file>', 'authorities clients must have a certificate of (PEM)'),
  ];
}

/** A parser of integers from `low` to `high` that names the flag. */
export function integer(flag: string, low: number, high: number = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const range = high === Number.MAX_SAFE_INTEGER ? `of at least ${low}` : `from ${low} to ${high}`;
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (Number.isSafeInteger(value) && value >= low && value <= high) return value;
    throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected an integer ${range}`);
  };
}

/** A parser of numbers above 0 that names the flag. */
export function positive(flag: string): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (value > 0 && Number.isFinite(value)) return value;
    throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a number above 0`);
  };
}

/** Ports as the listeners take them. @throws ScrimError INVALID_ARGUMENT if there is nothing to listen for */
export function portsOf({ httpPort, grpcPort, metricsPort }: ListenerFlags): {
  readonly httpPort: number | undefined;
  readonly grpcPort: number | undefined;
  readonly metricsPort: number | undefined;
} {
  if (httpPort === false && grpcPort === false) {
    throw new ScrimError('INVALID_ARGUMENT', '--no-http-port and --no-grpc-port together leave nothing to listen for');
  }
  const given = (value: number | false): number | undefined => (value === false ? undefined : value);
  return { httpPort: given(httpPort), grpcPort: given(grpcPort), metricsPort: given(metricsPort) };
}

/** Reads the certificates; undefined without TLS. @throws ScrimError NOT_FOUND, INVALID_ARGUMENT */
export async function readServerTls(flags: ListenerFlags): Promise<ServerTls | undefined> {
  const { tlsCert, tlsKey, tlsClientCa } = flags;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ScrimError('INVALID_ARGUMENT', '--tls-cert and --tls-key belong together');
  }
  if (tlsCert === undefined || tlsKey === undefined) {
    if (tlsClientCa === undefined) return undefined;
    throw new ScrimError('INVALID_ARGUMENT', '--tls-client-ca needs --tls-cert and --tls-key');
  }
  return {
    cert: await readFlagFile('--tls-cert', tlsCert),
    key: await readFlagFile('--tls-key', tlsKey),
    ...(tlsClientCa === undefined ? {} : { clientCa: await readFlagFile('--tls-client-ca', tlsClientCa) }),
  };
}

/** Tokens of a file, one a line, '#' for remarks; undefined without a file. @throws ScrimError NOT_FOUND, INVALID_ARGUMENT */
export async function readTokens(flag: string, file: string | undefined): Promise<string[] | undefined> {
  if (file === undefined) return undefined;
  const tokens = new TextDecoder()
    .decode(await readFlagFile(flag, file))
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (tokens.length === 0) throw new ScrimError('INVALID_ARGUMENT', `${flag}: '${file}' has no token`);
  const wrong = tokens.findIndex((token) => /\s/.test(token));
  // A bearer token has no white space (RFC 6750): such a line could never match.
  if (wrong !== -1)
    throw new ScrimError('INVALID_ARGUMENT', `${flag}: token ${wrong + 1} of '${file}' has a space in it`);
  return tokens;
}

/** A file that a flag names. @throws ScrimError NOT_FOUND */
export async function readFlagFile(flag: string, file: string): Promise<Uint8Array> {
  return readFile(file).catch((error: unknown) => {
    throw ScrimError.from(error, 'NOT_FOUND', `${flag}: '${file}' can't be read`);
  });
}

function port(flag: string, what: string, fallback: number): Option {
  return new Option(`${flag} <port>`, `${what}; 0 for any free one`)
    .default(fallback)
    .argParser(integer(flag, 0, 65_535));
}
