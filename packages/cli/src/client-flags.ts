/** Flags of commands that talk to a v2 server, and the client they describe. Tokens come from a file or SCRIM_TOKEN. */
import { readFile } from 'node:fs/promises';
import { Option } from 'commander';
import { ScrimError } from 'scrim';
import { type ExportOptions, PAYLOAD_FORMATS, type TritonClient } from 'scrim/client';
import { createGrpcClient, createTritonClient } from 'scrim/node';
import { positive } from './listener-flags.js';

/** What the flags hold. */
export interface ClientFlags {
  readonly url: string;
  readonly protocol?: 'http' | 'grpc';
  readonly tokenFile?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly timeoutMs: number;
  readonly compression: 'identity' | 'gzip' | 'deflate';
}

/** Fresh options for a command; `address` names the one for the server. */
export function clientFlags(address = '--url <url>'): Option[] {
  return [
    new Option(address, 'v2 server: http(s)://host:8000 or grpc(s)://host:8001').makeOptionMandatory(),
    new Option('--protocol <name>', 'default: as the URL says').choices(['http', 'grpc']),
    new Option('--token-file <file>', 'bearer token to send; default: SCRIM_TOKEN of the environment'),
    new Option('--ca <file>', "authorities to trust in place of the system's, PEM"),
    new Option('--cert <file>', 'certificate of this client, PEM (mutual TLS)'),
    new Option('--key <file>', 'its key, PEM'),
    new Option('--timeout-ms <n>', 'time for one call').default(60_000).argParser(positive('--timeout-ms')),
    new Option('--compression <name>', 'of request bodies')
      .choices(['identity', 'gzip', 'deflate'])
      .default('identity'),
  ];
}

/** Which of the shipped bundles a command takes. */
export function transformFlag(preset: 'diagonal' | 'bottleneck'): Option {
  return new Option('--transform <kind>', 'which of the shipped bundles')
    .choices(['diagonal', 'bottleneck'])
    .default(preset);
}

/** The flag for the form in which releases travel. */
export function payloadFlag(): Option {
  return new Option('--payload <form>', 'how a release travels').choices([...PAYLOAD_FORMATS]).default('fp16');
}

/** What the flags for an export hold. */
export type ExportFlags = Required<Pick<ExportOptions, 'payloads'>> & Pick<ExportOptions, 'candidates'>;

/** The flags of commands that export the remote half of a bundle; their names are those of {@link ExportOptions}. */
export function exportFlags(): Option[] {
  return [
    new Option('--payloads <list>', 'forms of the payload, separated by commas')
      .default(PAYLOAD_FORMATS, PAYLOAD_FORMATS.join(','))
      .argParser((text) =>
        text.split(',').map((name) => {
          const format = PAYLOAD_FORMATS.find((known) => known === name);
          if (format) return format;
          throw new ScrimError(
            'INVALID_ARGUMENT',
            `--payloads has '${name}', expected some of ${PAYLOAD_FORMATS.join(',')}`,
          );
        }),
      ),
    new Option(
      '--candidates <n>',
      "anchors that compact models of a detector answer with, or 'all'; default: 1000",
    ).argParser((text) => {
      const value = text === 'all' ? text : Number(text);
      if (value === 'all' || (Number.isInteger(value) && value >= 1)) return value;
      throw new ScrimError('INVALID_ARGUMENT', `--candidates is '${text}', expected an integer of at least 1 or 'all'`);
    }),
  ];
}

/** Makes the client. @throws ScrimError NOT_FOUND for a file that can't be read, INVALID_ARGUMENT for a wrong URL */
export async function createClient(flags: ClientFlags, maxConnections?: number): Promise<TritonClient> {
  const [ca, cert, key] = await Promise.all([flags.ca, flags.cert, flags.key].map(readPem));
  const tls = { ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) };
  const token = flags.tokenFile === undefined ? process.env.SCRIM_TOKEN : (await readText(flags.tokenFile)).trim();
  const common = {
    timeoutMs: flags.timeoutMs,
    compression: flags.compression,
    ...(token ? { bearerToken: token } : {}),
  };
  const isGrpc = flags.protocol === 'grpc' || (flags.protocol === undefined && /^grpcs?:/.test(flags.url));
  if (isGrpc) return createGrpcClient({ url: flags.url, tls, ...common });
  const url = /^[a-z]+:\/\//.test(flags.url) ? flags.url : `http://${flags.url}`;
  return createTritonClient({ url, tls, ...common, ...(maxConnections === undefined ? {} : { maxConnections }) });
}

async function readPem(file: string | undefined): Promise<string | undefined> {
  return file === undefined ? undefined : readText(file);
}

async function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: unknown) => {
    throw ScrimError.from(error, 'NOT_FOUND', `'${file}' can't be read`);
  });
}
