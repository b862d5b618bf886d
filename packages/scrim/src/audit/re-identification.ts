/**
 * Attack 4 of the audit: can somebody be recognised on what an attacker rebuilt from releases?
 *
 * A face recognition network embeds rebuilt faces and original photos. On people not seen in training, rebuilt faces are
 * compared with other photos of the same and of other people (verification, rank 1). On any photos with faces, each
 * rebuilt face is compared with all original faces: how often is the right one the most alike? Where faces are is taken
 * from the service's own answers, which an attacker sees. Rebuilding is left to the other attacks.
 */
import { ScrimError } from '../errors.js';
import type { Box } from '../metrics/index.js';
import { rankOneRate } from '../metrics/index.js';
import { cropFace, type FaceEmbedder, type RgbImage } from '../vision/index.js';
import type { AttackBaseline, AttackData, AttackHooks, AttackPicture, AttackResult, AttackValue } from './attack.js';
import { type FaceScores, rankValue, summarizeFaceScores } from './re-identification-scores.js';

/** What an attacker rebuilt, and what it is compared with. One picture of `data.picture`'s size for each record. */
export interface FaceAttackInput {
  readonly data: AttackData;
  readonly embedder: FaceEmbedder;
  /** Name of the attack that rebuilt the pictures. */
  readonly attack: string;
  readonly rebuilt: readonly RgbImage[];
  /** What the same attacker rebuilds from clean activations. Without it nothing shows that the attack works at all. */
  readonly clean?: readonly RgbImage[];
  /** Guesses of somebody who does not look at the release, such as the average face at the detected boxes. */
  readonly floor?: { readonly name: string; readonly pictures: readonly RgbImage[] };
  /** Whether the attack that rebuilt ran long enough, and how many photos it was trained on. */
  readonly trusted: boolean;
  readonly trustedReason: string;
  readonly trainedOn: number;
  /** Faces kept for a report; default 6. */
  readonly pictures?: number;
}

/** Smallest side of a face that is compared, in pixels of the rebuilt picture. */
const SMALLEST_FACE = 16;
/** How much better than the floor the clean activation must be, and the least AUC of the embedder on photos. */
const MARGIN = 0.1;
const LEAST_EMBEDDER_AUC = 0.8;
/** Below so many faces a figure is not trusted. */
const LEAST_FACES = 50;

interface Face {
  readonly record: number;
  readonly box: Box | undefined;
}

/**
 * Verification and rank-1 identification on people: `person` of the records says who they show. The largest face of a
 * photo counts, or the whole picture where the service reports no boxes at all.
 * @throws ScrimError INVALID_DATA unless there are two people and one of them has two photos
 */
export async function runReidentification(input: FaceAttackInput, hooks: AttackHooks = {}): Promise<AttackResult> {
  const { data, embedder } = input;
  const faces = data.records.flatMap(({ person, boxes }, record): Face[] => {
    if (person === undefined) return [];
    if (boxes === undefined) return [{ record, box: undefined }];
    const box = [...boxes].sort((a, b) => b.width * b.height - a.width * a.height).find(isLargeEnough);
    return box ? [{ record, box }] : [];
  });
  const people = faces.map(({ record }) => data.records[record]!.person!);
  const distinct = new Set(people).size;
  if (distinct < 2 || distinct === people.length) {
    throw new ScrimError(
      'INVALID_DATA',
      `${people.length} faces of ${distinct} people were found: recognising people needs two of them and a second ` +
        'photo of one, in a folder for each person',
    );
  }
  const embed = createFaceReader(input, faces, hooks, 're-identification');
  const originals = await embed.photos();
  const score = (probes: readonly Float32Array[]): AttackValue[] =>
    summarizeFaceScores({
      scores: compareAll(embedder, probes, originals),
      probePeople: people,
      galleryPeople: people,
      same: people.map((_, i) => i),
    } satisfies FaceScores);
  const onPhotos = score(originals);
  const values = score(await embed.pictures(input.rebuilt));
  const chance = constantValues(values, [0.5, 0.01, 1 / distinct]);
  const baselines: AttackBaseline[] = [{ name: 'chance', kind: 'floor', values: chance }];
  if (input.floor) {
    baselines.push({
      name: input.floor.name,
      kind: 'floor',
      values: score(await embed.pictures(input.floor.pictures)),
    });
  }
  if (input.clean) {
    baselines.push({ name: 'clean activation', kind: 'ceiling', values: score(await embed.pictures(input.clean)) });
  }
  baselines.push({ name: 'original photos', kind: 'ceiling', values: onPhotos });
  return {
    name: `re-identification, ${input.attack}`,
    description:
      'Faces are rebuilt from releases and compared by a face recognition network with other photos of the same and ' +
      'of other people, none of whom the attacker has trained on.',
    values,
    baselines,
    samples: faces.length,
    trainedOn: input.trainedOn,
    ...judge(values[0]!, baselines, LEAST_EMBEDDER_AUC),
    ...trust(input, faces.length),
    settings: { embedder: embedder.spec.name, people: distinct, photos: faces.length },
    pictures: facePictures(input, faces),
    curves: [],
  };
}

/**
 * Which of N original faces is a rebuilt one? Every face of every record counts; names are not needed.
 * @throws ScrimError INVALID_DATA for fewer than two faces
 */
export async function runRightFace(input: FaceAttackInput, hooks: AttackHooks = {}): Promise<AttackResult> {
  const { data, embedder } = input;
  const faces = data.records.flatMap(({ boxes }, record): Face[] =>
    (boxes ?? []).filter(isLargeEnough).map((box) => ({ record, box })),
  );
  if (faces.length < 2) {
    throw new ScrimError('INVALID_DATA', `faces found on the photos: ${faces.length}, expected at least two`);
  }
  const embed = createFaceReader(input, faces, hooks, 'right face');
  const originals = await embed.photos();
  const labels = faces.map((_, i) => i);
  const photos = faces.map(({ record }) => String(record));
  const name = `right face among ${faces.length}`;
  const score = (probes: readonly Float32Array[]): AttackValue[] => {
    const scores = compareAll(embedder, probes, originals);
    const hits = labels.map((label) =>
      rankOneRate({
        scores: scores.subarray(label * labels.length, (label + 1) * labels.length),
        queryLabels: [label],
        galleryLabels: labels,
      }),
    );
    return [rankValue(name, hits, photos, name)];
  };
  const values = score(await embed.pictures(input.rebuilt));
  const baselines: AttackBaseline[] = [
    { name: 'chance', kind: 'floor', values: constantValues(values, [1 / faces.length]) },
  ];
  if (input.floor) {
    baselines.push({
      name: input.floor.name,
      kind: 'floor',
      values: score(await embed.pictures(input.floor.pictures)),
    });
  }
  if (input.clean) {
    baselines.push({ name: 'clean activation', kind: 'ceiling', values: score(await embed.pictures(input.clean)) });
  }
  return {
    name: `right face, ${input.attack}`,
    description:
      'Each face rebuilt from a release is compared by a face recognition network with all original faces: how often ' +
      'is the right one the most alike?',
    values,
    baselines,
    samples: faces.length,
    trainedOn: input.trainedOn,
    ...judge(values[0]!, baselines, 0),
    ...trust(input, faces.length),
    settings: { embedder: embedder.spec.name, faces: faces.length },
    pictures: facePictures(input, faces),
    curves: [],
  };
}

/** Embeds the faces of pictures, of which there is one a record. */
function createFaceReader(
  { data, embedder }: FaceAttackInput,
  faces: readonly Face[],
  hooks: AttackHooks,
  attack: string,
): { photos(): Promise<Float32Array[]>; pictures(list: readonly RgbImage[]): Promise<Float32Array[]> } {
  const read = async (pictureOf: (record: number) => RgbImage): Promise<Float32Array[]> => {
    const embeddings: Float32Array[] = [];
    for (const { record, box } of faces) {
      if (hooks.signal?.aborted) throw new ScrimError('CANCELLED', `${attack} was interrupted`);
      embeddings.push(await embedder.embed(pictureOf(record), box));
      hooks.onProgress?.({ attack, done: embeddings.length, of: faces.length });
    }
    return embeddings;
  };
  return {
    photos: () => read((record) => ({ ...data.picture, data: data.records[record]!.picture })),
    pictures: async (list) => {
      if (list.length !== data.records.length) {
        throw new ScrimError(
          'INVALID_ARGUMENT',
          `there are ${list.length} rebuilt pictures for ${data.records.length} photos`,
        );
      }
      return read((record) => list[record]!);
    },
  };
}

function isLargeEnough({ width, height }: Box): boolean {
  return Math.min(width, height) >= SMALLEST_FACE;
}

function compareAll(
  embedder: FaceEmbedder,
  probes: readonly Float32Array[],
  gallery: readonly Float32Array[],
): Float64Array {
  const scores = new Float64Array(probes.length * gallery.length);
  probes.forEach((probe, p) => {
    gallery.forEach((entry, g) => {
      scores[p * gallery.length + g] = embedder.similarity(probe, entry);
    });
  });
  return scores;
}

/** The values of somebody who guesses. */
function constantValues(values: readonly AttackValue[], constants: readonly number[]): AttackValue[] {
  return values.map((value, i) => {
    const mean = constants[i]!;
    return { ...value, mean, interval: { ...value.interval, estimate: mean, low: mean, high: mean } };
  });
}

function judge(
  value: AttackValue,
  baselines: readonly AttackBaseline[],
  leastOnPhotos: number,
): Pick<AttackResult, 'live' | 'liveReason'> {
  const of = (name: string): AttackValue | undefined => baselines.find((item) => item.name === name)?.values[0];
  const fail = (liveReason: string): Pick<AttackResult, 'live' | 'liveReason'> => ({ live: false, liveReason });
  const onPhotos = of('original photos');
  if (onPhotos && onPhotos.mean < leastOnPhotos) {
    return fail(`the face recognition network fails on the original photos too (${onPhotos.name} ${show(onPhotos)})`);
  }
  const floor = Math.max(...baselines.filter(({ kind }) => kind === 'floor').map(({ values }) => values[0]!.mean));
  const clean = of('clean activation');
  if (!clean) return fail('the attack was not tried on clean activations, so nothing shows that it works at all');
  if (clean.mean < floor + MARGIN) {
    return fail(`the attack fails on clean activations too: ${clean.name} ${show(clean)}, floor ${floor.toFixed(3)}`);
  }
  if (!(value.interval.low > floor)) {
    return fail(
      `${value.name} ${show(value)} is no better than its floor of ${floor.toFixed(3)} (95% interval from ` +
        `${value.interval.low.toFixed(3)}). The attack failed; that is no proof of privacy`,
    );
  }
  return { live: true, liveReason: `beats its floor of ${floor.toFixed(3)} and succeeds on clean activations` };
}

function show({ mean }: AttackValue): string {
  return mean.toFixed(3);
}

function trust(
  { trusted, trustedReason }: FaceAttackInput,
  faces: number,
): Pick<AttackResult, 'trusted' | 'trustedReason'> {
  if (!trusted) return { trusted, trustedReason: `what rebuilt the faces is not to be trusted: ${trustedReason}` };
  if (faces < LEAST_FACES) return { trusted: false, trustedReason: `${faces} faces, below ${LEAST_FACES}` };
  return { trusted, trustedReason };
}

/** Original and rebuilt faces, side by side in a report. */
function facePictures(
  { data, rebuilt, embedder, attack, pictures = 6 }: FaceAttackInput,
  faces: readonly Face[],
): AttackPicture[] {
  const step = Math.max(1, faces.length / pictures);
  return Array.from({ length: Math.min(pictures, faces.length) }, (_, i) => faces[Math.floor(i * step)]!).flatMap(
    ({ record, box }, i) => {
      const { id, picture } = data.records[record]!;
      const original = { ...data.picture, data: picture };
      const cut = (image: RgbImage): RgbImage => (box ? cropFace(image, box, embedder.spec) : image);
      return [
        { id: `face ${i + 1}: ${id}`, label: 'original', image: cut(original) },
        { id: `face ${i + 1}: ${id}`, label: attack, image: cut(rebuilt[record]!) },
      ];
    },
  );
}
