import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { float32, type Tensor, tensor } from '../tensor.js';
import { decodeSafetensors, encodeSafetensors } from './safetensors.js';

describe('safetensors', () => {
  const tensors = new Map<string, Tensor>([
    ['a', float32([2, 3], [1, -2, 3.5, 0, 5, 6])],
    ['empty', float32([0], [])],
    ['flags', tensor('bool', [3], Uint8Array.of(1, 0, 1))],
    ['big', tensor('int64', [2], BigInt64Array.of(-(2n ** 62n), 7n))],
  ]);
  const bytes = encodeSafetensors({ tensors, metadata: { kind: 'test' } });

  it('round-trips tensors and metadata', () => {
    const file = decodeSafetensors(bytes);
    expect([...file.tensors]).toEqual([...tensors]);
    expect(file.metadata).toEqual({ kind: 'test' });
  });

  it('answers malformed bytes with INVALID_DATA or LIMIT_EXCEEDED and nothing else', () => {
    const check = (input: Uint8Array): void => {
      try {
        decodeSafetensors(input);
      } catch (error) {
        expect(error).toBeInstanceOf(ScrimError);
        expect(['INVALID_DATA', 'INVALID_ARGUMENT', 'LIMIT_EXCEEDED']).toContain((error as ScrimError).code);
      }
    };
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, length) => {
        const changed = bytes.slice(0, length);
        if (at < changed.length) changed[at] = value;
        check(changed);
      }),
      { seed: 1, numRuns: 2000 },
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), check), { seed: 2, numRuns: 1000 });
  });

  it('refuses gaps and overlaps', () => {
    const header = (a: number[], b: number[]): Uint8Array => {
      const json = JSON.stringify({
        a: { dtype: 'U8', shape: [2], data_offsets: a },
        b: { dtype: 'U8', shape: [2], data_offsets: b },
      });
      const out = new Uint8Array(8 + json.length + 4);
      new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
      out.set(new TextEncoder().encode(json), 8);
      return out;
    };
    expect(decodeSafetensors(header([0, 2], [2, 4])).tensors.size).toBe(2);
    expect(() => decodeSafetensors(header([0, 2], [1, 3]))).toThrowError(/gap or an overlap/);
    expect(() => decodeSafetensors(header([0, 2], [0, 2]))).toThrowError(/gap or an overlap|after the last/);
  });
});
