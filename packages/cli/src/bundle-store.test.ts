import type { Bundle } from 'scrim';
import { describe, expect, it } from 'vitest';
import { photoSide } from './bundle-store.js';

/** A bundle as far as the side of its photos goes: 0 for a model that is no detector, none for one that names no side. */
function bundle(side?: number): Bundle {
  const detector = side === 0 ? {} : { detector: side === undefined ? {} : { side } };
  return { manifest: { model: detector } } as unknown as Bundle;
}

describe('photoSide', () => {
  it('is the one asked for, else the one that the bundles name, else 1024', () => {
    expect(photoSide(640, [bundle(768), bundle(896)])).toBe(640);
    expect(photoSide(undefined, [bundle(768), bundle(768)])).toBe(768);
    expect([photoSide(undefined, [bundle()]), photoSide(undefined, [bundle(0)]), photoSide(undefined, [])]).toEqual([
      1024, 1024, 1024,
    ]);
  });

  it('does not choose between bundles for photos of different sizes', () => {
    expect(() => photoSide(undefined, [bundle(768), bundle()])).toThrow('photos of 768 and 1024 pixels: give --size');
  });
});
