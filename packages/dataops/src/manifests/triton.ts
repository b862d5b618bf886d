/**
 * An NVIDIA Triton Inference Server: Service and Deployment over a volume with the model repository.
 *
 * Arguments and ports are TR-4928's; the pod runs without root, with a read-only root file system and shared memory
 * for the backends that need it. The repository is mounted read-only.
 */
import type { Manifest } from '../kube/kinds.js';
import { TRITON_PREFIX } from '../naming.js';
import { tritonLabels } from './labels.js';
import { type ContainerResources, resourceRequirements } from './resources.js';

const PORTS = { http: 8000, grpc: 8001, metrics: 8002 } as const;

/** The Service with Triton's three ports. */
export function tritonService(spec: { readonly server: string; readonly loadBalancer: boolean }): Manifest<'Service'> {
  const name = `${TRITON_PREFIX}${spec.server}`;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, labels: tritonLabels(spec.server) },
    spec: {
      type: spec.loadBalancer ? 'LoadBalancer' : 'NodePort',
      selector: { app: name },
      ports: Object.entries(PORTS).map(([port, number]) => ({
        name: `${port}-inference-server`,
        port: number,
        targetPort: port,
        protocol: 'TCP',
      })),
    },
  };
}

/** The Deployment. */
export function tritonDeployment(spec: {
  readonly server: string;
  readonly image: string;
  readonly modelRepository: string;
  readonly resources?: ContainerResources;
  readonly replicas?: number;
}): Manifest<'Deployment'> {
  const name = `${TRITON_PREFIX}${spec.server}`;
  const labels = tritonLabels(spec.server);
  const resources = resourceRequirements(spec.resources ?? {});
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, labels: { ...labels } },
    spec: {
      replicas: spec.replicas ?? 1,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { ...labels } },
        spec: {
          automountServiceAccountToken: false,
          // 1000 is the user 'triton-server' of NVIDIA's images.
          securityContext: {
            runAsNonRoot: true,
            runAsUser: 1000,
            runAsGroup: 1000,
            fsGroup: 1000,
            seccompProfile: { type: 'RuntimeDefault' },
          },
          volumes: [
            { name: 'models', persistentVolumeClaim: { claimName: spec.modelRepository, readOnly: true } },
            { name: 'dshm', emptyDir: { medium: 'Memory' } },
            { name: 'tmp', emptyDir: {} },
          ],
          containers: [
            {
              name: 'triton',
              image: spec.image,
              args: ['tritonserver', '--model-store=/models', '--model-control-mode=poll', '--repository-poll-secs=5'],
              ports: Object.entries(PORTS).map(([port, number]) => ({
                name: port,
                containerPort: number,
                protocol: 'TCP',
              })),
              // Models load before the server answers: it gets ten minutes for that.
              startupProbe: {
                httpGet: { path: '/v2/health/live', port: 'http' },
                periodSeconds: 5,
                failureThreshold: 120,
              },
              livenessProbe: {
                httpGet: { path: '/v2/health/live', port: 'http' },
                periodSeconds: 10,
                failureThreshold: 6,
              },
              readinessProbe: { httpGet: { path: '/v2/health/ready', port: 'http' }, periodSeconds: 2 },
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ['ALL'] },
              },
              volumeMounts: [
                { name: 'models', mountPath: '/models', readOnly: true },
                { name: 'dshm', mountPath: '/dev/shm' },
                { name: 'tmp', mountPath: '/tmp' },
              ],
              ...(resources === undefined ? {} : { resources }),
            },
          ],
        },
      },
    },
  };
}
