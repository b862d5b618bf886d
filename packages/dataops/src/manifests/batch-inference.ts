/**
 * TR-4928's inference Job: a data set on a volume, shared memory, ALPHA in the environment, backoffLimit 5.
 *
 * Over several pods it is an Indexed Job (Kubernetes 1.22 and later) in which each pod counts its part of the images and
 * keeps it on the volume, and a second Job that merges the parts. Older clusters get one Job for each part, which does
 * the same. The pods run without root and with a read-only root file system.
 */
import type { V1EnvVar, V1Job, V1JobSpec, V1PodSpec } from '@kubernetes/client-node';
import type { Manifest } from '../kube/kinds.js';
import { operationLabels } from './labels.js';
import { type ContainerResources, resourceRequirements } from './resources.js';

/** Annotation with the directory, as the pods see it, that holds the parts of an evaluation. */
export const RESULTS_ANNOTATION = 'scrim.dev/results';
/** Label with the name of the run that a Job belongs to. */
export const RUN_LABEL = 'scrim.dev/run';
/** How often a pod may fail before its Job does, as in the document. */
const BACKOFF_LIMIT = 5;

/** What is evaluated, and on what. */
export interface BatchInferenceSpec {
  readonly name: string;
  readonly image: string;
  readonly claim: string;
  /** Where the volume is mounted in the pods. */
  readonly mountPath: string;
  /** Directory of the data set as the pods see it. */
  readonly dataset: string;
  readonly alpha?: number;
  readonly noisy: boolean;
  readonly allowMissing: boolean;
  /** Further arguments of `scrim evaluate`, such as --size. */
  readonly args: readonly string[];
  readonly resources: ContainerResources;
  readonly runAsUser: number;
  readonly runAsGroup: number;
}

/** How the images are spread over pods. */
export interface Shards {
  readonly count: number;
  /** Directory for the parts, as the pods see it. */
  readonly directory: string;
}

/** What a cluster's Jobs can do, by the minor version of Kubernetes 1. */
export interface JobAbilities {
  /** Indexed Jobs (1.22; they were behind a switch in 1.21). */
  readonly indexed: boolean;
  /** Failures counted for each index, and disruptions not counted (1.29). */
  readonly perIndex: boolean;
}

/** The abilities of Kubernetes 1.`minor`. */
export function jobAbilities(minor: number): JobAbilities {
  return { indexed: minor >= 22, perIndex: minor >= 29 };
}

/** The Jobs that evaluate: a single one, or, for shards on a cluster without Indexed Jobs, one for each part. */
export function batchInferenceJobs(
  spec: BatchInferenceSpec,
  shards: Shards | undefined,
  abilities: JobAbilities,
): Manifest<'Job'>[] {
  if (shards === undefined) return [job(spec, spec.name, { backoffLimit: BACKOFF_LIMIT }, evaluation(spec))];
  if (abilities.indexed) {
    return [
      job(
        spec,
        spec.name,
        {
          completionMode: 'Indexed',
          completions: shards.count,
          parallelism: shards.count,
          ...(abilities.perIndex
            ? {
                backoffLimitPerIndex: BACKOFF_LIMIT,
                // A node that is drained, or a pod that makes room, is no fault of the evaluation.
                podFailurePolicy: {
                  rules: [{ action: 'Ignore', onPodConditions: [{ type: 'DisruptionTarget', status: 'True' }] }],
                },
              }
            : { backoffLimit: BACKOFF_LIMIT * shards.count }),
        },
        part(spec, shards),
        shards,
      ),
    ];
  }
  return Array.from({ length: shards.count }, (_, index) =>
    job(
      spec,
      `${spec.name}-${index}`,
      { backoffLimit: BACKOFF_LIMIT },
      part(spec, shards, [{ name: 'JOB_COMPLETION_INDEX', value: String(index) }]),
      shards,
    ),
  );
}

/** Name of the Job that merges the parts. */
export function mergeJobName(name: string): string {
  return `${name}-merge`;
}

/** The Job that puts the parts together; it may start when all of them are there. */
export function mergeJob(spec: BatchInferenceSpec, shards: Shards): Manifest<'Job'> {
  const parts = Array.from({ length: shards.count }, (_, index) => partFile(shards, String(index)));
  const args = ['evaluate', 'merge', ...parts, '--dataset', spec.dataset, ...allowMissing(spec)];
  const lean = { ...spec, resources: {} };
  return job(lean, mergeJobName(spec.name), { backoffLimit: BACKOFF_LIMIT }, { args, env: [] }, shards);
}

interface Run {
  readonly args: readonly string[];
  readonly env: readonly V1EnvVar[];
}

function evaluation(spec: BatchInferenceSpec): Run {
  return {
    args: [
      'evaluate',
      '--dataset',
      spec.dataset,
      ...(spec.alpha === undefined ? [] : ['--alpha', '$(ALPHA)']),
      ...(spec.noisy ? ['--noisy'] : []),
      ...allowMissing(spec),
      ...spec.args,
    ],
    env: spec.alpha === undefined ? [] : [{ name: 'ALPHA', value: String(spec.alpha) }],
  };
}

function part(spec: BatchInferenceSpec, shards: Shards, env: readonly V1EnvVar[] = []): Run {
  const whole = evaluation(spec);
  const index = '$(JOB_COMPLETION_INDEX)';
  return {
    args: [...whole.args, '--shard', `${index}/${shards.count}`, '--partial', partFile(shards, index)],
    env: [...whole.env, ...env],
  };
}

function partFile({ directory, count }: Shards, index: string): string {
  return `${directory}/part-${index}-of-${count}.json`;
}

function allowMissing(spec: BatchInferenceSpec): string[] {
  return spec.allowMissing ? ['--allow-missing'] : [];
}

function job(
  spec: BatchInferenceSpec,
  name: string,
  settings: Omit<V1JobSpec, 'template'>,
  { args, env }: Run,
  shards?: Shards,
): Manifest<'Job'> {
  const labels = { ...operationLabels('run-batch-inference'), [RUN_LABEL]: spec.name };
  const resources = resourceRequirements(spec.resources);
  const pod: V1PodSpec = {
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: spec.runAsUser,
      runAsGroup: spec.runAsGroup,
      fsGroup: spec.runAsGroup,
      fsGroupChangePolicy: 'OnRootMismatch',
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumes: [
      { name: 'data', persistentVolumeClaim: { claimName: spec.claim } },
      { name: 'dshm', emptyDir: { medium: 'Memory' } },
      { name: 'tmp', emptyDir: {} },
    ],
    containers: [
      {
        name: 'inference',
        image: spec.image,
        command: ['scrim'],
        args: [...args],
        ...(env.length === 0 ? {} : { env: [...env] }),
        ...(resources === undefined ? {} : { resources }),
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        volumeMounts: [
          { name: 'data', mountPath: spec.mountPath },
          { name: 'dshm', mountPath: '/dev/shm' },
          { name: 'tmp', mountPath: '/tmp' },
        ],
      },
    ],
  };
  const object: V1Job & Pick<Manifest<'Job'>, 'apiVersion' | 'kind' | 'metadata'> = {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name,
      labels,
      ...(shards === undefined ? {} : { annotations: { [RESULTS_ANNOTATION]: shards.directory } }),
    },
    spec: { ...settings, template: { metadata: { labels }, spec: pod } },
  };
  return object;
}
