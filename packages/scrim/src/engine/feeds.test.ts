import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { float32, type Tensor, tensor } from '../tensor.js';
import type { NamedTensors, ValueInfo } from './engine.js';
import { checkFeeds, checkFetches } from './feeds.js';

const INPUTS: readonly ValueInfo[] = [
  { name: 'x', dtype: 'float32', shape: ['batch', 3, ''] },
  { name: 'words', dtype: 'string', shape: [2] },
  { name: 'scale', dtype: 'float32', shape: [] },
];
const GOOD: Record<string, Tensor> = {
  x: float32([1, 3, 2], new Float32Array(6)),
  words: tensor('string', [2], ['a', 'b']),
  scale: float32([], [1]),
};

function failure(feeds: unknown): ScrimError {
  try {
    checkFeeds(INPUTS, feeds as NamedTensors);
  } catch (error) {
    expect(error).toBeInstanceOf(ScrimError);
    return error as ScrimError;
  }
  throw new Error('nothing was thrown');
}

describe('checkFeeds', () => {
  it('accepts what the graph takes, any size for symbolic dimensions, any rank for a rank-0 input', () => {
    checkFeeds(INPUTS, GOOD);
    checkFeeds(INPUTS, { ...GOOD, x: float32([0, 3, 7], []), scale: float32([2], [1, 2]) });
  });

  const wrong: readonly [string, unknown, RegExp][] = [
    ['nothing', null, /feeds is null, expected an object/],
    ['a missing input', { x: GOOD.x, words: GOOD.words }, /"scale" is missing; .*x float32 \[batch, 3, \?\]/],
    ['an undefined input', { ...GOOD, x: undefined }, /"x" is missing/],
    [
      'an inherited name',
      Object.assign(Object.create({ scale: GOOD.scale }), { x: GOOD.x, words: GOOD.words }),
      /missing/,
    ],
    ['an unknown input', { ...GOOD, z: GOOD.x }, /"z" is unknown; the graph takes x float32/],
    ['no tensor', { ...GOOD, x: 5 }, /"x" is no tensor/],
    ['no shape', { ...GOOD, x: { dtype: 'float32', data: new Float32Array(1) } }, /"x" has no shape/],
    ['another element type', { ...GOOD, x: tensor('float64', [1, 3, 2]) }, /"x" is float64, expected float32/],
    ['another rank', { ...GOOD, x: float32([3], [1, 2, 3]) }, /"x" has shape \[3\], expected \[batch, 3, \?\]/],
    ['another size', { ...GOOD, x: float32([1, 4, 1], [1, 2, 3, 4]) }, /\[1, 4, 1\], expected \[batch, 3, \?\]/],
    [
      'another array',
      { ...GOOD, x: { ...GOOD.x, data: new Float64Array(6) } },
      /Float64Array, expected a Float32Array/,
    ],
    [
      'a plain array',
      { ...GOOD, x: { ...GOOD.x, data: [1, 2, 3, 4, 5, 6] } },
      /holds a Array, expected a Float32Array/,
    ],
    ['too few elements', { ...GOOD, x: { ...GOOD.x, data: new Float32Array(5) } }, /has 5 elements, expected 6/],
    ['a fraction of an element', { ...GOOD, x: { ...GOOD.x, shape: [0.5, 3, 4] } }, /no integer/],
    ['a word that is none', { ...GOOD, words: tensor('string', [2], ['a', 7 as never]) }, /"words" has an element/],
    [
      'a word that would be cut',
      { ...GOOD, words: tensor('string', [2], ['a', 'b\0c']) },
      /"words" has a NUL character in element 1/,
    ],
  ];
  it.each(wrong)('refuses %s', (_, feeds, message) => {
    const error = failure(feeds);
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.message).toMatch(message);
  });
});

describe('checkFetches', () => {
  it('gives all outputs by default and drops repetitions', () => {
    expect(checkFetches(INPUTS)).toEqual(['x', 'words', 'scale']);
    expect(checkFetches(INPUTS, ['scale', 'x', 'scale'])).toEqual(['scale', 'x']);
  });

  it('refuses an unknown name and an empty list', () => {
    expect(() => checkFetches(INPUTS, ['y'])).toThrow(/output "y" is unknown/);
    expect(() => checkFetches(INPUTS, [])).toThrow(/fetches is empty/);
  });
});
