/** `scrim sweep`: the document's table, accuracy against alpha, as text, JSON and a chart. */
import { cpus } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { type Bundle, ScrimError } from 'scrim';
import { mean } from 'scrim/metrics';
import {
  createNodeEngine,
  type FddbDataset,
  type NodeEngineOptions,
  recordResults,
  writeDirectory,
  writeFileAtomically,
} from 'scrim/node';
import { alphaFolder, lookForBundle, photoSide, type TransformKind } from '../bundle-store.js';
import { type SweepPoint, svgToPng, sweepChart } from '../chart.js';
import type { CommandContext } from '../context.js';
import { fitAlpha, type PreparedFit, prepareFit } from '../fit-bundle.js';
import { loadModelSource, type ModelSource } from '../model-source.js';
import { formatTable } from '../table.js';
import { deviation, openDataset, runEvaluation } from './evaluate.js';

interface SweepOptions {
  readonly transform: TransformKind;
  readonly dataset: string;
  readonly model: string;
  readonly photos?: readonly string[];
  readonly bundles?: string;
  readonly alphas: string;
  readonly out: string;
  readonly allowMissing?: boolean;
  readonly record?: boolean;
  readonly noiseOnly?: boolean;
  readonly repeats: number;
  readonly steps: number;
  readonly canvases: number;
  readonly seed: string;
  readonly size?: number;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

/** One row of the table. */
export interface SweepRow extends SweepPoint {
  readonly runs: readonly number[];
  readonly bundle: string;
}

export async function sweep(context: CommandContext, options: SweepOptions): Promise<void> {
  const alphas = parseAlphas(options.alphas);
  const model = await loadModelSource(options.model);
  const dataset = await openDataset(context, options.dataset, options.allowMissing ?? false);
  const folder = options.bundles ?? (options.photos ? join(options.out, 'bundles') : undefined);
  const bundles = await collectBundles(context, model, alphas, folder, options);
  const size = photoSide(options.size, bundles);
  const { cleanAp, rows } = await runSweep(context, dataset, model, bundles, { ...options, size });
  const { found, expected } = dataset.images;
  const title = `${model.name}, ${found} of ${expected} photos of FDDB, ${size}×${size}, ${options.repeats} draws`;
  const table = sweepTable(cleanAp, rows);
  const result = {
    model: model.source,
    size,
    repeats: options.repeats,
    images: dataset.images,
    clean: cleanAp,
    rows,
  };
  if (options.record) {
    if (folder === undefined) throw new ScrimError('INVALID_ARGUMENT', '--record needs --bundles');
    await record(folder, model, rows, cleanAp, { ...options, size }, found);
  }
  const svg = sweepChart(rows, cleanAp, title);
  await writeFileAtomically(join(options.out, 'sweep.txt'), `${title}\n\n${table}\n`);
  await writeFileAtomically(join(options.out, 'sweep.json'), `${JSON.stringify(result, null, 2)}\n`);
  await writeFileAtomically(join(options.out, 'sweep.svg'), svg);
  await writeFileAtomically(join(options.out, 'sweep.png'), svgToPng(svg));
  if (options.json) return context.printJson(result);
  context.print(title);
  context.print('');
  context.print(table);
  context.remark(`wrote sweep.txt, sweep.json, sweep.svg and sweep.png to '${options.out}'`);
}

/** The table as text. */
export function sweepTable(cleanAp: number, rows: readonly SweepRow[]): string {
  return formatTable(
    ['alpha', 'AP', '±', 'nats per photo'],
    [
      ['clean', cleanAp.toFixed(4), '', ''],
      ...rows.map((row) => [
        row.alpha.toFixed(2),
        row.meanAp.toFixed(4),
        row.sd.toFixed(4),
        Math.round(row.nats).toLocaleString('en'),
      ]),
    ],
  );
}

/** Evaluates the clean model and every bundle. */
export async function runSweep(
  context: CommandContext,
  dataset: FddbDataset,
  model: ModelSource,
  bundles: readonly Bundle[],
  options: Pick<SweepOptions, 'repeats'> & { readonly size: number } & Partial<
      Pick<SweepOptions, 'threads' | 'provider'>
    >,
): Promise<{ cleanAp: number; rows: SweepRow[] }> {
  const common = {
    model,
    size: options.size,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.provider === undefined ? {} : { provider: options.provider }),
  };
  const clean = await runEvaluation(context, dataset, { ...common, bundle: undefined, repeats: 1, label: 'clean' });
  const rows: SweepRow[] = [];
  for (const bundle of bundles) {
    const { alpha, transform } = bundle.manifest;
    const label = `alpha ${alpha}`;
    const { results } = await runEvaluation(context, dataset, { ...common, bundle, repeats: options.repeats, label });
    const runs = results.map(({ mAP }) => mAP);
    const positions = (options.size / POSITION_STRIDE) ** 2;
    rows.push({
      alpha,
      meanAp: mean(runs),
      sd: deviation(runs),
      nats: transform.natsPerPosition * positions,
      runs,
      bundle: bundle.hash,
    });
  }
  return { cleanAp: clean.results[0]?.mAP ?? 0, rows };
}

/** Pixels along a side that one position of FaceBoxes' natural cut stands for. */
export const POSITION_STRIDE = 32;

async function collectBundles(
  context: CommandContext,
  model: ModelSource,
  alphas: readonly number[],
  folder: string | undefined,
  options: SweepOptions,
): Promise<Bundle[]> {
  const bundles: Bundle[] = [];
  let prepared: PreparedFit | undefined;
  const engine = await createNodeEngine({
    executionProvider: options.provider,
    thread: 'inline',
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  try {
    for (const alpha of alphas) {
      const found = await lookForBundle(model, alpha, options.transform, folder === undefined ? undefined : [folder]);
      if (found) {
        bundles.push(found);
        continue;
      }
      if (
        options.transform !== 'diagonal' ||
        !options.photos ||
        folder === undefined ||
        model.cut === undefined ||
        model.task === undefined
      ) {
        throw new ScrimError(
          'NOT_FOUND',
          `there is no ${options.transform} bundle for ${model.name} at alpha ${alpha}: ` +
            (options.transform === 'diagonal' ? '--photos DIR lets the sweep fit it' : "'scrim fit' makes one"),
        );
      }
      prepared ??= await prepareFit(context, engine, {
        model,
        modelSpec: options.model,
        cut: model.cut,
        task: model.task,
        photos: options.photos,
        size: photoSide(options.size, []),
        canvases: options.canvases,
        seed: options.seed,
      });
      const { files } = await fitAlpha(context, prepared, {
        alpha,
        granularity: 'per-channel',
        batchSize: 8,
        steps: options.steps,
        learningRate: 0.05,
        noiseOnly: options.noiseOnly ?? false,
        command: sweepCommand(options),
      });
      const path = join(folder, alphaFolder(alpha));
      await writeDirectory(path, files);
      const made = await lookForBundle(model, alpha, 'diagonal', [folder]);
      if (made) bundles.push(made);
    }
  } finally {
    await engine.close();
  }
  return bundles;
}

/** Names of the figures that --record leaves in a manifest. */
export const NOISY_AP = 'FDDB average precision with noise';
export const CLEAN_AP = 'FDDB average precision without noise';

async function record(
  folder: string,
  model: ModelSource,
  rows: readonly SweepRow[],
  cleanAp: number,
  options: SweepOptions & { readonly size: number },
  images: number,
): Promise<void> {
  const machine = `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores`;
  const common = { kind: 'measured', sampleSize: images, machine, command: sweepCommand(options) } as const;
  const data = `FDDB, ${images} photos, ${options.size}×${options.size}, IoU 0.5, mean over folds, ${model.name}`;
  for (const { alpha, meanAp, sd, runs } of rows) {
    await recordResults(join(folder, alphaFolder(alpha)), [
      { ...common, name: CLEAN_AP, value: cleanAp, data },
      { ...common, name: NOISY_AP, value: meanAp, sd, runs: runs.length, data },
    ]);
  }
}

/** The command to run again, with folders by name: a manifest carries no path of the machine that made it. */
function sweepCommand(options: SweepOptions): string {
  const name = (path: string): string => basename(resolve(path));
  const model = options.model === 'faceboxes' ? options.model : name(options.model);
  return (
    `scrim sweep --model ${model} --transform ${options.transform} --dataset ${name(options.dataset)}` +
    `${options.photos ? ` --photos ${options.photos.map(name).join(' ')}` : ''} --alphas ${options.alphas} ` +
    `--steps ${options.steps} --canvases ${options.canvases} --seed ${options.seed} --repeats ${options.repeats}` +
    (options.size === undefined ? '' : ` --size ${options.size}`)
  );
}

function parseAlphas(text: string): number[] {
  const alphas = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const wrong = alphas.findIndex((alpha) => !(alpha >= 0 && alpha < 1));
  if (wrong >= 0) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--alphas has '${text.split(',')[wrong]}', expected numbers from 0 up to 1`,
    );
  }
  return [...new Set(alphas)].sort((a, b) => a - b);
}
