import { afterEach, describe, expect, it } from 'vitest';
import { createNodeEngine } from '../node/ort-engine.js';
import { Graph } from '../onnx/index.js';
import {
  decodeInferResponse,
  encodeInferRequest,
  type InferRequest,
  joinBody,
  parseHeaderLength,
} from '../protocol/index.js';
import { float32 } from '../tensor.js';
import {
  createInferenceServer,
  type EngineFactory,
  type InferenceServer,
  type InferenceServerOptions,
  MemoryRepository,
} from './index.js';

/** y = x + 1 over rows of four numbers. */
function addOne(amount = 1): Uint8Array {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n', 4]);
  const one = graph.addInitializer('one', float32([1], [amount]));
  graph.add('Add', ['x', one], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', 4]);
  return graph.encode();
}

const inline: EngineFactory = () => createNodeEngine({ threads: 1, thread: 'inline' });
const opened: InferenceServer[] = [];

async function serve(
  config: string | undefined,
  options: Partial<InferenceServerOptions> = {},
): Promise<InferenceServer> {
  const files = { '1/model.onnx': addOne(), ...(config === undefined ? {} : { 'config.pbtxt': config }) };
  const repository = new MemoryRepository({ m: files });
  const server = createInferenceServer({ repository, engineFactory: inline, ...options });
  opened.push(server);
  await server.start();
  return server;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map((server) => server.close()));
});

const request = (value: number, rows = 1, more: Partial<InferRequest> = {}): InferRequest => ({
  modelName: 'm',
  inputs: [{ name: 'x', tensor: float32([rows, 4], new Float32Array(4 * rows).fill(value)) }],
  ...more,
});

const first = (response: { outputs: readonly { tensor: { data: unknown } }[] }): number =>
  (response.outputs[0]!.tensor.data as Float32Array)[0]!;

/** An engine factory whose runs wait until they are let go, over the real engine. */
function gated(): { factory: EngineFactory; open: () => void; started: () => number } {
  let release: () => void = () => {};
  let count = 0;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const factory: EngineFactory = async (wanted) => {
    const engine = await inline(wanted);
    return {
      ...engine,
      description: engine.description,
      executionProvider: engine.executionProvider,
      threads: engine.threads,
      close: () => engine.close(),
      load: async (model, options) => {
        const session = await engine.load(model, options);
        return {
          inputs: session.inputs,
          outputs: session.outputs,
          close: () => session.close(),
          run: async (feeds, run) => {
            count++;
            await gate;
            return session.run(feeds, run);
          },
        };
      },
    };
  };
  return { factory, open: () => release(), started: () => count };
}

const http = (server: InferenceServer, path: string, init?: RequestInit): Promise<Response> =>
  server.handle(new Request(`http://server${path}`, init));

describe('inference', () => {
  it('answers over HTTP in JSON and binary, without a Content-Type, compressed as asked', async () => {
    const server = await serve(undefined);
    const json = await http(server, '/v2/models/m/infer', {
      method: 'POST',
      body: new TextEncoder().encode(
        '{"id":"7","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,NaN,-Infinity,4]}]}',
      ),
    });
    expect(json.status).toBe(200);
    expect(await json.text()).toBe(
      '{"id":"7","model_name":"m","model_version":"1","outputs":[{"name":"y","shape":[1,4],"datatype":"FP32","data":[2,NaN,-Infinity,5]}]}',
    );
    const encoded = encodeInferRequest(request(3, 2));
    const binary = await http(server, '/v2/models/m/versions/1/infer', {
      method: 'POST',
      body: joinBody(encoded),
      headers: { ...encoded.headers, 'accept-encoding': 'gzip' },
    });
    expect(binary.headers.get('content-encoding')).toBe('gzip');
    const plain = await new Response(binary.body!.pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
    const headerLength = parseHeaderLength(binary.headers.get('inference-header-content-length'))!;
    const response = decodeInferResponse(new Uint8Array(plain), { headerLength });
    expect(response.outputs[0]!.tensor).toEqual(float32([2, 4], new Float32Array(8).fill(4)));
    const raw = await http(server, '/v2/models/m/infer', {
      method: 'POST',
      body: new Uint8Array(16),
      headers: { 'inference-header-content-length': '0' },
    });
    expect(raw.status).toBe(200);
  });

  it('joins requests into batches and gives each its own rows', async () => {
    const gate = gated();
    const server = await serve('max_batch_size: 4 dynamic_batching { preferred_batch_size: [4] }', {
      engineFactory: gate.factory,
    });
    const all = Promise.all([1, 2, 3, 4, 5].map((value) => server.infer(request(value))));
    gate.open();
    expect((await all).map(first)).toEqual([2, 3, 4, 5, 6]);
    const [stats] = server.statistics('m');
    expect([stats!.inferenceCount, stats!.executionCount]).toEqual([5n, 2n]);
    expect(stats!.batches.map(({ batchSize }) => batchSize)).toEqual([1n, 4n]);
    expect(stats!.inference.success.count).toBe(5n);
    expect(stats!.inference.success.ns).toBeGreaterThan(0n);
    expect(server.metrics()).toContain('nv_inference_request_success{model="m",version="1"} 5\n');
  });

  it('refuses what does not fit the model, in words that name it and carry no value', async () => {
    const server = await serve('max_batch_size: 4');
    const cases: [InferRequest, string, RegExp][] = [
      [{ ...request(1), modelName: 'other' }, 'NOT_FOUND', /'other' is not found/],
      [request(1, 1, { modelVersion: '2' }), 'NOT_FOUND', /version 2/],
      [request(1, 1, { modelVersion: 'x' }), 'INVALID_ARGUMENT', /integral value/],
      [request(1, 5), 'INVALID_ARGUMENT', /batch-size must be 1 to 4, got 5/],
      [{ modelName: 'm', inputs: [{ name: 'z', tensor: float32([1, 4], [1, 2, 3, 4]) }] }, 'INVALID_ARGUMENT', /'z'/],
      [{ modelName: 'm', inputs: [{ name: 'x', tensor: float32([1, 3], [1, 2, 3]) }] }, 'INVALID_ARGUMENT', /\[-1,4\]/],
      [{ modelName: 'm', inputs: [] }, 'INVALID_ARGUMENT', /expected 1 inputs but got 0/],
      [request(1, 1, { outputs: [{ name: 'q' }] }), 'INVALID_ARGUMENT', /unexpected inference output 'q'/],
    ];
    for (const [wrong, code, text] of cases) {
      await expect(server.infer(wrong)).rejects.toMatchObject({ code, message: expect.stringMatching(text) });
    }
    const answers = await Promise.all(
      [
        ['/v2/models/m/infer', 'POST', '{"inputs":['],
        ['/v2/models/nothing', 'GET', undefined],
        ['/v2/models/m/infer', 'GET', undefined],
        ['/v2/nowhere', 'GET', undefined],
        ['/v2/systemsharedmemory/status', 'GET', undefined],
        ['/v2/models/m/generate', 'POST', '{}'],
        ['/v2/repository/models/m/unload', 'POST', ''],
      ].map(async ([path, method, body]) => {
        const response = await http(server, path!, { method: method!, ...(body === undefined ? {} : { body }) });
        expect(Object.keys((await response.json()) as object)).toEqual(['error']);
        return response.status;
      }),
    );
    expect(answers).toEqual([400, 404, 405, 404, 501, 501, 503]);
  });

  it('says 503 with Retry-After when the queue is full, and refuses on time what waits too long', async () => {
    const gate = gated();
    const server = await serve(
      'max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 2 default_timeout_microseconds: 80000 allow_timeout_override: true } }',
      { engineFactory: gate.factory },
    );
    const running = server.infer(request(1));
    const waits = server.infer(request(2));
    const start = performance.now();
    const short = server.infer(request(3, 1, { timeoutUs: 30_000 })).catch((error: unknown) => {
      const ms = performance.now() - start;
      expect(ms).toBeGreaterThanOrEqual(29);
      expect(ms).toBeLessThan(75);
      throw error;
    });
    const encoded = encodeInferRequest(request(4));
    const full = await http(server, '/v2/models/m/infer', {
      method: 'POST',
      body: joinBody(encoded),
      headers: { ...encoded.headers },
    });
    expect([full.status, full.headers.get('retry-after')]).toEqual([503, '1']);
    expect(await full.json()).toEqual({ error: 'Exceeds maximum queue size' });
    await expect(short).rejects.toMatchObject({ code: 'UNAVAILABLE', message: 'Request timeout expired' });
    await expect(waits).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    gate.open();
    expect(first(await running)).toBe(2);
  });

  it('takes a cancelled request out of the queue and drops the answer of one under way', async () => {
    const gate = gated();
    const server = await serve(undefined, { engineFactory: gate.factory });
    const [one, two] = [new AbortController(), new AbortController()];
    const running = server.infer(request(1), { signal: one.signal });
    const waiting = server.infer(request(2), { signal: two.signal });
    two.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'CANCELLED' });
    one.abort();
    await expect(running).rejects.toMatchObject({ code: 'CANCELLED' });
    gate.open();
    expect(first(await server.infer(request(3)))).toBe(4);
    expect(gate.started()).toBe(2);
    expect(server.metrics()).toContain('reason="CANCELED"} 2');
  });

  it('drains: unready at once, requests under way answered, new ones refused', async () => {
    const gate = gated();
    const server = await serve(undefined, { engineFactory: gate.factory });
    const running = server.infer(request(1));
    const drained = server.drain();
    expect((await http(server, '/v2/health/ready')).status).toBe(400);
    await expect(server.infer(request(2))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    gate.open();
    expect(first(await running)).toBe(2);
    await drained;
  });

  it('bounds the memory of requests that wait', async () => {
    const gate = gated();
    const server = await serve(undefined, { engineFactory: gate.factory, maxPendingBytes: 40 });
    const held = [server.infer(request(1)), server.infer(request(2))];
    await expect(server.infer(request(3))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    gate.open();
    expect((await Promise.all(held)).map(first)).toEqual([2, 3]);
  });
});

describe('models', () => {
  it('follow the version policy, are loaded, unloaded and replaced while they serve', async () => {
    const repository = new MemoryRepository({
      m: {
        'config.pbtxt': 'version_policy { latest { num_versions: 2 } }',
        '1/model.onnx': addOne(1),
        '2/model.onnx': addOne(2),
        '3/model.onnx': addOne(3),
      },
      broken: { '1/model.onnx': Uint8Array.of(1, 2, 3) },
    });
    const server = createInferenceServer({
      repository,
      engineFactory: inline,
      controlMode: 'explicit',
      loadModels: ['m'],
    });
    opened.push(server);
    await server.start();
    expect(server.ready()).toBe(true);
    expect(server.modelMetadata('m').versions).toEqual(['2', '3']);
    expect(first(await server.infer(request(0)))).toBe(3);
    expect(first(await server.infer(request(0, 1, { modelVersion: '2' })))).toBe(2);
    await expect(server.infer(request(0, 1, { modelVersion: '1' }))).rejects.toMatchObject({ code: 'NOT_FOUND' });

    await expect(server.load('broken')).rejects.toMatchObject({
      message: expect.stringMatching(/^failed to load 'broken'/),
    });
    expect(server.ready()).toBe(false);
    expect((await server.index()).find(({ name }) => name === 'broken')).toMatchObject({ state: 'UNAVAILABLE' });
    await server.unload('broken');
    expect(server.ready()).toBe(true);
    // A caller who asks for what is not there leaves no trace: the server stays ready.
    await expect(server.load('nowhere')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(server.ready()).toBe(true);
    expect((await server.index()).map(({ name }) => name)).not.toContain('nowhere');
    await expect(server.unload('nowhere')).rejects.toMatchObject({ code: 'NOT_FOUND' });

    repository.set('m', { '4/model.onnx': addOne(40) });
    await server.load('m');
    expect(first(await server.infer(request(0)))).toBe(40);
    await server.load('m', {
      config: '{"max_batch_size": 2}',
      files: { '9/model.onnx': addOne(90) },
    });
    expect(first(await server.infer(request(0)))).toBe(90);
    expect(server.modelConfig('m').maxBatchSize).toBe(2);
    await server.unload('m');
    await expect(server.infer(request(0))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect((await http(server, '/v2/models/m/ready')).status).toBe(400);
  });

  it('are brought in line with the repository by a poll', async () => {
    const repository = new MemoryRepository({ m: { '1/model.onnx': addOne(1) } });
    const server = createInferenceServer({ repository, engineFactory: inline, controlMode: 'poll' });
    opened.push(server);
    await server.start();
    repository.set('new', { '1/model.onnx': addOne(5) });
    repository.set('m', { '1/model.onnx': addOne(7) });
    await server.poll();
    expect(first(await server.infer(request(0)))).toBe(7);
    expect(first(await server.infer({ ...request(0), modelName: 'new' }))).toBe(5);
    repository.delete('m');
    await server.poll();
    await expect(server.infer(request(0))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('are refused where their configuration asks for what this server lacks or the model contradicts', async () => {
    const cases: [string, RegExp][] = [
      ['sequence_batching { }', /sequence_batching/],
      ['platform: "tensorrt_plan"', /platform/],
      ['max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: 5 }', /dims \[5\]/],
      ['input { name: "x" data_type: TYPE_INT32 dims: [ -1, 4 ] }', /INT32 in the configuration, FP32 in the model/],
      ['output { name: "q" data_type: TYPE_FP32 dims: [ -1, 4 ] }', /has output 'q'/],
      ['version_policy { specific { versions: 8 } }', /at least one version/],
      ['name: "another"', /names it 'another'/],
      ['max_batch_size: { }', /config.pbtxt/],
      ['model_operations { op_library_filename: "a.so" }', /libraries of operators/],
      [
        'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
        /intra_op_thread_count is 'many', expected 0 to 1024/,
      ],
    ];
    for (const [config, reason] of cases) {
      const server = await serve(config);
      expect(server.ready()).toBe(false);
      expect((await server.index())[0]!.reason).toMatch(reason);
    }
  });

  it('get the threads their configuration asks for, else as many as the server has', async () => {
    const asked: (number | undefined)[] = [];
    const engineFactory: EngineFactory = (wanted) => {
      asked.push(wanted.threads);
      return inline(wanted);
    };
    for (const count of ['3', '0', undefined]) {
      const value = `parameters { key: "intra_op_thread_count" value { string_value: "${count}" } }`;
      expect((await serve(count === undefined ? '' : value, { engineFactory })).ready()).toBe(true);
    }
    expect(asked).toEqual([3, undefined, undefined]);
  });

  it('are warmed up and classified with labels', async () => {
    const repository = new MemoryRepository({
      m: {
        'config.pbtxt': `max_batch_size: 4
          input { name: "x" data_type: TYPE_FP32 dims: 4 }
          output { name: "y" data_type: TYPE_FP32 dims: 4 label_filename: "labels.txt" }
          model_warmup { name: "w" batch_size: 2 count: 2
            inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 random_data: true } } }`,
        'labels.txt': 'a\nb\nc\nd\n',
        '1/model.onnx': addOne(),
      },
    });
    const server = createInferenceServer({ repository, engineFactory: inline });
    opened.push(server);
    await server.start();
    const response = await server.infer({
      modelName: 'm',
      inputs: [{ name: 'x', tensor: float32([1, 4], [0, 9, 3, 1]) }],
      outputs: [{ name: 'y', classification: 2 }],
    });
    const data = response.outputs[0]!.tensor.data as Uint8Array[];
    expect(data.map((bytes) => new TextDecoder().decode(bytes))).toEqual(['10.000000:1:b', '4.000000:2:c']);
    expect(server.statistics('m')[0]!.inferenceCount).toBe(1n);
  });
});
