import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { createDiagonalTransform, type DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { createNoiser, createReplayNoiser, type Release } from '../noise/release.js';
import { releaseToTensor } from '../noise/release-reader.js';
import { Graph } from '../onnx/index.js';
import { float32, type Tensor } from '../tensor.js';
import { createPayloadPlan, encodePayload, PAYLOAD_FORMATS, payloadBytes } from './payload-format.js';
import { remoteModel, tritonConfig } from './remote-model.js';
import { remoteName, remoteVariant } from './remote-variants.js';

const CHANNELS = 6;
const SIZE = 4;
const crypto = createNodeCrypto();
const random = createFitRandom('remote variants');

function parametersOf(kind: 'per-channel' | 'per-element', suppressed: readonly number[]): DiagonalParameters {
  const plane = kind === 'per-channel' ? 1 : SIZE * SIZE;
  const draw = (low: number, high: number): Float32Array =>
    Float32Array.from({ length: CHANNELS * plane }, () => low + (high - low) * random.uniform());
  const gain = draw(0.5, 1.5);
  for (const c of suppressed) gain.fill(0, c * plane, (c + 1) * plane);
  const perChannel = (low: number, high: number): Float32Array =>
    Float32Array.from({ length: CHANNELS }, () => low + (high - low) * random.uniform());
  return {
    kind,
    shape: kind === 'per-channel' ? [CHANNELS] : [CHANNELS, SIZE, SIZE],
    gain,
    mean: draw(0.1, 0.9),
    sigma: draw(0.11, 0.37),
    clipLow: perChannel(-1.5, -0.5),
    clipHigh: perChannel(5.1, 9.7),
    variance: perChannel(0.5, 2),
  };
}

function tail(): Graph {
  const graph = Graph.create();
  graph.addInput('cut', 'float32', ['N', CHANNELS, 'H', 'W']);
  const weights = Float32Array.from({ length: CHANNELS }, (_, i) => 0.3 + i);
  graph.add(
    'Mul',
    ['cut', graph.addInitializer('weights', float32([1, CHANNELS, 1, 1], weights))],
    {},
    { outputs: ['loc'] },
  );
  graph.addOutput('loc', 'float32', ['N', CHANNELS, 'H', 'W']);
  return graph;
}

async function releaseOf(parameters: DiagonalParameters): Promise<Release> {
  const transform = createDiagonalTransform(parameters);
  const noiser = createNoiser({ transform, bundleHash: 'a'.repeat(64), alpha: 0.5, crypto, mode: 'fresh' });
  const data = Float32Array.from({ length: CHANNELS * SIZE * SIZE }, () => 8 * random.uniform() - 1);
  return noiser.release(float32([1, CHANNELS, SIZE, SIZE], data));
}

describe('payload forms and the remote models that take them', () => {
  it('give the same activation as the document’s form, on what the form keeps', async () => {
    const engine = await createNodeEngine({ threads: 1 });
    for (const kind of ['per-channel', 'per-element'] as const) {
      for (const suppressed of [[], [0, 3], [5]]) {
        const parameters = parametersOf(kind, suppressed);
        const plan = createPayloadPlan(parameters);
        const release = await releaseOf(parameters);
        const model = remoteModel(tail());
        const outputs: Tensor[] = [];
        for (const format of PAYLOAD_FORMATS) {
          const payload = encodePayload(release, format, plan, parameters);
          expect((payload.data as Uint8Array).byteLength).toBe(payloadBytes(plan, format, SIZE * SIZE));
          const variant = remoteVariant(model, parameters, format);
          const session = await engine.load(Graph.decode(variant.graph.encode()).encode());
          expect(session.inputs.map(({ name }) => name)).toEqual(['INPUT__0']);
          outputs.push((await session.run({ INPUT__0: payload })).OUTPUT__0 as Tensor);
          await session.close();
        }
        const [plain, half, grid, coarse] = outputs.map(({ data }) => data as Float32Array);
        const values = releaseToTensor(release, parameters).data;
        expect(grid).toEqual(plain);
        for (let i = 0; i < values.length; i++) {
          const c = Math.floor(i / (SIZE * SIZE));
          const weight = Math.fround(0.3 + c);
          const at = plan.sentChannels.indexOf(c);
          const halfStep = at < 0 ? 0 : (plan.scales[at] as number) / 2;
          expect(Math.abs((half?.[i] ?? Number.NaN) - (plain?.[i] ?? 0))).toBeLessThanOrEqual(weight * 0.005);
          expect(Math.abs((coarse?.[i] ?? Number.NaN) - (plain?.[i] ?? 0))).toBeLessThanOrEqual(
            weight * halfStep * 1.0001,
          );
        }
      }
    }
    await engine.close();
  });

  it('refuse anything but a release, and releases made for replay', async () => {
    const parameters = parametersOf('per-channel', [2]);
    const plan = createPayloadPlan(parameters);
    const release = await releaseOf(parameters);
    const forged = { ...release, payload: release.payload } as unknown as Release;
    const prototyped = Object.assign(Object.create(Object.getPrototypeOf(release) as object), {
      ...release,
    }) as Release;
    const transform = createDiagonalTransform(parameters);
    const replay = await createReplayNoiser({
      transform,
      bundleHash: 'a'.repeat(64),
      alpha: 0.5,
      crypto,
      seedKey: new Uint8Array(32),
    }).release(float32([1, CHANNELS, SIZE, SIZE], new Float32Array(CHANNELS * SIZE * SIZE)));
    for (const format of PAYLOAD_FORMATS) {
      for (const wrong of [forged, prototyped, replay]) {
        expect(() => encodePayload(wrong, format, plan, parameters)).toThrowError(
          expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
        );
      }
    }
  });

  it('keep gain, sigma, μ of sent channels, variance and clip bounds out of the variants', () => {
    const parameters = parametersOf('per-channel', [1, 4]);
    const { gain, sigma, variance, clipLow, clipHigh, mean } = parameters;
    const sentMeans = mean.filter((_, c) => c !== 1 && c !== 4);
    const secrets = [gain.filter((m) => m > 0), sigma, variance, clipLow, clipHigh, sentMeans].flatMap((array) =>
      Array.from(array, (_, i) => array.subarray(i, i + 1)),
    );
    const holds = (bytes: Uint8Array, value: Float32Array): boolean =>
      Buffer.from(bytes).includes(Buffer.from(value.buffer, value.byteOffset, 4));
    for (const format of PAYLOAD_FORMATS) {
      const bytes = remoteVariant(remoteModel(tail()), parameters, format).graph.encode();
      expect(secrets.some((value) => holds(bytes, value))).toBe(false);
      // What the page says is told, is: μ of the suppressed channels.
      expect(holds(bytes, mean.subarray(1, 2))).toBe(format !== 'fp32');
    }
  });

  it('say in config.pbtxt what they take', () => {
    const parameters = parametersOf('per-channel', [1, 4]);
    const model = remoteModel(tail());
    const types = { fp32: 'TYPE_FP32', fp16: 'TYPE_FP16', int16: 'TYPE_INT16', uint8: 'TYPE_UINT8' } as const;
    for (const format of PAYLOAD_FORMATS) {
      const config = tritonConfig(remoteName('noisy', format), remoteVariant(model, parameters, format));
      expect(config).toContain(`data_type: ${types[format]}\n    dims: [ ${format === 'fp32' ? 6 : 4}, -1, -1 ]`);
    }
    expect(PAYLOAD_FORMATS.map((format) => remoteName('noisy', format))).toEqual([
      'noisy',
      'noisy_fp16',
      'noisy_int16',
      'noisy_uint8',
    ]);
  });
});
