/** `scrim detect`: faces with and without noise, and pictures of what left the trusted side. */
import { basename, extname, join } from 'node:path';
import { ScrimError, type ScrimErrorCode } from 'scrim';
import { type NodeEngineOptions, writeImage } from 'scrim/node';
import { type Detection, sideBySide } from 'scrim/vision';
import { findBundle, openFor, photoSide, type TransformKind } from '../bundle-store.js';
import type { CommandContext } from '../context.js';
import { drawFaces, readReconstruction } from '../face-pictures.js';
import { createFacePipeline } from '../face-pipeline.js';
import { loadModelSource } from '../model-source.js';
import { formatBytes, formatTable } from '../table.js';

interface DetectOptions {
  readonly model: string;
  readonly bundle?: string;
  readonly alpha: number;
  readonly transform: TransformKind;
  readonly out: string;
  readonly threshold: number;
  readonly size?: number;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

export async function detect(context: CommandContext, options: DetectOptions, photos: string[]): Promise<void> {
  const model = await loadModelSource(options.model);
  const bundle =
    options.bundle === undefined
      ? await findBundle(model, options.alpha, options.transform)
      : await openFor(options.bundle, model);
  const common = {
    model,
    size: photoSide(options.size, [bundle]),
    provider: options.provider,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  };
  const clean = await createFacePipeline(common);
  context.onClose(() => clean.close());
  const noisy = await createFacePipeline({ ...common, bundle });
  context.onClose(() => noisy.close());
  const reconstruction = await readReconstruction(bundle);
  const names = uniqueNames(photos);
  const rows: unknown[] = [];
  const unreadable: { photo: string; error: string }[] = [];
  const table: string[][] = [];
  const progress = context.progress('detect', photos.length);
  for (const [i, photo] of photos.entries()) {
    context.signal.throwIfAborted();
    const found = await clean.detect(photo, { minScore: options.threshold }).catch((error: unknown) => {
      // One photo alone has nothing to go on with.
      if (!(error instanceof ScrimError) || !SKIPPED.has(error.code) || photos.length === 1) throw error;
      unreadable.push({ photo, error: error.message });
      context.remark(`skipped: ${error.message}`);
    });
    progress.update(i + 1);
    if (!found) continue;
    // With noise scores are lower throughout; the document halves its threshold.
    const answer = await noisy.detect(photo, { minScore: options.threshold / 2, keepRelease: true });
    const [cleanFaces = [], noisyFaces = []] = [found.draws[0], answer.draws[0]];
    const release = answer.release as NonNullable<typeof answer.release>;
    const pictures = await drawFaces(photo, cleanFaces, noisyFaces, release, bundle, reconstruction);
    const stem = join(options.out, names[i] as string);
    const files = {
      story: `${stem}${PICTURES.story}`,
      clean: `${stem}${PICTURES.clean}`,
      noisy: `${stem}${PICTURES.noisy}`,
      sent: `${stem}${PICTURES.sent}`,
    };
    const seen = pictures.reconstruction ?? pictures.tiles;
    await writeImage(files.clean, pictures.clean);
    await writeImage(files.noisy, pictures.noisy);
    await writeImage(files.sent, pictures.tiles);
    await writeImage(files.story, sideBySide([pictures.clean, seen, pictures.noisy]));
    const bytes = release.payload.length * 4;
    rows.push({
      photo,
      clean: cleanFaces.map(toJson),
      noisy: noisyFaces.map(toJson),
      bytesFp32: bytes,
      pictures: files,
    });
    table.push([
      basename(photo),
      String(cleanFaces.length),
      String(noisyFaces.length),
      formatBytes(bytes),
      files.story,
    ]);
  }
  progress.stop();
  if (options.json) {
    context.printJson({
      model: model.source,
      alpha: bundle.manifest.alpha,
      bundle: bundle.hash,
      photos: rows,
      unreadable,
    });
  } else printTable(context, model.name, bundle.manifest.alpha, options.threshold, table);
  if (unreadable.length > 0) {
    throw new ScrimError('INVALID_DATA', `${unreadable.length} of ${photos.length} photos could not be read`);
  }
}

/** Errors of a photo that say nothing about the next one. */
const SKIPPED: ReadonlySet<ScrimErrorCode> = new Set<ScrimErrorCode>(['INVALID_DATA', 'NOT_FOUND']);

function printTable(context: CommandContext, model: string, alpha: number, threshold: number, table: string[][]): void {
  context.print(`${model} at alpha ${alpha}, scores from ${threshold} (with noise ${threshold / 2})`);
  context.print(formatTable(['photo', 'faces clean', 'faces noisy', 'sent as FP32', 'picture'], table));
  context.print(
    'each picture: boxes on the clean path, a linear guess at the photo from what left, boxes on the noisy path',
  );
}

function toJson({ box, score }: Detection): { box: number[]; score: number } {
  return { box: [...box], score };
}

/** What a photo's pictures are called besides its own name. */
const PICTURES = { story: '.png', clean: '-clean.png', noisy: '-noisy.png', sent: '-sent.png' } as const;

/** Stems of the pictures: the photos' names, numbered where a picture would take the place of another one. */
function uniqueNames(photos: readonly string[]): string[] {
  const taken = new Set<string>();
  return photos.map((photo) => {
    const name = basename(photo, extname(photo));
    for (let count = 1; ; count++) {
      const stem = count === 1 ? name : `${name}-${count}`;
      const files = Object.values(PICTURES).map((suffix) => `${stem}${suffix}`.toLowerCase());
      if (files.some((file) => taken.has(file))) continue;
      for (const file of files) taken.add(file);
      return stem;
    }
  });
}
