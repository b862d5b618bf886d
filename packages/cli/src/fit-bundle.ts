/** Learning the noise for a model and an alpha, and packing it as a bundle: the work behind fit, sweep and demo. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import {
  type BundleContent,
  type Engine,
  encodeBundle,
  encodeSafetensors,
  type Manifest,
  type ManifestDetector,
  type ManifestTask,
  ScrimError,
  type Tensor,
} from 'scrim';
import { createReconstructionFitter } from 'scrim/audit';
import { createCanvases, createNodeCrypto, listPhotos, resizeImage } from 'scrim/node';
import {
  type ActivationCache,
  type BottleneckCheckpoint,
  type BottleneckFit,
  type BottleneckFitSettings,
  bottleneckWeight,
  cacheActivations,
  completeBottleneckSettings,
  createDiagonalFitter,
  createDiagonalTransform,
  createFitRandom,
  createReplayNoiser,
  type DiagonalFit,
  type DiagonalFitCheckpoint,
  type DiagonalParameters,
  type FitTask,
  fitBottleneck,
  releaseToTensor,
} from 'scrim/noise';
import { type Graph, inferShapes } from 'scrim/onnx';
import { splitAt } from 'scrim/split';
import { type DetectorSpec, imageToTensor, type RgbImage } from 'scrim/vision';
import { finishStore, prepareStore, type RowShapes, readStore, type StoredActivations } from './activation-store.js';
import type { ActivationNews, ActivationSetup } from './activation-work.js';
import type { CommandContext } from './context.js';
import { cacheInputs } from './fit-inputs.js';
import type { ModelSource } from './model-source.js';
import { runWorkers, workersFor } from './workers.js';

/** What is fitted on what. */
export interface FitPlan {
  readonly model: ModelSource;
  /** What the model was loaded from, as `--model` names it. */
  readonly modelSpec: string;
  readonly cut: string;
  readonly task: FitTask;
  readonly photos: readonly string[];
  /** Files and folders of plain inputs, for models that read no photos. */
  readonly data?: readonly string[];
  /** Activations per step, checked against what the model takes where inputs are plain. */
  readonly batchSize?: number;
  /** Side of the canvases, in pixels. */
  readonly size: number;
  /** Side that photos are resized to when the bundle is used, in pixels; default: that of the canvases. */
  readonly readAt?: number;
  readonly canvases: number;
  readonly seed: string;
  /** Side of the small pictures an adversary rebuilds; left out where there is none. */
  readonly adversaryPictures?: number;
  /** Processes that compose canvases and run the model over them; default: by the cores. */
  readonly workers?: number;
  /** Folder that activations are kept in for other fits of the same canvases. */
  readonly cache?: string;
}

/** A model prepared for fitting: split, its activations cached. */
export interface PreparedFit {
  readonly plan: FitPlan;
  readonly head: Graph;
  readonly tail: Graph;
  readonly engine: Engine;
  readonly cache: ActivationCache;
  readonly photoCount: number;
  /** Pictures of the first canvases, for the reconstruction. */
  readonly pictures: readonly RgbImage[];
  /** A small picture of every canvas, [3, side, side] in [0, 1], where an adversary was asked for. */
  readonly adversaryPictures?: { readonly size: number; readonly values: readonly Float32Array[] };
}

/** Canvases whose pictures are kept, and the side of the patch that one position stands for. */
const RECONSTRUCTION_CANVASES = 64;
const RECONSTRUCTION_PATCH = 8;
/** Where the reconstruction lies in a bundle. */
export const RECONSTRUCTION_PATH = 'audit/reconstruction.safetensors';
/** Where the log of the fit lies in a bundle: a line for every hundredth of the steps. */
const LOG_PATH = 'fit/log.csv';
const LOG_HEADINGS = 'phase,step,task,nats';
const LOG_LINES = 100;

/** Splits the model, composes canvases and caches what the fit needs. */
export async function prepareFit(context: CommandContext, engine: Engine, plan: FitPlan): Promise<PreparedFit> {
  const { model, cut, size } = plan;
  const { detector } = model;
  if (plan.data) {
    const { fileCount, ...cached } = await cacheInputs(context, engine, { ...plan, data: plan.data });
    return { ...cached, plan: { ...plan, cut: cached.cut }, engine, photoCount: fileCount, pictures: [] };
  }
  if (!detector) {
    throw new ScrimError(
      'UNSUPPORTED',
      `'${model.name}' does not say how photos become its input: give inputs as .npy, .csv or .wav files with --data, or ` +
        "import a detector with 'scrim model import'",
    );
  }
  for (const [flag, side] of [
    ['--size', size],
    ['--read-at', plan.readAt ?? size],
  ] as const) {
    if (side % detector.multiple !== 0) {
      throw new ScrimError('INVALID_ARGUMENT', `${flag} is ${side}, expected a multiple of ${detector.multiple}`);
    }
  }
  const { head, tail } = splitAt(model.graph, [cut]);
  const folders = await Promise.all(plan.photos.map((folder) => listPhotos(folder)));
  const photoCount = folders.reduce((sum, photos) => sum + photos.length, 0);
  if (photoCount === 0) throw new ScrimError('NOT_FOUND', `there are no photos in ${plan.photos.join(', ')}`);
  const picture = pictureSize(head, model.input, cut, size);
  const canvases = { context, engine, plan, detector, head, tail, folders, photoCount, picture };
  const workers = workersFor(plan.canvases, plan.workers);
  const { cache, readable, reconstruction, small } = await (workers > 1 || plan.cache !== undefined
    ? storedCanvases(canvases, workers)
    : cacheCanvases(canvases));
  const side = plan.adversaryPictures;
  return {
    plan,
    engine,
    head,
    tail,
    cache,
    photoCount: readable,
    pictures: reconstruction,
    ...(side === undefined ? {} : { adversaryPictures: { size: side, values: small.map(toPlanes) } }),
  };
}

interface Canvases {
  readonly context: CommandContext;
  readonly engine: Engine;
  readonly plan: FitPlan;
  readonly detector: DetectorSpec;
  readonly head: Graph;
  readonly tail: Graph;
  readonly folders: readonly (readonly string[])[];
  readonly photoCount: number;
  readonly picture: { readonly width: number; readonly height: number } | undefined;
}

interface CachedCanvases {
  readonly cache: ActivationCache;
  /** Photos without those that can't be read. */
  readonly readable: number;
  readonly reconstruction: readonly RgbImage[];
  readonly small: readonly RgbImage[];
}

/** Composes canvases one after the other and runs the engine over them. */
async function cacheCanvases(canvases: Canvases): Promise<CachedCanvases> {
  const { context, engine, plan, detector, head, tail, folders, photoCount, picture } = canvases;
  const headSession = await engine.load(head.encode());
  const tailSession = await engine.load(tail.encode());
  const reconstruction: RgbImage[] = [];
  const side = plan.adversaryPictures;
  const small: RgbImage[] = [];
  const unreadable = new Set<string>();
  async function* inputs(): AsyncGenerator<Tensor> {
    const composed = createCanvases({
      folders,
      count: plan.canvases,
      width: plan.size,
      height: plan.size,
      random: createFitRandom(`${plan.seed}/canvases`),
      onUnreadable: (path) => skip(context, unreadable, path),
    });
    for await (const canvas of composed) {
      if (picture && reconstruction.length < RECONSTRUCTION_CANVASES) {
        reconstruction.push(await resizeImage(canvas, picture));
      }
      if (side !== undefined) small.push(await resizeImage(canvas, { width: side, height: side }));
      yield imageToTensor(canvas, detector.preprocessing);
    }
  }
  const progress = context.progress('canvases', plan.canvases);
  const cache = await cacheActivations(inputs(), {
    head: headSession,
    tail: tailSession,
    input: plan.model.input,
    cut: plan.cut,
    signal: context.signal,
    onProgress: (done) => progress.update(done),
  }).finally(() => progress.stop());
  await headSession.close();
  await tailSession.close();
  return { cache, readable: photoCount - unreadable.size, reconstruction, small };
}

/** The same by processes side by side, through a folder; one that is there already is read. */
async function storedCanvases(canvases: Canvases, workers: number): Promise<CachedCanvases> {
  const { context, plan, folders, photoCount, picture } = canvases;
  const { model, cut, size, seed, adversaryPictures: side = 0 } = plan;
  const origin = {
    weights: model.sha256,
    cut,
    size: String(size),
    canvases: String(plan.canvases),
    seed,
    photos: plan.photos.map((path) => basename(resolve(path))).join(' '),
    ...(side > 0 ? { pictures: String(side) } : {}),
  };
  const found = plan.cache === undefined ? undefined : await readStore(plan.cache, origin);
  if (found) {
    context.remark(`activations of ${plan.canvases} canvases are there, in '${plan.cache}'`);
    return { ...found, readable: found.photoCount, small: found.pictures };
  }
  const folder = plan.cache ?? (await mkdtemp(join(tmpdir(), 'scrim-activations-')));
  try {
    await prepareStore(folder);
    const pictures = {
      count: picture ? Math.min(RECONSTRUCTION_CANVASES, plan.canvases) : 0,
      width: 0,
      height: 0,
      ...picture,
    };
    const setup: ActivationSetup = {
      model: plan.modelSpec,
      cut,
      folders,
      count: plan.canvases,
      size,
      seed,
      folder,
      reconstruction: pictures,
      side,
    };
    const unreadable = new Set<string>();
    const progress = context.progress(`canvases, ${workers} processes`, plan.canvases);
    let [done, shapes]: [number, RowShapes | undefined] = [0, undefined];
    try {
      for await (const news of runWorkers<ActivationNews>('activations', setup, workers, context.signal)) {
        if ('unreadable' in news) skip(context, unreadable, news.unreadable);
        else {
          if (shapes && String(shapes.shape) !== String(news.done.shape)) {
            throw new ScrimError('INVALID_DATA', 'activations differ in shape: fit on inputs of one size');
          }
          shapes = news.done;
          progress.update(++done);
        }
      }
    } finally {
      progress.stop();
    }
    if (!shapes) throw new ScrimError('INVALID_DATA', 'there is no input to fit on');
    await finishStore(folder, {
      origin: { ...origin, pictures: String(side) },
      ...shapes,
      count: plan.canvases,
      photoCount: photoCount - unreadable.size,
      reconstruction: pictures,
      picture: { count: side > 0 ? plan.canvases : 0, width: side, height: side },
    });
    const made = (await readStore(folder, origin)) as StoredActivations;
    return { ...made, readable: made.photoCount, small: made.pictures };
  } finally {
    if (plan.cache === undefined) await rm(folder, { recursive: true, force: true });
  }
}

function skip(context: CommandContext, unreadable: Set<string>, path: string): void {
  if (unreadable.has(path)) return;
  unreadable.add(path);
  context.remark(`skipped '${path}': it can't be read as a photo`);
}

/** [3, H, W] in [0, 1]. */
function toPlanes({ width, height, data }: RgbImage): Float32Array {
  const plane = width * height;
  const values = new Float32Array(3 * plane);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) values[c * plane + i] = (data[3 * i + c] as number) / 255;
  }
  return values;
}

/** How one alpha is fitted with a diagonal transform. */
export interface AlphaFit {
  readonly alpha: number;
  readonly granularity: 'per-channel' | 'per-element';
  readonly steps: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly noiseOnly: boolean;
  readonly resume?: DiagonalFitCheckpoint;
  /** Lines of the log so far, where the fit goes on; more are added here. Default: none. */
  readonly log?: string[];
  readonly onCheckpoint?: (checkpoint: DiagonalFitCheckpoint) => Promise<void>;
  /** The command that can be run again, for the manifest. */
  readonly command?: string;
}

/** How one alpha is fitted with a bottleneck. */
export interface BottleneckAlphaFit {
  readonly settings: BottleneckFitSettings;
  readonly noiseOnly: boolean;
  readonly resume?: BottleneckCheckpoint;
  /** Lines of the log so far, where the fit goes on; more are added here. Default: none. */
  readonly log?: string[];
  readonly onCheckpoint?: (checkpoint: BottleneckCheckpoint) => Promise<void>;
  readonly command?: string;
}

const CHECKPOINT_EVERY = 50;

/** Fits one alpha and returns the files of its bundle. */
export async function fitAlpha(
  context: CommandContext,
  prepared: PreparedFit,
  options: AlphaFit,
): Promise<Packed & { readonly fit: DiagonalFit }> {
  const { plan, engine, tail, cache } = prepared;
  const { granularity, batchSize, alpha, steps, learningRate, log = [] } = options;
  const fitter = await createDiagonalFitter({ engine, tail, task: plan.task, cache, granularity, batchSize });
  const progress = context.progress(`fit alpha ${alpha}`, steps);
  const fit = await fitter
    .fit({ alpha, steps, learningRate }, createFitRandom(`${plan.seed}/fit`), {
      signal: context.signal,
      now: () => performance.now(),
      onProgress: ({ step, task, nats }) => {
        progress.update(step, describeStep(task, nats));
        if (isLogged(step, steps)) log.push(logLine('fit', step, task, nats));
      },
      ...(options.resume ? { resume: options.resume } : {}),
      ...(options.onCheckpoint ? { onCheckpoint: options.onCheckpoint, checkpointEvery: CHECKPOINT_EVERY } : {}),
    })
    .finally(() => progress.stop());
  await fitter.close();
  const packed = await packBundle(prepared, {
    ...options,
    log,
    context,
    fit,
    examples: cache.activations.slice(0, prepared.pictures.length),
    positions: cache.shape.slice(1),
  });
  return { ...packed, fit };
}

/** Fits one alpha with a bottleneck and returns the files of its bundle. */
export async function fitBottleneckAlpha(
  context: CommandContext,
  prepared: PreparedFit,
  options: BottleneckAlphaFit,
): Promise<Packed & { readonly fit: BottleneckFit }> {
  const { plan, engine, tail, cache, adversaryPictures } = prepared;
  const { log = [] } = options;
  const settings = completeBottleneckSettings(options.settings);
  const { alpha, pushSteps, recoverSteps, batchSize, learningRate } = settings;
  const progress = context.progress(`fit alpha ${alpha}`, pushSteps + recoverSteps);
  const fit = await fitBottleneck({
    engine,
    tail,
    task: plan.task,
    cache,
    settings,
    seed: plan.seed,
    encodedExamples: prepared.pictures.length,
    ...(adversaryPictures ? { pictures: adversaryPictures } : {}),
    hooks: {
      signal: context.signal,
      now: () => performance.now(),
      onProgress: ({ phase, step, task, nats }) => {
        progress.update(step, `${phase}  ${describeStep(task, nats)}`);
        if (isLogged(step, pushSteps + recoverSteps)) log.push(logLine(phase, step, task, nats));
      },
      ...(options.resume ? { resume: options.resume } : {}),
      ...(options.onCheckpoint ? { onCheckpoint: options.onCheckpoint, checkpointEvery: CHECKPOINT_EVERY } : {}),
    },
  }).finally(() => progress.stop());
  const bottleneck = { parts: fit, beta: bottleneckWeight(alpha), adversary: settings.adversary };
  const packed = await packBundle(prepared, {
    ...options,
    log,
    context,
    alpha,
    steps: pushSteps + recoverSteps,
    batchSize,
    learningRate,
    fit,
    bottleneck,
    examples: fit.encoded,
    positions: cache.shape.slice(1),
  });
  return { ...packed, fit };
}

function isLogged(step: number, steps: number): boolean {
  return step === 1 || step === steps || step % Math.ceil(steps / LOG_LINES) === 0;
}

function logLine(phase: string, step: number, task: number, nats: number): string {
  return [phase, step, task.toPrecision(5), nats.toFixed(1)].join(',');
}

function describeStep(task: number, nats: number): string {
  return `task ${task.toFixed(3)}  ${Math.round(nats).toLocaleString('en')} nats`;
}

interface Packed {
  readonly files: Map<string, Uint8Array>;
  /** Bound on what one release tells where the bundle is used. */
  readonly nats: number;
}

interface Packing {
  readonly context: CommandContext;
  readonly alpha: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly noiseOnly: boolean;
  readonly log: readonly string[];
  readonly command?: string;
  readonly fit: {
    readonly parameters: DiagonalParameters;
    readonly finalTask: number;
    readonly nats: number;
    readonly seconds: number;
  };
  readonly bottleneck?: NonNullable<BundleContent['bottleneck']>;
  /** What is released of the canvases whose pictures are kept, before the noise. */
  readonly examples: readonly Float32Array[];
  readonly positions: readonly number[];
}

async function packBundle(
  { plan, head, tail, cache, photoCount, pictures }: PreparedFit,
  { context, alpha, fit, bottleneck, noiseOnly, log, command, examples, positions, ...run }: Packing,
): Promise<Packed> {
  const { model, cut, task } = plan;
  const { parameters } = fit;
  const cutType = tail.declaredType(cut);
  const extras = new Map([[LOG_PATH, new TextEncoder().encode(`${[LOG_HEADINGS, ...log].join('\n')}\n`)]]);
  const shape = [parameters.shape[0] ?? 0, ...positions];
  const reconstruction = await fitReconstruction(parameters, alpha, shape, examples, pictures);
  if (reconstruction) extras.set(RECONSTRUCTION_PATH, reconstruction);
  const used = positionsInUse(plan, head, positions);
  const count = (sides: readonly number[]): number => sides.reduce((product, side) => product * side, 1);
  const nats = (fit.nats / count(positions)) * count(used);
  const files = await encodeBundle(
    {
      parameters,
      tail,
      ...(noiseOnly ? {} : { head }),
      ...(bottleneck ? { bottleneck } : {}),
      extras,
      manifest: {
        createdAt: new Date().toISOString(),
        createdBy: `scrim ${context.version}`,
        alpha,
        model: {
          name: model.name,
          source: model.source,
          sha256: model.sha256,
          input: model.input,
          ...(model.detector
            ? { detector: toPlain<ManifestDetector>({ ...model.detector, side: plan.readAt ?? plan.size }) }
            : {}),
        },
        cut: { tensors: [{ name: cut, dtype: cutType?.dtype ?? 'float32', shape: [...(cutType?.shape ?? [])] }] },
        task: toPlain<ManifestTask>(task),
        ...(model.detector ? {} : { remoteNames: { noisy: `${model.name}_noisy`, base: `${model.name}_base` } }),
        fit: {
          steps: run.steps,
          batchSize: run.batchSize,
          learningRate: run.learningRate,
          canvases: cache.activations.length,
          photos: photoCount,
          photoFolders: (plan.data ?? plan.photos).map((folder) => basename(resolve(folder))),
          seed: plan.seed,
          finalTask: fit.finalTask,
          seconds: Math.round(fit.seconds),
          ...(command === undefined ? {} : { command }),
        },
        results: provenFigures(nats, used, bottleneck !== undefined),
      },
    },
    createNodeCrypto(),
  );
  return { files, nats };
}

/** Positions of the cut where the bundle is used: the canvases', unless photos are read at another size. */
function positionsInUse(
  { model, cut, size, readAt = size }: FitPlan,
  head: Graph,
  positions: readonly number[],
): readonly number[] {
  if (readAt === size) return positions;
  const found = activationSize(head, model.input, cut, readAt);
  if (!found) throw new ScrimError('UNSUPPORTED', `the size of '${cut}' can't be told for photos of ${readAt} pixels`);
  return [found.height, found.width];
}

function provenFigures(nats: number, positions: readonly number[], bounded: boolean): Manifest['results'] {
  return [
    {
      kind: 'proven',
      name: `mutual information of one release at ${positions.join('×')} positions`,
      value: Math.round(nats),
      unit: 'nats',
      assumptions: [
        bounded
          ? 'diagonal Gaussian bound, sum of ½ ln(1 + λ/σ²) over the encoder’s channels'
          : 'diagonal Gaussian bound, sum of ½ ln(1 + m²λ/σ²)',
        'λ is the variance of each channel over the fitting canvases, without a confidence limit',
        'one fresh release per input',
      ],
    },
  ];
}

/** A linear reconstruction of pictures from releases of this transform, as safetensors. */
async function fitReconstruction(
  parameters: DiagonalParameters,
  alpha: number,
  shape: readonly number[],
  examples: readonly Float32Array[],
  pictures: readonly RgbImage[],
): Promise<Uint8Array | undefined> {
  const [channels = 0] = shape;
  if (pictures.length === 0 || shape.length !== 3) return undefined;
  const noiser = createReplayNoiser({
    transform: createDiagonalTransform(parameters),
    bundleHash: '0'.repeat(64),
    alpha,
    crypto: createNodeCrypto(),
    seedKey: new Uint8Array(32).fill(7),
  });
  const fitter = createReconstructionFitter(channels, RECONSTRUCTION_PATCH);
  for (const [i, picture] of pictures.entries()) {
    const data = examples[i] as Float32Array;
    const release = await noiser.release({ dtype: 'float32', shape: [1, ...shape], data });
    fitter.add(releaseToTensor(release, parameters), picture);
  }
  noiser.close();
  const { weights, patch } = fitter.solve();
  return encodeSafetensors({
    tensors: new Map([['weights', weights]]),
    metadata: { format: 'scrim-linear-reconstruction', patch: String(patch) },
  });
}

function pictureSize(
  head: Graph,
  input: string,
  cut: string,
  size: number,
): { width: number; height: number } | undefined {
  const found = activationSize(head, input, cut, size);
  return found && { width: found.width * RECONSTRUCTION_PATCH, height: found.height * RECONSTRUCTION_PATCH };
}

/** Height and width of the cut for photos of `size`; undefined where it is no image. */
function activationSize(
  head: Graph,
  input: string,
  cut: string,
  size: number,
): { width: number; height: number } | undefined {
  const shape = inferShapes(head, { inputShapes: { [input]: [1, 3, size, size] } }).get(cut)?.shape;
  const [, , height, width] = shape ?? [];
  if (shape?.length !== 4 || typeof height !== 'number' || typeof width !== 'number') return undefined;
  return { width, height };
}

/** A mutable copy of plain data. */
function toPlain<T>(value: unknown): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
