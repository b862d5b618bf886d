/**
 * FDDB's face ellipses and the boxes around them.
 *
 * Annotation: V. Jain and E. Learned-Miller, "FDDB: A Benchmark for Face Detection in Unconstrained Settings"
 * (UM-CS-2010-009, 2010), section 4. Reading the files is left to `fddb-format.ts`.
 */
import type { Box } from './intersection-over-union.js';

/** A face in FDDB: radii and centre in pixels, `angle` in radians between the major axis and the x axis. */
export interface Ellipse {
  readonly majorRadius: number;
  readonly minorRadius: number;
  readonly angle: number;
  readonly centerX: number;
  readonly centerY: number;
}

/**
 * The smallest axis-aligned box that holds the whole rotated ellipse; it may reach beyond the photo and isn't clipped.
 *
 * A point of the ellipse is c + a·cos t·u + b·sin t·v with u = (cos θ, sin θ), v = (−sin θ, cos θ). Its x coordinate
 * swings by √(a²cos²θ + b²sin²θ) about the centre, its y coordinate by √(a²sin²θ + b²cos²θ).
 */
export function ellipseBox(ellipse: Ellipse): Box {
  const cos = Math.cos(ellipse.angle);
  const sin = Math.sin(ellipse.angle);
  const halfWidth = norm(ellipse.majorRadius * cos, ellipse.minorRadius * sin);
  const halfHeight = norm(ellipse.majorRadius * sin, ellipse.minorRadius * cos);
  return {
    x: ellipse.centerX - halfWidth,
    y: ellipse.centerY - halfHeight,
    width: 2 * halfWidth,
    height: 2 * halfHeight,
  };
}

// Math.hypot may differ in its last bit between engines; multiplication and square root may not.
function norm(a: number, b: number): number {
  return Math.sqrt(a * a + b * b);
}
