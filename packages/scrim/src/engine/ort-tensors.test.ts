import { Tensor as OrtTensor } from 'onnxruntime-common';
import { describe, expect, it } from 'vitest';
import { tensor } from '../tensor.js';
import { fromOrt, toOrt, toValueInfo } from './ort-tensors.js';

describe('ort-tensors', () => {
  it('shares the array in both directions', () => {
    const value = tensor('int16', [2, 2], Int16Array.of(1, -2, 3, -4));
    const ort = toOrt(OrtTensor, value);
    expect([ort.type, ort.dims]).toEqual(['int16', [2, 2]]);
    expect(ort.data).toBe(value.data);
    expect(fromOrt('y', ort).data).toBe(value.data);
  });

  it("gives float16 as 16-bit patterns whatever array the platform's runtime holds it in", () => {
    // Platforms with Float16Array return that; any other 2-byte array stands in for it here.
    const data = Int16Array.of(0x3c00, 0x4000);
    const value = fromOrt('y', { type: 'float16', dims: [2], data } as unknown as OrtTensor);
    expect(value).toEqual(tensor('float16', [2], Uint16Array.of(0x3c00, 0x4000)));
    expect(value.data).toHaveProperty('buffer', data.buffer);
  });

  it('reads metadata: names of dimensions, unknown ones, scalars', () => {
    const shape = [1, 'h', '', -1, 2 ** 32 - 1];
    expect(toValueInfo('input', { name: 'x', isTensor: true, type: 'bool', shape })).toEqual({
      name: 'x',
      dtype: 'bool',
      shape: [1, 'h', '', '', ''],
    });
  });

  it('refuses what is no tensor or has no type here', () => {
    expect(() => toValueInfo('output', { name: 's', isTensor: false })).toThrow(/output "s" .* only tensors/);
    expect(() => toValueInfo('input', { name: 'q', isTensor: true, type: 'int4', shape: [] })).toThrow(
      /input "q".*int4/,
    );
  });
});
