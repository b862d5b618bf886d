import { describe, expect, it } from 'vitest';
import { testManifest } from '../../../../test/manifest.js';
import { type Bundle, encodeBundle, loadBundle } from '../bundle/bundle.js';
import type { Engine, RunOptions } from '../engine/engine.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import { Graph } from '../onnx/index.js';
import { float32, type Tensor } from '../tensor.js';
import { createTrustedHalf } from './trusted-half.js';

const CHANNELS = 4;
const crypto = createNodeCrypto();
const secret = new Uint8Array(32).fill(9);

async function makeBundle(): Promise<Bundle> {
  const head = Graph.create();
  head.addInput('image', 'float32', ['N', CHANNELS, 'H', 'W']);
  head.add('Relu', ['image'], {}, { outputs: ['cut'] });
  head.addOutput('cut', 'float32', ['N', CHANNELS, 'H', 'W']);
  const tail = Graph.create();
  tail.addInput('cut', 'float32', ['N', CHANNELS, 'H', 'W']);
  tail.add('Sigmoid', ['cut'], {}, { outputs: ['answer'] });
  tail.addOutput('answer', 'float32', ['N', CHANNELS, 'H', 'W']);
  const fill = (value: number): Float32Array => new Float32Array(CHANNELS).fill(value);
  const files = await encodeBundle(
    {
      head,
      tail,
      parameters: {
        kind: 'per-channel',
        shape: [CHANNELS],
        gain: fill(1),
        mean: fill(0),
        sigma: fill(0.5),
        clipLow: fill(-4),
        clipHigh: fill(4),
        variance: fill(1),
      },
      manifest: testManifest({
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', CHANNELS, 'H', 'W'] }] },
        task: { kind: 'regression', outputs: ['answer'] },
      }),
    },
    crypto,
  );
  return loadBundle(async (path) => files.get(path) as Uint8Array, crypto);
}

/** What happened, in order: the head's runs, and keystream of releases (the self-test reads 64 bytes). */
function recording(engine: Engine, events: string[]): { engine: Engine; crypto: NoiseCrypto } {
  return {
    engine: {
      ...engine,
      close: () => engine.close(),
      load: async (model, options) => {
        const session = await engine.load(model, options);
        return {
          inputs: session.inputs,
          outputs: session.outputs,
          close: () => session.close(),
          run: async (feeds, runOptions?: RunOptions) => {
            events.push('head begins');
            return session.run(feeds, runOptions).finally(() => events.push('head ends'));
          },
        };
      },
    },
    crypto: {
      ...crypto,
      aes256Ctr(key, counter) {
        const stream = crypto.aes256Ctr(key, counter);
        const fill = (out: Uint8Array) => {
          // The self-test reads less.
          if (out.length > 64) events.push('noise');
          return stream.fill(out);
        };
        return { ...stream, fill };
      },
    },
  };
}

const picture = (height: number, width: number): Tensor<'float32'> =>
  float32(
    [1, CHANNELS, height, width],
    Float32Array.from({ length: CHANNELS * height * width }, (_, i) => Math.sin(i)),
  );

describe('a trusted half', () => {
  it('draws the noise while the head runs, once it has seen the size, unless it is timed, not alone or told not to', async () => {
    const own = await createNodeEngine({ threads: 1 });
    const events: string[] = [];
    const seen = recording(own, events);
    const half = await createTrustedHalf({ bundle: await makeBundle(), ...seen });
    const eventsOf = async (task: () => Promise<unknown>): Promise<string> => {
      events.length = 0;
      await task();
      return events.join(', ');
    };
    const after = 'head begins, head ends, noise';
    const during = 'head begins, noise, head ends';
    expect(await eventsOf(() => half.release(picture(8, 6)))).toBe(after);
    expect(await eventsOf(() => half.release(picture(8, 6)))).toBe(during);
    expect(await eventsOf(() => half.release(picture(6, 8)))).toBe(after);
    expect(await eventsOf(() => half.release(picture(6, 8)))).toBe(during);
    expect(await eventsOf(() => half.release(picture(6, 8), { onTiming: () => {} }))).toBe(after);
    expect(await eventsOf(() => half.release(picture(6, 8), { drawAhead: false }))).toBe(after);
    expect(await eventsOf(() => half.releaseMany(picture(8, 6), 2))).toBe(`${during}, noise`);
    const two = () => Promise.all([half.release(picture(8, 6)), half.release(picture(8, 6))]);
    expect((await eventsOf(two)).match(/noise/g)).toHaveLength(2);
    expect(await eventsOf(() => half.release(picture(8, 6)))).toBe(during);
    await half.close();
    await own.close();
  });

  it('gives noise drawn ahead to one release alone, and in repeatable mode the same bytes either way', async () => {
    const engine = await createNodeEngine({ threads: 1 });
    const bundle = await makeBundle();
    const fresh = await createTrustedHalf({ bundle, engine, crypto });
    const releases = [];
    for (let i = 0; i < 5; i++) releases.push(await fresh.release(picture(8, 6)));
    expect(new Set(releases.map(({ keyId }) => keyId)).size).toBe(5);
    expect(new Set(releases.map(({ payload }) => payload.join())).size).toBe(5);

    const repeatable = await createTrustedHalf({ bundle, engine, crypto, noise: { mode: 'repeatable', secret } });
    const [first, second, timed] = [
      await repeatable.release(picture(8, 6)),
      await repeatable.release(picture(8, 6)),
      await repeatable.release(picture(8, 6), { onTiming: () => {} }),
    ];
    expect(second).toEqual(first);
    expect(timed).toEqual(first);
    await Promise.all([fresh.close(), repeatable.close()]);
    await engine.close();
  });

  it("gives the activation's memory away overwritten, once all its releases are made", async () => {
    const engine = await createNodeEngine({ threads: 1 });
    const half = await createTrustedHalf({ bundle: await makeBundle(), engine, crypto });
    const spent: ArrayBuffer[] = [];
    const releases = await half.releaseMany(picture(8, 6), 3, { onSpent: (memory) => spent.push(memory) });
    expect(releases).toHaveLength(3);
    expect(releases.every(({ payload }) => payload.some((value) => value !== 0))).toBe(true);
    expect(spent.map(({ byteLength }) => byteLength)).toEqual([4 * CHANNELS * 48]);
    expect(new Uint8Array(spent[0] as ArrayBuffer).every((byte) => byte === 0)).toBe(true);
    await half.close();
    await engine.close();
  });

  it('releases nothing if the noise drawn ahead fails, and wipes it if the head does', async () => {
    const engine = await createNodeEngine({ threads: 1 });
    const bundle = await makeBundle();
    let isBroken = false;
    const breaking: NoiseCrypto = {
      ...crypto,
      aes256Ctr(key, counter) {
        if (isBroken) throw new Error('no');
        return crypto.aes256Ctr(key, counter);
      },
    };
    const half = await createTrustedHalf({ bundle, engine, crypto: breaking });
    await half.release(picture(8, 6));
    isBroken = true;
    await expect(half.release(picture(8, 6))).rejects.toMatchObject({ code: 'NOISE_FAILED' });
    isBroken = false;
    const wrong = { ...picture(8, 6), dtype: 'float64' } as unknown as Tensor;
    await expect(half.release(wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(half.release(undefined as unknown as Tensor)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect((await half.release(picture(8, 6))).shape).toEqual([1, CHANNELS, 8, 6]);
    await half.close();
    await expect(half.release(picture(8, 6))).rejects.toBeInstanceOf(Error);
    await engine.close();
  });
});
