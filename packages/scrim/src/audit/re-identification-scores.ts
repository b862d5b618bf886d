/**
 * How well scores between probes and gallery photos tell people apart, with intervals over people.
 *
 * Pairs share people, so they are no independent samples: the bootstrap draws people with replacement and weighs each
 * pair by how often its people were drawn (the two-sample "vertex bootstrap" of T. Snijders and S. Borgatti, 1999). A
 * pair of one photo with itself is left out. Ties count half.
 */
import { assertArgument } from '../errors.js';
import { proportionInterval, rankOneRate, rocAuc, tarAtFar } from '../metrics/index.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import type { AttackValue } from './attack.js';

/** Scores of probes (what an attacker rebuilt) against gallery photos. */
export interface FaceScores {
  /** Row-major [probes, gallery]; higher is more alike. */
  readonly scores: Float64Array;
  readonly probePeople: readonly string[];
  readonly galleryPeople: readonly string[];
  /** By probe, the gallery entry of the same photo, or −1: never compared. */
  readonly same: readonly number[];
}

/** False accept rate that true accepts are reported at. */
export const FALSE_ACCEPTS = 1e-2;
const RESAMPLES = 400;

/**
 * Verification AUC, true accepts at a false accept rate of 1%, and rank 1 among one photo of each person.
 * @throws ScrimError INVALID_ARGUMENT unless some person has a second photo and there are two people
 */
export function summarizeFaceScores(input: FaceScores, seed = 'people'): AttackValue[] {
  const pairs = collectPairs(input);
  const people = pairs.people.length;
  const genuine = pairs.genuine.filter((value) => value === 1).length;
  assertArgument(
    genuine > 0 && genuine < pairs.genuine.length,
    `${genuine} pairs of photos show one person and ${pairs.genuine.length - genuine} two: verification needs both`,
  );
  const random = createFitRandom(seed);
  const weights = new Float64Array(people);
  const aucs: number[] = [];
  const tars: number[] = [];
  for (let r = 0; r < RESAMPLES; r++) {
    weights.fill(0);
    for (let i = 0; i < people; i++) weights[random.integer(people)]!++;
    const drawn = weightedRates(pairs, weights);
    if (drawn) {
      aucs.push(drawn.auc);
      tars.push(drawn.tar);
    }
  }
  const [same, other] = [1, 0].map((kind) =>
    Float64Array.from(pairs.scores.filter((_, i) => pairs.genuine[i] === kind)),
  );
  const ranks = rankByProbe(input);
  const value = (name: string, mean: number, drawn: number[]): AttackValue => ({
    name,
    unit: '',
    better: 'higher',
    mean,
    interval: { estimate: mean, ...percentiles(drawn, mean), level: 0.95, samples: people },
    samples: input.probePeople.length,
    seeds: 1,
  });
  return [
    value('verification AUC', rocAuc(same!, other!), aucs),
    value('TAR at FAR 1e-2', tarAtFar(same!, other!, FALSE_ACCEPTS).tar, tars),
    rankValue('rank 1', ranks.hits, ranks.people, `${seed} rank`),
  ];
}

/** Expected rank-1 hits of each probe among one photo of each person, and who the probe shows. */
function rankByProbe(input: FaceScores): { hits: number[]; people: string[] } {
  const { scores, probePeople, galleryPeople, same } = input;
  const columns = galleryPeople.length;
  const hits: number[] = [];
  const people: string[] = [];
  probePeople.forEach((person, p) => {
    // The first photo of each person that is not the probe's own.
    const chosen = new Map<string, number>();
    galleryPeople.forEach((name, g) => {
      if (g !== same[p] && !chosen.has(name)) chosen.set(name, g);
    });
    if (!chosen.has(person)) return;
    const row = [...chosen.values()].map((g) => scores[p * columns + g]!);
    hits.push(rankOneRate({ scores: row, queryLabels: [person], galleryLabels: [...chosen.keys()] }));
    people.push(person);
  });
  return { hits, people };
}

/** The mean of hits with a bootstrap over people (or photos, where each has a name of its own). */
export function rankValue(name: string, hits: readonly number[], people: readonly string[], seed: string): AttackValue {
  assertArgument(hits.length > 0 && hits.length === people.length, `${hits.length} hits of ${people.length} probes`);
  const byPerson = new Map<string, number[]>();
  hits.forEach((hit, i) => {
    byPerson.set(people[i]!, [...(byPerson.get(people[i]!) ?? []), hit]);
  });
  const groups = [...byPerson.values()];
  const random = createFitRandom(seed);
  const drawn = Array.from({ length: RESAMPLES }, () => {
    let [sum, count] = [0, 0];
    for (let i = 0; i < groups.length; i++) {
      const group = groups[random.integer(groups.length)]!;
      for (const hit of group) sum += hit;
      count += group.length;
    }
    return sum / count;
  });
  const mean = hits.reduce((a, b) => a + b, 0) / hits.length;
  let { low, high } = percentiles(drawn, mean);
  // Where all failed, or all succeeded, resampling sees no spread: the exact interval for as many people does.
  if (hits.every((hit) => hit === 0)) high = proportionInterval(0, groups.length).high;
  if (hits.every((hit) => hit === 1)) low = proportionInterval(groups.length, groups.length).low;
  return {
    name,
    unit: '',
    better: 'higher',
    mean,
    interval: { estimate: mean, low, high, level: 0.95, samples: groups.length },
    samples: hits.length,
    seeds: 1,
  };
}

interface Pairs {
  readonly people: readonly string[];
  /** Ascending. */
  readonly scores: Float64Array;
  readonly genuine: Uint8Array;
  readonly first: Uint32Array;
  readonly second: Uint32Array;
}

function collectPairs({ scores, probePeople, galleryPeople, same }: FaceScores): Pairs {
  const [rows, columns] = [probePeople.length, galleryPeople.length];
  assertArgument(
    scores.length === rows * columns && same.length === rows,
    `there are ${scores.length} scores for ${rows} probes and ${columns} gallery photos`,
  );
  const people = [...new Set([...probePeople, ...galleryPeople])];
  const place = new Map(people.map((name, i) => [name, i]));
  const order: number[] = [];
  for (let p = 0; p < rows; p++) for (let g = 0; g < columns; g++) if (same[p] !== g) order.push(p * columns + g);
  const sorted = Uint32Array.from(order).sort((a, b) => scores[a]! - scores[b]!);
  const personOf = (list: readonly string[], i: number): number => place.get(list[i]!)!;
  const first = Uint32Array.from(sorted, (at) => personOf(probePeople, Math.floor(at / columns)));
  const second = Uint32Array.from(sorted, (at) => personOf(galleryPeople, at % columns));
  return {
    people,
    scores: Float64Array.from(sorted, (at) => scores[at]!),
    genuine: Uint8Array.from(first, (person, i) => (person === second[i] ? 1 : 0)),
    first,
    second,
  };
}

/** AUC and TAR of weighted pairs; undefined where one kind has no weight. One pass from the lowest score up. */
function weightedRates(pairs: Pairs, weights: Float64Array): { auc: number; tar: number } | undefined {
  const { scores, genuine, first, second } = pairs;
  let [same, other, wins] = [0, 0, 0];
  const steps: { same: number; other: number }[] = [];
  for (let i = 0; i < scores.length; ) {
    let [tiedSame, tiedOther] = [0, 0];
    const score = scores[i]!;
    for (; i < scores.length && scores[i] === score; i++) {
      const weight = genuine[i] === 1 ? weights[first[i]!]! : weights[first[i]!]! * weights[second[i]!]!;
      if (genuine[i] === 1) tiedSame += weight;
      else tiedOther += weight;
    }
    wins += tiedSame * (other + tiedOther / 2);
    same += tiedSame;
    other += tiedOther;
    steps.push({ same: tiedSame, other: tiedOther });
  }
  if (same === 0 || other === 0) return undefined;
  let [accepted, falsely] = [0, 0];
  for (let i = steps.length - 1; i >= 0; i--) {
    const step = steps[i]!;
    if (falsely + step.other > FALSE_ACCEPTS * other + 1e-9) break;
    falsely += step.other;
    accepted += step.same;
  }
  return { auc: wins / (same * other), tar: accepted / same };
}

/** The middle 95% of what was drawn; the estimate alone where nothing was. */
function percentiles(drawn: readonly number[], estimate: number): { low: number; high: number } {
  if (drawn.length === 0) return { low: estimate, high: estimate };
  const sorted = [...drawn].sort((a, b) => a - b);
  const at = (p: number): number => sorted[Math.round(p * (sorted.length - 1))]!;
  return { low: Math.min(at(0.025), estimate), high: Math.max(at(0.975), estimate) };
}
