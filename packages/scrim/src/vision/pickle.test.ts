import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { type PickleHost, type PickleValue, readPickle } from './pickle.js';

const text = (value: string): number[] => [...new TextEncoder().encode(value)];
const u32 = (value: number): number[] => [...new Uint8Array(Uint32Array.of(value).buffer)];
const unicode = (value: string): number[] => [0x58, ...u32(text(value).length), ...text(value)];
const named = (module: string, name: string): number[] => [...text('c'), ...text(`${module}\n${name}\n`)];
const program = (...parts: (number[] | string)[]): Uint8Array =>
  Uint8Array.from([0x80, 2, ...parts.flatMap((part) => (typeof part === 'string' ? text(part) : part)), 0x2e]);

const none: PickleHost = { findGlobal: () => undefined };
const read = (...parts: (number[] | string)[]): PickleValue => readPickle(program(...parts), none).value;

/** The value as plain JavaScript, for comparisons. */
function plain(value: PickleValue): unknown {
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
  if (value.kind === 'dict') return new Map([...value.entries].map(([key, item]) => [key, plain(item)]));
  return 'items' in value ? value.items.map(plain) : value;
}

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ScrimError) return error.code;
    throw error;
  }
  return 'nothing thrown';
}

describe('readPickle: values', () => {
  // What Python's pickle.dumps gives, by protocol, for the value beside it.
  const vectors: [string, string, unknown][] = [
    [
      'protocol 2: {"a": [1, 2.5], "b": (None, True)}',
      '80027d71002858010000006171015d7102284b014740040000000000006558010000006271034e88867104752e',
      new Map<string, unknown>([
        ['a', [1, 2.5]],
        ['b', [null, true]],
      ]),
    ],
    [
      'protocol 4: ["x", b"\\x01", 70000, -1]',
      '80049517000000000000005d94288c017894430101944a701101004affffffff652e',
      ['x', Uint8Array.of(1), 70000, -1],
    ],
    ['protocol 5: bytearray()', '8005950b00000000000000960000000000000000942e', new Uint8Array()],
    ['protocol 4: {1, 2}', '80049509000000000000008f94284b014b02902e', [1, 2]],
  ];
  for (const [name, hex, expected] of vectors) {
    it(name, () => {
      const bytes = Uint8Array.from(hex.match(/../g)!, (pair) => Number.parseInt(pair, 16));
      const result = readPickle(bytes, none);
      expect(plain(result.value)).toEqual(expected);
      expect(result.end).toBe(bytes.length);
    });
  }

  it('reads integers of every width, negative ones included', () => {
    expect(read([0x4b, 255])).toBe(255);
    expect(read([0x4d, 0xff, 0xff])).toBe(65535);
    expect(read([0x4a, 0xfe, 0xff, 0xff, 0xff])).toBe(-2);
    expect(read([0x8a, 0])).toBe(0);
    expect(read([0x8a, 1, 0xff])).toBe(-1);
    expect(read([0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1])).toBe(2n ** 64n);
  });

  it('reads memo references to the same object', () => {
    const value = read(']', [0x71, 0], '(', [0x68, 0, 0x4b, 1], 'e') as { items: PickleValue[] };
    expect(value.items[0]).toBe(value);
    expect(value.items[1]).toBe(1);
  });

  it('starts where it is told and says where it ended', () => {
    const bytes = Uint8Array.from([9, 9, ...program([0x4b, 5]), 7]);
    expect(readPickle(bytes, none, 2)).toEqual({ value: 5, end: bytes.length - 1 });
  });

  it('calls allowed globals with their arguments only', () => {
    const host: PickleHost = {
      findGlobal: (module, name) =>
        module === 'm' && name === 'pair'
          ? { kind: 'global', name: 'm.pair', call: (args) => ({ kind: 'tuple', items: [...args, 'called'] }) }
          : undefined,
      loadPersistent: (id) => ({ kind: 'object', value: id }),
    };
    expect(plain(readPickle(program(named('m', 'pair'), [0x4b, 3, 0x85], 'R'), host).value)).toEqual([3, 'called']);
    expect(readPickle(program(unicode('id'), 'Q'), host).value).toEqual({ kind: 'object', value: 'id' });
  });
});

describe('readPickle: hostile programs', () => {
  it('refuses os.system and names it', () => {
    const attack = program(named('os', 'system'), unicode('echo owned'), [0x85], 'R');
    expect(() => readPickle(attack, none)).toThrow('global os.system is not allowed');
    expect(codeOf(() => readPickle(attack, none))).toBe('INVALID_DATA');
  });

  it('refuses globals named through the stack, and shows only printable text of them', () => {
    expect(() => read(unicode('builtins'), unicode('eval'), [0x93])).toThrow('global builtins.eval is not allowed');
    expect(() => read(named('evil\u0007', 'x'.repeat(500)))).toThrow(
      /^pickle: global evil\?\.x{100,120} is not allowed$/,
    );
  });

  const malformed: [string, Uint8Array][] = [
    ['an empty program', new Uint8Array()],
    ['a stop without a value', program()],
    ['values left over', program([0x4b, 1, 0x4b, 2])],
    ['a mark left over', program([0x4b, 1], '(', [0x4b, 2], '0')],
    ['a pop from an empty stack', program('0')],
    ['a tuple over a mark', program([0x4b, 1], '(', [0x85])],
    ['APPENDS without a mark', program(']', 'e')],
    ['APPEND to a number', program([0x4b, 1, 0x4b, 2], 'a')],
    ['SETITEMS with an odd count', program('}', '(', [0x4b, 1], 'u')],
    ['a list as a key', program('}', ']', [0x4b, 1], 's')],
    ['a memo entry that is not there', program([0x68, 7])],
    ['a memo index of two billion that is not there', program([0x6a, ...u32(2 ** 31)])],
    ['a string longer than the file', program([0x58, ...u32(0xffffffff)])],
    ['bytes of 2⁶³', program([0x8e, 0, 0, 0, 0, 0, 0, 0, 0x80])],
    ['an integer of 2³² bytes', program([0x8b, ...u32(0xffffffff)])],
    ['a string that is no UTF-8', program([0x58, ...u32(1), 0xff])],
    ['the text form of an integer', program('I10\n')],
    ['a text argument without an end', program(`c${'a'.repeat(5000)}`)],
    ['protocol 9', Uint8Array.of(0x80, 9, 0x4e, 0x2e)],
    ['NEWOBJ', program([0x29, 0x29, 0x81])],
    ['INST', program('(', 'ios\nsystem\n')],
    ['OBJ', program('(', [0x4b, 1], 'o')],
    ['EXT1', program([0x82, 1])],
    ['REDUCE of a string', program(unicode('os.system'), ')', 'R')],
    ['BUILD on a list', program(']', '}', 'b')],
    ['a persistent id where there is none', program(unicode('x'), 'Q')],
  ];
  for (const [name, bytes] of malformed) {
    it(`refuses ${name}`, () => expect(codeOf(() => readPickle(bytes, none))).toBe('INVALID_DATA'));
  }

  it('refuses every truncation of a good program', () => {
    const good = program(
      '}',
      '(',
      unicode('a'),
      ']',
      [0x71, 0],
      '(',
      [0x4b, 1, 0x4d, 1, 2],
      'e',
      unicode('b'),
      [0x88],
      'u',
    );
    expect(codeOf(() => readPickle(good, none))).toBe('nothing thrown');
    for (let end = 0; end < good.length; end++) {
      expect(codeOf(() => readPickle(good.subarray(0, end), none))).toBe('INVALID_DATA');
    }
  });

  it('bounds the stack, the marks, the memo and the length', () => {
    const limits = { maxEntries: 1000, maxBytes: 10_000 };
    const many = (opcode: number): Uint8Array => Uint8Array.from([0x80, 2, ...new Array(2000).fill(opcode), 0x2e]);
    expect(codeOf(() => readPickle(many(0x4e), none, 0, limits))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => readPickle(many(0x28), none, 0, limits))).toBe('LIMIT_EXCEEDED');
    const memo = Array.from({ length: 2000 }, (_, i) => [0x72, ...u32(i)]).flat();
    expect(codeOf(() => readPickle(program([0x4e], memo), none, 0, limits))).toBe('LIMIT_EXCEEDED');
    const long = program([0x58, ...u32(20_000)], 'a'.repeat(20_000));
    expect(codeOf(() => readPickle(long, none, 0, limits))).toBe('LIMIT_EXCEEDED');
  });

  it('reads a billion-laughs program in time linear in its bytes', () => {
    // 60 lists, each holding the one before it ten times: 10⁶⁰ leaves if unrolled.
    const parts: number[] = [0x5d, 0x71, 0];
    for (let i = 1; i <= 60; i++) {
      parts.push(0x30, 0x5d, 0x71, i, 0x28);
      for (let k = 0; k < 10; k++) parts.push(0x68, i - 1);
      parts.push(0x65);
    }
    expect(codeOf(() => read(parts))).toBe('nothing thrown');
  });

  it('fuzz: random bytes and damaged programs only ever throw ScrimError', () => {
    const opcodes = fc.constantFrom(
      ...'(.012BCGIJKLMNPQRTUX]abcdeghijlopqrstu}',
      '\u0080',
      '\u0085',
      '\u0086',
      '\u0088',
      '\u008a',
      '\u008c',
      '\u0090',
      '\u0093',
      '\u0094',
    );
    const likely = fc.array(
      fc.oneof(
        { weight: 6, arbitrary: opcodes.map((c) => c.charCodeAt(0)) },
        { weight: 4, arbitrary: fc.nat(8) },
        { weight: 1, arbitrary: fc.nat(255) },
      ),
      { maxLength: 120 },
    );
    fc.assert(
      fc.property(fc.oneof(likely, fc.array(fc.nat(255), { maxLength: 200 })), (bytes) => {
        codeOf(() => readPickle(Uint8Array.from([...bytes, 0x2e]), none));
      }),
      { numRuns: 20_000, seed: 11 },
    );
  });
});
