import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { float32 } from '../tensor.js';
import {
  decodeGrpcStatusText,
  decodeMessage,
  encodeGrpcRequest,
  encodeGrpcStatusText,
  encodeMessage,
  FrameReader,
  formatGrpcTimeout,
  frameMessage,
  inferRequestFromMessage,
  inferRequestToMessage,
  parseGrpcTimeout,
  pb,
  REQUEST_RAW_FIELD,
} from './index.js';

function join(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

const message = fc.uint8Array({ maxLength: 300 });

describe('framed messages', () => {
  it('come back whole however their bytes are cut', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 5 }), fc.array(fc.nat(400)), fc.boolean(), (messages, cuts, flag) => {
        const bytes = join(messages.flatMap((one) => frameMessage([one], flag)));
        const reader = new FrameReader(300, 'the message', 7);
        const places = [...new Set([0, ...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length])];
        places.sort((a, b) => a - b);
        const found = places.slice(1).flatMap((end, i) => reader.push(bytes.slice(places[i], end)));
        expect(found.map(({ bytes: read }) => [...read])).toEqual(messages.map((one) => [...one]));
        expect(found.every(({ compressed }) => compressed === flag)).toBe(true);
        expect(reader.isEmpty).toBe(true);
      }),
    );
  });

  it('are refused when they are announced too long or have a wrong prefix, before memory is taken', () => {
    expect(() => new FrameReader(9, 'the message').push(Uint8Array.of(0, 0, 0, 0, 10))).toThrowError(
      expect.objectContaining({ code: 'LIMIT_EXCEEDED', message: expect.stringMatching(/10 bytes/) }),
    );
    expect(() => new FrameReader(9, 'the message').push(Uint8Array.of(2, 0, 0, 0, 1))).toThrowError(
      expect.objectContaining({ code: 'INVALID_DATA' }),
    );
  });

  it('hold their first tensor aligned, and the tensors sent are those of the request', () => {
    for (let length = 1; length < 12; length++) {
      const request = {
        modelName: 'm'.repeat(length),
        inputs: [
          {
            name: 'x',
            tensor: float32(
              [1, 40],
              Float32Array.from({ length: 40 }, (_, i) => i),
            ),
          },
        ],
      };
      const parts = encodeGrpcRequest(request);
      expect(join(parts)).toEqual(encodeMessage(pb.ModelInferRequestSchema, inferRequestToMessage(request)));
      expect(parts.some(({ buffer }) => buffer === request.inputs[0]?.tensor.data.buffer)).toBe(true);
      const [frame] = new FrameReader(1_000, 'the message', REQUEST_RAW_FIELD).push(join(frameMessage(parts)));
      const read = decodeMessage(pb.ModelInferRequestSchema, frame!.bytes);
      expect(read.rawInputContents[0]!.byteOffset % 8).toBe(0);
      expect(inferRequestFromMessage(read).inputs[0]?.tensor).toEqual(request.inputs[0]?.tensor);
    }
  });
});

describe('headers of calls', () => {
  it('carry timeouts in at most eight digits', () => {
    expect([0.2, 1, 1500.5, 1e8, 1e13].map(formatGrpcTimeout)).toEqual(['1m', '1m', '1501m', '100000S', '99999999S']);
    expect(['1H', '2M', '3S', '4m', '5000u', '6000000n'].map(parseGrpcTimeout)).toEqual([
      3_600_000, 120_000, 3_000, 4, 5, 6,
    ]);
    expect(parseGrpcTimeout(undefined)).toBe(undefined);
    for (const wrong of ['', '1', 'S', '123456789m', '1.5S', '-1S', '1s']) {
      expect(() => parseGrpcTimeout(wrong)).toThrowError(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    }
  });

  it('carry texts of any characters', () => {
    expect(encodeGrpcStatusText('100% ü\n')).toBe('100%25 %C3%BC%0A');
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const encoded = encodeGrpcStatusText(text);
        expect(encoded).toMatch(/^[ -~]*$/);
        expect(decodeGrpcStatusText(encoded)).toBe(text);
      }),
    );
    expect(decodeGrpcStatusText('50 % of %zz')).toBe('50 % of %zz');
  });
});
