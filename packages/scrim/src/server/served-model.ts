/**
 * One loaded version of a model: checks requests, queues them, runs them in batches on its instances, and counts.
 *
 * A request that is cancelled or whose time is over leaves the queue at once; one under way keeps its batch, and only
 * its own answer is dropped.
 */
import type { NamedTensors } from '../engine/engine.js';
import { ScrimError } from '../errors.js';
import {
  classify,
  DATATYPE_OF,
  type InferOutput,
  type InferRequest,
  type InferResponse,
  isBytesTensor,
  toBytes,
  toStrings,
  type WireTensor,
} from '../protocol/index.js';
import type { Tensor } from '../tensor.js';
import type { ModelInstance } from './model-instance.js';
import type { ModelSettings, TensorSpec } from './model-settings.js';
import { type FailureReason, StatisticsCollector } from './model-statistics.js';
import { type QueuedRequest, RequestQueue } from './request-queue.js';
import { divideOutputs, joinFeeds } from './tensor-batch.js';

/** The clock of a server: nanoseconds from any start, and milliseconds since 1970. */
export interface Clock {
  nowNs(): bigint;
  nowMs(): number;
}

interface Execution {
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly startedNs: bigint;
  readonly inputNs: bigint;
  readonly inferNs: bigint;
  readonly outputNs: bigint;
}

interface Job extends QueuedRequest {
  readonly feeds: NamedTensors;
  readonly fetches: readonly string[];
  readonly signal: AbortSignal | undefined;
  readonly resolve: (execution: Execution) => void;
  readonly reject: (error: unknown) => void;
}

/** What a served model is made of. */
export interface ServedModelParts {
  readonly name: string;
  readonly version: number;
  readonly settings: ModelSettings;
  readonly instances: readonly ModelInstance[];
  /** Labels of the classes of an output, by its name. */
  readonly labels: ReadonlyMap<string, readonly string[]>;
  readonly clock: Clock;
}

const SHOWN_NAME = 200;

/** A version of a model that answers requests. */
export class ServedModel {
  readonly name: string;
  readonly version: number;
  readonly settings: ModelSettings;
  readonly statistics: StatisticsCollector = new StatisticsCollector();
  readonly #labels: ReadonlyMap<string, readonly string[]>;
  readonly #clock: Clock;
  readonly #queue: RequestQueue<Job>;
  readonly #instances: readonly ModelInstance[];
  readonly #idle: ModelInstance[];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #inFlight = 0;
  #closing = false;
  #drained: (() => void) | undefined;

  constructor({ name, version, settings, instances, labels, clock }: ServedModelParts) {
    this.name = name;
    this.version = version;
    this.settings = settings;
    this.#labels = labels;
    this.#clock = clock;
    this.#instances = instances;
    this.#idle = [...instances];
    for (const instance of instances) instance.onRecovered = () => this.#pump();
    this.#queue = new RequestQueue(settings.policies, settings.batching, Math.max(1, settings.maxBatchSize));
  }

  /** True while at least one instance can run. */
  get alive(): boolean {
    return this.#instances.some(({ alive }) => alive);
  }

  /** How often instances were replaced. */
  get restarts(): number {
    return this.#instances.reduce((sum, { restarts }) => sum + restarts, 0);
  }

  /**
   * Answers a request.
   * @throws ScrimError INVALID_ARGUMENT for inputs or outputs the model does not have or that do not fit; UNAVAILABLE
   * if the queue is full, the time in the queue is over, or the model is being unloaded; ENGINE_FAILED; CANCELLED.
   */
  async infer(request: InferRequest, signal?: AbortSignal): Promise<InferResponse> {
    const arrivedNs = this.#clock.nowNs();
    try {
      const job = this.#prepare(request, arrivedNs, signal);
      const execution = await this.#enqueue(job);
      const startNs = this.#clock.nowNs();
      const outputs = this.#respond(request, execution.outputs);
      const doneNs = this.#clock.nowNs();
      this.statistics.succeeded(
        job.batchSize,
        {
          total: doneNs - arrivedNs,
          queue: execution.startedNs - arrivedNs,
          computeInput: execution.inputNs,
          computeInfer: execution.inferNs,
          computeOutput: execution.outputNs + doneNs - startNs,
        },
        this.#clock.nowMs(),
      );
      return {
        modelName: this.name,
        modelVersion: String(this.version),
        ...(request.id === undefined ? {} : { id: request.id }),
        outputs,
      };
    } catch (error) {
      this.statistics.failed(reasonOf(error), this.#clock.nowNs() - arrivedNs);
      throw error;
    }
  }

  /** Runs `feeds` once on every instance, past the queue: for warm-up. */
  async warm(feeds: NamedTensors, fetches: readonly string[]): Promise<void> {
    await Promise.all(this.#instances.map((instance) => instance.run(feeds, { fetches })));
  }

  /** Takes no more requests, answers those it has, and frees the instances. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#queue.size > 0 || this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
        this.#pump();
      });
    }
    clearTimeout(this.#timer);
    await Promise.all(this.#instances.map((instance) => instance.close()));
  }

  /** Refuses what waits, so that {@link close} has only the runs under way to wait for. */
  abandon(): void {
    for (const job of this.#queue.clear())
      job.reject(new ScrimError('UNAVAILABLE', `model '${this.name}' is unloading`));
    this.#settled();
  }

  #prepare(request: InferRequest, arrivedNs: bigint, signal: AbortSignal | undefined): Omit<Job, 'resolve' | 'reject'> {
    const { maxBatchSize, inputs, outputs, policies, defaultPriority } = this.settings;
    const fail = (text: string): never => {
      throw new ScrimError('INVALID_ARGUMENT', `${text} for model '${this.name}'`);
    };
    if (request.inputs.length !== inputs.length) {
      fail(`expected ${inputs.length} inputs but got ${request.inputs.length} inputs`);
    }
    const given = new Map(request.inputs.map((input) => [input.name, input.tensor]));
    const feeds: Record<string, Tensor> = Object.create(null);
    let batch: number | undefined;
    for (const spec of inputs) {
      const wire = given.get(spec.name);
      if (wire === undefined) {
        const unknown = request.inputs.find(({ name }) => !inputs.some((input) => input.name === name));
        throw new ScrimError(
          'INVALID_ARGUMENT',
          `unexpected inference input '${(unknown?.name ?? '').slice(0, SHOWN_NAME)}' for model '${this.name}', expected '${spec.name}'`,
        );
      }
      const rows = this.#checkInput(spec, wire);
      if (batch !== undefined && rows !== batch) fail(`input '${spec.name}' has batch size ${rows}, others ${batch},`);
      batch = rows;
      feeds[spec.name] = isBytesTensor(wire) ? toStrings(wire) : wire;
    }
    const known = new Set(outputs.map(({ name }) => name));
    const wanted = request.outputs ?? [];
    for (const { name } of wanted) {
      if (!known.has(name)) fail(`unexpected inference output '${name.slice(0, SHOWN_NAME)}'`);
    }
    const priority = Number(request.priority ?? 0);
    if (priority > policies.length && policies.length > 1) {
      fail(`priority is ${priority}, expected 0 to ${policies.length}`);
    }
    const fetches = wanted.length === 0 ? outputs.map(({ name }) => name) : wanted.map(({ name }) => name);
    return {
      feeds,
      fetches,
      batchSize: maxBatchSize > 0 ? (batch ?? 1) : 1,
      kind: Object.entries(feeds)
        .map(([name, { dtype, shape }]) => `${name}:${dtype}:${shape.slice(1).join('x')}`)
        .join(';'),
      priority: policies.length > 1 && priority > 0 ? priority : defaultPriority,
      timeoutUs: Number(request.timeoutUs ?? 0),
      arrivedNs,
      signal,
    };
  }

  /** Rows of the input: its part of a batch. */
  #checkInput(spec: TensorSpec, tensor: WireTensor): number {
    const { maxBatchSize } = this.settings;
    const datatype = DATATYPE_OF[tensor.dtype];
    const fail = (text: string): never => {
      throw new ScrimError('INVALID_ARGUMENT', `${text} for model '${this.name}'`);
    };
    if (datatype !== spec.datatype) {
      fail(`inference input '${spec.name}' data-type is '${datatype}', but the model expects '${spec.datatype}',`);
    }
    const expected = maxBatchSize > 0 ? [-1, ...spec.dims] : spec.dims;
    const fits =
      tensor.shape.length === expected.length && expected.every((dim, i) => dim === -1 || dim === tensor.shape[i]);
    if (!fits) {
      fail(
        `unexpected shape for input '${spec.name}': expected [${expected.join(',')}], got [${tensor.shape.join(',')}],`,
      );
    }
    const rows = maxBatchSize > 0 ? (tensor.shape[0] ?? 0) : 1;
    if (rows < 1 || (maxBatchSize > 0 && rows > maxBatchSize)) {
      fail(`inference request batch-size must be 1 to ${maxBatchSize}, got ${rows},`);
    }
    return rows;
  }

  #respond(request: InferRequest, outputs: Readonly<Record<string, Tensor>>): InferOutput[] {
    const batched = this.settings.maxBatchSize > 0;
    const wanted =
      (request.outputs?.length ?? 0) > 0 ? request.outputs! : this.settings.outputs.map(({ name }) => ({ name }));
    return wanted.map((output) => {
      const { name } = output;
      const value = outputs[name]!;
      const classes = 'classification' in output ? (output.classification ?? 0) : 0;
      if (classes > 0) {
        const labels = this.#labels.get(name);
        return { name, tensor: classify(value, classes, { batched, ...(labels ? { labels } : {}) }) };
      }
      return { name, tensor: value.dtype === 'string' ? toBytes(value as Tensor<'string'>) : value };
    });
  }

  #enqueue(job: Omit<Job, 'resolve' | 'reject'>): Promise<Execution> {
    if (this.#closing) throw new ScrimError('UNAVAILABLE', `model '${this.name}' is unloading`);
    const { signal } = job;
    if (signal?.aborted) throw cancelled();
    return new Promise<Execution>((resolve, reject) => {
      const onAbort = (): void => {
        if (this.#queue.remove(full)) this.statistics.pending = this.#queue.size;
        full.reject(cancelled());
        this.#settled();
      };
      const done = (): void => signal?.removeEventListener('abort', onAbort);
      const full: Job = {
        ...job,
        resolve: (execution) => {
          done();
          resolve(execution);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
      this.#queue.add(full);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#pump();
    });
  }

  /** Refuses what waited too long, hands batches to idle instances, and sets the clock for the next time to look. */
  #pump(): void {
    const nowNs = this.#clock.nowNs();
    for (const job of this.#queue.expire(nowNs)) {
      job.reject(new ScrimError('UNAVAILABLE', 'Request timeout expired'));
    }
    let wakeNs: bigint | undefined;
    for (;;) {
      // One that is being replaced takes its place again when that is done.
      const free = this.#idle.findIndex(({ alive }) => alive);
      if (free === -1) break;
      const next = this.#queue.next(this.#closing ? nowNs + FAR_NS : nowNs);
      if (next.batch === undefined) {
        wakeNs = next.waitUntilNs;
        break;
      }
      void this.#execute(this.#idle.splice(free, 1)[0]!, next.batch);
    }
    this.statistics.pending = this.#queue.size;
    const deadlineNs = this.#queue.nextDeadline();
    if (deadlineNs !== undefined && (wakeNs === undefined || deadlineNs < wakeNs)) wakeNs = deadlineNs;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (wakeNs !== undefined) {
      const waitMs = Math.ceil(Number(wakeNs - nowNs) / 1e6);
      this.#timer = setTimeout(() => this.#pump(), Math.max(0, Math.min(waitMs, MAX_WAIT_MS)));
    }
    this.#settled();
  }

  async #execute(instance: ModelInstance, jobs: readonly Job[]): Promise<void> {
    this.#inFlight++;
    const startedNs = this.#clock.nowNs();
    let failed = false;
    try {
      const alone = jobs.length === 1;
      const feeds = alone ? jobs[0]!.feeds : joinFeeds(jobs.map((job) => job.feeds));
      const fetches = [...new Set(jobs.flatMap((job) => job.fetches))];
      const inputNs = this.#clock.nowNs();
      // Joined inputs are this function's own and may be moved instead of copied.
      const outputs = await instance.run(feeds, { fetches, transfer: !alone });
      const inferNs = this.#clock.nowNs();
      const sizes = jobs.map((job) => job.batchSize);
      const parts = alone ? [outputs] : divideOutputs(outputs, sizes);
      const outputNs = this.#clock.nowNs();
      const batch = sizes.reduce((sum, size) => sum + size, 0);
      this.statistics.executed(batch, inputNs - startedNs, inferNs - inputNs, outputNs - inferNs);
      for (const [i, job] of jobs.entries()) {
        job.resolve({
          outputs: parts[i]!,
          startedNs,
          inputNs: inputNs - startedNs,
          inferNs: inferNs - inputNs,
          outputNs: outputNs - inferNs,
        });
      }
    } catch (error) {
      failed = true;
      for (const job of jobs) job.reject(error);
    }
    this.#inFlight--;
    if (failed) await instance.recover();
    this.#idle.push(instance);
    this.#pump();
  }

  #settled(): void {
    if (this.#queue.size === 0 && this.#inFlight === 0) this.#drained?.();
  }
}

/** Far enough ahead that nothing waits for company any more. */
const FAR_NS = 10n ** 15n;
const MAX_WAIT_MS = 60_000;

function cancelled(): ScrimError {
  return new ScrimError('CANCELLED', 'the request was cancelled');
}

function reasonOf(error: unknown): FailureReason {
  if (!(error instanceof ScrimError)) return 'OTHER';
  switch (error.code) {
    case 'UNAVAILABLE':
      return 'REJECTED';
    case 'CANCELLED':
      return 'CANCELED';
    case 'ENGINE_FAILED':
      return 'BACKEND';
    default:
      return 'OTHER';
  }
}
