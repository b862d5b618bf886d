/** `scrim gateway`: existing v2 clients on one side, a v2 server that sees releases alone on the other. */
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
  type Gateway,
  type GatewayLedgerOptions,
  type HttpListenerOptions,
  listenGrpc,
  listenHttp,
  openLedger,
} from 'scrim/node';
import { type ClientFlags, createClient } from '../client-flags.js';
import type { CommandContext } from '../context.js';
import { type LedgerFlags, policyOf } from '../ledger-flags.js';
import { type ListenerFlags, portsOf, readFlagFile, readServerTls, readTokens } from '../listener-flags.js';
import { type BundleFlags, openServable } from '../remote-bundle.js';
import { formatTable } from '../table.js';

interface GatewayFlags extends Omit<ClientFlags, 'url'>, ListenerFlags, BundleFlags, LedgerFlags {
  readonly upstream: string;
  readonly payload: PayloadFormat;
  readonly remoteModel?: string;
  readonly name?: string;
  readonly clientTokens?: string;
  readonly repeatableSecret?: string;
  readonly releaseCounts: boolean;
  readonly subjectHeader: string;
  readonly raiseTo?: readonly string[];
  readonly size?: number;
  readonly concurrency: number;
  readonly threads?: number;
}

/** Serves until the process is asked to stop, then prints how often images were released. */
export async function gateway(context: CommandContext, flags: GatewayFlags): Promise<void> {
  const ports = portsOf(flags);
  const tls = await readServerTls(flags);
  const tokens = await readTokens('--client-tokens', flags.clientTokens);
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
            secret: await readFlagFile('--repeatable-secret', flags.repeatableSecret),
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
    concurrency: flags.concurrency,
    countReleases: flags.releaseCounts,
    version: context.version,
    ...(flags.size === undefined ? {} : { resize: { kind: 'stretch', width: flags.size, height: flags.size } }),
    ...(ledger ? { ledger } : {}),
    ...(flags.name === undefined ? {} : { name: flags.name }),
  });
  context.onClose(() => running.close());
  const shared = { host: flags.host, ...(tls ? { tls } : {}), ...(tokens ? { tokens } : {}) };
  await listen(context, running, ports, shared);
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
  running: Gateway,
  { httpPort, grpcPort, metricsPort }: ReturnType<typeof portsOf>,
  shared: Pick<HttpListenerOptions, 'host' | 'tls' | 'tokens'>,
): Promise<void> {
  if (httpPort !== undefined) {
    const http = await listenHttp({ ...shared, port: httpPort, answer: (call) => running.answer(call) });
    context.onClose(() => http.close(1000));
    context.remark(`HTTP     ${http.url}`);
  }
  if (grpcPort !== undefined) {
    const grpc = await listenGrpc({ ...shared, port: grpcPort, server: running.server, infer: running.infer });
    context.onClose(() => grpc.close(1000));
    context.remark(`gRPC     ${grpc.address}`);
  }
  if (metricsPort !== undefined) {
    const metrics = await listenHttp({
      ...(shared.host === undefined ? {} : { host: shared.host }),
      port: metricsPort,
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
