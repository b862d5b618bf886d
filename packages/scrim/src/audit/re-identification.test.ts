import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { rocAuc, tarAtFar } from '../metrics/index.js';
import { createNodeEngine } from '../node/index.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { Graph } from '../onnx/index.js';
import { createFaceEmbedder, createImage, FACE_API_SPEC, type FaceEmbedder, type RgbImage } from '../vision/index.js';
import type { AttackData } from './attack.js';
import { type FaceAttackInput, runReidentification, runRightFace } from './re-identification.js';
import { summarizeFaceScores } from './re-identification-scores.js';

describe('summarizeFaceScores', () => {
  const PEOPLE = 12;
  const people = Array.from({ length: PEOPLE * 3 }, (_, i) => `p${i % PEOPLE}`);
  const score = (signal: number, seed: string) => {
    const random = createFitRandom(seed);
    const noise = new Float32Array(people.length ** 2);
    random.normal(noise);
    return {
      scores: Float64Array.from(noise, (value, i) => {
        const [p, g] = [Math.floor(i / people.length), i % people.length];
        return value + (people[p] === people[g] ? signal : 0);
      }),
      probePeople: people,
      galleryPeople: people,
      same: people.map((_, i) => i),
    };
  };

  it('agrees with the metrics over all pairs, leaving a photo out of its own comparisons', () => {
    const input = score(1.5, 'a');
    const [genuine, impostor]: [number[], number[]] = [[], []];
    people.forEach((p, i) => {
      people.forEach((g, j) => {
        if (i !== j) (p === g ? genuine : impostor).push(input.scores[i * people.length + j]!);
      });
    });
    const [auc, tar, rank] = summarizeFaceScores(input);
    expect(auc!.mean).toBeCloseTo(rocAuc(genuine, impostor), 12);
    expect(tar!.mean).toBeCloseTo(tarAtFar(genuine, impostor, 0.01).tar, 12);
    expect(auc!.interval.low).toBeLessThan(auc!.mean);
    expect(auc!.interval.high).toBeGreaterThan(auc!.mean);
    expect(rank!.mean).toBeGreaterThan(1 / PEOPLE);
  });

  it('covers chance where there is no signal, and is certain where there is nothing else', () => {
    let covered = 0;
    for (let i = 0; i < 10; i++) {
      const [auc] = summarizeFaceScores(score(0, `n${i}`));
      if (auc!.interval.low <= 0.5 && auc!.interval.high >= 0.5) covered++;
    }
    expect(covered).toBeGreaterThanOrEqual(8);
    const [auc, tar, rank] = summarizeFaceScores(score(100, 'sure'));
    expect([auc!.mean, tar!.mean, rank!.mean]).toEqual([1, 1, 1]);
    // Twelve of twelve people leave room for 26.5% (Clopper-Pearson).
    expect(rank!.interval.low).toBeCloseTo(0.025 ** (1 / 12), 6);
  });
});

describe('re-identification with an embedder of mean colours', () => {
  let engine: Engine;
  let embedder: FaceEmbedder;
  beforeAll(async () => {
    engine = await createNodeEngine({ threads: 1, thread: 'inline' });
    const graph = Graph.create({ name: 'mean colour', opset: 17 });
    graph.addInput('picture', 'float32', ['N', 3, 8, 8]);
    graph.add('ReduceMean', ['picture'], { axes: [2, 3], keepdims: 0 }, { outputs: ['vector'] });
    graph.addOutput('vector', 'float32', ['N', 3]);
    embedder = await createFaceEmbedder(engine, graph.encode(), {
      ...FACE_API_SPEC,
      side: 8,
      margin: 1,
      shift: 0,
      similarity: 'euclidean',
    });
  });
  afterAll(async () => {
    await embedder.close();
    await engine.close();
  });

  const SIDE = 32;
  const box = { x: 8, y: 8, width: 16, height: 16 };
  /** A grey photo with a face of one colour: 30 people, two photos each. */
  const album = (): AttackData => {
    const random = createFitRandom('album');
    const records = Array.from({ length: 30 }, (_, p) => {
      const colour = [random.integer(256), random.integer(256), random.integer(256)];
      return [0, 1].map((n) => {
        const picture = createImage(SIDE, SIDE, [127, 127, 127]);
        for (let y = 8; y < 24; y++) {
          for (let x = 8; x < 24; x++) picture.data.set([...colour.map((c) => Math.max(0, c - n))], (y * SIDE + x) * 3);
        }
        return {
          id: `${p}-${n}`,
          activation: new Float32Array(1),
          picture: picture.data,
          boxes: [box],
          person: `person ${p}`,
        };
      });
    }).flat();
    return { shape: [1, 1, 1], inputShape: [3, SIDE, SIDE], picture: { width: SIDE, height: SIDE }, records };
  };
  const data = album();
  const originals = data.records.map(({ picture }): RgbImage => ({ width: SIDE, height: SIDE, data: picture }));
  const grey = originals.map(() => createImage(SIDE, SIDE, [127, 127, 127]));
  const input = (rebuilt: readonly RgbImage[]): FaceAttackInput => ({
    data,
    embedder,
    attack: 'decoder',
    rebuilt,
    clean: originals,
    floor: { name: 'grey photo', pictures: grey },
    trusted: true,
    trustedReason: 'long enough',
    trainedOn: 5000,
  });

  it('recognises people on perfect reconstructions', async () => {
    const people = await runReidentification(input(originals));
    expect(people.values[0]!.mean).toBeGreaterThan(0.99);
    expect(people.values[2]!.mean).toBeGreaterThan(0.9);
    expect(people.live).toBe(true);
    expect(people.trusted).toBe(true);
    expect(people.pictures.map(({ label }) => label)).toContain('original');
    const right = await runRightFace(input(originals));
    expect(right.values[0]!.name).toBe('right face among 60');
    expect(right.values[0]!.mean).toBeGreaterThan(0.95);
    expect(right.live).toBe(true);
  });

  it('calls an attack that rebuilds nothing failed, not private', async () => {
    const people = await runReidentification(input(grey));
    expect(people.values[0]!.mean).toBeLessThan(0.65);
    expect(people.live).toBe(false);
    expect(people.liveReason).toMatch(/no proof of privacy/);
    const right = await runRightFace(input(grey));
    expect(right.values[0]!.mean).toBeLessThan(0.1);
    expect(right.live).toBe(false);
  });

  it('says so without a clean attacker, with few faces, and with a decoder that ran too short', async () => {
    const { clean: _clean, ...rest } = input(originals);
    const untested = await runRightFace(rest);
    expect(untested.live).toBe(false);
    expect(untested.liveReason).toMatch(/not tried on clean activations/);
    const short = await runReidentification({ ...input(originals), trusted: false, trustedReason: '10 steps' });
    expect(short.trusted).toBe(false);
    expect(short.trustedReason).toMatch(/10 steps/);
    const few = { ...data, records: data.records.slice(0, 10) };
    const small = await runRightFace({
      ...input(originals.slice(0, 10)),
      data: few,
      clean: originals.slice(0, 10),
      floor: { name: 'grey photo', pictures: grey.slice(0, 10) },
    });
    expect(small.trustedReason).toMatch(/10 faces, below/);
  });

  it('asks for two people and a second photo of one', async () => {
    const alone = { ...data, records: data.records.slice(0, 2) };
    await expect(runReidentification({ ...input(originals.slice(0, 2)), data: alone })).rejects.toThrowError(
      /2 faces of 1 people/,
    );
  });
});
