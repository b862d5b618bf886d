/** Triton servers as KServe's InferenceServices: make, list, delete. Serving, scaling and routing are KServe's business. */
import { ScrimError } from 'scrim';
import type { KubeClient } from './kube/client.js';
import type { InferenceService } from './kube/kinds.js';
import { tritonInferenceService } from './manifests/inference-service.js';
import { TRITON_SELECTOR } from './manifests/labels.js';
import type { ContainerResources } from './manifests/resources.js';
import { checkName, checkServiceName } from './naming.js';
import { type Operation, type OperationOptions, requestDigest, runOperation } from './operation.js';
import type { WithManifests } from './snapshots.js';

/** Arguments of {@link createInferenceService}. */
export interface CreateInferenceServiceOptions extends OperationOptions {
  readonly serverName: string;
  /** Volume with the model repository. */
  readonly modelRepoPvcName: string;
  /** Default: the image of KServe's own Triton runtime. */
  readonly image?: string;
  readonly resources?: ContainerResources;
  readonly minReplicas?: number;
  readonly maxReplicas?: number;
}

/** A server as KServe shows it. */
export interface InferenceServiceInfo {
  readonly name: string;
  readonly ready: boolean;
  /** Undefined while it has none. */
  readonly url?: string;
}

/** KServe puts a suffix of its own behind the name. */
const LONGEST_NAME = 50;

/**
 * Makes an InferenceService and waits until it is ready.
 *
 * @throws UNSUPPORTED where KServe is not installed, ALREADY_EXISTS, NOT_FOUND (the volume)
 */
export async function createInferenceService(
  client: KubeClient,
  options: CreateInferenceServiceOptions,
): Promise<WithManifests & InferenceServiceInfo> {
  const { serverName: server, modelRepoPvcName: modelRepository, image, resources, minReplicas, maxReplicas } = options;
  checkServiceName('serverName', server, 'x'.repeat(63 - LONGEST_NAME));
  checkName('modelRepoPvcName', modelRepository);
  return runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    if (operation.dryRun !== 'client') {
      await assertKServe(operation);
      await client.get('PersistentVolumeClaim', namespace, modelRepository, signal);
    }
    const manifest = tritonInferenceService({
      server,
      modelRepository,
      ...(image === undefined ? {} : { image }),
      ...(resources === undefined ? {} : { resources }),
      ...(minReplicas === undefined ? {} : { minReplicas }),
      ...(maxReplicas === undefined ? {} : { maxReplicas }),
    });
    const adopt = requestDigest('create-inference-service', { ...manifest.spec.predictor });
    await operation.create(manifest, { adopt });
    const { manifests } = operation;
    if (operation.dryRun !== undefined) return { name: server, ready: false, manifests };
    operation.emit({ type: 'waiting', kind: 'InferenceService', name: server, namespace });
    const service = await operation.waitFor(
      `InferenceService '${server}' to be ready`,
      { services: { kind: 'InferenceService', name: server } },
      ({ services }) => {
        if (services !== undefined && services.length === 0) {
          throw new ScrimError('NOT_FOUND', `InferenceService '${server}' was deleted meanwhile`, {
            details: { reason: 'Deleted' },
          });
        }
        return services?.find(isReady);
      },
      ({ services }) =>
        (services?.[0]?.status?.conditions ?? [])
          .filter(({ status }) => status !== 'True')
          .map(({ type, reason = '', message = '' }) => `${type}: ${reason} ${message}`.trim())
          .join('; ') || 'KServe says nothing about it',
    );
    return { ...infoOf(service), manifests };
  });
}

/** Lists the Triton servers that KServe runs in a namespace. @throws UNSUPPORTED where it is not installed */
export async function listInferenceServices(
  client: KubeClient,
  options: OperationOptions = {},
): Promise<readonly InferenceServiceInfo[]> {
  return runOperation(client, options, async (operation) => {
    await assertKServe(operation);
    const { namespace, signal } = operation;
    const { items } = await client.list('InferenceService', { namespace, labelSelector: TRITON_SELECTOR }, signal);
    return items.map(infoOf);
  });
}

/** Deletes one; the volume with its models stays. @throws NOT_FOUND, UNSUPPORTED where KServe is not installed */
export async function deleteInferenceService(
  client: KubeClient,
  options: OperationOptions & { readonly serverName: string },
): Promise<void> {
  const { serverName: name } = options;
  checkName('serverName', name);
  await runOperation(client, options, async (operation) => {
    await assertKServe(operation);
    const { namespace } = operation;
    operation.emit({ type: 'deleting', kind: 'InferenceService', name, namespace });
    if (!(await operation.remove('InferenceService', name))) {
      throw new ScrimError('NOT_FOUND', `InferenceService '${name}' does not exist in namespace '${namespace}'`);
    }
  });
}

async function assertKServe({ client, signal }: Operation): Promise<void> {
  if (await client.serves('InferenceService', signal)) return;
  throw new ScrimError('UNSUPPORTED', 'KServe is not installed in the cluster: it has no serving.kserve.io/v1beta1');
}

function isReady({ status }: InferenceService): boolean {
  return status?.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True') ?? false;
}

function infoOf(service: InferenceService): InferenceServiceInfo {
  const url = service.status?.url;
  return { name: service.metadata?.name ?? '', ready: isReady(service), ...(url === undefined ? {} : { url }) };
}
