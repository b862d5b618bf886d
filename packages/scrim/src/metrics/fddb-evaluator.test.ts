import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AnnotatedFold, createFddbEvaluator } from './fddb-evaluator.js';
import type { ScoredBox } from './intersection-over-union.js';

const box = (x: number, y = 0) => ({ x, y, width: 10, height: 10 });
const hit = (x: number, score: number): ScoredBox => ({ ...box(x), score });

/** Fold 1: images a (two faces), b (one). Fold 2: image c (one face, and one that is ignored). */
const annotations: readonly AnnotatedFold[] = [
  {
    fold: 2,
    images: [{ name: 'c', faces: [{ box: box(0) }, { box: box(100), ignored: true }] }],
  },
  {
    fold: 1,
    images: [
      { name: 'a', faces: [{ box: box(0) }, { box: box(50) }] },
      { name: 'b', faces: [{ box: box(0) }] },
    ],
  },
];

describe('createFddbEvaluator', () => {
  it('gives the figures worked out by hand', () => {
    const evaluator = createFddbEvaluator(annotations);
    // Fold 1 in falling order: 0.9 right, 0.8 wrong (a duplicate), 0.7 right; b's face is missed.
    evaluator.add('a', [hit(0, 0.9), hit(1, 0.8), hit(50, 0.7)]);
    evaluator.add('b', []);
    // Fold 2: 0.95 wrong, 0.6 right; the ignored face's detections don't count.
    evaluator.add('c', [hit(30, 0.95), hit(0, 0.6), hit(100, 0.99), hit(101, 0.98)]);
    const result = evaluator.result();
    expect(result.folds).toEqual([
      { fold: 1, ap: (1 + 2 / 3) / 3, images: 2, faces: 3 },
      { fold: 2, ap: 1 / 2, images: 1, faces: 1 },
    ]);
    expect(result.mAP).toBeCloseTo((5 / 9 + 1 / 2) / 2, 14);
    // One ranking: 0.95 wrong, 0.9 right, 0.8 wrong, 0.7 right, 0.6 right: the envelope is 3/5 for three of four faces.
    expect(result.pooledAP).toBeCloseTo(((3 / 5) * 3) / 4, 14);
    expect(result.images).toEqual({ found: 3, expected: 3 });
    expect(result.faces).toEqual({ found: 4, expected: 4 });
  });

  it('averages over the folds that have images', () => {
    const evaluator = createFddbEvaluator(annotations);
    evaluator.add('b', [hit(0, 0.4)]);
    expect(evaluator.result()).toMatchObject({
      folds: [{ fold: 1, ap: 1, images: 1, faces: 1 }],
      mAP: 1,
      pooledAP: 1,
      images: { found: 1, expected: 3 },
      faces: { found: 1, expected: 4 },
    });
  });

  it('uses the threshold it is given', () => {
    const strict = createFddbEvaluator(annotations, { iouThreshold: 0.9 });
    strict.add('b', [hit(1, 0.4)]);
    expect(strict.result().mAP).toBe(0);
  });

  it('refuses images that are unknown or come twice, and adds nothing of a bad image', () => {
    const evaluator = createFddbEvaluator(annotations);
    evaluator.add('a', [hit(0, 0.5)]);
    const before = evaluator.state();
    expect(() => evaluator.add('a', [])).toThrow(expect.objectContaining({ code: 'ALREADY_EXISTS' }));
    expect(() => evaluator.add('z', [])).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
    const bad = [hit(0, 0.5), hit(0, Number.NaN)];
    expect(() => evaluator.add('b', bad)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(evaluator.state()).toEqual(before);
    evaluator.add('b', []);
  });

  it('has no result before a face was evaluated', () => {
    const evaluator = createFddbEvaluator([{ fold: 1, images: [{ name: 'empty', faces: [] }] }]);
    expect(() => evaluator.result()).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    evaluator.add('empty', [hit(0, 1)]);
    expect(() => evaluator.result()).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  it.each([
    [
      'an image twice',
      [
        {
          fold: 1,
          images: [
            { name: 'a', faces: [] },
            { name: 'a', faces: [] },
          ],
        },
      ],
    ],
    [
      'a fold twice',
      [
        { fold: 1, images: [] },
        { fold: 1, images: [] },
      ],
    ],
    ['a fold that is no integer', [{ fold: 1.5, images: [] }]],
    ['a face that is no box', [{ fold: 1, images: [{ name: 'a', faces: [{ box: box(Number.NaN) }] }] }]],
  ])('refuses annotations with %s', (_, bad) => {
    expect(() => createFddbEvaluator(bad)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  it('refuses a threshold outside (0, 1]', () => {
    for (const iouThreshold of [0, 1.01, Number.NaN]) {
      expect(() => createFddbEvaluator(annotations, { iouThreshold })).toThrow(/iouThreshold/);
    }
  });
});

// Small integer boxes and few scores, so that overlaps at the threshold, duplicates and ties are common.
const small = fc.integer({ min: 0, max: 8 });
const smallBox = fc.record({ x: small, y: small, width: small, height: small });
const detection = fc.tuple(smallBox, fc.constantFrom(0.1, 0.2, 0.3, 0.7)).map(([b, score]) => ({ ...b, score }));
const evaluation = fc
  .array(
    fc.record({
      fold: fc.integer({ min: 1, max: 3 }),
      faces: fc.array(fc.record({ box: smallBox, ignored: fc.boolean() }), { maxLength: 3 }),
      detections: fc.array(detection, { maxLength: 5 }),
      order: fc.nat(),
      shard: fc.integer({ min: 0, max: 3 }),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((images) => images.map((image, i) => ({ ...image, name: `image${i}` })));

type Images = ReturnType<typeof evaluation.generate>['value'];
const foldsOf = (images: Images): AnnotatedFold[] =>
  [1, 2, 3].map((fold) => ({ fold, images: images.filter((image) => image.fold === fold) }));

describe('laws of the evaluation', () => {
  it('the order of images does not matter', () => {
    fc.assert(
      fc.property(evaluation, (images) => {
        const one = createFddbEvaluator(foldsOf(images));
        const other = createFddbEvaluator(foldsOf(images).reverse());
        for (const { name, detections } of images) one.add(name, detections);
        for (const { name, detections } of [...images].sort((a, b) => a.order - b.order)) {
          other.add(name, [...detections].reverse());
        }
        expect(other.state()).toEqual(one.state());
        if (images.some(({ faces }) => faces.some(({ ignored }) => !ignored))) {
          expect(other.result()).toEqual(one.result());
        }
      }),
      { seed: 11, numRuns: 300 },
    );
  });

  it('perfect detections give exactly 1, whatever their scores', () => {
    fc.assert(
      fc.property(
        evaluation,
        fc.infiniteStream(fc.double({ noNaN: true, noDefaultInfinity: true })),
        (images, scores) => {
          // One face an image, since overlapping faces can swap their detections.
          const single = images.map((image) => ({ ...image, faces: [{ box: box(3), ignored: false }] }));
          const evaluator = createFddbEvaluator(foldsOf(single));
          for (const { name } of single) evaluator.add(name, [{ ...box(3), score: scores.next().value! }]);
          expect(evaluator.result()).toMatchObject({ mAP: 1, pooledAP: 1 });
        },
      ),
      { seed: 12 },
    );
  });

  it('a merge of shards, through JSON and in any order, is the single run to the last bit', () => {
    fc.assert(
      fc.property(evaluation, (images) => {
        const annotated = foldsOf(images);
        const single = createFddbEvaluator(annotated);
        for (const { name, detections } of images) single.add(name, detections);
        const shards = [3, 1, 0, 2].map((shard) => {
          const part = createFddbEvaluator(annotated);
          for (const image of images) if (image.shard === shard) part.add(image.name, image.detections);
          return JSON.parse(JSON.stringify(part.state()));
        });
        const merged = createFddbEvaluator(annotated);
        merged.merge(shards.slice(0, 2));
        merged.merge(shards.slice(2));
        expect(merged.state()).toEqual(single.state());
        expect(JSON.stringify(merged.state())).toBe(JSON.stringify(single.state()));
      }),
      { seed: 13, numRuns: 300 },
    );
  });
});

describe('merge', () => {
  const filled = (name = 'a') => {
    const evaluator = createFddbEvaluator(annotations);
    evaluator.add(name, [hit(0, 0.9), hit(30, 0.3)]);
    return evaluator;
  };

  it('refuses a state with an image that is there already, and takes in nothing then', () => {
    const evaluator = filled('b');
    const before = evaluator.state();
    const twice = expect.objectContaining({ code: 'ALREADY_EXISTS' });
    expect(() => evaluator.merge([filled('a').state(), filled('b').state()])).toThrow(twice);
    expect(() => evaluator.merge([filled('a').state(), filled('a').state()])).toThrow(twice);
    expect(evaluator.state()).toEqual(before);
  });

  it('refuses a state over other annotations or another threshold', () => {
    const moved = annotations.map(({ fold, images }) => ({
      fold,
      images: images.map(({ name, faces }) => ({ name, faces: faces.map((f) => ({ ...f, box: { ...f.box, y: 3 } })) })),
    }));
    const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
    expect(() => filled().merge([createFddbEvaluator(moved).state()])).toThrow(invalid);
    expect(() => filled().merge([createFddbEvaluator(annotations, { iouThreshold: 0.6 }).state()])).toThrow(invalid);
  });

  it.each<[string, (state: Record<string, unknown>) => unknown]>([
    ['null', () => null],
    ['an array', () => []],
    ['another format', (s) => ({ ...s, format: 'x' })],
    ['another version', (s) => ({ ...s, version: 2 })],
    ['no hash', (s) => ({ ...s, annotations: 1 })],
    ['no threshold', (s) => ({ ...s, iouThreshold: '0.5' })],
    ['images that are no array', (s) => ({ ...s, images: {} })],
    ['an unknown position', (s) => ({ ...s, images: [99] })],
    ['a position that is no integer', (s) => ({ ...s, images: [0.5] })],
    ['a position that is text', (s) => ({ ...s, images: ['0'] })],
    ['a position twice', (s) => ({ ...s, images: [0, 0] })],
    ['folds that are no array', (s) => ({ ...s, folds: null })],
    ['a fold that is no object', (s) => ({ ...s, folds: [3] })],
    ['a fold without images', (s) => ({ ...s, folds: [{ fold: 2, truePositives: [], falsePositives: [] }] })],
    ['a fold missing', (s) => ({ ...s, folds: [] })],
    ['a fold twice', (s) => ({ ...s, folds: [...(s.folds as unknown[]), ...(s.folds as unknown[])] })],
    ['a score that is text', (s) => ({ ...s, folds: [{ fold: 1, truePositives: ['1'], falsePositives: [] }] })],
    ['a score that is null', (s) => ({ ...s, folds: [{ fold: 1, truePositives: [null], falsePositives: [] }] })],
    ['more hits than faces', (s) => ({ ...s, folds: [{ fold: 1, truePositives: [1, 1, 1], falsePositives: [] }] })],
  ])('refuses a state with %s', (_, spoil) => {
    const state = spoil(JSON.parse(JSON.stringify(filled('a').state())));
    const evaluator = createFddbEvaluator(annotations);
    expect(() => evaluator.merge([state as never])).toThrow(expect.objectContaining({ code: 'INVALID_DATA' }));
  });
});

describe('memory', () => {
  it('keeps scores, not boxes: 10,000 images of 50 detections leave a state of the size of its scores', () => {
    const images = Array.from({ length: 10_000 }, (_, i) => ({ name: `i${i}`, faces: [{ box: box(0) }] }));
    const evaluator = createFddbEvaluator([{ fold: 1, images }]);
    const detections = Array.from({ length: 50 }, (_, k) => hit(11 * k, (k + 1) / 64));
    for (const { name } of images) evaluator.add(name, detections);
    const [fold] = evaluator.state().folds;
    expect(fold!.truePositives).toHaveLength(10_000);
    expect(fold!.falsePositives).toHaveLength(490_000);
    expect(evaluator.result().mAP).toBeCloseTo(1 / 50, 12);
  });
});
