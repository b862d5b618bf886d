/**
 * A HorizontalPodAutoscaler that follows how long requests wait in Triton's queues.
 *
 * The metric is an average over the last minute, in microseconds a request, that a metrics adapter computes from the
 * counters Triton serves: deploy/examples/prometheus-adapter-rules.yaml has the rule. It belongs to the Deployment and
 * goes with it.
 */
import type { Manifest } from '../kube/kinds.js';
import { TRITON_PREFIX } from '../naming.js';
import { tritonLabels } from './labels.js';

/** Name of the metric. */
export const QUEUE_TIME_METRIC = 'triton_queue_time_us';

/** Between how many servers, and at which wait another one is added. */
export interface TritonAutoscale {
  readonly minReplicas: number;
  readonly maxReplicas: number;
  /** Average time a request may wait in the queue, in milliseconds. */
  readonly queueTimeMs: number;
}

/** The autoscaler of a server. */
export function tritonAutoscaler(
  spec: TritonAutoscale & { readonly server: string; readonly ownerUid: string },
): Manifest<'HorizontalPodAutoscaler'> {
  const name = `${TRITON_PREFIX}${spec.server}`;
  const deployment = { apiVersion: 'apps/v1', kind: 'Deployment', name };
  return {
    apiVersion: 'autoscaling/v2',
    kind: 'HorizontalPodAutoscaler',
    metadata: {
      name,
      labels: tritonLabels(spec.server),
      ...(spec.ownerUid === '' ? {} : { ownerReferences: [{ ...deployment, uid: spec.ownerUid }] }),
    },
    spec: {
      scaleTargetRef: deployment,
      minReplicas: spec.minReplicas,
      maxReplicas: spec.maxReplicas,
      metrics: [
        {
          type: 'Pods',
          pods: {
            metric: { name: QUEUE_TIME_METRIC },
            target: { type: 'AverageValue', averageValue: String(Math.round(spec.queueTimeMs * 1000)) },
          },
        },
      ],
    },
  };
}
