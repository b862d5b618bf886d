/**
 * The audit of bundles whose inputs are no photos: rows of tables, arrays, recordings. Attackers regress the input from
 * its release, tell attributes from it, and say which of the inputs it belongs to. Finished parts are kept as with photos.
 */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { type Bundle, ScrimError } from 'scrim';
import {
  type AttackHooks,
  type AttackResult,
  type AttackTarget,
  type AuditedBundle,
  type AuditReport,
  collectVectorData,
  openAttackTarget,
  type ReportedAttack,
  reportAttack,
  runAttributeAttack,
  runLinkageAttack,
  runVectorRegression,
  type VectorData,
  type VectorSample,
} from 'scrim/audit';
import { createNodeCrypto, createNodeEngine } from 'scrim/node';
import { openPartStore } from './audit-parts.js';
import {
  type AuditOptions,
  describeBundle,
  describeRun,
  finishAudit,
  nameBundles,
  parseAttacks,
  progressHooks,
  writeReport,
} from './audit-report.js';
import { parseCsv, readLabels, splitPhotos } from './audit-samples.js';
import type { CommandContext } from './context.js';
import { type InputShape, listInputFiles, readInputs } from './input-files.js';

/** Attacks on inputs that are no photos, in the order they run. */
const INPUT_ATTACKS = ['regression', 'attributes', 'linkage'] as const;
type InputAttack = (typeof INPUT_ATTACKS)[number];

/** Failures of one attack that leave the others possible. */
const CANNOT_RUN: ReadonlySet<string> = new Set(['INVALID_DATA', 'UNSUPPORTED', 'DIVERGED', 'INVALID_ARGUMENT']);
/** Most steps of a network that looks at releases. */
const NETWORK_STEPS = 2000;

/** Runs the audit of `scrim audit` on bundles that take plain inputs. */
export async function auditInputs(
  context: CommandContext,
  options: AuditOptions,
  bundles: readonly { readonly folder: string; readonly bundle: Bundle }[],
): Promise<void> {
  for (const flag of ['people', 'embedder', 'embedderSpec', 'canvases', 'ceilingSteps', 'workers'] as const) {
    if (options[flag] !== undefined) {
      const name = flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      throw new ScrimError('INVALID_ARGUMENT', `--${name} is for bundles that take photos`);
    }
  }
  const attacks = chooseAttacks(options);
  const engine = await createNodeEngine({
    executionProvider: options.provider,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  context.onClose(() => engine.close());
  const folders = bundles.map(({ folder }) => folder);
  const names = nameBundles(bundles);
  const audited: AuditedBundle[] = [];
  let report: AuditReport | undefined;
  for (const [i, { bundle }] of bundles.entries()) {
    const name = names[i] as string;
    context.remark(`${name}: ${attacks.join(', ')}`);
    const target = await openAttackTarget(bundle, engine);
    context.onClose(() => target.close());
    const samples = await readSamples(target, options);
    const outcome = await attackInputs(context, options, { name, bundle, target, samples, attacks });
    audited.push({ ...describeBundle(bundle, name), ...outcome });
    report = { ...describeRun(context, options, folders, engine), data: samples.description, bundles: [...audited] };
    await writeReport(options.out, report, new Map());
  }
  if (report) await finishAudit(context, options, report, folders);
}

function chooseAttacks({ attacks, labels }: AuditOptions): InputAttack[] {
  const asked = parseAttacks(attacks, INPUT_ATTACKS);
  if (asked?.includes('attributes') && labels === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', "the attack 'attributes' needs --labels");
  }
  return INPUT_ATTACKS.filter((attack) => asked?.includes(attack) ?? (attack !== 'attributes' || labels !== undefined));
}

interface Samples {
  readonly train: readonly VectorSample[];
  readonly test: readonly VectorSample[];
  readonly attributes: readonly string[];
  readonly description: string;
}

/** The rows of --data and --try, labelled and dealt. */
async function readSamples(target: AttackTarget, options: AuditOptions): Promise<Samples> {
  const type = target.head.declaredType(target.input);
  if (type?.dtype !== 'float32' || !type.shape) {
    throw new ScrimError('UNSUPPORTED', `the input '${target.input}' is ${type?.dtype ?? 'unknown'}, expected float32`);
  }
  const input = { name: target.input, shape: type.shape };
  const known = await readRows(options.data, input);
  const tried = options.try === undefined ? [] : await readRows(options.try, input);
  const all = [...known, ...tried];
  const seen = new Set<string>();
  const repeated = all.find(({ id }) => seen.size === seen.add(id).size);
  if (repeated) throw new ScrimError('INVALID_ARGUMENT', `two inputs are called '${repeated.id}': name files apart`);
  const labelled = options.labels === undefined ? all : await labelRows(all, options.labels);
  const own = labelled.slice(0, known.length);
  const { train, test } =
    options.try === undefined
      ? splitPhotos(own, options.tried, options.seed, 'inputs')
      : { train: own, test: labelled.slice(known.length) };
  const attributes = [...new Set(labelled.flatMap(({ attributes: values }) => Object.keys(values ?? {})))];
  const show = (paths: readonly string[]): string => paths.map((path) => basename(resolve(path))).join(' and ');
  const others = options.try ? `others of ${show(options.try)}` : 'others';
  const description = `${train.length} inputs of ${show(options.data)} to train on and ${test.length} ${others} to try`;
  return { train, test, attributes, description };
}

interface Row extends VectorSample {
  readonly path: string;
}

async function readRows(paths: readonly string[], input: InputShape): Promise<Row[]> {
  const rows: Row[] = [];
  for (const file of await listInputFiles(paths)) {
    const folder = basename(dirname(resolve(file)));
    for await (const { label, tensor } of readInputs([file], input)) {
      rows.push({ id: `${folder}/${label}`, path: join(dirname(file), label), input: tensor });
    }
  }
  return rows;
}

/** Labels by name of file (and row), or one line an input in the order they are read, as `scrim evaluate` takes them. */
async function labelRows(rows: readonly Row[], file: string): Promise<Row[]> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new ScrimError('NOT_FOUND', `the labels '${file}' can't be read`, { cause: error });
  });
  const [head = [], ...lines] = parseCsv(text);
  let labelled: Row[];
  if (head[0] === 'file') {
    const find = await readLabels(file);
    labelled = rows.map((row) => {
      const attributes = find(row.path);
      return attributes ? { ...row, attributes } : row;
    });
  } else {
    const wrong = lines.findIndex((line) => line.length !== head.length);
    if (lines.length !== rows.length || wrong >= 0) {
      throw new ScrimError(
        'INVALID_DATA',
        wrong >= 0
          ? `'${file}', line ${wrong + 2}: ${lines[wrong]?.length} fields, expected ${head.length}`
          : `'${file}' has ${lines.length} lines of labels for ${rows.length} inputs, expected a line for each, or a ` +
              "column 'file' that names them",
      );
    }
    labelled = rows.map((row, i) => ({
      ...row,
      attributes: Object.fromEntries(head.map((name, k) => [name, lines[i]?.[k] ?? ''])),
    }));
  }
  if (labelled.every(({ attributes }) => attributes === undefined)) {
    throw new ScrimError('INVALID_DATA', `'${file}' labels none of the inputs of --data and --try`);
  }
  return labelled;
}

interface InputAudit {
  readonly name: string;
  readonly bundle: Bundle;
  readonly target: AttackTarget;
  readonly samples: Samples;
  readonly attacks: readonly InputAttack[];
}

async function attackInputs(
  context: CommandContext,
  options: AuditOptions,
  { name, bundle, target, samples, attacks }: InputAudit,
): Promise<Pick<AuditedBundle, 'attacks' | 'notRun' | 'releasedValues'>> {
  const { seed } = options;
  const crypto = createNodeCrypto();
  const parts = openPartStore(join(options.out, 'parts'));
  const steps = Math.min(NETWORK_STEPS, options.steps);
  let collected: Promise<{ train: VectorData; test: VectorData }> | undefined;
  const collect = async () => ({
    train: await collectVectorData(target, samples.train),
    test: await collectVectorData(target, samples.test),
  });
  const data = () => {
    collected ??= collect();
    return collected;
  };
  const run: Record<InputAttack, (hooks: AttackHooks) => Promise<AttackResult[]>> = {
    regression: async (hooks) => [
      await runVectorRegression({ target, ...(await data()), crypto, seed }, { steps }, hooks),
    ],
    attributes: async (hooks) => {
      const { train, test } = await data();
      const records = [...train.records, ...test.records].map((record) => ({ ...record, picture: new Uint8Array(0) }));
      const results: AttackResult[] = [];
      for (const attribute of samples.attributes) {
        const input = { target, data: { shape: train.shape, records }, attribute, crypto, seed };
        results.push(await runAttributeAttack(input, { steps }, hooks));
      }
      return results;
    },
    linkage: async (hooks) => {
      const { shape, records } = (await data()).test;
      const pictured = records.map((record) => ({ ...record, picture: new Uint8Array(0) }));
      return [await runLinkageAttack({ target, data: { shape, records: pictured }, crypto, seed }, hooks)];
    },
  };
  const basis = {
    bundle: { version: context.version, files: bundle.manifest.files, provider: options.provider },
    train: samples.train.map(({ id, attributes }) => [id, attributes ?? {}]),
    test: samples.test.map(({ id, attributes }) => [id, attributes ?? {}]),
    steps,
    seed,
  };
  const found: ReportedAttack[] = [];
  const notRun: { attack: string; reason: string }[] = [];
  for (const attack of attacks) {
    context.signal.throwIfAborted();
    const hooks = progressHooks(context, `${name}, ${attack}`);
    try {
      const part = await parts.once(attack, basis, async () => {
        const started = performance.now();
        const results = await run[attack](hooks);
        const seconds = Math.round((performance.now() - started) / 1000);
        return { attacks: results.map((result) => reportAttack(result, seconds)), groups: [], models: new Map() };
      });
      found.push(...part.attacks);
    } catch (error) {
      if (!(error instanceof ScrimError) || !CANNOT_RUN.has(error.code)) throw error;
      context.remark(`${attack} is left out: ${error.message}`);
      notRun.push({ attack, reason: error.message });
    } finally {
      hooks.done();
    }
  }
  const { gain } = target.parameters;
  const size = (await data()).test.shape.reduce((product, side) => product * side, 1);
  const releasedValues = Math.round((size * gain.filter((value) => value !== 0).length) / gain.length);
  return { attacks: found, notRun, releasedValues };
}
