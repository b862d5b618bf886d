/** Attackers that read releases directly, on synthetic activations: they succeed where they must, and say so where not. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto, createNodeEngine } from '../node/index.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { float32 } from '../tensor.js';
import type { AttackRecord } from './attack.js';
import { dealFolds, type NetworkTarget, runAttributeAttack } from './attribute.js';
import { runIdentityAttack } from './identity.js';
import { runLinkageAttack } from './linkage.js';
import { collectVectorData, runVectorRegression, type VectorSample } from './vector-regression.js';

let engine: Engine;
beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1, thread: 'inline' });
});
afterAll(() => engine.close());

const crypto = createNodeCrypto();

function parameters(channels: number, sigma: number): DiagonalParameters {
  const fill = (value: number): Float32Array => new Float32Array(channels).fill(value);
  return {
    kind: 'per-channel',
    shape: [channels],
    gain: fill(1),
    mean: fill(0),
    sigma: fill(sigma),
    clipLow: fill(-8),
    clipHigh: fill(8),
    variance: fill(1),
  };
}

const target = (channels: number, sigma: number): NetworkTarget => ({
  engine,
  parameters: parameters(channels, sigma),
  bundleHash: 'a'.repeat(64),
  alpha: 0.8,
});

const SHAPE = [3, 6, 6] as const;
const SIZE = 3 * 6 * 6;

/** `count` photos of each of some people: a pattern of the person, a pattern of the label, and a change of the photo. */
function photos(people: number, count: number, seed: string): AttackRecord[] {
  const draw = (name: string, scale: number): Float32Array => {
    const values = new Float32Array(SIZE);
    createFitRandom(name).normal(values);
    return values.map((value) => value * scale);
  };
  const records: AttackRecord[] = [];
  for (let p = 0; p < people; p++) {
    const label = p % 2 === 0 ? 'yes' : 'no';
    const [own, kind] = [draw(`person ${p}`, 1), draw(`label ${label}`, 1)];
    for (let n = 0; n < count; n++) {
      const change = draw(`${seed} ${p} ${n}`, 0.3);
      records.push({
        id: `${seed}-${p}-${n}`,
        activation: own.map((value, i) => value + kind[i]! + change[i]!),
        picture: new Uint8Array(0),
        person: `person ${p}`,
        attributes: { glasses: label },
      });
    }
  }
  return records;
}

const QUICK = { steps: 60, batchSize: 12, width: 6, minSteps: 50, minSamples: 20, learningRate: 5e-3 };

describe('runAttributeAttack', () => {
  it('tells a label of people it has not seen, with little noise', async () => {
    const result = await runAttributeAttack(
      { target: target(3, 0.3), data: { shape: SHAPE, records: photos(24, 3, 'a') }, attribute: 'glasses', crypto },
      { ...QUICK, folds: 2 },
    );
    expect(result.values[0]!.mean).toBeGreaterThan(0.85);
    expect(result.values[1]!.name).toBe('balanced accuracy');
    expect(result.live).toBe(true);
    expect(result.trusted).toBe(true);
    expect(result.baselines.map(({ name, kind }) => [name, kind])).toEqual([
      ['most frequent label', 'floor'],
      ['clean activation', 'ceiling'],
    ]);
  });

  it('reports a failed attack under heavy noise, and a run that is too short', async () => {
    const result = await runAttributeAttack(
      { target: target(3, 200), data: { shape: SHAPE, records: photos(24, 3, 'a') }, attribute: 'glasses', crypto },
      { ...QUICK, steps: 30, folds: 2 },
    );
    expect(result.values[0]!.mean).toBeLessThan(0.75);
    expect(result.live).toBe(false);
    expect(result.liveReason).toMatch(/failed; that is no proof of privacy/);
    expect(result.trusted).toBe(false);
    expect(result.trustedReason).toMatch(/too short/);
  });

  it('names an attribute without two labels', async () => {
    const data = { shape: SHAPE, records: photos(4, 2, 'b') };
    await expect(
      runAttributeAttack({ target: target(3, 1), data, attribute: 'hat', crypto }, QUICK),
    ).rejects.toThrowError(/'hat' has 0 labels/);
  });

  it('deals whole people to folds, each with its share of each label', () => {
    const answers = Array.from({ length: 60 }, (_, i) => (i < 40 ? 0 : 1));
    const groups = answers.map((_, i) => `p${Math.floor(i / 2)}`);
    const folds = dealFolds(answers, groups, 5, 'seed');
    for (let i = 0; i < 60; i += 2) expect(folds[i]).toBe(folds[i + 1]);
    for (let f = 0; f < 5; f++) {
      const inside = answers.filter((_, i) => folds[i] === f);
      expect(inside).toHaveLength(12);
      expect(inside.filter((answer) => answer === 1)).toHaveLength(4);
    }
  });
});

describe('runIdentityAttack', () => {
  it('recognises people from releases of their other photos, and not through noise that hides them', async () => {
    const train = { shape: SHAPE, records: photos(8, 4, 'train') };
    const test = { records: photos(8, 2, 'test') };
    const seen = await runIdentityAttack({ target: target(3, 0.3), train, test, crypto }, QUICK);
    expect(seen.values[0]!.name).toBe('right person among 8');
    expect(seen.values[0]!.mean).toBeGreaterThan(0.8);
    expect(seen.live).toBe(true);
    const hidden = await runIdentityAttack({ target: target(3, 300), train, test, crypto }, QUICK);
    expect(hidden.values[0]!.mean).toBeLessThan(0.5);
    expect(hidden.live).toBe(false);
  });

  it('asks for people who are in both sets', async () => {
    const train = { shape: SHAPE, records: photos(1, 4, 'train') };
    await expect(runIdentityAttack({ target: target(3, 1), train, test: train, crypto }, QUICK)).rejects.toThrowError(
      /1 people/,
    );
  });
});

describe('runLinkageAttack', () => {
  const records = photos(60, 1, 'album');
  const data = { shape: SHAPE, records };

  it('links releases to photos with moderate noise, and fails under noise that hides everything', async () => {
    const linked = await runLinkageAttack({ target: target(3, 1), data, crypto });
    expect(linked.values[0]!.mean).toBeGreaterThan(0.95);
    expect(linked.live).toBe(true);
    expect(linked.trusted).toBe(true);
    const hidden = await runLinkageAttack({ target: target(3, 500), data, crypto });
    expect(hidden.values[0]!.mean).toBeLessThan(0.2);
    expect(hidden.live).toBe(false);
  });

  it('sees through a brighter copy by its high-pass features, and through a channel the copy spoils by learning', async () => {
    const bright = (activation: Float32Array, by: number): Float32Array =>
      activation.map((value, i) => (i < 36 ? value + by : value));
    const shifts = createFitRandom('shifts');
    const copies = records.map((record) => ({
      ...record,
      activation: bright(record.activation, 6 * shifts.uniform() - 3),
    }));
    const fit = photos(40, 1, 'own').map(({ activation }) => activation);
    const result = await runLinkageAttack({
      target: target(3, 0.5),
      data,
      candidates: { name: 'brighter copies', data: { shape: SHAPE, records: copies } },
      fit: { photos: fit, copies: fit.map((activation) => bright(activation, 6 * shifts.uniform() - 3)) },
      crypto,
    });
    const of = (name: string): number => result.values.find((value) => value.name.endsWith(name))!.mean;
    expect(of('high-pass likelihood')).toBeGreaterThan(of(', likelihood'));
    expect(of('learned embedding')).toBeGreaterThan(of(', likelihood'));
    expect(result.name).toBe('linkage, brighter copies');
  });
});

describe('runVectorRegression', () => {
  /** Rows of 6 columns that depend on 3 hidden numbers; the head is a linear map to 5. */
  const rows = function* (count: number, seed: string): Generator<VectorSample> {
    const random = createFitRandom(seed);
    for (let n = 0; n < count; n++) {
      const hidden = new Float32Array(3);
      random.normal(hidden);
      const values = Float32Array.from({ length: 6 }, (_, i) => hidden[i % 3]! * (1 + i) + 2);
      yield { id: `${seed} ${n}`, input: float32([1, 6], values) };
    }
  };
  const head = {
    input: 'x',
    cut: 'z',
    headSession: {
      run: async (feeds: Readonly<Record<string, { readonly data: unknown }>>) => {
        const x = feeds.x!.data as Float32Array;
        const z = Float32Array.from({ length: 5 }, (_, j) => 0.2 * (x[j]! - 2) + 0.05 * (x[(j + 1) % 6]! - 2));
        return { z: float32([1, 5], z) };
      },
    },
  };

  it('rebuilds rows without noise, some of them with it, and fails where all is noise', async () => {
    const train = await collectVectorData(head, rows(300, 'train'));
    const test = await collectVectorData(head, rows(80, 'test'));
    expect(train.shape).toEqual([5, 1, 1]);
    const settings = { ...QUICK, steps: 250 };
    const weak = await runVectorRegression({ target: target(5, 0.1), train, test, crypto }, settings);
    const strong = await runVectorRegression({ target: target(5, 1), train, test, crypto }, settings);
    const hidden = await runVectorRegression({ target: target(5, 300), train, test, crypto }, settings);
    const [a, b, c] = [weak, strong, hidden].map((result) => result.values[0]!.mean);
    expect(a).toBeGreaterThan(0.9);
    expect(b).toBeLessThan(a!);
    expect(b).toBeGreaterThan(c!);
    expect([weak.live, strong.live, hidden.live]).toEqual([true, true, false]);
    expect(weak.baselines[0]!.values[0]!.mean).toBeCloseTo(0, 5);
  });

  it('refuses rows it was trained on', async () => {
    const train = await collectVectorData(head, rows(10, 'train'));
    await expect(runVectorRegression({ target: target(5, 1), train, test: train, crypto }, QUICK)).rejects.toThrowError(
      /both trained on and tried/,
    );
  });
});
