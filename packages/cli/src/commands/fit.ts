/**
 * `scrim fit`: learn the transform for one alpha on unlabelled photos, write a bundle; Ctrl-C keeps a checkpoint.
 */
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { decodeSafetensors, encodeSafetensors, float32, MANIFEST_PATH, ScrimError, type Tensor } from 'scrim';
import { createNodeEngine, type NodeEngineOptions, writeDirectory, writeFileAtomically } from 'scrim/node';
import {
  type BottleneckCheckpoint,
  completeBottleneckSettings,
  type DiagonalFitCheckpoint,
  type EncoderKind,
  type FitTask,
} from 'scrim/noise';
import type { CommandContext } from '../context.js';
import { fitAlpha, fitBottleneckAlpha, type PreparedFit, prepareFit } from '../fit-bundle.js';
import { loadModelSource } from '../model-source.js';

interface FitOptions {
  readonly model: string;
  readonly alpha: number;
  readonly photos?: readonly string[];
  readonly data?: readonly string[];
  readonly out: string;
  readonly cut?: string;
  readonly task?: string;
  readonly transform: 'diagonal-per-channel' | 'diagonal-per-element' | 'bottleneck';
  readonly encoder?: EncoderKind;
  readonly channels?: number;
  readonly adversary?: number;
  readonly steps?: number;
  readonly batch?: number;
  readonly canvases?: number;
  readonly learningRate?: number;
  readonly tailLearningRate?: number;
  readonly seed: string;
  readonly noiseOnly?: boolean;
  readonly checkpoint?: string;
  readonly workers?: number;
  readonly cache?: string;
  readonly force?: boolean;
  readonly size: number;
  readonly readAt?: number;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

export async function fit(context: CommandContext, options: FitOptions): Promise<void> {
  refuseTarget(options);
  if ((options.photos === undefined) === (options.data === undefined)) {
    throw new ScrimError('INVALID_ARGUMENT', 'give --photos for a detector, or --data for .npy, .csv and .wav inputs');
  }
  for (const name of ['workers', 'cache', 'readAt'] as const) {
    if (options.data !== undefined && options[name] !== undefined) {
      throw new ScrimError('INVALID_ARGUMENT', `${flagOf(name)} is for fits on --photos`);
    }
  }
  const model = await loadModelSource(options.model);
  const cut = options.cut ?? model.cut;
  const task = options.task === undefined ? model.task : parseTask(options.task);
  if (cut === undefined || task === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', `'${options.model}' names no cut and task: give --cut and --task`);
  }
  const engine = await createNodeEngine({
    executionProvider: options.provider,
    // On a GPU a thread of its own lets the next batch be assembled meanwhile; on the CPU both would share the cores.
    thread: options.provider === 'cpu' ? 'inline' : 'worker',
    buffers: 'exact',
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  context.onClose(() => engine.close());
  context.remark(`fitting ${model.name} on ${engine.description}`);
  const checkpointFile = options.checkpoint ?? `${options.out.replace(/\/+$/, '')}.checkpoint`;
  const { transform } = options;
  if (transform !== 'bottleneck') {
    for (const name of ['encoder', 'channels', 'adversary', 'tailLearningRate'] as const) {
      if (options[name] !== undefined) {
        throw new ScrimError('INVALID_ARGUMENT', `${flagOf(name)} is for --transform bottleneck, not for ${transform}`);
      }
    }
  }
  if (transform === 'diagonal-per-element' && (options.readAt ?? options.size) !== options.size) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--read-at is ${options.readAt}, expected ${options.size} as --size: noise per element is for one size`,
    );
  }
  const canvases = options.canvases ?? DEFAULTS[transform].canvases;
  const origin = {
    weights: model.sha256,
    cut,
    size: String(options.size),
    canvases: String(canvases),
    seed: options.seed,
    photos: foldersOf(options).join(' '),
  };
  const format = transform === 'bottleneck' ? 'scrim-bottleneck-checkpoint' : 'scrim-fit-checkpoint';
  // Read before the canvases are made: one that does not fit is told at once.
  const { resume, log } = await readCheckpoint(context, checkpointFile, format, origin);
  const keep: KeepCheckpoint = (step, groups, state) =>
    keepCheckpoint(context, checkpointFile, { format, origin }, step, groups, { ...state, log });
  const prepared = await prepareFit(context, engine, {
    model,
    modelSpec: options.model,
    cut,
    task,
    photos: options.photos ?? [],
    ...(options.data ? { data: options.data, batchSize: options.batch ?? DEFAULTS[transform].batch } : {}),
    size: options.size,
    ...(options.readAt === undefined ? {} : { readAt: options.readAt }),
    canvases,
    seed: options.seed,
    ...((options.adversary ?? 0) > 0 ? { adversaryPictures: ADVERSARY_PICTURE } : {}),
    ...(options.workers === undefined ? {} : { workers: options.workers }),
    ...(options.cache === undefined ? {} : { cache: options.cache }),
  });
  const run = { context, options, prepared, keep, resume, log };
  const {
    files,
    nats,
    fit: fitted,
    details,
  } = await (transform === 'bottleneck' ? bottleneck(run) : diagonal(run, transform));
  await writeDirectory(options.out, files, { replace: options.force ?? false });
  await rm(checkpointFile, { force: true });
  const result = {
    bundle: options.out,
    alpha: options.alpha,
    transform,
    model: model.source,
    task: fitted.finalTask,
    nats: Math.round(nats),
    seconds: fitted.seconds,
    ...details,
    files: [...files.keys()],
  };
  if (options.json) return context.printJson(result);
  context.print(`${options.out}: ${model.name} at alpha ${options.alpha}, ${transform}`);
  context.print(
    `bound ${result.nats.toLocaleString('en')} nats per ${options.data ? 'input' : 'photo'}, task loss ${result.task.toFixed(3)}`,
  );
  context.print(`${fitted.released}, ${details.steps} steps in ${result.seconds.toFixed(1)} s`);
}

/** Side of the pictures an adversary rebuilds, in pixels. */
const ADVERSARY_PICTURE = 128;

const DIAGONAL = { steps: 600, batch: 8, canvases: 384, learningRate: 0.05 };
const DEFAULTS = {
  'diagonal-per-channel': DIAGONAL,
  'diagonal-per-element': DIAGONAL,
  bottleneck: { steps: 3200, batch: 16, canvases: 2000, learningRate: 0.002 },
} as const;

/** Share of a bottleneck's steps that are its push; the rest recovers accuracy. */
const PUSH_SHARE = 2200 / 3200;

interface Run {
  readonly context: CommandContext;
  readonly options: FitOptions;
  readonly prepared: PreparedFit;
  readonly keep: KeepCheckpoint;
  /** The checkpoint of the transform's own fitter, which checks its arrays and settings. */
  readonly resume: object | undefined;
  /** Lines of the fit's log so far; the fit adds its own. */
  readonly log: string[];
}

/** Keeps step `step` of a fit: its arrays by group, and what else its state is made of. */
type KeepCheckpoint = (step: number, groups: ArrayGroups, state: object) => Promise<void>;

interface Fitted {
  readonly files: Map<string, Uint8Array>;
  /** Bound on what one release tells where the bundle is used. */
  readonly nats: number;
  readonly fit: {
    readonly finalTask: number;
    readonly seconds: number;
    readonly released: string;
  };
  readonly details: { readonly steps: number } & Readonly<Record<string, unknown>>;
}

async function diagonal(
  { context, options, prepared, keep, resume, log }: Run,
  transform: 'diagonal-per-channel' | 'diagonal-per-element',
): Promise<Fitted> {
  const steps = options.steps ?? DIAGONAL.steps;
  const {
    files,
    nats,
    fit: fitted,
  } = await fitAlpha(context, prepared, {
    alpha: options.alpha,
    granularity: transform === 'diagonal-per-element' ? 'per-element' : 'per-channel',
    steps,
    batchSize: options.batch ?? DIAGONAL.batch,
    learningRate: options.learningRate ?? DIAGONAL.learningRate,
    noiseOnly: options.noiseOnly ?? false,
    command: `${commandLine(options)}${flagsOfBundle(options)}`,
    log,
    onCheckpoint: async (checkpoint) => {
      const { arrays, ...state } = checkpoint;
      await keep(checkpoint.step, { arrays }, state);
    },
    ...(resume ? { resume: resume as DiagonalFitCheckpoint } : {}),
  });
  const { gain } = fitted.parameters;
  const suppressed = `${gain.filter((value) => value === 0).length} of ${gain.length}`;
  return {
    files,
    nats,
    fit: { ...fitted, released: `${suppressed} features suppressed` },
    details: { steps, suppressed },
  };
}

async function bottleneck({ context, options, prepared, keep, resume, log }: Run): Promise<Fitted> {
  const steps = options.steps ?? DEFAULTS.bottleneck.steps;
  const pushSteps = Math.max(1, Math.round(steps * PUSH_SHARE));
  const settings = completeBottleneckSettings({
    alpha: options.alpha,
    pushSteps,
    recoverSteps: Math.max(1, steps - pushSteps),
    ...(options.encoder === undefined ? {} : { encoder: options.encoder }),
    ...(options.channels === undefined ? {} : { channels: options.channels }),
    ...(options.batch === undefined ? {} : { batchSize: options.batch }),
    ...(options.learningRate === undefined ? {} : { learningRate: options.learningRate }),
    ...(options.tailLearningRate === undefined ? {} : { tailLearningRate: options.tailLearningRate }),
    ...(options.adversary === undefined ? {} : { adversary: options.adversary }),
  });
  const {
    files,
    nats,
    fit: fitted,
  } = await fitBottleneckAlpha(context, prepared, {
    settings,
    noiseOnly: options.noiseOnly ?? false,
    command: `${commandLine(options)}${flagsOfBundle(options)}`,
    log,
    onCheckpoint: async ({ trainer, start, ...state }) => {
      const { step, ...moments } = trainer;
      const done = step + (state.phase === 'push' ? 0 : pushSteps);
      await keep(done, { trainer: moments, start }, { ...state, trainer: { step } });
    },
    ...(resume ? { resume: resume as BottleneckCheckpoint } : {}),
  });
  const { channels, encoder } = settings;
  const released = `${channels} channels released by a ${encoder} encoder`;
  return { files, nats, fit: { ...fitted, released }, details: { steps, channels, encoder } };
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

/** An option as it is typed. */
function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** What is fitted on, by name. */
function foldersOf({ photos, data }: FitOptions): string[] {
  return (photos ?? data ?? []).map((path) => basename(resolve(path)));
}

/** What changes neither data nor settings of a fit: it may go on with other ones. */
function flagsOfBundle({ provider, noiseOnly, readAt }: FitOptions): string {
  return (
    (readAt === undefined ? '' : ` --read-at ${readAt}`) +
    (provider === 'cpu' ? '' : ` --provider ${provider}`) +
    (noiseOnly ? ' --noise-only' : '')
  );
}

/** The command to run again, with folders by name: a manifest carries no path of the machine that made it. */
function commandLine(options: FitOptions): string {
  const model = options.model === 'faceboxes' ? options.model : basename(resolve(options.model));
  const defaults = DEFAULTS[options.transform];
  const folders = foldersOf(options).join(' ');
  const given = options.data ? `--cut ${options.cut} --task ${options.task} --data ${folders}` : `--photos ${folders}`;
  const shape =
    options.transform === 'bottleneck'
      ? `--encoder ${options.encoder ?? 'deep'} --channels ${options.channels ?? 8} ` +
        (options.adversary === undefined ? '' : `--adversary ${options.adversary} `) +
        (options.tailLearningRate === undefined ? '' : `--tail-learning-rate ${options.tailLearningRate} `)
      : '';
  return (
    `scrim fit --model ${model} --alpha ${options.alpha} ${given} ` +
    `--transform ${options.transform} ${shape}--steps ${options.steps ?? defaults.steps} ` +
    `--batch ${options.batch ?? defaults.batch} --canvases ${options.canvases ?? defaults.canvases} ` +
    `--size ${options.size} --learning-rate ${options.learningRate ?? defaults.learningRate} --seed ${options.seed}`
  );
}

/** Groups of arrays by the field of the checkpoint they belong to; a tensor is named 'field/name'. */
type ArrayGroups = Readonly<Record<string, Readonly<Record<string, Float32Array>>>>;

/** What a fit must share with one to go on from it, besides the settings that its fitter compares. */
interface CheckpointHeader {
  readonly format: string;
  readonly origin: Readonly<Record<string, string>>;
}

async function keepCheckpoint(
  context: CommandContext,
  file: string,
  { format, origin }: CheckpointHeader,
  step: number,
  groups: ArrayGroups,
  state: object,
): Promise<void> {
  const tensors = new Map<string, Tensor>();
  for (const [group, arrays] of Object.entries(groups)) {
    for (const [name, array] of Object.entries(arrays)) {
      tensors.set(`${group}/${name}`, float32([array.length], array));
    }
  }
  const metadata = { format, ...prefixed(origin), state: JSON.stringify(state) };
  await writeFileAtomically(file, encodeSafetensors({ tensors, metadata }));
  if (context.signal.aborted) {
    context.remark(`kept step ${step} in '${file}': the same command goes on from there`);
  }
}

function prefixed(origin: CheckpointHeader['origin']): Record<string, string> {
  return Object.fromEntries(Object.entries(origin).map(([name, value]) => [`origin.${name}`, value]));
}

async function readCheckpoint(
  context: CommandContext,
  path: string,
  format: string,
  origin: CheckpointHeader['origin'],
): Promise<{ readonly resume?: object; readonly log: string[] }> {
  if (!existsSync(path)) return { log: [] };
  const { tensors, metadata } = decodeSafetensors(await readFile(path));
  const remedy = 'remove it or name another --checkpoint';
  if (metadata.format !== format || metadata.state === undefined) {
    throw new ScrimError('INVALID_DATA', `'${path}' is no checkpoint of such a fit: ${remedy}`);
  }
  for (const [name, wanted] of Object.entries(origin)) {
    const found = metadata[`origin.${name}`];
    if (found !== wanted) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `the checkpoint '${path}' was made with ${name} ${found}, this fit has ${wanted}: ${remedy}`,
      );
    }
  }
  const { log = [], ...state } = JSON.parse(metadata.state) as Record<string, Record<string, unknown>> & {
    log?: string[];
  };
  for (const [key, value] of tensors) {
    const slash = key.indexOf('/');
    const group = key.slice(0, slash);
    state[group] = { ...state[group], [key.slice(slash + 1)]: value.data };
  }
  context.remark(`going on from '${path}'`);
  return { resume: state, log };
}

/** Minutes of fitting are not spent on a bundle that can't be put where it was asked for. */
function refuseTarget({ out, force = false }: FitOptions): void {
  if (!existsSync(out)) return;
  if (!force) throw new ScrimError('ALREADY_EXISTS', `'${out}' exists; --force replaces a bundle`);
  if (!existsSync(join(out, MANIFEST_PATH))) {
    throw new ScrimError('ALREADY_EXISTS', `'${out}' exists and holds no ${MANIFEST_PATH}: it is not replaced`);
  }
}
