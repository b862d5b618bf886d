import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testManifest } from '../../../../test/manifest.js';
import { type Bundle, encodeBundle, loadBundle } from '../bundle/bundle.js';
import { PAYLOAD_FORMATS, type PayloadFormat } from '../bundle/payload-format.js';
import { exportRepository } from '../bundle/remote-repository.js';
import type { Engine } from '../engine/engine.js';
import { ScrimError } from '../errors.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { createDiagonalTransform, type DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { createNoiser, createReplayNoiser, type Release } from '../noise/release.js';
import { releaseToTensor } from '../noise/release-reader.js';
import { Graph } from '../onnx/index.js';
import { createInferenceServer, type InferenceServer, MemoryRepository } from '../server/index.js';
import { float32, type Tensor } from '../tensor.js';
import { type ConfidentialSession, createConfidentialSession } from './confidential-session.js';
import { createEscalatingSession } from './escalating-session.js';
import { createTritonClient } from './http-client.js';
import { createLocalTail } from './local-tail.js';
import { type ReleaseCharge, type ReleaseLedger, releaseNats } from './release-ledger.js';

const crypto = createNodeCrypto();
const CHANNELS = 8;
const SIZE = 32;
const random = createFitRandom('confidential session');
let engine: Engine;
let bundle: Bundle;
let server: InferenceServer;
/** Every byte that was sent: paths, headers and bodies. */
let sent: Buffer[] = [];

/** A strided convolution as head, a weighted sum as tail; two channels suppressed. */
async function makeBundle(noise = 1): Promise<Bundle> {
  const head = Graph.create();
  head.addInput('image', 'float32', ['N', 3, 'H', 'W']);
  const kernel = Float32Array.from({ length: CHANNELS * 3 * 4 }, () => 2 * random.uniform() - 1);
  const weights = head.addInitializer('weights', float32([CHANNELS, 3, 2, 2], kernel));
  const conv = head.add('Conv', ['image', weights], { kernel_shape: [2, 2], strides: [2, 2] });
  head.add('Relu', [conv], {}, { outputs: ['cut'] });
  head.addOutput('cut', 'float32', ['N', CHANNELS, 'H2', 'W2']);
  const tail = Graph.create();
  tail.addInput('cut', 'float32', ['N', CHANNELS, 'H2', 'W2']);
  tail.add('Mul', ['cut', tail.addInitializer('two', float32([1], [2]))], {}, { outputs: ['loc'] });
  tail.add('Sigmoid', ['loc'], {}, { outputs: ['conf'] });
  tail.addOutput('loc', 'float32', ['N', CHANNELS, 'H2', 'W2']);
  tail.addOutput('conf', 'float32', ['N', CHANNELS, 'H2', 'W2']);
  const draw = (low: number, high: number): Float32Array =>
    Float32Array.from({ length: CHANNELS }, () => low + (high - low) * random.uniform());
  const gain = draw(0.8, 1.2);
  gain[2] = 0;
  gain[7] = 0;
  const parameters: DiagonalParameters = {
    kind: 'per-channel',
    shape: [CHANNELS],
    gain,
    mean: draw(0.1, 0.4),
    sigma: draw(0.2 * noise, 0.4 * noise),
    clipLow: new Float32Array(CHANNELS),
    clipHigh: draw(3, 5),
    variance: draw(0.5, 1),
  };
  const files = await encodeBundle(
    {
      head,
      tail,
      parameters,
      manifest: testManifest({
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', CHANNELS, 'H2', 'W2'] }] },
        task: { kind: 'detection', scores: 'conf', boxes: 'loc' },
      }),
    },
    crypto,
  );
  return loadBundle(async (path) => files.get(path) as Uint8Array, crypto);
}

const recorded = async (request: Request): Promise<Response> => {
  const body = Buffer.from(await request.arrayBuffer());
  sent.push(Buffer.from(request.url), Buffer.from(JSON.stringify([...request.headers])), body);
  return server.handle(
    new Request(request.url, {
      method: request.method,
      headers: request.headers,
      ...(request.method === 'POST' ? { body } : {}),
    }),
  );
};

const client = createTritonClient({ url: 'http://triton.test:8000', fetch: recorded });

function picture(): Tensor<'float32'> {
  return float32(
    [1, 3, SIZE, SIZE],
    Float32Array.from({ length: 3 * SIZE * SIZE }, () => 2 * random.uniform() - 1),
  );
}

beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1 });
  bundle = await makeBundle();
  const models: Record<string, Record<string, Uint8Array>> = {};
  for (const [path, bytes] of await exportRepository(bundle)) {
    const slash = path.indexOf('/');
    const name = path.slice(0, slash);
    models[name] ??= {};
    (models[name] as Record<string, Uint8Array>)[path.slice(slash + 1)] = bytes;
  }
  server = createInferenceServer({
    repository: new MemoryRepository(models),
    engineFactory: () => createNodeEngine({ threads: 1 }),
  });
  await server.start();
});

afterAll(async () => {
  await server.close();
  await engine.close();
});

describe('a confidential session', () => {
  it.each(PAYLOAD_FORMATS)('gets the answer of the local tail on the same release, payload %s', async (payload) => {
    const session = await createConfidentialSession({ bundle, client, engine, crypto, payload });
    const tail = await createLocalTail({ bundle, engine });
    const release = await session.trusted.release(picture());
    const answer = await session.send(release);
    const expected = await tail.run(release);
    expect(Object.keys(answer.outputs)).toEqual(['loc', 'conf']);
    const tolerance: Record<PayloadFormat, number> = { fp32: 0, fp16: 0.01, int16: 0, uint8: 0.03 };
    for (const [name, tensor] of Object.entries(answer.outputs)) {
      const [found, wanted] = [tensor.data as Float32Array, expected[name]?.data as Float32Array];
      expect(found.length).toBe(wanted.length);
      const worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - (wanted[i] as number))), 0);
      expect(worst).toBeLessThanOrEqual(tolerance[payload]);
    }
    const values = (SIZE / 2) ** 2 * (payload === 'fp32' ? CHANNELS : CHANNELS - 2);
    const tensorBytes = values * { fp32: 4, fp16: 2, int16: 2, uint8: 1 }[payload];
    expect(answer.sentBytes).toBeGreaterThan(tensorBytes);
    expect(answer.sentBytes).toBeLessThan(tensorBytes + 400);
    await tail.close();
    await session.close();
  });

  it('has a local tail whose memory no two releases share, and which changes none', async () => {
    const session = await createConfidentialSession({ bundle, client, engine, crypto });
    const inline = await createNodeEngine({ threads: 1, thread: 'inline' });
    const [tail, other] = [
      await createLocalTail({ bundle, engine }),
      await createLocalTail({ bundle, engine: inline }),
    ];
    const releases: Release[] = [];
    for (let i = 0; i < 6; i++) releases.push(await session.trusted.release(picture()));
    const payloads = releases.map(({ payload }) => payload.slice());
    const expected: Awaited<ReturnType<typeof tail.run>>[] = [];
    for (const release of releases) expected.push(await other.run(release));
    expect(await Promise.all(releases.map((release) => tail.run(release)))).toEqual(expected);
    const bytes = 4 * CHANNELS * (SIZE / 2) ** 2;
    for (const size of [bytes, bytes + 4]) {
      const given = releases.map((release) => tail.run(release, { memory: new ArrayBuffer(size) }));
      expect(await Promise.all(given)).toEqual(expected);
    }
    expect(releases.map(({ payload }) => payload)).toEqual(payloads);
    await Promise.all([tail.close(), other.close(), session.close()]);
    await inline.close();
  });

  it.each(PAYLOAD_FORMATS)('sends nothing of the input or the clean activation, payload %s', async (payload) => {
    sent = [];
    const session = await createConfidentialSession({ bundle, client, engine, crypto, payload });
    const input = picture();
    const pixels = Uint8Array.from(input.data, (value) => (value + 1) * 127.5);
    await session.infer(input, { canonicalInput: pixels });
    const head = await engine.load(await bundle.read('trusted/head.onnx'));
    const clean = (await head.run({ image: input })).cut?.data as Float32Array;
    await head.close();
    const halves = await asFloat16(clean);
    const { steps, sentChannels } = createDiagonalTransform(bundle.parameters);
    const plane = clean.length / CHANNELS;
    const stepOf = (c: number): number => steps[sentChannels?.indexOf(c) ?? c] ?? (steps[0] as number);
    const grid = Int16Array.from(clean, (value, i) => value / stepOf(Math.floor(i / plane)));
    const wire = Buffer.concat(sent);
    expect(wire.length).toBeGreaterThan(payload === 'uint8' ? 1000 : 2000);
    for (const secret of [pixels, input.data, clean, halves, grid]) {
      expect(sharedRun(wire, Buffer.from(secret.buffer, secret.byteOffset, secret.byteLength))).toBeUndefined();
    }
    // The search finds what is there: the release itself, as it travels in fp32.
    if (payload === 'fp32') {
      sent = [];
      const release = await session.trusted.release(input);
      await session.send(release);
      const values = releaseToTensor(release, bundle.parameters).data;
      expect(sharedRun(Buffer.concat(sent), Buffer.from(values.buffer, 0, values.byteLength))).toBeDefined();
    }
    await session.close();
  });

  it('leaves suppressed channels out of compact payloads and sends a constant in their place as fp32', async () => {
    for (const payload of PAYLOAD_FORMATS) {
      sent = [];
      const session = await createConfidentialSession({ bundle, client, engine, crypto, payload });
      const release = await session.trusted.release(picture());
      expect(release.sentChannels).toEqual(Int32Array.of(0, 1, 3, 4, 5, 6));
      await session.send(release);
      const header = Buffer.concat(sent).toString('latin1');
      const channels = payload === 'fp32' ? CHANNELS : CHANNELS - 2;
      expect(header).toContain(`"shape":[1,${channels},${SIZE / 2},${SIZE / 2}]`);
      await session.close();
    }
    const { mean } = bundle.parameters;
    const session = await createConfidentialSession({ bundle, client, engine, crypto, payload: 'fp32' });
    const values = releaseToTensor(await session.trusted.release(picture()), bundle.parameters).data;
    const plane = (SIZE / 2) ** 2;
    for (const c of [2, 7]) {
      expect(values.subarray(c * plane, (c + 1) * plane).every((value) => value === mean[c])).toBe(true);
    }
    await session.close();
  });

  it('refuses whatever is no release of its bundle, before anything is sent', async () => {
    const session = await createConfidentialSession({ bundle, client, engine, crypto });
    const release = await session.trusted.release(picture());
    const transform = createDiagonalTransform(bundle.parameters);
    const activation = float32([1, CHANNELS, 4, 4], new Float32Array(CHANNELS * 16));
    const common = { transform, alpha: 0.8, crypto };
    const other = await createNoiser({ ...common, bundleHash: 'b'.repeat(64), mode: 'fresh' }).release(activation);
    const replay = await createReplayNoiser({
      ...common,
      bundleHash: bundle.hash,
      seedKey: new Uint8Array(32),
    }).release(activation);
    const forged = { ...release } as unknown as Release;
    const inherited = Object.create(release) as Release;
    sent = [];
    for (const wrong of [forged, inherited, other, replay, activation as unknown as Release]) {
      await expect(session.send(wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    for (const wrong of [forged, null, 'image', { picture: picture() }, { ...picture(), dtype: 'uint8' }]) {
      await expect(session.infer(wrong as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(sent).toEqual([]);
    await session.close();
  });

  it('sends no release to a remote model that does not fit the bundle', async () => {
    for (const [payload, model] of [
      ['fp16', 'face_detection_noisy'],
      ['fp32', 'face_detection_noisy_fp16'],
      ['uint8', 'face_detection_noisy_int16'],
    ] as const) {
      const session = await createConfidentialSession({ bundle, client, engine, crypto, payload, model });
      sent = [];
      await expect(session.infer(picture())).rejects.toMatchObject({ code: 'INVALID_BUNDLE' });
      expect(Buffer.concat(sent).length).toBeLessThan(500);
      await session.close();
    }
    const session = await createConfidentialSession({ bundle, client, engine, crypto, model: 'missing' });
    await expect(session.infer(picture())).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringMatching(/no model 'missing'.*'scrim repo export'.*'fp32' fits 'face_detection_noisy'/),
    });
    await session.close();
  });

  it('sends JSON to a server that lists no binary extension, and says which payloads have that form', async () => {
    // Such as MLServer: no binary tensors over HTTP.
    const plain = createTritonClient({
      url: 'http://plain.test',
      fetch: async (request) => {
        if (new URL(request.url).pathname === '/v2') return Response.json({ name: 's', version: '1', extensions: [] });
        expect(request.headers.get('inference-header-content-length')).toBe(null);
        return recorded(request);
      },
    });
    for (const payload of ['fp32', 'int16', 'uint8'] as const) {
      const session = await createConfidentialSession({ bundle, client: plain, engine, crypto, payload });
      const release = await session.trusted.release(picture());
      const { outputs } = await session.send(release);
      const binary = await createConfidentialSession({ bundle, client, engine, crypto, payload });
      expect(outputs).toEqual((await binary.send(release)).outputs);
      await session.close();
      await binary.close();
    }
    const half = await createConfidentialSession({ bundle, client: plain, engine, crypto });
    sent = [];
    await expect(half.infer(picture())).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('choose fp32, int16 or uint8'),
    });
    expect(Buffer.concat(sent).length).toBeLessThan(500);
    await half.close();
  });

  it('gives the same bytes for the same input with repeatable noise, and others without', async () => {
    const input = picture();
    const digest = async (noise?: { mode: 'repeatable'; secret: Uint8Array }): Promise<string[]> => {
      const session = await createConfidentialSession({ bundle, client, engine, crypto, ...(noise ? { noise } : {}) });
      await session.check();
      const digests: string[] = [];
      for (let i = 0; i < 2; i++) {
        sent = [];
        await session.infer(input);
        digests.push(createHash('sha256').update(Buffer.concat(sent)).digest('hex'));
      }
      await session.close();
      return digests;
    };
    expect(new Set(await digest({ mode: 'repeatable', secret: new Uint8Array(32).fill(7) })).size).toBe(1);
    expect(new Set(await digest()).size).toBe(2);
  });
});

describe('a session with a ledger', () => {
  /** Allows `most` nats for each subject. */
  function createLedger(most: number): ReleaseLedger & { readonly charges: ReleaseCharge[] } {
    const charges: ReleaseCharge[] = [];
    return {
      charges,
      charge: (wanted) => {
        for (const one of wanted) {
          const spent = charges
            .filter(({ subject }) => subject === one.subject)
            .reduce((sum, { nats }) => sum + nats, 0);
          if (spent + one.nats > most) {
            throw new ScrimError('RESOURCE_EXHAUSTED', 'the budget is spent', { details: { limit: 'nats' } });
          }
          charges.push(one);
        }
      },
    };
  }

  it('charges each release before it sends it, and sends nothing that is refused or has no subject', async () => {
    const nats = releaseNats(bundle, (SIZE / 2) ** 2);
    const ledger = createLedger(1.5 * nats);
    const session = await createConfidentialSession({ bundle, client, engine, crypto, ledger });
    await session.check();
    const answer = await session.infer(picture(), { subject: 'the subject ann' });
    const charge = { nats: expect.closeTo(nats, 9), bundleHash: bundle.hash, alpha: 0.8, keyId: answer.keyId };
    expect(ledger.charges).toEqual([{ subject: 'the subject ann', ...charge }]);
    expect(Buffer.concat(sent).includes('the subject ann')).toBe(false);
    sent = [];
    const again = session.infer(picture(), { subject: 'the subject ann' });
    await expect(again).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    await expect(session.infer(picture())).rejects.toThrow(/without a subject/);
    await expect(session.send(await session.trusted.release(picture()))).rejects.toThrow(/without a subject/);
    expect(sent).toEqual([]);
    await session.infer(picture(), { subject: 'bob' });
    await session.close();
  });

  it('goes on with the next bundle when nats run out', async () => {
    const careful = await makeBundle(10);
    const [plain, less] = [bundle, careful].map((of) => releaseNats(of, (SIZE / 2) ** 2)) as [number, number];
    expect(less).toBeLessThan(plain / 10);
    const ledger = createLedger(plain + 1.5 * less);
    const sessions: ConfidentialSession[] = [];
    // One remote model serves both: the plain tail knows nothing of the noise, and fp32 leaves no channel out.
    for (const of of [bundle, careful]) {
      sessions.push(await createConfidentialSession({ bundle: of, client, engine, crypto, ledger, payload: 'fp32' }));
    }
    const session = createEscalatingSession(sessions);
    await session.check();
    for (let call = 0; call < 2; call++) await session.infer(picture(), { subject: 'ann' });
    expect(ledger.charges.map(({ bundleHash }) => bundleHash)).toEqual([bundle.hash, careful.hash]);
    await expect(session.infer(picture(), { subject: 'ann' })).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    const release = await (sessions[1] as ConfidentialSession).trusted.release(picture());
    await session.send(release, { subject: 'bob' });
    expect(ledger.charges.at(-1)).toMatchObject({ subject: 'bob', bundleHash: careful.hash });
    await session.close();
    expect(() => createEscalatingSession([])).toThrow(/at least one/);
  });
});

/** Place of the first 32 bytes of `secret` (at any offset) that `wire` holds; planes of one value alone are no secret. */
function sharedRun(wire: Buffer, secret: Buffer): number | undefined {
  const RUN = 32;
  const seen = new Set<string>();
  for (let at = 0; at + RUN <= wire.length; at++) seen.add(wire.toString('latin1', at, at + RUN));
  for (let at = 0; at + RUN <= secret.length; at += 1) {
    const run = secret.toString('latin1', at, at + RUN);
    if (new Set(run).size > 4 && seen.has(run)) return at;
  }
  return undefined;
}

async function asFloat16(values: Float32Array): Promise<Uint16Array> {
  const graph = Graph.create();
  graph.addInput('x', 'float32', ['n']);
  graph.add('Cast', ['x'], { to: 10 }, { outputs: ['y'] });
  graph.addOutput('y', 'float16', ['n']);
  const session = await engine.load(graph.encode());
  const { y } = await session.run({ x: float32([values.length], values) });
  await session.close();
  return y?.data as Uint16Array;
}
