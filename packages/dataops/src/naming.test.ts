/** Laws of names and amounts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  checkName,
  checkQuantity,
  largerQuantity,
  quantityValue,
  shorten,
  snapshotName,
  uniqueSuffix,
} from './naming.js';

describe('naming', () => {
  it('makes snapshot names that are valid and never meet', () => {
    const now = new Date('2021-11-22T18:50:43Z');
    expect(snapshotName('plain', now, 'abcd0123')).toBe('ntap-dsutil.20211122185043.abcd0123');
    expect(snapshotName('for-clone', now, 'abcd0123')).toBe('ntap-dsutil.for-clone.20211122185043.abcd0123');
    const names = Array.from({ length: 1_000 }, () => snapshotName('plain', now, uniqueSuffix()));
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) checkName('name', name);
  });

  it('shortens without making two names one', () => {
    const name = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,90}[a-z0-9]$/);
    fc.assert(
      fc.property(name, name, (first, second) => {
        expect(shorten(first, 63).length).toBeLessThanOrEqual(63);
        if (first !== second) expect(shorten(first, 63)).not.toBe(shorten(second, 63));
      }),
      { seed: 7 },
    );
  });

  it.each(['', 'A', '-a', 'a-', 'a_b', 'a..b', 'x'.repeat(254)])("refuses the name '%s'", (name) => {
    expect(() => checkName('pvcName', name)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  it.each([
    ['1Gi', 2 ** 30],
    ['500m', 0.5],
    ['1.5Ki', 1536],
    ['2G', 2e9],
    ['1e3', 1000],
    ['0.1', 0.1],
  ])('reads %s', (amount, value) => {
    expect(quantityValue(amount)).toBeCloseTo(value);
  });

  it.each(['', 'lots', '-1', '1gi', '1 Gi', 'Gi'])("refuses the amount '%s'", (amount) => {
    expect(() => checkQuantity('size', amount)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  it('compares amounts across units', () => {
    expect(largerQuantity('1024Mi', '1Gi')).toBe('1024Mi');
    expect(largerQuantity('1G', '1Gi')).toBe('1Gi');
    expect(largerQuantity('2Gi', undefined)).toBe('2Gi');
  });
});
