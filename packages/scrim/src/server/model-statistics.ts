/**
 * Counts and times of one version of a model, exact in nanoseconds, and the two forms they are shown in: Triton's
 * statistics extension and Prometheus text under Triton's metric names (docs/user_guide/metrics.md of the server).
 *
 * The histogram is this server's own: Triton has sums only, from which no percentile can be had.
 */
import type { Duration, ModelStatistics } from '../protocol/index.js';

/** Why a request failed, in Triton's words. */
export type FailureReason = 'REJECTED' | 'CANCELED' | 'BACKEND' | 'OTHER';

/** Where the time of one request went, in nanoseconds. */
export interface RequestTimes {
  readonly total: bigint;
  readonly queue: bigint;
  readonly computeInput: bigint;
  readonly computeInfer: bigint;
  readonly computeOutput: bigint;
}

class Sum {
  count = 0n;
  ns = 0n;
  add(ns: bigint): void {
    this.count++;
    this.ns += ns;
  }
  get value(): Duration {
    return { count: this.count, ns: this.ns };
  }
}

const NONE: Duration = { count: 0n, ns: 0n };
/** Upper bounds of the histogram in seconds. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const REASONS: readonly FailureReason[] = ['REJECTED', 'CANCELED', 'BACKEND', 'OTHER'];

/** Counters of one version of a model. */
export class StatisticsCollector {
  readonly #success = new Sum();
  readonly #fail = new Sum();
  readonly #queue = new Sum();
  readonly #input = new Sum();
  readonly #infer = new Sum();
  readonly #output = new Sum();
  readonly #batches = new Map<number, { input: Sum; infer: Sum; output: Sum }>();
  readonly #failures = new Map<FailureReason, bigint>(REASONS.map((reason) => [reason, 0n]));
  readonly #histogram = new Array<bigint>(BUCKETS.length + 1).fill(0n);
  #inferences = 0n;
  #executions = 0n;
  #lastMs = 0n;
  /** Requests that wait in the queue now. */
  pending = 0;

  /** A request was answered. */
  succeeded(batchSize: number, times: RequestTimes, nowMs: number): void {
    this.#success.add(times.total);
    this.#queue.add(times.queue);
    this.#input.add(times.computeInput);
    this.#infer.add(times.computeInfer);
    this.#output.add(times.computeOutput);
    this.#inferences += BigInt(batchSize);
    this.#lastMs = BigInt(Math.round(nowMs));
    const seconds = Number(times.total) / 1e9;
    const bucket = BUCKETS.findIndex((bound) => seconds <= bound);
    this.#histogram[bucket === -1 ? BUCKETS.length : bucket]!++;
  }

  /** A request failed after `ns`. */
  failed(reason: FailureReason, ns: bigint): void {
    this.#fail.add(ns);
    this.#failures.set(reason, this.#failures.get(reason)! + 1n);
  }

  /** A batch of `size` was executed. */
  executed(size: number, inputNs: bigint, inferNs: bigint, outputNs: bigint): void {
    this.#executions++;
    let batch = this.#batches.get(size);
    if (batch === undefined) {
      batch = { input: new Sum(), infer: new Sum(), output: new Sum() };
      this.#batches.set(size, batch);
    }
    batch.input.add(inputNs);
    batch.infer.add(inferNs);
    batch.output.add(outputNs);
  }

  /** The statistics extension's form. */
  snapshot(name: string, version: string): ModelStatistics {
    return {
      name,
      version,
      lastInferenceMs: this.#lastMs,
      inferenceCount: this.#inferences,
      executionCount: this.#executions,
      inference: {
        success: this.#success.value,
        fail: this.#fail.value,
        queue: this.#queue.value,
        computeInput: this.#input.value,
        computeInfer: this.#infer.value,
        computeOutput: this.#output.value,
        cacheHit: NONE,
        cacheMiss: NONE,
      },
      batches: [...this.#batches]
        .sort(([a], [b]) => a - b)
        .map(([size, { input, infer, output }]) => ({
          batchSize: BigInt(size),
          computeInput: input.value,
          computeInfer: infer.value,
          computeOutput: output.value,
        })),
      responses: {},
      memory: [],
    };
  }

  /** Samples by metric name: labels (without model and version) and value. */
  samples(): ReadonlyMap<string, readonly (readonly [labels: string, value: string])[]> {
    const one = (value: bigint): [string, string][] => [['', String(value)]];
    const us = (sum: Sum): [string, string][] => one(sum.ns / 1000n);
    let below = 0n;
    const buckets = BUCKETS.map((bound, i): [string, string] => {
      below += this.#histogram[i]!;
      return [`,le="${bound}"`, String(below)];
    });
    return new Map([
      ['nv_inference_request_success', one(this.#success.count)],
      [
        'nv_inference_request_failure',
        [...this.#failures].map(([reason, count]): [string, string] => [`,reason="${reason}"`, String(count)]),
      ],
      ['nv_inference_count', one(this.#inferences)],
      ['nv_inference_exec_count', one(this.#executions)],
      ['nv_inference_pending_request_count', one(BigInt(this.pending))],
      ['nv_inference_request_duration_us', us(this.#success)],
      ['nv_inference_queue_duration_us', us(this.#queue)],
      ['nv_inference_compute_input_duration_us', us(this.#input)],
      ['nv_inference_compute_infer_duration_us', us(this.#infer)],
      ['nv_inference_compute_output_duration_us', us(this.#output)],
      ['scrim_inference_request_duration_seconds_bucket', [...buckets, [',le="+Inf"', String(this.#success.count)]]],
      ['scrim_inference_request_duration_seconds_sum', [['', String(Number(this.#success.ns) / 1e9)]]],
      ['scrim_inference_request_duration_seconds_count', one(this.#success.count)],
    ]);
  }
}

/** Metric families: name, type and help. The samples of a histogram have suffixes of its name. */
const FAMILIES: readonly (readonly [name: string, type: string, help: string, samples?: readonly string[]])[] = [
  ['nv_inference_request_success', 'counter', 'Number of successful inference requests, all batch sizes'],
  ['nv_inference_request_failure', 'counter', 'Number of failed inference requests, all batch sizes'],
  ['nv_inference_count', 'counter', 'Number of inferences performed'],
  ['nv_inference_exec_count', 'counter', 'Number of model executions performed'],
  ['nv_inference_pending_request_count', 'gauge', 'Number of requests that wait to be executed'],
  ['nv_inference_request_duration_us', 'counter', 'Time of successful requests in microseconds, all together'],
  ['nv_inference_queue_duration_us', 'counter', 'Time requests waited in microseconds, all together'],
  ['nv_inference_compute_input_duration_us', 'counter', 'Time spent on inputs in microseconds, all together'],
  ['nv_inference_compute_infer_duration_us', 'counter', 'Time spent in the model in microseconds, all together'],
  ['nv_inference_compute_output_duration_us', 'counter', 'Time spent on outputs in microseconds, all together'],
  [
    'scrim_inference_request_duration_seconds',
    'histogram',
    'Time of successful requests from arrival to answer',
    ['_bucket', '_sum', '_count'],
  ],
];

/** Prometheus text (exposition format 0.0.4) of several models. */
export function formatMetrics(
  models: readonly { readonly name: string; readonly version: string; readonly statistics: StatisticsCollector }[],
): string {
  const entries = models.map(({ name, version, statistics }) => ({
    labels: `model="${escapeLabel(name)}",version="${escapeLabel(version)}"`,
    samples: statistics.samples(),
  }));
  let text = '';
  for (const [family, type, help, suffixes = ['']] of FAMILIES) {
    text += `# HELP ${family} ${help}\n# TYPE ${family} ${type}\n`;
    for (const { labels, samples } of entries) {
      for (const suffix of suffixes) {
        for (const [more, value] of samples.get(`${family}${suffix}`) ?? []) {
          text += `${family}${suffix}{${labels}${more}} ${value}\n`;
        }
      }
    }
  }
  return text;
}

function escapeLabel(value: string): string {
  return value.replace(/[\\"\n]/g, (letter) => (letter === '\n' ? '\\n' : `\\${letter}`));
}
