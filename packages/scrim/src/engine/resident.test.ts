/** State that stays in the engine between runs: carried on, replaced, refused where it can't be. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNodeEngine } from '../node/ort-engine.js';
import { Graph } from '../onnx/index.js';
import { float32, type Tensor } from '../tensor.js';
import type { Engine } from './engine.js';

/** total' = total + x, and twice the new total. */
function accumulator(): Uint8Array {
  const graph = Graph.create({ name: 'accumulator' });
  graph.addInput('x', 'float32', [2]);
  graph.addInput('total', 'float32', [2]);
  graph.add('Add', ['total', 'x'], {}, { outputs: ['next'] });
  graph.add('Add', ['next', 'next'], {}, { outputs: ['twice'] });
  graph.setOutputs(['next', 'twice']);
  return graph.encode();
}

const x = float32([2], Float32Array.of(1, 10));

describe.each(['inline', 'worker'] as const)('resident state, %s', (thread) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createNodeEngine({ threads: 1, thread });
  });
  afterAll(() => engine.close());

  it('feeds an output back as the input of the next run', async () => {
    const session = await engine.load(accumulator(), { resident: { total: 'next' } });
    await session.run({ x, total: float32([2], Float32Array.of(0, 0)) });
    await session.run({ x });
    expect(await session.run({ x })).toEqual({ twice: float32([2], Float32Array.of(6, 60)) });
    const replaced = await session.run({ x, total: float32([2], Float32Array.of(100, 0)) });
    expect([...(replaced.twice?.data ?? [])]).toEqual([202, 20]);
    await session.close();
  });

  it('wants the state once', async () => {
    const session = await engine.load(accumulator(), { resident: { total: 'next' } });
    await expect(session.run({ x })).rejects.toThrow('input "total" is missing');
    await expect(session.run({ x }, { fetches: ['other'] })).rejects.toThrow('output "other" is unknown');
    await session.close();
  });

  it('gives copies of what stays to those who ask for it, and nothing to those who ask for nothing', async () => {
    const session = await engine.load(accumulator(), { resident: { total: 'next' } });
    expect(await session.run({ x, total: float32([2], Float32Array.of(0, 5)) }, { fetches: [] })).toEqual({});
    const { next } = await session.run({ x }, { fetches: ['next'] });
    expect(next).toEqual(float32([2], Float32Array.of(2, 25)));
    (next as Tensor<'float32'>).data.fill(0);
    expect(await session.run({ x })).toEqual({ twice: float32([2], Float32Array.of(6, 70)) });
    await session.close();
    const plain = await engine.load(accumulator());
    await expect(plain.run({ x, total: x }, { fetches: [] })).rejects.toThrow('fetches is empty');
    await plain.close();
  });

  it('refuses pairs that are none', async () => {
    for (const resident of [{ total: 'other' }, { other: 'next' }, { total: 'next', x: 'next' }]) {
      await expect(engine.load(accumulator(), { resident })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });
});
