/** Waits of several commands: a claim is bound, a snapshot ready, a Deployment ready. Each ends early with the reason. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { ScrimError } from 'scrim';
import {
  diagnoseClaim,
  diagnoseDeployment,
  diagnosePod,
  diagnoseSnapshot,
  latestOf,
  Patience,
  waitsForConsumer,
} from './diagnose.js';
import type { VolumeSnapshot } from './kube/kinds.js';
import type { Operation } from './operation.js';

/** How a claim stands at the end of its wait. */
export interface ClaimOutcome {
  readonly claim: V1PersistentVolumeClaim;
  /** False where the StorageClass binds only once a pod uses the claim. */
  readonly bound: boolean;
}

/** Waits until a claim is bound, or is known to wait for its first consumer. */
export async function waitForClaim(operation: Operation, name: string, uid: string): Promise<ClaimOutcome> {
  operation.emit({ type: 'waiting', kind: 'PersistentVolumeClaim', name, namespace: operation.namespace });
  const patience = new Patience(operation.stallMs);
  const what = `PersistentVolumeClaim '${name}' is not bound`;
  return operation.waitFor(
    `PersistentVolumeClaim '${name}' to be bound`,
    {
      claims: { kind: 'PersistentVolumeClaim', name },
      events: { kind: 'Event', fields: `involvedObject.uid=${uid}` },
    },
    ({ claims, events }, elapsedMs) => {
      const claim = claims?.find(({ metadata }) => metadata?.uid === uid);
      if (claims !== undefined && claim === undefined) throw goneError(operation, 'PersistentVolumeClaim', name);
      if (claim?.status?.phase === 'Bound') return { claim, bound: true };
      if (claim === undefined || events === undefined) return undefined;
      if (waitsForConsumer(claim, events)) return { claim, bound: false };
      patience.judge(diagnoseClaim(claim, events), what, elapsedMs);
      return undefined;
    },
    ({ events }) => latestOf(events ?? [])?.message ?? '',
  );
}

const AWAITED_ANNOTATION = 'scrim.dev/awaited';

/**
 * Waits until a claim that names its volume is bound. The volume controller may meet the claim before its own view of
 * the volume is current; it would come back to it only with its next look at everything, a quarter of a minute later.
 * A change of the claim has it look at once, so an annotation is written, and removed again.
 */
export async function waitForPreboundClaim(operation: Operation, name: string, uid: string): Promise<ClaimOutcome> {
  const { client, namespace, signal, fieldManager } = operation;
  const stop = new AbortController();
  const within = AbortSignal.any([signal, stop.signal]);
  let nudges = 0;
  const annotate = async (value: string | null): Promise<void> => {
    const change = { metadata: { uid, annotations: { [AWAITED_ANNOTATION]: value } } };
    await client.patch('PersistentVolumeClaim', namespace, name, change, { fieldManager, signal });
  };
  const nudging = (async () => {
    for (let pauseMs = 500; ; pauseMs = Math.min(pauseMs * 2, 5_000)) {
      await sleep(pauseMs, undefined, { signal: within });
      await annotate(String(++nudges));
    }
    // It only hastens: the wait itself says what is wrong.
  })().catch(() => undefined);
  try {
    return await waitForClaim(operation, name, uid);
  } finally {
    stop.abort();
    await nudging;
    if (nudges > 0) await annotate(null).catch(() => undefined);
  }
}

/**
 * Waits until the volume controller has seen that a volume is reserved for a claim that does not exist yet. A claim
 * that comes earlier is bound only when the controller looks at everything again, a quarter of a minute later.
 */
export async function waitForAvailable(operation: Operation, volume: string): Promise<void> {
  await operation.waitFor(
    `PersistentVolume '${volume}' to be available`,
    { volumes: { kind: 'PersistentVolume', name: volume } },
    ({ volumes }) => (volumes?.[0]?.status?.phase === 'Available' ? true : undefined),
    ({ volumes }) => `it is ${volumes?.[0]?.status?.phase ?? 'not there'}`,
  );
}

/** Waits until a snapshot is ready to use. */
export async function waitForSnapshot(operation: Operation, name: string, uid: string): Promise<VolumeSnapshot> {
  const patience = new Patience(operation.stallMs);
  const what = `VolumeSnapshot '${name}' is not ready`;
  return operation.waitFor(
    `VolumeSnapshot '${name}' to be ready`,
    {
      snapshots: { kind: 'VolumeSnapshot', name },
      events: { kind: 'Event', fields: `involvedObject.uid=${uid}` },
    },
    ({ snapshots, events }, elapsedMs) => {
      const snapshot = snapshots?.find(({ metadata }) => metadata?.uid === uid);
      if (snapshots !== undefined && snapshot === undefined) throw goneError(operation, 'VolumeSnapshot', name);
      if (snapshot?.status?.readyToUse === true) return snapshot;
      if (snapshot !== undefined) patience.judge(diagnoseSnapshot(snapshot, events ?? []), what, elapsedMs);
      return undefined;
    },
    ({ snapshots, events }) => snapshots?.[0]?.status?.error?.message ?? latestOf(events ?? [])?.message ?? '',
  );
}

/** Waits until every replica a Deployment asks for is ready. `app` selects its pods. */
export async function waitForDeployment(operation: Operation, name: string, app: string): Promise<void> {
  operation.emit({ type: 'waiting', kind: 'Deployment', name, namespace: operation.namespace });
  const patience = new Patience(operation.stallMs);
  const what = `Deployment '${name}' is not ready`;
  await operation.waitFor(
    `Deployment '${name}' to be ready`,
    { deployments: { kind: 'Deployment', name }, pods: { kind: 'Pod', labels: `app=${app}` } },
    ({ deployments, pods }, elapsedMs) => {
      const deployment = deployments?.[0];
      if (deployments !== undefined && deployment === undefined) throw goneError(operation, 'Deployment', name);
      if (deployment === undefined || pods === undefined) return undefined;
      const wanted = deployment.spec?.replicas ?? 1;
      const { observedGeneration = 0, readyReplicas = 0, updatedReplicas = 0 } = deployment.status ?? {};
      const current = observedGeneration >= (deployment.metadata?.generation ?? 0);
      if (current && readyReplicas >= wanted && updatedReplicas >= wanted) return true;
      const finding = pods.map(diagnosePod).find((found) => found !== undefined) ?? diagnoseDeployment(deployment);
      patience.judge(finding, what, elapsedMs);
      return undefined;
    },
    ({ pods }) => (pods ?? []).map(describePod).join('; ') || 'it has no pods yet',
  );
  operation.emit({ type: 'ready', kind: 'Deployment', name, namespace: operation.namespace });
}

function describePod(pod: V1Pod): string {
  const finding = diagnosePod(pod);
  if (finding !== undefined) return `pod '${pod.metadata?.name}' ${finding.reason}: ${finding.message}`;
  const waiting = pod.status?.containerStatuses?.map(({ state }) => state?.waiting?.reason).find(Boolean);
  return `pod '${pod.metadata?.name}' is ${waiting ?? pod.status?.phase ?? 'unknown'}`;
}

function goneError(operation: Operation, kind: string, name: string): ScrimError {
  return new ScrimError('NOT_FOUND', `${kind} '${name}' in namespace '${operation.namespace}' was deleted meanwhile`, {
    details: { reason: 'Deleted' },
  });
}
