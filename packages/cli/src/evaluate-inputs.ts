/**
 * How well a model answers plain inputs through a bundle: against the clean model, and against right answers where there
 * are any. Classifiers are judged by the class they decide for, everything else by the share of variance explained (R²).
 */
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import {
  type Bundle,
  createLocalTail,
  createTrustedHalf,
  expectType,
  type LocalTail,
  ScrimError,
  type Tensor,
  type TrustedHalf,
} from 'scrim';
import { mean, standardDeviation } from 'scrim/metrics';
import { createNodeCrypto, createNodeEngine, type NodeEngineOptions } from 'scrim/node';
import { type ClassOutput, classOutputOf, decideClasses } from 'scrim/noise';
import { openFor } from './bundle-store.js';
import type { CommandContext } from './context.js';
import { singleInput } from './fit-inputs.js';
import { listInputFiles, parseTable, readInputs } from './input-files.js';
import { loadModelSource } from './model-source.js';
import { decodeNpy } from './npy.js';

/** Flags of `scrim evaluate --data`. */
export interface EvaluateInputsOptions {
  readonly data: readonly string[];
  readonly labels?: string;
  readonly model: string;
  readonly bundle?: string;
  readonly repeats: number;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

/** Answers of one kind to all inputs, by output. */
type Answers = Map<string, Float32Array[]>;

/** Runs the clean model and, `repeats` times with fresh noise, the two halves of the bundle. */
export async function evaluateInputs(context: CommandContext, options: EvaluateInputsOptions): Promise<void> {
  if (options.bundle === undefined) throw new ScrimError('INVALID_ARGUMENT', '--data needs --bundle');
  const model = await loadModelSource(options.model);
  const bundle = await openFor(options.bundle, model);
  const { task } = bundle.manifest;
  if (task.kind === 'detection') {
    throw new ScrimError('UNSUPPORTED', `'${model.name}' was fitted as a detector: evaluate it with --dataset`);
  }
  const input = singleInput(model);
  const files = await listInputFiles(options.data);
  const engine = await createNodeEngine({
    executionProvider: options.provider,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  context.onClose(() => engine.close());
  const clean = await engine.load(model.graph.encode());
  const trusted = await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() });
  context.onClose(() => trusted.close());
  const tail = await createLocalTail({ bundle, engine });
  const outputs = task.kind === 'classification' ? [task.output] : task.outputs;
  const cleanAnswers = emptyAnswers(outputs);
  const draws = Array.from({ length: options.repeats }, () => emptyAnswers(outputs));
  let classes = 1;
  let nats = 0;
  const progress = context.progress('evaluate', files.length);
  for (const [i, file] of files.entries()) {
    for await (const { tensor } of readInputs([file], input)) {
      context.signal.throwIfAborted();
      const answer = await clean.run({ [input.name]: tensor }, { fetches: outputs });
      keep(cleanAnswers, answer);
      classes = answer[outputs[0] ?? '']?.shape.at(-1) ?? 1;
      nats = await answerNoisy(bundle, trusted, tail, tensor, draws);
    }
    progress.update(i + 1);
  }
  progress.stop();
  const count = cleanAnswers.get(outputs[0] ?? '')?.length ?? 0;
  const labels = options.labels === undefined ? undefined : await readLabels(options.labels, count);
  const judged = { clean: cleanAnswers, draws, labels, classes };
  const result = {
    model: model.source,
    bundle: bundle.hash,
    alpha: bundle.manifest.alpha,
    task: task.kind,
    inputs: count,
    repeats: options.repeats,
    nats,
    ...(task.kind === 'classification' ? judgeClasses(task.output, judged) : judgeValues(task.outputs, judged)),
  };
  if (options.json) return context.printJson(result);
  context.print(`${model.name} at alpha ${result.alpha}: ${count} inputs, ${options.repeats} draws of noise`);
  for (const [name, figure] of Object.entries(result)) {
    if (typeof figure !== 'object' || figure === null) continue;
    const { mean: centre, sd } = figure as Figure;
    context.print(`${name}: ${centre.toFixed(4)}${sd > 0 ? ` ± ${sd.toFixed(4)}` : ''}`);
  }
  context.print(`bound ${Math.round(nats).toLocaleString('en')} nats per input`);
}

interface Figure {
  readonly mean: number;
  readonly sd: number;
}

function emptyAnswers(outputs: readonly string[]): Answers {
  return new Map(outputs.map((name) => [name, []]));
}

function keep(answers: Answers, outputs: Readonly<Record<string, Tensor>>): void {
  for (const [name, list] of answers) {
    list.push(expectType(outputs[name] as Tensor, 'float32', `output '${name}'`).data.slice());
  }
}

/** @returns the bound of one release in nats */
async function answerNoisy(
  bundle: Bundle,
  trusted: TrustedHalf,
  tail: LocalTail,
  tensor: Tensor,
  draws: readonly Answers[],
): Promise<number> {
  const releases = await trusted.releaseMany(tensor, draws.length);
  for (const [i, release] of releases.entries()) keep(draws[i] as Answers, await tail.run(release));
  const [, , height = 1, width = 1] = releases[0]?.shape ?? [];
  return bundle.manifest.transform.natsPerPosition * height * width;
}

interface Judged {
  readonly clean: Answers;
  readonly draws: readonly Answers[];
  readonly labels: readonly Float32Array[] | undefined;
  readonly classes: number;
}

function judgeClasses(output: string, { clean, draws, labels, classes }: Judged): Record<string, Figure> {
  const answers = clean.get(output) ?? [];
  const kind: ClassOutput = classOutputOf(answers, classes);
  const decide = (list: readonly Float32Array[]): number[][] => list.map((each) => decideClasses(each, classes, kind));
  const teacher = decide(answers);
  const noisy = draws.map((draw) => decide(draw.get(output) ?? []));
  const agreement = figure(noisy.map((draw) => share(draw, teacher)));
  if (!labels) return { agreement };
  const right = labels.map((label) => Array.from(label));
  const wrong = right.findIndex((label, i) => label.length !== teacher[i]?.length);
  if (wrong >= 0) {
    throw new ScrimError(
      'INVALID_DATA',
      `the label of input ${wrong + 1} has ${right[wrong]?.length} numbers, the model decides ${teacher[wrong]?.length}`,
    );
  }
  return {
    accuracy: figure(noisy.map((draw) => share(draw, right))),
    agreement,
    'accuracy of the clean model': figure([share(teacher, right)]),
  };
}

/** Share of decisions that are the same. */
function share(found: readonly (readonly number[])[], expected: readonly (readonly number[])[]): number {
  let [same, all] = [0, 0];
  found.forEach((decided, i) => {
    decided.forEach((each, j) => {
      if (each === expected[i]?.[j]) same++;
      all++;
    });
  });
  return same / Math.max(1, all);
}

function judgeValues(outputs: readonly string[], { clean, draws, labels }: Judged): Record<string, Figure> {
  const result: Record<string, Figure> = {};
  for (const name of outputs) {
    const teacher = clean.get(name) ?? [];
    const title = outputs.length === 1 ? '' : ` of ${name}`;
    result[`R² against the clean model${title}`] = figure(
      draws.map((draw) => explained(draw.get(name) ?? [], teacher)),
    );
    if (!labels || outputs.length > 1) continue;
    result['R² against the labels'] = figure(draws.map((draw) => explained(draw.get(name) ?? [], labels)));
    result['R² of the clean model against the labels'] = figure([explained(teacher, labels)]);
  }
  return result;
}

/** 1 − Σ(found − expected)² / Σ(expected − its mean)². */
function explained(found: readonly Float32Array[], expected: readonly Float32Array[]): number {
  const all = expected.flatMap((values) => Array.from(values));
  const centre = mean(all);
  let errors = 0;
  found.forEach((values, i) => {
    values.forEach((value, j) => {
      errors += (value - (expected[i]?.[j] ?? Number.NaN)) ** 2;
    });
  });
  return 1 - errors / all.reduce((sum, value) => sum + (value - centre) ** 2, 0);
}

function figure(values: readonly number[]): Figure {
  return { mean: mean(values), sd: values.length > 1 ? standardDeviation(values) : 0 };
}

/** One line for each input. @throws ScrimError INVALID_DATA if there are more or fewer */
async function readLabels(file: string, count: number): Promise<Float32Array[]> {
  const bytes = await readFile(file).catch((error: unknown) => {
    throw new ScrimError('NOT_FOUND', `'${file}' can't be read`, { cause: error });
  });
  let rows: Float32Array[];
  if (extname(file).toLowerCase() === '.npy') {
    const { shape, data } = decodeNpy(bytes);
    const size = data.length / (shape[0] ?? 1);
    rows = Array.from({ length: shape[0] ?? 1 }, (_, i) => data.slice(i * size, (i + 1) * size));
  } else {
    rows = parseTable(new TextDecoder().decode(bytes)).rows;
  }
  if (rows.length !== count) {
    throw new ScrimError('INVALID_DATA', `'${file}' has ${rows.length} labels for ${count} inputs`);
  }
  return rows;
}
