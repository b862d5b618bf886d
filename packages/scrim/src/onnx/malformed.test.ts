/**
 * Malformed files: whatever the bytes, decoding gives a model or a ScrimError, quickly. The same for everything that
 * reads a decoded model on its own: shape inference, counting, encoding.
 */
import { toBinary } from '@bufbuild/protobuf';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { crowdedModel, nestedModel, richModel } from '../../../../test/rich-model.js';
import { ScrimError } from '../errors.js';
import { countFlops } from './flops.js';
import { ModelProtoSchema } from './gen/onnx_pb.js';
import { Graph } from './graph.js';
import { inferShapes } from './shape-inference.js';

const FILES = [toBinary(ModelProtoSchema, richModel()), toBinary(ModelProtoSchema, crowdedModel()), nestedModel(5)];
const ALLOWED = ['INVALID_MODEL', 'LIMIT_EXCEEDED'];

/** Longest one file may take, in milliseconds: far above what it takes, far below what a person calls a hang. */
const PATIENCE = 5000;

function survive(bytes: Uint8Array): 'model' | 'refused' {
  const start = performance.now();
  let outcome: 'model' | 'refused' = 'model';
  try {
    const graph = Graph.decode(bytes);
    countFlops(graph, inferShapes(graph));
    graph.encode();
  } catch (error) {
    if (!(error instanceof ScrimError)) throw error;
    expect(ALLOWED).toContain(error.code);
    outcome = 'refused';
  }
  expect(performance.now() - start).toBeLessThan(PATIENCE);
  return outcome;
}

const file = fc.constantFrom(...FILES);

describe('malformed models', () => {
  it('are refused when cut off anywhere', () => {
    for (const bytes of FILES) {
      for (let length = 0; length < bytes.length; length += bytes.length > 2000 ? 7 : 1)
        survive(bytes.subarray(0, length));
    }
  });

  it('never crash with bytes changed', () => {
    const outcomes = { model: 0, refused: 0 };
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(file, changes, (bytes, edits) => {
        const copy = Uint8Array.from(bytes);
        for (const [at, value] of edits) copy[at % copy.length] = value;
        outcomes[survive(copy)]++;
      }),
      { seed: 21, numRuns: 2000 },
    );
    // Both happen often, so the test sees past the first byte.
    expect(outcomes.model).toBeGreaterThan(100);
    expect(outcomes.refused).toBeGreaterThan(100);
  });

  it('never crash with pieces moved, doubled or dropped', () => {
    const pieces = fc.tuple(fc.nat(), fc.nat(), fc.nat(64), fc.nat(24));
    fc.assert(
      fc.property(file, pieces, (bytes, [at, from, length, dropped]) => {
        const start = at % bytes.length;
        const source = from % bytes.length;
        survive(
          Uint8Array.from([
            ...bytes.subarray(0, start),
            ...bytes.subarray(source, source + length),
            ...bytes.subarray(start + dropped),
          ]),
        );
      }),
      { seed: 22, numRuns: 1500 },
    );
  });

  it('never crash with integers turned extreme', () => {
    // Replaces a byte by a varint of the largest values: dimensions, types, counts, field numbers.
    const extremes = fc.constantFrom<readonly number[]>(
      [0xff, 0xff, 0xff, 0xff, 0x0f],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
      [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    );
    fc.assert(
      fc.property(file, fc.nat(), extremes, (bytes, at, varint) => {
        const start = at % bytes.length;
        survive(Uint8Array.from([...bytes.subarray(0, start), ...varint, ...bytes.subarray(start + 1)]));
      }),
      { seed: 23, numRuns: 2000 },
    );
  });

  it('are refused when they are anything else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        survive(bytes);
      }),
      { seed: 24, numRuns: 1500 },
    );
  });

  it('do not loop in functions that call themselves or each other', () => {
    const model = richModel();
    const [body] = model.functions;
    for (const node of body?.node ?? []) Object.assign(node, { opType: 'Scaled', domain: 'custom', attribute: [] });
    expect(survive(toBinary(ModelProtoSchema, model))).toBe('model');
  });
});
