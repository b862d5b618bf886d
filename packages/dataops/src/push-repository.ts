/**
 * Puts a model repository on a volume: through a short-lived pod, as a tar stream, without S3 or shared storage here.
 *
 * The files are unpacked beside the models, under a name of the push's own, and compared with SHA-256 sums made here.
 * Only then does each model's directory take its place by a rename; what was there before is put back if that fails. A
 * push that fails puts the repository back before its pod goes; after one that had no time for that (its client or its
 * node died) the next push does it, once the other's pod is gone.
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
const POD = 'scrim-repo-push-';
/** How long the pod of a push that failed may take to put the repository back. */
const UNDO_MS = 20_000;

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
  const archive = archiveOf(files, models);
  const total = tarLength(archive);
  const bytes = [...files.values()].reduce((sum, { length }) => sum + length, 0);
  return runOperation(client, options, async (operation) => {
    const { namespace, signal } = operation;
    if (operation.dryRun !== 'client') await client.get('PersistentVolumeClaim', namespace, pvcName, signal);
    const pod = `${POD}${operation.id}`;
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
    const stage = `${STAGING}${operation.id}`;
    const run: RunScript = (script, args, { within = signal, input } = {}) =>
      execInPod(client, {
        namespace,
        pod,
        container: PUSHER_CONTAINER,
        command: ['sh', '-c', script, 'scrim', REPOSITORY_DIR, ...args],
        signal: within,
        ...(input === undefined ? {} : { input, onSent: (sent: number) => options.onSent?.(sent, total) }),
      });
    await sweep(operation, run);
    if (options.replace !== true) refuseExisting(await run(LIST, models), pvcName);
    operation.onFailure(`putting the repository on volume '${pvcName}' back`, async (late) => {
      await run(UNDO, [stage], { within: AbortSignal.any([late, AbortSignal.timeout(UNDO_MS)]) });
    });
    await run(RECEIVE, [stage, String(total)], { input: tarOf(archive) });
    await run(SWAP, [stage]).catch(async (error: unknown) => {
      // A connection may break behind the last rename: then all is in its place.
      const left = await run(LEFT, []).catch(() => stage);
      if (left.split('\n').includes(stage)) throw error;
    });
    await operation.remove('Pod', pod, { wait: false });
    return result;
  });
}

/** Runs a script in the pod; its first argument is the repository. */
type RunScript = (
  script: string,
  args: readonly string[],
  more?: { readonly within?: AbortSignal; readonly input?: Iterable<Uint8Array> },
) => Promise<string>;

/** Puts right what earlier pushes left whose pods are gone or have ended; those that still run are left alone. */
async function sweep(operation: Operation, run: RunScript): Promise<void> {
  const { client, namespace, signal } = operation;
  const left = (await run(LEFT, [])).split('\n').filter((name) => name.startsWith(STAGING));
  for (const name of left) {
    const pod = `${POD}${name.slice(STAGING.length).replace(/\..*$/, '')}`;
    const phase = /^[a-z0-9-]+$/.test(pod)
      ? (await client.find('Pod', namespace, pod, signal))?.status?.phase
      : undefined;
    if (phase === 'Pending' || phase === 'Running' || phase === 'Unknown') continue;
    await run(UNDO, [name.replace(/\.(undo|done)$/, '')]);
    if (phase !== undefined) await operation.remove('Pod', pod, { wait: false });
    operation.emit({ type: 'warning', message: `an earlier push broke off: '${name}' was removed from the volume` });
  }
}

/** Prints which of the models are there. $1 is the repository, the rest are models. */
const LIST = 'cd "$1" || exit 1; shift; for m in "$@"; do if [ -e "$m" ]; then echo "$m"; fi; done';

/** Prints the staging directories that are there. */
const LEFT = `cd "$1" || exit 1; for left in ${STAGING}*; do if [ -e "$left" ]; then echo "$left"; fi; done`;

/** Unpacks $3 bytes of standard input below the staging directory $2 and compares the sums that came with them. */
const RECEIVE = `set -e
cd "$1"; stage=$2
mkdir "$stage"
trap 'rm -rf "$stage"' EXIT
head -c "$3" | tar -x -o -f - -C "$stage"
(cd "$stage/new" && sha256sum -c ../sums > /dev/null)
sync
trap - EXIT`;

/**
 * Puts each model in its place. A staging directory with old/ is one whose swap has begun; the rename to .done is the
 * moment from which the push counts, and what lies there is rubbish.
 */
export const SWAP = `cd "$1" || exit 1; stage=$2
mkdir "$stage/old" || exit 1
for m in $(cat "$stage/models"); do
  if [ -e "$m" ]; then mv "$m" "$stage/old/$m" || exit 1; fi
  mv "$stage/new/$m" "$m" || exit 1
done
mv "$stage" "$stage.done" || exit 1
rm -rf "$stage.done"
sync`;

/**
 * Puts the repository back as it was before the push with the staging directory $2, and removes that. The first rename
 * takes the ground from a script of the push that still runs. Each step can be taken twice: a pod may end at any moment.
 */
export const UNDO = `cd "$1" || exit 1; stage=$2
if [ -e "$stage" ]; then mv "$stage" "$stage.undo" || exit 1; fi
if [ -d "$stage.undo/old" ]; then
  for m in $(cat "$stage.undo/models"); do
    if [ ! -e "$stage.undo/new/$m" ] && [ -e "$m" ]; then mv "$m" "$stage.undo/new/$m" || exit 1; fi
    if [ -e "$stage.undo/old/$m" ] && [ ! -e "$m" ]; then mv "$stage.undo/old/$m" "$m" || exit 1; fi
  done
fi
if [ -e "$stage.undo" ]; then mv "$stage.undo" "$stage.done" || exit 1; fi
# Something of the push may still be writing there; it ends once its directory is gone.
for i in 1 2 3 4 5; do
  if rm -rf "$stage.done" 2> /dev/null; then break; fi
  sleep 1
done
[ ! -e "$stage.done" ]`;

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

/** The models below new/; their names, a line each, and the SHA-256 sums of their files beside it. */
function archiveOf(files: ReadonlyMap<string, Uint8Array>, models: readonly string[]): Map<string, Uint8Array> {
  const sum = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  const sums = [...files].map(([path, bytes]) => `${sum(bytes)}  ${path}\n`).join('');
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  const archive = new Map([
    ['models', encode(models.map((model) => `${model}\n`).join(''))],
    ['sums', encode(sums)],
  ]);
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
