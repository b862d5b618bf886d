import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { JsonReader } from './json-reader.js';
import { decodeJson, encodeJson, type JsonValue, jsonText } from './json-value.js';
import { createLimits } from './limits.js';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const read = (text: string): JsonValue => decodeJson(utf8(text));
function failure(run: () => unknown): ScrimError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(ScrimError);
    return error as ScrimError;
  }
  throw new Error('nothing was thrown');
}

describe('decodeJson', () => {
  it('agrees with JSON.parse where both apply', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), fc.boolean(), (text, pretty) => {
        const value = JSON.parse(text) as unknown;
        const written = pretty ? JSON.stringify(value, undefined, 2) : text;
        // Compared as text, because JSON.parse rounds integers that stay exact here.
        expect(JSON.parse(jsonText(read(written)))).toEqual(value);
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  it('writes what it reads', () => {
    const leaf = fc.oneof(
      fc.double(),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
      fc.string({ unit: 'grapheme' }),
      fc.boolean(),
      fc.constant(null),
    );
    const { tree } = fc.letrec<{ tree: JsonValue }>((tie) => ({
      tree: fc.oneof({ maxDepth: 4 }, leaf, fc.array(tie('tree')), fc.dictionary(fc.string(), tie('tree'))),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        const text = jsonText(value);
        expect(jsonText(decodeJson(encodeJson(value)))).toBe(text);
      }),
      { seed: 2, numRuns: 500 },
    );
  });

  it.each([
    ['9007199254740993', 9_007_199_254_740_993n],
    ['-9223372036854775808', -(2n ** 63n)],
    ['18446744073709551615', 2n ** 64n - 1n],
    ['18446744073709551616', 2 ** 64],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
    ['-0', 0],
    ['-0.0', -0],
    ['1.0', 1],
    ['1e3', 1000],
    ['1E-3', 0.001],
    ['NaN', Number.NaN],
    ['Infinity', Number.POSITIVE_INFINITY],
    ['-Infinity', Number.NEGATIVE_INFINITY],
    ['123456789012345678901234567890', 1.234_567_890_123_456_8e29],
    ['"\\u00e9\\ud83c\\udfad\\n\\/"', 'é🎭\n/'],
    [' [ 1 , [ ] , { } ] ', [1, [], {}]],
  ])('reads %s', (text, expected) => {
    expect(read(text)).toEqual(expected);
  });

  it.each([
    '',
    ' ',
    '[',
    '[1',
    '[1,',
    '[1,]',
    '[,1]',
    '{',
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,}',
    '{a:1}',
    '{"a":1,"a":2}',
    '01',
    '-',
    '+1',
    '.5',
    '1.',
    '1e',
    '1e+',
    '--1',
    '-NaN',
    'nan',
    'Inf',
    'tru',
    'nulL',
    '"',
    '"\\',
    '"\\x"',
    '"\\u12"',
    '"\\ud800"',
    '"\\udc00"',
    '"\\ud800\\u0041"',
    '"\u0001"',
    '1 2',
    '[1] ]',
    '1e999',
    '"a" // comment',
    '\ufeff1',
  ])('refuses %j with its place', (text) => {
    const error = failure(() => read(text));
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.message).toMatch(/^the JSON: .* at byte \d+ \(line \d+, column \d+\)$/);
  });

  it('counts lines and columns', () => {
    expect(failure(() => read('{\n  "a": 1,\n  "b": x\n}')).message).toContain('at byte 19 (line 3, column 8)');
  });

  it('refuses bytes that are not UTF-8 in text, but gives them as bytes', () => {
    const bytes = Uint8Array.of(0x22, 0xff, 0xfe, 0x22);
    expect(failure(() => decodeJson(bytes)).message).toContain('not valid UTF-8');
    expect(new JsonReader(bytes).stringBytes()).toEqual(Uint8Array.of(0xff, 0xfe));
  });

  it('keeps the key __proto__ as a key', () => {
    const value = read('{"__proto__":{"polluted":true},"constructor":1}');
    expect(Object.keys(value as object)).toEqual(['__proto__', 'constructor']);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it('limits depth, values and bytes', () => {
    expect(failure(() => read('['.repeat(101))).code).toBe('LIMIT_EXCEEDED');
    expect(read(`${'['.repeat(100)}${']'.repeat(100)}`)).toBeDefined();
    const limits = createLimits({ maxValues: 3, maxBytes: 20 });
    expect(failure(() => decodeJson(utf8('[1,2,3]'), { limits })).code).toBe('LIMIT_EXCEEDED');
    expect(failure(() => decodeJson(utf8(' '.repeat(21)), { limits })).code).toBe('LIMIT_EXCEEDED');
    expect(decodeJson(utf8('[1,2]'), { limits })).toEqual([1, 2]);
  });
});

describe('numbers', () => {
  it('are the nearest double', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
          fc
            .tuple(fc.bigInt({ min: 0n, max: 10n ** 25n }), fc.integer({ min: -330, max: 280 }))
            .map(([m, e]) => `${m}e${e}`),
          fc.tuple(fc.nat(), fc.stringMatching(/^[0-9]{1,30}$/)).map(([whole, part]) => `${whole}.${part}`),
        ),
        (text) => {
          expect(new JsonReader(utf8(text)).float64()).toBe(Number(text));
        },
      ),
      { seed: 3, numRuns: 3000 },
    );
  });

  it('are the float32 nearest to the nearest double', () => {
    const halfway = fc
      .tuple(fc.float({ noNaN: true, noDefaultInfinity: true }), fc.integer({ min: -3, max: 3 }))
      .map(([value, steps]) => {
        // Doubles at and around the middle between two float32 numbers, where a sloppy reader goes wrong.
        const bits = new Uint32Array(Float32Array.of(value).buffer);
        const next = new Float32Array(Uint32Array.of(bits[0]! + 1).buffer)[0]!;
        const middle = Number.isFinite(next) ? (value + next) / 2 : value;
        const double = new BigInt64Array(Float64Array.of(middle).buffer);
        double[0] = double[0]! + BigInt(steps);
        return new Float64Array(double.buffer)[0]!;
      });
    const text = fc.oneof(
      halfway.filter(Number.isFinite).map(String),
      halfway.filter(Number.isFinite).map((value) => value.toExponential(19)),
      fc.float({ noNaN: true, noDefaultInfinity: true }).map(String),
      fc.tuple(fc.bigInt({ min: 0n, max: 10n ** 22n }), fc.integer({ min: -70, max: 16 })).map(([m, e]) => `${m}e${e}`),
    );
    fc.assert(
      fc.property(text, (number) => {
        expect(new JsonReader(utf8(number)).float32()).toBe(Math.fround(Number(number)));
      }),
      { seed: 4, numRuns: 5000 },
    );
  });

  it('are refused out of range', () => {
    const integer = (text: string) => () => new JsonReader(utf8(text)).integer(-128, 127);
    expect(integer('127')()).toBe(127);
    for (const text of ['128', '-129', '1.0', '1e1', 'NaN', '99999999999999999999999999']) failure(integer(text));
    const wide = (text: string) => () => new JsonReader(utf8(text)).bigint(0n, 2n ** 64n - 1n);
    expect(wide('18446744073709551615')()).toBe(2n ** 64n - 1n);
    for (const text of ['18446744073709551616', '-1', '1.5', '1'.repeat(10_000)]) failure(wide(text));
    failure(() => new JsonReader(utf8('1e39')).float32());
    expect(new JsonReader(utf8('-0.0')).float32()).toBe(-0);
  });

  it('never show in messages', () => {
    const error = failure(() => new JsonReader(utf8('4242424242')).integer(0, 5));
    expect(error.message).not.toContain('4242');
  });
});
