import { describe, expect, it } from 'vitest';
import { ScrimError, type ScrimErrorCode } from '../errors.js';
import { createLimits, decodeMessage, encodeMessage, pb } from './index.js';

function refusal(
  bytes: number[] | Uint8Array,
  code: ScrimErrorCode = 'INVALID_ARGUMENT',
  limits = createLimits(),
): string {
  try {
    decodeMessage(pb.ModelInferRequestSchema, Uint8Array.from(bytes), { limits });
  } catch (error) {
    expect(error).toBeInstanceOf(ScrimError);
    expect((error as ScrimError).code).toBe(code);
    return (error as ScrimError).message;
  }
  throw new Error('nothing was thrown');
}

describe('decodeMessage', () => {
  it.each([
    ['a length past the end', [0x0a, 5, 65]],
    ['a varint that does not end', [0xff, 0xff]],
    ['a tag of number 0', [0x02, 0]],
    ['a tag beyond 32 bits', [0xff, 0xff, 0xff, 0xff, 0x7f, 0]],
    ['a known field with another wire type', [0x08, 1]],
    ['an unknown wire type', [0x7e]],
    ['a group that does not end', [0x7b, 0x7b]],
    ['a group that ends as another', [0x7b, 0x74]],
    ['an end of no group', [0x7c]],
    ['a nested message that reaches past its parent', [0x2a, 2, 0x0a, 9]],
    ['a map entry with a third field', [0x22, 2, 0x18, 1]],
    ['half a packed float', [0x2a, 6, 0x2a, 4, 0x32, 2, 0, 0]],
  ])('refuses %s', (_, bytes) => {
    expect(refusal(bytes)).toMatch(/^inference\.ModelInferRequest: .* at byte \d+$/);
  });

  it('skips fields it does not know, groups too', () => {
    const bytes = Uint8Array.of(0x7b, 0x08, 1, 0x13, 0x14, 0x7c, 0xf8, 0x01, 5, 0x0a, 1, 109);
    expect(decodeMessage(pb.ModelInferRequestSchema, bytes).modelName).toBe('m');
  });

  it('limits bytes, fields, list elements and levels before it decodes', () => {
    refusal(new Uint8Array(11), 'LIMIT_EXCEEDED', createLimits({ maxBytes: 10 }));
    // Two bytes for each message that would be made.
    refusal(
      Array.from({ length: 2000 }, (_, i) => (i % 2 === 0 ? 0x2a : 0)),
      'LIMIT_EXCEEDED',
      createLimits({ maxValues: 999 }),
    );
    // A million groups in groups.
    refusal(new Uint8Array(1_000_000).fill(0x7b), 'LIMIT_EXCEEDED');
    const typed = encodeMessage(pb.ModelInferRequestSchema, {
      inputs: [
        {
          contents: {
            int64Contents: Array.from({ length: 100 }, () => 1n),
            fp32Contents: Array.from({ length: 100 }, () => 1),
          },
        },
      ],
    });
    refusal(typed, 'LIMIT_EXCEEDED', createLimits({ maxTypedElements: 199 }));
    expect(
      decodeMessage(pb.ModelInferRequestSchema, typed, { limits: createLimits({ maxTypedElements: 200 }) }).inputs,
    ).toHaveLength(1);
  });

  it('gives byte fields as views', () => {
    const bytes = encodeMessage(pb.ModelInferRequestSchema, { rawInputContents: [Uint8Array.of(1, 2, 3, 4)] });
    expect(decodeMessage(pb.ModelInferRequestSchema, bytes).rawInputContents[0]?.buffer).toBe(bytes.buffer);
  });
});
