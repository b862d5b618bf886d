/** Learning the noise for a model and an alpha, and packing it as a bundle: the work behind fit, sweep and demo. */
import { basename, resolve } from 'node:path';
import {
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
  cacheActivations,
  createDiagonalFitter,
  createDiagonalTransform,
  createFitRandom,
  createReplayNoiser,
  type DiagonalFit,
  type DiagonalFitCheckpoint,
  type DiagonalFitter,
  type DiagonalParameters,
  type FitTask,
  releaseToTensor,
} from 'scrim/noise';
import { type Graph, inferShapes } from 'scrim/onnx';
import { splitAt } from 'scrim/split';
import { imageToTensor, type Preprocessing, type RgbImage } from 'scrim/vision';
import type { CommandContext } from './context.js';
import type { ModelSource } from './model-source.js';

/** What is fitted on what. */
export interface FitPlan {
  readonly model: ModelSource;
  readonly cut: string;
  readonly task: FitTask;
  readonly photos: readonly string[];
  readonly size: number;
  readonly canvases: number;
  readonly seed: string;
  readonly batchSize: number;
  readonly granularity: 'per-channel' | 'per-element';
}

/** A model prepared for fitting: split, its activations cached, the training graph loaded. */
export interface PreparedFit {
  readonly plan: FitPlan;
  readonly head: Graph;
  readonly tail: Graph;
  readonly cache: ActivationCache;
  readonly fitter: DiagonalFitter;
  readonly photoCount: number;
  /** Pictures of the first canvases, for the reconstruction. */
  readonly pictures: readonly RgbImage[];
}

/** Canvases whose pictures are kept, and the side of the patch that one position stands for. */
const RECONSTRUCTION_CANVASES = 64;
const RECONSTRUCTION_PATCH = 8;
/** Where the reconstruction lies in a bundle. */
export const RECONSTRUCTION_PATH = 'audit/reconstruction.safetensors';

/** Splits the model, composes canvases and caches what the fit needs. */
export async function prepareFit(context: CommandContext, engine: Engine, plan: FitPlan): Promise<PreparedFit> {
  const { model, cut, size } = plan;
  const { detector } = model;
  if (!detector) {
    throw new ScrimError(
      'UNSUPPORTED',
      `'${model.name}' does not say how pictures become its input: import it with 'scrim model import', or fit it with the library`,
    );
  }
  const { head, tail } = splitAt(model.graph, [cut]);
  const folders = await Promise.all(plan.photos.map((folder) => listPhotos(folder)));
  const photoCount = folders.reduce((sum, photos) => sum + photos.length, 0);
  if (photoCount === 0) throw new ScrimError('NOT_FOUND', `there are no photos in ${plan.photos.join(', ')}`);
  const picture = pictureSize(head, model.input, cut, size);
  const headSession = await engine.load(head.encode());
  const tailSession = await engine.load(tail.encode());
  const pictures: RgbImage[] = [];
  const unreadable = new Set<string>();
  async function* inputs(preprocessing: Preprocessing): AsyncGenerator<Tensor> {
    const canvases = createCanvases({
      folders,
      count: plan.canvases,
      width: size,
      height: size,
      random: createFitRandom(`${plan.seed}/canvases`),
      onUnreadable: (path) => {
        unreadable.add(path);
        context.remark(`skipped '${path}': it can't be read as a photo`);
      },
    });
    for await (const canvas of canvases) {
      if (picture && pictures.length < RECONSTRUCTION_CANVASES) pictures.push(await resizeImage(canvas, picture));
      yield imageToTensor(canvas, preprocessing);
    }
  }
  const progress = context.progress('canvases', plan.canvases);
  const cache = await cacheActivations(inputs(detector.preprocessing), {
    head: headSession,
    tail: tailSession,
    input: model.input,
    cut,
    signal: context.signal,
    onProgress: (done) => progress.update(done),
  }).finally(() => progress.stop());
  await headSession.close();
  await tailSession.close();
  const fitter = await createDiagonalFitter({
    engine,
    tail,
    task: plan.task,
    cache,
    granularity: plan.granularity,
    batchSize: plan.batchSize,
  });
  return { plan, head, tail, cache, fitter, photoCount: photoCount - unreadable.size, pictures };
}

/** How one alpha is fitted. */
export interface AlphaFit {
  readonly alpha: number;
  readonly steps: number;
  readonly learningRate: number;
  readonly noiseOnly: boolean;
  readonly resume?: DiagonalFitCheckpoint;
  readonly onCheckpoint?: (checkpoint: DiagonalFitCheckpoint) => Promise<void>;
  /** The command that can be run again, for the manifest. */
  readonly command?: string;
}

/** Fits one alpha and returns the files of its bundle. */
export async function fitAlpha(
  context: CommandContext,
  prepared: PreparedFit,
  options: AlphaFit,
): Promise<{ readonly files: Map<string, Uint8Array>; readonly fit: DiagonalFit }> {
  const { plan, fitter } = prepared;
  const progress = context.progress(`fit alpha ${options.alpha}`, options.steps);
  const fit = await fitter
    .fit(
      { alpha: options.alpha, steps: options.steps, learningRate: options.learningRate },
      createFitRandom(`${plan.seed}/fit`),
      {
        signal: context.signal,
        now: () => performance.now(),
        onProgress: ({ step, task, nats }) =>
          progress.update(step, `task ${task.toFixed(3)}  ${Math.round(nats).toLocaleString('en')} nats`),
        ...(options.resume ? { resume: options.resume } : {}),
        ...(options.onCheckpoint ? { onCheckpoint: options.onCheckpoint, checkpointEvery: CHECKPOINT_EVERY } : {}),
      },
    )
    .finally(() => progress.stop());
  const files = await packBundle(context, prepared, fit, options);
  return { files, fit };
}

const CHECKPOINT_EVERY = 50;

async function packBundle(
  context: CommandContext,
  { plan, head, tail, cache, photoCount, pictures }: PreparedFit,
  fit: DiagonalFit,
  { noiseOnly, command }: AlphaFit,
): Promise<Map<string, Uint8Array>> {
  const { model, cut, task } = plan;
  const { settings, parameters } = fit;
  const cutType = tail.declaredType(cut);
  const extras = new Map<string, Uint8Array>();
  const reconstruction = await fitReconstruction(parameters, settings.alpha, cache, pictures);
  if (reconstruction) extras.set(RECONSTRUCTION_PATH, reconstruction);
  return encodeBundle(
    {
      parameters,
      tail,
      ...(noiseOnly ? {} : { head }),
      extras,
      manifest: {
        createdAt: new Date().toISOString(),
        createdBy: `scrim ${context.version}`,
        alpha: settings.alpha,
        model: {
          name: model.name,
          source: model.source,
          sha256: model.sha256,
          input: model.input,
          ...(model.detector ? { detector: toPlain<ManifestDetector>(model.detector) } : {}),
        },
        cut: { tensors: [{ name: cut, dtype: cutType?.dtype ?? 'float32', shape: [...(cutType?.shape ?? [])] }] },
        task: toPlain<ManifestTask>(task),
        fit: {
          steps: settings.steps,
          batchSize: settings.batchSize,
          learningRate: settings.learningRate,
          canvases: cache.activations.length,
          photos: photoCount,
          photoFolders: plan.photos.map((folder) => basename(resolve(folder))),
          seed: plan.seed,
          finalTask: fit.finalTask,
          seconds: Math.round(fit.seconds),
          ...(command === undefined ? {} : { command }),
        },
        results: provenFigures(fit, cache),
      },
    },
    createNodeCrypto(),
  );
}

function provenFigures(fit: DiagonalFit, cache: ActivationCache): Manifest['results'] {
  return [
    {
      kind: 'proven',
      name: `mutual information of one release at ${cache.shape.slice(1).join('×')} positions`,
      value: Math.round(fit.nats),
      unit: 'nats',
      assumptions: [
        'diagonal Gaussian bound, sum of ½ ln(1 + m²λ/σ²)',
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
  cache: ActivationCache,
  pictures: readonly RgbImage[],
): Promise<Uint8Array | undefined> {
  const [channels = 0] = cache.shape;
  if (pictures.length === 0 || cache.shape.length !== 3) return undefined;
  const noiser = createReplayNoiser({
    transform: createDiagonalTransform(parameters),
    bundleHash: '0'.repeat(64),
    alpha,
    crypto: createNodeCrypto(),
    seedKey: new Uint8Array(32).fill(7),
  });
  const fitter = createReconstructionFitter(channels, RECONSTRUCTION_PATCH);
  for (const [i, picture] of pictures.entries()) {
    const data = cache.activations[i] as Float32Array;
    const release = await noiser.release({ dtype: 'float32', shape: [1, ...cache.shape], data });
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
  const shape = inferShapes(head, { inputShapes: { [input]: [1, 3, size, size] } }).get(cut)?.shape;
  const [, , height, width] = shape ?? [];
  if (shape?.length !== 4 || typeof height !== 'number' || typeof width !== 'number') return undefined;
  return { width: width * RECONSTRUCTION_PATCH, height: height * RECONSTRUCTION_PATCH };
}

/** A mutable copy of plain data. */
function toPlain<T>(value: unknown): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
