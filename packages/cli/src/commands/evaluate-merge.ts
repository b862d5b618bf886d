/** `scrim evaluate merge`: the figures of an evaluation whose parts were counted by several processes or machines. */
import type { CommandContext } from '../context.js';
import { mergeParts } from '../evaluation-part.js';
import { openDataset, printEvaluation } from './evaluate.js';

interface EvaluateMergeOptions {
  readonly dataset: string;
  readonly allowMissing?: boolean;
  readonly json?: boolean;
}

/** Merges the parts that `paths` name and prints the block that a single run prints. */
export async function evaluateMerge(
  context: CommandContext,
  options: EvaluateMergeOptions,
  paths: readonly string[],
): Promise<void> {
  const dataset = await openDataset(context, options.dataset, options.allowMissing ?? false);
  const { settings, results, parts } = await mergeParts(paths, dataset);
  const seconds = Math.max(...parts.map((part) => part.seconds));
  printEvaluation(
    context,
    { repeats: settings.repeats, json: options.json === true },
    {
      results,
      images: dataset.images,
      seconds,
      conditions: `${parts.length} parts, ${seconds.toFixed(1)} s for the longest`,
      summary: {
        seconds,
        imagesPerSecond: dataset.images.found / seconds,
        parts: parts.map(({ shard, images, threads, engine, ...part }) => ({
          index: shard.index,
          images: images.found,
          seconds: part.seconds,
          threads,
          engine,
        })),
        noisy: settings.bundle !== null,
        model: settings.model,
        size: settings.size,
        ...(settings.bundle === null ? {} : { alpha: settings.alpha, bundle: settings.bundle }),
      },
    },
  );
}
