/**
 * `scrim audit`: attackers trained and tried on bundles, and a report of what they got as HTML and JSON. Every finished
 * part is kept in the report's folder, so that an interrupted audit goes on where it stopped.
 */
import { readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { type Bundle, type Engine, ScrimError } from 'scrim';
import { type AttackData, type AuditedBundle, type AuditReport, openAttackTarget, openCleanModel } from 'scrim/audit';
import { createNodeCrypto, createNodeEngine } from 'scrim/node';
import {
  createFaceEmbedder,
  detectorOf,
  FACE_API_SPEC,
  type FaceEmbedder,
  type FaceEmbedderSpec,
  faceEmbedderFromFaceApi,
} from 'scrim/vision';
import { AuditData, type AuditSets, withFewer } from '../audit-data.js';
import { auditInputs } from '../audit-inputs.js';
import { openPartStore, type PictureGroup } from '../audit-parts.js';
import {
  type AuditOptions,
  describeBundle,
  describeRun,
  finishAudit,
  nameBundles,
  parseAttacks,
  progressHooks,
  writeReport,
} from '../audit-report.js';
import { AUDIT_ATTACKS, type AuditAttack, type BundleAudit, type CleanModel, runBundleAudit } from '../audit-run.js';
import { type AuditPhoto, findPeople, findPhotos, readLabels, splitPhotos } from '../audit-samples.js';
import { openComplete, photoSide } from '../bundle-store.js';
import type { CommandContext } from '../context.js';
import { packageFolder } from '../model-source.js';
import { createParallelCollector } from '../sample-collector.js';
import { shipDecoder } from '../ship-decoder.js';

const FACE_API = '@vladmandic/face-api';
const FACE_API_VERSION = '1.7.15';
/** Most pictures that the attacker on clean activations is trained on: those are larger, and it learns soon. */
const CLEAN_SAMPLES = 1000;

/** As asked for: the size may be left to the bundles. */
type AuditFlags = Omit<AuditOptions, 'size'> & { readonly size?: number };

/** Runs the attacks on each bundle and writes the report. */
export async function audit(context: CommandContext, flags: AuditFlags, folders: readonly string[]): Promise<void> {
  if (new Set(folders.map((folder) => resolve(folder))).size < folders.length) {
    throw new ScrimError('INVALID_ARGUMENT', `a bundle is named twice: ${folders.join(', ')}`);
  }
  const bundles: { folder: string; bundle: Bundle }[] = [];
  for (const folder of folders) bundles.push({ folder, bundle: await openComplete(folder, flags.model) });
  const side = photoSide(
    flags.size,
    bundles.map(({ bundle }) => bundle),
  );
  const options: AuditOptions = { ...flags, size: side };
  const plain = bundles.filter(({ bundle }) => !bundle.manifest.model.detector);
  if (plain.length === bundles.length) {
    if (options.shipDecoder) throw new ScrimError('INVALID_ARGUMENT', '--ship-decoder is for bundles that take photos');
    await auditInputs(context, options, bundles);
    return;
  }
  const [odd] = plain;
  if (odd) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `'${odd.folder}' takes plain inputs, other bundles take photos: audit them one after the other`,
    );
  }
  const photos = await findPhotos(options.data);
  const people = options.people === undefined ? [] : await findPeople(options.people);
  const tried = options.try === undefined ? [] : await findPhotos(options.try);
  const { labelled, attributes } = await label([...photos, ...people, ...tried], options.labels);
  const own = labelled.slice(0, photos.length);
  const { train, test } =
    options.try === undefined
      ? splitPhotos(own, options.tried, options.seed)
      : { train: own, test: labelled.slice(photos.length + people.length) };
  const overlap = new Set(train.map(({ path }) => resolve(path)));
  const shared = [...test, ...people].find(({ path }) => overlap.has(resolve(path)));
  if (shared) {
    throw new ScrimError('INVALID_ARGUMENT', `'${shared.path}' is in --data and is to be tried too: keep them apart`);
  }
  const attacks = chooseAttacks(options, attributes, bundles.length);

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
  const runs: BundleAudit[] = [];
  const cleanModels = new Map<string, Promise<CleanModel>>();
  const audited: AuditedBundle[] = [];
  const pictures = new Map<string, readonly PictureGroup[]>();
  let kept: { readonly head: string; readonly train: AttackData; readonly test: AttackData } | undefined;
  const conditions = describe(context, options, folders, engine, { train, test, people });
  for (const [i, { folder, bundle }] of bundles.entries()) {
    const { manifest } = bundle;
    const name = names[i] as string;
    context.remark(`${name}: ${attacks.join(', ')}`);
    const detector = detectorOf(manifest.model);
    const target = await openAttackTarget(bundle, engine);
    const reading = {
      folder,
      model: options.model,
      bundle,
      size: options.size,
      pictureSide: options.pictureSide,
      signal: context.signal,
      onUnreadable: (path: string) => context.remark(`skipped '${path}': it can't be read as a photo`),
      ...(options.workers === undefined ? {} : { workers: options.workers }),
    };
    const collector = await createParallelCollector(target, reading);
    context.onClose(async () => {
      await collector.close();
      await target.close();
    });
    const sets: AuditSets = {
      collector,
      train,
      test,
      people: labelled.slice(photos.length, photos.length + people.length),
      canvases: options.canvases ?? 0,
      seed: options.seed,
      hooks: (what) => progressHooks(context, `${name}, ${what}`),
    };
    const openClean = async (cut: string): Promise<CleanModel> => {
      const opened = await openCleanModel(bundle, engine);
      const cleanCollector = await createParallelCollector(opened, { ...reading, clean: true });
      context.onClose(async () => {
        await cleanCollector.close();
        await opened.close();
      });
      const hooks = (what: string) => progressHooks(context, `${manifest.model.name}, clean, ${what}`);
      const data = new AuditData(withFewer({ ...sets, collector: cleanCollector, hooks }, CLEAN_SAMPLES));
      const identity = { version: context.version, model: manifest.model.sha256, cut, provider: options.provider };
      return { model: opened, data, identity };
    };
    const cut = manifest.bottleneck?.cut;
    const clean = (): Promise<CleanModel> => {
      const key = `${manifest.model.sha256} ${cut}`;
      const opened = cleanModels.get(key) ?? openClean(cut as string);
      cleanModels.set(key, opened);
      return opened;
    };
    const run: BundleAudit = {
      ...sets,
      target,
      ...(cut === undefined ? {} : { clean }),
      detector,
      identity: {
        version: context.version,
        files: manifest.files,
        alpha: manifest.alpha,
        provider: options.provider,
      },
      attributes,
      attacks,
      steps: options.steps,
      ceilingSteps: options.ceilingSteps ?? options.steps,
      capacity: options.capacity,
      seeds: options.seeds,
      size: options.size,
      pictureSide: options.pictureSide,
      signal: context.signal,
      parts: openPartStore(join(options.out, 'parts')),
      embedder: loadEmbedder,
      remark: (text) => context.remark(text),
    };
    // Several alphas at once are attacked with the last bundle, when all are at hand.
    const { groups, ...found } = await runBundleAudit(run, i + 1 === bundles.length ? runs : []);
    runs.push(run);
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
      context.remark(`${name}: a decoder of ${shipped.bytes} bytes is in the bundle, SSIM ${shipped.ssim.toFixed(3)}`);
    }
    await writeReport(options.out, { ...conditions, bundles: audited }, pictures);
  }
  await finishAudit(context, options, { ...conditions, bundles: audited }, folders);
}

function chooseAttacks(options: AuditOptions, attributes: readonly string[], bundles: number): AuditAttack[] {
  if (options.attacks === 'none' && options.shipDecoder) return [];
  const asked = parseAttacks(options.attacks, AUDIT_ATTACKS);
  const needs = (attack: AuditAttack): string | undefined => {
    if (attack === 'several-alphas' && bundles < 2) return 'at least two bundles';
    if ((attack === 're-identification' || attack === 'identity') && options.people === undefined) return '--people';
    if (attack === 'attributes' && attributes.length === 0) return '--labels';
    return undefined;
  };
  for (const name of asked ?? []) {
    const missing = needs(name);
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

function describe(
  context: CommandContext,
  options: AuditOptions,
  folders: readonly string[],
  engine: Engine,
  { train, test, people }: Record<'train' | 'test' | 'people', readonly AuditPhoto[]>,
): Omit<AuditReport, 'bundles'> {
  const name = (path: string): string => basename(resolve(path));
  const persons = new Set(people.map(({ person }) => person)).size;
  const composed = options.canvases === undefined ? '' : `${options.canvases} pictures composed of `;
  return {
    ...describeRun(context, options, folders, engine),
    data:
      `${composed}${train.length} photos of ${options.data.map(name).join(' and ')} to train on and ${test.length} ` +
      `others${options.try ? ` of ${options.try.map(name).join(' and ')}` : ''} to try, ` +
      `${people.length > 0 ? `${people.length} photos of ${persons} other people, ` : ''}${options.size}×${options.size}`,
  };
}
