/**
 * FlexCache volumes: a cache of an ONTAP volume on another storage system or SVM, as a claim in Kubernetes.
 *
 * Where the storage system is and who may log in is read from Trident's backend (TridentBackendConfig and the Secret it
 * names), as the toolkit does; each part can be given instead. ONTAP makes the cache, then a PersistentVolume (NFS) and
 * a claim are made for it. Deleting goes the other way round; the PersistentVolume goes last, so that an interrupted
 * deletion can be taken up.
 */
import { ScrimError } from 'scrim';
import { assertArgument } from './argument.js';
import type { KubeClient } from './kube/client.js';
import type { KindMap } from './kube/kinds.js';
import { type FlexCacheSpec, flexCacheBody, flexCacheClaim, flexCacheVolume } from './manifests/flexcache.js';
import { checkName, checkSize, quantityValue } from './naming.js';
import { OntapClient, type OntapConnectOptions } from './ontap/client.js';
import { type Operation, type OperationOptions, requestDigest, runOperation } from './operation.js';
import type { WithManifests } from './snapshots.js';
import { refuseInUse } from './volumes.js';
import { waitForAvailable, waitForPreboundClaim } from './waiting.js';

const FLEXCACHES = '/api/storage/flexcache/flexcaches';
const VOLUMES = '/api/storage/volumes';

/** Which storage system holds the cache. What is not given here is read from Trident's backend. */
export interface FlexCacheBackend
  extends Partial<Pick<OntapConnectOptions, 'username' | 'password' | 'ca' | 'fingerprint' | 'serverName'>> {
  /** Name of the TridentBackendConfig. */
  readonly backendName: string;
  /** Namespace Trident runs in; default 'trident'. */
  readonly tridentNamespace?: string;
  /** Address of the management LIF; default: the backend's. */
  readonly managementLif?: string;
  /** Address of the data LIF, which pods mount; default: the backend's. */
  readonly dataLif?: string;
  /** SVM that gets the cache; default: the backend's. */
  readonly svm?: string;
}

/** Arguments of {@link createFlexCache}. */
export interface CreateFlexCacheOptions extends OperationOptions, FlexCacheBackend {
  /** Name of the claim; ONTAP's volume is called the same, with '_' for what ONTAP does not allow. */
  readonly flexCacheVolume: string;
  /** Such as '100Gi'; ONTAP wants at least 1 GB for each constituent. */
  readonly size: string;
  readonly sourceSvm: string;
  readonly sourceVolume: string;
  /** Where the SVM mounts the cache; default: '/' and the claim's name. */
  readonly junction?: string;
}

/** A FlexCache that was made. */
export interface FlexCacheResult extends WithManifests {
  readonly pvcName: string;
  readonly volumeName: string;
  /** SVM and name of the cache on the storage system, such as 'svm1:cache1'. */
  readonly flexCache: string;
}

/** What ONTAP says of a FlexCache. */
interface FlexCacheRecord {
  readonly name?: string;
  readonly path?: string;
  readonly origins?: readonly {
    readonly svm?: { readonly name?: string };
    readonly volume?: { readonly name?: string };
  }[];
}

/** ONTAP volume names know letters, digits and '_'. */
function ontapName(name: string): string {
  return name.replace(/[^A-Za-z0-9_]/g, '_');
}

/**
 * Makes a FlexCache volume in ONTAP, and a volume and a claim for it; waits until the claim is bound.
 *
 * A cache that an interrupted run left (same origin, same junction, no claim) is taken over; a run that fails removes
 * what it made, the cache included. A dry run sends nothing to ONTAP.
 *
 * @throws ALREADY_EXISTS, NOT_FOUND (backend, Secret), UNAUTHENTICATED (certificate, password), UNAVAILABLE with ONTAP's
 *   reason
 */
export async function createFlexCache(client: KubeClient, options: CreateFlexCacheOptions): Promise<FlexCacheResult> {
  const { flexCacheVolume: claim, size, sourceSvm, sourceVolume } = options;
  checkName('flexCacheVolume', claim);
  checkSize('size', size);
  assertArgument(sourceSvm !== '' && sourceVolume !== '', 'sourceSvm or sourceVolume is empty');
  const name = ontapName(claim);
  assertArgument(
    name.length <= 203 && /^[A-Za-z_]/.test(name),
    `flexCacheVolume is '${claim}', expected at most 203 characters, the first one a letter: ONTAP's names are so`,
  );
  const junction = options.junction ?? `/${claim}`;
  assertArgument(
    /^\/.*[^/]$/.test(junction),
    `junction is '${junction}', expected a path that starts with '/' and does not end with it`,
  );
  return runOperation(client, options, async (operation) => {
    const backend = await readBackend(operation, options);
    const { namespace } = operation;
    const spec: FlexCacheSpec = {
      claim,
      namespace,
      volume: await volumeName(operation, claim),
      size,
      junction,
      dataLif: backend.dataLif,
      sourceSvm,
      sourceVolume,
    };
    const result = {
      pvcName: claim,
      volumeName: spec.volume,
      flexCache: `${backend.svm}:${name}`,
      manifests: operation.manifests,
    };
    await refuseExisting(operation, claim);
    if (operation.dryRun === undefined) {
      const origin = { name, svm: backend.svm, sourceSvm, sourceVolume: ontapName(sourceVolume), junction };
      await makeCache(operation, backend, { ...origin, bytes: quantityValue(size) });
    }
    const request = requestDigest('create-flexcache', { claim, namespace, junction, sourceSvm, sourceVolume, size });
    await operation.create(flexCacheVolume(spec), { adopt: request });
    if (operation.dryRun === undefined) await waitForAvailable(operation, spec.volume);
    const { object } = await operation.create(flexCacheClaim(spec));
    if (operation.dryRun !== undefined) return result;
    await waitForPreboundClaim(operation, claim, object.metadata?.uid ?? '');
    operation.emit({ type: 'ready', kind: 'PersistentVolumeClaim', name: claim, source: spec.volume, namespace });
    return result;
  });
}

async function refuseExisting(operation: Operation, claim: string): Promise<void> {
  if (operation.dryRun === 'client') return;
  const { client, namespace, signal } = operation;
  if ((await client.find('PersistentVolumeClaim', namespace, claim, signal)) === undefined) return;
  throw new ScrimError('ALREADY_EXISTS', `PersistentVolumeClaim '${claim}' exists already in namespace '${namespace}'`);
}

/** 'pv-<claim>', as the toolkit names it; with a digest behind where another namespace's claim has that one. */
async function volumeName(operation: Operation, claim: string): Promise<string> {
  const plain = `pv-${claim}`;
  if (operation.dryRun === 'client') return plain;
  const { client, namespace, signal } = operation;
  const present = await client.find('PersistentVolume', '', plain, signal);
  if (present === undefined || reservedFor(present, namespace, claim)) return plain;
  return `${plain.slice(0, 240)}-${requestDigest('flexcache', { namespace, claim }).slice(0, 8)}`;
}

function reservedFor({ spec }: KindMap['PersistentVolume'], namespace: string, claim: string): boolean {
  return spec?.claimRef?.namespace === namespace && spec.claimRef.name === claim;
}

type CacheRequest = Parameters<typeof flexCacheBody>[0];

/** Makes the cache on the storage system, to be removed if the run fails, or takes over an interrupted run's. */
async function makeCache(operation: Operation, backend: ReadyBackend, request: CacheRequest): Promise<void> {
  const { namespace, signal } = operation;
  const { name, svm, sourceSvm, sourceVolume, junction } = request;
  const cache = `${svm}:${name}`;
  operation.emit({
    type: 'step',
    step: 'create-flexcache',
    name: cache,
    source: `${sourceSvm}:${sourceVolume}`,
    namespace,
  });
  await withOntap(backend, async (ontap) => {
    const present = await findCache(ontap, svm, name, signal);
    if (present === undefined) {
      const creation = { method: 'POST', path: FLEXCACHES, body: flexCacheBody(request) } as const;
      await ontap.run(creation, 'creating the FlexCache', signal);
      operation.onFailure(`deleting FlexCache '${cache}'`, (late) =>
        withOntap(backend, async (again) => void (await removeCache(again, svm, name, late))),
      );
      return;
    }
    const [origin] = present.origins ?? [];
    const same = origin?.svm?.name === sourceSvm && origin.volume?.name === sourceVolume && present.path === junction;
    if (!same) {
      throw new ScrimError('ALREADY_EXISTS', `FlexCache '${cache}' exists already, with another origin or junction`, {
        details: { reason: 'AlreadyExists' },
      });
    }
    operation.emit({ type: 'warning', message: `FlexCache '${cache}' was there already: it is taken over` });
  });
  operation.emit({ type: 'step', step: 'flexcache-created', name: cache, namespace });
}

function findCache(
  ontap: OntapClient,
  svm: string,
  name: string,
  signal: AbortSignal,
): Promise<(FlexCacheRecord & { readonly uuid: string }) | undefined> {
  return ontap.find<FlexCacheRecord>(
    FLEXCACHES,
    { name, 'svm.name': svm },
    'path,origins.svm.name,origins.volume.name',
    signal,
  );
}

/** Unmounts and deletes a cache; ONTAP takes it offline itself, but refuses while it is mounted. */
async function removeCache(ontap: OntapClient, svm: string, name: string, signal: AbortSignal): Promise<boolean> {
  const cache = await findCache(ontap, svm, name, signal);
  if (cache === undefined) return false;
  const volume = await ontap.find<{ nas?: { path?: string } }>(VOLUMES, { name, 'svm.name': svm }, 'nas.path', signal);
  if (volume !== undefined && (volume.nas?.path ?? '') !== '') {
    const path = `${VOLUMES}/${encodeURIComponent(volume.uuid)}`;
    await ontap.run({ method: 'PATCH', path, body: { nas: { path: '' } } }, 'unmounting the FlexCache', signal);
  }
  const path = `${FLEXCACHES}/${encodeURIComponent(cache.uuid)}`;
  await ontap.run({ method: 'DELETE', path }, 'deleting the FlexCache', signal);
  return true;
}

/** Arguments of {@link deleteFlexCache}. */
export interface DeleteFlexCacheOptions extends OperationOptions, FlexCacheBackend {
  readonly pvcName: string;
}

/**
 * Deletes a FlexCache: claim, cache, volume, in this order. The origin and its data stay.
 *
 * @throws NOT_FOUND, INVALID_ARGUMENT where the claim is no FlexCache or the backend's cache is another one,
 *   UNAVAILABLE with reason 'InUse' while pods use it; nothing is deleted then
 */
export async function deleteFlexCache(client: KubeClient, options: DeleteFlexCacheOptions): Promise<void> {
  const { pvcName } = options;
  checkName('pvcName', pvcName);
  await runOperation(client, options, async (operation) => {
    const { namespace } = operation;
    const volume = await volumeOf(operation, pvcName);
    await refuseInUse(operation, pvcName);
    const backend = await readBackend(operation, options);
    const name = ontapName(pvcName);
    await withOntap(backend, async (ontap) => {
      // Asked before anything goes: a wrong password or backend must not leave half of it.
      const cache = await findCache(ontap, backend.svm, name, operation.signal);
      const path = volume.spec?.nfs?.path;
      if (cache !== undefined && path !== undefined && cache.path !== undefined && cache.path !== path) {
        throw new ScrimError(
          'INVALID_ARGUMENT',
          `FlexCache '${backend.svm}:${name}' is mounted at '${cache.path}', but the volume of '${pvcName}' is '${path}': the backend is another one; nothing was deleted`,
        );
      }
      if (operation.dryRun !== undefined) return;
      operation.emit({ type: 'deleting', kind: 'PersistentVolumeClaim', name: pvcName, namespace });
      await operation.remove('PersistentVolumeClaim', pvcName);
      operation.emit({ type: 'deleted', kind: 'PersistentVolumeClaim', name: pvcName, namespace });
      operation.emit({ type: 'step', step: 'delete-flexcache', name, source: backend.svm, namespace });
      const found = await removeCache(ontap, backend.svm, name, operation.signal);
      if (found) operation.emit({ type: 'step', step: 'flexcache-deleted', name, source: backend.svm, namespace });
      else operation.emit({ type: 'warning', message: `FlexCache '${backend.svm}:${name}' was gone already` });
    });
    const about = { kind: 'PersistentVolume', name: volume.metadata?.name ?? '', namespace, source: pvcName } as const;
    operation.emit({ type: 'deleting', ...about });
    await operation.remove('PersistentVolume', about.name);
    operation.emit({ type: 'deleted', ...about });
  });
}

/** The FlexCache's PersistentVolume, whether or not its claim is still there. */
async function volumeOf(operation: Operation, claim: string): Promise<KindMap['PersistentVolume']> {
  const { client, namespace, signal } = operation;
  const present = await client.find('PersistentVolumeClaim', namespace, claim, signal);
  if (present !== undefined && present.metadata?.labels?.app !== 'flexcache') {
    throw new ScrimError('INVALID_ARGUMENT', `PersistentVolumeClaim '${claim}' is not a FlexCache volume`);
  }
  const name = present?.spec?.volumeName ?? (await volumeName(operation, claim));
  const volume = await client.find('PersistentVolume', '', name, signal);
  if (volume === undefined || volume.metadata?.labels?.app !== 'flexcache' || !reservedFor(volume, namespace, claim)) {
    throw new ScrimError('NOT_FOUND', `FlexCache volume '${claim}' does not exist in namespace '${namespace}'`);
  }
  return volume;
}

interface ReadyBackend {
  readonly connect: OntapConnectOptions;
  readonly dataLif: string;
  readonly svm: string;
}

/** Completes what the caller gave from the TridentBackendConfig and its Secret. Reads nothing that was given. */
async function readBackend(operation: Operation, options: FlexCacheBackend): Promise<ReadyBackend> {
  const { client, signal, dryRun } = operation;
  const { backendName, tridentNamespace = 'trident', ca, fingerprint, serverName } = options;
  checkName('backendName', backendName);
  checkName('tridentNamespace', tridentNamespace);
  const { managementLif, dataLif, svm, username, password } = options;
  const complete = managementLif !== undefined && dataLif !== undefined && svm !== undefined;
  const secretNeeded = username === undefined || password === undefined;
  let host = managementLif;
  let credentials = { username: username ?? '', password: password ?? '' };
  const spec: KindMap['TridentBackendConfig']['spec'] = {};
  if (dryRun === 'client') {
    assertArgument(
      dataLif !== undefined && svm !== undefined,
      'a dry run of the client reads no backend: give the data LIF and the SVM, or use the dry run of the server',
    );
  } else if (!complete || secretNeeded) {
    Object.assign(spec, (await client.get('TridentBackendConfig', tridentNamespace, backendName, signal)).spec);
    const driver = spec.storageDriverName ?? '';
    if (!/^ontap-nas/.test(driver)) {
      throw new ScrimError(
        'UNSUPPORTED',
        `TridentBackendConfig '${backendName}' has the driver '${driver}': a FlexCache needs one of ontap-nas, ontap-nas-economy, ontap-nas-flexgroup`,
      );
    }
    host ??= spec.managementLIF;
    if (secretNeeded) credentials = await readCredentials(operation, tridentNamespace, spec.credentials?.name);
  }
  const missing = (what: string, flag: string): never => {
    throw new ScrimError('NOT_FOUND', `TridentBackendConfig '${backendName}' has no ${what}: give ${flag}`);
  };
  return {
    connect: {
      ...credentials,
      host: host ?? (dryRun === 'client' ? 'none' : missing('managementLIF', 'managementLif')),
      ...(ca === undefined ? {} : { ca }),
      ...(fingerprint === undefined ? {} : { fingerprint }),
      ...(serverName === undefined ? {} : { serverName }),
    },
    dataLif: dataLif ?? spec.dataLIF ?? missing('dataLIF', 'dataLif'),
    svm: svm ?? spec.svm ?? missing('svm', 'svm'),
  };
}

async function readCredentials(
  operation: Operation,
  namespace: string,
  name: string | undefined,
): Promise<{ readonly username: string; readonly password: string }> {
  if (name === undefined)
    throw new ScrimError('NOT_FOUND', 'the TridentBackendConfig names no Secret with credentials');
  const { data = {} } = await operation.client.get('Secret', namespace, name, operation.signal);
  const decode = (key: string): string => {
    const value = data[key];
    if (value === undefined || value === '') {
      throw new ScrimError('NOT_FOUND', `Secret '${name}' in namespace '${namespace}' has no '${key}'`);
    }
    return Buffer.from(value, 'base64').toString('utf8');
  };
  return { username: decode('username'), password: decode('password') };
}

async function withOntap<R>(backend: ReadyBackend, task: (ontap: OntapClient) => Promise<R>): Promise<R> {
  const ontap = new OntapClient(backend.connect);
  try {
    return await task(ontap);
  } finally {
    ontap.close();
  }
}
