import { describe, expect, it } from 'vitest';
import { type AnchorSpec, countAnchors, FACEBOXES_LEVELS, makeAnchors } from './anchors.js';

const pytorch: AnchorSpec = { levels: FACEBOXES_LEVELS, dense: 'cell', clip: false };
const tensorflow: AnchorSpec = { levels: FACEBOXES_LEVELS, dense: 'square', clip: true };
const box = (anchors: Float32Array, i: number): number[] => Array.from(anchors.subarray(4 * i, 4 * i + 4));

describe('makeAnchors', () => {
  it('has 21 boxes a cell of 32, one of 64, one of 128', () => {
    expect(countAnchors(pytorch, { width: 1024, height: 1024 })).toBe(21_824);
    expect(countAnchors(pytorch, { width: 1000, height: 1023 })).toBe(21_824);
    expect(countAnchors(pytorch, { width: 33, height: 32 })).toBe(2 * 21 + 1 + 1);
    expect(makeAnchors(pytorch, { width: 333, height: 517 }).length).toBe(4 * 3996);
  });

  it('goes cell by cell, size by size, y outside and x inside', () => {
    const anchors = makeAnchors(pytorch, { width: 256, height: 128 });
    expect(box(anchors, 0)).toEqual([0, 0, 32, 32]);
    expect(box(anchors, 1)).toEqual([8, 0, 32, 32]);
    expect(box(anchors, 4)).toEqual([0, 8, 32, 32]);
    expect(box(anchors, 15)).toEqual([24, 24, 32, 32]);
    expect(box(anchors, 16)).toEqual([0, 0, 64, 64]);
    expect(box(anchors, 17)).toEqual([16, 0, 64, 64]);
    expect(box(anchors, 18)).toEqual([0, 16, 64, 64]);
    expect(box(anchors, 20)).toEqual([16, 16, 128, 128]);
    expect(box(anchors, 21 + 20)).toEqual([48, 16, 128, 128]);
    expect(box(anchors, 8 * 21 + 20)).toEqual([16, 48, 128, 128]);
    expect(box(anchors, 32 * 21)).toEqual([32, 32, 256, 256]);
    expect(box(anchors, 32 * 21 + 8 + 1)).toEqual([192, 64, 512, 512]);
  });

  it('centres densified squares on the cell, and cuts at the edges, for the other training', () => {
    const anchors = makeAnchors(tensorflow, { width: 256, height: 128 });
    expect(box(anchors, 5)).toEqual([14, 14, 28, 28]); // 32 around (12, 12), cut at 0
    expect(box(makeAnchors({ ...tensorflow, clip: false }, { width: 256, height: 128 }), 5)).toEqual([12, 12, 32, 32]);
    expect(box(anchors, 16)).toEqual([16, 16, 32, 32]); // 64 around (0, 0)
    expect(box(anchors, 19)).toEqual([32, 32, 64, 64]);
  });

  it('covers every pixel with boxes of every size', () => {
    const anchors = makeAnchors(pytorch, { width: 128, height: 128 });
    for (const size of [32, 64, 128, 256, 512]) {
      for (let p = 0; p < 128; p += 5) {
        let covered = false;
        for (let i = 0; i < anchors.length; i += 4) {
          const inside = (at: number): boolean => Math.abs(at - p) <= size / 2;
          covered ||= anchors[i + 2] === size && inside(anchors[i]!) && inside(anchors[i + 1]!);
        }
        expect(covered).toBe(true);
      }
    }
  });

  it('refuses sizes that are none', () => {
    expect(() => makeAnchors(pytorch, { width: 0, height: 10 })).toThrow('the input is 0×10');
  });
});
