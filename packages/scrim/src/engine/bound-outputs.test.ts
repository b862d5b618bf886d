/** What a session whose state stays on a GPU is asked for, seen from the runtime's side: no GPU is needed for it. */
import { expect, it } from 'vitest';
import { float32 } from '../tensor.js';
import { createOrtBackend, type OrtClasses } from './ort-backend.js';

/** A runtime that keeps what it was asked for. */
function recorder(asked: string[][]): OrtClasses {
  class Tensor {
    readonly type = 'float32';
    readonly location = 'cpu';
    constructor(
      _: string,
      readonly data: Float32Array,
      readonly dims: number[],
    ) {}
    dispose(): void {}
  }
  const value = (name: string) => ({ name, isTensor: true, type: 'float32', shape: [1] });
  const session = {
    inputMetadata: [value('x'), value('state')],
    outputMetadata: [value('y'), value('copy'), value('next')],
    run: async (_: unknown, fetches: string[]) => {
      asked.push(fetches);
      return Object.fromEntries(fetches.map((name) => [name, new Tensor('float32', Float32Array.of(1), [1])]));
    },
    release: async () => {},
  };
  return { Tensor, InferenceSession: { create: async () => session } } as unknown as OrtClasses;
}

it.each([
  ['webgpu', ['y', 'copy', 'next']],
  ['cpu', ['y', 'next']],
])('asks %s again for what it was asked for before, where outputs stay bound', async (provider, third) => {
  const asked: string[][] = [];
  const backend = createOrtBackend(recorder(asked), () => ({ executionProviders: [provider] }));
  const { graph } = await backend.load(Uint8Array.of(1), {
    threads: 1,
    optimize: 'all',
    resident: { state: 'next' },
  });
  const feeds = { x: float32([1], [1]) };
  for (const fetches of [['y'], ['y', 'copy'], ['y']]) {
    const outputs = await backend.run(graph, feeds, { fetches, transfer: false });
    expect(Object.keys(outputs)).toEqual(fetches);
  }
  expect(asked).toEqual([['y', 'next'], ['y', 'copy', 'next'], third]);
});
