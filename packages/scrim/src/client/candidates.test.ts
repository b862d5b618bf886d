import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keepStrongest, modelsOf, smallDetector } from '../../../../test/small-detector.js';
import type { Bundle } from '../bundle/bundle.js';
import { createPayloadPlan, encodePayload, type PayloadFormat } from '../bundle/payload-format.js';
import { exportRepository } from '../bundle/remote-repository.js';
import { remoteName } from '../bundle/remote-variants.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import type { InferResponse } from '../protocol/index.js';
import { createInferenceServer, type InferenceServer, MemoryRepository } from '../server/index.js';
import { float32, int64, type Tensor } from '../tensor.js';
import { createConfidentialSession } from './confidential-session.js';
import { createTritonClient } from './http-client.js';
import type { TritonClient } from './triton-client.js';

const crypto = createNodeCrypto();
const random = createFitRandom('session with candidates');
const CANDIDATES = 40;
let engine: Engine;
let bundle: Bundle;
/** By what `exportRepository` was told: the same models, with candidates and without. */
let servers: Record<'some' | 'all', InferenceServer>;
let files: Record<'some' | 'all', Map<string, Uint8Array>>;

function clientOf(server: () => InferenceServer): TritonClient {
  return createTritonClient({ url: 'http://triton.test:8000', fetch: (request) => server().handle(request) });
}

function picture(height = 32, width = 32): Tensor<'float32'> {
  return float32(
    [1, 3, height, width],
    Float32Array.from({ length: 3 * height * width }, () => 2 * random.uniform() - 1),
  );
}

beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1 });
  bundle = await smallDetector(crypto, random);
  files = {
    some: await exportRepository(bundle, { candidates: CANDIDATES }),
    all: await exportRepository(bundle, { candidates: 'all' }),
  };
  const start = async (models: ReadonlyMap<string, Uint8Array>): Promise<InferenceServer> => {
    const server = createInferenceServer({
      repository: new MemoryRepository(modelsOf(models)),
      engineFactory: () => createNodeEngine({ threads: 1 }),
    });
    await server.start();
    return server;
  };
  servers = { some: await start(files.some), all: await start(files.all) };
});

afterAll(async () => {
  await Promise.all(Object.values(servers).map((server) => server.close()));
  await engine.close();
});

describe('a session with a remote model that sends candidates', () => {
  it.each([
    ['fp16', undefined],
    ['uint8', undefined],
    ['uint8', false],
    ['int16', false],
  ] as const)(
    'gives outputs of all anchors, those that were not sent as background: payload %s, binary %s',
    async (payload, binary) => {
      const client = clientOf(() => servers.some);
      const session = await createConfidentialSession({
        ...{ bundle, client, engine, crypto, payload },
        ...(binary === undefined ? {} : { binary }),
      });
      const whole = await engine.load(
        files.all.get(`${remoteName('face_detection_noisy', payload)}/1/model.onnx`) as Uint8Array,
      );
      for (const [height, width] of [
        [32, 32],
        [24, 64],
      ] as const) {
        const release = await session.trusted.release(picture(height, width));
        const answer = await session.send(release);
        const sent = encodePayload(release, payload, createPayloadPlan(bundle.parameters), bundle.parameters);
        const { OUTPUT__0, OUTPUT__1 } = (await whole.run({ INPUT__0: sent })) as Record<string, Tensor<'float32'>>;
        const anchors = (height * width) / 4;
        expect(OUTPUT__1?.shape).toEqual([1, anchors, 2]);
        const expected = keepStrongest(OUTPUT__0 as Tensor<'float32'>, OUTPUT__1 as Tensor<'float32'>, CANDIDATES);
        expect(answer.outputs).toEqual({ loc: expected.boxes, conf: expected.scores });
        const weakest = expected.kept[0]?.at(-1) as number;
        expect(answer.candidates).toEqual({ sent: CANDIDATES, anchors, weakest: OUTPUT__1?.data[2 * weakest + 1] });
        if (binary === undefined) expect(answer.receivedBytes).toBeLessThan(CANDIDATES * 28 + 600);
      }
      await whole.close();
      await session.close();
    },
  );

  it('gives all of them where there are no more', async () => {
    const [some, all] = await Promise.all(
      (['some', 'all'] as const).map((which) =>
        createConfidentialSession({ bundle, client: clientOf(() => servers[which]), engine, crypto }),
      ),
    );
    const release = await (some as NonNullable<typeof some>).trusted.release(picture(8, 16));
    const answer = await some?.send(release);
    expect(answer?.candidates).toMatchObject({ sent: 32, anchors: 32 });
    expect(answer?.outputs).toEqual((await all?.send(release))?.outputs);
    await Promise.all([some?.close(), all?.close()]);
  });

  it('is as before with a repository that sends all rows, such as older ones', async () => {
    const config = new TextDecoder().decode(files.all.get('face_detection_noisy_fp16/config.pbtxt'));
    expect([...config.matchAll(/name: "(\w+)"/g)].map(([, name]) => name)).toEqual([
      ...['face_detection_noisy_fp16', 'INPUT__0', 'OUTPUT__0', 'OUTPUT__1'],
    ]);
    for (const payload of ['fp32', 'fp16', 'int16', 'uint8'] as const) {
      const session = await createConfidentialSession({
        bundle,
        client: clientOf(() => servers.all),
        engine,
        crypto,
        payload,
      });
      const release = await session.trusted.release(picture());
      const answer = await session.send(release);
      const whole = await engine.load(files.all.get(`${session.model}/1/model.onnx`) as Uint8Array);
      const sent = encodePayload(release, payload, createPayloadPlan(bundle.parameters), bundle.parameters);
      const { OUTPUT__0, OUTPUT__1 } = await whole.run({ INPUT__0: sent });
      expect(answer.outputs).toEqual({ loc: OUTPUT__0, conf: OUTPUT__1 });
      expect(Object.keys(answer)).not.toContain('candidates');
      await whole.close();
      await session.close();
    }
  });

  it('reads what it gets where a server is given another export meanwhile', async () => {
    let server = servers.all;
    const session = await createConfidentialSession({ bundle, client: clientOf(() => server), engine, crypto });
    expect((await session.infer(picture())).candidates).toBeUndefined();
    server = servers.some;
    const answer = await session.infer(picture());
    expect(answer.candidates).toMatchObject({ sent: CANDIDATES, anchors: 256 });
    expect(answer.outputs.conf?.shape).toEqual([1, 256, 2]);
    // And back, when its metadata was read while it sent candidates.
    const later = await createConfidentialSession({ bundle, client: clientOf(() => server), engine, crypto });
    expect((await later.infer(picture())).candidates).toBeDefined();
    server = servers.all;
    for (const each of [session, later]) {
      const whole = await each.infer(picture());
      expect(whole.candidates).toBeUndefined();
      expect(whole.outputs.conf?.shape).toEqual([1, 256, 2]);
      await each.close();
    }
  });

  it('refuses an answer that does not hold together, by the name of the tensor', async () => {
    let change: (outputs: InferResponse['outputs']) => InferResponse['outputs'] = (outputs) => outputs;
    const client = clientOf(() => servers.some);
    const lying: TritonClient = {
      ...client,
      infer: async (...call) => {
        const response = await client.infer(...call);
        return { ...response, outputs: change(response.outputs) };
      },
    };
    const session = await createConfidentialSession({ bundle, client: lying, engine, crypto });
    const put = (name: string, tensor: Tensor) => (outputs: InferResponse['outputs']) =>
      outputs.map((output) => (output.name === name ? { name, tensor } : output));
    for (const [wrong, message] of [
      [(outputs: InferResponse['outputs']) => outputs.slice(0, 2), /'OUTPUT__2' is missing, expected int32/],
      [put('OUTPUT__2', int64(Array(CANDIDATES).fill(0), [1, CANDIDATES])), /'OUTPUT__2' is int64 \[1, 40\]/],
      [put('OUTPUT__0', float32([1, 256, 4], new Float32Array(1024))), /'OUTPUT__0' is float32 \[1, 256, 4\]/],
      [
        put('OUTPUT__2', { dtype: 'int32', shape: [1, CANDIDATES], data: new Int32Array(CANDIDATES).fill(256) }),
        /'OUTPUT__2' names an anchor that is none of the 256/,
      ],
    ] as const) {
      change = wrong;
      await expect(session.infer(picture())).rejects.toMatchObject({
        code: 'INVALID_DATA',
        message: expect.stringMatching(message),
      });
    }
    await session.close();
  });

  it('of fixed sizes gives the rows of all anchors too', async () => {
    const fixed = await smallDetector(crypto, random, 32);
    const models = await exportRepository(fixed, { candidates: CANDIDATES });
    const server = createInferenceServer({
      repository: new MemoryRepository(modelsOf(models)),
      engineFactory: () => createNodeEngine({ threads: 1 }),
    });
    await server.start();
    for (const payload of ['fp16', 'uint8'] satisfies PayloadFormat[]) {
      const client = clientOf(() => server);
      const session = await createConfidentialSession({ bundle: fixed, client, engine, crypto, payload });
      const { outputs } = await client.modelMetadata(session.model);
      expect(outputs.map(({ name, shape }) => `${name} ${shape}`)).toEqual([
        ...['OUTPUT__0 -1,40,4', 'OUTPUT__1 -1,40,2', 'OUTPUT__2 -1,40', 'OUTPUT__3 -1,1'],
      ]);
      const answer = await session.infer(picture());
      expect(answer.outputs.loc?.shape).toEqual([1, 256, 4]);
      await session.close();
    }
    await server.close();
  });
});
