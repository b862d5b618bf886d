/**
 * Why a wait does not end: reads the reasons Kubernetes gives in events, pod states and conditions.
 *
 * Each finding says whether it is final, or may mend itself (a full cluster may grow, a provisioner tries again) and
 * only counts once it has lasted. Reasons are the words of kubelet, scheduler, volume controllers and CSI sidecars.
 */
import type { CoreV1Event, V1Deployment, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { ScrimError, type ScrimErrorCode } from 'scrim';
import type { VolumeSnapshot } from './kube/kinds.js';

/** A reason for a wait to fail. */
export interface Finding {
  /** In Kubernetes' words: 'ImagePullBackOff', 'Unschedulable', 'ProvisioningFailed', … */
  readonly reason: string;
  readonly message: string;
  readonly code: ScrimErrorCode;
  /** False where it may mend itself. */
  readonly final: boolean;
}

/** The finding as the error that ends the wait. */
export function errorOf(finding: Finding, what: string): ScrimError {
  return new ScrimError(finding.code, `${what}: ${finding.reason}: ${finding.message}`, {
    details: { reason: finding.reason },
  });
}

const IMAGE_REASONS = new Set(['ImagePullBackOff', 'InvalidImageName', 'ErrImageNeverPull', 'RegistryUnavailable']);
const CONFIG_REASONS = new Set(['CreateContainerConfigError', 'CreateContainerError', 'RunContainerError']);

/** What is wrong with a pod, if anything. */
export function diagnosePod(pod: V1Pod): Finding | undefined {
  const statuses = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
  for (const { name, image, state, lastState, restartCount } of statuses) {
    const { reason = '', message = '' } = state?.waiting ?? {};
    if (IMAGE_REASONS.has(reason)) {
      return {
        reason,
        message: `image '${image}' of container '${name}' can't be pulled${message === '' ? '' : `: ${message}`}`,
        code: 'NOT_FOUND',
        final: true,
      };
    }
    if (reason === 'CrashLoopBackOff') {
      const exit = lastState?.terminated?.exitCode;
      return {
        reason,
        message: `container '${name}' keeps ending${exit === undefined ? '' : ` with exit code ${exit}`} (${restartCount} restarts)`,
        code: 'UNAVAILABLE',
        final: true,
      };
    }
    if (CONFIG_REASONS.has(reason)) {
      return { reason, message: `container '${name}': ${message}`, code: 'INVALID_ARGUMENT', final: false };
    }
  }
  const scheduled = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled');
  if (scheduled?.status === 'False' && scheduled.reason === 'Unschedulable') {
    return { reason: 'Unschedulable', message: scheduled.message ?? '', code: 'RESOURCE_EXHAUSTED', final: false };
  }
  return undefined;
}

/** What is wrong with a Deployment itself: its pods are refused (quota, admission) or it gave up. */
export function diagnoseDeployment(deployment: V1Deployment): Finding | undefined {
  for (const { type, status, reason = type, message = '' } of deployment.status?.conditions ?? []) {
    if (type === 'ReplicaFailure' && status === 'True') {
      return { reason, message, code: 'RESOURCE_EXHAUSTED', final: false };
    }
    if (type === 'Progressing' && status === 'False' && reason === 'ProgressDeadlineExceeded') {
      return { reason, message, code: 'DEADLINE_EXCEEDED', final: true };
    }
  }
  return undefined;
}

/** What its events say is wrong with a volume claim. */
export function diagnoseClaim(claim: V1PersistentVolumeClaim, events: readonly CoreV1Event[]): Finding | undefined {
  if (claim.status?.phase === 'Lost') {
    return { reason: 'Lost', message: 'the volume it was bound to is gone', code: 'NOT_FOUND', final: true };
  }
  const latest = latestOf(events);
  const message = latest?.message ?? '';
  switch (latest?.reason) {
    case 'ProvisioningFailed': {
      const missing = /storageclass.*not found/i.test(message);
      return { reason: 'ProvisioningFailed', message, code: missing ? 'NOT_FOUND' : 'UNAVAILABLE', final: missing };
    }
    case 'FailedBinding':
      return {
        reason: 'FailedBinding',
        message: `${message} (name a StorageClass, or give the cluster a default one)`,
        code: 'NOT_FOUND',
        final: /no storage class is set/.test(message),
      };
    case 'ExternalProvisioning':
      // A provisioner that is alive says 'Provisioning' at once.
      if (events.some(({ reason }) => reason === 'Provisioning')) return undefined;
      return {
        reason: 'ExternalProvisioning',
        message: `no provisioner answers: ${message}`,
        code: 'UNAVAILABLE',
        final: false,
      };
    case 'VolumeMismatch':
      return { reason: 'VolumeMismatch', message, code: 'INVALID_ARGUMENT', final: true };
    default:
      return undefined;
  }
}

/** Whether a claim waits for a pod to use it, which is what its StorageClass wants (WaitForFirstConsumer). */
export function waitsForConsumer(claim: V1PersistentVolumeClaim, events: readonly CoreV1Event[]): boolean {
  return claim.status?.phase === 'Pending' && latestOf(events)?.reason === 'WaitForFirstConsumer';
}

/** What is wrong with a snapshot. */
export function diagnoseSnapshot(snapshot: VolumeSnapshot, events: readonly CoreV1Event[]): Finding | undefined {
  const message = snapshot.status?.error?.message;
  // The snapshot controller tries again, so an error counts once it has lasted; a missing class will not appear.
  if (message !== undefined) {
    return { reason: 'SnapshotError', message, code: 'UNAVAILABLE', final: /not found|failed to get/i.test(message) };
  }
  const warning = latestOf(events.filter(({ type }) => type === 'Warning'));
  if (warning === undefined) return undefined;
  return {
    reason: warning.reason ?? 'SnapshotError',
    message: warning.message ?? '',
    code: 'UNAVAILABLE',
    final: false,
  };
}

/** The event that was seen last. */
export function latestOf(events: readonly CoreV1Event[]): CoreV1Event | undefined {
  return events.reduce<CoreV1Event | undefined>(
    (latest, event) => (latest === undefined || timeOf(event) >= timeOf(latest) ? event : latest),
    undefined,
  );
}

function timeOf(event: CoreV1Event): string {
  return String(
    event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp,
  );
}

/** Decides when a finding that may mend itself has lasted long enough to end the wait. */
export class Patience {
  readonly #stallMs: number;
  #reason: string | undefined;
  #since = 0;

  constructor(stallMs: number) {
    this.#stallMs = stallMs;
  }

  /** Throws `finding` as an error when it is final, or the same reason has stood for `stallMs`. */
  judge(finding: Finding | undefined, what: string, elapsedMs: number): void {
    if (finding === undefined) {
      this.#reason = undefined;
      return;
    }
    if (finding.reason !== this.#reason) {
      this.#reason = finding.reason;
      this.#since = elapsedMs;
    }
    if (finding.final || elapsedMs - this.#since >= this.#stallMs) throw errorOf(finding, what);
  }
}
