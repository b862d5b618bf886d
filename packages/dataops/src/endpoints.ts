/** Where a Service can be reached from outside: a node's address and port, or the load balancer's. */
import type { V1Node, V1Service } from '@kubernetes/client-node';
import { ScrimError } from 'scrim';
import type { Operation } from './operation.js';

/** Stands for the node's address where nodes may not be listed. */
export const UNKNOWN_NODE = '<IP address of Kubernetes node>';

/** Host, and the port for each name of a target port (or its number). */
export interface Endpoint {
  readonly host: string;
  readonly ports: Readonly<Record<string, number>>;
}

/** Waits for the Service's outside address: at once for NodePort, as long as the load balancer needs else. */
export async function waitForEndpoint(operation: Operation, service: string): Promise<Endpoint> {
  const found = await operation.waitFor(
    `an address for Service '${service}'`,
    { services: { kind: 'Service', name: service } },
    ({ services }) => {
      const object = services?.[0];
      if (services !== undefined && object === undefined) {
        throw new ScrimError('NOT_FOUND', `Service '${service}' does not exist in namespace '${operation.namespace}'`);
      }
      if (object === undefined) return undefined;
      return object.spec?.type !== 'LoadBalancer' || loadBalancerHost(object) !== undefined ? object : undefined;
    },
    () => 'the cluster has given its load balancer no address',
  );
  return endpointOf(found, await nodeHost(operation)) ?? { host: UNKNOWN_NODE, ports: {} };
}

/** Address of a Service as it is now; undefined while its load balancer has none. */
export function endpointOf(service: V1Service, node: string): Endpoint | undefined {
  const balanced = service.spec?.type === 'LoadBalancer';
  const host = balanced ? loadBalancerHost(service) : node;
  if (host === undefined) return undefined;
  const ports: Record<string, number> = {};
  for (const { targetPort, nodePort, port } of service.spec?.ports ?? []) {
    ports[String(targetPort ?? port)] = balanced ? port : (nodePort ?? port);
  }
  return { host: host.includes(':') ? `[${host}]` : host, ports };
}

function loadBalancerHost(service: V1Service): string | undefined {
  const ingress = service.status?.loadBalancer?.ingress?.[0];
  return ingress?.ip ?? ingress?.hostname;
}

/** Address of a ready node, or {@link UNKNOWN_NODE} where the caller may not list nodes. */
export async function nodeHost(operation: Operation): Promise<string> {
  try {
    const { items } = await operation.client.list('Node', { namespace: '' }, operation.signal);
    const ready = items.filter(isReady);
    const addresses = (ready.length > 0 ? ready : items).flatMap(({ status }) => status?.addresses ?? []);
    const byType = (type: string): string | undefined => addresses.find((entry) => entry.type === type)?.address;
    return byType('ExternalIP') ?? byType('InternalIP') ?? addresses[0]?.address ?? UNKNOWN_NODE;
  } catch (error) {
    if (error instanceof ScrimError && error.code === 'PERMISSION_DENIED') return UNKNOWN_NODE;
    throw error;
  }
}

function isReady(node: V1Node): boolean {
  return node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}
