/** Convolutions padded for WebGPU: which ones, and that their answers stay the same. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { randomTensor } from '../../../../test/random-tensor.js';
import type { Engine } from '../engine/engine.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { Graph } from './graph.js';
import { padConvChannels } from './pad-conv-channels.js';

let engine: Engine;
beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1, thread: 'inline' });
});
afterAll(() => engine.close());

function convolution(channels: number, outputs: number, kernel: number, group = 1): Graph {
  const graph = Graph.create({ name: 'conv' });
  graph.addInput('x', 'float32', [2, channels, 5, 5]);
  const weight = graph.addInitializer('w', randomTensor([outputs, channels / group, kernel, kernel], 'w'));
  const bias = graph.addInitializer('b', randomTensor([outputs], 'b'));
  const attributes = { kernel_shape: [kernel, kernel], pads: [1, 1, 1, 1], group };
  graph.add('Conv', ['x', weight, bias], attributes, { outputs: ['y'] });
  graph.setOutputs(['y']);
  return graph;
}

describe('padConvChannels', () => {
  it.each([
    [6, 8, 3, 1, 1],
    [42, 128, 3, 1, 1],
    [21, 4, 2, 1, 1],
    [3, 8, 3, 1, 0],
    [12, 8, 3, 1, 0],
    [5, 8, 3, 1, 0],
    [6, 7, 3, 1, 0],
    [6, 8, 1, 1, 0],
    [12, 8, 3, 2, 0],
  ])(
    '%i channels to %i, window %i, %i groups: %i padded, same answer',
    async (channels, outputs, kernel, group, count) => {
      const graph = convolution(channels, outputs, kernel, group);
      const feeds = { x: randomTensor([2, channels, 5, 5], 'x') };
      const answer = async (bytes: Uint8Array): Promise<Float32Array> => {
        const session = await engine.load(bytes);
        const { y } = await session.run(feeds);
        await session.close();
        return y?.data as Float32Array;
      };
      const plain = await answer(graph.encode());
      expect(padConvChannels(graph)).toBe(count);
      const padded = await answer(graph.encode());
      expect(padded.length).toBe(plain.length);
      padded.forEach((value, i) => {
        expect(value).toBeCloseTo(plain[i] as number, 3);
      });
    },
  );

  it('pads weights that are computed', () => {
    const graph = Graph.create({ name: 'computed' });
    graph.addInput('x', 'float32', [1, 6, 5, 5]);
    graph.addInput('w', 'float32', [8, 6, 3, 3]);
    const weight = graph.add('Neg', ['w']);
    graph.setOutputs([graph.add('Conv', ['x', weight], { kernel_shape: [3, 3] })]);
    expect(padConvChannels(graph)).toBe(1);
  });
});
