/** `scrim evaluate`: average precision on FDDB, printed as TR-4928 prints it. */
import { type Bundle, ScrimError } from 'scrim';
import {
  createFddbEvaluator,
  type FddbEvaluator,
  type FddbResult,
  formatDetections,
  type ImageDetections,
  mean,
  standardDeviation,
} from 'scrim/metrics';
import { type FddbDataset, type NodeEngineOptions, openFddb, writeFileAtomically } from 'scrim/node';
import type { Detection } from 'scrim/vision';
import { findBundle, openFor } from '../bundle-store.js';
import type { CommandContext } from '../context.js';
import { createFacePipeline } from '../face-pipeline.js';
import { loadModelSource, type ModelSource } from '../model-source.js';

interface EvaluateOptions {
  readonly dataset: string;
  readonly model: string;
  readonly bundle?: string;
  readonly alpha?: number;
  readonly noisy?: boolean;
  readonly allowMissing?: boolean;
  readonly repeats: number;
  readonly scores?: string;
  readonly size: number;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

/** Least score that counts; halved with noise, as the document does. */
const SCORE_FLOOR = 0.05;

/** An evaluation that has run. */
export interface Evaluation {
  readonly results: readonly FddbResult[];
  readonly images: { readonly found: number; readonly expected: number };
  readonly seconds: number;
  readonly threads: number;
  readonly engine: string;
  readonly detections: readonly ImageDetections[];
}

export async function evaluate(context: CommandContext, options: EvaluateOptions): Promise<void> {
  const model = await loadModelSource(options.model);
  if (options.noisy && options.bundle === undefined && options.alpha === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', '--noisy needs --bundle or --alpha');
  }
  const bundle = options.noisy
    ? options.bundle === undefined
      ? await findBundle(model, options.alpha as number)
      : await openFor(options.bundle, model)
    : undefined;
  const dataset = await openDataset(context, options.dataset, options.allowMissing ?? false);
  const repeats = bundle ? options.repeats : 1;
  const evaluation = await runEvaluation(context, dataset, { ...options, model, bundle, repeats, label: 'evaluate' });
  if (options.scores !== undefined) {
    await writeFileAtomically(options.scores, formatDetections(evaluation.detections));
  }
  const folds = meanFolds(evaluation.results);
  const values = evaluation.results.map(({ mAP }) => mAP);
  const imagesPerSecond = evaluation.images.found / evaluation.seconds;
  if (options.json) {
    context.printJson({
      mAP: options.repeats > 1 ? { mean: mean(values), sd: deviation(values), runs: values } : mean(values),
      pooledAP: mean(evaluation.results.map(({ pooledAP }) => pooledAP)),
      folds,
      images: evaluation.images,
      seconds: evaluation.seconds,
      imagesPerSecond,
      threads: evaluation.threads,
      engine: evaluation.engine,
      noisy: bundle !== undefined,
      model: model.source,
      size: options.size,
      ...(bundle ? { alpha: bundle.manifest.alpha, bundle: bundle.hash } : {}),
    });
    return;
  }
  context.print('===== Results =====');
  for (const { fold, ap } of folds) context.print(`FDDB-fold-${fold} Val AP: ${ap}`);
  context.print(`FDDB Dataset Average AP: ${mean(values)}`);
  context.print('=====');
  context.print(`mAP: ${mean(values)}`);
  if (options.repeats > 1) {
    context.print(`over ${values.length} draws of noise: ${mean(values).toFixed(4)} ± ${deviation(values).toFixed(4)}`);
  }
  context.print(
    `${evaluation.images.found} of ${evaluation.images.expected} images, ${evaluation.threads} threads, ` +
      `${evaluation.seconds.toFixed(1)} s, ${imagesPerSecond.toFixed(1)} images/s`,
  );
}

/** Opens FDDB. @throws ScrimError NOT_FOUND if photos are missing and that is not allowed. */
export async function openDataset(context: CommandContext, path: string, allowMissing: boolean): Promise<FddbDataset> {
  const dataset = await openFddb(path, { allowMissingFolds: allowMissing });
  const { found, expected } = dataset.images;
  if (found === 0) throw new ScrimError('NOT_FOUND', `none of the ${expected} photos of FDDB is in '${path}'`);
  if (found < expected) {
    const text = `${found} of the ${expected} photos of FDDB are in '${path}'`;
    if (!allowMissing) throw new ScrimError('NOT_FOUND', `${text}; --allow-missing evaluates those`);
    context.remark(`${text}: the figures are for those`);
  }
  return dataset;
}

/** Evaluates a model, clean or through a bundle, `repeats` times over draws of noise in one pass over the photos. */
export async function runEvaluation(
  context: CommandContext,
  dataset: FddbDataset,
  options: {
    readonly model: ModelSource;
    readonly bundle: Bundle | undefined;
    readonly repeats: number;
    readonly size: number;
    readonly threads?: number;
    readonly provider?: NonNullable<NodeEngineOptions['executionProvider']>;
    readonly label: string;
  },
): Promise<Evaluation> {
  const { model, bundle, repeats, size } = options;
  const pipeline = await createFacePipeline({
    model,
    size,
    ...(bundle ? { bundle } : {}),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.provider === undefined ? {} : { provider: options.provider }),
  });
  try {
    const evaluators = Array.from({ length: repeats }, () => createFddbEvaluator(dataset.folds));
    const photos = dataset.photos.filter(({ present }) => present);
    const detections: ImageDetections[] = [];
    const progress = context.progress(options.label, photos.length);
    const minScore = bundle ? SCORE_FLOOR / 2 : SCORE_FLOOR;
    const started = performance.now();
    let next = 0;
    let done = 0;
    const work = async (): Promise<void> => {
      for (;;) {
        context.signal.throwIfAborted();
        const index = next++;
        const photo = photos[index];
        if (!photo) return;
        const { draws } = await pipeline.detect(photo.path, { draws: repeats, minScore });
        draws.forEach((found, i) => {
          const boxes = found.map(toScoredBox);
          (evaluators[i] as FddbEvaluator).add(photo.name, boxes);
          if (i === 0) detections[index] = { name: photo.name, detections: boxes };
        });
        progress.update(++done);
      }
    };
    // Two photos under way for each lane: one is decoded, or waits for its noise, while the other infers.
    await Promise.all(Array.from({ length: 2 * pipeline.lanes }, work)).finally(() => progress.stop());
    const seconds = (performance.now() - started) / 1000;
    return {
      results: evaluators.map((evaluator) => evaluator.result()),
      images: dataset.images,
      seconds,
      threads: pipeline.lanes,
      engine: pipeline.description,
      detections,
    };
  } finally {
    await pipeline.close();
  }
}

/** A detection as metrics/ takes it. */
export function toScoredBox({
  box: [left, top, right, bottom],
  score,
}: Detection): ImageDetections['detections'][number] {
  return { x: left, y: top, width: right - left, height: bottom - top, score };
}

function meanFolds(results: readonly FddbResult[]): { fold: number; ap: number; images: number; faces: number }[] {
  return (results[0]?.folds ?? []).map((fold, i) => ({
    ...fold,
    ap: mean(results.map(({ folds }) => folds[i]?.ap ?? 0)),
  }));
}

/** Standard deviation, 0 for a single value. */
export function deviation(values: readonly number[]): number {
  return values.length > 1 ? standardDeviation(values) : 0;
}
