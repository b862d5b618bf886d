/**
 * One machine's part of an evaluation, kept in a file so that it can be gone on with and put together with the others.
 *
 * Part `i` of `n` is every n-th image of FDDB's lists, counted from i, whether its photo is there or not: each image
 * belongs to one part alone. The file holds which images were counted and their scores (FddbEvaluatorState), so a
 * process that died goes on behind the last image it wrote, and no image counts twice. It appears whole or not at all.
 */
import { readFile } from 'node:fs/promises';
import { ScrimError } from 'scrim';
import { createFddbEvaluator, type FddbEvaluator, type FddbEvaluatorState, type FddbResult } from 'scrim/metrics';
import { type FddbDataset, writeFileAtomically } from 'scrim/node';

/** What has to be equal for figures to belong together. */
export interface EvaluationSettings {
  readonly model: string;
  /** SHA-256 of the weights. */
  readonly sha256: string;
  /** Hash of the bundle; null without noise. */
  readonly bundle: string | null;
  readonly alpha: number | null;
  readonly size: number;
  readonly repeats: number;
  readonly minScore: number;
}

/** Which part: `index` of `of`, from 0. */
export interface Shard {
  readonly index: number;
  readonly of: number;
}

/** Content of a part's file. */
export interface EvaluationPart {
  readonly format: 'scrim-evaluation-part';
  readonly version: 1;
  readonly settings: EvaluationSettings;
  readonly shard: Shard;
  /** Images of this part whose photo is there, and how many of them were counted. */
  readonly images: { readonly done: number; readonly found: number };
  readonly seconds: number;
  readonly threads: number;
  readonly engine: string;
  /** One for each draw of noise. */
  readonly states: readonly FddbEvaluatorState[];
}

/** Reads 'i/n', such as '0/4'. @throws INVALID_ARGUMENT */
export function parseShard(text: string): Shard {
  const [, index = '', of = ''] = /^(\d{1,6})\/(\d{1,6})$/.exec(text) ?? [];
  if (of === '' || !(Number(index) < Number(of))) {
    throw new ScrimError('INVALID_ARGUMENT', `--shard is '${text}', expected i/n with i from 0 to n - 1, such as 0/4`);
  }
  return { index: Number(index), of: Number(of) };
}

/** Whether the image at `position` of the lists belongs to `shard`. */
export function inShard(position: number, shard: Shard): boolean {
  return position % shard.of === shard.index;
}

/**
 * Reads the file of a part that was begun. Undefined where there is none, or where what lies there was cut off by a
 * crash of the storage and can't be gone on with (`onUnreadable` is told then).
 *
 * @throws ALREADY_EXISTS where it is of another evaluation or another part
 */
export async function readBegunPart(
  path: string,
  settings: EvaluationSettings,
  shard: Shard,
  onUnreadable: (message: string) => void,
): Promise<EvaluationPart | undefined> {
  let part: EvaluationPart;
  try {
    part = await readPart(path);
  } catch (error) {
    if (!(error instanceof ScrimError)) throw error;
    if (error.code === 'INVALID_DATA') onUnreadable(error.message);
    if (error.code === 'INVALID_DATA' || error.code === 'NOT_FOUND') return undefined;
    throw error;
  }
  const difference =
    part.shard.index !== shard.index || part.shard.of !== shard.of
      ? `it is part ${part.shard.index}/${part.shard.of}, not ${shard.index}/${shard.of}`
      : differenceOf(part.settings, settings);
  if (difference !== undefined) {
    throw new ScrimError(
      'ALREADY_EXISTS',
      `'${path}' is of another evaluation: ${difference}; remove it or name another`,
    );
  }
  return part;
}

/** Writes a part whole or not at all. */
export async function writePart(path: string, part: EvaluationPart): Promise<void> {
  await writeFileAtomically(path, `${JSON.stringify(part)}\n`);
}

/** Positions that a part has counted. */
export function countedPositions(part: EvaluationPart): ReadonlySet<number> {
  return new Set(part.states[0]?.images ?? []);
}

/** An evaluation put together from its parts. */
export interface MergedEvaluation {
  readonly settings: EvaluationSettings;
  /** One for each draw of noise. */
  readonly results: readonly FddbResult[];
  readonly parts: readonly EvaluationPart[];
}

/**
 * Puts all parts of an evaluation together. The figures are to the last bit those of a single run that found the same
 * faces.
 *
 * @throws INVALID_ARGUMENT where parts are missing, come twice, are unfinished or of different evaluations; NOT_FOUND and
 * INVALID_DATA as for files; INVALID_DATA where a part was made over other photos than `dataset` has
 */
export async function mergeParts(paths: readonly string[], dataset: FddbDataset): Promise<MergedEvaluation> {
  const parts: EvaluationPart[] = [];
  for (const path of paths) parts.push(await readPart(path));
  const [first] = parts;
  if (first === undefined) throw new ScrimError('INVALID_ARGUMENT', 'no part was named');
  const { settings, shard } = first;
  const places = new Map<number, string>();
  parts.forEach((part, p) => {
    const path = paths[p] ?? '';
    const difference =
      part.shard.of === shard.of
        ? differenceOf(part.settings, settings)
        : `it is one of ${part.shard.of} parts, not of ${shard.of}`;
    if (difference !== undefined) {
      throw new ScrimError('INVALID_ARGUMENT', `'${path}' and '${paths[0]}' do not belong together: ${difference}`);
    }
    const other = places.get(part.shard.index);
    if (other !== undefined) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `'${other}' and '${path}' are both part ${part.shard.index}/${shard.of}`,
      );
    }
    places.set(part.shard.index, path);
    const { done, found } = part.images;
    if (done < found) {
      throw new ScrimError('INVALID_ARGUMENT', `'${path}' is unfinished: ${done} of ${found} images`);
    }
    const present = dataset.photos.filter((photo, position) => photo.present && inShard(position, part.shard)).length;
    if (present !== found) {
      throw new ScrimError(
        'INVALID_DATA',
        `'${path}' was made over ${found} photos, '${dataset.root}' has ${present} of that part`,
      );
    }
  });
  const missing = Array.from({ length: shard.of }, (_, index) => index).filter((index) => !places.has(index));
  if (missing.length > 0) {
    const list = missing.length > 10 ? `${missing.slice(0, 10).join(', ')}, …` : missing.join(', ');
    throw new ScrimError('INVALID_ARGUMENT', `${missing.length} of ${shard.of} parts are missing: ${list}`);
  }
  const results = Array.from({ length: settings.repeats }, (_, draw) => {
    const evaluator: FddbEvaluator = createFddbEvaluator(dataset.folds);
    evaluator.merge(parts.map(({ states }) => states[draw] as FddbEvaluatorState));
    return evaluator.result();
  });
  return { settings, results, parts };
}

function differenceOf(has: EvaluationSettings, wanted: EvaluationSettings): string | undefined {
  for (const key of Object.keys(wanted) as (keyof EvaluationSettings)[]) {
    if (has[key] !== wanted[key]) return `${key} is ${String(has[key])} there, ${String(wanted[key])} here`;
  }
  return undefined;
}

async function readPart(path: string): Promise<EvaluationPart> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw ScrimError.from(error, 'NOT_FOUND', `part '${path}' can't be read`);
  }
  let part: unknown;
  try {
    part = JSON.parse(text);
  } catch {
    throw new ScrimError('INVALID_DATA', `'${path}' is cut off or no part of an evaluation`);
  }
  if (!isPart(part)) throw new ScrimError('INVALID_DATA', `'${path}' is no part of an evaluation`);
  return part;
}

/** The form alone; the states are checked where they are merged. */
function isPart(value: unknown): value is EvaluationPart {
  if (typeof value !== 'object' || value === null) return false;
  const { format, version, settings, shard, images, states } = value as Partial<EvaluationPart>;
  return (
    format === 'scrim-evaluation-part' &&
    version === 1 &&
    typeof settings === 'object' &&
    settings !== null &&
    typeof shard === 'object' &&
    shard !== null &&
    Number.isSafeInteger(shard.index) &&
    Number.isSafeInteger(shard.of) &&
    shard.index >= 0 &&
    shard.index < shard.of &&
    typeof images === 'object' &&
    images !== null &&
    Number.isSafeInteger(images.done) &&
    Number.isSafeInteger(images.found) &&
    Array.isArray(states) &&
    states.length === settings.repeats &&
    states.length > 0
  );
}
