import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createNodeEngine, readImage, resizeImage } from '../node/index.js';
import { Graph } from '../onnx/graph.js';
import { compareEmbeddings, createFaceEmbedder, cropFace, FACE_API_SPEC, type FaceEmbedder } from './face-embedder.js';
import { faceEmbedderFromFaceApi } from './face-embedder-graph.js';
import { createImage, type RgbImage } from './image.js';

const vector = JSON.parse(
  readFileSync(new URL('../../../../test/vectors/vision/face-api-embeddings.json', import.meta.url), 'utf8'),
) as { photos: Record<string, number[]> };
const PACKAGE = dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json'));
const manifest = readFileSync(join(PACKAGE, 'model/face_recognition_model-weights_manifest.json'), 'utf8');
const bin = readFileSync(join(PACKAGE, 'model/face_recognition_model.bin'));

/** A model of one input and one output whose vector is the mean of each channel. */
function meanColourModel(shape: (number | string)[], axes: number[]): Uint8Array {
  const graph = Graph.create({ name: 'mean colour', opset: 17 });
  graph.addInput('picture', 'float32', shape);
  graph.add('ReduceMean', ['picture'], { axes, keepdims: 0 }, { outputs: ['vector'] });
  graph.addOutput('vector', 'float32', ['N', 3]);
  return graph.encode();
}

describe('face embedder', () => {
  let engine: Engine;
  let embedder: FaceEmbedder;
  beforeAll(async () => {
    engine = await createNodeEngine({ threads: 1 });
    embedder = await createFaceEmbedder(engine, faceEmbedderFromFaceApi(manifest, bin).encode());
  });
  afterAll(async () => {
    await embedder.close();
    await engine.close();
  });

  it('gives what face-api itself gives', async () => {
    for (const [name, expected] of Object.entries(vector.photos)) {
      const photo = await readImage(join(PACKAGE, name));
      const side = Math.min(photo.width, photo.height);
      const square = cropFace(
        photo,
        { x: (photo.width - side) / 2, y: 0, width: side, height: side },
        { margin: 1, shift: 0 },
      );
      const found = await embedder.embed(await resizeImage(square, { width: 150, height: 150 }));
      expect(found).toHaveLength(128);
      const worst = Math.max(...expected.map((value, i) => Math.abs(value - found[i]!)));
      // Another release of libjpeg may round pixels otherwise; without that the difference is 3e-7.
      expect(worst).toBeLessThan(2e-3);
    }
  });

  it('refuses weights that are another network', () => {
    const groups = JSON.parse(manifest) as { weights: { name: string }[] }[];
    const renamed = JSON.stringify(groups).replace('conv64_down/conv1/conv/filters', 'conv65');
    expect(() => faceEmbedderFromFaceApi(renamed, bin)).toThrowError(/conv64_down\/conv1\/conv\/filters is missing/);
    expect(() => faceEmbedderFromFaceApi(manifest, bin.subarray(0, 1000))).toThrowError(/1000 bytes/);
  });

  it('takes any embedder, channels first or last, and names an input that does not fit', async () => {
    const spec = {
      ...FACE_API_SPEC,
      side: 4,
      preprocessing: { ...FACE_API_SPEC.preprocessing, mean: [0, 0, 0] as const, scale: 1 },
      similarity: 'cosine' as const,
    };
    const picture = createImage(8, 8, [10, 20, 30]);
    for (const [layout, shape, axes] of [
      ['channels-first', ['N', 3, 4, 4], [2, 3]],
      ['channels-last', ['N', 4, 4, 3], [1, 2]],
    ] as const) {
      const own = await createFaceEmbedder(engine, meanColourModel([...shape], [...axes]), { ...spec, layout });
      const found = await own.embed(picture, { x: 2, y: 2, width: 4, height: 4 });
      [10, 20, 30].forEach((value, i) => {
        expect(found[i]).toBeCloseTo(value, 4);
      });
      await own.close();
    }
    await expect(createFaceEmbedder(engine, meanColourModel(['N', 3, 5, 5], [2, 3]), spec)).rejects.toThrowError(
      /expected one float32 \[N, 3, 4, 4\]/,
    );
  });

  it('compares vectors by angle or distance', () => {
    const of = (...values: number[]): Float32Array => Float32Array.from(values);
    expect(compareEmbeddings(of(1, 0), of(2, 0), 'cosine')).toBeCloseTo(1);
    expect(compareEmbeddings(of(0, 0), of(2, 0), 'cosine')).toBe(0);
    expect(compareEmbeddings(of(1, 1), of(4, 5), 'euclidean')).toBeCloseTo(-5);
    expect(() => compareEmbeddings(of(1), of(1, 2), 'cosine')).toThrowError(/1 and 2 numbers/);
  });
});

describe('cropFace', () => {
  /** The pixel at (x, y) is (x, y, 7). */
  const gradient = (width: number, height: number): RgbImage => ({
    width,
    height,
    data: Uint8Array.from({ length: width * height * 3 }, (_, i) => {
      const pixel = Math.floor(i / 3);
      return [pixel % width, Math.floor(pixel / width), 7][i % 3]!;
    }),
  });

  it('cuts a square around the centre, black where there is no photo', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -20, max: 40 }),
        fc.integer({ min: -20, max: 40 }),
        fc.integer({ min: 1, max: 30 }),
        fc.constantFrom(1, 2, 3),
        (x, y, side, margin) => {
          const photo = gradient(24, 16);
          const face = cropFace(photo, { x, y, width: side, height: side }, { margin, shift: 0 });
          expect([face.width, face.height]).toEqual([side * margin, side * margin]);
          const left = Math.round(x + side / 2 - (side * margin) / 2);
          const top = Math.round(y + side / 2 - (side * margin) / 2);
          for (const [u, v] of [
            [0, 0],
            [face.width - 1, face.height - 1],
            [Math.floor(face.width / 2), Math.floor(face.height / 2)],
          ] as const) {
            const [px, py] = [left + u, top + v];
            const inside = px >= 0 && py >= 0 && px < 24 && py < 16;
            const at = (v * face.width + u) * 3;
            expect([...face.data.subarray(at, at + 3)]).toEqual(inside ? [px, py, 7] : [0, 0, 0]);
          }
        },
      ),
    );
  });

  it('refuses an empty box', () => {
    expect(() => cropFace(createImage(4, 4), { x: 0, y: 0, width: 0, height: 3 }, FACE_API_SPEC)).toThrowError(/0×3/);
  });
});
