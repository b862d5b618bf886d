/** One share of an audit's samples: read or composed, sent through the head, with the faces the service finds. */
import type { AttackData } from 'scrim/audit';
import { openAttackTarget, openCleanModel } from 'scrim/audit';
import { createNodeEngine } from 'scrim/node';
import { type AuditPhoto, type Composition, collectorOf } from './audit-samples.js';
import { openComplete } from './bundle-store.js';
import type { Work } from './workers.js';

/** What every worker is told. */
export interface SampleSetup {
  readonly folder: string;
  readonly model: string;
  /** Without the bundle's transform. */
  readonly clean: boolean;
  readonly size: number;
  readonly pictureSide: number;
  readonly photos: readonly AuditPhoto[];
  /** Pictures composed of the photos; left out for the photos themselves. */
  readonly canvases?: Composition;
}

/** What a worker says. */
export type SampleNews =
  | { readonly progress: true }
  | { readonly unreadable: string }
  | { readonly records: AttackData['records']; readonly frame: Omit<AttackData, 'records'> };

/** Samples sent at a time: some megabytes. */
const CHUNK = 16;

export const work: Work<SampleSetup, SampleNews> = async (setup, share, say) => {
  const { folder, model, clean, size, pictureSide, photos, canvases } = setup;
  const bundle = await openComplete(folder, model);
  const engine = await createNodeEngine({ threads: 1, thread: 'inline' });
  const target = await (clean ? openCleanModel : openAttackTarget)(bundle, engine);
  let read = 0;
  const collector = await collectorOf(target, bundle, {
    size,
    pictureSide,
    signal: new AbortController().signal,
    onUnreadable: (path) => {
      read++;
      void say({ unreadable: path });
    },
  });
  const onProgress = (): void => void say({ progress: true });
  const own = photos.filter((_, i) => i % share.count === share.index);
  const send = async (made: Promise<AttackData>): Promise<void> => {
    const { records, ...frame } = await made;
    for (let i = 0; i < records.length; i += CHUNK) await say({ records: records.slice(i, i + CHUNK), frame });
  };
  if (canvases) await send(collector.compose(photos, { ...canvases, part: share }, onProgress));
  else {
    try {
      await send(collector.collect(own, onProgress));
    } catch (error) {
      // A share in which no photo can be read is no failure of the whole.
      if (read < own.length) throw error;
    }
  }
  await collector.close();
  await target.close();
  await engine.close();
};
