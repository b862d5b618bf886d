/** The pod through which a model repository is written to a volume: a shell, tar and sha256sum, without root. */
import type { Manifest } from '../kube/kinds.js';
import { operationLabels } from './labels.js';

/** Where the pod sees the volume. */
export const REPOSITORY_DIR = '/models';
/** Name of its container. */
export const PUSHER_CONTAINER = 'push';
/** The pod ends by itself after this long, should nobody remove it. */
const LONGEST_PUSH_SECONDS = 3_600;

/** The pod. */
export function repositoryPusher(spec: {
  readonly name: string;
  readonly image: string;
  readonly claim: string;
  readonly runAsUser: number;
  readonly runAsGroup: number;
}): Manifest<'Pod'> {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: spec.name, labels: operationLabels('repo-push') },
    spec: {
      restartPolicy: 'Never',
      activeDeadlineSeconds: LONGEST_PUSH_SECONDS,
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: spec.runAsUser,
        runAsGroup: spec.runAsGroup,
        fsGroup: spec.runAsGroup,
        fsGroupChangePolicy: 'OnRootMismatch',
        seccompProfile: { type: 'RuntimeDefault' },
      },
      volumes: [{ name: 'models', persistentVolumeClaim: { claimName: spec.claim } }],
      containers: [
        {
          name: PUSHER_CONTAINER,
          image: spec.image,
          command: ['sleep', String(LONGEST_PUSH_SECONDS)],
          resources: { requests: { cpu: '50m', memory: '32Mi' }, limits: { memory: '256Mi' } },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          volumeMounts: [{ name: 'models', mountPath: REPOSITORY_DIR }],
        },
      ],
    },
  };
}
