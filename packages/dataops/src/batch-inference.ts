/** Batch inference over a data set on a volume: TR-4928's second scenario, on one pod or spread over many. */
import { ScrimError } from 'scrim';
import { assertArgument } from './argument.js';
import { followJobs, logOfSucceeded, type PodLogLine } from './job-logs.js';
import type { KubeClient } from './kube/client.js';
import type { KindMap, Manifest } from './kube/kinds.js';
import { linesOf } from './kube/lines.js';
import {
  type BatchInferenceSpec,
  batchInferenceJobs,
  jobAbilities,
  mergeJob,
  mergeJobName,
  RESULTS_ANNOTATION,
  RUN_LABEL,
  type Shards,
} from './manifests/batch-inference.js';
import type { ContainerResources } from './manifests/resources.js';
import { checkName, checkServiceName, uniqueSuffix } from './naming.js';
import { type Operation, type OperationOptions, requestDigest, runOperation } from './operation.js';
import type { WithManifests } from './snapshots.js';

/** Arguments of {@link runBatchInference}. */
export interface RunBatchInferenceOptions extends OperationOptions {
  /** Volume with the data set; parts and results are kept on it as well. */
  readonly pvcName: string;
  /** Directory of the data set as the pods see it, such as '/data/netapp-face-detection/FDDB'. */
  readonly dataset: string;
  /** Image whose `scrim` command is run. */
  readonly image: string;
  /** Default: 'batch-inference-' and random letters. Repeating a run under its name goes on with it. */
  readonly jobName?: string;
  /** Where the volume is mounted; default '/data'. */
  readonly mountPath?: string;
  readonly alpha?: number;
  readonly noisy?: boolean;
  readonly allowMissing?: boolean;
  /** Further arguments of `scrim evaluate`. */
  readonly args?: readonly string[];
  readonly resources?: ContainerResources;
  /** Over how many pods the images are spread, 1 to 1,000; undefined for TR-4928's single pod. */
  readonly shards?: number;
  /** Waits for the end, merges the parts and returns the result. */
  readonly follow?: boolean;
  /** Called with each log line while following. */
  readonly onLine?: (line: PodLogLine) => void;
  /** User and group of the pods; default 1000 and 100, those of Jupyter's images. */
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
}

/** What an evaluation found, read from the block that it prints. */
export interface BatchInferenceFigures {
  readonly folds: readonly { readonly fold: number; readonly ap: number }[];
  readonly mAP: number;
  /** The block, line by line. */
  readonly lines: readonly string[];
}

/** A run that was started, or has ended. */
export interface BatchInferenceResult extends WithManifests {
  readonly jobName: string;
  /** All Jobs of the run; the last one merges the parts, once they are there. */
  readonly jobs: readonly string[];
  /** Undefined without `follow`. */
  readonly figures?: BatchInferenceFigures;
}

const MOST_SHARDS = 1_000;
const LONGEST_JOB_NAME = 50;
/** What a dry run without a server is written for. */
const NEWEST_MINOR = 34;
const DAY_MS = 86_400_000;

/**
 * Starts the Jobs of an evaluation. With `follow` it waits for them, merges the parts and returns the figures; a caller
 * that stops meanwhile leaves the Jobs running, and the same call under the same `jobName` goes on with them.
 *
 * @throws NOT_FOUND (the volume, the image), ALREADY_EXISTS (another run has the name), RESOURCE_EXHAUSTED
 * (unschedulable), UNAVAILABLE with reason 'JobFailed'
 */
export async function runBatchInference(
  client: KubeClient,
  options: RunBatchInferenceOptions,
): Promise<BatchInferenceResult> {
  const spec = specOf(options);
  const { shards: count } = options;
  assertArgument(
    count === undefined || (Number.isSafeInteger(count) && count >= 1 && count <= MOST_SHARDS),
    `shards is ${count}, expected 1 to ${MOST_SHARDS}`,
  );
  const { name } = spec;
  const request = requestDigest('run-batch-inference', { ...spec, name: undefined, count });
  const timeoutMs = options.timeoutMs ?? (options.follow ? DAY_MS : undefined);
  const limited = { ...options, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
  return runOperation(client, limited, async (operation) => {
    const { namespace, signal } = operation;
    let minor = NEWEST_MINOR;
    if (operation.dryRun !== 'client') {
      await client.get('PersistentVolumeClaim', namespace, options.pvcName, signal);
      minor = await serverMinor(operation);
    }
    let shards: Shards | undefined =
      count === undefined ? undefined : { count, directory: `${spec.mountPath}/.scrim/${name}-${operation.id}` };
    const jobs: string[] = [];
    const total = batchInferenceJobs(spec, shards, jobAbilities(minor)).length;
    for (let at = 0; at < total; at++) {
      const manifest = batchInferenceJobs(spec, shards, jobAbilities(minor))[at] as Manifest<'Job'>;
      const { object, adopted } = await operation.create(manifest, { adopt: request });
      jobs.push(manifest.metadata.name);
      // An interrupted run chose the directory: its parts lie there.
      if (adopted && shards !== undefined) shards = { ...shards, directory: directoryOf(object, shards.directory) };
    }
    const merge = shards === undefined ? undefined : mergeJob(spec, shards);
    const all = merge === undefined ? jobs : [...jobs, mergeJobName(name)];
    const { manifests } = operation;
    if (operation.dryRun !== undefined || !options.follow) {
      // Not made yet. Whoever applies what is printed has both at once: the merge is to wait for the parts then.
      if (merge !== undefined) manifests.push({ ...merge, spec: { ...merge.spec, suspend: true } } as Manifest<'Job'>);
      return { jobName: name, jobs: all, manifests };
    }
    const onLine = options.onLine ?? (() => undefined);
    const keep = (): void => {
      for (const job of all) operation.keep('Job', job);
    };
    // Once the Jobs are there, stopping to look on does not stop them.
    signal.addEventListener('abort', keep, { once: true });
    const selector = `${RUN_LABEL}=${name}`;
    await followJobs(operation, jobs, selector, onLine, keep);
    keep();
    if (merge !== undefined) {
      await operation.create(merge, { adopt: request });
      keep();
      await followJobs(operation, [merge.metadata.name], selector, onLine, keep);
    }
    const figures = parseFigures(await logOfSucceeded(operation, all.at(-1) ?? name));
    return { jobName: name, jobs: all, figures, manifests };
  });
}

function specOf(options: RunBatchInferenceOptions): BatchInferenceSpec {
  const { dataset, image, alpha, noisy = false, args = [] } = options;
  checkName('pvcName', options.pvcName);
  const name = options.jobName ?? `batch-inference-${uniqueSuffix()}`;
  checkServiceName('jobName', name, 'x'.repeat(63 - LONGEST_JOB_NAME));
  const mountPath = (options.mountPath ?? '/data').replace(/(.)\/+$/, '$1');
  assertArgument(
    isPlainPath(mountPath) && mountPath !== '/',
    `mountPath is '${mountPath}', expected one such as /data`,
  );
  assertArgument(
    isPlainPath(dataset) && `${dataset}/`.startsWith(`${mountPath}/`),
    `dataset is '${dataset}', expected a path below ${mountPath}, where the volume is mounted`,
  );
  assertArgument(/^\S+$/.test(image), `image is '${image}', expected the name of an image`);
  assertArgument(
    alpha === undefined || (alpha >= 0 && alpha < 1),
    `alpha is ${alpha}, expected a number from 0 up to, but not including, 1`,
  );
  assertArgument(!noisy || alpha !== undefined || args.includes('--bundle'), 'noisy needs alpha or a bundle');
  return {
    name,
    image,
    claim: options.pvcName,
    mountPath,
    dataset,
    noisy,
    allowMissing: options.allowMissing ?? false,
    args,
    resources: options.resources ?? {},
    runAsUser: options.runAsUser ?? 1000,
    runAsGroup: options.runAsGroup ?? 100,
    ...(alpha === undefined ? {} : { alpha }),
  };
}

function isPlainPath(path: string): boolean {
  return path.startsWith('/') && !path.split('/').includes('..') && !path.includes('$(');
}

function directoryOf(job: KindMap['Job'], otherwise: string): string {
  return job.metadata?.annotations?.[RESULTS_ANNOTATION] ?? otherwise;
}

/** Minor version of the API server. */
async function serverMinor({ client, signal }: Operation): Promise<number> {
  const response = await client.open({ method: 'GET', path: '/version', signal });
  let text = '';
  for await (const line of linesOf(response)) text += line;
  const minor = Number.parseInt((JSON.parse(text) as { minor?: string }).minor ?? '', 10);
  if (!Number.isSafeInteger(minor)) {
    throw new ScrimError('UNSUPPORTED', 'the API server does not say which version of Kubernetes it is');
  }
  return minor;
}

/** Reads the result block in a log. @throws INVALID_DATA where there is none */
export function parseFigures(log: readonly string[]): BatchInferenceFigures {
  const start = log.lastIndexOf('===== Results =====');
  const lines = start < 0 ? [] : log.slice(start);
  const folds = lines.flatMap((line) => {
    const [, fold, ap] = /^FDDB-fold-(\d+) Val AP: (\S+)$/.exec(line) ?? [];
    return fold === undefined || ap === undefined ? [] : [{ fold: Number(fold), ap: Number(ap) }];
  });
  const mAP = Number(/^mAP: (\S+)$/.exec(lines.find((line) => line.startsWith('mAP: ')) ?? '')?.[1] ?? Number.NaN);
  if (Number.isNaN(mAP)) throw new ScrimError('INVALID_DATA', 'the log of the Job holds no result block with a mAP');
  return { folds, mAP, lines };
}
