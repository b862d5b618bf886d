/**
 * `scrim evaluate`: average precision on FDDB, printed as TR-4928 prints it. With `--shard` it counts one machine's part
 * and keeps it in a file (evaluation-part.ts); `scrim evaluate merge` (evaluate-merge.ts) puts the parts together.
 */
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
import { type FddbDataset, type FddbPhoto, type NodeEngineOptions, openFddb, writeFileAtomically } from 'scrim/node';
import type { Detection } from 'scrim/vision';
import { findBundle, openFor, photoSide } from '../bundle-store.js';
import type { CommandContext } from '../context.js';
import { evaluateInputs } from '../evaluate-inputs.js';
import {
  countedPositions,
  type EvaluationPart,
  type EvaluationSettings,
  inShard,
  parseShard,
  readBegunPart,
  type Shard,
  writePart,
} from '../evaluation-part.js';
import { createFacePipeline } from '../face-pipeline.js';
import { loadModelSource, type ModelSource } from '../model-source.js';

interface EvaluateOptions {
  readonly dataset?: string;
  readonly data?: readonly string[];
  readonly labels?: string;
  readonly model: string;
  readonly bundle?: string;
  readonly alpha?: number;
  readonly noisy?: boolean;
  readonly allowMissing?: boolean;
  readonly repeats: number;
  readonly scores?: string;
  readonly shard?: string;
  readonly partial?: string;
  readonly size?: number;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

/** Least score that counts; halved with noise, as the document does. */
const SCORE_FLOOR = 0.05;
/** How often a part is kept. */
const CHECKPOINT_MS = 2_000;

/** An evaluation that has run. */
export interface Evaluation {
  readonly results: readonly FddbResult[];
  readonly images: { readonly found: number; readonly expected: number };
  readonly seconds: number;
  readonly threads: number;
  readonly engine: string;
  /** What was found in each image, where it was asked to be kept. */
  readonly detections: readonly ImageDetections[];
}

export async function evaluate(context: CommandContext, options: EvaluateOptions): Promise<void> {
  const { data, dataset: folder } = options;
  if (data !== undefined) {
    await evaluateInputs(context, { ...options, data });
    return;
  }
  if (folder === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', 'give --dataset for faces, or --data for .npy, .csv and .wav inputs');
  }
  const model = await loadModelSource(options.model);
  if (options.noisy && options.bundle === undefined && options.alpha === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', '--noisy needs --bundle or --alpha');
  }
  const bundle = options.noisy
    ? options.bundle === undefined
      ? await findBundle(model, options.alpha as number)
      : await openFor(options.bundle, model)
    : undefined;
  const dataset = await openDataset(context, folder, options.allowMissing ?? false);
  const repeats = bundle ? options.repeats : 1;
  if (!bundle && (options.repeats > 1 || options.alpha !== undefined || options.bundle !== undefined)) {
    context.remark('without --noisy no noise is drawn: this is the clean model, once');
  }
  const size = photoSide(options.size, bundle ? [bundle] : []);
  const run = {
    ...options,
    size,
    model,
    bundle,
    repeats,
    label: 'evaluate',
    keepDetections: options.scores !== undefined,
  };
  if (options.shard !== undefined || options.partial !== undefined) {
    await evaluatePart(context, dataset, run);
    return;
  }
  const evaluation = await runEvaluation(context, dataset, run);
  if (options.scores !== undefined) {
    await writeFileAtomically(options.scores, formatDetections(evaluation.detections));
  }
  printEvaluation(context, options, {
    ...evaluation,
    conditions: `${evaluation.threads} threads, ${evaluation.seconds.toFixed(1)} s`,
    summary: {
      seconds: evaluation.seconds,
      imagesPerSecond: evaluation.images.found / evaluation.seconds,
      threads: evaluation.threads,
      engine: evaluation.engine,
      noisy: bundle !== undefined,
      model: model.source,
      size,
      ...(bundle ? { alpha: bundle.manifest.alpha, bundle: bundle.hash } : {}),
    },
  });
}

/** Prints the result block of TR-4928, or one JSON document. `seconds` in the summary is wall time of the longest part. */
export function printEvaluation(
  context: CommandContext,
  options: { readonly json?: boolean; readonly repeats: number },
  evaluation: Pick<Evaluation, 'results' | 'images' | 'seconds'> & {
    readonly conditions: string;
    readonly summary: Readonly<Record<string, unknown>>;
  },
): void {
  const folds = meanFolds(evaluation.results);
  const values = evaluation.results.map(({ mAP }) => mAP);
  const imagesPerSecond = evaluation.images.found / evaluation.seconds;
  if (options.json) {
    context.printJson({
      mAP: options.repeats > 1 ? { mean: mean(values), sd: deviation(values), runs: values } : mean(values),
      pooledAP: mean(evaluation.results.map(({ pooledAP }) => pooledAP)),
      folds,
      images: evaluation.images,
      ...evaluation.summary,
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
    `${evaluation.images.found} of ${evaluation.images.expected} images, ${evaluation.conditions}, ` +
      `${imagesPerSecond.toFixed(1)} images/s`,
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

/** How photos are evaluated. */
interface RunOptions {
  readonly model: ModelSource;
  readonly bundle: Bundle | undefined;
  readonly repeats: number;
  readonly size: number;
  readonly threads?: number;
  readonly provider?: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly label: string;
  /** Keeps every box of the first draw; without it memory does not grow with the number of photos. */
  readonly keepDetections?: boolean;
}

/** Evaluates a model, clean or through a bundle, `repeats` times over draws of noise in one pass over the photos. */
export async function runEvaluation(
  context: CommandContext,
  dataset: FddbDataset,
  options: RunOptions,
): Promise<Evaluation> {
  const evaluators = createEvaluators(dataset, options);
  const photos = dataset.photos.filter(({ present }) => present);
  const counted = await countFaces(context, photos, evaluators, options, 0);
  return { ...counted, results: evaluators.map((evaluator) => evaluator.result()), images: dataset.images };
}

function createEvaluators(dataset: FddbDataset, { repeats }: RunOptions): FddbEvaluator[] {
  return Array.from({ length: repeats }, () => createFddbEvaluator(dataset.folds));
}

/** Counts the faces of one part and keeps it in a file; goes on where such a file ends. */
async function evaluatePart(
  context: CommandContext,
  dataset: FddbDataset,
  options: RunOptions & Pick<EvaluateOptions, 'shard' | 'partial' | 'scores' | 'json'>,
): Promise<void> {
  const { model, bundle, repeats, size, partial } = options;
  if (partial === undefined)
    throw new ScrimError('INVALID_ARGUMENT', '--shard needs --partial, the file to keep it in');
  if (options.scores !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', '--scores can not go with --partial, which keeps scores but no boxes');
  }
  const shard: Shard = parseShard(options.shard ?? '0/1');
  const settings: EvaluationSettings = {
    model: model.source,
    sha256: model.sha256,
    bundle: bundle?.hash ?? null,
    alpha: bundle?.manifest.alpha ?? null,
    size,
    repeats,
    minScore: leastScore(bundle),
  };
  const begun = await readBegunPart(partial, settings, shard, (why) => context.remark(`${why}: this part starts over`));
  const evaluators = createEvaluators(dataset, options);
  if (begun !== undefined) for (const [i, state] of begun.states.entries()) evaluators[i]?.merge([state]);
  const before = begun === undefined ? new Set<number>() : countedPositions(begun);
  const mine = dataset.photos.filter(({ present }, position) => present && inShard(position, shard));
  const photos = dataset.photos.filter(
    ({ present }, position) => present && inShard(position, shard) && !before.has(position),
  );
  if (begun !== undefined) context.remark(`${before.size} of ${mine.length} images were counted before`);

  const started = performance.now();
  let saved = started;
  let last: Promise<void> = Promise.resolve();
  const save = (threads: number, engine: string): Promise<void> => {
    saved = performance.now();
    const states = evaluators.map((evaluator) => evaluator.state());
    const done = states[0]?.images.length ?? 0;
    const part: EvaluationPart = {
      format: 'scrim-evaluation-part',
      version: 1,
      settings,
      shard,
      images: { done, found: mine.length },
      seconds: (begun?.seconds ?? 0) + (performance.now() - started) / 1000,
      threads,
      engine,
      states,
    };
    last = last.then(() => writePart(partial, part));
    return last;
  };
  let lanes = begun?.threads ?? 0;
  let engine = begun?.engine ?? '';
  try {
    if (photos.length > 0) {
      await countFaces(context, photos, evaluators, options, before.size, async (threads, description) => {
        [lanes, engine] = [threads, description];
        if (performance.now() - saved >= CHECKPOINT_MS) await save(threads, description);
      });
    }
  } finally {
    await save(lanes, engine);
  }
  if (options.json) context.printJson({ partial, shard, images: mine.length, resumed: before.size });
  else context.print(`part ${shard.index}/${shard.of}: ${mine.length} images counted, kept in ${partial}`);
}

/** Least score that counts, with and without noise. */
export function leastScore(bundle: Bundle | undefined): number {
  return bundle ? SCORE_FLOOR / 2 : SCORE_FLOOR;
}

/** Finds the faces of `photos` and adds them to the evaluators; `before` were counted earlier. */
async function countFaces(
  context: CommandContext,
  photos: readonly FddbPhoto[],
  evaluators: readonly FddbEvaluator[],
  options: RunOptions,
  before: number,
  onCounted?: (threads: number, engine: string) => Promise<void>,
): Promise<Pick<Evaluation, 'seconds' | 'threads' | 'engine' | 'detections'>> {
  const { model, bundle, size } = options;
  const pipeline = await createFacePipeline({
    model,
    size,
    ...(bundle ? { bundle } : {}),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.provider === undefined ? {} : { provider: options.provider }),
  });
  try {
    const detections: ImageDetections[] = [];
    const progress = context.progress(options.label, before + photos.length);
    const minScore = leastScore(bundle);
    const started = performance.now();
    let next = 0;
    let done = before;
    const work = async (): Promise<void> => {
      for (;;) {
        context.signal.throwIfAborted();
        const index = next++;
        const photo = photos[index];
        if (!photo) return;
        const { draws } = await pipeline.detect(photo.path, { draws: evaluators.length, minScore });
        draws.forEach((found, i) => {
          const boxes = found.map(toScoredBox);
          (evaluators[i] as FddbEvaluator).add(photo.name, boxes);
          if (i === 0 && options.keepDetections) detections[index] = { name: photo.name, detections: boxes };
        });
        progress.update(++done);
        await onCounted?.(pipeline.lanes, pipeline.description);
      }
    };
    // Two photos under way for each lane: one is decoded, or waits for its noise, while the other infers.
    await Promise.all(Array.from({ length: 2 * pipeline.lanes }, work)).finally(() => progress.stop());
    return {
      seconds: (performance.now() - started) / 1000,
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
