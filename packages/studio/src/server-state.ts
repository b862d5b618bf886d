/**
 * The running server, asked once a second while its page is shown: models and their states from the repository index,
 * counts and queue times from the statistics extension, latencies from the histogram in /metrics.
 */
import { type Signal, signal } from '@preact/signals';
import { ScrimError } from 'scrim';
import { createTritonClient, type ModelStatistics, type RepositoryEntry } from 'scrim/client';

/** One version of a model. */
export interface ServedModel {
  readonly name: string;
  readonly version: string;
  readonly state: string;
  readonly reason: string;
  readonly requests: number;
  readonly failures: number;
  readonly waiting: number;
  /** Mean milliseconds of a request in the queue and in the model; undefined before the first. */
  readonly queueMs: number | undefined;
  readonly computeMs: number | undefined;
  /** Milliseconds, from the histogram: p50, p95, p99. */
  readonly percentiles: readonly [number, number, number] | undefined;
}

/** A look at the server. */
export interface ServerLook {
  readonly name: string;
  readonly version: string;
  readonly models: readonly ServedModel[];
}

/** One second of load. */
export interface LoadPoint {
  readonly at: number;
  readonly requestsPerSecond: number;
  /** Milliseconds; undefined in a second without requests. */
  readonly p50: number | undefined;
  readonly p99: number | undefined;
}

export const look: Signal<ServerLook | undefined> = signal(undefined);
export const lookError: Signal<unknown> = signal(undefined);
export const load: Signal<readonly LoadPoint[]> = signal([]);

const EVERY_MS = 1000;
const KEPT_POINTS = 120;
const HISTOGRAM = 'scrim_inference_request_duration_seconds_bucket';
const PENDING = 'nv_inference_pending_request_count';

/** Buckets of a histogram: upper edges in seconds and how many requests lie at or below each. */
type Buckets = readonly (readonly [edge: number, count: number])[];

/** Starts to ask; returns a function that stops it. */
export function watchServer(): () => void {
  const client = createTritonClient({ url: new URL('.', location.href).href, timeoutMs: 5_000, retry: { retries: 0 } });
  const stopping = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let before: { readonly at: number; readonly buckets: Buckets } | undefined;
  const ask = async (): Promise<void> => {
    try {
      const signalOption = { signal: stopping.signal };
      const [metadata, index, statistics, metrics] = await Promise.all([
        client.serverMetadata(signalOption),
        client.repositoryIndex(signalOption),
        client.modelStatistics(undefined, signalOption),
        fetchMetrics(stopping.signal),
      ]);
      const samples = readMetrics(metrics);
      look.value = { name: metadata.name, version: metadata.version, models: modelsOf(index, statistics, samples) };
      lookError.value = undefined;
      const buckets = sumBuckets(samples);
      const at = performance.now();
      if (before) load.value = [...load.value, pointOf(before, { at, buckets })].slice(-KEPT_POINTS);
      before = { at, buckets };
    } catch (error) {
      if (stopping.signal.aborted) return;
      lookError.value = error;
      before = undefined;
    }
    timer = setTimeout(() => void ask(), EVERY_MS);
  };
  void ask();
  return () => {
    stopping.abort();
    clearTimeout(timer);
    void client.close();
  };
}

/** Value below which a share of the requests lies, between the edges of its bucket; undefined without requests. */
export function percentile(buckets: Buckets, share: number): number | undefined {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total === 0) return undefined;
  const wanted = share * total;
  let [edgeBefore, countBefore] = [0, 0];
  for (const [edge, count] of buckets) {
    if (count >= wanted) {
      if (!Number.isFinite(edge)) return edgeBefore * 1000;
      const inside = ((edge - edgeBefore) * (wanted - countBefore)) / Math.max(1, count - countBefore);
      // Rounding may carry the sum past the edge.
      return Math.min(edge, edgeBefore + inside) * 1000;
    }
    [edgeBefore, countBefore] = [edge, count];
  }
  return undefined;
}

async function fetchMetrics(signalOption: AbortSignal): Promise<string> {
  const response = await fetch('metrics', { signal: signalOption }).catch((cause: unknown) => {
    throw new ScrimError('UNAVAILABLE', 'metrics: the server can not be reached', { cause });
  });
  if (!response.ok) throw new ScrimError('UNAVAILABLE', `metrics: the server answered ${response.status}`);
  return response.text();
}

interface Sample {
  readonly family: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Prometheus' text format, as far as this server writes it. */
function readMetrics(text: string): Sample[] {
  return text.split('\n').flatMap((row) => {
    const match = /^([a-z_]+)\{(.*)\} (\S+)$/.exec(row);
    if (!match) return [];
    const labels = Object.fromEntries(
      [...(match[2] as string).matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]),
    );
    return [{ family: match[1] as string, labels, value: Number(match[3]) }];
  });
}

function modelsOf(
  index: readonly RepositoryEntry[],
  statistics: readonly ModelStatistics[],
  samples: readonly Sample[],
): ServedModel[] {
  return index.map(({ name, version, state, reason }) => {
    const found = statistics.find((entry) => entry.name === name && (!version || entry.version === version));
    const success = found?.inference.success;
    const requests = Number(success?.count ?? 0);
    const mean = (ns: bigint | undefined): number | undefined =>
      requests === 0 || ns === undefined ? undefined : Number(ns) / requests / 1e6;
    const own = samples.filter(({ labels }) => labels.model === name);
    const buckets = sumBuckets(own);
    const percentiles = [0.5, 0.95, 0.99].map((share) => percentile(buckets, share));
    return {
      name,
      version: version ?? '',
      state: state ?? '',
      reason: reason ?? '',
      requests,
      failures: Number(found?.inference.fail.count ?? 0),
      waiting: own.find(({ family }) => family === PENDING)?.value ?? 0,
      queueMs: mean(found?.inference.queue.ns),
      computeMs: mean(found?.inference.computeInfer.ns),
      percentiles: percentiles.every((value) => value !== undefined)
        ? (percentiles as [number, number, number])
        : undefined,
    };
  });
}

function sumBuckets(samples: readonly Sample[]): Buckets {
  const counts = new Map<number, number>();
  for (const { family, labels, value } of samples) {
    if (family !== HISTOGRAM) continue;
    const edge = labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.le);
    counts.set(edge, (counts.get(edge) ?? 0) + value);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

function pointOf(
  before: { readonly at: number; readonly buckets: Buckets },
  now: { readonly at: number; readonly buckets: Buckets },
): LoadPoint {
  const past = new Map(before.buckets);
  const fresh = now.buckets.map(([edge, count]) => [edge, count - (past.get(edge) ?? 0)] as const);
  const requests = Math.max(0, fresh.at(-1)?.[1] ?? 0);
  return {
    at: now.at,
    requestsPerSecond: (requests * 1000) / (now.at - before.at),
    p50: percentile(fresh, 0.5),
    p99: percentile(fresh, 0.99),
  };
}
