import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { Graph } from '../onnx/index.js';
import { createInferenceServer, MemoryRepository } from '../server/index.js';
import { float32 } from '../tensor.js';
import { type ProcessEngine, startOrtProcess } from './ort-process-host.js';
import { DEFAULT_SETTINGS } from './ort-runtime.js';
import { nodeEngineFactory } from './server-process.js';

const { graphs } = JSON.parse(readFileSync(new URL('../engine/test-graphs.json', import.meta.url), 'utf8')) as {
  graphs: Record<string, string>;
};
const model = (name: string): Uint8Array => new Uint8Array(Buffer.from(graphs[name]!, 'base64'));
const SETTINGS = {
  ...DEFAULT_SETTINGS,
  threads: 1,
};
const x = float32([1, 3], [1, 1, 1]);
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const task of cleanups.splice(0).reverse()) await task();
});

async function start(): Promise<ProcessEngine> {
  const engine = await startOrtProcess(SETTINGS);
  cleanups.push(() => engine.close());
  return engine;
}

/** y = x + x + … (`depth` times), rows of `width`: slow enough to be caught at work. */
function doubling(width: number, depth: number): Uint8Array {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n', width]);
  let value = 'x';
  for (let i = 1; i < depth; i++) value = graph.add('Add', [value, 'x']);
  graph.add('Add', [value, 'x'], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', width]);
  return graph.encode();
}

const isRunning = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

describe('an engine in a process', () => {
  it('computes as one in this process does, leaves the inputs to the caller, and ends when closed', async () => {
    const engine = await start();
    expect(engine.description).toMatch(/onnxruntime-node .*process \d+/);
    const session = await engine.load(model('affine'));
    expect(await session.run({ x })).toEqual({ y: float32([1, 2], [19, 32]) });
    const large = await engine.load(doubling(2 ** 16, 2));
    const input = float32([1, 2 ** 16], new Float32Array(2 ** 16).fill(2));
    for (let i = 0; i < 3; i++) {
      const { y } = await large.run({ x: input }, { transfer: i === 1 });
      expect(y?.data.length === 2 ** 16 && (y.data as Float32Array).every((value) => value === 6)).toBe(true);
      expect(input.data[0]).toBe(2);
    }
    await expect(session.run({ x: float32([1, 2], [1, 1]) })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(isRunning(engine.pid)).toBe(true);
    await engine.close();
    await engine.ended;
    expect(isRunning(engine.pid)).toBe(false);
  });

  it('is not ended by the signals of a terminal or a supervisor', async () => {
    const engine = await start();
    const session = await engine.load(model('affine'));
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(engine.pid, signal);
    expect(await session.run({ x })).toEqual({ y: float32([1, 2], [19, 32]) });
  });

  it('may be killed: what waits and what comes later says so', async () => {
    const engine = await start();
    const session = await engine.load(doubling(2 ** 16, 400));
    const input = float32([1, 2 ** 16], new Float32Array(2 ** 16));
    const settled = Promise.allSettled([1, 2, 3].map(() => session.run({ x: input })));
    process.kill(engine.pid, 'SIGKILL');
    for (const result of await settled) {
      expect(result).toMatchObject({ reason: { code: 'ENGINE_FAILED', message: expect.stringMatching(/SIGKILL/) } });
    }
    await engine.ended;
    await expect(session.run({ x: input })).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await engine.close();
  });
});

describe('a server with instances as processes', () => {
  it('loses the requests of a killed instance alone, and an idle one without anybody noticing', async () => {
    const width = 2 ** 16;
    const engines: ProcessEngine[] = [];
    const make = nodeEngineFactory({ threads: 1, instances: 'process' });
    const server = createInferenceServer({
      repository: new MemoryRepository({
        m: {
          '1/model.onnx': doubling(width, 400),
          'config.pbtxt':
            'output { name: "y" data_type: TYPE_FP32 dims: [ -1, -1 ] } instance_group { count: 2 kind: KIND_CPU }',
        },
      }),
      engineFactory: async (request) => {
        const engine = (await make(request)) as ProcessEngine;
        engines.push(engine);
        return engine;
      },
    });
    cleanups.push(() => server.close());
    await server.start();
    const infer = async (value: number): Promise<number> => {
      const { outputs } = await server.infer({
        modelName: 'm',
        inputs: [{ name: 'x', tensor: float32([1, width], new Float32Array(width).fill(value)) }],
      });
      return (outputs[0]!.tensor.data as Float32Array)[0] as number;
    };
    const pending = Promise.allSettled(Array.from({ length: 12 }, (_, i) => infer(i)));
    await expect
      .poll(() => server.metrics(), { interval: 1, timeout: 20_000 })
      .toMatch(/_pending_request_count\{[^}]*\} [1-9]/);
    process.kill(engines[0]!.pid, 'SIGKILL');
    const results = await pending;
    const failures = results.filter(({ status }) => status === 'rejected');
    expect(failures.length).toBeLessThanOrEqual(1);
    for (const failure of failures) expect(failure).toMatchObject({ reason: { code: 'ENGINE_FAILED' } });
    for (const [i, result] of results.entries()) {
      if (result.status === 'fulfilled') expect(result.value).toBe(401 * i);
    }
    await expect.poll(() => engines.length, { timeout: 20_000 }).toBe(3);
    // Both idle now: a killed one is noticed by itself, and every request is answered.
    await Promise.all([infer(1), infer(2)]);
    for (const engine of engines.slice(1)) process.kill(engine.pid, 'SIGKILL');
    await Promise.all(engines.slice(1, 3).map(({ ended }) => ended));
    expect(await Promise.all([infer(3), infer(4)])).toEqual([1203, 1604]);
    expect(server.ready()).toBe(true);
  });
});
