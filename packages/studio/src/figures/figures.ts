/**
 * Which figures of the bundles' manifests the page plots: accuracy, and an attacker's success. Of attackers the strongest
 * that half of the bundles have a figure of, so that one curve shows one attacker: that of an audit, else the decoder that
 * is shipped with the bundle, else the linear one. What is proven is kept apart from both.
 */
import type { Figure } from 'scrim';
import { inspections, settings } from '../story-state.js';
import type { Inspection } from '../work/messages.js';

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

/** Names of an attacker's figures, with noise and without; bench/shipped-attackers.mjs and 'scrim audit' write them. */
const ATTACKERS: readonly { readonly noisy: string; readonly clean: string }[] = [
  { noisy: 'attack decoder T: SSIM', clean: 'attack decoder T, no noise: SSIM' },
  { noisy: 'shipped decoder: SSIM', clean: 'shipped decoder, no noise: SSIM' },
  { noisy: 'linear attacker: SSIM', clean: 'linear attacker, no noise: SSIM' },
];

/** A bound above this allows to tell any of a million people from the others; it rules nothing out. */
export const VACUOUS_NATS: number = Math.log(1_000_000);

/** What is known of every setting, in the order of the slider. Bundles that were not read yet have nothing. */
export function tradeOffs(): TradeOff[] {
  const all = settings.value.flatMap((id) => inspections.value.get(id) ?? []);
  const attacker =
    ATTACKERS.find(({ noisy }) => 2 * all.filter((bundle) => measured(bundle, noisy)).length >= all.length) ??
    ATTACKERS.find(({ noisy }) => all.some((bundle) => measured(bundle, noisy)));
  return settings.value.map((id) => {
    if (id === 'clean') {
      // Without noise the page shows the attacker of the first bundle. Who gets no noise may add what it was trained with.
      const accuracy = all.flatMap((bundle) => measured(bundle, ACCURACY_CLEAN) ?? [])[0];
      const without = [measured(all[0], attacker?.clean), measured(all[0], attacker?.noisy)];
      return { id, accuracy, attacker: highest(without), proven: [] };
    }
    const bundle = inspections.value.get(id);
    return {
      id,
      accuracy: measured(bundle, ACCURACY_NOISY),
      attacker: measured(bundle, attacker?.noisy),
      proven: bundle?.figures.filter((figure): figure is Proven => figure.kind === 'proven') ?? [],
    };
  });
}

function highest(figures: readonly (Measured | undefined)[]): Measured | undefined {
  return figures.flatMap((figure) => figure ?? []).sort((a, b) => b.value - a.value)[0];
}

function measured(bundle: Inspection | undefined, name: string | undefined): Measured | undefined {
  return bundle?.figures.find((figure): figure is Measured => figure.kind === 'measured' && figure.name === name);
}
