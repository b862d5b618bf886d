import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { zipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import { readCheckpoint } from './checkpoint.js';
import { readZipDirectory } from './zip-directory.js';

/**
 * One dict saved by PyTorch 2.11 in both containers (gzip, base64): a Linear(2, 3)'s state dict and one tensor for each
 * element type, stride pattern and kind of sharing, beside values that are no tensors.
 */
const ZIP = unpack(`
H4sIAAAAAAACA6VYaWwbRRQe24mTuCFJobSlQCktR0rb1Fd8QJqkbnFbtkCygWICxWzsTbzgeP3sSS8IhCOh5ShXucoV7vu+EaDCL4QEgoofCPEDCSHg
B0IICQkJEeZwtjvjNoZ4ldlN1vsdb/bNvBf3KK4ahOrrUdnRgo5GWiGVMbbpq9Ma1tryV2bjsSbULxxjzlFArQkPARSxhvVk2khhcKRSZjarp7Bh5oqe
8wtpvaCn15NPPOBcroKrNeEmgO26MZTBUJPCJtFpS45gI1v0JAv6wIiRTSexniuaheQ2vwdqW1sTdUzCLGhDOrg5xBPPmhru4zc9UJdwkGe8UJ9wkWsq
PwINihuDp1dBiktxTsAcxak4JqBxT4a6OApDkwrNCRI/GjC0IrRkiE7GneE8PpibaVBcGI5m+HE4RnGMwzyOPRbDfBUWjIzCwkQDeTg5rGONzhIcxz5f
lKBTCMePwgnM+Da9UCRzAScqjmKxOMAwea2gEZhegMVHmAHrCQ+cNO0tU59hUS2xojqZR7WUO1uG4RQVTt3N/jjtJjhdhdZELZHT82YqA8uVOhZwgbwr
OGNDV8/AuQd/f+5v9kQxo+V1WFGa2z5jF5nTlVxj1Ti0qbCaTeyAMQTemxum86Sb8eXMnA6+8xjPYFYbKoJ/954JCLDMwAUtV8ybRT0NQWGO/dBOomnE
EKLR1CiuCQgrDqVmAiI8miiGM1U4q/TyC0aaUHRYU1ECr+mlmHHopG+piwO7MaxVIcbyjMRF0g/Wybj1vUSS4M6mLzbOcRswbFRhU4IuCH1HXstRxXME
0wFQCN6BYTM17aSmzyW/oAk4j3Ocj6FHhV42LxktOwgqx5cmdiO5ZeVsH6MMwgWE0onhQkY5DluopYs4XQLDxSr0s1AGBmnGwyUCYYwtA1/IIr2UkbbD
Vk56WYk0SUkv56SEZECFFCNNmyMDWR3SAul6dtOi1BllCAZ56EOU0kHTLsMvBqe9AsOVKmRZ6FkzNwTDAulmcsuizDHKMJjcZb7kEqjLAqcrYsAqjLC0
M3IYtglsm3KH1v52RhaBHdzfTuZvHHbR01Wc7GoMoypcU0p1s4DhWoGuj96zCMcYYRSu44TXlwhvoKcbOeE4hgkVbmLBpkiOwW6Bbx25ZdHtSTjpnuKF
m3m0t5SivZXy3cb59mK4XYU7+Ia0k6zPO8XXTG5ZfHdxPh/czf3tK/m7h57u5Xz3YbhfhQc4n2lmYb/IR25ZfA9yPj88xP09XPL3COV7lPNNYnhMhcf5
mkppWRLxE9bKYPAAPMntPEXgy5dz2NMYnlHhWb4JDefxTnhORAXheYJCGF6googu/xfJyiRZ9RJneBnDKyq8yrPKIEnx2lZ4XeRohze48puliXiLnt7m
+HcwvKvCe9pIW49SV9+94lrXKyQGOnqOWP4WoEar/LUNmoVhDSdLu3g8Vm9VQR9lfOe3726g2ULHkRkXofAhxlIlS2pZYyg3rOdwPBaQSut/OkJBaqBr
O/xCp8E5o4G5qMsyQPPLpHU5HjtrNrrTR9bAOKtTD+NrfjiOZoZ7Rg9NqFPoKlZ747EzqzDAWcc6yamL1CIyxsiY7KKO1B9/Omkh+WBhBUcrRUe+eKwV
/Xd9qocOUH2qeUvtikAj+aOxgmZE1PTHY0FURfzUQzf5IWOMjEkyDpDxPRloLenlyFhChnct9bhjdLDTSzulCh7niR4D8VgLKtef7Kac+tJH/6LLs6YC
Z7fIGYzHOqpJv37UgT6m+l/4tnw/C/32avXHupYcoPr3r/rs11noh6rV3/8APd5jufdp39N/UtH6Ch46RA/heCyCqlp/U1NTrhI79bGupu7LFvYfxMw+
gqKPSDzm/d8+/iLaVHPZ5L5vZzH/0Wrn/+t/qPrU57v/qbz/NpOlKO40ZPNbU5V8/5ST6j+294+O2ej7qtb/lMo3P/Xhhsr1rxnFJHmy63VWJ9/vYBn3
0bJPErOJP1B1/GRfZftf2/snfCLmHzqsgy7JQbDK+jtTtMdIWmSza0Zl/ltYTVA+2HpF5fVj9281Q1X5D3io+lePDF1Y+f0tRv5DDRQLqagXDNJB7dLo
Fw1JIx2Ptf1PM95wyNse8Ib9oXAkGvFHo4GIz+cLhnzhiC8UjgZC4XB7NOgPU5f7Vq+Z00p8tDKXDmrW8mlvKlvKnMvfo8hoewO5QEBOudGR2lCZxN4E
LhJIeuvQDJ2nzGNv5OYKPAdtPFYDKcPtXVeTAN9Sj6TeT8bauycR+7OM9clYe1cjYi9tkLB+GWvvXkQs8kjYgIy1dx4i9gIZG5Sx9q5BxH4tY9tlrL3a
S7pzJGxIxtortIj9RsaGZay90orYyxslbETG2uukFK+MjcpYe41rFrDqUXJulCWWvUKJ4INl4LLMslcXEdzbJIPLUsteGCTlMrCVW4evHcI7bpbBZcll
39JF8IEycFl22XdkETyvBck1QAbbN8rFAvguG/jwW3iP4navnN7wXass5HzpenEtv0bmTjeebvolIbqz9ADvRWrdHDOfPc+f/RfbAV648xYAAA==
`);
const LEGACY = unpack(`
H4sIAAAAAAACA32V2XfbVBDGZdlxGjdtw05Zw56wBDt2HAcKSdrSBXWLwmKWYmRbiVVUy5903TaFQFjspmXfaSkQ9pZ9hwIP5Y1nDn8Arzzy2HN6CHN1
ZSU2auVcRZor/b6ZuXNHM/KBmHny8LoT3TuObFvZNyNv/jtM52lIPdkuSZIqtsWsgmXmdum2Y1hlhOiB7DKaMQ3GTD2nl4uGVoY8m42RkU1V9Jxj7NUd
hKcR6cm2kdEpWTZDmyJnw3RnlBmiSiQb4QyrPIl2JVKtNjQ5xGEa03NFo8AQKpC2qRcYSTuxrXZRt/XiWpqJQe5VEe7JRumF3boxWWKIFJhlF0p9uSoz
TCeWs/V81TCLOaaXHcvO7eqPoa2nJ9vuSli2NqkjKl6JrTMtjY0LYwzt2eX0zFAqTb/40NBAKpPsxxLX+0Klig4luoUhNqZISliR61iqyEqojs79Je7T
MoblKla48eUNzUFXiVRL0VILNZ0eSMdxRqlDCRPtTJdWw1lKqIazBekchnNVnFedxvnZDno1t1NnWlFjGla68xdkySjhwmlc5AbVWKKLlZDjOHn3nYpm
a/SabuOSU2THfyKGS4M9FfF3l0Tcl/lxXy7ivkJ4eyXDVSqunnVvrtmHHhW97vLrFatQwrVKu5sSm9YW160f3pbf/Mc/R096BaJVdFzvrcU4lU8MNwiN
vhpuVBF3c583JpE4wKNyjxGXV7bKOvq3uJwJU5t0kJzdX0dKlKOtlZ2K5ehFDPw/toFEcigxGM9kkKbYOim2QR5bRAnXkVFCSqSOIRHbTQw3q1jllY5t
FAl4y+mAt3rA4THOqWGEr+2ogK1mWKNirVu5FDkVNG47HWudx1o/Rq4RawMvkY2CdTuDomJTdgnP856KVuaebQ6ipRLpeDKZxhaihYi2lYcq81C30YVU
x5ggqgzjKu5wc1vSzAncKWje4mwgk79P7mpyN9GfTA6mcTcJyCSQdQVquIe7e6+A38dwv4rtbuj5Cb7n8EATfrW7ERNpXyLXIpFKpFJ40JPQPIk8lygI
iSKDrmLClSha1bypY7JJYq1r9AVKLUlya93wkrSDC4R4kT8k/plCZCdDWYW10MMqTRKbyOQLoDWCTCIN24vA8SJgPIKqgO9i2K1ij98sp5rYG8sLfWpv
i++Dyf4MHvZ8f8T1vYZpfnpUoB9jmFHx+KKu/EQTfJzbfPyTi9pAIt4/kM7E43jKw9c8fJ2f9gn8LMN+FQfctBSosvF0E30NmXz4My2+Z2jgWS8tz3lp
eZ7DXxDwFxleUvGy6KtT1EReaa4cMvnwV1srP5WJ4zXP89c9z9/gp4MCfojhTRWHBdyyTLzVDCeTD3+7BT40EE/hHc/zOc/zdzn8PQF/n+EDFR+KDV/Q
TErMR8FbdDDOvwkfe44eIVZvr2AcZfhExaeioe6ssCl8dgpEOkUF/DkhJEJ8wd2ReCf7kpoHFfBXAvc1wzcqvhUFbDgM323H96cCDlLb+MHz6UcveT/x
0zEB+5nhFxW/avwjvp1/xAO+HqGgj58cVGDhoKYSCWoDbUE7KxrUQgM74ZKgIukIagexoH22NKiAO4NqY1nQIi8PWrYVQanv0vui0uJj5lY6DdMHkMYM
jbnh8MIc3UvH+XzIs/z5r9yYXCX9JvvPdR+XF0Pn5+cblM5mNU4coT8aMzTmaByn8RcNaVSSumh004iPhvx35kYa1783Lg4d5Mcx360TJNhwYF5uXIWk
BUj3iORbG0fX6H8l8Zn4sQoAAA==
`);

function unpack(base64: string): Uint8Array {
  return new Uint8Array(gunzipSync(Buffer.from(base64, 'base64')));
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

const EXPECTED: Record<string, [string, number[], unknown[]]> = {
  'state_dict.weight': ['float32', [3, 2], [0, 0.25, 0.5, 0.75, 1, 1.25]],
  'state_dict.bias': ['float32', [3], [1, -2, 0.5]],
  parameter: ['float32', [3, 2], [0, 0.25, 0.5, 0.75, 1, 1.25]],
  transposed: ['float32', [4, 3], [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]],
  strided: ['float32', [4], [1, 4, 7, 10]],
  shared: ['float32', [4], [4, 5, 6, 7]],
  expanded: ['float32', [2, 3], [5, 5, 5, 5, 5, 5]],
  half: ['float16', [2], [0x3c00, 0xc100]],
  bfloat: ['bfloat16', [2], [0x3f80, 0xc020]],
  double: ['float64', [1, 1], [0.1]],
  long: ['int64', [2], [-(2n ** 40n), 3n]],
  int: ['int32', [1], [-7]],
  short: ['int16', [1], [-300]],
  char: ['int8', [2], [-1, 2]],
  byte: ['uint8', [1], [200]],
  bool: ['bool', [2], [1, 0]],
  scalar: ['float32', [], [2.5]],
  empty: ['float32', [0, 4], []],
  'list.0': ['float32', [1], [9]],
};

describe.each([
  ['zip', ZIP],
  ['legacy', LEGACY],
])('readCheckpoint: %s container', (_, bytes) => {
  it('reads every tensor as PyTorch wrote it', () => {
    const found = readCheckpoint(bytes);
    expect([...found.keys()].sort()).toEqual(Object.keys(EXPECTED).sort());
    for (const [name, [dtype, shape, data]] of Object.entries(EXPECTED)) {
      const got = found.get(name) as Tensor;
      expect([name, got.dtype, got.shape, Array.from(got.data as ArrayLike<unknown>)]).toEqual([
        name,
        dtype,
        shape,
        data,
      ]);
    }
  });

  it('gives tensors of one storage their own arrays', () => {
    const found = readCheckpoint(bytes);
    (found.get('shared')!.data as Float32Array).fill(99);
    expect(Array.from(found.get('strided')!.data as Float32Array)).toEqual([1, 4, 7, 10]);
  });

  it('reads bytes that lie unaligned within a larger buffer', () => {
    const shifted = new Uint8Array(bytes.length + 3);
    shifted.set(bytes, 3);
    expect(digest(readCheckpoint(shifted.subarray(3)))).toBe(digest(readCheckpoint(bytes)));
    expect(digest(readCheckpoint(Buffer.from(bytes)))).toBe(digest(readCheckpoint(bytes)));
  });

  it('refuses every truncation', () => {
    for (let end = 0; end < bytes.length; end += end < 200 || end > bytes.length - 200 ? 1 : 7) {
      expect([end, codeOf(() => readCheckpoint(bytes.subarray(0, end)))]).toEqual([end, 'INVALID_DATA']);
    }
  });

  it('keeps its limits', () => {
    expect(codeOf(() => readCheckpoint(bytes, { maxTensors: 5 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => readCheckpoint(bytes, { maxTensorBytes: 100 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => readCheckpoint(bytes, { maxBytes: 1000 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => readCheckpoint(bytes, { maxDepth: 1 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => readCheckpoint(bytes, { maxPickleBytes: 400 }))).toBe('LIMIT_EXCEEDED');
  });

  it('fuzz: flipped bytes never do anything but give tensors or a ScrimError', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        (edits) => {
          const damaged = bytes.slice();
          for (const [at, value] of edits) damaged[at] = value;
          codeOf(() => readCheckpoint(damaged, { maxTensorBytes: 2 ** 20 }));
        },
      ),
      { numRuns: 4000, seed: 5 },
    );
  });
});

function digest(tensors: Map<string, Tensor>): string {
  const hash = createHash('sha256');
  for (const [name, { shape, data }] of tensors) {
    hash.update(`${name} ${shape.join(',')}`);
    hash.update(new Uint8Array((data as Float32Array).buffer));
  }
  return hash.digest('hex');
}

// ---- hostile archives, put together by hand

const text = (value: string): number[] => [...new TextEncoder().encode(value)];
const u32 = (value: number): number[] => [...new Uint8Array(Uint32Array.of(value).buffer)];
const unicode = (value: string): number[] => [0x58, ...u32(value.length), ...text(value)];
const integer = (value: number): number[] => [0x8a, 8, ...new Uint8Array(BigInt64Array.of(BigInt(value)).buffer)];
const numbers = (values: number[]): number[] => [0x28, ...values.flatMap(integer), 0x74];
const named = (module: string, name: string): number[] => text(`c${module}\n${name}\n`);
const storage = (type: string, key: string, length: number): number[] => [
  ...[0x28, ...unicode('storage'), ...named('torch', type), ...unicode(key), ...unicode('cpu'), ...integer(length)],
  ...[0x74, 0x51],
];
const tensorOf = (from: number[], offset: number, shape: number[], strides: number[]): number[] => [
  ...[...named('torch._utils', '_rebuild_tensor_v2'), 0x28, ...from, ...integer(offset), ...numbers(shape)],
  ...[...numbers(strides), 0x89, 0x7d, 0x74, 0x52],
];
const dictOf = (entries: Record<string, number[]>): number[] => [
  ...[0x7d, 0x28, ...Object.entries(entries).flatMap(([key, value]) => [...unicode(key), ...value]), 0x75],
];
const archive = (value: number[], files: Record<string, Uint8Array> = { 'a/data/0': new Uint8Array(16) }): Uint8Array =>
  zipSync({ 'a/data.pkl': Uint8Array.from([0x80, 2, ...value, 0x2e]), ...files }, { level: 0 });
const single = (...args: Parameters<typeof tensorOf>): Uint8Array => archive(dictOf({ x: tensorOf(...args) }));
const four = storage('FloatStorage', '0', 4);

describe('readCheckpoint: hostile archives', () => {
  it('reads a good one made the same way', () => {
    expect(readCheckpoint(single(four, 0, [2, 2], [2, 1])).get('x')!.shape).toEqual([2, 2]);
  });

  it('names the global of an attack and runs nothing', () => {
    const attack = archive([...named('posix', 'system'), ...unicode('id'), 0x85, 0x52]);
    expect(() => readCheckpoint(attack)).toThrow('global posix.system is not allowed');
    for (const [module, name] of [
      ['os', 'system'],
      ['builtins', 'exec'],
      ['torch', 'load'],
      ['torch.storage', '_load_from_bytes'],
      ['torch.jit', '_pickle'],
      ['__torch__', 'Net'],
      ['torch', 'FloatStorage\u0000'],
    ] as const) {
      expect(codeOf(() => readCheckpoint(archive([...named(module, name), 0x29, 0x52])))).toBe('INVALID_DATA');
    }
  });

  it('refuses to call a storage class', () => {
    expect(() => readCheckpoint(archive([...named('torch', 'FloatStorage'), 0x29, 0x52]))).toThrow('not allowed');
  });

  const refused: [string, Uint8Array, string][] = [
    ['an offset past the end', single(four, 4, [1], [1]), 'INVALID_DATA'],
    ['an offset of 2⁵²', single(four, 2 ** 52, [1], [1]), 'INVALID_DATA'],
    ['a negative offset', single(four, -1, [1], [1]), 'INVALID_DATA'],
    ['strides past the end', single(four, 0, [2, 2], [3, 1]), 'INVALID_DATA'],
    ['a stride of 2⁵³ − 1', single(four, 0, [2], [2 ** 53 - 1]), 'INVALID_DATA'],
    ['a negative stride', single(four, 3, [4], [-1]), 'INVALID_DATA'],
    ['fewer strides than dimensions', single(four, 0, [2, 2], [1]), 'INVALID_DATA'],
    ['17 dimensions', single(four, 0, new Array(17).fill(1), new Array(17).fill(1)), 'INVALID_DATA'],
    ['one element repeated 2⁴⁰ times', single(four, 0, [2 ** 20, 2 ** 20], [0, 0]), 'LIMIT_EXCEEDED'],
    ['dimensions whose product overflows', single(four, 0, [2 ** 52, 2 ** 52, 2 ** 52], [0, 0, 0]), 'LIMIT_EXCEEDED'],
    ['a storage that is missing', single(storage('FloatStorage', '1', 4), 0, [1], [1]), 'INVALID_DATA'],
    ['a storage key that climbs', single(storage('FloatStorage', '../0', 4), 0, [1], [1]), 'INVALID_DATA'],
    ['a storage that is shorter than stated', single(storage('FloatStorage', '0', 5), 0, [1], [1]), 'INVALID_DATA'],
    [
      'a storage that is no whole number of elements',
      archive(dictOf({ x: tensorOf(four, 0, [1], [1]) }), { 'a/data/0': new Uint8Array(17) }),
      'INVALID_DATA',
    ],
    ['a storage of an unknown class', single(storage('QInt8Storage', '0', 4), 0, [1], [1]), 'INVALID_DATA'],
    [
      'a storage with two classes',
      archive(dictOf({ x: tensorOf(four, 0, [1], [1]), y: tensorOf(storage('LongStorage', '0', 2), 0, [1], [1]) })),
      'INVALID_DATA',
    ],
    ['a tensor of a tensor', single(tensorOf(four, 0, [1], [1]), 0, [1], [1]), 'INVALID_DATA'],
    [
      'two tensors of one name',
      archive(
        dictOf({
          a: dictOf({ 'b.c': tensorOf(four, 0, [1], [1]) }),
          'a.b': dictOf({ c: tensorOf(four, 0, [1], [1]) }),
        }),
      ),
      'INVALID_DATA',
    ],
    ['a dict that holds itself', archive([0x7d, 0x71, 0, ...unicode('a'), 0x68, 0, 0x73]), 'LIMIT_EXCEEDED'],
    ['no data.pkl', zipSync({ 'a/b': new Uint8Array(1) }), 'INVALID_DATA'],
    [
      'two programs',
      zipSync({ 'a/data.pkl': Uint8Array.of(0x4e, 0x2e), 'b/data.pkl': Uint8Array.of(0x4e, 0x2e) }),
      'INVALID_DATA',
    ],
    ['big-endian numbers', archive([0x4e], { 'a/byteorder': Uint8Array.from(text('big')) }), 'UNSUPPORTED'],
    ['a photo', Uint8Array.from([0xff, 0xd8, 0xff, 0xe0, ...new Array(100).fill(0)]), 'INVALID_DATA'],
    ['nothing', new Uint8Array(), 'INVALID_DATA'],
  ];
  for (const [name, bytes, code] of refused) {
    it(`refuses ${name}`, () => expect(codeOf(() => readCheckpoint(bytes))).toBe(code));
  }

  it('ends the walk through a tree that doubles at each of 25 levels', () => {
    const parts: number[] = [0x7d, 0x71, 0];
    for (let i = 1; i <= 25; i++) {
      parts.push(0x30, 0x7d, 0x71, i, 0x28, ...unicode('a'), 0x68, i - 1, ...unicode('b'), 0x68, i - 1, 0x75);
    }
    expect(codeOf(() => readCheckpoint(archive(parts), { maxTensors: 1000 }))).toBe('LIMIT_EXCEEDED');
  });

  it('reads empty tensors whatever their strides say', () => {
    expect(readCheckpoint(single(four, 0, [0, 5], [9, 9])).get('x')!.shape).toEqual([0, 5]);
  });
});

describe('readZipDirectory', () => {
  const payload = new Uint8Array(5000).map((_, i) => i % 7);
  const patched = (zip: Uint8Array, find: number[], offset: number, bytes: number[]): Uint8Array => {
    const copy = zip.slice();
    const at = copy.findIndex((_, i) => find.every((value, k) => copy[i + k] === value));
    copy.set(bytes, at + offset);
    return copy;
  };
  const central = [0x50, 0x4b, 1, 2];

  it('reads stored and deflated entries', () => {
    for (const level of [0, 9] as const) {
      const entry = readZipDirectory(zipSync({ 'a/b': payload }, { level })).get('a/b')!;
      expect(entry.bytes).toBe(5000);
      expect(entry.read()).toEqual(payload);
    }
  });

  it('refuses an entry that states more than deflate can hold, before it allocates', () => {
    const bomb = patched(zipSync({ a: payload }), central, 24, u32(0x7fffffff));
    expect(codeOf(() => readZipDirectory(bomb))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => readZipDirectory(bomb, { maxEntryBytes: 2 ** 32, maxTotalBytes: 2 ** 32 }))).toBe(
      'INVALID_DATA',
    );
  });

  it('refuses an entry that inflates to more or less than it states', () => {
    const zip = zipSync({ a: payload });
    for (const size of [4999, 5001]) {
      const entry = readZipDirectory(patched(zip, central, 24, u32(size))).get('a')!;
      expect(codeOf(() => entry.read())).toBe('INVALID_DATA');
    }
  });

  it('bounds the sum of all entries', () => {
    const zip = zipSync({ a: payload, b: payload, c: payload });
    expect(codeOf(() => readZipDirectory(zip, { maxTotalBytes: 12_000 }))).toBe('LIMIT_EXCEEDED');
    expect(codeOf(() => readZipDirectory(zip, { maxEntries: 2 }))).toBe('LIMIT_EXCEEDED');
  });

  it('refuses overlapping entries (the quine-like zip bomb)', () => {
    const zip = zipSync({ a: payload, b: payload }, { level: 0 });
    const second = zip.findLastIndex((_, i) => central.every((value, k) => zip[i + k] === value));
    const overlapped = zip.slice();
    overlapped.set(u32(0), second + 42);
    expect(codeOf(() => readZipDirectory(overlapped))).toBe('INVALID_DATA');
  });

  it.each(['../a', '/a', 'a/../../b', 'a\\b', 'c:/a', 'a//b', './a', 'a\u0000b'])('refuses the name %j', (name) => {
    expect(codeOf(() => readZipDirectory(zipSync({ [name]: payload })))).toBe('INVALID_DATA');
  });

  it('refuses encryption, other methods, and directories that lie', () => {
    const zip = zipSync({ a: payload });
    expect(codeOf(() => readZipDirectory(patched(zip, central, 8, [1])))).toBe('UNSUPPORTED');
    expect(codeOf(() => readZipDirectory(patched(zip, central, 10, [12])))).toBe('UNSUPPORTED');
    expect(codeOf(() => readZipDirectory(patched(zip, central, 42, u32(7))))).toBe('INVALID_DATA');
    expect(codeOf(() => readZipDirectory(patched(zip, [0x50, 0x4b, 5, 6], 10, [9])))).toBe('INVALID_DATA');
    expect(codeOf(() => readZipDirectory(patched(zip, [0x50, 0x4b, 5, 6], 16, u32(0xfffffff0))))).toBe('INVALID_DATA');
    expect(codeOf(() => readZipDirectory(patched(zip, central, 20, u32(0xffffffff))))).toBe('INVALID_DATA');
  });
});
