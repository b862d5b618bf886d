import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { readTfjsModel } from './tfjs.js';

const bytesOf = (...arrays: { buffer: ArrayBufferLike }[]): Uint8Array =>
  Uint8Array.from(arrays.flatMap((array) => [...new Uint8Array(array.buffer)]));

const model = (weights: unknown[], nodes: unknown[] = []): string =>
  JSON.stringify({
    format: 'graph-model',
    modelTopology: { node: nodes },
    weightsManifest: [{ paths: ['w'], weights }],
  });

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ScrimError) return error.code;
    throw error;
  }
  return 'nothing thrown';
}

describe('readTfjsModel: weights', () => {
  it('reads plain, float16 and affine weights, one after the other', () => {
    const json = model([
      { name: 'plain', shape: [2], dtype: 'float32' },
      { name: 'half', shape: [5], dtype: 'float32', quantization: { dtype: 'float16', original_dtype: 'float32' } },
      { name: 'eight', shape: [2, 2], dtype: 'float32', quantization: { dtype: 'uint8', scale: 0.5, min: -1 } },
      { name: 'sixteen', shape: [1], dtype: 'float32', quantization: { dtype: 'uint16', scale: 0.25, min: 2 } },
      { name: 'integers', shape: [2], dtype: 'int32' },
      { name: 'packed', shape: [2], dtype: 'int32', quantization: { dtype: 'uint8', scale: 1, min: -3 } },
      { name: 'flag', shape: [], dtype: 'bool' },
    ]);
    const bytes = bytesOf(
      Float32Array.of(1.5, -2),
      Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff, 0x8000),
      Uint8Array.of(0, 2, 4, 255),
      Uint16Array.of(40_000),
      Int32Array.of(-7, 2 ** 30),
      Uint8Array.of(0, 9),
      Uint8Array.of(3),
    );
    const { weights } = readTfjsModel(json, bytes);
    const data = (name: string): number[] => Array.from(weights.get(name)!.data);
    expect(data('plain')).toEqual([1.5, -2]);
    expect(data('half')).toEqual([1, -2, 2 ** -24, 65504, -0]);
    expect(data('eight')).toEqual([-1, 0, 1, 126.5]);
    expect(weights.get('eight')!.shape).toEqual([2, 2]);
    expect(data('sixteen')).toEqual([10_002]);
    expect(data('integers')).toEqual([-7, 2 ** 30]);
    expect(data('packed')).toEqual([-3, 6]);
    expect(data('flag')).toEqual([1]);
    expect(weights.get('flag')!.shape).toEqual([]);
  });

  const one = [{ name: 'a', shape: [2], dtype: 'float32' }];
  const refused: [string, string, Uint8Array, string][] = [
    ['text that is no JSON', '{', new Uint8Array(), 'INVALID_DATA'],
    ['a number', '7', new Uint8Array(), 'INVALID_DATA'],
    ['a layers model', '{"format":"layers-model"}', new Uint8Array(), 'UNSUPPORTED'],
    ['no topology', '{"weightsManifest":[]}', new Uint8Array(), 'INVALID_DATA'],
    ['too few bytes', model(one), new Uint8Array(7), 'INVALID_DATA'],
    ['too many bytes', model(one), new Uint8Array(9), 'INVALID_DATA'],
    ['two weights of one name', model([...one, ...one]), new Uint8Array(16), 'INVALID_DATA'],
    ['a negative dimension', model([{ name: 'a', shape: [-1], dtype: 'float32' }]), new Uint8Array(4), 'INVALID_DATA'],
    [
      '2⁶⁰ elements',
      model([{ name: 'a', shape: [2 ** 30, 2 ** 30], dtype: 'float32' }]),
      new Uint8Array(4),
      'LIMIT_EXCEEDED',
    ],
    ['2³⁰ elements', model([{ name: 'a', shape: [2 ** 30], dtype: 'float32' }]), new Uint8Array(4), 'LIMIT_EXCEEDED'],
    ['complex numbers', model([{ name: 'a', shape: [1], dtype: 'complex64' }]), new Uint8Array(8), 'UNSUPPORTED'],
    [
      'a scale that is no number',
      model([{ name: 'a', shape: [1], dtype: 'float32', quantization: { dtype: 'uint8', scale: 'x', min: 0 } }]),
      new Uint8Array(1),
      'INVALID_DATA',
    ],
    [
      'two nodes of one name',
      model(
        [],
        [
          { name: 'n', op: 'Add' },
          { name: 'n', op: 'Add' },
        ],
      ),
      new Uint8Array(),
      'INVALID_DATA',
    ],
    ['a node without an operator', model([], [{ name: 'n' }]), new Uint8Array(), 'INVALID_DATA'],
  ];
  for (const [name, json, bytes, code] of refused) {
    it(`refuses ${name}`, () => expect(codeOf(() => readTfjsModel(json, bytes))).toBe(code));
  }

  it('does not quote the file in its messages', () => {
    expect(() => readTfjsModel('{"secret": oops', new Uint8Array())).toThrow(
      /^TensorFlow\.js model: its text is no JSON$/,
    );
  });

  it('fuzz: any JSON value gives a model or a ScrimError', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), fc.jsonValue(), (nodes, weights, attributes) => {
        codeOf(() =>
          readTfjsModel(
            JSON.stringify({ modelTopology: { node: nodes }, weightsManifest: weights }),
            new Uint8Array(4),
          ),
        );
        const json = model(
          [{ name: 'a', shape: weights, dtype: 'float32' }],
          [{ name: 'n', op: 'x', attr: attributes, input: nodes }],
        );
        codeOf(() => readTfjsModel(json, new Uint8Array(4)));
      }),
      { numRuns: 2000, seed: 3 },
    );
  });
});

describe('readTfjsModel: nodes', () => {
  it('reads inputs and attributes', () => {
    const json = model(
      [],
      [
        {
          name: 'conv',
          op: '_FusedConv2D',
          input: ['image', 'weights:0', '^after'],
          attr: {
            padding: { s: btoa('SAME') },
            strides: { list: { i: ['1', '4', '4', '1'] } },
            fused_ops: { list: { s: [btoa('BiasAdd'), btoa('Relu')] } },
            epsilon: { f: 0.5 },
            num_args: { i: '1' },
            flag: { b: true },
            T: { type: 'DT_FLOAT' },
            none: { list: {} },
          },
        },
        { name: 'bare', op: 'NoOp' },
      ],
    );
    const { nodes } = readTfjsModel(json, new Uint8Array());
    expect([...nodes.keys()]).toEqual(['conv', 'bare']);
    const conv = nodes.get('conv')!;
    expect(conv.inputs).toEqual(['image', 'weights:0', '^after']);
    expect(Object.fromEntries(conv.attributes)).toEqual({
      padding: 'SAME',
      strides: [1, 4, 4, 1],
      fused_ops: ['BiasAdd', 'Relu'],
      epsilon: 0.5,
      num_args: 1,
      flag: true,
      none: [],
    });
    expect(nodes.get('bare')).toEqual({ name: 'bare', op: 'NoOp', inputs: [], attributes: new Map() });
  });
});
