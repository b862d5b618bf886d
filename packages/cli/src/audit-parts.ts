/**
 * Finished parts of an audit on disk, so that an interrupted one goes on where it stopped. A part is named by what it is
 * and by a hash of everything it depends on; each is written whole or not at all.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { decodeSafetensors, encodeSafetensors, float32, ScrimError, type Tensor } from 'scrim';
import type { ReportedAttack, TrainingCheckpoint, TrainingCheckpoints } from 'scrim/audit';
import { writeFileAtomically } from 'scrim/node';
import type { PagePicture } from './audit-page.js';

/** Pictures under one heading. */
export interface PictureGroup {
  readonly title: string;
  readonly pictures: readonly PagePicture[];
}

/** What a part of an audit leaves. */
export interface AuditPart {
  readonly attacks: readonly ReportedAttack[];
  readonly groups: readonly PictureGroup[];
  /** Further results for later parts: numbers and short texts. */
  readonly notes?: Readonly<Record<string, unknown>>;
}

/** A part as it lies on disk. */
export interface StoredPart extends AuditPart {
  /** Models by name, encoded. */
  readonly models: ReadonlyMap<string, Uint8Array>;
}

/** Where parts are kept. */
export interface PartStore {
  /**
   * The part if it is there, else what `make` makes, which is kept.
   * @param basis everything the part depends on; plain data
   * @param make keeps decoders under training in what it is given; they go when the part is there
   * @returns the part, and whether it was there
   */
  once(
    name: string,
    basis: unknown,
    make: (checkpoints: TrainingCheckpoints) => Promise<StoredPart>,
  ): Promise<StoredPart & { readonly found: boolean }>;
}

const FORMAT = 'scrim-audit-part-2';

/** Opens a folder of parts; it is made when the first part is written. */
export function openPartStore(folder: string): PartStore {
  return {
    async once(name, basis, make) {
      const key = createHash('sha256')
        .update(JSON.stringify([FORMAT, name, basis]))
        .digest('hex')
        .slice(0, 16);
      const path = join(folder, `${name}-${key}`);
      const kept = await read(path);
      if (kept) return { ...kept, found: true };
      const part = await make(trainings(path));
      const { models, ...rest } = part;
      const names = [...models.keys()];
      for (const [model, bytes] of models) await writeFileAtomically(`${path}.${model}.onnx`, bytes);
      // The list of models comes last: a part without it is no part.
      await writeFileAtomically(`${path}.json`, JSON.stringify({ format: FORMAT, ...rest, models: names }));
      await removeTrainings(path);
      return { ...part, found: false };
    },
  };
}

const TRAINING = '.training';

/** Decoders under training, one file each beside the part they belong to. */
function trainings(path: string): TrainingCheckpoints {
  const fileOf = (name: string): string =>
    `${path}.${createHash('sha256').update(name).digest('hex').slice(0, 8)}${TRAINING}`;
  return {
    async load(name) {
      const bytes = await readFile(fileOf(name)).catch(() => undefined);
      if (bytes === undefined) return undefined;
      const { tensors, metadata } = decodeSafetensors(bytes);
      const { step, ...rest } = JSON.parse(metadata.state ?? '{}') as { step: number } & Omit<
        TrainingCheckpoint,
        'trainer'
      >;
      const arrays = Object.fromEntries([...tensors].map(([field, { data }]) => [field, data]));
      return { ...rest, trainer: { step, ...arrays } as TrainingCheckpoint['trainer'] };
    },
    async save(name, { trainer: { step, ...arrays }, ...rest }) {
      const tensors = new Map(
        Object.entries(arrays).map(([field, values]): [string, Tensor] => [field, float32([values.length], values)]),
      );
      const state = JSON.stringify({ step, ...rest });
      await writeFileAtomically(fileOf(name), encodeSafetensors({ tensors, metadata: { state } }));
    },
  };
}

async function removeTrainings(path: string): Promise<void> {
  const names = await readdir(dirname(path)).catch(() => []);
  for (const name of names) {
    if (name.startsWith(`${basename(path)}.`) && name.endsWith(TRAINING)) await rm(join(dirname(path), name));
  }
}

async function read(path: string): Promise<StoredPart | undefined> {
  const text = await readFile(`${path}.json`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const { format, models, ...part } = JSON.parse(text) as AuditPart & { format: string; models: string[] };
  if (format !== FORMAT) throw new ScrimError('INVALID_DATA', `'${path}.json' is no part of an audit: remove it`);
  const loaded = new Map<string, Uint8Array>();
  for (const name of models) loaded.set(name, await readFile(`${path}.${name}.onnx`));
  return { ...part, models: loaded };
}
