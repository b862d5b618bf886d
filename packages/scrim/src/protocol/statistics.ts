/**
 * Statistics of models: how many requests, and where their time went. JSON and gRPC forms.
 *
 * Triton's statistics extension. Counts and nanoseconds are unsigned 64-bit integers, so they are bigint here.
 */
import { create } from '@bufbuild/protobuf';
import {
  type InferBatchStatistics,
  type InferResponseStatistics,
  type InferStatistics,
  type ModelStatisticsResponse,
  ModelStatisticsResponseSchema,
  type StatisticDuration,
} from './gen/grpc_service_pb.js';
import { JsonFields, type JsonObject, type JsonValue } from './json-value.js';

/** How often something happened and how long it took altogether. */
export interface Duration {
  readonly count: bigint;
  /** Nanoseconds. */
  readonly ns: bigint;
}

/** Steps of a request. */
export interface InferenceDurations {
  readonly success: Duration;
  readonly fail: Duration;
  readonly queue: Duration;
  readonly computeInput: Duration;
  readonly computeInfer: Duration;
  readonly computeOutput: Duration;
  readonly cacheHit: Duration;
  readonly cacheMiss: Duration;
}

/** Steps of an execution of one batch size. */
export interface BatchDurations {
  readonly batchSize: bigint;
  readonly computeInput: Duration;
  readonly computeInfer: Duration;
  readonly computeOutput: Duration;
}

/** Steps of one response of a decoupled model. */
export interface ResponseDurations {
  readonly computeInfer: Duration;
  readonly computeOutput: Duration;
  readonly success: Duration;
  readonly fail: Duration;
  readonly emptyResponse: Duration;
  readonly cancel: Duration;
}

/** Memory a model holds. */
export interface MemoryUsage {
  readonly type: string;
  readonly id: bigint;
  readonly byteSize: bigint;
}

/** Statistics of one version of a model. */
export interface ModelStatistics {
  readonly name: string;
  readonly version: string;
  /** Time of the last inference in milliseconds since 1970; 0 for none. */
  readonly lastInferenceMs: bigint;
  /** Inferences; each element of a batch counts. */
  readonly inferenceCount: bigint;
  /** Executions; a batch counts once. */
  readonly executionCount: bigint;
  readonly inference: InferenceDurations;
  readonly batches: readonly BatchDurations[];
  /** By the index of the response. */
  readonly responses: Readonly<Record<string, ResponseDurations>>;
  readonly memory: readonly MemoryUsage[];
}

const INFERENCE_STEPS: Readonly<Record<keyof InferenceDurations, string>> = {
  success: 'success',
  fail: 'fail',
  queue: 'queue',
  computeInput: 'compute_input',
  computeInfer: 'compute_infer',
  computeOutput: 'compute_output',
  cacheHit: 'cache_hit',
  cacheMiss: 'cache_miss',
};
const BATCH_STEPS: Readonly<Record<Exclude<keyof BatchDurations, 'batchSize'>, string>> = {
  computeInput: 'compute_input',
  computeInfer: 'compute_infer',
  computeOutput: 'compute_output',
};
const RESPONSE_STEPS: Readonly<Record<keyof ResponseDurations, string>> = {
  computeInfer: 'compute_infer',
  computeOutput: 'compute_output',
  success: 'success',
  fail: 'fail',
  emptyResponse: 'empty_response',
  cancel: 'cancel',
};

function stepsToJson<K extends string>(
  names: Readonly<Record<K, string>>,
  steps: Readonly<Record<K, Duration>>,
): JsonObject {
  const entries = Object.entries(names) as [K, string][];
  return Object.fromEntries(entries.map(([key, name]) => [name, { count: steps[key].count, ns: steps[key].ns }]));
}

function stepsFromJson<K extends string>(names: Readonly<Record<K, string>>, fields: JsonFields): Record<K, Duration> {
  const entries = Object.entries(names) as [K, string][];
  return Object.fromEntries(
    entries.map(([key, name]) => {
      const step = fields.object(name);
      return [key, { count: step.count('count', 0n), ns: step.count('ns', 0n) }];
    }),
  ) as Record<K, Duration>;
}

/** Body of `GET /v2/models/M/stats`: one entry for each version of each model asked for. */
export function modelStatisticsToJson(statistics: readonly ModelStatistics[]): JsonObject {
  return {
    model_stats: statistics.map((entry) => ({
      name: entry.name,
      version: entry.version,
      last_inference: entry.lastInferenceMs,
      inference_count: entry.inferenceCount,
      execution_count: entry.executionCount,
      inference_stats: stepsToJson(INFERENCE_STEPS, entry.inference),
      response_stats: Object.fromEntries(
        Object.entries(entry.responses).map(([index, steps]) => [index, stepsToJson(RESPONSE_STEPS, steps)]),
      ),
      batch_stats: entry.batches.map((batch) => ({
        batch_size: batch.batchSize,
        ...stepsToJson(BATCH_STEPS, batch),
      })),
      memory_usage: entry.memory.map(({ type, id, byteSize }) => ({ type, id, byte_size: byteSize })),
    })),
  };
}

/** Missing steps and counts are read as 0. @throws ScrimError INVALID_DATA naming the member that is wrong. */
export function modelStatisticsFromJson(value: JsonValue): ModelStatistics[] {
  return new JsonFields(value, 'the statistics').list('model_stats', (item, what) => {
    const fields = new JsonFields(item, what);
    const responses = fields.object('response_stats');
    return {
      name: fields.string('name'),
      version: fields.optionalString('version') ?? '',
      lastInferenceMs: fields.count('last_inference', 0n),
      inferenceCount: fields.count('inference_count', 0n),
      executionCount: fields.count('execution_count', 0n),
      inference: stepsFromJson(INFERENCE_STEPS, fields.object('inference_stats')),
      batches: fields.list('batch_stats', (batch, where) => {
        const member = new JsonFields(batch, where);
        return { batchSize: member.count('batch_size'), ...stepsFromJson(BATCH_STEPS, member) };
      }),
      responses: Object.fromEntries(
        responses.keys.map((index) => [index, stepsFromJson(RESPONSE_STEPS, responses.object(index))]),
      ),
      memory: fields.list('memory_usage', (usage, where) => {
        const member = new JsonFields(usage, where);
        return {
          type: member.optionalString('type') ?? '',
          id: member.count('id', 0n),
          byteSize: member.count('byte_size', 0n),
        };
      }),
    };
  });
}

/** Message of ModelStatistics. */
export function modelStatisticsToMessage(statistics: readonly ModelStatistics[]): ModelStatisticsResponse {
  return create(ModelStatisticsResponseSchema, {
    modelStats: statistics.map((entry) => ({
      name: entry.name,
      version: entry.version,
      lastInference: entry.lastInferenceMs,
      inferenceCount: entry.inferenceCount,
      executionCount: entry.executionCount,
      inferenceStats: entry.inference,
      batchStats: [...entry.batches],
      memoryUsage: [...entry.memory],
      responseStats: { ...entry.responses },
    })),
  });
}

/** The statistics in a message. */
export function modelStatisticsFromMessage(message: ModelStatisticsResponse): ModelStatistics[] {
  return message.modelStats.map((entry) => ({
    name: entry.name,
    version: entry.version,
    lastInferenceMs: entry.lastInference,
    inferenceCount: entry.inferenceCount,
    executionCount: entry.executionCount,
    inference: stepsFromMessage(INFERENCE_STEPS, entry.inferenceStats),
    batches: entry.batchStats.map((batch) => ({
      batchSize: batch.batchSize,
      ...stepsFromMessage(BATCH_STEPS, batch),
    })),
    responses: Object.fromEntries(
      Object.entries(entry.responseStats).map(([index, steps]) => [index, stepsFromMessage(RESPONSE_STEPS, steps)]),
    ),
    memory: entry.memoryUsage.map(({ type, id, byteSize }) => ({ type, id, byteSize })),
  }));
}

type MessageSteps = InferStatistics | InferBatchStatistics | InferResponseStatistics;

function stepsFromMessage<K extends string>(
  names: Readonly<Record<K, string>>,
  message: MessageSteps | undefined,
): Record<K, Duration> {
  const steps = message as Partial<Record<K, StatisticDuration>> | undefined;
  const keys = Object.keys(names) as K[];
  return Object.fromEntries(
    keys.map((key) => [key, { count: steps?.[key]?.count ?? 0n, ns: steps?.[key]?.ns ?? 0n }]),
  ) as Record<K, Duration>;
}
