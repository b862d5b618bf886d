/**
 * The gradient of FaceBoxes' tail in small (same topology, fewer channels) against the numbers that make.py computed
 * with PyTorch in double precision: by the input, with frozen weights and fed ones, and by every weight.
 */
import { readFileSync } from 'node:fs';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { addGradients } from '../../../packages/scrim/src/autodiff/gradients.js';
import type { Graph } from '../../../packages/scrim/src/onnx/graph.js';
import type { Tensor } from '../../../packages/scrim/src/tensor.js';
// @ts-expect-error: a script of the benchmarks, without types
import { buildTail } from '../../../bench/faceboxes-tail.mjs';

interface Probe {
  readonly norm: number;
  readonly values: readonly number[];
}
interface Vector {
  readonly batch: number;
  readonly cases: Record<'average' | 'max', { loss: number; gradients: Record<string, Probe> }>;
}
interface Tail {
  readonly graph: Graph;
  readonly loss: string;
  readonly feeds: Record<string, Tensor>;
  readonly weights: Record<string, Tensor>;
}

const vector = JSON.parse(readFileSync(new URL('./faceboxes-tail.json', import.meta.url), 'utf8')) as Vector;

async function gradientsOf(tail: Tail, wrt: readonly string[]): Promise<Record<string, Float32Array>> {
  const { graph, loss, feeds } = tail;
  const gradients = addGradients(graph, { loss, wrt });
  graph.setOutputs([loss, ...gradients.values()]);
  const session = await InferenceSession.create(graph.encode(), { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const results = await session.run(
    Object.fromEntries(
      Object.entries(feeds).map(([name, { data, shape }]) => [
        name,
        new OrtTensor('float32', data as Float32Array, shape as number[]),
      ]),
    ),
  );
  await session.release();
  return Object.fromEntries(
    [['loss', loss], ...gradients].map(([name, value]) => [name, results[value as string]?.data as Float32Array]),
  );
}

function compare(found: Float32Array, { norm, values }: Probe, name: string): void {
  const ours = Math.sqrt(found.reduce((sum, g) => sum + g * g, 0));
  expect(Math.abs(ours - norm), `norm of the gradient by ${name}`).toBeLessThan(2e-5 * norm);
  // Errors of single elements are measured against the root mean square of all.
  const typical = norm / Math.sqrt(found.length);
  values.forEach((value, i) => {
    const element = found[Math.floor((i * found.length) / values.length)] as number;
    expect(Math.abs(element - value), `element ${i} of ${name}`).toBeLessThan(1e-4 * (typical + Math.abs(value)));
  });
}

describe.each(['average', 'max'] as const)('FaceBoxes tail with %s pooling, against PyTorch', (pool) => {
  const { loss, gradients } = vector.cases[pool];

  it('by its input, weights frozen', async () => {
    const found = await gradientsOf(buildTail({ batch: vector.batch, size: 'small', pool }), ['x']);
    expect(Math.abs((found.loss?.[0] as number) - loss)).toBeLessThan(1e-5 * loss);
    compare(found.x as Float32Array, gradients.x as Probe, 'x');
  });

  it('by its input and every weight, weights fed', async () => {
    const tail: Tail = buildTail({ batch: vector.batch, size: 'small', pool, weightsAsInputs: true });
    const found = await gradientsOf(tail, Object.keys(gradients));
    expect(Object.keys(gradients)).toHaveLength(1 + Object.keys(tail.weights).length);
    for (const [name, probe] of Object.entries(gradients)) compare(found[name] as Float32Array, probe, name);
  });

  it('with the oldest and the newest operator set', async () => {
    for (const opset of [11, 22]) {
      const tail: Tail = buildTail({ batch: vector.batch, size: 'small', pool, opset });
      const found = await gradientsOf(tail, ['x', 'conv0.weight']);
      compare(found.x as Float32Array, gradients.x as Probe, 'x');
      compare(found['conv0.weight'] as Float32Array, gradients['conv0.weight'] as Probe, 'conv0.weight');
    }
  });
});
