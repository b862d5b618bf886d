/**
 * Attack 6 of the audit: inputs that are vectors (a row of a table, features of a sensor) regressed from their releases.
 *
 * A network learns input from release with fresh noise in every step and is tried on rows it has not seen. The floor is
 * the mean row, the ceiling the same network on clean activations. Success is the share of the input's variance that
 * is explained, each column in units of its own deviation: 0 for the mean, 1 for the input itself.
 */
import type { Engine, Session } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import { expectType, type Tensor } from '../tensor.js';
import type { AttackData, AttackHooks, AttackRecord, AttackResult, AttackTarget } from './attack.js';
import { createReleaseSource, createTrainingNoise } from './attack-releases.js';
import { judgeLiveness, summarizeValue } from './attack-result.js';
import { type NetworkTarget, withoutNoise } from './attribute.js';
import { completeNetworkSettings, type ReleaseNetworkSettings, trainReleaseNetwork } from './release-network.js';

/** An input that is a vector, after the head. */
export interface VectorRecord extends Pick<AttackRecord, 'id' | 'activation' | 'person' | 'attributes'> {
  readonly values: Float32Array;
}

/** Inputs that are vectors, after the head. */
export interface VectorData {
  /** [D, 1, 1] of the cut, or [C, H, W] where the head makes one of a vector. */
  readonly shape: AttackData['shape'];
  readonly records: readonly VectorRecord[];
}

/** A row to release. */
export interface VectorSample {
  readonly id: string;
  /** float32 [1, D]. */
  readonly input: Tensor;
  readonly person?: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

/**
 * Runs the head over rows. A cut of [1, D] counts as [1, D, 1, 1].
 * @throws ScrimError INVALID_DATA for no rows; UNSUPPORTED for a cut that is neither a vector nor an image
 */
export async function collectVectorData(
  target: Pick<AttackTarget, 'input' | 'cut'> & { readonly headSession: Pick<Session, 'run'> },
  samples: Iterable<VectorSample> | AsyncIterable<VectorSample>,
): Promise<VectorData> {
  const records: VectorRecord[] = [];
  let shape: AttackData['shape'] | undefined;
  for await (const { input, ...rest } of samples) {
    const values = expectType(input, 'float32', `the input of '${rest.id}'`).data;
    const { [target.cut]: cut } = await target.headSession.run({ [target.input]: input });
    const activation = expectType(cut as Tensor, 'float32', 'the activation');
    const [batch, channels = 0, height = 1, width = 1, ...more] = activation.shape;
    if (batch !== 1 || channels === 0 || more.length > 0) {
      throw new ScrimError('UNSUPPORTED', `the cut has shape [${activation.shape.join(', ')}], expected [1, D]`);
    }
    shape ??= [channels, height, width];
    records.push({ ...rest, activation: activation.data, values: values.slice() });
  }
  if (shape === undefined) throw new ScrimError('INVALID_DATA', 'there are no rows to attack');
  return { shape, records };
}

/** What {@link runVectorRegression} is run on. */
export interface VectorAttackInput {
  readonly target: NetworkTarget & { readonly engine: Engine };
  readonly train: VectorData;
  /** Rows it is tried on. None may be in `train`. */
  readonly test: VectorData;
  readonly crypto: NoiseCrypto;
  /** Default 'audit'. */
  readonly seed?: string;
}

/**
 * Runs the attack.
 * @throws ScrimError INVALID_ARGUMENT if a row is in both sets or they differ in shape; as `trainReleaseNetwork`
 */
export async function runVectorRegression(
  input: VectorAttackInput,
  settings: ReleaseNetworkSettings = {},
  hooks: AttackHooks = {},
): Promise<AttackResult> {
  const { target, train, test, crypto, seed = 'audit' } = input;
  const ids = new Set(train.records.map(({ id }) => id));
  const repeated = test.records.find(({ id }) => ids.has(id));
  assertArgument(repeated === undefined, `row '${repeated?.id}' is both trained on and tried`);
  assertArgument(
    String(train.shape) === String(test.shape) && test.records.length > 0,
    `rows to try have shape [${test.shape.join(', ')}], rows to train on [${train.shape.join(', ')}]`,
  );
  const scale = columnScale(train.records);
  const error = (guess: Float32Array, { values }: VectorRecord): number =>
    values.reduce((sum, value, i) => sum + ((value - guess[i]!) / scale.deviation[i]!) ** 2, 0) / values.length;
  const base = test.records.map((record) => error(scale.mean, record));
  const meanError = base.reduce((a, b) => a + b, 0) / base.length;
  assertArgument(meanError > 0, 'every row to try is the mean row: there is nothing to explain');
  const source = await createReleaseSource(target, train.shape, { mode: 'replay', seed: `${seed} vector` }, crypto);
  const quiet = createTrainingNoise(target.parameters, train.shape, createFitRandom('clean'));
  const run = async (clean: boolean) => {
    const network = await trainReleaseNetwork(
      {
        engine: target.engine,
        parameters: target.parameters,
        shape: train.shape,
        activations: train.records.map(({ activation }) => activation),
        question: { kind: 'numbers', answers: train.records.map(({ values }) => values) },
        clean,
        seed: `${seed} vector`,
        attack: `regression of the input${clean ? ', clean' : ''}`,
      },
      settings,
      hooks,
    );
    try {
      const releases: Float32Array[] = [];
      for (const { activation } of test.records) {
        releases.push(clean ? withoutNoise(quiet, activation) : await source.draw(activation));
      }
      const guesses = await network.predict(releases);
      return { network, explained: guesses.map((guess, i) => 1 - error(guess, test.records[i]!) / meanError) };
    } finally {
      await network.close();
    }
  };
  try {
    const noisy = await run(false);
    const clean = await run(true);
    const floor = base.map((value) => 1 - value / meanError);
    const kind = { name: 'explained variance', unit: '', better: 'higher' } as const;
    const { live, reason } = judgeLiveness({
      name: 'the regression',
      attack: [noisy.explained],
      floors: [{ name: 'mean row', values: floor }],
      ceiling: { name: 'clean activation', values: clean.explained },
    });
    const { steps, batchSize, learningRate, width } = completeNetworkSettings(settings);
    return {
      name: 'regression of the input',
      description: 'A network trained to turn releases back into the rows they were made of.',
      values: [summarizeValue(kind, [noisy.explained])],
      baselines: [
        { name: 'mean row', kind: 'floor', values: [summarizeValue(kind, [floor])] },
        { name: 'clean activation', kind: 'ceiling', values: [summarizeValue(kind, [clean.explained])] },
      ],
      samples: test.records.length,
      trainedOn: train.records.length,
      live,
      liveReason: reason,
      trusted: noisy.network.trusted,
      trustedReason: noisy.network.trustedReason,
      settings: { columns: scale.mean.length, steps, batchSize, learningRate, width },
      pictures: [],
      curves: [noisy.network.curve, clean.network.curve],
    };
  } finally {
    source.close();
  }
}

/** Mean and deviation of each column; 1 where a column never changes. */
function columnScale(records: readonly VectorRecord[]): { mean: Float32Array; deviation: Float32Array } {
  const columns = records[0]?.values.length ?? 0;
  const [sums, squares] = [new Float64Array(columns), new Float64Array(columns)];
  for (const { values } of records) {
    values.forEach((value, i) => {
      sums[i]! += value;
      squares[i]! += value * value;
    });
  }
  const mean = Float32Array.from(sums, (sum) => sum / records.length);
  const deviation = Float32Array.from(squares, (square, i) => {
    const sd = Math.sqrt(Math.max(0, square / records.length - mean[i]! ** 2));
    return sd < 1e-8 ? 1 : sd;
  });
  return { mean, deviation };
}
