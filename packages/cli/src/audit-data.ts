/** Photos of an audit after a head, as attackers get them: collected when they are first needed, once for all attacks. */
import { type AttackData, type AttackHooks, selectEvenly } from 'scrim/audit';
import type { AuditPhoto, SampleCollector } from './audit-samples.js';

/** Sets of an audit: 'train' may be composed of 'photos', and is 'photos' otherwise. */
export type AuditSet = 'train' | 'photos' | 'test' | 'people';

/** What the sets are made of, and by which head. */
export interface AuditSets {
  readonly collector: SampleCollector;
  readonly train: readonly AuditPhoto[];
  readonly test: readonly AuditPhoto[];
  readonly people: readonly AuditPhoto[];
  /** Pictures composed of the training photos to train on instead of the photos; 0 for the photos as they are. */
  readonly canvases: number;
  readonly seed: string;
  readonly hooks: (what: string) => AttackHooks & { readonly done: () => void };
}

/** What is being read, in progress reports. */
const NAMES = {
  train: 'pictures composed to train on',
  photos: 'photos to train on',
  test: 'photos to try',
  people: 'photos of people',
} as const;

/** The same with at most `count` pictures to train on. */
export function withFewer(sets: AuditSets, count: number): AuditSets {
  return sets.canvases > 0
    ? { ...sets, canvases: Math.min(sets.canvases, count) }
    : { ...sets, train: selectEvenly(sets.train, count) };
}

/** Keeps each set from its first use on. */
export class AuditData {
  readonly #sets: AuditSets;
  readonly #made = new Map<AuditSet, Promise<AttackData>>();

  constructor(sets: AuditSets) {
    this.#sets = sets;
  }

  get(which: AuditSet): Promise<AttackData> {
    const { collector, canvases, seed, train } = this.#sets;
    if (which === 'train' && canvases === 0) return this.get('photos');
    const known = this.#made.get(which);
    if (known) return known;
    const hooks = this.#sets.hooks(NAMES[which]);
    const photos = which === 'photos' ? train : this.#sets[which];
    const of = which === 'train' ? canvases : photos.length;
    const onProgress = (done: number): void => hooks.onProgress?.({ attack: NAMES[which], done, of });
    const made = (
      which === 'train'
        ? collector.compose(photos, { count: canvases, seed: `${seed} canvases` }, onProgress)
        : collector.collect(photos, onProgress)
    ).finally(() => hooks.done());
    this.#made.set(which, made);
    return made;
  }

  /** Lets go of what was trained on, hundreds of megabytes. */
  dropTraining(): void {
    this.#made.delete('train');
    this.#made.delete('photos');
  }
}
