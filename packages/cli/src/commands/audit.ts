/**
 * `scrim audit`: attackers trained and tried on bundles, and a report of what they got as HTML and JSON. Every finished
 * part is kept in the report's folder, so that an interrupted audit goes on where it stopped.
 */
import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { type Bundle, type Engine, type MeasuredFigure, type ProvenFigure, ScrimError } from 'scrim';
import {
  type AttackData,
  type AuditedBundle,
  type AuditReport,
  encodeAuditReport,
  openAttackTarget,
  recordableFigures,
} from 'scrim/audit';
import {
  createNodeCrypto,
  createNodeEngine,
  type NodeEngineOptions,
  openBundle,
  recordResults,
  writeFileAtomically,
} from 'scrim/node';
import {
  createFaceEmbedder,
  FACE_API_SPEC,
  type FaceEmbedder,
  type FaceEmbedderSpec,
  faceEmbedderFromFaceApi,
} from 'scrim/vision';
import { type PagePicture, renderAuditPage } from '../audit-page.js';
import { openPartStore, type PictureGroup } from '../audit-parts.js';
import { AUDIT_ATTACKS, type AuditAttack, runBundleAudit } from '../audit-run.js';
import {
  type AuditPhoto,
  createSampleCollector,
  findPeople,
  findPhotos,
  readLabels,
  splitPhotos,
} from '../audit-samples.js';
import { openFor } from '../bundle-store.js';
import type { CommandContext } from '../context.js';
import { loadModelSource, packageFolder } from '../model-source.js';
import { shipDecoder } from '../ship-decoder.js';
import { formatTable } from '../table.js';
import { CLEAN_AP, NOISY_AP } from './sweep.js';

interface AuditOptions {
  readonly data: readonly string[];
  readonly people?: string;
  readonly labels?: string;
  readonly attacks?: string;
  readonly model: string;
  readonly steps: number;
  readonly tried: number;
  readonly capacity: number;
  readonly size: number;
  readonly pictureSide: number;
  readonly seed: string;
  readonly embedder?: string;
  readonly embedderSpec?: string;
  readonly out: string;
  readonly record?: boolean;
  readonly shipDecoder?: boolean;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

const FACE_API = '@vladmandic/face-api';
const FACE_API_VERSION = '1.7.15';

export async function audit(context: CommandContext, options: AuditOptions, folders: readonly string[]): Promise<void> {
  const photos = await findPhotos(options.data);
  const people = options.people === undefined ? [] : await findPeople(options.people);
  const { labelled, attributes } = await label([...photos, ...people], options.labels);
  const { train, test } = splitPhotos(labelled.slice(0, photos.length), options.tried, options.seed);
  const attacks = chooseAttacks(options, attributes);
  const bundles: { folder: string; bundle: Bundle }[] = [];
  for (const folder of folders) bundles.push({ folder, bundle: await openComplete(folder, options.model) });

  const engine = await createNodeEngine({
    executionProvider: options.provider,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  context.onClose(() => engine.close());
  let embedder: FaceEmbedder | undefined;
  const loadEmbedder = async (): Promise<FaceEmbedder> => {
    embedder ??= await openEmbedder(engine, options);
    return embedder;
  };
  // Who lacks the network should learn it now, not after hours of training.
  if (attacks.some((attack) => attack === 'right-face' || attack === 're-identification')) await loadEmbedder();

  const names = nameBundles(bundles);
  const audited: AuditedBundle[] = [];
  const pictures = new Map<string, readonly PictureGroup[]>();
  let kept: { readonly head: string; readonly train: AttackData; readonly test: AttackData } | undefined;
  const conditions = describe(context, options, folders, engine, { train, test, people });
  for (const [i, { folder, bundle }] of bundles.entries()) {
    const { manifest } = bundle;
    const name = names[i] as string;
    context.remark(`${name}: ${attacks.join(', ')}`);
    const { detector } = manifest.model;
    if (!detector) {
      throw new ScrimError(
        'UNSUPPORTED',
        `bundle '${folder}' does not say how pictures become inputs: audit it with the library (scrim/audit)`,
      );
    }
    const target = await openAttackTarget(bundle, engine);
    const collector = await createSampleCollector(target, {
      detector,
      outputs: new Map(manifest.remote.outputs.map(({ model, remote }) => [model, remote])),
      size: options.size,
      pictureSide: options.pictureSide,
      signal: context.signal,
      onUnreadable: (path) => context.remark(`skipped '${path}': it can't be read as a photo`),
    });
    try {
      const outcome = await runBundleAudit({
        target,
        collector,
        detector,
        identity: {
          version: context.version,
          files: manifest.files,
          alpha: manifest.alpha,
          provider: options.provider,
        },
        train,
        test,
        people: labelled.slice(photos.length),
        attributes,
        attacks,
        steps: options.steps,
        capacity: options.capacity,
        size: options.size,
        pictureSide: options.pictureSide,
        seed: options.seed,
        signal: context.signal,
        parts: openPartStore(join(options.out, 'parts')),
        embedder: loadEmbedder,
        hooks: (attack) => progressHooks(context, `${name}, ${attack}`),
        remark: (text) => context.remark(text),
      });
      const { groups, ...found } = outcome;
      audited.push({ ...describeBundle(bundle, name), ...found });
      pictures.set(name, groups);
      if (options.shipDecoder) {
        // Bundles of one head see the same activations; they are made once.
        const head = manifest.files['trusted/head.onnx'] ?? folder;
        if (kept?.head !== head) {
          const hooks = progressHooks(context, `${name}, photos for the decoder`);
          const collect = (list: readonly AuditPhoto[], what: string): Promise<AttackData> =>
            collector.collect(list, (done) => hooks.onProgress({ attack: what, done, of: list.length }));
          kept = { head, train: await collect(train, 'to train on'), test: await collect(test, 'to try') };
          hooks.done();
        }
        const { machine, command } = conditions;
        const hooks = progressHooks(context, `${name}, shipped decoder`);
        const shipped = await shipDecoder(
          {
            folder,
            target,
            engine,
            train: kept.train,
            test: kept.test,
            crypto: createNodeCrypto(),
            steps: options.steps,
            seed: options.seed,
            conditions: { machine, command },
          },
          hooks,
        ).finally(hooks.done);
        context.remark(
          `${name}: a decoder of ${shipped.bytes} bytes is in the bundle, SSIM ${shipped.ssim.toFixed(3)}`,
        );
      }
    } finally {
      await collector.close();
      await target.close();
    }
    await writeReport(options.out, { ...conditions, bundles: audited }, pictures);
  }
  const report: AuditReport = { ...conditions, bundles: audited };
  if (options.record) await record(context, report, folders);
  if (options.json) {
    context.print(encodeAuditReport(report).trimEnd());
    return;
  }
  context.print(summary(audited));
  context.print(`${join(options.out, 'index.html')} and ${join(options.out, 'report.json')}`);
}

/** A bundle with its models; a noise-only one is completed from `model`. */
async function openComplete(folder: string, model: string): Promise<Bundle> {
  const bundle = await openBundle(folder);
  return bundle.complete ? bundle : openFor(folder, await loadModelSource(model));
}

function chooseAttacks(options: AuditOptions, attributes: readonly string[]): AuditAttack[] {
  if (options.attacks === 'none' && options.shipDecoder) return [];
  const asked = options.attacks?.split(',').map((name) => name.trim());
  const unknown = asked?.find((name) => !AUDIT_ATTACKS.includes(name as AuditAttack));
  if (unknown !== undefined) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--attacks names '${unknown}', expected some of ${AUDIT_ATTACKS.join(', ')}`,
    );
  }
  const needs = (attack: AuditAttack): string | undefined => {
    if ((attack === 're-identification' || attack === 'identity') && options.people === undefined) return '--people';
    if (attack === 'attributes' && attributes.length === 0) return '--labels';
    return undefined;
  };
  for (const name of asked ?? []) {
    const missing = needs(name as AuditAttack);
    if (missing) throw new ScrimError('INVALID_ARGUMENT', `the attack '${name}' needs ${missing}`);
  }
  return AUDIT_ATTACKS.filter((attack) => (asked ? asked.includes(attack) : needs(attack) === undefined));
}

async function label(
  photos: readonly AuditPhoto[],
  file: string | undefined,
): Promise<{ labelled: AuditPhoto[]; attributes: string[] }> {
  if (file === undefined) return { labelled: [...photos], attributes: [] };
  const find = await readLabels(file);
  const labelled = photos.map((photo) => {
    const attributes = find(photo.path);
    return attributes ? { ...photo, attributes } : photo;
  });
  const attributes = [...new Set(labelled.flatMap(({ attributes: own }) => Object.keys(own ?? {})))];
  if (attributes.length === 0) {
    throw new ScrimError('INVALID_DATA', `'${file}' labels none of the photos of --data and --people`);
  }
  return { labelled, attributes };
}

/**
 * The face recognition network: a file that is named, or that of face-api.
 * @throws ScrimError NOT_FOUND saying what to install
 */
async function openEmbedder(engine: Engine, options: AuditOptions): Promise<FaceEmbedder> {
  if (options.embedder !== undefined) {
    const model = await readFile(options.embedder).catch((error: unknown) => {
      throw new ScrimError('NOT_FOUND', `the embedder '${options.embedder}' can't be read`, { cause: error });
    });
    return createFaceEmbedder(engine, model, parseSpec(options));
  }
  try {
    const folder = join(packageFolder(FACE_API), 'model');
    const manifest = await readFile(join(folder, 'face_recognition_model-weights_manifest.json'), 'utf8');
    const graph = faceEmbedderFromFaceApi(manifest, await readFile(join(folder, 'face_recognition_model.bin')));
    return await createFaceEmbedder(engine, graph.encode());
  } catch (error) {
    if (error instanceof ScrimError) throw error;
    throw new ScrimError(
      'NOT_FOUND',
      `comparing faces needs the weights of ${FACE_API}: 'npm install ${FACE_API}@${FACE_API_VERSION}', name another ` +
        'network with --embedder, or leave right-face and re-identification out of --attacks',
      { cause: error },
    );
  }
}

/** The fields of `--embedder-spec` over those of face-api's network. */
function parseSpec({ embedder = '', embedderSpec = '{}' }: AuditOptions): FaceEmbedderSpec {
  let given: Partial<FaceEmbedderSpec>;
  try {
    given = JSON.parse(embedderSpec) as Partial<FaceEmbedderSpec>;
  } catch (error) {
    throw new ScrimError('INVALID_ARGUMENT', '--embedder-spec is no JSON', { cause: error });
  }
  const known = Object.keys(FACE_API_SPEC);
  const unknown = Object.keys(given).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', `--embedder-spec has '${unknown}', expected some of ${known.join(', ')}`);
  }
  const preprocessing = { ...FACE_API_SPEC.preprocessing, ...given.preprocessing };
  return { ...FACE_API_SPEC, similarity: 'cosine', name: basename(embedder), ...given, preprocessing };
}

function describeBundle(
  { manifest, hash }: Bundle,
  name: string,
): Omit<AuditedBundle, 'attacks' | 'notRun' | 'releasedValues'> {
  const figure = (wanted: string): MeasuredFigure | undefined =>
    manifest.results.find((item): item is MeasuredFigure => item.kind === 'measured' && item.name === wanted);
  return {
    name,
    hash,
    model: manifest.model.name,
    transform: transformOf(manifest),
    alpha: manifest.alpha,
    accuracy: figure(NOISY_AP),
    cleanAccuracy: figure(CLEAN_AP),
    proven: manifest.results.filter((item): item is ProvenFigure => item.kind === 'proven'),
  };
}

function transformOf(manifest: Bundle['manifest']): string {
  return 'bottleneck' in manifest && manifest.bottleneck ? 'bottleneck' : manifest.transform.kind;
}

function nameBundles(bundles: readonly { folder: string; bundle: Bundle }[]): string[] {
  const names = bundles.map(({ bundle: { manifest } }) => `${transformOf(manifest)} α ${manifest.alpha}`);
  return names.map((name, i) =>
    names.filter((other) => other === name).length > 1
      ? `${name} (${basename(resolve(bundles[i]?.folder ?? ''))})`
      : name,
  );
}

function describe(
  context: CommandContext,
  options: AuditOptions,
  folders: readonly string[],
  engine: Engine,
  { train, test, people }: Record<'train' | 'test' | 'people', readonly AuditPhoto[]>,
): Omit<AuditReport, 'bundles'> {
  const name = (path: string): string => basename(resolve(path));
  const flags = [
    `--data ${options.data.map(name).join(' ')}`,
    ...(options.people === undefined ? [] : [`--people ${name(options.people)}`]),
    ...(options.labels === undefined ? [] : [`--labels ${name(options.labels)}`]),
    ...(options.attacks === undefined ? [] : [`--attacks ${options.attacks}`]),
    `--steps ${options.steps} --tried ${options.tried} --size ${options.size} --seed ${options.seed}`,
    ...(options.pictureSide === 256 ? [] : [`--picture-side ${options.pictureSide}`]),
    ...(options.capacity === 1 ? [] : [`--capacity ${options.capacity}`]),
    ...(options.shipDecoder ? ['--ship-decoder'] : []),
    ...(options.provider === 'cpu' ? [] : [`--provider ${options.provider}`]),
  ];
  const persons = new Set(people.map(({ person }) => person)).size;
  return {
    createdAt: new Date().toISOString(),
    createdBy: `scrim ${context.version}`,
    command: `scrim audit ${folders.map(name).join(' ')} ${flags.join(' ')}`,
    machine: `${cpus()[0]?.model ?? 'unknown CPU'}, ${cpus().length} cores, ${engine.description}`,
    data:
      `${train.length} photos of ${options.data.map(name).join(' and ')} to train on and ${test.length} others to try, ` +
      `${people.length > 0 ? `${people.length} photos of ${persons} other people, ` : ''}${options.size}×${options.size}`,
  };
}

/** One bar for each thing that is under way. */
function progressHooks(
  context: CommandContext,
  name: string,
): {
  onProgress: (progress: { attack: string; done: number; of: number; loss?: number }) => void;
  signal: AbortSignal;
  done: () => void;
} {
  let current: { label: string; bar: ReturnType<CommandContext['progress']> } | undefined;
  const done = (): void => {
    current?.bar.stop();
    current = undefined;
  };
  return {
    signal: context.signal,
    done,
    onProgress: ({ attack, done: count, of, loss }) => {
      const label = `${name}${name.endsWith(attack) ? '' : `: ${attack}`}`;
      if (current?.label !== label) {
        done();
        current = { label, bar: context.progress(label, of) };
      }
      current.bar.update(count, loss === undefined ? '' : `loss ${loss.toFixed(3)}`);
      if (count === of) done();
    },
  };
}

async function writeReport(
  out: string,
  report: AuditReport,
  pictures: ReadonlyMap<string, readonly { title: string; pictures: readonly PagePicture[] }[]>,
): Promise<void> {
  await writeFileAtomically(join(out, 'report.json'), encodeAuditReport(report));
  await writeFileAtomically(join(out, 'index.html'), renderAuditPage(report, pictures));
}

/** Writes what was measured into the manifests. */
async function record(context: CommandContext, report: AuditReport, folders: readonly string[]): Promise<void> {
  for (const [i, bundle] of report.bundles.entries()) {
    const figures = recordableFigures(bundle, report);
    const left = bundle.attacks.filter(({ verdict }) => verdict !== 'measured').map(({ name }) => name);
    if (left.length > 0) context.remark(`${bundle.name}: not recorded, failed or ran too short: ${left.join(', ')}`);
    if (figures.length > 0) await recordResults(folders[i] as string, figures);
  }
}

function summary(bundles: readonly AuditedBundle[]): string {
  const rows = bundles.flatMap(({ name, attacks }) =>
    attacks.map(({ name: attack, values, baselines, verdict }) => {
      const [value] = values;
      const of = (kind: 'floor' | 'ceiling'): string => {
        const means = baselines.filter((item) => item.kind === kind).map((item) => item.values[0]?.mean ?? 0);
        return means.length === 0 ? '–' : (kind === 'floor' ? Math.max(...means) : (means[0] as number)).toFixed(3);
      };
      const { low = 0, high = 0 } = value?.interval ?? {};
      return [
        name,
        attack,
        value?.name ?? '',
        value?.mean.toFixed(3) ?? '',
        `${low.toFixed(3)} to ${high.toFixed(3)}`,
        of('floor'),
        of('ceiling'),
        verdict === 'too-short' ? 'ran too short' : verdict === 'failed' ? 'failed attack' : 'measured',
      ];
    }),
  );
  return formatTable(['bundle', 'attack', 'value', 'mean', '95% interval', 'floor', 'ceiling', 'verdict'], rows);
}
