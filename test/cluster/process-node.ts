/**
 * HALF REAL: a node whose kubelet runs a pod's command as a process of this machine, so that logs and commands in pods
 * pass through the real API server. There are no containers: the image's name alone decides what is run (images that
 * start with 'scrim-job' run this tree's `scrim`; the command of the rest is looked up among the programs a test
 * gives), and paths below a volume's mount become paths of the simulated volume's directory. Init containers run first,
 * one after another. Pods outside Jobs only get the state Running; commands can be run in them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';
import type { AdminApi, Json } from './admin-api.js';
import { NODE_ADDRESS } from './node-simulator.js';
import type { StorageSimulator } from './storage-simulator.js';

const NODE = 'process-node';
const LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
const SCRIM = fileURLToPath(new URL('../../packages/cli/bin/scrim.js', import.meta.url));

/** What tests see of it. */
export interface ProcessNode {
  /** Calls `listener` when a pod's process has started; it may kill it. */
  onStart(listener: (pod: Json, process: ChildProcess) => void): void;
  /** Cuts the next connection of a command in a pod that gets more than this many bytes of input. */
  cutNextCommandAfter(bytes: number): void;
  stop(): Promise<void>;
}

interface Container {
  log: string;
  ended: boolean;
  readonly listeners: Set<() => void>;
  process?: ChildProcess;
}

/** Registers the node and plays its kubelet. `certificates` is the API server's folder of certificates; `programs` are paths of programs by their command. */
export async function startProcessNode(
  api: AdminApi,
  storage: StorageSimulator,
  certificates: string,
  programs: Readonly<Record<string, string>> = {},
): Promise<ProcessNode> {
  const stop = new AbortController();
  const containers = new Map<string, Container>();
  const listeners: ((pod: Json, process: ChildProcess) => void)[] = [];
  let cutAfter = Number.POSITIVE_INFINITY;

  const scratch = mkdtempSync(join(tmpdir(), 'scrim-process-node-'));
  const directories = async (pod: Json, container: Json): Promise<[mount: string, directory: string][]> => {
    const found: [string, string][] = [];
    const { namespace, uid } = pod.metadata;
    for (const { name, mountPath } of container.volumeMounts ?? []) {
      const volume = pod.spec.volumes.find((each: Json) => each.name === name);
      if (volume?.persistentVolumeClaim !== undefined) {
        found.push([mountPath, await storage.directoryOf(namespace, volume.persistentVolumeClaim.claimName)]);
        continue;
      }
      const directory = join(scratch, uid, name);
      mkdirSync(directory, { recursive: true });
      if (volume?.configMap !== undefined) {
        const { data } = await api.get(`/api/v1/namespaces/${namespace}/configmaps/${volume.configMap.name}`);
        const items: Json[] = volume.configMap.items ?? Object.keys(data).map((key) => ({ key, path: key }));
        for (const { key, path } of items) writeFileSync(join(directory, path), data[key]);
      }
      found.push([mountPath, directory]);
    }
    return found;
  };
  const onMachine = (words: readonly string[], mounts: readonly [string, string][]): string[] =>
    words.map((word) => {
      const [, flag = '', value = ''] = /^(--[a-z-]+=)?(.*)$/s.exec(word) ?? [];
      const hit = mounts.find(([mount]) => value === mount || value.startsWith(`${mount}/`));
      return hit === undefined ? word : flag + hit[1] + value.slice(hit[0].length);
    });

  const environmentOf = async (namespace: string, spec: Json): Promise<Record<string, string>> => {
    const environment: Record<string, string> = {};
    for (const { name, value, valueFrom } of spec.env ?? []) {
      const { name: secret, key } = valueFrom?.secretKeyRef ?? {};
      if (secret === undefined) environment[name] = value ?? '';
      else {
        const { data } = await api.get(`/api/v1/namespaces/${namespace}/secrets/${secret}`);
        environment[name] = Buffer.from(data[key], 'base64').toString('utf8');
      }
    }
    return environment;
  };

  const run = async (pod: Json, spec: Json): Promise<number> => {
    const { namespace, name } = pod.metadata;
    const given = await environmentOf(namespace, spec);
    const expand = (text: string): string => text.replace(/\$\((\w+)\)/g, (whole, key) => given[key] ?? whole);
    const mounts = await directories(pod, spec);
    const words = onMachine((spec.args ?? []).map(expand), mounts);
    const keys = Object.keys(given);
    const environment = Object.fromEntries(onMachine(Object.values(given), mounts).map((value, i) => [keys[i], value]));
    const container: Container = { log: '', ended: false, listeners: new Set() };
    containers.set(`${namespace}/${name}/${spec.name}`, container);
    const program = programs[spec.command?.[0] ?? ''];
    const child = spawn(program ?? process.execPath, program === undefined ? [SCRIM, ...words] : words, {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    container.process = child;
    const write = (chunk: Buffer): void => {
      container.log += chunk.toString('utf8');
      for (const listener of container.listeners) listener();
    };
    child.stdout.on('data', write);
    child.stderr.on('data', write);
    for (const listener of listeners) listener(pod, child);
    const code = await new Promise<number>((resolve) => child.once('close', (exit) => resolve(exit ?? 137)));
    container.ended = true;
    for (const listener of container.listeners) listener();
    return code;
  };

  const server = await listen(certificates);
  const port = (server.address() as { port: number }).port;
  server.on('request', (request, response) => {
    const url = new URL(request.url ?? '', 'https://kubelet');
    const [, kind, namespace, name, of] = url.pathname.split('/');
    const container = containers.get(`${namespace}/${name}/${of}`);
    if (kind !== 'containerLogs' || container === undefined) {
      response.writeHead(404).end('no such container');
      return;
    }
    response.writeHead(200, { 'Content-Type': 'text/plain' });
    response.flushHeaders();
    let sent = 0;
    const send = (): void => {
      response.write(container.log.slice(sent));
      sent = container.log.length;
      if (!container.ended && url.searchParams.get('follow') === 'true') return;
      container.listeners.delete(send);
      response.end();
    };
    container.listeners.add(send);
    response.on('close', () => container.listeners.delete(send));
    send();
  });
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'v4.channel.k8s.io' });
  server.on('upgrade', (request, socket: Duplex, head) => {
    const url = new URL(request.url ?? '', 'https://kubelet');
    const [, kind, namespace, name] = url.pathname.split('/');
    if (kind !== 'exec') {
      socket.destroy();
      return;
    }
    sockets.handleUpgrade(request, socket, head, (connection) => {
      const early: Buffer[] = [];
      let deliver = (data: Buffer): void => void early.push(data);
      let received = 0;
      connection.on('message', (data: Buffer) => {
        received += data.length;
        if (received <= cutAfter) return deliver(data);
        cutAfter = Number.POSITIVE_INFINITY;
        connection.terminate();
      });
      void (async () => {
        const pod = await api.get(`/api/v1/namespaces/${namespace}/pods/${name}`);
        const words = onMachine(url.searchParams.getAll('command'), await directories(pod, pod.spec.containers[0]));
        const child = spawn(words[0] ?? 'false', words.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
        child.stdin.on('error', () => undefined);
        deliver = (data) => void (data[0] === 0 && child.stdin.write(data.subarray(1)));
        early.forEach((data) => {
          deliver(data);
        });
        // The connection may have been cut before the process was there: it must not wait for more input then.
        if (connection.readyState === connection.OPEN) connection.once('close', () => child.stdin.end());
        else child.stdin.end();
        child.stdout.on('data', (chunk: Buffer) => connection.send(Buffer.concat([Buffer.of(1), chunk])));
        child.stderr.on('data', (chunk: Buffer) => connection.send(Buffer.concat([Buffer.of(2), chunk])));
        child.once('close', (code) => {
          const failure = {
            status: 'Failure',
            reason: 'NonZeroExitCode',
            message: `command terminated with non-zero exit code ${code}`,
            details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
          };
          const status = { metadata: {}, ...(code === 0 ? { status: 'Success' } : failure) };
          connection.send(Buffer.concat([Buffer.of(3), Buffer.from(JSON.stringify(status))]));
          connection.close();
        });
      })();
    });
  });

  await api.ensure('/api/v1/nodes', { apiVersion: 'v1', kind: 'Node', metadata: { name: NODE } });
  const resources = { cpu: '8', memory: '32Gi', pods: '110', 'ephemeral-storage': '100Gi', 'nvidia.com/gpu': '2' };
  const beat = async (): Promise<void> => {
    const now = new Date().toISOString();
    const status = { status: 'True', reason: 'Simulated', lastHeartbeatTime: now, lastTransitionTime: now };
    await api.patch(`/api/v1/nodes/${NODE}/status`, {
      status: {
        capacity: resources,
        allocatable: resources,
        // The API server asks this machine for logs and commands; people are shown the document's address.
        addresses: [
          { type: 'Hostname', address: '127.0.0.1' },
          { type: 'InternalIP', address: NODE_ADDRESS },
        ],
        daemonEndpoints: { kubeletEndpoint: { Port: port } },
        conditions: [{ type: 'Ready', ...status }],
      },
    });
    const spec = { holderIdentity: NODE, leaseDurationSeconds: 40, renewTime: now.replace('Z', '000Z') };
    await api
      .patch(`${LEASES}/${NODE}`, { spec })
      .catch(() =>
        api.ensure(LEASES, { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: NODE }, spec }),
      );
  };
  await beat();
  const timer = setInterval(() => void beat().catch(() => undefined), 5_000);

  const known = new Set<string>();
  const move = async (pod: Json): Promise<void> => {
    const { namespace, name, uid, deletionTimestamp, ownerReferences } = pod.metadata;
    const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
    if (deletionTimestamp !== undefined) {
      for (const [key, { process: child }] of containers) {
        if (key.startsWith(`${namespace}/${name}/`)) child?.kill('SIGKILL');
      }
      await api.send('DELETE', path, { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: 0 });
      return;
    }
    if (known.has(uid)) return;
    known.add(uid);
    const image: string = pod.spec.containers[0].image;
    const ended: Json[] = [];
    const state = (phase: string, inner: Json): Promise<Json> => setState(api, path, pod, phase, inner, ended);
    if (image.includes('unpullable')) {
      await state('Pending', { waiting: { reason: 'ImagePullBackOff', message: `Back-off pulling image "${image}"` } });
      return;
    }
    const play = async (spec: Json): Promise<Json> => {
      const startedAt = new Date().toISOString();
      const exitCode = await run(pod, spec);
      const reason = exitCode === 0 ? 'Completed' : 'Error';
      return { terminated: { exitCode, reason, startedAt, finishedAt: new Date().toISOString() } };
    };
    for (const spec of pod.spec.initContainers ?? []) {
      ended.push({ running: { startedAt: new Date().toISOString() } });
      await state('Pending', { waiting: { reason: 'PodInitializing' } });
      ended[ended.length - 1] = await play(spec);
      if (ended.at(-1).terminated.exitCode !== 0) {
        await state('Failed', { waiting: { reason: 'PodInitializing' } });
        return;
      }
    }
    await state('Running', { running: { startedAt: new Date().toISOString() } });
    if (!ownerReferences?.some(({ kind }: Json) => kind === 'Job')) return;
    const outcome = await play(pod.spec.containers[0]);
    await state(outcome.terminated.exitCode === 0 ? 'Succeeded' : 'Failed', outcome);
  };
  const watching = api.watch('/api/v1/pods', stop.signal, (type, pod) => {
    if (type !== 'DELETED' && pod.spec.nodeName === NODE) void move(pod).catch(() => undefined);
  });
  return {
    onStart: (listener) => {
      listeners.push(listener);
    },
    cutNextCommandAfter: (bytes) => {
      cutAfter = bytes;
    },
    stop: async () => {
      stop.abort();
      clearInterval(timer);
      for (const { process: child } of containers.values()) child?.kill('SIGKILL');
      sockets.close();
      server.closeAllConnections();
      server.close();
      await watching;
      rmSync(scratch, { recursive: true, force: true });
    },
  };
}

/** The kubelet's port; the API server of the tests does not check its certificate, so the API server's own serves. */
async function listen(certificates: string): Promise<Server> {
  const server = createServer({
    key: readFileSync(join(certificates, 'apiserver.key')),
    cert: readFileSync(join(certificates, 'apiserver.crt')),
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

async function setState(
  api: AdminApi,
  path: string,
  pod: Json,
  phase: string,
  state: Json,
  initial: readonly Json[],
): Promise<Json> {
  const ready = state.running !== undefined;
  const now = new Date().toISOString();
  return api.patch(`${path}/status`, {
    status: {
      phase,
      conditions: [
        { type: 'PodScheduled', status: 'True', lastTransitionTime: now },
        { type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: now },
        { type: 'ContainersReady', status: ready ? 'True' : 'False', lastTransitionTime: now },
      ],
      ...(initial.length === 0
        ? {}
        : { initContainerStatuses: initial.map((each, i) => statusOf(pod.spec.initContainers[i], each, false)) }),
      containerStatuses: pod.spec.containers.map((spec: Json) => statusOf(spec, state, ready)),
    },
  });
}

function statusOf({ name, image }: Json, state: Json, ready: boolean): Json {
  return { name, image, imageID: '', ready, restartCount: 0, state };
}
