/**
 * Which figures the page plots for a setting: accuracy from the bundle's manifest; an attacker's success from there too,
 * of an audit if there was one, else of the decoder that is shipped with the bundle; for bundles without either from
 * linear-attacker.json, which bench/linear-attacker.mjs measures. What is proven is kept apart from all.
 */
import type { Figure } from 'scrim';
import { inspections, settings } from '../story-state.js';
import measured from './linear-attacker.json';

type Measured = Extract<Figure, { kind: 'measured' }>;
type Proven = Extract<Figure, { kind: 'proven' }>;

/** One setting on the curve. */
export interface TradeOff {
  readonly id: string;
  /** Average precision of the answer. */
  readonly accuracy: Measured | undefined;
  /** Likeness of what an attacker rebuilds, SSIM. */
  readonly attacker: Measured | undefined;
  readonly proven: readonly Proven[];
}

const ACCURACY_NOISY = 'FDDB average precision with noise';
const ACCURACY_CLEAN = 'FDDB average precision without noise';
/** What an audit's figure about rebuilt pictures is called. */
const AUDIT_SSIM = /^attack .*decoder.*: SSIM$/;
/** What the figures of the decoder in a bundle are called (cli's ship-decoder.ts). */
const SHIPPED_SSIM = 'shipped decoder: SSIM';
const SHIPPED_CLEAN_SSIM = 'shipped decoder, no noise: SSIM';

/** A bound above this allows to tell any of a million people from the others; it rules nothing out. */
export const VACUOUS_NATS: number = Math.log(1_000_000);

/** What is known of every setting, in the order of the slider. Bundles that were not read yet have nothing. */
export function tradeOffs(): TradeOff[] {
  const all = [...inspections.value.values()];
  return settings.value.map((id) => {
    if (id === 'clean') {
      const accuracy = all.flatMap(({ figures }) => figures).find(isMeasured(ACCURACY_CLEAN));
      // The page's attacker without noise is that of the first bundle.
      const first = inspections.value.get(settings.value[1] ?? '')?.figures.find(isMeasured(SHIPPED_CLEAN_SSIM));
      return { id, accuracy, attacker: first ?? attackerOf('clean'), proven: [] };
    }
    const figures = inspections.value.get(id)?.figures ?? [];
    const audited = figures.find(
      (figure): figure is Measured => figure.kind === 'measured' && AUDIT_SSIM.test(figure.name),
    );
    return {
      id,
      accuracy: figures.find(isMeasured(ACCURACY_NOISY)),
      attacker: audited ?? figures.find(isMeasured(SHIPPED_SSIM)) ?? attackerOf(id),
      proven: figures.filter((figure): figure is Proven => figure.kind === 'proven'),
    };
  });
}

function isMeasured(name: string): (figure: Figure) => figure is Measured {
  return (figure): figure is Measured => figure.kind === 'measured' && figure.name === name;
}

function attackerOf(id: string): Measured | undefined {
  const point = (measured.points as { id: string; mean: number; sd: number }[]).find(
    (candidate) => candidate.id === id,
  );
  if (!point) return undefined;
  return {
    kind: 'measured',
    name: measured.name,
    value: point.mean,
    sd: point.sd,
    data: measured.data,
    sampleSize: measured.sampleSize,
    machine: measured.machine,
    command: measured.command,
  };
}
