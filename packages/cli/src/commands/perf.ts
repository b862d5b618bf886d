/**
 * `scrim perf`: load on a v2 server at rising concurrency, with perf_analyzer's columns. Closed loop: each of
 * `concurrency` callers sends its next request when it has its answer. Server times are differences of the model's
 * statistics over the window, divided by its requests.
 */
import { type DataType, ScrimError, sizeOf, type Tensor, tensor } from 'scrim';
import type { ModelStatistics, TransferSize, TritonClient } from 'scrim/client';
import { writeFileAtomically } from 'scrim/node';
import { type ClientFlags, createClient } from '../client-flags.js';
import type { CommandContext } from '../context.js';
import { formatTable } from '../table.js';

interface PerfOptions extends ClientFlags {
  readonly modelName: string;
  readonly concurrencyRange: string;
  readonly measurementMs: number;
  readonly warmupMs: number;
  readonly batch: number;
  readonly shape?: readonly string[];
  readonly csv?: string;
  readonly json?: boolean;
}

/** Bytes are those of one request and its answer. */
interface Window extends TransferSize {
  readonly concurrency: number;
  readonly throughput: number;
  readonly failures: number;
  /** Microseconds. */
  readonly average: number;
  readonly percentiles: readonly number[];
  readonly server: readonly number[];
}

const PERCENTILES = [50, 90, 95, 99] as const;
const STEPS = ['queue', 'computeInput', 'computeInfer', 'computeOutput'] as const;
const COLUMNS = [
  'Concurrency',
  'Inferences/Second',
  'Network+Server Send/Recv',
  'Server Queue',
  'Server Compute Input',
  'Server Compute Infer',
  'Server Compute Output',
  'Avg latency',
  'p50 latency',
  'p90 latency',
  'p95 latency',
  'p99 latency',
] as const;
const DTYPES: Readonly<Record<string, DataType>> = {
  FP32: 'float32',
  FP64: 'float64',
  FP16: 'float16',
  BF16: 'bfloat16',
  INT8: 'int8',
  INT16: 'int16',
  INT32: 'int32',
  INT64: 'int64',
  UINT8: 'uint8',
  UINT16: 'uint16',
  UINT32: 'uint32',
  UINT64: 'uint64',
  BOOL: 'bool',
};

/** Measures each concurrency in turn. */
export async function perf(context: CommandContext, options: PerfOptions): Promise<void> {
  const levels = parseRange(options.concurrencyRange);
  const client = await createClient(options, Math.max(...levels));
  context.onClose(() => client.close());
  const inputs = await makeInputs(client, options);
  const windows: Window[] = [];
  for (const concurrency of levels) {
    await drive(client, options.modelName, inputs, concurrency, options.warmupMs, context.signal);
    windows.push(await measure(client, options, inputs, concurrency, context.signal));
    context.signal.throwIfAborted();
  }
  const rows = windows.map(({ concurrency, throughput, average, percentiles, server }) => {
    const network = Math.max(0, average - server.reduce((sum, value) => sum + value, 0));
    return [concurrency, throughput.toFixed(2), ...[network, ...server, average, ...percentiles].map(Math.round)].map(
      String,
    );
  });
  if (options.csv !== undefined) {
    await writeFileAtomically(options.csv, `${[COLUMNS, ...rows].map((row) => row.join(',')).join('\n')}\n`);
  }
  if (options.json) {
    context.printJson({ server: client.url, protocol: client.protocol, model: options.modelName, unit: 'us', windows });
    return;
  }
  context.print(
    `${options.modelName} at ${client.url}, ${client.protocol}, ${options.measurementMs} ms each; times in µs`,
  );
  context.print(formatTable(COLUMNS, rows));
  const failures = windows.reduce((sum, window) => sum + window.failures, 0);
  if (failures > 0) throw new ScrimError('UNAVAILABLE', `${failures} requests failed`);
}

async function measure(
  client: TritonClient,
  { modelName, measurementMs, batch }: PerfOptions,
  inputs: Inputs,
  concurrency: number,
  signal: AbortSignal,
): Promise<Window> {
  // A server without statistics (they are an extension) leaves those columns at 0.
  const before = await client.modelStatistics(modelName).catch(() => undefined);
  const started = performance.now();
  const { latencies, failures, transfer } = await drive(client, modelName, inputs, concurrency, measurementMs, signal);
  const seconds = (performance.now() - started) / 1000;
  const after = await client.modelStatistics(modelName).catch(() => undefined);
  const sorted = latencies.sort((a, b) => a - b);
  const at = (percent: number): number => sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? 0;
  return {
    concurrency,
    throughput: (latencies.length * batch) / seconds,
    failures,
    average: sorted.reduce((sum, value) => sum + value, 0) / Math.max(1, sorted.length),
    percentiles: PERCENTILES.map(at),
    server: STEPS.map((step) => serverTime(before, after, step)),
    ...transfer,
  };
}

/** Microseconds a request spent in one step. */
function serverTime(
  before: readonly ModelStatistics[] | undefined,
  after: readonly ModelStatistics[] | undefined,
  step: (typeof STEPS)[number],
): number {
  const total = (list: readonly ModelStatistics[] = [], member: 'count' | 'ns', of: typeof step | 'success'): number =>
    list.reduce((sum, { inference }) => sum + Number(inference[of][member]), 0);
  const requests = total(after, 'count', 'success') - total(before, 'count', 'success');
  return requests > 0 ? (total(after, 'ns', step) - total(before, 'ns', step)) / requests / 1000 : 0;
}

type Inputs = readonly { readonly name: string; readonly tensor: Tensor }[];

async function drive(
  client: TritonClient,
  modelName: string,
  inputs: Inputs,
  concurrency: number,
  forMs: number,
  signal: AbortSignal,
): Promise<{ latencies: number[]; failures: number; transfer: TransferSize }> {
  const latencies: number[] = [];
  const end = performance.now() + forMs;
  let failures = 0;
  let transfer = { sentBytes: 0, receivedBytes: 0 };
  const onTransfer = (size: TransferSize): void => {
    transfer = size;
  };
  const caller = async (): Promise<void> => {
    while (performance.now() < end && !signal.aborted) {
      const started = performance.now();
      try {
        await client.infer({ modelName, inputs }, { signal, onTransfer });
        latencies.push((performance.now() - started) * 1000);
      } catch (error) {
        // What the model refuses will be refused again; what is overloaded is counted.
        if (!(error instanceof ScrimError) || !error.info.retryable) throw error;
        failures++;
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, caller));
  return { latencies, failures, transfer };
}

/** Inputs of zeros in the shapes of the metadata, or those given as name:d,d,d. */
async function makeInputs(client: TritonClient, { modelName, shape = [], batch }: PerfOptions): Promise<Inputs> {
  const { inputs } = await client.modelMetadata(modelName);
  const config = await client.modelConfig(modelName).catch(() => undefined);
  const batched = (config?.maxBatchSize ?? 0) > 0;
  const given = new Map(
    shape.map((text) => {
      const match = /^(.+):(\d+(?:,\d+)*)$/.exec(text);
      if (!match) throw new ScrimError('INVALID_ARGUMENT', `--shape is '${text}', expected name:d,d,d`);
      return [match[1] as string, (match[2] as string).split(',').map(Number)] as const;
    }),
  );
  return inputs.map(({ name, datatype, shape: declared }) => {
    const own = batched ? declared.slice(1) : declared;
    const dims = [...(batched ? [batch] : []), ...(given.get(name) ?? own)];
    if (dims.some((dimension) => dimension < 0)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `input '${name}' has shape [${declared.join(', ')}]: give --shape ${name}:…`,
      );
    }
    const dtype = DTYPES[datatype];
    if (!dtype) throw new ScrimError('UNSUPPORTED', `input '${name}' is ${datatype}, which perf does not make up`);
    sizeOf(dims);
    return { name, tensor: tensor(dtype, dims) };
  });
}

function parseRange(text: string): number[] {
  const match = /^(\d{1,4})(?::(\d{1,4})(?::(\d{1,4}))?)?$/.exec(text);
  const [start, end, step] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1]), Number(match?.[3] ?? 1)];
  if (!match || start < 1 || end < start || step < 1) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--concurrency-range is '${text}', expected start, start:end or start:end:step`,
    );
  }
  return Array.from({ length: Math.floor((end - start) / step) + 1 }, (_, i) => start + i * step);
}
