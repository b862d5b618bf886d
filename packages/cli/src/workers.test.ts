/** Canvases by several processes are those of one, a folder of activations serves further fits, and nothing is left behind. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Engine } from 'scrim';
import { createNodeEngine } from 'scrim/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CommandContext } from './context.js';
import { type FitPlan, type PreparedFit, prepareFit } from './fit-bundle.js';
import { loadModelSource, packageFolder } from './model-source.js';
import { runWorkers, workersFor } from './workers.js';

describe('workers', () => {
  let engine: Engine;
  let plan: FitPlan;
  let folder: string;
  const quiet = (signal = new AbortController().signal): CommandContext => ({
    version: '0',
    signal,
    print: () => {},
    printJson: () => {},
    remark: () => {},
    progress: () => ({ update: () => {}, stop: () => {} }),
    onClose: () => {},
    close: async () => {},
  });
  const values = ({ cache, pictures, photoCount }: PreparedFit) => ({
    shape: cache.shape,
    activations: cache.activations,
    outputs: cache.outputs,
    pictures: pictures.map(({ width, height, data }) => ({ width, height, data: [...data] })),
    photoCount,
  });

  beforeAll(async () => {
    engine = await createNodeEngine({ thread: 'inline', threads: 1 });
    folder = await mkdtemp(join(tmpdir(), 'scrim-workers-test-'));
    const model = await loadModelSource('faceboxes');
    plan = {
      model,
      modelSpec: 'faceboxes',
      cut: model.cut as string,
      task: model.task as FitPlan['task'],
      photos: [join(packageFolder('@vladmandic/human'), 'assets')],
      size: 128,
      canvases: 5,
      seed: 'test',
    };
  });

  afterAll(async () => {
    await engine.close();
    await rm(folder, { recursive: true, force: true });
  });

  it('make the canvases that one process makes, kept for further fits on request', async () => {
    const alone = values(await prepareFit(quiet(), engine, { ...plan, workers: 1 }));
    expect(values(await prepareFit(quiet(), engine, { ...plan, workers: 3 }))).toEqual(alone);
    const cache = join(folder, 'kept');
    expect(values(await prepareFit(quiet(), engine, { ...plan, cache }))).toEqual(alone);
    const remarks: string[] = [];
    const context = { ...quiet(), remark: (text: string) => void remarks.push(text) };
    expect(values(await prepareFit(context, engine, { ...plan, cache }))).toEqual(alone);
    expect(remarks.join()).toContain('activations of 5 canvases are there');
    await expect(prepareFit(quiet(), engine, { ...plan, cache, seed: 'other' })).rejects.toThrow(
      /made with seed test, this fit has other/,
    );
    await expect(prepareFit(quiet(), engine, { ...plan, cache, adversaryPictures: 32 })).rejects.toThrow(
      /made with pictures 0, this fit has 32/,
    );
  });

  it('write into no folder that holds something else', async () => {
    const cache = packageFolder('@vladmandic/human');
    await expect(prepareFit(quiet(), engine, { ...plan, cache })).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  });

  it('leave no folder behind when they are interrupted or fail', async () => {
    const left = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('scrim-activations-'));
    const before = await left();
    const controller = new AbortController();
    const running = prepareFit(quiet(controller.signal), engine, { ...plan, canvases: 500, workers: 2 });
    setTimeout(() => controller.abort(), 300);
    await expect(running).rejects.toMatchObject({ code: 'CANCELLED' });
    const wrong = prepareFit(quiet(), engine, { ...plan, modelSpec: 'absent.onnx', workers: 2 });
    await expect(wrong).rejects.toMatchObject({ code: 'NOT_FOUND', message: expect.stringContaining('absent.onnx') });
    expect(await left()).toEqual(before);
  });

  it('say when one of them ends without a word', async () => {
    const news = runWorkers('activations', null, 1, new AbortController().signal);
    await expect(news.next()).rejects.toMatchObject({ code: 'INTERNAL' });
  });

  it('are one where there is little to do, and as many as asked', () => {
    expect(workersFor(10)).toBe(1);
    expect(workersFor(10, 4)).toBe(4);
    expect(workersFor(3, 4)).toBe(3);
  });
});
