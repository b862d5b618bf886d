/** `scrim fit`: learn the noise for one alpha on unlabelled photos, write a bundle; Ctrl-C keeps a checkpoint. */
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { decodeSafetensors, encodeSafetensors, float32, ScrimError, type Tensor } from 'scrim';
import { createNodeEngine, type NodeEngineOptions, writeDirectory, writeFileAtomically } from 'scrim/node';
import type { DiagonalFitCheckpoint, FitTask } from 'scrim/noise';
import type { CommandContext } from '../context.js';
import { fitAlpha, prepareFit } from '../fit-bundle.js';
import { loadModelSource } from '../model-source.js';

interface FitOptions {
  readonly model: string;
  readonly alpha: number;
  readonly photos: readonly string[];
  readonly out: string;
  readonly cut?: string;
  readonly task?: string;
  readonly transform: 'diagonal-per-channel' | 'diagonal-per-element';
  readonly steps: number;
  readonly batch: number;
  readonly canvases: number;
  readonly learningRate: number;
  readonly seed: string;
  readonly noiseOnly?: boolean;
  readonly checkpoint?: string;
  readonly force?: boolean;
  readonly size: number;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

export async function fit(context: CommandContext, options: FitOptions): Promise<void> {
  if (existsSync(options.out) && !options.force) {
    throw new ScrimError('ALREADY_EXISTS', `'${options.out}' exists; --force replaces a bundle`);
  }
  const model = await loadModelSource(options.model);
  const cut = options.cut ?? model.cut;
  const task = options.task === undefined ? model.task : parseTask(options.task);
  if (cut === undefined || task === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', `'${options.model}' names no cut and task: give --cut and --task`);
  }
  const engine = await createNodeEngine({
    executionProvider: options.provider,
    thread: 'inline',
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  context.onClose(() => engine.close());
  context.remark(`fitting ${model.name} on ${engine.description}`);
  const checkpointFile = options.checkpoint ?? `${options.out.replace(/\/+$/, '')}.checkpoint`;
  const resume = existsSync(checkpointFile) ? await readCheckpoint(checkpointFile) : undefined;
  if (resume) context.remark(`going on from step ${resume.step} of '${checkpointFile}'`);
  const prepared = await prepareFit(context, engine, {
    model,
    cut,
    task,
    photos: options.photos,
    size: options.size,
    canvases: options.canvases,
    seed: options.seed,
    batchSize: options.batch,
    granularity: options.transform === 'diagonal-per-element' ? 'per-element' : 'per-channel',
  });
  const { files, fit: fitted } = await fitAlpha(context, prepared, {
    alpha: options.alpha,
    steps: options.steps,
    learningRate: options.learningRate,
    noiseOnly: options.noiseOnly ?? false,
    command: commandLine(options),
    onCheckpoint: async (checkpoint) => {
      await writeFileAtomically(checkpointFile, encodeCheckpoint(checkpoint));
      if (context.signal.aborted) {
        context.remark(`kept step ${checkpoint.step} in '${checkpointFile}': the same command goes on from there`);
      }
    },
    ...(resume ? { resume } : {}),
  });
  await writeDirectory(options.out, files, { replace: options.force ?? false });
  await rm(checkpointFile, { force: true });
  const suppressed = fitted.parameters.gain.filter((gain) => gain === 0).length;
  const result = {
    bundle: options.out,
    alpha: options.alpha,
    model: model.source,
    steps: options.steps,
    task: fitted.finalTask,
    nats: Math.round(fitted.nats),
    suppressed: `${suppressed} of ${fitted.parameters.gain.length}`,
    seconds: fitted.seconds,
    files: [...files.keys()],
  };
  if (options.json) return context.printJson(result);
  context.print(`${options.out}: ${model.name} at alpha ${options.alpha}`);
  context.print(`bound ${result.nats.toLocaleString('en')} nats per photo, task loss ${result.task.toFixed(3)}`);
  context.print(`${result.suppressed} features suppressed, ${result.steps} steps in ${result.seconds.toFixed(1)} s`);
}

function parseTask(text: string): FitTask {
  const [kind = '', names = ''] = text.split(':');
  const outputs = names.split(',').filter((name) => name !== '');
  const [first = '', second = ''] = outputs;
  if (kind === 'detection' && outputs.length === 2) return { kind, scores: first, boxes: second };
  if (kind === 'classification' && outputs.length === 1) return { kind, output: first };
  if (kind === 'regression' && outputs.length > 0) return { kind, outputs };
  throw new ScrimError(
    'INVALID_ARGUMENT',
    `--task is '${text}', expected detection:SCORES,BOXES, classification:OUTPUT or regression:OUTPUT,…`,
  );
}

/** The command to run again, with folders by name: a manifest carries no path of the machine that made it. */
function commandLine(options: FitOptions): string {
  const name = (path: string): string => basename(resolve(path));
  const model = options.model === 'faceboxes' ? options.model : name(options.model);
  return (
    `scrim fit --model ${model} --alpha ${options.alpha} --photos ${options.photos.map(name).join(' ')} ` +
    `--steps ${options.steps} --batch ${options.batch} --canvases ${options.canvases} --size ${options.size} ` +
    `--learning-rate ${options.learningRate} --transform ${options.transform} --seed ${options.seed}`
  );
}

function encodeCheckpoint(checkpoint: DiagonalFitCheckpoint): Uint8Array {
  const { arrays, ...rest } = checkpoint;
  const tensors = new Map<string, Tensor>(
    Object.entries(arrays).map(([name, array]) => [name, float32([array.length], array)]),
  );
  return encodeSafetensors({ tensors, metadata: { format: 'scrim-fit-checkpoint', state: JSON.stringify(rest) } });
}

async function readCheckpoint(path: string): Promise<DiagonalFitCheckpoint> {
  const { tensors, metadata } = decodeSafetensors(await readFile(path));
  if (metadata.format !== 'scrim-fit-checkpoint' || metadata.state === undefined) {
    throw new ScrimError('INVALID_DATA', `'${path}' is no checkpoint of a fit: remove it or name another --checkpoint`);
  }
  const arrays: Record<string, Float32Array> = {};
  for (const [name, value] of tensors) arrays[name] = value.data as Float32Array;
  return { ...(JSON.parse(metadata.state) as Omit<DiagonalFitCheckpoint, 'arrays'>), arrays };
}
