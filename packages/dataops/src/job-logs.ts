/**
 * Follows Jobs to their end: waits with a diagnosis, hands on the log lines of their pods as they come.
 *
 * A log that breaks off is read again from its start and what was handed on is skipped, so each line comes once. The
 * pods of a Job that were retried are followed too.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { V1Pod } from '@kubernetes/client-node';
import { ScrimError } from 'scrim';
import { diagnosePod, Patience } from './diagnose.js';
import type { KubeClient } from './kube/client.js';
import type { Operation } from './operation.js';
import { jobStatus } from './s3.js';

/** One line that a pod wrote. */
export interface PodLogLine {
  readonly job: string;
  readonly pod: string;
  /** Index of the pod in an Indexed Job. */
  readonly index?: number;
  readonly container: string;
  readonly text: string;
}

const LOG_ATTEMPTS = 5;
/** How long the last lines of a log may take to arrive once its Job has ended. */
const DRAIN_MS = 10_000;

/**
 * Waits until every one of `jobs` has succeeded. `onStart` is called once, when a pod of theirs has begun to run.
 *
 * @throws UNAVAILABLE with reason 'JobFailed', NOT_FOUND (an image, a Job that was deleted), RESOURCE_EXHAUSTED
 */
export async function followJobs(
  operation: Operation,
  jobs: readonly string[],
  selector: string,
  onLine: (line: PodLogLine) => void,
  onStart: () => void,
): Promise<void> {
  const { client, namespace } = operation;
  for (const name of jobs) operation.emit({ type: 'waiting', kind: 'Job', name, namespace });
  const patience = new Patience(operation.stallMs);
  const stop = new AbortController();
  const signal = AbortSignal.any([operation.signal, stop.signal]);
  const followed = new Map<string, Promise<void>>();
  let started = false;
  const follow = (pod: V1Pod): void => {
    const { uid = '', name = '' } = pod.metadata ?? {};
    if (followed.has(uid) || !hasBegun(pod)) return;
    if (!started) {
      started = true;
      onStart();
    }
    const job = jobOf(pod);
    const index = indexOf(pod);
    const about = { job, pod: name, ...(index === undefined ? {} : { index }) };
    followed.set(
      uid,
      handOnAll(client, namespace, pod, signal, (container, text) => onLine({ ...about, container, text })),
    );
  };
  try {
    await operation.waitFor(
      jobs.length === 1 ? `Job '${jobs[0]}' to end` : `${jobs.length} Jobs to end`,
      { jobs: { kind: 'Job', labels: selector }, pods: { kind: 'Pod', labels: selector } },
      (seen, elapsedMs) => {
        const pods = seen.pods?.filter((pod) => jobs.includes(jobOf(pod)));
        if (seen.jobs === undefined || pods === undefined) return undefined;
        pods.forEach(follow);
        let ended = 0;
        for (const name of jobs) {
          const job = seen.jobs.find(({ metadata }) => metadata?.name === name);
          if (job === undefined) {
            throw new ScrimError('NOT_FOUND', `Job '${name}' does not exist in namespace '${namespace}'`);
          }
          const status = jobStatus(job, []);
          if (status.state === 'succeeded') ended++;
          else if (status.state === 'failed') {
            const { reason = 'Failed', message = '' } = status.conditions.find(({ type }) => type === 'Failed') ?? {};
            throw new ScrimError('UNAVAILABLE', `Job '${name}' failed: ${reason}: ${message}`, {
              details: { reason: 'JobFailed' },
            });
          }
        }
        if (ended === jobs.length) return true;
        const finding = pods.map(diagnosePod).find((found) => found !== undefined);
        // Parts that wait for room while others run are no fault.
        const running = pods.some(({ status }) => status?.phase === 'Running');
        patience.judge(
          finding !== undefined && !finding.final && running ? undefined : finding,
          `Job '${jobs[0]}' does not run`,
          elapsedMs,
        );
        return undefined;
      },
      ({ pods }) => (pods ?? []).map((pod) => `pod '${pod.metadata?.name}' is ${pod.status?.phase}`).join('; '),
    );
    // The logs end with their containers; the last lines may be on their way.
    await Promise.race([Promise.all(followed.values()), sleep(DRAIN_MS, undefined, { signal })]).catch(() => undefined);
  } finally {
    stop.abort();
    await Promise.allSettled(followed.values());
  }
}

/** The whole log of the pod of `job` that succeeded. @throws NOT_FOUND where it is gone */
export async function logOfSucceeded(operation: Operation, job: string): Promise<readonly string[]> {
  const { client, namespace, signal } = operation;
  const { items } = await client.list('Pod', { namespace, labelSelector: `job-name=${job}` }, signal);
  const pod = items.find(({ status }) => status?.phase === 'Succeeded');
  if (pod === undefined) {
    throw new ScrimError('NOT_FOUND', `the pod of Job '${job}' that succeeded is gone, and its log with it`);
  }
  const lines: string[] = [];
  for await (const line of client.logs(namespace, pod.metadata?.name ?? '', { signal })) lines.push(line);
  return lines;
}

function jobOf(pod: V1Pod): string {
  return pod.metadata?.labels?.['job-name'] ?? pod.metadata?.labels?.['batch.kubernetes.io/job-name'] ?? '';
}

function indexOf(pod: V1Pod): number | undefined {
  const text = pod.metadata?.annotations?.['batch.kubernetes.io/job-completion-index'];
  return text === undefined ? undefined : Number(text);
}

/** A pod is 'Pending' still while its init containers run. */
function hasBegun({ status }: V1Pod): boolean {
  if (status?.phase === undefined) return false;
  const begun = status.initContainerStatuses?.some(({ state }) => state?.running ?? state?.terminated) ?? false;
  return begun || status.phase !== 'Pending';
}

/** Hands on the logs of a pod's containers in the order they run in. */
async function handOnAll(
  client: KubeClient,
  namespace: string,
  { metadata, spec }: V1Pod,
  signal: AbortSignal,
  onLine: (container: string, text: string) => void,
): Promise<void> {
  for (const { name } of [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])]) {
    await handOn(client, { namespace, pod: metadata?.name ?? '', container: name }, signal, (text) =>
      onLine(name, text),
    );
  }
}

/** Hands on the lines of one container's log, each once. A log that can't be had is given up silently: the Job tells. */
async function handOn(
  client: KubeClient,
  where: { readonly namespace: string; readonly pod: string; readonly container: string },
  signal: AbortSignal,
  onLine: (text: string) => void,
): Promise<void> {
  let handed = 0;
  for (let attempt = 0; attempt < LOG_ATTEMPTS && !signal.aborted; attempt++) {
    try {
      let line = 0;
      for await (const text of client.logs(where.namespace, where.pod, {
        container: where.container,
        follow: true,
        signal,
      })) {
        if (++line <= handed) continue;
        handed = line;
        onLine(text);
      }
      return;
    } catch (error) {
      if (signal.aborted || (error instanceof ScrimError && error.code === 'PERMISSION_DENIED')) return;
      // The container waits for the ones before it: that is no failed attempt.
      if (error instanceof ScrimError && error.code === 'INVALID_ARGUMENT') attempt--;
      await sleep(500, undefined, { signal }).catch(() => undefined);
    }
  }
}
