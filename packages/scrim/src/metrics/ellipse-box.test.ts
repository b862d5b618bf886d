import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Ellipse, ellipseBox } from './ellipse-box.js';

/** Extent of points sampled along the outline: never larger than the truth, and close to it for many points. */
function sampledBox(ellipse: Ellipse, points: number) {
  const { majorRadius: a, minorRadius: b, angle, centerX, centerY } = ellipse;
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < points; i++) {
    const t = (2 * Math.PI * i) / points;
    const x = centerX + a * Math.cos(t) * Math.cos(angle) - b * Math.sin(t) * Math.sin(angle);
    const y = centerY + a * Math.cos(t) * Math.sin(angle) + b * Math.sin(t) * Math.cos(angle);
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  }
  return { x: left, y: top, width: right - left, height: bottom - top };
}

describe('ellipseBox', () => {
  it.each([
    [0, 20, 10],
    [Math.PI / 2, 10, 20],
    [Math.PI, 20, 10],
    [Math.PI / 4, Math.sqrt(250), Math.sqrt(250)],
  ])('has the right half sides at an angle of %d', (angle, halfWidth, halfHeight) => {
    const box = ellipseBox({ majorRadius: 20, minorRadius: 10, angle, centerX: 100, centerY: 50 });
    expect(box.x).toBeCloseTo(100 - halfWidth, 10);
    expect(box.y).toBeCloseTo(50 - halfHeight, 10);
    expect(box.width).toBeCloseTo(2 * halfWidth, 10);
    expect(box.height).toBeCloseTo(2 * halfHeight, 10);
  });

  it('agrees with points sampled along the outline', () => {
    const radius = fc.double({ min: 1, max: 300, noNaN: true });
    const ellipse = fc.record({
      majorRadius: radius,
      minorRadius: radius,
      angle: fc.double({ min: -4, max: 4, noNaN: true }),
      centerX: fc.double({ min: -50, max: 500, noNaN: true }),
      centerY: fc.double({ min: -50, max: 500, noNaN: true }),
    });
    fc.assert(
      fc.property(ellipse, (e) => {
        const exact = ellipseBox(e);
        const sampled = sampledBox(e, 4000);
        for (const key of ['x', 'y', 'width', 'height'] as const) {
          expect(Math.abs(exact[key] - sampled[key])).toBeLessThan(1e-3);
        }
        expect(exact.width).toBeGreaterThanOrEqual(sampled.width - 1e-9);
        expect(exact.height).toBeGreaterThanOrEqual(sampled.height - 1e-9);
      }),
      { seed: 2 },
    );
  });
});
