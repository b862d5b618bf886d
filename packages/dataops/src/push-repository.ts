/**
 * Puts a model repository on a volume: through a short-lived pod, as a tar stream, without S3 or shared storage here.
 *
 * The files are unpacked beside the models, under a name of the push's own, and compared with SHA-256 sums made here.
 * Only then does each model's directory take its place by a rename; what was there before is put back if that fails. A
 * push that breaks off leaves the repository as it was, and the next one sweeps up after it.
 */
import { createHash } from 'node:crypto';
import type { V1Pod } from '@kubernetes/client-node';
import { ScrimError } from 'scrim';
import { assertArgument } from './argument.js';
import { diagnosePod, Patience } from './diagnose.js';
import type { KubeClient } from './kube/client.js';
import { execInPod } from './kube/exec.js';
import { PUSHER_CONTAINER, REPOSITORY_DIR, repositoryPusher } from './manifests/repository-pusher.js';
import { checkName } from './naming.js';
import { type Operation, type OperationOptions, runOperation } from './operation.js';
import type { WithManifests } from './snapshots.js';
import { tarLength, tarOf } from './tar.js';

/** Image of the pod nobody chose one for: it has to contain sh, head, tar, sha256sum and mv. */
export const DEFAULT_PUSH_IMAGE = 'docker.io/library/busybox:1.37.0';

/** Arguments of {@link pushRepository}. */
export interface PushRepositoryOptions extends OperationOptions {
  /** Volume with the model repository; it has to exist. */
  readonly pvcName: string;
  /** Contents by path, `<model>/config.pbtxt`, `<model>/1/model.onnx`, …; models of other names on the volume stay. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly image?: string;
  /** Replaces models that are there; default false. */
  readonly replace?: boolean;
  /** User and group of the files; default 1000 and 1000, those of NVIDIA's Triton images. */
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  /** Told how much of the stream was sent. */
  readonly onSent?: (bytes: number, total: number) => void;
}

/** What was put on the volume. */
export interface PushRepositoryResult extends WithManifests {
  readonly models: readonly string[];
  readonly files: number;
  /** Bytes of the files; the stream is a little longer. */
  readonly bytes: number;
}

const MODEL = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
const PATH = /^[A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+)+$/;
const STAGING = '.scrim-push-';

/**
 * Puts the models on the volume.
 *
 * @throws NOT_FOUND (the volume, the image), ALREADY_EXISTS (a model is there and `replace` is not set),
 * PERMISSION_DENIED (pods/exec), UNAVAILABLE (the connection broke, or what arrived is not what was sent)
 */
export async function pushRepository(
  client: KubeClient,
  options: PushRepositoryOptions,
): Promise<PushRepositoryResult> {
  const { files, pvcName } = options;
  checkName('pvcName', pvcName);
  const models = modelsOf(files);
  const archive = archiveOf(files);
  const total = tarLength(archive);
  const bytes = [...files.values()].reduce((sum, { length }) => sum + length, 0);
  return runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    if (operation.dryRun !== 'client') await client.get('PersistentVolumeClaim', namespace, pvcName, signal);
    const pod = `scrim-repo-push-${operation.id}`;
    const { object } = await operation.create(
      repositoryPusher({
        name: pod,
        image: options.image ?? DEFAULT_PUSH_IMAGE,
        claim: pvcName,
        runAsUser: options.runAsUser ?? 1000,
        runAsGroup: options.runAsGroup ?? 1000,
      }),
    );
    const result = { models, files: files.size, bytes, manifests: operation.manifests };
    if (operation.dryRun !== undefined) return result;
    await waitForPod(operation, pod, object.metadata?.uid ?? '');
    const run = (script: string, args: readonly string[], input?: Iterable<Uint8Array>): Promise<string> =>
      execInPod(client, {
        namespace,
        pod,
        container: PUSHER_CONTAINER,
        command: ['sh', '-c', script, 'scrim', REPOSITORY_DIR, `${STAGING}${operation.id}`, ...args],
        signal,
        ...(input === undefined ? {} : { input, onSent: (sent: number) => options.onSent?.(sent, total) }),
      });
    if (options.replace !== true) refuseExisting(await run(LIST, models), pvcName);
    await run(RECEIVE, [String(total)], tarOf(archive));
    await run(SWAP, models);
    await operation.remove('Pod', pod, { wait: false });
    return result;
  });
}

/** Prints which of the models are there. $1 is the repository, $2 the staging directory, the rest are models. */
const LIST = 'cd "$1" || exit 1; shift 2; for m in "$@"; do if [ -e "$m" ]; then echo "$m"; fi; done';

/**
 * Unpacks $3 bytes of standard input below the staging directory and compares the sums that came with them. Pushes that
 * broke off more than an hour ago (their pods have ended) are swept up; a model they had set aside is put back.
 */
const RECEIVE = `set -e
cd "$1"; stage=$2
for left in $(find . -maxdepth 1 -name '${STAGING}*' -mmin +60); do
  for old in "$left"/old/*; do
    if [ -e "$old" ] && [ ! -e "\${old##*/}" ]; then mv "$old" "\${old##*/}"; fi
  done
  rm -rf "$left"
done
mkdir -p "$stage"
trap 'rm -rf "$stage"' EXIT
head -c "$3" | tar -x -o -f - -C "$stage"
(cd "$stage/new" && sha256sum -c ../sums > /dev/null)
sync
trap - EXIT`;

/** Puts each model in its place; what was there before goes when all of them are, and comes back if one fails. */
const SWAP = `cd "$1" || exit 1; stage=$2; shift 2
mkdir -p "$stage/old" || exit 1
back() {
  for m in "$@"; do
    if [ -e "$stage/old/$m" ]; then rm -rf "$m"; mv "$stage/old/$m" "$m"; fi
  done
  rm -rf "$stage"
  exit 1
}
for m in "$@"; do
  if [ -e "$m" ]; then mv "$m" "$stage/old/$m" || back "$@"; fi
  mv "$stage/new/$m" "$m" || back "$@"
done
rm -rf "$stage"
sync`;

function modelsOf(files: ReadonlyMap<string, Uint8Array>): string[] {
  assertArgument(files.size > 0, 'files is empty, expected a model repository');
  const models = new Set<string>();
  for (const path of files.keys()) {
    const model = path.split('/')[0] ?? '';
    assertArgument(
      PATH.test(path) && MODEL.test(model) && !path.split('/').some((part) => part === '..' || part === '.'),
      `files has '${path}', expected paths such as model/1/model.onnx`,
    );
    models.add(model);
  }
  return [...models];
}

/** The models below new/, and their SHA-256 sums beside it. */
function archiveOf(files: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> {
  const sum = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  const sums = [...files].map(([path, bytes]) => `${sum(bytes)}  ${path}\n`).join('');
  const archive = new Map([['sums', new TextEncoder().encode(sums)]]);
  for (const [path, bytes] of files) archive.set(`new/${path}`, bytes);
  return archive;
}

function refuseExisting(list: string, pvcName: string): void {
  const there = list.split('\n').filter((line) => line !== '');
  if (there.length === 0) return;
  throw new ScrimError(
    'ALREADY_EXISTS',
    `volume '${pvcName}' holds ${there.map((name) => `'${name}'`).join(', ')} already: replace is not set`,
  );
}

/** Waits until the pod runs. */
async function waitForPod(operation: Operation, name: string, uid: string): Promise<void> {
  operation.emit({ type: 'waiting', kind: 'Pod', name, namespace: operation.namespace });
  const patience = new Patience(operation.stallMs);
  await operation.waitFor(
    `Pod '${name}' to run`,
    { pods: { kind: 'Pod', name } },
    ({ pods }, elapsedMs) => {
      const pod: V1Pod | undefined = pods?.find(({ metadata }) => metadata?.uid === uid);
      if (pods !== undefined && pod === undefined) {
        throw new ScrimError('NOT_FOUND', `Pod '${name}' was deleted meanwhile`, { details: { reason: 'Deleted' } });
      }
      if (pod === undefined) return undefined;
      if (pod.status?.phase === 'Running') return true;
      if (pod.status?.phase === 'Failed' || pod.status?.phase === 'Succeeded') {
        throw new ScrimError(
          'UNAVAILABLE',
          `Pod '${name}' ended before it was used: ${pod.status.message ?? pod.status.phase}`,
        );
      }
      patience.judge(diagnosePod(pod), `Pod '${name}' does not run`, elapsedMs);
      return undefined;
    },
    ({ pods }) => `it is ${pods?.[0]?.status?.phase ?? 'not there'}`,
  );
}
