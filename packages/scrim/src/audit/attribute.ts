/**
 * Attack 5 of the audit: a property of what is in the input, told straight from its release.
 *
 * Nothing is rebuilt: a network learns attributes (glasses, age group, a diagnosis) from labelled releases. Samples are
 * dealt to folds, whole people at a time where people are named, and each fold is answered by a network that saw none of
 * it. Beside it stand the most frequent label (the floor) and the same network on clean activations (the ceiling).
 */
import { assertArgument, ScrimError } from '../errors.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import type { AttackBaseline, AttackCurve, AttackData, AttackHooks, AttackResult, AttackTarget } from './attack.js';
import { createReleaseSource, createTrainingNoise } from './attack-releases.js';
import { judgeLiveness } from './attack-result.js';
import { rankValue } from './re-identification-scores.js';
import { completeNetworkSettings, type ReleaseNetworkSettings, trainReleaseNetwork } from './release-network.js';

/** What the attribute attack needs of a target. */
export type NetworkTarget = Pick<AttackTarget, 'engine' | 'parameters' | 'bundleHash' | 'alpha'>;

/** What an attack by a network on releases is run on. */
export interface AttributeAttackInput {
  readonly target: NetworkTarget;
  /** Only records that have the attribute are used; the others' pictures may be empty. */
  readonly data: Pick<AttackData, 'shape' | 'records'>;
  /** Key of `attributes` of the records. */
  readonly attribute: string;
  readonly crypto: NoiseCrypto;
  /** Default 'audit'. */
  readonly seed?: string;
}

/** Settings of {@link runAttributeAttack}. */
export interface AttributeAttackSettings extends ReleaseNetworkSettings {
  /** Default 5, or as many as there are people or samples. */
  readonly folds?: number;
}

/** Fewest samples of a label; rarer ones are left out. */
const LEAST_SAMPLES = 4;

/**
 * Runs the attack.
 * @throws ScrimError INVALID_DATA unless two labels have at least four samples each; as `trainReleaseNetwork`
 */
export async function runAttributeAttack(
  input: AttributeAttackInput,
  settings: AttributeAttackSettings = {},
  hooks: AttackHooks = {},
): Promise<AttackResult> {
  const { target, data, attribute, crypto, seed = 'audit' } = input;
  const labelled = data.records.filter(({ attributes }) => attributes?.[attribute] !== undefined);
  const counts = new Map<string, number>();
  for (const { attributes } of labelled) {
    const label = attributes![attribute]!;
    counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  const classes = [...counts].filter(([, count]) => count >= LEAST_SAMPLES).map(([label]) => label);
  if (classes.length < 2) {
    throw new ScrimError(
      'INVALID_DATA',
      `attribute '${attribute}' has ${classes.length} labels with at least ${LEAST_SAMPLES} samples, expected two or more`,
    );
  }
  const records = labelled.filter(({ attributes }) => classes.includes(attributes![attribute]!));
  const answers = records.map(({ attributes }) => classes.indexOf(attributes![attribute]!));
  const groups = records.map(({ person, id }) => person ?? id);
  const { folds = 5 } = settings;
  const fold = dealFolds(answers, groups, folds, seed);
  const hits = new Array<number>(records.length).fill(0);
  const cleanHits = new Array<number>(records.length).fill(0);
  const floorHits = new Array<number>(records.length).fill(0);
  const curves: AttackCurve[] = [];
  let trust = { trusted: true, trustedReason: '' };
  const source = await createReleaseSource(
    target,
    data.shape,
    { mode: 'replay', seed: `${seed} ${attribute}` },
    crypto,
  );
  const quiet = createTrainingNoise(target.parameters, data.shape, createFitRandom('clean'));
  const used = Math.max(...fold) + 1;
  try {
    for (let f = 0; f < used; f++) {
      const [inside, outside] = [true, false].map((test) =>
        [...records.keys()].filter((i) => (fold[i] === f) === test),
      ) as [number[], number[]];
      const majority = mostFrequent(outside.map((i) => answers[i]!));
      for (const i of inside) floorHits[i] = answers[i] === majority ? 1 : 0;
      for (const clean of [false, true]) {
        const network = await trainReleaseNetwork(
          {
            engine: target.engine,
            parameters: target.parameters,
            shape: data.shape,
            activations: outside.map((i) => records[i]!.activation),
            question: { kind: 'class', classes: classes.length, answers: outside.map((i) => answers[i]!) },
            clean,
            seed: `${seed} ${attribute} ${f}`,
            attack: `${attribute}, fold ${f + 1} of ${used}${clean ? ', clean' : ''}`,
          },
          settings,
          hooks,
        );
        try {
          const releases: Float32Array[] = [];
          for (const i of inside) {
            const { activation } = records[i]!;
            releases.push(clean ? withoutNoise(quiet, activation) : await source.draw(activation));
          }
          (await network.predict(releases)).forEach((probabilities, n) => {
            const i = inside[n]!;
            (clean ? cleanHits : hits)[i] = indexOfLargest(probabilities) === answers[i] ? 1 : 0;
          });
        } finally {
          await network.close();
        }
        if (f === 0) curves.push(network.curve);
        if (!clean && (f === 0 || !network.trusted)) trust = network;
      }
    }
  } finally {
    source.close();
  }
  const frequency = classes.map((_, c) => answers.filter((answer) => answer === c).length);
  /** Weighted so that every label counts the same: the mean is the balanced accuracy. */
  const balance = (list: readonly number[]): number[] =>
    list.map((hit, i) => (hit * records.length) / (classes.length * frequency[answers[i]!]!));
  const values = (list: readonly number[]): AttackResult['values'] => [
    rankValue('accuracy', list, groups, 'accuracy'),
    rankValue('balanced accuracy', balance(list), groups, 'balanced'),
  ];
  const baselines: AttackBaseline[] = [
    { name: 'most frequent label', kind: 'floor', values: values(floorHits) },
    { name: 'clean activation', kind: 'ceiling', values: values(cleanHits) },
  ];
  const { live, reason } = judgeLiveness({
    name: 'the network',
    attack: [hits],
    floors: [{ name: 'most frequent label', values: floorHits }],
    ceiling: { name: 'clean activation', values: cleanHits },
    margin: 0.05,
  });
  const { steps, batchSize, learningRate, width } = completeNetworkSettings(settings);
  return {
    name: `attribute ${attribute}`,
    description: `A network trained on releases tells '${attribute}' of inputs (and people) it has not seen, without rebuilding anything.`,
    values: values(hits),
    baselines,
    samples: records.length,
    trainedOn: Math.round((records.length * (used - 1)) / used),
    live,
    liveReason: reason,
    trusted: trust.trusted,
    trustedReason: trust.trustedReason,
    settings: { labels: classes.length, folds: used, steps, batchSize, learningRate, width },
    pictures: [],
    curves,
  };
}

/**
 * Deals samples to folds, whole groups at a time, so that each fold gets about its share of each answer.
 * @returns the fold of each sample
 */
export function dealFolds(
  answers: readonly number[],
  groups: readonly string[],
  folds: number,
  seed: string,
): number[] {
  assertArgument(Number.isInteger(folds) && folds >= 2, `folds is ${folds}, expected an integer ≥ 2`);
  const members = new Map<string, number[]>();
  groups.forEach((group, i) => {
    members.set(group, [...(members.get(group) ?? []), i]);
  });
  const used = Math.min(folds, members.size);
  if (used < 2) throw new ScrimError('INVALID_DATA', 'all samples are of one person: there is nobody to try it on');
  const random = createFitRandom(`folds ${seed}`);
  const order = [...members.keys()].sort().map((name) => ({ name, place: random.uniform() }));
  // Groups of the same first answer in a row, in random order within: dealing them round gives each fold its share.
  order.sort((a, b) => answers[members.get(a.name)![0]!]! - answers[members.get(b.name)![0]!]! || a.place - b.place);
  const fold = new Array<number>(answers.length).fill(0);
  order.forEach(({ name }, n) => {
    for (const i of members.get(name)!) fold[i] = n % used;
  });
  return fold;
}

/** A clean activation through gain and clip, as networks for clean activations are trained on. */
export function withoutNoise(noise: ReturnType<typeof createTrainingNoise>, activation: Float32Array): Float32Array {
  const out = new Float32Array(activation.length);
  noise.apply(activation, out, 0, 0);
  return out;
}

/** Place of the largest number, the first of equals. */
export function indexOfLargest(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

function mostFrequent(answers: readonly number[]): number {
  const counts: number[] = [];
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return indexOfLargest(Array.from(counts, (count) => count ?? 0));
}
