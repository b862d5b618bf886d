import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { float32 } from '../tensor.js';
import { loadError, runError } from './ort-errors.js';

const FED = { x: float32([1, 2], [5, 6]) };

describe('runError', () => {
  it('names the node, the reason and what was fed', () => {
    const error = runError(
      new Error(
        "Non-zero status code returned while running MatMul node. Name:'fc/1' Status Message: a/b/matmul_helper.h:59 Compute MatMul dimension mismatch",
      ),
      FED,
    );
    expect(error.code).toBe('ENGINE_FAILED');
    expect(error.details).toEqual({ operator: 'MatMul', node: 'fc/1' });
    expect(error.message).toMatch(/^MatMul node "fc\/1" failed: .*dimension mismatch \(fed: x float32 \[1, 2\]\)$/);
  });

  it('drops source positions and signatures', () => {
    const error = runError(
      new Error(
        "Non-zero status code returned while running Reshape node. Name:'r' Status Message: /build/core/reshape_helper.h:91 ns::Helper::Helper(const ns::Shape&, std::vector<int (*)(long)>&, bool) sizes were unequal. Input shape:{2}, requested shape:{333}",
      ),
      FED,
    );
    expect(error.message).toBe(
      'Reshape node "r" failed: sizes were unequal. Input shape:{#}, requested shape:{#} (fed: x float32 [1, 2])',
    );
  });

  it('never carries a number or a quoted text of the status, nor the original error', () => {
    const number = fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }));
    fc.assert(
      fc.property(number, fc.stringMatching(/^[a-z]{12}$/), (value, secret) => {
        const status = `index ${value}, {${value},${value}} is out of [-${value}, ${value}]: '${secret}' "${secret}"`;
        const error = runError(new Error(`while running Cast node. Name:'c' Status Message: ${status}`), {});
        expect(error.message).not.toMatch(/\d/);
        expect(error.message).not.toContain(secret);
        expect(error.cause).toBeUndefined();
      }),
      { seed: 3 },
    );
  });

  it('passes ScrimErrors on', () => {
    const error = new ScrimError('UNSUPPORTED', 'no');
    expect(runError(error, {})).toBe(error);
    expect(loadError(error)).toBe(error);
  });
});

describe('loadError', () => {
  it.each([
    ['Failed to load model because protobuf parsing failed.', 'INVALID_MODEL', /protobuf parsing failed/],
    ["Can't create a session. ERROR_CODE: 7, ERROR_MESSAGE: Failed to load.", 'INVALID_MODEL', /model: Failed to load/],
    ['No Op registered for Nonesuch with domain_version of 17', 'UNSUPPORTED', /Nonesuch/],
    ["Could not find an implementation for Conv(11) node with name 'c'", 'UNSUPPORTED', /Conv\(11\) node/],
    ['Unsupported data type: 16', 'UNSUPPORTED', /bfloat16/],
    ['unsupported data type: 99', 'UNSUPPORTED', /number 99/],
  ])('%s -> %s', (reason, code, message) => {
    const error = loadError(new Error(reason));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });
});
