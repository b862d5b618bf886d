import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bundle, encodeBundle, loadBundle } from '../bundle/bundle.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { Graph } from '../onnx/graph.js';
import { float32, type Tensor } from '../tensor.js';
import { type Certificate, type CertifyOptions, certifyBundle } from './certificate.js';

const [channels, patch, side, sigma] = [4, 4, 16, 0.5];
const positions = (side / patch) ** 2;

let engine: Engine;
let bundle: Bundle;
beforeAll(async () => {
  engine = await createNodeEngine({ thread: 'inline', threads: 1 });
  bundle = await makeBundle('per-channel');
});
afterAll(() => engine.close());

/** The head takes the mean of each patch of one colour, times 1, 2, 3 and 4: a linear map with orthogonal rows per colour. */
async function makeBundle(kind: 'per-channel' | 'per-element'): Promise<Bundle> {
  const weights = new Float32Array(channels * 3 * patch * patch);
  for (let c = 0; c < channels; c++) {
    weights.fill(weightOf(c), (c * 3 + (c % 3)) * patch * patch, (c * 3 + (c % 3) + 1) * patch * patch);
  }
  const head = Graph.create();
  head.addInput('image', 'float32', ['N', 3, 'H', 'W']);
  const kernel = head.addInitializer('w', float32([channels, 3, patch, patch], weights));
  head.addMany('Conv', ['image', kernel], { strides: [patch, patch] }, { outputs: ['cut'] });
  head.addOutput('cut', 'float32', ['N', channels, '', '']);
  const tail = Graph.create();
  tail.addInput('cut', 'float32', ['N', channels, 'h', 'w']);
  tail.add('Sigmoid', ['cut'], {}, { outputs: ['answer'] });
  tail.addOutput('answer', 'float32', ['N', channels, 'h', 'w']);
  const each = kind === 'per-channel' ? 1 : positions;
  const fill = (length: number, value: number): Float32Array => new Float32Array(length).fill(value);
  const gain = fill(channels * each, 1);
  gain.fill(0, 3 * each);
  const crypto = createNodeCrypto();
  const files = await encodeBundle(
    {
      head,
      tail,
      parameters: {
        kind,
        shape: kind === 'per-channel' ? [channels] : [channels, side / patch, side / patch],
        gain,
        mean: fill(channels * each, 0),
        sigma: fill(channels * each, sigma),
        clipLow: fill(channels, -4),
        clipHigh: fill(channels, 4),
        variance: fill(channels, 1),
      },
      manifest: {
        createdAt: '2026-01-01T00:00:00.000Z',
        createdBy: 'test',
        alpha: 0.5,
        model: { name: 'means', source: 'test', sha256: 'a'.repeat(64), input: 'image' },
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', channels, '', ''] }] },
        task: { kind: 'classification', output: 'answer' },
        fit: {
          steps: 1,
          batchSize: 1,
          learningRate: 0.1,
          canvases: 1,
          photos: 1,
          photoFolders: ['x'],
          seed: 's',
          finalTask: 1,
        },
        results: [],
      },
    },
    crypto,
  );
  const read = async (path: string): Promise<Uint8Array> => {
    const bytes = files.get(path);
    if (!bytes) throw new Error(`no file ${path}`);
    return bytes;
  };
  return loadBundle(read, crypto);
}

/** With it channel c has variance weightOf(c)²·patch² for inputs of variance 1. */
function weightOf(c: number): number {
  return ((c + 1) * 0.25) / patch;
}

async function* inputs(count: number): AsyncGenerator<Tensor> {
  const random = createFitRandom('inputs');
  for (let k = 0; k < count; k++) {
    const data = new Float32Array(3 * side * side);
    random.normal(data);
    yield float32([1, 3, side, side], data);
  }
}

function certifyWith(options: Partial<CertifyOptions> = {}, count = 400): Promise<Certificate> {
  return certifyBundle({
    bundle,
    engine,
    inputs: inputs(count),
    count,
    data: 'normal numbers',
    releases: 3,
    smoothing: 1,
    ...options,
  });
}

/** Capacity of independent Gaussian inputs, which these are: exact. */
function capacity(releases: number): number {
  let nats = 0;
  for (let c = 0; c < 3; c++) {
    nats += positions * 0.5 * Math.log1p((releases * weightOf(c) ** 2 * patch ** 2) / sigma ** 2);
  }
  return nats;
}

describe('certifyBundle', () => {
  it('finds the capacity of a linear head and limits above it, for one release and for n', async () => {
    const certificate = await certifyWith();
    for (const releases of [1, 3]) {
      const [estimate, limit, worst] = certificate.information.filter((line) => line.releases === releases);
      expect((estimate?.figure.value as number) / capacity(releases)).toBeCloseTo(1, 1);
      expect(limit?.figure.value).toBeGreaterThan(capacity(releases));
      expect(worst?.figure.value).toBeGreaterThan(limit?.figure.value as number);
      expect([estimate, limit, worst].map((line) => line?.figure.kind)).toEqual(['measured', 'proven', 'proven']);
    }
    expect(certificate.releaseShape).toEqual([1, 3, 4, 4]);
    expect(certificate.inputShape).toEqual([1, 3, 16, 16]);
  });

  it('finds the Fisher information of a linear head and the limits that follow', async () => {
    const certificate = await certifyWith({ probeInputs: 60, region: { x: 4, y: 4, width: 4, height: 4 } }, 60);
    // ‖Σ^(−½)A‖² over d values: each of three channels sees patch² values of its colour.
    const trace = [0, 1, 2].reduce((sum, c) => sum + positions * patch ** 2 * (weightOf(c) / sigma) ** 2, 0);
    const perValue = trace / (3 * side * side);
    for (const part of ['whole', 'region'] as const) {
      const lines = certificate.reconstruction.filter((line) => line.part === part);
      const [fisher, smoothed, unbiased, smoothed3] = lines.map(({ figure }) => figure.value) as number[];
      expect((fisher as number) / perValue).toBeCloseTo(1, 1);
      expect(smoothed).toBeLessThan(1.0001 / (perValue + 1));
      expect(smoothed).toBeGreaterThan(0.8 / (perValue + 1));
      expect(unbiased).toBeLessThan(1.05 / perValue);
      expect(smoothed3).toBeLessThan(smoothed as number);
      expect(lines.map(({ figure }) => figure.kind)).toEqual(['measured', ...new Array(4).fill('proven')]);
    }
  });

  it('tells vacuous odds apart from others, and gives every proven figure its assumptions', async () => {
    const certificate = await certifyWith({ priors: [0.5, 1e-60] });
    expect(certificate.odds.map(({ prior, vacuous, releases }) => [prior, vacuous, releases])).toEqual([
      [0.5, true, 1],
      [0.5, true, 3],
      [1e-60, false, 1],
      [1e-60, false, 3],
    ]);
    for (const { figure } of [...certificate.information, ...certificate.odds, ...certificate.reconstruction]) {
      if (figure.kind === 'proven') expect(figure.assumptions.length).toBeGreaterThan(1);
      else expect(figure.sampleSize).toBeGreaterThan(1);
    }
  });

  it('gives the same figures for a transform per element with the same noise, but for the wider union', async () => {
    const perElement = await certifyWith({ bundle: await makeBundle('per-element'), probeInputs: 0 });
    const perChannel = await certifyWith({ probeInputs: 0 });
    const [first, second] = [perElement, perChannel].map(({ information }) => information.map(({ figure }) => figure));
    // Concavity: the mean of the logarithms over positions is below the logarithm of the mean.
    expect(first?.[0]?.value).toBeLessThan(second?.[0]?.value as number);
    expect((first?.[0]?.value as number) / (second?.[0]?.value as number)).toBeGreaterThan(0.99);
    expect(first?.[2]?.value).toBeCloseTo(second?.[2]?.value as number, 6);
    expect(perElement.reconstruction).toEqual([]);
  });

  it('measures errors in the unit it is given', async () => {
    const unit = { name: 'levels of 255', perInput: 127.5, peak: 255 };
    const certificate = await certifyWith({ unit, smoothing: 20, releases: 1 }, 30);
    const [, smoothed] = certificate.reconstruction;
    expect(smoothed?.figure.value).toBeLessThan(400);
    expect(smoothed?.psnr).toBeCloseTo(10 * Math.log10(255 ** 2 / (smoothed?.figure.value as number)), 9);
  });

  it('repeats itself and says what is wrong with a call', async () => {
    expect(await certifyWith({}, 12)).toEqual(await certifyWith({}, 12));
    await expect(certifyWith({}, 5)).rejects.toThrow(/5 inputs/);
    await expect(certifyWith({ releases: 0 })).rejects.toThrow(/releases is 0/);
    await expect(certifyWith({ confidence: 1 })).rejects.toThrow(/confidence is 1/);
    await expect(certifyWith({ count: 9, inputs: inputs(8) })).rejects.toThrow(/8 inputs came, count says 9/);
    await expect(certifyWith({ region: { x: 0, y: 0, width: 17, height: 1 } })).rejects.toThrow(/not inside/);
    await expect(certifyWith({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});
