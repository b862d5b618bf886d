/** The law of splitting over FaceBoxes: at every listed cut, the tail on what the head returns gives the model's outputs. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { inferShapes } from '../packages/scrim/src/onnx/index.js';
import { listCuts, splitAt, splitReport } from '../packages/scrim/src/split/index.js';
import type { Tensor } from '../packages/scrim/src/tensor.js';
import { faceBoxesFromTfjs } from '../packages/scrim/src/vision/faceboxes.js';
import { runOnnx, sampleTensor } from './run-onnx.js';

const folder = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'models');
const { graph, spec } = faceBoxesFromTfjs(
  readFileSync(join(folder, 'faceboxes.json'), 'utf8'),
  new Uint8Array(readFileSync(join(folder, 'faceboxes.bin'))),
);

const SHAPE = [1, 3, 128, 256];
const inputShapes = { [spec.input]: SHAPE };

function expectSameBits(actual: Record<string, Tensor>, expected: Record<string, Tensor>, cut: string): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [name, { data, shape }] of Object.entries(expected)) {
    expect(actual[name]?.shape).toEqual(shape);
    const bytes = (array: Tensor['data'] | undefined): Buffer => Buffer.from((array as Float32Array).buffer);
    expect(bytes(actual[name]?.data).equals(bytes(data)), `${name} at ${cut}`).toBe(true);
  }
}

describe('FaceBoxes, cut', () => {
  it('gives the same answer, bit for bit, at every cut of one to three tensors', async () => {
    const feeds = { [spec.input]: sampleTensor('float32', SHAPE) };
    const whole = await runOnnx(graph.encode(), feeds);
    const cuts = listCuts(graph, { inputShapes, maxTensors: 3 });
    // Both convolutions of the head, both poolings before and after ReLU, and the three inception blocks.
    expect(cuts.filter(({ tensors }) => tensors.length === 1)).toHaveLength(9);
    expect(cuts.filter(({ tensors }) => tensors.length > 1).length).toBeGreaterThan(20);
    for (const cut of cuts) {
      const { head, tail } = splitAt(
        graph,
        cut.tensors.map(({ name }) => name),
      );
      const crossing = await runOnnx(head.encode(), feeds);
      for (const { name, dtype, shape } of cut.tensors) expect(crossing[name]).toMatchObject({ dtype, shape });
      expectSameBits(await runOnnx(tail.encode(), crossing), whole, cut.name);
    }
  }, 120_000);

  it('gives the same answer to 1e-5 at its natural cut where the runtime may fuse operators', async () => {
    const feeds = { [spec.input]: sampleTensor('float32', SHAPE) };
    const whole = await runOnnx(graph.encode(), feeds, 'all');
    const { head, tail } = splitAt(graph, [spec.cut]);
    const parts = await runOnnx(tail.encode(), await runOnnx(head.encode(), feeds, 'all'), 'all');
    for (const [name, { data }] of Object.entries(whole)) {
      const found = parts[name]?.data as Float32Array;
      const worst = (data as Float32Array).reduce(
        (max, value, i) => Math.max(max, Math.abs(value - (found[i] ?? 9))),
        0,
      );
      expect(worst, name).toBeLessThan(1e-5);
    }
  });

  it('has its natural cut among the listed ones, with the sizes known beforehand', () => {
    const shape = inferShapes(graph, { inputShapes: { [spec.input]: [1, 3, 1024, 1024] } }).get(spec.cut)?.shape;
    expect(shape).toEqual([1, 128, 32, 32]);
    const report = splitReport(graph, { inputShapes: { [spec.input]: [1, 3, 1024, 1024] } });
    const natural = report.cuts.find(({ name }) => name === spec.cut);
    expect(natural).toMatchObject({ isFloat: true, bytesFp32: 524_288, bytesFp16: 262_144 });
    expect(natural?.ratioFp32).toBeCloseTo(524_288 / (3 * 1024 * 1024 * 4), 12);
    expect(report.uncounted).toEqual({});
    expect(natural?.headShare).toBeGreaterThan(0.2);
    expect(natural?.headShare).toBeLessThan(0.8);
  });
});
