import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { float32, int64, tensor } from '../tensor.js';
import { createWebEngine } from './ort-web-engine.js';

// onnxruntime-web runs in Node on WebAssembly with one thread; workers, threads and WebGPU need a browser.
const { graphs } = JSON.parse(readFileSync(new URL('../engine/test-graphs.json', import.meta.url), 'utf8')) as {
  graphs: Record<string, string>;
};
const model = (name: string): Uint8Array => new Uint8Array(Buffer.from(graphs[name]!, 'base64'));

describe('createWebEngine', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createWebEngine({ threads: 4 });
  });
  afterAll(() => engine.close());

  it('says what it chose and why', () => {
    expect(engine.description).toMatch(
      /^onnxruntime-web 1\.30\.0 \(wasm, 1 thread, inline\); no webgpu: .*; one thread: the page is not cross-origin/,
    );
    expect([engine.executionProvider, engine.threads]).toEqual(['wasm', 1]);
  });

  it('runs, with the metadata and the answers of the engine for Node', async () => {
    const session = await engine.load(model('affine'));
    expect(session.inputs).toEqual([{ name: 'x', dtype: 'float32', shape: ['batch', 3] }]);
    expect(await session.run({ x: float32([1, 3], [1, 1, 1]) })).toEqual({ y: float32([1, 2], [19, 32]) });
    await expect(session.run({})).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await session.close();
    await expect(session.run({ x: float32([1, 3], [1, 1, 1]) })).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    const pair = await engine.load(model('pair'), { optimize: 'none' });
    expect(pair.inputs[0]?.shape).toEqual(['', 2]);
    expect(await pair.run({ x: float32([1, 2], [1, 2]) }, { fetches: ['twice'] })).toEqual({
      twice: float32([1, 2], [2, 4]),
    });
  });

  it.each([
    tensor('float16', [2], Uint16Array.of(0x3c00, 0x8001)),
    tensor('int64', [1], BigInt64Array.of(-(2n ** 63n))),
    tensor('uint64', [1], BigUint64Array.of(2n ** 64n - 1n)),
    tensor('bool', [2], Uint8Array.of(1, 0)),
    tensor('string', [2], ['größer 漢字', '']),
    tensor('float64', [1], Float64Array.of(Math.PI)),
  ])('carries $dtype', async (value) => {
    const session = await engine.load(model(`same-${value.dtype}`));
    expect(await session.run({ x: value })).toEqual({ y: value });
    await session.close();
  });

  it('refuses models and reports runs as the engine for Node does', async () => {
    await expect(engine.load(Uint8Array.of(1, 2, 3))).rejects.toMatchObject({ code: 'INVALID_MODEL' });
    await expect(engine.load(model('same-bfloat16'))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(engine.load(model('sequence'))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(engine.load(model('unknown-operator'))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    const session = await engine.load(model('pick'));
    await expect(session.run({ x: float32([2], [1, 2]), i: int64([98765]) })).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      details: { operator: 'Gather', node: 'pick' },
      message: expect.not.stringContaining('98765'),
    });
  });

  it('has one number of threads for all graphs', async () => {
    await expect(engine.load(model('affine'), { threads: 2 })).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });

  it('can be made again beside the first', async () => {
    const second = await createWebEngine({ executionProvider: 'wasm' });
    expect(second.description).not.toMatch(/webgpu/);
    const session = await second.load(model('affine'));
    expect((await session.run({ x: float32([1, 3], [1, 1, 1]) })).y?.data).toEqual(Float32Array.of(19, 32));
    await second.close();
  });

  it.each([
    [{ executionProvider: 'webgpu' }, 'UNSUPPORTED', /"webgpu" can't start here: .*navigator.gpu/],
    [{ executionProvider: 'webgl' }, 'INVALID_ARGUMENT', /executionProvider is "webgl"/],
    [{ threads: -1 }, 'INVALID_ARGUMENT', /threads is -1/],
    [{ wasmPaths: '/ort' }, 'INVALID_ARGUMENT', /wasmPaths is "\/ort", expected the URL of a folder/],
    [{ worker: true }, 'UNSUPPORTED', /no Web Workers here/],
  ] as const)('refuses %o', async (options, code, message) => {
    await expect(createWebEngine(options as object)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});
