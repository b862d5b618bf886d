/** `scrim gateway`: existing v2 clients on one side, a v2 server that sees releases alone on the other. */
import { readFile } from 'node:fs/promises';
import { type Bundle, ScrimError } from 'scrim';
import {
  type ConfidentialSession,
  type ConfidentialSessionOptions,
  createConfidentialSession,
  type PayloadFormat,
} from 'scrim/client';
import {
  createGateway,
  createNodeCrypto,
  createNodeEngine,
  type GatewayLedgerOptions,
  listenGrpc,
  listenHttp,
  openLedger,
} from 'scrim/node';
import { type ClientFlags, createClient } from '../client-flags.js';
import type { CommandContext } from '../context.js';
import { type LedgerFlags, policyOf } from '../ledger-flags.js';
import { type BundleFlags, openServable } from '../remote-bundle.js';
import { formatTable } from '../table.js';

interface GatewayFlags extends Omit<ClientFlags, 'url'>, BundleFlags, LedgerFlags {
  readonly upstream: string;
  readonly payload: PayloadFormat;
  readonly remoteModel?: string;
  readonly name?: string;
  readonly host: string;
  readonly httpPort: number | false;
  readonly grpcPort: number | false;
  readonly metricsPort: number | false;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsClientCa?: string;
  readonly clientTokens?: string;
  readonly repeatableSecret?: string;
  readonly releaseCounts: boolean;
  readonly subjectHeader: string;
  readonly raiseTo?: readonly string[];
  readonly size: number;
  readonly concurrency: number;
  readonly threads?: number;
}

/** Serves until the process is asked to stop, then prints how often images were released. */
export async function gateway(context: CommandContext, flags: GatewayFlags): Promise<void> {
  if ((flags.tlsCert === undefined) !== (flags.tlsKey === undefined)) {
    throw new ScrimError('INVALID_ARGUMENT', '--tls-cert and --tls-key belong together');
  }
  const bundle = await openServable(flags);
  const upstream = await createClient({ ...flags, url: flags.upstream });
  context.onClose(() => upstream.close());
  const engine = await createNodeEngine(flags.threads === undefined ? {} : { threads: flags.threads });
  context.onClose(() => engine.close());
  const common: Omit<ConfidentialSessionOptions, 'bundle'> = {
    client: upstream,
    engine,
    crypto: createNodeCrypto(),
    payload: flags.payload,
    ...(flags.repeatableSecret === undefined
      ? {}
      : {
          noise: {
            mode: 'repeatable' as const,
            secret: await readInput('--repeatable-secret', flags.repeatableSecret),
          },
        }),
  };
  const openSession = async (of: Bundle, model: string | undefined): Promise<ConfidentialSession> => {
    const opened = await createConfidentialSession({
      ...common,
      bundle: of,
      ...(model === undefined ? {} : { model }),
    });
    context.onClose(() => opened.close());
    return opened;
  };
  const session = await openSession(bundle, flags.remoteModel);
  const ledger = await openGatewayLedger(context, flags, openSession);
  const running = await createGateway({
    bundle,
    session,
    upstream,
    resize: { kind: 'stretch', width: flags.size, height: flags.size },
    concurrency: flags.concurrency,
    countReleases: flags.releaseCounts,
    version: context.version,
    ...(ledger ? { ledger } : {}),
    ...(flags.name === undefined ? {} : { name: flags.name }),
  });
  context.onClose(() => running.close());
  await listen(context, flags, running);
  context.remark(`upstream ${upstream.url}, model ${session.model}, payload ${session.payload}`);
  await new Promise<void>((resolve) => {
    if (context.signal.aborted) resolve();
    context.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await running.server.drain(10_000);
  const counts = running.report();
  if (counts.length > 0) {
    context.print(
      formatTable(
        ['client', 'releases', 'images', 'most of one image'],
        counts.map(({ client, releases, images, most }) => [client, ...[releases, images, most].map(String)]),
      ),
    );
  }
}

/** The ledger with the policy of the flags, and a session for each bundle of higher alpha. */
async function openGatewayLedger(
  context: CommandContext,
  flags: GatewayFlags,
  openSession: (bundle: Bundle, model: string | undefined) => Promise<ConfidentialSession>,
): Promise<GatewayLedgerOptions | undefined> {
  const policy = policyOf(flags);
  if (flags.ledger === undefined) {
    if (!policy && flags.raiseTo === undefined) return undefined;
    throw new ScrimError('INVALID_ARGUMENT', '--max-releases, --max-nats, --period and --raise-to need a --ledger');
  }
  const store = await openLedger({
    file: flags.ledger,
    ...(flags.ledgerSecret === undefined ? {} : { secretFile: flags.ledgerSecret }),
  });
  context.onClose(() => store.close());
  if (policy) store.setPolicy(policy);
  const raiseTo: { bundle: Bundle; session: ConfidentialSession }[] = [];
  for (const entry of flags.raiseTo ?? []) {
    const at = entry.lastIndexOf('=');
    const [directory, model] = at < 0 ? [entry, undefined] : [entry.slice(0, at), entry.slice(at + 1)];
    const bundle = await openServable({ ...flags, bundle: directory });
    raiseTo.push({ bundle, session: await openSession(bundle, model) });
  }
  context.remark(`ledger   ${flags.ledger}, subjects from '${flags.subjectHeader}'`);
  return { ledger: store, subjectHeader: flags.subjectHeader, raiseTo };
}

async function listen(
  context: CommandContext,
  flags: GatewayFlags,
  running: Awaited<ReturnType<typeof createGateway>>,
): Promise<void> {
  const { host } = flags;
  const tls =
    flags.tlsCert === undefined || flags.tlsKey === undefined
      ? {}
      : {
          tls: {
            cert: await readInput('--tls-cert', flags.tlsCert),
            key: await readInput('--tls-key', flags.tlsKey),
            ...(flags.tlsClientCa === undefined
              ? {}
              : { clientCa: await readInput('--tls-client-ca', flags.tlsClientCa) }),
          },
        };
  const lines = flags.clientTokens === undefined ? undefined : await readInput('--client-tokens', flags.clientTokens);
  const tokens =
    lines &&
    new TextDecoder()
      .decode(lines)
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter(Boolean);
  if (tokens?.length === 0) throw new ScrimError('INVALID_ARGUMENT', '--client-tokens has no token');
  const shared = { host, ...tls, ...(tokens === undefined ? {} : { tokens }) };
  if (flags.httpPort !== false) {
    const http = await listenHttp({ ...shared, port: flags.httpPort, answer: (call) => running.answer(call) });
    context.onClose(() => http.close(1000));
    context.remark(`HTTP     ${http.url}`);
  }
  if (flags.grpcPort !== false) {
    const grpc = await listenGrpc({ ...shared, port: flags.grpcPort, server: running.server });
    context.onClose(() => grpc.close(1000));
    context.remark(`gRPC     ${grpc.address}`);
  }
  if (flags.metricsPort !== false) {
    const metrics = await listenHttp({
      host,
      port: flags.metricsPort,
      maxBodyBytes: 0,
      answer: async (call) => {
        if (call.path !== '/releases')
          return running.server.answer({ ...call, path: call.path === '/metrics' ? call.path : '/' });
        const body = new TextEncoder().encode(JSON.stringify({ clients: running.report() }));
        return { status: 200, headers: { 'content-type': 'application/json' }, parts: [body] };
      },
    });
    context.onClose(() => metrics.close(1000));
    context.remark(`metrics  ${metrics.url}/metrics, counts of releases ${metrics.url}/releases`);
  }
}

async function readInput(flag: string, file: string): Promise<Uint8Array> {
  return readFile(file).catch((error: unknown) => {
    throw ScrimError.from(error, 'NOT_FOUND', `${flag}: '${file}' can't be read`);
  });
}
