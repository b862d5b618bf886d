/**
 * SIMULATED: stands in for a machine with a kubelet. It registers a Node, renews its Lease, and moves Pods that the
 * real scheduler placed there through their states; nothing runs in them. An image whose name contains 'unpullable'
 * can't be pulled, 'crashing' keeps crashing; a Job's pod ends well, or fails where the image's name contains 'failing'.
 */
import type { AdminApi, Json } from './admin-api.js';

const NODE = 'simulated-node';
/** The address TR-4928's transcripts show. */
export const NODE_ADDRESS = '192.168.0.152';
const LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';

/** How fast the simulators act: tests raise `delayMs` where a wait must find its object unfinished. */
export interface Pace {
  delayMs: number;
}

/** Registers the node and plays its kubelet until the returned function is called. */
export async function startNodeSimulator(api: AdminApi, pace: Pace): Promise<() => Promise<void>> {
  const stop = new AbortController();
  const resources = { cpu: '8', memory: '32Gi', pods: '1000', 'ephemeral-storage': '100Gi', 'nvidia.com/gpu': '2' };
  await api.ensure('/api/v1/nodes', { apiVersion: 'v1', kind: 'Node', metadata: { name: NODE } });
  const beat = async (): Promise<void> => {
    const now = new Date().toISOString();
    const condition = (type: string, status: string): Json => ({
      type,
      status,
      reason: 'Simulated',
      lastHeartbeatTime: now,
      lastTransitionTime: now,
    });
    await api.patch(`/api/v1/nodes/${NODE}/status`, {
      status: {
        capacity: resources,
        allocatable: resources,
        addresses: [
          { type: 'Hostname', address: NODE },
          { type: 'InternalIP', address: NODE_ADDRESS },
        ],
        conditions: [
          condition('Ready', 'True'),
          condition('MemoryPressure', 'False'),
          condition('DiskPressure', 'False'),
          condition('PIDPressure', 'False'),
        ],
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
  const watching = api.watch('/api/v1/pods', stop.signal, (type, pod) => {
    if (type === 'DELETED' || pod.spec.nodeName !== NODE) return;
    void pause(pace)
      .then(() => move(api, pod, stop.signal))
      .catch(() => undefined);
  });
  return async () => {
    stop.abort();
    clearInterval(timer);
    await watching;
  };
}

/** Waits as long as `pace` says. */
export async function pause({ delayMs }: Pace): Promise<void> {
  if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
}

async function move(api: AdminApi, pod: Json, signal: AbortSignal): Promise<void> {
  const { namespace, name, deletionTimestamp, ownerReferences } = pod.metadata;
  const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
  if (deletionTimestamp !== undefined) {
    await api.send('DELETE', path, { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: 0 });
    return;
  }
  const waiting = pod.status.containerStatuses?.[0]?.state?.waiting?.reason;
  if (pod.status.phase !== 'Pending' || waiting === 'ImagePullBackOff' || waiting === 'CrashLoopBackOff') return;
  const missing = await missingVolume(api, pod);
  if (missing !== undefined) {
    await event(
      api,
      pod,
      'FailedMount',
      `MountVolume.SetUp failed for volume "${missing.volume}" : ${missing.message}`,
    );
    await setStatus(api, path, pod, 'Pending', { waiting: { reason: 'ContainerCreating' } });
    setTimeout(() => {
      if (signal.aborted) return;
      void api
        .get(path)
        .then((again) => move(api, again, signal))
        .catch(() => undefined);
    }, 500);
    return;
  }
  const image: string = pod.spec.containers[0].image;
  if (image.includes('unpullable')) {
    const message = `rpc error: code = NotFound desc = failed to pull and unpack image "${image}": not found`;
    if (waiting === undefined || waiting === 'ContainerCreating') {
      await event(api, pod, 'Failed', `Failed to pull image "${image}": ${message}`);
      await setStatus(api, path, pod, 'Pending', { waiting: { reason: 'ErrImagePull', message } });
    } else {
      await event(api, pod, 'BackOff', `Back-off pulling image "${image}"`);
      await setStatus(api, path, pod, 'Pending', {
        waiting: { reason: 'ImagePullBackOff', message: `Back-off pulling image "${image}"` },
      });
    }
    return;
  }
  if (image.includes('crashing')) {
    await setStatus(api, path, pod, 'Running', { waiting: { reason: 'CrashLoopBackOff', message: 'back-off' } }, 5);
    return;
  }
  const startedAt = new Date().toISOString();
  if (!ownerReferences?.some(({ kind }: Json) => kind === 'Job')) {
    await setStatus(api, path, pod, 'Running', { running: { startedAt } });
    return;
  }
  const failing = image.includes('failing');
  await setStatus(api, path, pod, failing ? 'Failed' : 'Succeeded', {
    terminated: {
      exitCode: failing ? 1 : 0,
      reason: failing ? 'Error' : 'Completed',
      startedAt,
      finishedAt: new Date().toISOString(),
    },
  });
}

/** The first Secret or ConfigMap a pod mounts that is not there: a kubelet would not start its containers. */
async function missingVolume(api: AdminApi, pod: Json): Promise<{ volume: string; message: string } | undefined> {
  for (const { name, secret, configMap } of pod.spec.volumes ?? []) {
    const [plural, object] = secret ? ['secrets', secret.secretName] : ['configmaps', configMap?.name];
    if (object === undefined) continue;
    const found = await api.find(`/api/v1/namespaces/${pod.metadata.namespace}/${plural}/${object}`);
    if (found === undefined) return { volume: name, message: `${plural.slice(0, -1)} "${object}" not found` };
  }
  return undefined;
}

async function setStatus(
  api: AdminApi,
  path: string,
  pod: Json,
  phase: string,
  state: Json,
  restarts = 0,
): Promise<void> {
  const ready = state.running !== undefined;
  const now = new Date().toISOString();
  await api.patch(`${path}/status`, {
    status: {
      phase,
      conditions: [
        { type: 'PodScheduled', status: 'True', lastTransitionTime: now },
        { type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: now },
        { type: 'ContainersReady', status: ready ? 'True' : 'False', lastTransitionTime: now },
      ],
      containerStatuses: pod.spec.containers.map(({ name, image }: Json) => ({
        name,
        image,
        imageID: '',
        ready,
        restartCount: restarts,
        state,
        ...(restarts > 0 ? { lastState: { terminated: { exitCode: 1, reason: 'Error' } } } : {}),
      })),
    },
  });
}

async function event(api: AdminApi, pod: Json, reason: string, message: string): Promise<void> {
  await emitEvent(api, pod, reason, message, 'Warning', 'kubelet');
}

/** Writes an event about an object, as components of a cluster do. */
export async function emitEvent(
  api: AdminApi,
  about: Json,
  reason: string,
  message: string,
  type: 'Normal' | 'Warning',
  component: string,
): Promise<void> {
  const { namespace, name, uid } = about.metadata;
  const now = new Date().toISOString();
  await api.send('POST', `/api/v1/namespaces/${namespace}/events`, {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { generateName: `${name}.` },
    involvedObject: { kind: about.kind, apiVersion: about.apiVersion, namespace, name, uid },
    reason,
    message,
    type,
    count: 1,
    firstTimestamp: now,
    lastTimestamp: now,
    source: { component },
  });
}
