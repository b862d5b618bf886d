/** The audit's samples, by processes side by side where there are many: each opens the bundle and takes its share. */
import type { Bundle } from 'scrim';
import type { AttackData, AttackedModel } from 'scrim/audit';
import { CANVAS_ID, collectorOf, type SampleCollector } from './audit-samples.js';
import type { SampleNews, SampleSetup } from './sample-work.js';
import { runWorkers, workersFor } from './workers.js';

/** What a collector reads, and how. */
export interface CollectorOptions {
  /** Of the bundle, for processes to open it again. */
  readonly folder: string;
  /** As `--model` names it, for bundles of the noise only. */
  readonly model: string;
  readonly bundle: Bundle;
  /** Whether `target` is the model without the bundle's transform. Default false. */
  readonly clean?: boolean;
  readonly size: number;
  readonly pictureSide: number;
  readonly signal: AbortSignal;
  readonly onUnreadable: (path: string) => void;
  /** Default: by the cores. */
  readonly workers?: number;
}

/** A collector in this process, for few samples, and one in several, for many. */
export async function createParallelCollector(
  target: AttackedModel,
  options: CollectorOptions,
): Promise<SampleCollector> {
  const { folder, model, bundle, clean = false, size, pictureSide, signal, onUnreadable } = options;
  const own = await collectorOf(target, bundle, { size, pictureSide, signal, onUnreadable });
  const spread = async (
    workers: number,
    what: Pick<SampleSetup, 'photos' | 'canvases'>,
    onProgress?: (done: number) => void,
  ): Promise<AttackData> => {
    const setup: SampleSetup = { folder, model, clean, size, pictureSide, ...what };
    const unreadable = new Set<string>();
    const records: AttackData['records'][number][] = [];
    let frame: Omit<AttackData, 'records'> | undefined;
    let done = 0;
    for await (const news of runWorkers<SampleNews>('samples', setup, workers, signal)) {
      if ('progress' in news) onProgress?.(++done);
      else if ('records' in news) {
        frame ??= news.frame;
        records.push(...news.records);
      } else if (!unreadable.has(news.unreadable)) {
        unreadable.add(news.unreadable);
        onUnreadable(news.unreadable);
      }
    }
    // A share may be without a photo that can be read; none of them has no samples at all.
    if (!frame) return own.collect([]);
    const place = new Map(what.photos.map(({ id }, i) => [id, i]));
    const order = ({ id }: { readonly id: string }): number => place.get(id) ?? Number(id.slice(CANVAS_ID.length));
    return { ...frame, records: records.sort((a, b) => order(a) - order(b)) };
  };
  return {
    collect: (photos, onProgress) => {
      const workers = workersFor(photos.length, options.workers);
      return workers > 1 ? spread(workers, { photos }, onProgress) : own.collect(photos, onProgress);
    },
    compose: (photos, canvases, onProgress) => {
      const workers = workersFor(canvases.count, options.workers);
      return workers > 1
        ? spread(workers, { photos, canvases }, onProgress)
        : own.compose(photos, canvases, onProgress);
    },
    close: () => own.close(),
  };
}
