/** A pod that does nothing but use a claim, for StorageClasses that make a volume only once a pod wants it. */
import type { Manifest } from '../kube/kinds.js';
import { operationLabels } from './labels.js';

/** The pod. It has done its work when it has a node: it need not run. */
export function volumeBinder(spec: {
  readonly name: string;
  readonly claim: string;
  readonly image: string;
}): Manifest<'Pod'> {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: spec.name, labels: operationLabels('restore-volume-snapshot') },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 65_534,
        runAsGroup: 65_534,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      volumes: [{ name: 'data', persistentVolumeClaim: { claimName: spec.claim } }],
      containers: [
        {
          name: 'bind',
          image: spec.image,
          command: ['true'],
          resources: { requests: { cpu: '10m', memory: '8Mi' }, limits: { memory: '64Mi' } },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          volumeMounts: [{ name: 'data', mountPath: '/data' }],
        },
      ],
    },
  };
}
