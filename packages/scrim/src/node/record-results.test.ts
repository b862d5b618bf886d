/** Figures and files that are added to a bundle later. */
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MeasuredFigure } from '../bundle/manifest.js';
import { openBundle, recordResults } from './bundle-files.js';

const SHIPPED = fileURLToPath(new URL('../../../../models/faceboxes-tfjs/alpha-0.80/', import.meta.url));
const DECODER = 'audit/other.onnx';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scrim-record-'));
  await cp(SHIPPED, folder, { recursive: true });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const figure = (value: number): MeasuredFigure => ({
  kind: 'measured',
  name: 'a figure',
  value,
  data: 'two photos',
  sampleSize: 2,
});

describe('recordResults', () => {
  it('adds figures and files, which the manifest then binds, and replaces those of the same name', async () => {
    const before = await openBundle(folder);
    await recordResults(folder, [figure(1)], new Map([[DECODER, Uint8Array.of(1, 2, 3)]]));
    const first = await openBundle(folder);
    expect(first.hash).not.toBe(before.hash);
    expect([...(await first.read(DECODER))]).toEqual([1, 2, 3]);
    await recordResults(folder, [figure(2)], new Map([[DECODER, Uint8Array.of(4)]]));
    const second = await openBundle(folder);
    expect([...(await second.read(DECODER))]).toEqual([4]);
    expect(second.manifest.results.filter(({ name }) => name === 'a figure')).toMatchObject([{ value: 2 }]);
    expect(second.manifest.results).toHaveLength(before.manifest.results.length + 1);
    expect((await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  it('takes no file that a bundle runs, and writes nothing then', async () => {
    const { hash } = await openBundle(folder);
    for (const path of ['trusted/noise.safetensors', 'audit/../trusted/head.onnx', 'audit/', '/audit/x', 'remote/x']) {
      const refused = recordResults(folder, [figure(3)], new Map([[path, Uint8Array.of(1)]]));
      await expect(refused, path).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect((await openBundle(folder)).hash).toBe(hash);
  });
});
