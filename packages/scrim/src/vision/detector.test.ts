import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { float32, type Tensor } from '../tensor.js';
import { countAnchors, makeAnchors } from './anchors.js';
import { createDetectionDecoder, defaultResize, detectorOf, planResize } from './detector.js';
import { FACEBOXES_PYTORCH_SPEC, FACEBOXES_TFJS_SPEC } from './faceboxes.js';

const spec = FACEBOXES_PYTORCH_SPEC;
const canvas = { width: 256, height: 128 };
const boxes = countAnchors(spec.anchors, canvas);

/** Outputs for `batch` pictures in which only the given boxes look like faces. */
function outputs(batch: number, faces: readonly [picture: number, box: number, score: number][]): [Tensor, Tensor] {
  const scores = new Float32Array(2 * batch * boxes);
  for (const [n, i, score] of faces) {
    scores[2 * (n * boxes + i)] = 1 - score;
    scores[2 * (n * boxes + i) + 1] = score;
  }
  return [float32([batch, boxes, 4], new Float32Array(4 * batch * boxes)), float32([batch, boxes, 2], scores)];
}

describe('planResize', () => {
  it('stretches every photo to the document’s size', () => {
    const plan = planResize({ width: 450, height: 338 }, defaultResize({}), 128);
    expect(plan.resized).toEqual({ width: 1024, height: 1024 });
    expect(plan.canvas).toEqual({ width: 1024, height: 1024 });
    expect(defaultResize({ side: undefined })).toEqual(defaultResize(FACEBOXES_TFJS_SPEC));
  });

  it('stretches it to the square that a detector names instead', () => {
    const plan = planResize({ width: 450, height: 338 }, defaultResize({ ...spec, side: 768 }), 128);
    expect(plan.canvas).toEqual({ width: 768, height: 768 });
    expect(() => planResize({ width: 450, height: 338 }, defaultResize({ ...spec, side: 700 }), 128)).toThrow(
      '700×700',
    );
  });

  it('scales both sides alike and fills up to the next multiples', () => {
    const plan = planResize({ width: 450, height: 338 }, { kind: 'native', scale: 2 }, 128);
    expect(plan.resized).toEqual({ width: 900, height: 676 });
    expect(plan.canvas).toEqual({ width: 1024, height: 768 });
    const bounded = planResize({ width: 4000, height: 3000 }, { kind: 'native', maxSide: 1000 }, 128);
    expect(bounded.resized).toEqual({ width: 1000, height: 750 });
    expect(planResize({ width: 1, height: 9000 }, { kind: 'native', scale: 0.01 }, 128).resized.width).toBe(1);
  });

  it('refuses sizes and scales that cannot be', () => {
    const photo = { width: 10, height: 10 };
    for (const mode of [
      { kind: 'stretch', width: 1000, height: 1024 },
      { kind: 'stretch', width: 0, height: 128 },
      { kind: 'native', scale: 0 },
      { kind: 'native', scale: Number.POSITIVE_INFINITY },
      { kind: 'native', maxSide: Number.NaN },
      { kind: 'native', scale: 1e6, maxSide: 1e6 },
    ] as const) {
      expect(() => planResize(photo, mode, 128)).toThrow(ScrimError);
    }
    expect(() => planResize({ width: 0, height: 1 }, defaultResize({}), 128)).toThrow('the photo is 0×1');
  });
});

describe('detectorOf', () => {
  it('gives what surrounds a detector, and names a model that is none', () => {
    expect(detectorOf({ name: 'faces', detector: spec })).toBe(spec);
    expect(() => detectorOf({ name: 'digits' })).toThrow("'digits' is no detector");
  });
});

describe('createDetectionDecoder', () => {
  const decoder = createDetectionDecoder(spec);
  const anchor = (i: number): number[] => Array.from(makeAnchors(spec.anchors, canvas).subarray(4 * i, 4 * i + 4));

  it('takes outputs by name and says which ones are there if one is missing', () => {
    const [loc, conf] = outputs(1, [[0, 9 * 21 + 5, 0.9]]);
    const plans = [{ original: canvas, resized: canvas, canvas }];
    expect(decoder.decodeOutputs({ conf, more: loc, loc }, plans)).toEqual(decoder.decode(loc, conf, plans));
    expect(() => decoder.decodeOutputs({ loc, other: conf }, plans)).toThrow(
      "the outputs are 'loc', 'other', expected 'loc' and 'conf'",
    );
  });

  it('gives boxes in the photo’s own pixels, strongest first', () => {
    const big = 32 * 21 + 8; // 512 around (64, 64)
    const small = 9 * 21 + 5;
    const plan = { original: { width: 512, height: 64 }, resized: canvas, canvas };
    const [found] = decoder.decode(
      ...outputs(1, [
        [0, small, 0.6],
        [0, big, 0.9],
      ]),
      [plan],
    );
    const [x, y, w, h] = anchor(small) as [number, number, number, number];
    expect(found).toEqual([
      { box: [(64 - 256) * 2, (64 - 256) / 2, (64 + 256) * 2, (64 + 256) / 2], score: Math.fround(0.9) },
      { box: [(x - w / 2) * 2, (y - h / 2) / 2, (x + w / 2) * 2, (y + h / 2) / 2], score: Math.fround(0.6) },
    ]);
  });

  it('maps boxes past the fill of a canvas', () => {
    const plan = planResize({ width: 100, height: 50 }, { kind: 'native', scale: 2 }, 128);
    expect(plan.canvas).toEqual(canvas);
    const [found] = decoder.decode(...outputs(1, [[0, 21 + 20, 0.8]]), [plan]);
    expect(found![0]!.box).toEqual([(48 - 64) / 2, (16 - 64) / 2, (48 + 64) / 2, (16 + 64) / 2]);
  });

  it('keeps the pictures of a batch apart, and their shapes', () => {
    const plans = [
      { original: { width: 256, height: 128 }, resized: canvas, canvas },
      { original: { width: 2560, height: 128 }, resized: canvas, canvas },
    ];
    const lists = decoder.decode(...outputs(2, [[1, 20, 0.7]]), plans);
    expect(lists[0]).toEqual([]);
    expect(lists[1]).toEqual([{ box: [-480, -48, 800, 80], score: Math.fround(0.7) }]);
  });

  it('drops weak and overlapping boxes, and takes other limits for one call', () => {
    const plan = { original: canvas, resized: canvas, canvas };
    const made = outputs(1, [
      [0, 20, 0.7],
      [0, 16, 0.04],
      [0, 21 + 20, 0.6],
      [0, 7 * 21 + 20, 0.5],
    ]);
    // Squares of 128 in neighbouring cells overlap by 0.6.
    expect(decoder.decode(...made, [plan])[0]!.map(({ score }) => score)).toEqual([0.7, 0.5].map(Math.fround));
    expect(decoder.decode(...made, [plan], { minScore: 0.65 })[0]!.length).toBe(1);
    expect(decoder.decode(...made, [plan], { minScore: 0.01 })[0]!.length).toBe(3);
    expect(decoder.decode(...made, [plan], { maxDetections: 1 })[0]!.length).toBe(1);
  });

  it('cuts boxes at the picture where the training did', () => {
    const plan = { original: canvas, resized: canvas, canvas };
    const [found] = createDetectionDecoder(FACEBOXES_TFJS_SPEC).decode(...outputs(1, [[0, 32 * 21 + 9, 0.9]]), [plan]);
    expect(found![0]!.box).toEqual([0, 0, 256, 128]);
  });

  it('refuses outputs that don’t fit', () => {
    const [offsets, scores] = outputs(1, []);
    const plan = { original: canvas, resized: canvas, canvas };
    expect(() => decoder.decode(offsets, scores, [])).toThrow('plans is empty');
    expect(() => decoder.decode(offsets, scores, [plan, plan])).toThrow(`loc is [1, ${boxes}, 4], expected [2,`);
    expect(() => decoder.decode(scores, offsets, [plan])).toThrow(ScrimError);
    const other = { ...plan, canvas: { width: 128, height: 128 } };
    expect(() => decoder.decode(offsets, scores, [plan, other])).toThrow('different canvases');
  });
});
