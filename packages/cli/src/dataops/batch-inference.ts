/** `scrim run batch-inference`: TR-4928's inference Job, its logs on stderr, its result block on stdout. */
import type { DataopsEvent, PodLogLine, RunBatchInferenceOptions } from '@scrim/dataops';
import type { CommandContext } from '../context.js';
import { resourcesOf } from './container-flags.js';
import { collect, given, inSession, numberOf, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

interface RunFlags extends SharedFlags {
  readonly pvcName: string;
  readonly dataset: string;
  readonly image: string;
  readonly jobName?: string;
  readonly mountPath?: string;
  readonly alpha?: string;
  readonly noisy?: boolean;
  readonly allowMissing?: boolean;
  readonly gpus?: string;
  readonly cpu?: string;
  readonly memory?: string;
  readonly allocateResource?: readonly string[];
  readonly shards?: string;
  readonly follow?: boolean;
  readonly provider?: string;
  readonly model?: string;
  readonly bundle?: string;
  readonly size?: string;
  readonly repeats?: string;
}

/** Adds the command. */
export function registerBatchInference(verbs: Verbs, context: CommandContext): void {
  shared(
    verbs.run
      .command('batch-inference')
      .description('evaluate a data set on a volume by a Job, on one pod or spread over many'),
    { dryRun: true },
  )
    .requiredOption('-p, --pvc-name <name>', 'claim with the data set; parts of the result are kept there too')
    .requiredOption('-d, --dataset <path>', 'data set as the pods see it, such as /data/netapp-face-detection/FDDB')
    .requiredOption(
      '-i, --image <image>',
      'container image with the scrim command (deploy/docker/Dockerfile, target job)',
    )
    .option('-j, --job-name <name>', "name of the Job; default: 'batch-inference-<random>'")
    .option('--mount-path <path>', "where the volume is mounted; default: '/data'")
    .option('--alpha <a>', 'weight of privacy against accuracy, from 0 up to 1')
    .option('--noisy', 'add the noise')
    .option('--allow-missing', 'go on when some photos of the data set are not there')
    .option('-g, --gpus <n>', 'GPUs for each pod; more than 0 also chooses --provider cuda')
    .option('--cpu <amount>', 'CPUs for each pod, such as 0.5 or 4')
    .option('--memory <amount>', 'memory for each pod, such as 4Gi')
    .option('-r, --allocate-resource <name=amount>', 'another resource, such as nvidia.com/mig-1g.5gb=1', collect)
    .option('--shards <n>', 'spread the images over n pods; the figures are exactly those of one')
    .option('-f, --follow', 'wait for the end: logs on stderr, the result on stdout')
    .option('--provider <name>', 'execution provider in the pods: cpu or cuda')
    .option('--model <file>', 'model as the pods see it')
    .option('--bundle <dir>', 'bundle as the pods see it')
    .option('--size <pixels>', 'side the photos are resized to')
    .option('--repeats <n>', 'runs with fresh noise')
    .action((flags: RunFlags) =>
      inSession(
        context,
        flags,
        async ({ dataops, client, operation, made, say }) => {
          const watcher = new LogWatcher(context);
          const result = await dataops.runBatchInference(client, {
            ...operation,
            ...optionsOf(flags),
            onLine: (line) => watcher.line(line),
          });
          if (flags.dryRun !== undefined || flags.output !== undefined) {
            if (result.jobs.length > 1 && flags.dryRun !== undefined) {
              context.remark(
                `Job '${result.jobs.at(-1)}' is suspended: resume it when the others have succeeded, ` +
                  `kubectl patch job ${result.jobs.at(-1)} --type=merge -p '{"spec":{"suspend":false}}'`,
              );
            }
            made(result);
            return;
          }
          if (result.figures === undefined) {
            say(`Job '${result.jobName}' started.`);
            const again = `run the same command with --job-name=${result.jobName} --follow`;
            context.remark(
              `${again} to see its logs${result.jobs.length > 1 ? ', merge the parts' : ''} and get its result`,
            );
          } else for (const line of result.figures.lines) say(line);
        },
        lineOfJob,
      ),
    );
}

function lineOfJob(event: DataopsEvent): string | undefined {
  if (!('kind' in event) || event.kind !== 'Job') return undefined;
  if (event.type === 'adopted') return `Job '${event.name}' exists already in namespace '${event.namespace}'.`;
  return event.type === 'created' ? `Job '${event.name}' created in namespace '${event.namespace}'.` : undefined;
}

function optionsOf(flags: RunFlags): Omit<RunBatchInferenceOptions, 'onLine'> {
  const gpus = numberOf('--gpus', flags.gpus);
  const { alpha, shards } = { alpha: numberOf('--alpha', flags.alpha), shards: numberOf('--shards', flags.shards) };
  const provider = flags.provider ?? (gpus !== undefined && gpus > 0 ? 'cuda' : undefined);
  const args = Object.entries({
    provider,
    model: flags.model,
    bundle: flags.bundle,
    size: flags.size,
    repeats: flags.repeats,
  }).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, value]));
  const { cpu, memory, allocateResource } = flags;
  const container = given<{ cpu: string; memory: string; nvidiaGpu: string; allocateResource: readonly string[] }>({
    cpu,
    memory,
    nvidiaGpu: flags.gpus,
    allocateResource,
  });
  return {
    pvcName: flags.pvcName,
    dataset: flags.dataset,
    image: flags.image,
    noisy: flags.noisy ?? false,
    allowMissing: flags.allowMissing ?? false,
    follow: flags.follow ?? false,
    args,
    resources: resourcesOf(container),
    ...given<Pick<RunBatchInferenceOptions, 'jobName' | 'mountPath' | 'alpha' | 'shards'>>({
      jobName: flags.jobName,
      mountPath: flags.mountPath,
      alpha,
      shards,
    }),
  };
}

const PROGRESS_EVERY_MS = 2_000;

/** Turns the pods' lines into progress over all of them; other lines are passed on, the result block is left for stdout. */
class LogWatcher {
  readonly #context: CommandContext;
  readonly #parts = new Map<string, readonly [done: number, total: number]>();
  readonly #inBlock = new Set<string>();
  #last = Number.NEGATIVE_INFINITY;

  constructor(context: CommandContext) {
    this.#context = context;
  }

  line({ job, pod, index, text }: PodLogLine): void {
    const [, done, total] = /^evaluate: (\d+)\/(\d+)/.exec(text) ?? [];
    if (done !== undefined && total !== undefined) {
      this.#parts.set(index === undefined ? job : `${job}/${index}`, [Number(done), Number(total)]);
      this.#progress();
      return;
    }
    if (text === '===== Results =====') this.#inBlock.add(pod);
    if (!this.#inBlock.has(pod)) this.#context.remark(`[${pod}] ${text}`);
  }

  #progress(): void {
    let [done, total] = [0, 0];
    for (const [d, t] of this.#parts.values()) {
      done += d;
      total += t;
    }
    if (done < total && performance.now() - this.#last < PROGRESS_EVERY_MS) return;
    this.#last = performance.now();
    const parts = this.#parts.size > 1 ? ` in ${this.#parts.size} parts` : '';
    this.#context.remark(`evaluate: ${done}/${total} images${parts}`);
  }
}
