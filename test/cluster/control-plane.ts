/**
 * Starts and stops a real Kubernetes control plane on the loopback interface: etcd, kube-apiserver (RBAC, bearer
 * tokens, TLS with a certificate it signs itself), kube-controller-manager and kube-scheduler. What has no real
 * counterpart here is simulated beside it: node-simulator.ts plays the kubelet, storage-simulator.ts a CSI driver.
 * build-control-plane.sh builds the binaries.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AdminApi } from './admin-api.js';

/** Users with a token each; 'limited' has no rights but those a test gives it. */
const USERS = {
  admin: 'system:masters',
  'system:kube-controller-manager': '',
  'system:kube-scheduler': '',
  limited: '',
} as const;
type User = keyof typeof USERS;

/** A running control plane. */
export interface ControlPlane {
  readonly server: string;
  readonly directory: string;
  readonly api: AdminApi;
  /** Path of a kubeconfig for a user. */
  kubeconfig(user: 'admin' | 'limited'): string;
  /** Ends the API server and starts it again on the same port and data, after `pauseMs`. */
  restartApiServer(pauseMs: number): Promise<void>;
  /** Stops the controller manager where it stands, or lets it go on. */
  freezeControllers(frozen: boolean): void;
  stop(): Promise<void>;
}

/** Directory of the binaries; builds them if they are missing. */
export function controlPlaneBinaries(): string {
  const script = fileURLToPath(new URL('build-control-plane.sh', import.meta.url));
  const output = execFileSync('bash', [script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  return output.trim().split('\n').at(-1) ?? '';
}

/** Starts a control plane and waits until it answers. */
export async function startControlPlane(): Promise<ControlPlane> {
  const bin = controlPlaneBinaries();
  const directory = mkdtempSync(join(tmpdir(), 'scrim-cluster-'));
  const file = (name: string): string => join(directory, name);
  const [etcdPort, peerPort, apiPort] = await freePorts(3);
  const server = `https://127.0.0.1:${apiPort}`;
  const tokens = Object.fromEntries(Object.keys(USERS).map((user) => [user, randomBytes(16).toString('hex')]));
  writeFileSync(
    file('tokens.csv'),
    Object.entries(USERS)
      .map(([user, group]) => `${tokens[user]},${user},${user}${group === '' ? '' : `,"${group}"`}`)
      .join('\n'),
    { mode: 0o600 },
  );
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  writeFileSync(file('sa.key'), privateKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 });
  writeFileSync(file('sa.pub'), publicKey.export({ type: 'spki', format: 'pem' }));

  const children = new Map<string, ChildProcess>();
  const start = (name: string, command: string, args: readonly string[]): void => {
    const log = openSync(file(`${name}.log`), 'a');
    children.set(name, spawn(command, args, { stdio: ['ignore', log, log] }));
    closeSync(log);
  };
  const stopChild = async (name: string): Promise<void> => {
    const child = children.get(name);
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
    await ended;
    clearTimeout(timer);
  };
  const startApiServer = (): void =>
    start('kube-apiserver', join(bin, 'kube-apiserver'), [
      `--etcd-servers=http://127.0.0.1:${etcdPort}`,
      '--bind-address=127.0.0.1',
      `--secure-port=${apiPort}`,
      `--cert-dir=${file('certs')}`,
      `--token-auth-file=${file('tokens.csv')}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.0.0.0/16',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${file('sa.pub')}`,
      `--service-account-signing-key-file=${file('sa.key')}`,
      '--endpoint-reconciler-type=none',
      '--shutdown-delay-duration=0',
    ]);
  const kubeconfig = (user: User): string => {
    const path = file(`${user.replace(/\W/g, '-')}.kubeconfig`);
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'test',
      clusters: [{ name: 'test', cluster: { server, 'certificate-authority': file('certs/apiserver.crt') } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user, namespace: 'default' } }],
      users: [{ name: user, user: { token: tokens[user] } }],
    };
    writeFileSync(path, JSON.stringify(config), { mode: 0o600 });
    return path;
  };
  let api: AdminApi | undefined;
  const stop = async (): Promise<void> => {
    api?.close();
    for (const name of ['kube-scheduler', 'kube-controller-manager', 'kube-apiserver', 'etcd']) await stopChild(name);
    rmSync(directory, { recursive: true, force: true });
  };

  try {
    start('etcd', 'etcd', [
      `--data-dir=${file('etcd')}`,
      `--listen-client-urls=http://127.0.0.1:${etcdPort}`,
      `--advertise-client-urls=http://127.0.0.1:${etcdPort}`,
      `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-cluster=default=http://127.0.0.1:${peerPort}`,
    ]);
    startApiServer();
    const ca = await eventually(60_000, () => readFileSync(file('certs/apiserver.crt'), 'utf8'));
    api = new AdminApi(server, ca, tokens.admin ?? '');
    const ready = (): Promise<unknown> =>
      eventually(60_000, async () => {
        if ((await api?.get('/readyz')) !== 'ok') throw new Error('the API server is not ready');
      });
    await ready();
    for (const name of ['kube-controller-manager', 'kube-scheduler'] as const) {
      start(name, join(bin, name), [
        `--kubeconfig=${kubeconfig(`system:${name}`)}`,
        '--leader-elect=false',
        '--port=0',
        '--secure-port=0',
        ...(name === 'kube-scheduler'
          ? []
          : [
              '--use-service-account-credentials=true',
              `--service-account-private-key-file=${file('sa.key')}`,
              `--root-ca-file=${file('certs/apiserver.crt')}`,
              '--enable-hostpath-provisioner',
            ]),
      ]);
    }
    await eventually(60_000, () => api?.get('/api/v1/namespaces/default/serviceaccounts/default'));
    return {
      server,
      directory,
      api,
      kubeconfig,
      restartApiServer: async (pauseMs) => {
        await stopChild('kube-apiserver');
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        startApiServer();
        await ready();
      },
      freezeControllers: (frozen) => void children.get('kube-controller-manager')?.kill(frozen ? 'SIGSTOP' : 'SIGCONT'),
      stop,
    };
  } catch (error) {
    const log = ['etcd', 'kube-apiserver', 'kube-controller-manager']
      .map((name) => `${name}: ${tail(file(`${name}.log`))}`)
      .join('\n');
    await stop();
    throw new Error(`the control plane did not start: ${String(error)}\n${log}`);
  }
}

/** Tries `task` until it succeeds. */
export async function eventually<T>(timeoutMs: number, task: () => T | Promise<T>): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await task();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function tail(path: string): string {
  try {
    return readFileSync(path, 'utf8').split('\n').slice(-8).join('\n');
  } catch {
    return '(no log)';
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const socket = createServer();
          socket.listen(0, '127.0.0.1', () => resolve(socket));
        }),
    ),
  );
  const ports = servers.map((socket) => (socket.address() as { port: number }).port);
  await Promise.all(servers.map((socket) => new Promise((resolve) => socket.close(resolve))));
  return ports;
}
