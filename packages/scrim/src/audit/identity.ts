/**
 * Who is it, told straight from a release: a network trained on releases of other photos of the same people.
 *
 * The attacker has photos of everybody who may appear (a staff directory, a watch list) and makes as many releases of
 * them as it likes. Augmented copies of those photos are the caller's to give: head and noise are cheap. Nothing is
 * rebuilt and no face recognition network is used, so what beats chance here is in the release itself.
 */
import { ScrimError } from '../errors.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import type { AttackData, AttackHooks, AttackResult } from './attack.js';
import { createReleaseSource, createTrainingNoise } from './attack-releases.js';
import { judgeLiveness } from './attack-result.js';
import { indexOfLargest, type NetworkTarget, withoutNoise } from './attribute.js';
import { rankValue } from './re-identification-scores.js';
import { completeNetworkSettings, type ReleaseNetworkSettings, trainReleaseNetwork } from './release-network.js';

/** What {@link runIdentityAttack} is run on. `person` of the records says who they show. */
export interface IdentityAttackInput {
  readonly target: NetworkTarget;
  /** Photos the attacker has, augmented copies among them. */
  readonly train: Pick<AttackData, 'shape' | 'records'>;
  /** Other photos of the same people; of people who are not in `train` there may be none. */
  readonly test: Pick<AttackData, 'records'>;
  readonly crypto: NoiseCrypto;
  /** Default 'audit'. */
  readonly seed?: string;
}

/**
 * Runs the attack.
 * @throws ScrimError INVALID_DATA unless two people are in both sets; as `trainReleaseNetwork`
 */
export async function runIdentityAttack(
  input: IdentityAttackInput,
  settings: ReleaseNetworkSettings = {},
  hooks: AttackHooks = {},
): Promise<AttackResult> {
  const { target, train, crypto, seed = 'audit' } = input;
  const people = [...new Set(train.records.flatMap(({ person }) => person ?? []))].sort();
  const place = new Map(people.map((name, i) => [name, i]));
  const known = train.records.filter(({ person }) => person !== undefined);
  const tried = input.test.records.filter(({ person }) => person !== undefined && place.has(person));
  const both = new Set(tried.map(({ person }) => person)).size;
  if (both < 2) {
    throw new ScrimError(
      'INVALID_DATA',
      `${both} people are both on photos to train on and on others to try: expected at least two`,
    );
  }
  const answers = tried.map(({ person }) => place.get(person!)!);
  const names = tried.map(({ person }) => person!);
  const floorHits = answers.map(() => 1 / people.length);
  const source = await createReleaseSource(target, train.shape, { mode: 'replay', seed: `${seed} identity` }, crypto);
  const quiet = createTrainingNoise(target.parameters, train.shape, createFitRandom('clean'));
  const run = async (clean: boolean) => {
    const network = await trainReleaseNetwork(
      {
        engine: target.engine,
        parameters: target.parameters,
        shape: train.shape,
        activations: known.map(({ activation }) => activation),
        question: { kind: 'class', classes: people.length, answers: known.map(({ person }) => place.get(person!)!) },
        clean,
        seed: `${seed} identity`,
        attack: `identity classifier${clean ? ', clean' : ''}`,
      },
      settings,
      hooks,
    );
    try {
      const releases: Float32Array[] = [];
      for (const { activation } of tried) {
        releases.push(clean ? withoutNoise(quiet, activation) : await source.draw(activation));
      }
      const predicted = await network.predict(releases);
      return { network, hits: predicted.map((p, i) => (indexOfLargest(p) === answers[i] ? 1 : 0)) };
    } finally {
      await network.close();
    }
  };
  try {
    const noisy = await run(false);
    const clean = await run(true);
    const name = `right person among ${people.length}`;
    const { live, reason } = judgeLiveness({
      name: 'the classifier',
      attack: [noisy.hits],
      floors: [{ name: 'chance', values: floorHits }],
      ceiling: { name: 'clean activation', values: clean.hits },
      margin: 0.05,
    });
    const { steps, batchSize, learningRate, width } = completeNetworkSettings(settings);
    return {
      name: 'identity classifier on releases',
      description:
        'A network trained on releases of other photos of the same people says who is on a photo, without rebuilding it.',
      values: [rankValue(name, noisy.hits, names, 'identity')],
      baselines: [
        { name: 'chance', kind: 'floor', values: [rankValue(name, floorHits, names, 'identity')] },
        { name: 'clean activation', kind: 'ceiling', values: [rankValue(name, clean.hits, names, 'identity')] },
      ],
      samples: tried.length,
      trainedOn: known.length,
      live,
      liveReason: reason,
      trusted: noisy.network.trusted,
      trustedReason: noisy.network.trustedReason,
      settings: { people: people.length, steps, batchSize, learningRate, width },
      pictures: [],
      curves: [noisy.network.curve, clean.network.curve],
    };
  } finally {
    source.close();
  }
}
