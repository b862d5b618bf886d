import { describe, expect, it } from 'vitest';
import { float32 } from '../tensor.js';
import {
  decodeInferRequest,
  decodeInferResponse,
  encodeInferRequest,
  encodeInferResponse,
  HeadMemo,
  type InferRequest,
  type InferResponse,
  joinBody,
  type RequestHead,
  type ResponseHead,
} from './index.js';

function request(value: number, more: Partial<InferRequest> = {}): InferRequest {
  return {
    modelName: 'm',
    inputs: [{ name: 'x', tensor: float32([1, 2], [value, -value]), parameters: { kind: 'plain' } }],
    outputs: [{ name: 'y' }],
    ...more,
  };
}

describe('a memo of heads', () => {
  it('changes nothing that requests say, whether they say the same or something else', () => {
    const heads = new HeadMemo<RequestHead>();
    const requests = [1, 2, 3].flatMap((value) => [
      request(value),
      request(value, { id: String(value), priority: value }),
      request(value, { outputs: [{ name: 'z', binary: false }] }),
      // Tensors in the JSON: the same shape and names, other values.
      request(value, { inputs: [{ name: 'x', tensor: float32([2], [value, value]), binary: false }] }),
      request(value, { inputs: [{ name: 'x', tensor: float32([2, 1], [value, value]) }] }),
    ]);
    for (const each of requests) {
      const { headerLength, ...body } = encodeInferRequest(each);
      const options = { modelName: 'm', ...(headerLength === undefined ? {} : { headerLength }) };
      const bytes = joinBody(body);
      expect(decodeInferRequest(bytes, { ...options, heads })).toEqual(decodeInferRequest(bytes, options));
    }
  });

  it('checks what follows the same head each time', () => {
    const heads = new HeadMemo<RequestHead>();
    const { headerLength = 0, ...body } = encodeInferRequest(request(1));
    const bytes = joinBody(body);
    const options = { modelName: 'm', headerLength, heads };
    decodeInferRequest(bytes, options);
    expect(() => decodeInferRequest(bytes.subarray(0, -1), options)).toThrowError(/7 bytes of binary data are left/);
    expect(() => decodeInferRequest(Uint8Array.of(...bytes, 0), options)).toThrowError(/belong to no tensor/);
    bytes[1] = 0x21;
    expect(() => decodeInferRequest(bytes, options)).toThrowError(/line 1/);
  });

  it('gives every answer names, shapes and parameters of its own', () => {
    const heads = new HeadMemo<ResponseHead>();
    const read = (value: number): InferResponse => {
      const tensor = float32([1, 2], [value, value]);
      const response = { modelName: 'm', parameters: { a: 1 }, outputs: [{ name: 'y', tensor, parameters: { b: 2 } }] };
      const { headerLength = 0, ...body } = encodeInferResponse(response);
      const given = decodeInferResponse(joinBody(body), { headerLength, heads });
      expect(given).toEqual(response);
      return given;
    };
    const first = read(1) as { parameters: Record<string, number>; outputs: [{ tensor: { shape: number[] } }] };
    first.outputs[0].tensor.shape[0] = 99;
    first.parameters.a = 99;
    read(2);
    expect(first.outputs[0].tensor.shape).toEqual([99, 2]);
  });

  it('forgets the oldest and keeps nothing long', () => {
    const memo = new HeadMemo<number>();
    for (let n = 0; n < 20; n++) memo.keep(Uint8Array.of(n), n);
    expect([memo.find(Uint8Array.of(3)), memo.find(Uint8Array.of(4)), memo.find(Uint8Array.of(19))]).toEqual([
      undefined,
      4,
      19,
    ]);
    const long = new Uint8Array(2 ** 12 + 1);
    memo.keep(long, 1);
    expect(memo.find(long)).toBeUndefined();
    const changing = Uint8Array.of(7, 7);
    memo.keep(changing, 77);
    changing[0] = 8;
    expect([memo.find(changing), memo.find(Uint8Array.of(7, 7))]).toEqual([undefined, 77]);
  });
});
