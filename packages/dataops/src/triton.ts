/** NVIDIA Triton Inference Servers over a model repository on a volume: make, list, delete. */
import { ScrimError } from 'scrim';
import { assertArgument } from './argument.js';
import { endpointOf, nodeHost, waitForEndpoint } from './endpoints.js';
import type { KubeClient } from './kube/client.js';
import { TRITON_SELECTOR } from './manifests/labels.js';
import type { ContainerResources } from './manifests/resources.js';
import { tritonDeployment, tritonService } from './manifests/triton.js';
import { type TritonAutoscale, tritonAutoscaler } from './manifests/triton-autoscaler.js';
import { checkName, checkServiceName, TRITON_PREFIX } from './naming.js';
import { type OperationOptions, requestDigest, runOperation } from './operation.js';
import type { WithManifests } from './snapshots.js';
import { waitForDeployment } from './waiting.js';

/** Image of a server nobody chose one for, as in the toolkit. */
export const DEFAULT_TRITON_IMAGE = 'nvcr.io/nvidia/tritonserver:21.11-py3';

/** Arguments of {@link createTritonServer}. */
export interface CreateTritonServerOptions extends OperationOptions {
  readonly serverName: string;
  /** Volume with the model repository. */
  readonly modelRepoPvcName: string;
  readonly image?: string;
  readonly resources?: ContainerResources;
  readonly loadBalancer?: boolean;
  readonly replicas?: number;
  /** Lets the number of servers follow the time requests wait in the queue. */
  readonly autoscale?: TritonAutoscale;
}

/** Where a server answers: host and port of each protocol. */
export interface TritonEndpoints {
  readonly host: string;
  readonly http: number;
  readonly grpc: number;
  readonly metrics: number;
}

/** A server that was made. */
export interface TritonResult extends WithManifests {
  readonly serverName: string;
  /** Undefined in a dry run. */
  readonly endpoints?: TritonEndpoints;
}

/**
 * Makes a server, waits until it is ready and returns its endpoints. The volume has to exist.
 *
 * @throws ALREADY_EXISTS, NOT_FOUND (the volume, an image that can't be pulled), RESOURCE_EXHAUSTED (unschedulable)
 */
export async function createTritonServer(
  client: KubeClient,
  options: CreateTritonServerOptions,
): Promise<TritonResult> {
  const { serverName: server, modelRepoPvcName: modelRepository } = options;
  checkServiceName('serverName', server, TRITON_PREFIX);
  checkName('modelRepoPvcName', modelRepository);
  const image = options.image ?? DEFAULT_TRITON_IMAGE;
  const { autoscale } = options;
  if (autoscale !== undefined) checkAutoscale(autoscale);
  assertArgument(
    options.replicas === undefined || (Number.isSafeInteger(options.replicas) && options.replicas >= 1),
    `replicas is ${options.replicas}, expected a whole number of at least 1`,
  );
  const replicas = options.replicas ?? autoscale?.minReplicas;
  return runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    const name = `${TRITON_PREFIX}${server}`;
    if (operation.dryRun !== 'client') {
      await client.get('PersistentVolumeClaim', namespace, modelRepository, signal);
      if (await client.find('Deployment', namespace, name, signal)) {
        throw new ScrimError('ALREADY_EXISTS', `Deployment '${name}' exists already in namespace '${namespace}'`);
      }
      if (autoscale !== undefined && !(await client.serves('HorizontalPodAutoscaler', signal))) {
        throw new ScrimError('UNSUPPORTED', 'the cluster has no HorizontalPodAutoscaler of autoscaling/v2 (1.23)');
      }
    }
    const loadBalancer = options.loadBalancer ?? false;
    const request = requestDigest('create-triton-server', { server, modelRepository, image, loadBalancer });
    await operation.create(tritonService({ server, loadBalancer }), { adopt: request });
    const { object: deployment } = await operation.create(
      tritonDeployment({
        server,
        image,
        modelRepository,
        ...(options.resources === undefined ? {} : { resources: options.resources }),
        ...(replicas === undefined ? {} : { replicas }),
      }),
    );
    if (autoscale !== undefined) {
      await operation.create(tritonAutoscaler({ server, ownerUid: deployment.metadata?.uid ?? '', ...autoscale }));
    }
    if (operation.dryRun !== undefined) return { serverName: server, manifests: operation.manifests };
    await waitForDeployment(operation, name, name);
    const { host, ports } = await waitForEndpoint(operation, name);
    return { serverName: server, endpoints: endpoints(host, ports), manifests: operation.manifests };
  });
}

function checkAutoscale({ minReplicas, maxReplicas, queueTimeMs }: TritonAutoscale): void {
  const whole = Number.isSafeInteger(minReplicas) && Number.isSafeInteger(maxReplicas);
  assertArgument(
    whole && minReplicas >= 1 && maxReplicas >= minReplicas,
    `autoscale is from ${minReplicas} to ${maxReplicas} servers, expected 1 or more, rising`,
  );
  assertArgument(queueTimeMs > 0, `autoscale.queueTimeMs is ${queueTimeMs}, expected more than 0`);
}

function endpoints(host: string, ports: Readonly<Record<string, number>>): TritonEndpoints {
  return { host, http: ports.http ?? 8000, grpc: ports.grpc ?? 8001, metrics: ports.metrics ?? 8002 };
}

/** A server as lists show it. */
export interface TritonInfo {
  readonly name: string;
  readonly ready: boolean;
  /** Undefined while it has no address. */
  readonly endpoints?: TritonEndpoints;
}

/** Lists the servers of a namespace. */
export async function listTritonServers(
  client: KubeClient,
  options: OperationOptions = {},
): Promise<readonly TritonInfo[]> {
  return runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    const selection = { namespace, labelSelector: TRITON_SELECTOR };
    const [deployments, services, node] = await Promise.all([
      client.list('Deployment', selection, signal),
      client.list('Service', selection, signal),
      nodeHost(operation),
    ]);
    const byName = new Map(services.items.map((service) => [service.metadata?.name, service]));
    return deployments.items.map(({ metadata, spec, status }) => {
      const service = byName.get(metadata?.name);
      const endpoint = service === undefined ? undefined : endpointOf(service, node);
      return {
        name: metadata?.labels?.['triton-server-name'] ?? metadata?.name ?? '',
        ready: (status?.readyReplicas ?? 0) >= (spec?.replicas ?? 1) && spec?.replicas !== 0,
        ...(endpoint === undefined ? {} : { endpoints: endpoints(endpoint.host, endpoint.ports) }),
      };
    });
  });
}

/** Deletes a server; the volume with its models stays. @throws NOT_FOUND */
export async function deleteTritonServer(
  client: KubeClient,
  options: OperationOptions & { readonly serverName: string },
): Promise<void> {
  checkServiceName('serverName', options.serverName, TRITON_PREFIX);
  await runOperation(client, options, async (operation) => {
    const { namespace } = operation;
    const name = `${TRITON_PREFIX}${options.serverName}`;
    let found = false;
    for (const kind of ['Deployment', 'Service'] as const) {
      operation.emit({ type: 'deleting', kind, name, namespace });
      found = (await operation.remove(kind, name)) || found;
    }
    if (!found) {
      throw new ScrimError(
        'NOT_FOUND',
        `Triton server '${options.serverName}' does not exist in namespace '${namespace}'`,
      );
    }
  });
}
