/**
 * Runs the attacks of an audit on one bundle, part by part. Photos go through the head once; decoders, with noise and
 * without, are kept as models, so that whoever compares faces later does not train them again.
 */
import { float32, ScrimError, type Session } from 'scrim';
import {
  type AttackData,
  type AttackedModel,
  type AttackHooks,
  type AttackResult,
  type AttackTarget,
  type AuditedBundle,
  type BundleOfSeveral,
  collectCopies,
  createReleaseSource,
  DECODER_SWEEP,
  neighbouringFrames,
  type PictureAttackInput,
  type PictureCeiling,
  pictureFloors,
  pixelEncoding,
  planesToImage,
  type ReportedAttack,
  reencodedCopies,
  releaseMechanism,
  reportAttack,
  runAttributeAttack,
  runAveragingAttack,
  runDecoderAttack,
  runDecoderSweep,
  runIdentityAttack,
  runLinkageAttack,
  runOptimisationAttack,
  runReidentification,
  runRightFace,
  runSeveralAlphas,
  shiftedCopies,
  trainDecoder,
  tryDecoder,
} from 'scrim/audit';
import { createNodeCrypto, readImageTowards } from 'scrim/node';
import { createFitRandom } from 'scrim/noise';
import { createPixelConverter, type DetectorSpec, drawTiles, type FaceEmbedder, type RgbImage } from 'scrim/vision';
import { AuditData, type AuditSets } from './audit-data.js';
import type { PagePicture } from './audit-page.js';
import type { AuditPart, PartStore, PictureGroup, StoredPart } from './audit-parts.js';
import { mergeGroups, PHOTOS, pagePicture, pagePictures, photoGroup } from './audit-pictures.js';
import { type AuditPhoto, drawAugmentation, drawCopy } from './audit-samples.js';

/** Attacks by name, in the order they run. */
export const AUDIT_ATTACKS = [
  'decoder',
  'plain-decoder',
  'right-face',
  're-identification',
  'linkage',
  'identity',
  'attributes',
  'averaging',
  'optimisation',
  'several-alphas',
  'decoder-sweep',
] as const;
/** Name of an attack. */
export type AuditAttack = (typeof AUDIT_ATTACKS)[number];

/** What an audit of one bundle runs on. */
export interface BundleAudit extends AuditSets {
  readonly target: AttackTarget;
  /** The model without a transform that replaces its activation; left out where the target's own activation is clean. */
  readonly clean?: () => Promise<CleanModel>;
  readonly detector: DetectorSpec;
  /** Everything that names the bundle: parts depend on it. */
  readonly identity: unknown;
  readonly attributes: readonly string[];
  readonly attacks: readonly AuditAttack[];
  readonly steps: number;
  /** Steps of the same attacker without noise. */
  readonly ceilingSteps: number;
  readonly capacity: number;
  /** Decoders that are trained for each attack by decoders. */
  readonly seeds: number;
  readonly size: number;
  readonly pictureSide: number;
  readonly signal: AbortSignal;
  readonly parts: PartStore;
  /** Loaded when the first attack needs it. */
  readonly embedder: () => Promise<FaceEmbedder>;
  readonly remark: (text: string) => void;
}

/** A model without its transform: attackers that get nothing from that do not work. */
export interface CleanModel {
  readonly model: AttackedModel;
  readonly data: AuditData;
  /** Everything that names it: bundles of the same model share what is found. */
  readonly identity: unknown;
}

/** What came of a bundle. */
export interface BundleOutcome {
  readonly attacks: readonly ReportedAttack[];
  readonly notRun: AuditedBundle['notRun'];
  readonly groups: readonly PictureGroup[];
  /** Values that leave for one input. */
  readonly releasedValues: number;
}

/** Failures of one attack that leave the others possible. */
const CANNOT_RUN: ReadonlySet<string> = new Set(['INVALID_DATA', 'UNSUPPORTED', 'DIVERGED']);
/** Photos whose pictures are shown. */
const SHOWN = 6;
/** Copies of a photo that an identity classifier is trained on, the photo itself among them. */
const AUGMENTATIONS = 6;
/** Copies of each photo that are encoded anew; each takes as long as a whole evaluation of it. */
const REENCODED = 4;
/** Photos that a linkage attacker fits its embedding on. */
const LINKAGE_PHOTOS = 64;
/** Most steps of the networks that look at releases; they need fewer than decoders. */
const NETWORK_STEPS = 2000;

/**
 * Runs the attacks that are asked for.
 * @param others bundles audited before on the same photos, for the attack on several alphas at once
 * @throws ScrimError as they do; CANCELLED keeps the parts that are finished
 */
export async function runBundleAudit(audit: BundleAudit, others: readonly BundleAudit[] = []): Promise<BundleOutcome> {
  const stages = new Stages(audit);
  const attacks: ReportedAttack[] = [];
  const notRun: { attack: string; reason: string }[] = [];
  const groups: PictureGroup[] = [];
  const samples = await stages.samples();
  groups.push(...samples.groups);
  for (const attack of audit.attacks) {
    if (attack === 'several-alphas' && others.length === 0) continue;
    audit.signal.throwIfAborted();
    try {
      const part =
        attack === 'several-alphas'
          ? await stages.severalAlphas(others.map((other) => new Stages(other)))
          : await stages.run(attack);
      attacks.push(...part.attacks);
      groups.push(...part.groups);
    } catch (error) {
      if (!(error instanceof ScrimError) || !CANNOT_RUN.has(error.code)) throw error;
      audit.remark(`${attack} is left out: ${error.message}`);
      notRun.push({ attack, reason: error.message });
    }
  }
  return { attacks, notRun, groups: mergeGroups(groups), releasedValues: Number(samples.notes?.releasedValues ?? 0) };
}

class Stages {
  readonly #audit: BundleAudit;
  readonly #crypto = createNodeCrypto();
  readonly #data: AuditData;

  constructor(audit: BundleAudit) {
    this.#audit = audit;
    this.#data = new AuditData(audit);
  }

  run(attack: Exclude<AuditAttack, 'several-alphas'>): Promise<AuditPart> {
    const runners: Record<typeof attack, () => Promise<AuditPart>> = {
      decoder: () => this.decoder(),
      'plain-decoder': () => this.plainDecoder(),
      'right-face': () => this.faces('right-face'),
      're-identification': () => this.faces('re-identification'),
      linkage: () => this.linkage(),
      identity: () => this.identity(),
      attributes: () => this.attributes(),
      averaging: () => this.averaging(),
      optimisation: () => this.optimisation(),
      'decoder-sweep': () => this.decoderSweep(),
    };
    return runners[attack]();
  }

  /** Originals and what was sent of the photos that are shown. */
  samples(): Promise<StoredPart> {
    return this.part('samples', { test: ids(this.#audit.test.slice(0, SHOWN)) }, async () => {
      const { target, seed } = this.#audit;
      const test = await this.#data.get('test');
      const source = await createReleaseSource(
        target,
        test.shape,
        { mode: 'replay', seed: `${seed} shown` },
        this.#crypto,
      );
      const pictures: PagePicture[] = [];
      try {
        for (const record of test.records.slice(0, SHOWN)) {
          const release = await source.draw(record.activation);
          const tiles = drawTiles(float32([1, ...test.shape], release));
          pictures.push(await pagePicture(record.id, 'original', { ...test.picture, data: record.picture }));
          pictures.push(await pagePicture(record.id, 'what was sent', tiles));
        }
      } finally {
        source.close();
      }
      const sent = target.parameters.gain.filter((gain) => gain !== 0).length / target.parameters.gain.length;
      const releasedValues = Math.round(sent * test.shape.reduce((a, b) => a * b, 1));
      return { attacks: [], groups: [{ title: PHOTOS, pictures }], notes: { releasedValues }, models: new Map() };
    });
  }

  /** The decoder on clean activations: the ceiling. */
  async cleanDecoder(): Promise<StoredPart> {
    const { target, ceilingSteps: steps, capacity, seed } = this.#audit;
    const clean = await this.#audit.clean?.();
    const own = clean?.data ?? this.#data;
    const make = async (hooks: AttackHooks): Promise<StoredPart> => {
      const data = await own.get('train');
      const mechanism = releaseMechanism(target, data.shape, this.#crypto);
      const against = { engine: target.engine, remote: (clean?.model ?? target).remote, mechanism };
      const decoder = await trainDecoder(against, data, { steps, capacity, clean: true }, `${seed} clean`, hooks);
      const model = decoder.encode();
      const tried = { target, test: await own.get('test'), crypto: this.#crypto };
      const { scores } = await tryDecoder(decoder, tried, { draws: 1, seed });
      await decoder.close();
      clean?.data.dropTraining();
      return {
        attacks: [],
        groups: [],
        notes: { ...scores },
        models: new Map([['decoder', model]]),
      };
    };
    return this.part('decoder-clean', { steps, capacity }, make, clean?.identity);
  }

  decoder(): Promise<StoredPart> {
    const { steps, capacity, seeds } = this.#audit;
    return this.part('decoder', { steps, capacity, seeds }, async (hooks) => {
      const ceiling = await this.ceiling();
      const started = performance.now();
      const settings = { steps, capacity, seeds, ceiling, pictures: SHOWN };
      const { result, decoder } = await runDecoderAttack(await this.pictureInput(), settings, hooks);
      const model = decoder.encode();
      await decoder.close();
      const { trusted, trustedReason, trainedOn } = result;
      const part = await photoPart([result], started);
      return { ...part, notes: { trusted, trustedReason, trainedOn }, models: new Map([['decoder', model]]) };
    });
  }

  /** The decoder that sees the release alone. */
  plainDecoder(): Promise<StoredPart> {
    const { steps, capacity, seeds } = this.#audit;
    return this.part('plain-decoder', { steps, capacity, seeds }, async (hooks) => {
      const ceiling = await this.ceiling();
      const started = performance.now();
      const settings = { steps, capacity, seeds, ceiling, pictures: SHOWN, sees: 'release' } as const;
      const { result, decoder } = await runDecoderAttack(await this.pictureInput(), settings, hooks);
      await decoder.close();
      return { ...(await photoPart([result], started)), models: new Map() };
    });
  }

  /** Capacity, data and losses around the decoder; one part each, as each takes as long. */
  async decoderSweep(): Promise<AuditPart> {
    const { steps, capacity, seeds } = this.#audit;
    const attacks: ReportedAttack[] = [];
    for (const variant of DECODER_SWEEP) {
      if (variant.settings.sees === 'release') continue; // that is the plain decoder
      const part = await this.part('decoder-sweep', { steps, capacity, seeds, variant }, async (hooks) => {
        const ceiling = await this.ceiling();
        const started = performance.now();
        // Factors of the sweep are on top of --capacity.
        const changes = { ...variant.settings, capacity: capacity * (variant.settings.capacity ?? 1) };
        const results = await runDecoderSweep(
          await this.pictureInput(),
          { ceiling },
          { steps, seeds, pictures: 0 },
          [{ ...variant, settings: changes }],
          hooks,
        );
        return { attacks: results.map((result) => report(result, started)), groups: [], models: new Map() };
      });
      attacks.push(...part.attacks);
    }
    return { attacks, groups: [] };
  }

  private async pictureInput(): Promise<PictureAttackInput> {
    const { target, seed } = this.#audit;
    return {
      target,
      train: await this.#data.get('train'),
      test: await this.#data.get('test'),
      crypto: this.#crypto,
      seed,
    };
  }

  async faces(kind: 'right-face' | 're-identification'): Promise<StoredPart> {
    const { people, steps, capacity, seeds, seed, target, remark } = this.#audit;
    const basis = { steps, capacity, seeds, ...(kind === 're-identification' ? { people: ids(people) } : {}) };
    return this.part(kind, basis, async (hooks) => {
      const noisy = await this.decoder();
      const clean = await this.cleanDecoder();
      const embedder = await this.#audit.embedder();
      const started = performance.now();
      const which = kind === 'right-face' ? 'test' : 'people';
      const data = await this.#data.get(which);
      const cleanData = await ((await this.#audit.clean?.())?.data ?? this.#data).get(which);
      if (kind === 're-identification') remark(`${data.records.length} photos of people are rebuilt and compared`);
      const source = await createReleaseSource(
        target,
        data.shape,
        { mode: 'replay', seed: `${seed} ${kind}` },
        this.#crypto,
      );
      const releases: Float32Array[] = [];
      try {
        for (const { activation } of data.records) releases.push(await source.draw(activation));
      } finally {
        source.close();
      }
      const { width, height } = data.picture;
      const toImages = (planes: readonly Float32Array[]): RgbImage[] =>
        planes.map((p) => planesToImage(p, width, height));
      const floor = pictureFloors(await this.#data.get('train'), data).at(-1);
      const { trusted = false, trustedReason = '', trainedOn = 0 } = (noisy.notes ?? {}) as Partial<AttackResult>;
      const run = kind === 'right-face' ? runRightFace : runReidentification;
      const result = await run(
        {
          data,
          embedder,
          attack: 'decoder T',
          rebuilt: toImages(await this.rebuild(noisy.models.get('decoder') as Uint8Array, releases, data)),
          clean: toImages(
            await this.rebuild(clean.models.get('decoder') as Uint8Array, activationsOf(cleanData), cleanData),
          ),
          ...(floor ? { floor: { name: floor.name, pictures: toImages(floor.guesses) } } : {}),
          trusted,
          trustedReason,
          trainedOn,
          pictures: SHOWN,
        },
        hooks,
      );
      const title = kind === 'right-face' ? 'Faces, rebuilt' : 'Faces of people not trained on, rebuilt';
      const pictures = await pagePictures(result.pictures);
      return { attacks: [report(result, started)], groups: [{ title, pictures }], models: new Map() };
    });
  }

  linkage(): Promise<StoredPart> {
    const { target, seed, test, train } = this.#audit;
    return this.part('linkage', {}, async (hooks) => {
      const started = performance.now();
      const data = await this.#data.get('test');
      const random = createFitRandom(`${seed} copies`);
      const copiesOf = async (photos: readonly AuditPhoto[]): Promise<AttackData> =>
        this.#audit.collector.collect(photos.map((photo) => ({ ...photo, change: drawCopy(random) })));
      const readable = new Set(data.records.map(({ id }) => id));
      const copies = await copiesOf(test.filter(({ id }) => readable.has(id)));
      const { records: own } = await this.#audit.collector.collect(train.slice(0, LINKAGE_PHOTOS));
      const ownIds = new Set(own.map(({ id }) => id));
      const ownCopies = await copiesOf(train.filter(({ id }) => ownIds.has(id)));
      const byId = new Map(ownCopies.records.map((record) => [record.id, record.activation]));
      const common = { target, data, crypto: this.#crypto, seed };
      const results = [
        await runLinkageAttack(common, hooks),
        await runLinkageAttack(
          {
            ...common,
            candidates: { name: 'other copies', data: copies },
            fit: {
              photos: own.map(({ activation }) => activation),
              copies: own.map(({ id }) => byId.get(id) as Float32Array),
            },
          },
          hooks,
        ),
      ];
      return { attacks: results.map((result) => report(result, started)), groups: [], models: new Map() };
    });
  }

  identity(): Promise<StoredPart> {
    const { target, seed, people } = this.#audit;
    const steps = this.networkSteps();
    return this.part('identity', { steps, people: ids(people) }, async (hooks) => {
      const started = performance.now();
      const seen = new Set<string>();
      // The first photo of each person is tried; the others, and copies of them, are trained on.
      const [tried, known]: [AuditPhoto[], AuditPhoto[]] = [[], []];
      for (const photo of people) {
        (seen.has(photo.person as string) ? known : tried).push(photo);
        seen.add(photo.person as string);
      }
      const random = createFitRandom(`${seed} augmentation`);
      const copies = known.flatMap((photo) => [
        photo,
        ...Array.from({ length: AUGMENTATIONS - 1 }, (_, i) => ({
          ...photo,
          id: `${photo.id}#${i + 1}`,
          change: drawAugmentation(random),
        })),
      ]);
      const train = await this.#audit.collector.collect(copies);
      const all = await this.#data.get('people');
      const triedIds = new Set(tried.map(({ id }) => id));
      const test = { ...all, records: all.records.filter(({ id }) => triedIds.has(id)) };
      const result = await runIdentityAttack({ target, train, test, crypto: this.#crypto, seed }, { steps }, hooks);
      return { attacks: [report(result, started)], groups: [], models: new Map() };
    });
  }

  attributes(): Promise<StoredPart> {
    const { target, seed, attributes, train, test, people } = this.#audit;
    const steps = this.networkSteps();
    const labels = [...train, ...test, ...people].map(({ id, attributes: own }) => [id, own ?? {}]);
    return this.part('attributes', { steps, labels }, async (hooks) => {
      const sets = [await this.#data.get('photos'), await this.#data.get('test')];
      if (people.length > 0) sets.push(await this.#data.get('people'));
      const [first] = sets as [AttackData];
      const data = { shape: first.shape, records: sets.flatMap(({ records }) => records) };
      const attacks: ReportedAttack[] = [];
      for (const attribute of attributes) {
        const started = performance.now();
        const input = { target, data, attribute, crypto: this.#crypto, seed };
        attacks.push(report(await runAttributeAttack(input, { steps }, hooks), started));
      }
      return { attacks, groups: [], models: new Map() };
    });
  }

  averaging(): Promise<StoredPart> {
    const { target, steps, capacity, seed, test: photos, size, detector } = this.#audit;
    return this.part('averaging', { steps, capacity }, async (hooks) => {
      const ceiling = await this.ceiling();
      const started = performance.now();
      const test = await this.#data.get('test');
      const converter = createPixelConverter(detector.preprocessing);
      const byId = new Map(photos.map((photo) => [photo.id, photo]));
      const canvas = { width: size, height: size };
      async function* inputs() {
        for (const { id, picture } of test.records) {
          const image = await readImageTowards(byId.get(id)?.path as string, canvas);
          const original = { ...test.picture, data: picture };
          yield { id, input: converter.convert(image, { resized: canvas, canvas }), picture: original };
        }
      }
      const copies = [];
      const makers = [
        shiftedCopies(2),
        reencodedCopies(pixelEncoding(detector.preprocessing), REENCODED),
        neighbouringFrames(16),
      ];
      for (const maker of makers) {
        copies.push(await collectCopies(target, inputs(), maker));
      }
      const { results, decoder } = await runAveragingAttack(
        { target, train: await this.#data.get('train'), test, crypto: this.#crypto, seed },
        { steps, capacity, ceiling, copies, pictures: SHOWN },
        hooks,
      );
      await decoder.close();
      return { ...(await photoPart(results, started)), models: new Map() };
    });
  }

  optimisation(): Promise<StoredPart> {
    const { target, steps, seed, detector } = this.#audit;
    const searchSteps = Math.min(600, steps);
    return this.part('optimisation', { searchSteps }, async (hooks) => {
      const started = performance.now();
      const result = await runOptimisationAttack(
        {
          target,
          train: await this.#data.get('train'),
          test: await this.#data.get('test'),
          crypto: this.#crypto,
          seed,
        },
        { encoding: pixelEncoding(detector.preprocessing), steps: searchSteps, pictures: SHOWN },
        hooks,
      );
      return { ...(await photoPart([result], started)), models: new Map() };
    });
  }

  /** All bundles at once: the same photos, released through each. */
  severalAlphas(others: readonly Stages[]): Promise<StoredPart> {
    const { steps, seeds, capacity, seed } = this.#audit;
    const stages = [...others, this];
    const basis = { steps, seeds, capacity, others: others.map((other) => other.#audit.identity) };
    return this.part('several-alphas', basis, async (hooks) => {
      const ceiling = await this.ceiling();
      const started = performance.now();
      const bundles: BundleOfSeveral[] = [];
      for (const stage of stages) {
        bundles.push({
          target: stage.#audit.target,
          train: await stage.#data.get('train'),
          test: await stage.#data.get('test'),
        });
      }
      const settings = { steps, seeds, capacity, ceiling, pictures: SHOWN };
      const { result, decoder } = await runSeveralAlphas(bundles, { crypto: this.#crypto, seed }, settings, hooks);
      await decoder.close();
      return { ...(await photoPart([result], started)), models: new Map() };
    });
  }

  private networkSteps(): number {
    return Math.min(NETWORK_STEPS, this.#audit.steps);
  }

  private async ceiling(): Promise<PictureCeiling> {
    const { notes } = await this.cleanDecoder();
    return { name: 'clean activation', scores: notes as unknown as PictureCeiling['scores'] };
  }

  /** What a stored decoder makes of releases: [3, H, W] each. */
  private async rebuild(
    model: Uint8Array,
    releases: readonly Float32Array[],
    data: AttackData,
  ): Promise<Float32Array[]> {
    const session: Session = await this.#audit.target.engine.load(model);
    const [input = ''] = session.inputs.map(({ name }) => name);
    const [output = ''] = session.outputs.map(({ name }) => name);
    const rebuilt: Float32Array[] = [];
    try {
      for (const release of releases) {
        this.#audit.signal.throwIfAborted();
        const found = await session.run({ [input]: float32([1, ...data.shape], release) });
        rebuilt.push(found[output]?.data as Float32Array);
      }
    } finally {
      await session.close();
    }
    return rebuilt;
  }

  private async part(
    name: string,
    basis: object,
    make: (hooks: AttackHooks) => Promise<StoredPart>,
    identity = this.#audit.identity,
  ): Promise<StoredPart> {
    const { parts, train, test, canvases, ceilingSteps, size, pictureSide, seed } = this.#audit;
    const sets = { train: ids(train), test: ids(test), canvases };
    const own = { bundle: identity, ...sets, ceilingSteps, size, pictureSide, seed };
    const hooks = this.#audit.hooks(name);
    try {
      return await parts.once(name, { ...own, ...basis }, (checkpoints) => make({ ...hooks, checkpoints }));
    } finally {
      hooks.done();
    }
  }
}

async function photoPart(results: readonly AttackResult[], started: number): Promise<AuditPart> {
  return { attacks: results.map((result) => report(result, started)), groups: [await photoGroup(results)] };
}

function report(result: AttackResult, started: number): ReportedAttack {
  return reportAttack(result, Math.round((performance.now() - started) / 1000));
}

function activationsOf({ records }: AttackData): Float32Array[] {
  return records.map(({ activation }) => activation);
}

function ids(photos: readonly AuditPhoto[]): string[] {
  return photos.map(({ id }) => id);
}
