import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testManifest } from '../../../../test/manifest.js';
import { modelsOf, smallDetector } from '../../../../test/small-detector.js';
import { type Bundle, encodeBundle, loadBundle } from '../bundle/bundle.js';
import { exportRepository } from '../bundle/remote-repository.js';
import { type ConfidentialSession, createConfidentialSession } from '../client/confidential-session.js';
import { createTritonClient } from '../client/http-client.js';
import { releaseNats } from '../client/release-ledger.js';
import type { TritonClient } from '../client/triton-client.js';
import type { Engine } from '../engine/engine.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { Graph } from '../onnx/index.js';
import { bytesTensor } from '../protocol/index.js';
import { createInferenceServer, type InferenceServer, MemoryRepository } from '../server/index.js';
import { float32, type Tensor } from '../tensor.js';
import { createImage, FACEBOXES_TFJS_SPEC, imageToTensor } from '../vision/index.js';
import { createGateway, type Gateway } from './gateway.js';
import { createGrpcClient } from './grpc-client.js';
import { listenGrpc } from './grpc-server.js';
import { listenHttp } from './http-listener.js';
import { encodePng } from './images.js';
import { openLedger } from './ledger-store.js';
import { createNodeCrypto } from './node-crypto.js';
import { openConfidentialSession } from './open-session.js';
import { createNodeEngine } from './ort-engine.js';
import { createTritonClient as createNodeClient } from './triton-client.js';

const crypto = createNodeCrypto();
const SIDE = 128;
let engine: Engine;
let bundle: Bundle;
let remote: InferenceServer;
let upstream: TritonClient;
let session: ConfidentialSession;
let gateway: Gateway;
let client: TritonClient;
let remoteIsUp = true;
let sentUpstream = Buffer.alloc(0);

/** Head: a strided pool; noise so small that the answer shows which image it was; tail: twice the mean of each channel. */
async function makeBundle({ alpha = 0.5, sigma = 0.01 } = {}): Promise<Bundle> {
  const head = Graph.create();
  head.addInput('image', 'float32', ['N', 3, 'H', 'W']);
  head.add('AveragePool', ['image'], { kernel_shape: [8, 8], strides: [8, 8] }, { outputs: ['cut'] });
  head.addOutput('cut', 'float32', ['N', 3, 'h', 'w']);
  const tail = Graph.create();
  tail.addInput('cut', 'float32', ['N', 3, 'h', 'w']);
  const mean = tail.add('GlobalAveragePool', ['cut']);
  tail.add('Mul', [mean, tail.addInitializer('two', float32([1], [2]))], {}, { outputs: ['loc'] });
  tail.add('Identity', ['loc'], {}, { outputs: ['conf'] });
  tail.addOutput('loc', 'float32', ['N', 3, 1, 1]);
  tail.addOutput('conf', 'float32', ['N', 3, 1, 1]);
  const of = (value: number): Float32Array => new Float32Array(3).fill(value);
  const files = await encodeBundle(
    {
      head,
      tail,
      parameters: {
        kind: 'per-channel',
        shape: [3],
        gain: of(1),
        mean: of(0),
        sigma: of(sigma),
        clipLow: of(-1),
        clipHigh: of(1),
        variance: of(1),
      },
      manifest: testManifest({
        alpha,
        model: {
          name: 'face_detection',
          source: 'test',
          sha256: 'a'.repeat(64),
          input: 'image',
          detector: structuredClone(FACEBOXES_TFJS_SPEC) as never,
        },
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', 3, 'h', 'w'] }] },
        task: { kind: 'detection', scores: 'conf', boxes: 'loc' },
      }),
    },
    crypto,
  );
  return loadBundle(async (path) => files.get(path) as Uint8Array, crypto);
}

function pictureOf(value: number): Tensor<'float32'> {
  return float32([1, 3, SIDE, SIDE], new Float32Array(3 * SIDE * SIDE).fill(value));
}

beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1 });
  bundle = await makeBundle();
  const files = await exportRepository(bundle, { payloads: ['fp16'] });
  remote = createInferenceServer({
    repository: new MemoryRepository({
      face_detection_noisy_fp16: Object.fromEntries(
        [...files].map(([path, bytes]) => [path.slice(path.indexOf('/') + 1), bytes]),
      ),
    }),
    engineFactory: () => createNodeEngine({ threads: 1 }),
  });
  await remote.start();
  upstream = createTritonClient({
    url: 'http://triton.test',
    retry: { retries: 0 },
    fetch: async (request) => {
      if (!remoteIsUp) throw new Error('down');
      const body = Buffer.from(await request.clone().arrayBuffer());
      sentUpstream = Buffer.concat([sentUpstream, body]);
      return remote.handle(request);
    },
  });
  session = await createConfidentialSession({ bundle, client: upstream, engine, crypto });
  gateway = await createGateway({
    bundle,
    session,
    upstream,
    resize: { kind: 'stretch', width: SIDE, height: SIDE },
  });
  client = createTritonClient({ url: 'http://gateway.test', fetch: (request) => gateway.handle(request) });
});

afterAll(async () => {
  await gateway.close();
  await session.close();
  await remote.close();
  await engine.close();
});

describe('the gateway', () => {
  it('has the clean model’s name, tensors and shapes', async () => {
    expect(await client.serverReady()).toBe(true);
    expect(await client.modelReady('face_detection')).toBe(true);
    expect(await client.modelReady('face_detection_noisy_fp16')).toBe(false);
    const { inputs, outputs } = await client.modelMetadata('face_detection');
    expect(inputs).toEqual([{ name: 'image', datatype: 'FP32', shape: [-1, 3, -1, -1] }]);
    expect(outputs.map(({ name, shape }) => `${name} ${shape}`)).toEqual(['loc -1,3,1,1', 'conf -1,3,1,1']);
  });

  it.each([undefined, 32])(
    'has rows for all anchors where the remote model sends candidates, side %s',
    async (side) => {
      const detector = await smallDetector(crypto, createFitRandom('gateway'), side);
      const server = createInferenceServer({
        repository: new MemoryRepository(modelsOf(await exportRepository(detector, { candidates: 40 }))),
        engineFactory: () => createNodeEngine({ threads: 1 }),
      });
      await server.start();
      const behind = createTritonClient({ url: 'http://triton.test', fetch: (request) => server.handle(request) });
      const own = await createConfidentialSession({ bundle: detector, client: behind, engine, crypto });
      const front = await createGateway({ bundle: detector, session: own, upstream: behind });
      const asking = createTritonClient({ url: 'http://gateway.test', fetch: (request) => front.handle(request) });
      const { outputs: types } = await asking.modelMetadata('small');
      expect(types.map(({ name, shape }) => `${name} ${shape}`)).toEqual(['loc -1,-1,4', 'conf -1,-1,2']);
      const image = float32([2, 3, 32, 32], new Float32Array(2 * 3 * 32 * 32).fill(0.5));
      const { outputs } = await asking.infer({ modelName: 'small', inputs: [{ name: 'image', tensor: image }] });
      expect(outputs.map(({ name, tensor }) => `${name} ${tensor.shape}`)).toEqual(['loc 2,256,4', 'conf 2,256,2']);
      const scores = outputs[1]?.tensor.data as Float32Array;
      const background = Array.from({ length: 512 }, (_, i) => scores[2 * i] === 1 && scores[2 * i + 1] === 0);
      expect(background.filter(Boolean)).toHaveLength(2 * (256 - 40));
      await front.close();
      await own.close();
      await server.close();
    },
  );

  it('answers batches of tensors under the clean names, sample by sample', async () => {
    const [a, b] = [pictureOf(0.25), pictureOf(-0.5)];
    const data = new Float32Array(2 * a.data.length);
    data.set(a.data);
    data.set(b.data, a.data.length);
    sentUpstream = Buffer.alloc(0);
    const { outputs } = await client.infer({
      modelName: 'face_detection',
      inputs: [{ name: 'image', tensor: float32([2, 3, SIDE, SIDE], data) }],
      outputs: [{ name: 'loc' }],
    });
    expect(outputs.map(({ name }) => name)).toEqual(['loc']);
    expect(outputs[0]?.tensor.shape).toEqual([2, 3, 1, 1]);
    const values = outputs[0]?.tensor.data as Float32Array;
    for (const [i, expected] of [0.5, 0.5, 0.5, -1, -1, -1].entries()) {
      expect(Math.abs((values[i] as number) - expected)).toBeLessThan(0.02);
    }
    expect(sentUpstream.length).toBeGreaterThan(2 * 3 * (SIDE / 8) ** 2 * 2);
    expect(sentUpstream.length).toBeLessThan(a.data.byteLength / 10);
    expect(sentUpstream.includes(Buffer.from(a.data.buffer, 0, 32))).toBe(false);
  });

  it('takes encoded images and preprocesses them as the bundle says', async () => {
    const picture = createImage(200, 100, [255, 128, 0]);
    const png = await encodePng(picture);
    sentUpstream = Buffer.alloc(0);
    const { outputs } = await client.infer({
      modelName: 'face_detection',
      inputs: [{ name: 'image', tensor: bytesTensor([1], [png]) }],
    });
    const clean = imageToTensor(picture, FACEBOXES_TFJS_SPEC.preprocessing).data;
    const values = outputs.find(({ name }) => name === 'loc')?.tensor.data as Float32Array;
    for (let c = 0; c < 3; c++) {
      expect(Math.abs((values[c] as number) - 2 * (clean[c * 200 * 100] as number))).toBeLessThan(0.03);
    }
    for (let at = 0; at + 32 <= png.length; at++) {
      expect(sentUpstream.includes(Buffer.from(png.buffer, png.byteOffset + at, 32))).toBe(false);
    }
    const wrong = client.infer({
      modelName: 'face_detection',
      inputs: [{ name: 'image', tensor: bytesTensor([1], [new Uint8Array(100)]) }],
    });
    await expect(wrong).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('counts releases of the same image by client, without naming either', async () => {
    const token = createTritonClient({
      url: 'http://gateway.test',
      bearerToken: 'token-1',
      fetch: (request) => gateway.handle(request),
    });
    for (const value of [0.1, 0.1, 0.1, 0.2]) {
      await token.infer({ modelName: 'face_detection', inputs: [{ name: 'image', tensor: pictureOf(value) }] });
    }
    const report = gateway.report();
    const own = report.filter(({ client: name }) => name !== 'anonymous');
    expect(own).toEqual([{ client: expect.stringMatching(/^[0-9a-f]{12}$/), releases: 4, images: 2, most: 3 }]);
    expect(JSON.stringify(report)).not.toContain('token-1');
  });

  it('tells clients apart over both protocols, and counts no release that was never made', async () => {
    const fresh = await createGateway({ bundle, session, upstream });
    const http = await listenHttp({ answer: (call) => fresh.answer(call), port: 0 });
    const grpc = await listenGrpc({ server: fresh.server, infer: fresh.infer, port: 0 });
    const picture = { modelName: 'face_detection', inputs: [{ name: 'image', tensor: pictureOf(0.3) }] };
    for (const [url, bearerToken] of [
      [http.url, undefined],
      [`grpc://${grpc.address}`, undefined],
      [http.url, 'token-2'],
      [`grpc://${grpc.address}`, 'token-2'],
    ] as const) {
      const caller = createNodeClient({ url, retry: { retries: 0 }, ...(bearerToken ? { bearerToken } : {}) });
      await caller.infer(picture);
      const wrong = float32([1, 4, 8, 8], new Float32Array(4 * 64));
      await expect(caller.infer({ ...picture, inputs: [{ name: 'image', tensor: wrong }] })).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
      await expect(
        caller.infer({ ...picture, inputs: [{ name: 'image', tensor: bytesTensor([1], [new Uint8Array(9)]) }] }),
      ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      await caller.close();
    }
    expect(fresh.report()).toEqual([
      { client: '127.0.0.1', releases: 2, images: 1, most: 2 },
      { client: expect.stringMatching(/^[0-9a-f]{12}$/), releases: 2, images: 1, most: 2 },
    ]);
    await http.close(500);
    await grpc.close(500);
    await fresh.close();
  });

  it('takes any name, and says how many requests may be under way', async () => {
    const named = await createGateway({ bundle, session, upstream, name: 'a "quoted" name' });
    expect(named.server.modelReady('a "quoted" name')).toBe(true);
    await named.close();
    await expect(createGateway({ bundle, session, upstream, concurrency: 65 })).rejects.toThrow(
      'concurrency is 65, expected an integer from 1 to 64',
    );
  });

  it('speaks gRPC too', async () => {
    const listener = await listenGrpc({ server: gateway.server, port: 0 });
    const grpc = createGrpcClient({ url: listener.address });
    const { outputs } = await grpc.infer({
      modelName: 'face_detection',
      inputs: [{ name: 'image', tensor: pictureOf(0.4) }],
    });
    expect(outputs.map(({ name }) => name)).toEqual(['loc', 'conf']);
    const [first] = (outputs[0] as { tensor: Tensor<'float32'> }).tensor.data;
    expect(Math.abs((first as number) - 0.8)).toBeLessThan(0.02);
    await grpc.close();
    await listener.close(500);
  });

  it('keeps a ledger by subject, raises alpha when nats run out, and refuses what it does not allow', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'scrim-gateway-'));
    const ledger = await openLedger({ file: join(folder, 'releases.db') });
    const careful = await makeBundle({ alpha: 0.9, sigma: 0.2 });
    const raised = await createConfidentialSession({ bundle: careful, client: upstream, engine, crypto });
    const guarded = await createGateway({
      bundle,
      session,
      upstream,
      resize: { kind: 'stretch', width: SIDE, height: SIDE },
      ledger: { ledger, subjectHeader: 'X-Subject', raiseTo: [{ bundle: careful, session: raised }] },
    });
    const ask = async (subject: string | undefined, parameters?: Record<string, string>): Promise<number> => {
      const asking = createTritonClient({
        url: 'http://gateway.test',
        retry: { retries: 0 },
        fetch: (request) => {
          const headers = new Headers(request.headers);
          if (subject !== undefined) headers.set('x-subject', subject);
          return guarded.handle(new Request(request, { headers }));
        },
      });
      const { outputs } = await asking.infer({
        modelName: 'face_detection',
        inputs: [{ name: 'image', tensor: pictureOf(0.25) }],
        outputs: [{ name: 'loc' }],
        ...(parameters ? { parameters } : {}),
      });
      expect(outputs.map(({ name }) => name)).toEqual(['loc']);
      const [first] = outputs.map(({ tensor }) => (tensor.data as Float32Array)[0] as number);
      return first as number;
    };
    const positions = (SIDE / 8) ** 2;
    const [plain, less] = [releaseNats(bundle, positions), releaseNats(careful, positions)];
    expect(less).toBeLessThan(plain);
    ledger.setPolicy({ maxNats: plain + 1.5 * less });
    for (let call = 0; call < 2; call++) expect(Math.abs((await ask('ann')) - 0.5)).toBeLessThan(0.1);
    expect(ledger.report('ann')).toMatchObject([{ releases: 2, nats: expect.closeTo(plain + less, 6) }]);
    sentUpstream = Buffer.alloc(0);
    await expect(ask('ann')).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: expect.stringMatching(/budget of .* nothing was sent/),
    });
    await expect(ask(undefined)).rejects.toThrow(/no header or parameter 'X-Subject'/);
    expect(sentUpstream).toHaveLength(0);
    await ask(undefined, { 'x-subject': 'bob' });
    expect(ledger.report('bob')).toHaveLength(1);
    await guarded.close();
    await raised.close();
    ledger.close();
    await rm(folder, { recursive: true });
  });

  it('is not ready and says UNAVAILABLE while the remote server is away', async () => {
    const impatient = createTritonClient({
      url: 'http://gateway.test',
      retry: { retries: 0 },
      fetch: (request) => gateway.handle(request),
    });
    remoteIsUp = false;
    const call = impatient.infer({ modelName: 'face_detection', inputs: [{ name: 'image', tensor: pictureOf(0) }] });
    await expect(call).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect.poll(() => impatient.serverReady(), { timeout: 4000 }).toBe(false);
    remoteIsUp = true;
    await expect.poll(() => impatient.serverReady(), { timeout: 4000 }).toBe(true);
  });
});

describe('a session opened in one call', () => {
  it('speaks to the server at once, over either protocol, and closes what it made', async () => {
    const answer = remote.answer.bind(remote);
    const http = await listenHttp({ answer, port: 0 });
    const grpc = await listenGrpc({ server: remote, port: 0 });
    for (const url of [http.url, `grpc://${grpc.address}`]) {
      const opened = await openConfidentialSession({ bundle, url, threads: 1 });
      const { outputs, sentBytes } = await opened.infer(pictureOf(0.3));
      const { data } = outputs.loc as Tensor<'float32'>;
      expect(Math.abs((data[0] as number) - 0.6)).toBeLessThan(0.02);
      expect(sentBytes).toBeGreaterThan(3 * (SIDE / 8) ** 2 * 2);
      // The tail of this test is no detector's: the photo is read and sent, its answer can't be decoded.
      const png = await encodePng(createImage(64, 64, [10, 20, 30]));
      const resize = { kind: 'stretch', width: SIDE, height: SIDE } as const;
      await expect(opened.detect(png, { resize })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      await opened.close();
    }
    // With a client of one's own, which stays open.
    const own = createNodeClient({ url: http.url });
    const opened = await openConfidentialSession({ bundle, client: own, threads: 1 });
    expect(Object.keys((await opened.infer(pictureOf(0.3))).outputs)).toEqual(['loc', 'conf']);
    await opened.close();
    expect(await own.serverReady()).toBe(true);
    await own.close();
    const both = openConfidentialSession({ bundle, client: own, url: http.url } as never);
    await expect(both).rejects.toThrow('url and client are both given, expected one of them');
    await expect(openConfidentialSession({ bundle } as never)).rejects.toThrow('neither url nor client is given');
    await http.close(500);
    await grpc.close(500);
    const nowhere = openConfidentialSession({ bundle, url: 'http://127.0.0.1:9', timeoutMs: 500 });
    await expect(nowhere).rejects.toMatchObject({ code: expect.stringMatching(/UNAVAILABLE|DEADLINE_EXCEEDED/) });
  });
});
