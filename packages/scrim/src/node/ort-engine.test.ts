import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { warmUp, zeroFeeds } from '../engine/warm-up.js';
import { allocate, type DataType, float32, int64, type Tensor, tensor } from '../tensor.js';
import { createNodeEngine, type NodeEngineOptions } from './ort-engine.js';
import { usableProcessors } from './usable-processors.js';

const { graphs } = JSON.parse(readFileSync(new URL('../engine/test-graphs.json', import.meta.url), 'utf8')) as {
  graphs: Record<string, string>;
};
const model = (name: string): Uint8Array => new Uint8Array(Buffer.from(graphs[name]!, 'base64'));
const square = (size: number): Tensor => float32([size, size], new Float32Array(size * size).fill(1));

const SAMPLES: { readonly [T in Exclude<DataType, 'bfloat16'>]: Tensor<T> } = {
  float32: tensor('float32', [2], Float32Array.of(-1.5, Number.POSITIVE_INFINITY)),
  float64: tensor('float64', [2], Float64Array.of(Math.PI, -0)),
  float16: tensor('float16', [3], Uint16Array.of(0x3c00, 0xfc00, 0x0001)),
  int8: tensor('int8', [2], Int8Array.of(-128, 127)),
  uint8: tensor('uint8', [2], Uint8Array.of(0, 255)),
  int16: tensor('int16', [2], Int16Array.of(-32768, 32767)),
  uint16: tensor('uint16', [1], Uint16Array.of(65535)),
  int32: tensor('int32', [2], Int32Array.of(-(2 ** 31), 2 ** 31 - 1)),
  uint32: tensor('uint32', [1], Uint32Array.of(2 ** 32 - 1)),
  int64: tensor('int64', [2], BigInt64Array.of(-(2n ** 63n), 2n ** 53n + 1n)),
  uint64: tensor('uint64', [1], BigUint64Array.of(2n ** 64n - 1n)),
  bool: tensor('bool', [3], Uint8Array.of(1, 0, 1)),
  string: tensor('string', [3], ['', 'a', 'größer 漢字 🙂']),
};

describe.each(['worker', 'inline', 'adaptive'] as const)('createNodeEngine, %s', (thread) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createNodeEngine({ thread, threads: 2 });
  });
  afterAll(() => engine.close());

  it('says what it is', () => {
    expect(engine.description).toBe(`onnxruntime-node 1.30.0 (cpu, 2 threads, ${thread})`);
    expect([engine.executionProvider, engine.threads]).toEqual(['cpu', 2]);
  });

  it('runs a graph at any size of its symbolic dimension', async () => {
    const session = await engine.load(model('affine'));
    expect(session.inputs).toEqual([{ name: 'x', dtype: 'float32', shape: ['batch', 3] }]);
    expect(session.outputs).toEqual([{ name: 'y', dtype: 'float32', shape: ['batch', 2] }]);
    const x = Float32Array.of(9, 1, 1, 1, 2, 2, 2, 9).subarray(1, 7);
    expect(await session.run({ x: float32([2, 3], x) })).toEqual({ y: float32([2, 2], [19, 32, 28, 44]) });
    expect(await session.run({ x: float32([0, 3], []) })).toEqual({ y: float32([0, 2], []) });
    await session.close();
  });

  it('gives the same without the rewriting of the graph, and with one thread', async () => {
    const session = await engine.load(model('affine'), { optimize: 'none', threads: 1 });
    expect(await session.run({ x: float32([1, 3], [1, 1, 1]) })).toEqual({ y: float32([1, 2], [19, 32]) });
    await session.close();
  });

  it.each(Object.entries(SAMPLES))('carries %s, also with no elements', async (dtype, value) => {
    const session = await engine.load(model(`same-${dtype}`));
    expect(session.inputs[0]).toEqual({ name: 'x', dtype, shape: ['n'] });
    expect(await session.run({ x: value })).toEqual({ y: value });
    const empty = tensor(value.dtype, [0], allocate(value.dtype, 0));
    expect(await session.run({ x: empty })).toEqual({ y: empty });
    await session.close();
  });

  it('computes only the outputs that are asked for, and knows unknown dimensions and scalars', async () => {
    const session = await engine.load(model('pair'));
    expect(session.inputs[0]?.shape).toEqual(['', 2]);
    const x = float32([1, 2], [1, 2]);
    const minus = float32([1, 2], [-1, -2]);
    const twice = float32([1, 2], [2, 4]);
    expect(await session.run({ x })).toEqual({ minus, twice });
    expect(await session.run({ x }, { fetches: ['twice'] })).toEqual({ twice });
    await expect(session.run({ x }, { fetches: ['thrice'] })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    const scalar = await engine.load(model('scalar'));
    expect(scalar.inputs[0]?.shape).toEqual([]);
    expect(await scalar.run({ x: float32([], [2]) })).toEqual({ y: float32([], [-2]) });
  });

  it('keeps inputs, or empties those that are given up', async () => {
    const session = await engine.load(model('mean'));
    const kept = new Float32Array(3 * 256 * 256).fill(2);
    const given = kept.slice();
    const shape = [1, 3, 256, 256];
    expect(await session.run({ x: float32(shape, kept) })).toEqual({ y: float32([], [2]) });
    expect(await session.run({ x: float32(shape, given) }, { transfer: true })).toEqual({ y: float32([], [2]) });
    expect(kept.every((v) => v === 2)).toBe(true);
    // Nothing has to move where there is one thread.
    expect(given.length).toBe(thread === 'inline' ? kept.length : 0);
  });

  it('hands out outputs that are the caller’s: later runs leave them alone', async () => {
    const session = await engine.load(model('product'));
    const a = square(64);
    const first = await session.run({ a, b: a });
    await session.run({ a: first.y!, b: a });
    expect(first.y?.data.every((v) => v === 64)).toBe(true);
    const { buffer } = first.y!.data as Float32Array;
    expect(structuredClone(buffer, { transfer: [buffer as ArrayBuffer] }).byteLength).toBe(4 * 64 * 64);
  });

  it('refuses wrong feeds by name before it runs', async () => {
    const session = await engine.load(model('affine'));
    const refuse = (feeds: Record<string, unknown>, message: RegExp) =>
      expect(session.run(feeds as Record<string, Tensor>)).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: expect.stringMatching(message),
      });
    const x = float32([1, 3], [1, 2, 3]);
    await refuse({}, /input "x" is missing; the graph takes x float32 \[batch, 3\]/);
    await refuse({ x, w: x }, /input "w" is unknown/);
    await refuse({ x: int64([1, 2, 3], [1, 3]) }, /"x" is int64, expected float32/);
    await refuse({ x: float32([3], [1, 2, 3]) }, /shape \[3\], expected \[batch, 3\]/);
    await refuse({ x: { ...x, data: new Float32Array(4) } }, /4 elements, expected 3/);
  });

  it('reports failing runs without tensor values', async () => {
    const session = await engine.load(model('pick'));
    const failed = session.run({ x: float32([2], [1, 2]), i: int64([98765]) });
    await expect(failed).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      details: { operator: 'Gather', node: 'pick' },
    });
    const error = await failed.catch((e: Error) => e);
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('98765');
    expect(await session.run({ x: float32([2], [1, 2]), i: int64([1]) })).toEqual({ y: float32([1], [2]) });
  });

  it('refuses what is no model, and what onnxruntime lacks', async () => {
    const refuse = (bytes: Uint8Array, code: string) => expect(engine.load(bytes)).rejects.toMatchObject({ code });
    await refuse(new Uint8Array(), 'INVALID_MODEL');
    await refuse(Uint8Array.of(1, 2, 3), 'INVALID_MODEL');
    await refuse(model('affine').subarray(0, 100), 'INVALID_MODEL');
    await refuse(model('unknown-operator'), 'UNSUPPORTED');
    await refuse(model('same-bfloat16'), 'UNSUPPORTED');
    await refuse(model('sequence'), 'UNSUPPORTED');
    await refuse('model.onnx' as never, 'INVALID_ARGUMENT');
    await expect(engine.load(model('affine'), { threads: 0 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('loads a model from a part of a buffer and leaves the bytes alone', async () => {
    const bytes = model('affine');
    const around = new Uint8Array(bytes.length + 20);
    around.set(bytes, 10);
    const part = around.subarray(10, 10 + bytes.length);
    const session = await engine.load(part);
    expect(session.inputs[0]?.name).toBe('x');
    expect(part).toEqual(bytes);
  });

  it('keeps the order of overlapping runs', async () => {
    const session = await engine.load(model('affine'));
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        session.run({ x: float32([1, 3], [i, 0, 0]) }).then(({ y }) => {
          expect(y?.data[0]).toBe(i + 10);
          order.push(i);
        }),
      ),
    );
    expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it('cancels: at once, waiting, under way', async () => {
    const session = await engine.load(model('product'));
    const a = square(700);
    const abort = new AbortController();
    await expect(session.run({ a, b: a }, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'CANCELLED',
    });
    const finished: number[] = [];
    const runs = [0, 1, 2, 3, 4].map((i) =>
      session.run({ a, b: a }, i % 2 === 0 ? {} : { signal: abort.signal }).then(({ y }) => {
        finished.push(i);
        return y?.data[0];
      }),
    );
    setImmediate(() => abort.abort());
    const results = await Promise.allSettled(runs);
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'rejected',
      'fulfilled',
    ]);
    expect(results[1]).toMatchObject({ reason: { code: 'CANCELLED' } });
    expect(finished).toEqual([0, 2, 4]);
    expect((await session.run({ a, b: a })).y?.data[5]).toBe(700);
  });

  it('warms up', async () => {
    const session = await engine.load(model('affine'));
    await warmUp(session, zeroFeeds(session.inputs, { batch: 4 }), 2);
  });

  it('closes after the runs asked for before, and refuses every later call', async () => {
    const own = await createNodeEngine({ thread, threads: 1 });
    const [one, two] = [await own.load(model('product')), await own.load(model('affine'))];
    const a = square(300);
    const before = [1, 2, 3].map(() => one.run({ a, b: a }));
    const closedOne = one.close();
    await expect(one.run({ a, b: a })).rejects.toMatchObject({
      code: 'ENGINE_FAILED',
      message: 'the session is closed',
    });
    await closedOne;
    expect((await Promise.all(before)).every(({ y }) => y?.data[0] === 300)).toBe(true);
    const late = two.run({ x: float32([1, 3], [0, 0, 0]) });
    const closed = own.close();
    await expect(two.run({ x: float32([1, 3], [0, 0, 0]) })).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await expect(own.load(model('affine'))).rejects.toMatchObject({ message: 'the engine is closed' });
    expect(await late).toEqual({ y: float32([1, 2], [10, 20]) });
    await closed;
    await Promise.all([own.close(), one.close(), two.close()]);
  });
});

describe('createNodeEngine', () => {
  it('uses every processor it may by default', async () => {
    const engine = await createNodeEngine({ thread: 'inline' });
    expect(engine.threads).toBe(usableProcessors());
    await engine.close();
  });

  it('leaves the event loop free while a worker runs, and blocks it inline', async () => {
    const longestGap = async (thread: 'worker' | 'inline'): Promise<{ gapMs: number; runMs: number }> => {
      const engine = await createNodeEngine({ thread, threads: 1 });
      const session = await engine.load(model('product'));
      const a = square(1500);
      let last = performance.now();
      let gapMs = 0;
      const timer = setInterval(() => {
        gapMs = Math.max(gapMs, performance.now() - last);
        last = performance.now();
      }, 1);
      const start = performance.now();
      await session.run({ a, b: a });
      const runMs = performance.now() - start;
      gapMs = Math.max(gapMs, performance.now() - last);
      clearInterval(timer);
      await engine.close();
      return { gapMs, runMs };
    };
    const free = await longestGap('worker');
    const blocked = await longestGap('inline');
    expect(blocked.gapMs).toBeGreaterThan(0.8 * blocked.runMs);
    expect(free.gapMs).toBeLessThan(0.6 * free.runMs);
  });

  it.each([
    [{ executionProvider: 'tpu' }, /executionProvider is "tpu", expected one of cpu, webgpu, cuda/],
    [{ thread: 'fibre' }, /thread is "fibre"/],
    [{ buffers: 'large' }, /buffers is "large", expected one of rounded, exact/],
    [{ logLevel: 'loud' }, /logLevel is "loud"/],
    [{ threads: 0 }, /threads is 0, expected an integer from 1 to 1024/],
    [{ threads: 1.5 }, /threads is 1.5/],
    [{ interOpThreads: Number.NaN }, /interOpThreads is NaN/],
  ])('refuses %o', async (options, message) => {
    await expect(createNodeEngine(options as NodeEngineOptions)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });

  // Which providers a machine has differs; each must either work or say by name that it can't.
  it.each(['webgpu', 'cuda'] as const)(
    'starts %s or says why it can not, in both threads',
    async (executionProvider) => {
      for (const thread of ['worker', 'inline'] as const) {
        try {
          const engine = await createNodeEngine({ executionProvider, thread, threads: 1 });
          expect(engine.executionProvider).toBe(executionProvider);
          const session = await engine.load(model('affine'));
          expect((await session.run({ x: float32([1, 3], [1, 1, 1]) })).y?.data).toEqual(Float32Array.of(19, 32));
          await engine.close();
        } catch (error) {
          expect(error).toMatchObject({ code: 'UNSUPPORTED', details: { executionProvider } });
          expect((error as Error).message).toMatch(
            new RegExp(
              `^execution provider "${executionProvider}" is (not in|listed by) .*onnxruntime-node 1\\.30\\.0`,
            ),
          );
        }
      }
    },
  );

  it('runs engines side by side', async () => {
    const engines = await Promise.all([
      createNodeEngine({ threads: 1 }),
      createNodeEngine({ threads: 1 }),
      createNodeEngine({ threads: 1, thread: 'inline', interOpThreads: 2, spin: true }),
    ]);
    const results = await Promise.all(
      engines.map(async (engine) => (await engine.load(model('affine'))).run({ x: float32([1, 3], [1, 1, 1]) })),
    );
    for (const result of results) expect(result).toEqual({ y: float32([1, 2], [19, 32]) });
    await Promise.all(engines.map((engine) => engine.close()));
  });
});
