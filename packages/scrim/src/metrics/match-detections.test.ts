import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type GroundTruth, matchDetections } from './match-detections.js';

const at = (x: number, score: number, width = 10) => ({ x, y: 0, width, height: 10, score });
const face = (x: number, ignored = false): GroundTruth => ({ box: { x, y: 0, width: 10, height: 10 }, ignored });
const outcomes = (...args: Parameters<typeof matchDetections>) => matchDetections(...args).map((m) => m.outcome);

describe('matchDetections', () => {
  it('gives a face to the surest detection and calls the second a false positive', () => {
    expect(outcomes([at(1, 0.5), at(2, 0.9)], [face(0)])).toEqual(['false-positive', 'true-positive']);
  });

  it('passes a detection on to the next face that is free and overlaps enough', () => {
    // Faces at 0 and 4; both detections overlap the face at 0 most.
    const faces = [face(0), face(4)];
    expect(matchDetections([at(0, 0.9), at(1, 0.8)], faces)).toEqual([
      { outcome: 'true-positive', face: 0 },
      { outcome: 'true-positive', face: 1 },
    ]);
  });

  it('settles equal scores by place, whatever the order of arrival', () => {
    // The box at 2 overlaps both faces alike, the box at 0 only the first: were it second, it would find nothing free.
    const faces = [face(0), face(4)];
    expect(outcomes([at(0, 0.5), at(2, 0.5)], faces)).toEqual(['true-positive', 'true-positive']);
    expect(outcomes([at(2, 0.5), at(0, 0.5)], faces)).toEqual(['true-positive', 'true-positive']);
  });

  it('counts an overlap of exactly the threshold', () => {
    // 10 wide and 20 wide from the same corner: exactly one half.
    expect(outcomes([at(0, 1, 20)], [face(0)])).toEqual(['true-positive']);
    expect(outcomes([at(0, 1, 20)], [face(0)], 0.51)).toEqual(['false-positive']);
  });

  it('excuses any number of detections of an ignored face', () => {
    expect(outcomes([at(0, 0.9), at(1, 0.8), at(50, 0.7)], [face(0, true)])).toEqual([
      'ignored',
      'ignored',
      'false-positive',
    ]);
  });

  it('prefers a face that counts, even if an ignored one overlaps more', () => {
    expect(matchDetections([at(1, 0.9), at(1, 0.8)], [face(0), face(1, true)])).toEqual([
      { outcome: 'true-positive', face: 0 },
      { outcome: 'ignored', face: 1 },
    ]);
  });

  it('handles images without faces and without detections', () => {
    expect(outcomes([at(0, 0.9)], [])).toEqual(['false-positive']);
    expect(outcomes([], [face(0)])).toEqual([]);
  });

  it('refuses boxes, scores and thresholds that make no sense', () => {
    const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
    expect(() => matchDetections([at(Number.NaN, 1)], [])).toThrow(invalid);
    expect(() => matchDetections([at(0, Infinity)], [])).toThrow(invalid);
    expect(() => matchDetections([at(0, 1, -1)], [])).toThrow(invalid);
    expect(() => matchDetections([], [], 0)).toThrow(invalid);
    expect(() => matchDetections([], [], Number.NaN)).toThrow(invalid);
  });

  it('never matches a face twice, and does not depend on the order of detections', () => {
    const small = fc.integer({ min: 0, max: 12 });
    const score = fc.constantFrom(0.25, 0.5, 0.75);
    const detection = fc.record({ x: small, y: small, width: small, height: small, score });
    const truth = fc.record({
      box: fc.record({ x: small, y: small, width: small, height: small }),
      ignored: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(detection, { maxLength: 12 }), fc.array(truth, { maxLength: 6 }), (detections, faces) => {
        const matches = matchDetections(detections, faces, 0.3);
        const found = matches.filter((m) => m.outcome === 'true-positive').map((m) => m.face);
        expect(new Set(found).size).toBe(found.length);
        for (const { outcome, face: f } of matches) {
          expect(f === -1).toBe(outcome === 'false-positive');
          if (f >= 0) expect(faces[f]!.ignored).toBe(outcome === 'ignored');
        }
        const count = (list: readonly { score: number }[], given: readonly { outcome: string }[]) =>
          list.map((d, i) => `${d.score} ${given[i]!.outcome}`).sort();
        const reversed = [...detections].reverse();
        expect(count(reversed, matchDetections(reversed, faces, 0.3))).toEqual(count(detections, matches));
      }),
      { seed: 3, numRuns: 300 },
    );
  });
});
