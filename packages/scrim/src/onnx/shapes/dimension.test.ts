import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluateDimension } from '../../../../../test/evaluate-dimension.js';
import type { Dimension } from '../value-info.js';
import { DimensionAlgebra } from './dimension.js';

const SYMBOLS = ['H', 'W', 'N', 'seq.len'] as const;

/** An expression tree together with what it is worth for given sizes of its symbols. */
interface Expression {
  build(dims: DimensionAlgebra): Dimension;
  value(sizes: ReadonlyMap<string, number>): number;
}

const leaf: fc.Arbitrary<Expression> = fc.oneof(
  fc.constantFrom(...SYMBOLS).map((name) => ({ build: () => name, value: (sizes) => sizes.get(name) ?? Number.NaN })),
  fc.integer({ min: -5, max: 9 }).map((number) => ({ build: () => number, value: () => number })),
);

const { expression } = fc.letrec<{ expression: Expression }>((tie) => ({
  expression: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc.tuple(fc.constantFrom('add', 'subtract', 'multiply'), tie('expression'), tie('expression')).map(
      ([operation, a, b]): Expression => ({
        build: (dims) => dims[operation as 'add'](a.build(dims), b.build(dims)),
        value: (sizes) => {
          const [x, y] = [a.value(sizes), b.value(sizes)];
          return operation === 'add' ? x + y : operation === 'subtract' ? x - y : x * y;
        },
      }),
    ),
    fc.tuple(fc.boolean(), tie('expression'), fc.integer({ min: 1, max: 6 })).map(
      ([up, a, divisor]): Expression => ({
        build: (dims) => (up ? dims.ceilDivide(a.build(dims), divisor) : dims.floorDivide(a.build(dims), divisor)),
        value: (sizes) => (up ? Math.ceil(a.value(sizes) / divisor) : Math.floor(a.value(sizes) / divisor)),
      }),
    ),
  ),
}));

const sizes = fc
  .array(fc.integer({ min: 0, max: 40 }), { minLength: SYMBOLS.length, maxLength: SYMBOLS.length })
  .map((values) => new Map(SYMBOLS.map((name, i) => [name as string, values[i] ?? 0])));

/** The symbol with a dot is no word for the reader of expressions: give it one. */
const readable = (text: string): string => text.replaceAll('seq.len', 'seq_len');

function worth(dimension: Dimension, at: ReadonlyMap<string, number>): number {
  if (typeof dimension === 'number') return dimension;
  const named = new Map([...at].map(([name, value]) => [readable(name), value]));
  return evaluateDimension(readable(dimension), named);
}

describe('DimensionAlgebra', () => {
  it('writes what an expression is worth, or nothing', () => {
    fc.assert(
      fc.property(expression, sizes, (tree, at) => {
        const written = tree.build(new DimensionAlgebra());
        if (written !== '') expect(worth(written, at) + 0).toBe(tree.value(at) + 0);
      }),
      { seed: 1, numRuns: 3000 },
    );
  });

  it('gives equal texts only to equal sizes, within one inference', () => {
    fc.assert(
      fc.property(expression, expression, sizes, (a, b, at) => {
        const dims = new DimensionAlgebra();
        const [left, right] = [a.build(dims), b.build(dims)];
        if (left === right && left !== '') expect(a.value(at) + 0).toBe(b.value(at) + 0);
        const difference = dims.subtract(left, right);
        if (difference !== '') expect(worth(difference, at) + 0).toBe(a.value(at) - b.value(at) + 0);
      }),
      { seed: 2, numRuns: 3000 },
    );
  });

  it('finds one form for sizes that are the same', () => {
    const dims = new DimensionAlgebra();
    const half = dims.floorDivide(dims.add('H', 1), 2);
    expect(dims.add(dims.floorDivide(dims.subtract('H', 1), 2), 1)).toBe(half);
    expect(dims.ceilDivide('H', 2)).toBe(half);
    expect(dims.floorDivide(dims.add(half, 1), 2)).toBe('floor((H+3)/4)');
    expect(dims.multiply('W', 'H')).toBe(dims.multiply('H', 'W'));
    expect(dims.divideExactly(dims.product(['N', 3, 'H', 'W']), dims.multiply('H', 'N'))).toBe('3*W');
    expect(dims.multiply(dims.add('H', 1), dims.subtract('H', 1))).toBe('H*H-1');
  });

  it('never produces a name the file declares, and takes no placeholder for a name', () => {
    const dims = new DimensionAlgebra();
    expect(dims.declare('2*H')).toBe('2*H');
    expect(dims.multiply('H', 2)).toBe('');
    expect(dims.add('2*H', 1)).toBe('');
    expect(dims.declare('?')).toBe('');
    expect(dims.declare(2 ** 60)).toBe('');
    expect(dims.declare(-1)).toBe('');
  });

  it('gives up on sizes beyond exact integers and on texts without end', () => {
    const dims = new DimensionAlgebra();
    expect(dims.multiply(2 ** 40, 2 ** 40)).toBe('');
    expect(dims.multiply(dims.multiply('H', 2 ** 40), 2 ** 40)).toBe('');
    let long: Dimension = 'H';
    for (let i = 0; i < 100; i++) long = dims.floorDivide(dims.add(dims.multiply(long, 3), 'W'), 7);
    expect(long).toBe('');
  });
});
